"""Write files durably and atomically, compute digests, and protect files that runs share by hard links.

A write is *durable* when two calls of ``fsync`` have returned: one for the file, and one for its folder. A write is
*atomic* if a reader sees the old content or the new content, and never a part of it. All code in ``runs/`` and
``callbacks/`` that writes a run's files uses this module, and so do the reports.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.common.input_files import open_regular

# Windows has neither O_NOFOLLOW nor O_NONBLOCK, and opens a file as text unless O_BINARY is given.
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
_NONBLOCK = getattr(os, "O_NONBLOCK", 0)
BINARY = getattr(os, "O_BINARY", 0)
"""Flag of :func:`os.open` that opens a file as bytes; 0 on systems without text mode."""
_IS_WINDOWS = os.name == "nt"
_READ_BYTES = 1 << 20
_TEMPORARY = ".new-"
"""Prefix of a file that is still being written."""


class FileDigest(NamedTuple):
    """Hold a file's size and SHA-256, which show a later reader whether the file is unchanged."""

    n_bytes: int
    sha256: str


def bytes_of(array: NDArray[Any]) -> memoryview:
    """Return the memory of an array as bytes, without a copy.

    :param array: a C-contiguous array
    """
    return array.reshape(-1).view(np.uint8).data


def write_durably(path: Path, parts: Iterable[memoryview]) -> None:
    """Write a new file part by part, and wait until its content is on the disk.

    The name of the file is durable only after :func:`sync_folder`.

    :param path: path of the file, which must not exist yet
    :param parts: the parts of the content, in order
    :raises OSError: if the operating system refuses; the incomplete file remains
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | BINARY, 0o666)
    try:
        for part in parts:
            rest = part
            while rest:
                # A nearly full disk accepts a part of the data without an error. The next call then raises the error.
                rest = rest[os.write(handle, rest) :]
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Write a file under a temporary name, and rename it once it is complete and on the disk.

    A symbolic link at ``path`` is replaced, not followed. Only one process at a time may write to ``path``.

    :param path: path of the file; its folder must exist
    :return: the temporary path to write to, with the suffix of ``path``
    :raises OSError: if the operating system refuses; the old file stays
    """
    temporary = path.with_name(f"{_TEMPORARY}{path.name}")
    # A file from a killed writer, or a link from another person, may have this name. It is removed, not overwritten.
    with suppress(FileNotFoundError):
        temporary.unlink()
    with _renamed(temporary, path):
        yield temporary
        sync_file(temporary)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a small file so that a reader sees the old content or the new one, never a part.

    Several processes may write to ``path`` at the same time; the last content stays.

    :param path: path of the file; its folder must exist
    :param content: bytes, or text, which is written as UTF-8
    :raises OSError: if the operating system refuses; the old file stays
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    # Reports of several runs, for example, may be written to one folder at the same time. With a common temporary name,
    # one process would rename the incomplete file of another. A killed process leaves its temporary file behind, which
    # is acceptable for a small file.
    temporary = path.with_name(f"{_TEMPORARY}{secrets.token_hex(4)}-{path.name}")
    with _renamed(temporary, path):
        write_durably(temporary, [memoryview(data)])


