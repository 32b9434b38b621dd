"""Files that are on the disk when the call returns, and what identifies their content."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.common.input_files import open_regular

_READ_BYTES = 1 << 20
_BEGUN = ".new-"
"""Begins the name of a file that is being written. A killed writer leaves it; the next one overwrites it."""


class FileDigest(NamedTuple):
    """What a file must still be."""

    n_bytes: int
    sha256: str


def bytes_of(array: NDArray[Any]) -> memoryview:
    """:param array: C-contiguous

    :return: its memory, no copy
    """
    return array.reshape(-1).view(np.uint8).data


def write_durably(path: Path, parts: Iterable[memoryview]) -> None:
    """Write a file that is not there yet, part after part, and wait until the disk has it.

    Its name is durable only after :func:`sync_folder`.

    :param path: of the file
    :param parts: its content in order
    :raises OSError: as the operating system says; the begun file is left to the caller
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        for part in parts:
            rest = part
            while rest:
                # A disk that is nearly full takes a part; the next call says why.
                rest = rest[os.write(handle, rest) :]
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Write a file beside its place and put it there when it is whole and on the disk.

    Whenever the process is killed, and wherever the disk is full, ``path`` is the old file or the new one. A symbolic
    link at ``path`` is replaced, not followed. One process at a time writes a path.

    :param path: of the file; its folder must exist
    :return: where to write it; the ending of the name is that of ``path``
    :raises OSError: as the operating system says; the old file stays as it is
    """
    begun = path.with_name(f"{_BEGUN}{path.name}")
    try:
        with suppress(FileNotFoundError):
            begun.unlink()
        yield begun
        sync_file(begun)
        os.replace(begun, path)
        sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            begun.unlink()
        raise


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a small file so that a reader sees the old content or the new one, never a part.

    :param path: of the file; its folder must exist
    :param content: text is written as UTF-8
    :raises OSError: as the operating system says; the old file stays as it is
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    with atomic_write(path) as begun:
        write_durably(begun, [memoryview(data)])


def sync_file(path: Path) -> None:
    """Wait until the disk has what was written to a file.

    :param path: of the file
    """
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(path: Path) -> None:
    """Wait until the disk has the names in a folder; some network file systems cannot, and need not.

    :param path: of the folder
    """
    try:
        sync_file(path)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP, errno.EBADF}:
            raise


def digest_of(path: Path) -> FileDigest:
    """:param path: of a file

    :return: what it holds now
    """
    digest = hashlib.sha256()
    n_bytes = 0
    buffer = memoryview(bytearray(_READ_BYTES))
    with open_regular(path) as stream:
        while n_read := stream.readinto(buffer):
            digest.update(buffer[:n_read])
            n_bytes += n_read
    return FileDigest(n_bytes, digest.hexdigest())


def read_fully(path: Path, target: memoryview, offset: int = 0) -> bool:
    """Read bytes straight to where they belong.

    :param path: of the file
    :param target: as many as are wanted
    :param offset: where they begin in the file
    :return: whether the file had that many
    """
    rest = target
    with open_regular(path) as stream:
        stream.seek(offset)
        while rest:
            n_read = stream.readinto(rest)
            if not n_read:
                return False
            rest = rest[n_read:]
    return True


def refuse_links(folder: Path) -> None:
    """Make sure that what is written below a folder stays below it, and that reading it does not wait for ever.

    A run that comes from elsewhere may hold a link where a file is expected that is cut, emptied or overwritten.

    :param folder: of the run; it may be a link itself, for the user has named it
    :raises ValueError: if there is a link, a pipe, a socket or a device anywhere below it, or it cannot be read
    """
    waiting = [Path(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                found = list(entries)
        except OSError as error:
            raise ValueError(f"{error.filename} cannot be read ({error.strerror})") from error
        for entry in found:
            if entry.is_symlink():
                raise ValueError(
                    f"{entry.path} is a link to {os.readlink(entry.path)}, and a run is resumed only within its own "
                    "folder: put there what the link points to"
                )
            if entry.is_dir():
                waiting.append(Path(entry.path))
            elif not entry.is_file():
                raise ValueError(f"{entry.path} is neither a file nor a folder: remove it")


def break_hard_links(folder: Path, but: Path) -> None:
    """Give a run files of its own where it shares them with a copy of it, by hard links.

    What appends to a file or overwrites it would otherwise change the file of the other run as well.

    :param folder: of the run, without links (see :func:`refuse_links`)
    :param but: a folder whose files are never changed, only replaced
    :raises OSError: as the operating system says
    """
    for path in folder.rglob("*"):
        if not path.is_relative_to(but) and path.is_file() and path.stat().st_nlink > 1:
            own = path.with_name(f".{path.name}.own")
            own.unlink(missing_ok=True)
            copy_start(path, own, path.stat().st_size)
            os.replace(own, path)


def open_own(path: Path, flags: int) -> int:
    """Open a file of the run to write to it, but not what a link of its name points to.

    :param path: of the file
    :param flags: of :func:`os.open`; ``O_CREAT`` makes it
    :return: the handle of a regular file
    :raises OSError: as the operating system says; ELOOP for a link
    :raises ValueError: if it is no regular file
    """
    handle = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise ValueError(f"{path} is not a regular file")
    return handle


def cut_own(handle: int, path: Path, n_bytes: int) -> None:
    """Cut a file of the run, and leave alone what other names of the same file show.

    A copy of a run may share its files with the run, by hard links (``cp -al``).

    :param handle: of :func:`open_own`, open for reading and writing
    :param path: of the file
    :param n_bytes: what stays
    """
    if os.fstat(handle).st_nlink == 1:
        os.ftruncate(handle, n_bytes)
        return
    own = path.with_name(f".{path.name}.own")
    own.unlink(missing_ok=True)
    copy_start(path, own, n_bytes)
    os.replace(own, path)


def copy_start(source: Path, target: Path, n_bytes: int) -> None:
    """Write the first bytes of a file to another one, which is not there yet.

    :param source: is only read; it may be a link
    :param target: the new file
    :param n_bytes: how many
    :raises ValueError: if the source has fewer
    """
    with open(source, "rb") as stream:
        write_durably(target, _parts_of(stream, n_bytes, source))


def _parts_of(stream: BinaryIO, n_bytes: int, source: Path) -> Iterator[memoryview]:
    while n_bytes:
        part = stream.read(min(n_bytes, _READ_BYTES))
        if not part:
            raise ValueError(f"{source} is shorter than it was")
        n_bytes -= len(part)
        yield memoryview(part)
