"""Files that are on the disk when the call returns, and what identifies their content."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.common.input_files import open_regular

_READ_BYTES = 1 << 20


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