@contextmanager
def _renamed(temporary: Path, path: Path) -> Iterator[None]:
    """Rename a file when the ``with`` block has written it to the disk; remove the file if the block raises."""
    try:
        yield
        # The order matters: if the rename reached the disk before the content, a crash would leave an empty file.
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def sync_file(path: Path) -> None:
    """Wait until the content of a file is on the disk.

    :param path: path of the file, or of a folder
    """
    # Windows syncs only files that are open for writing.
    handle = os.open(path, os.O_RDWR if _IS_WINDOWS else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(path: Path) -> None:
    """Wait until the directory entries of a folder, which hold the names of its files, are on the disk.

    :param path: path of the folder
    """
    # Windows cannot open a folder, and syncs its directory entries by itself.
    if _IS_WINDOWS:
        return
    try:
        sync_file(path)
    except OSError as error:
        # Some network file systems cannot sync a folder; on these, renames are durable without it.
        if error.errno not in {errno.EINVAL, errno.ENOTSUP, errno.EBADF}:
            raise


def digest_of(path: Path) -> FileDigest:
    """Read a file and return its size and SHA-256.

    :param path: path of the file
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
    """Read bytes from a file into memory that is already allocated.

    :param path: path of the file
    :param target: memory to read into; its length is the number of bytes to read
    :param offset: position of the first byte in the file
    :return: False if the file has fewer bytes
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
    """Refuse a run folder that holds symbolic links or special files.

    If a run from another person contains links, resuming it could destroy files elsewhere.

    :param folder: folder of the run, which may be a link itself
    :raises ValueError: if there is such a file at any depth, or a folder cannot be read
    """
    waiting = [Path(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                found = list(entries)
        except OSError as error:
            raise ValueError(f"{error.filename} cannot be read ({error.strerror}): change its permissions") from error
        for entry in found:
            if entry.is_symlink():
                raise ValueError(
                    f"{entry.path} is a link to {os.readlink(entry.path)}, but a run is resumed only within its own "
                    "folder: replace the link with a copy of its target"
                )
            if entry.is_dir():
                waiting.append(Path(entry.path))
            elif not entry.is_file():
                raise ValueError(f"{entry.path} is neither a file nor a folder: remove it")


def break_hard_links(folder: Path, but: Path) -> None:
    """Replace each hard-linked file by a copy, because another run may share the file.

    After ``cp -al``, appending to such a file would also change the original run.

    :param folder: folder of the run, without symbolic links (see :func:`refuse_links`)
    :param but: a folder whose files are left as they are, because a run never changes these files in place
    :raises OSError: if the operating system refuses
    """
    for path in folder.rglob("*"):
        if not path.is_relative_to(but) and path.is_file() and path.stat().st_nlink > 1:
            _replace_by_copy(path, path.stat().st_size)


def open_own(path: Path, flags: int) -> int:
    """Open a file of the run for writing, without following a link.

    :param path: path of the file
    :param flags: flags of :func:`os.open`; ``O_CREAT`` creates the file
    :return: the handle of a regular file
    :raises OSError: if the operating system refuses; ELOOP for a link
    :raises ValueError: if it is not a regular file
    """
    # O_NONBLOCK: opening a FIFO would wait for its other end.
    handle = os.open(path, flags | _NO_FOLLOW | _NONBLOCK | BINARY, 0o666)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise ValueError(f"{path} is not a regular file: remove it")
    return handle


def cut_own(handle: int, path: Path, n_bytes: int) -> None:
    """Truncate a file of the run; if another run shares it by a hard link, the other run keeps the whole file.

    :param handle: handle from :func:`open_own`, open for reading and writing
    :param path: path of the same file
    :param n_bytes: new length in bytes
    """
    if os.fstat(handle).st_nlink == 1:
        os.ftruncate(handle, n_bytes)
    else:
        _replace_by_copy(path, n_bytes)


def _replace_by_copy(path: Path, n_bytes: int) -> None:
    # Another run may share the file by a hard link. The rename gives this run a copy; the other run keeps the old file.
    copy = path.with_name(f".{path.name}.own")
    copy.unlink(missing_ok=True)
    copy_start(path, copy, n_bytes)
    os.replace(copy, path)


def copy_start(source: Path, target: Path, n_bytes: int) -> None:
    """Copy the first bytes of a file to a new file.

    :param source: path of the file to read; it may be a link
    :param target: path of the new file, which must not exist yet
    :param n_bytes: number of bytes to copy
    :raises ValueError: if the source is shorter
    """
    with open(source, "rb") as stream:
        write_durably(target, _parts_of(stream, n_bytes, source))


def _parts_of(stream: BinaryIO, n_bytes: int, source: Path) -> Iterator[memoryview]:
    while n_bytes:
        part = stream.read(min(n_bytes, _READ_BYTES))
        if not part:
            raise ValueError(f"{source} was truncated while it was copied: {n_bytes} bytes are missing; try again")
        n_bytes -= len(part)
        yield memoryview(part)
