"""Arrays in a snapshot store: cut into chunks, each stored once under its digest."""

from __future__ import annotations

import hashlib
import math
import os
import re
import time
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.runs.durable_files import bytes_of, read_fully, sync_folder, write_durably
from sb3_visual_td3.runs.snapshot_error import SnapshotError

CHUNK_BYTES = 512 << 10
"""What is new in a buffer is written as whole chunks, up to two of them half old: with 512 KiB, 5 % of a 40 MB buffer
cost 6 to 8 %. Smaller ones would be more files than they save bytes: each is synced, 0.3 ms on a fast disk, some ms on
a slow one."""
LARGE_CHUNK_BYTES = 4 << 20
LARGE_ARRAY_BYTES = 1 << 30
"""From here the larger chunks do: 7 GB are 1,750 files instead of 14,000. An array that grows past it is written whole
once more."""


def chunk_bytes_for(n_bytes: int) -> int:
    """:param n_bytes: of an array

    :return: of each of its chunks but the last; every kind of number fits a whole number of times
    """
    return LARGE_CHUNK_BYTES if n_bytes >= LARGE_ARRAY_BYTES else CHUNK_BYTES


def cut(array: NDArray[Any], chunk_bytes: int) -> Iterator[memoryview]:
    """Cut an array's numbers, in C order.

    :param array: any layout: one that is C-contiguous is not copied, of another one chunk at a time
    :param chunk_bytes: a multiple of the size of its numbers
    :return: as many bytes each, the last one fewer
    """
    n_numbers = chunk_bytes // array.itemsize
    flat = array.reshape(-1) if array.flags.c_contiguous else array.flat
    for start in range(0, array.size, n_numbers):
        yield bytes_of(flat[start : start + n_numbers])


class ChunkedArray:
    """A large array of a snapshot, not read yet: a :class:`~sb3_visual_td3.common.saved_state.StoredArray`.

    :param shape: of the array
    :param dtype: of its numbers
    :param chunk_bytes: of each chunk but the last
    :param chunks: their names in the store
    :param store: where they are
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        chunk_bytes: int,
        chunks: Sequence[str],
        store: ObjectStore,
    ) -> None:
        self.shape = shape
        self.dtype = dtype
        self._chunk_bytes = chunk_bytes
        self._chunks = chunks
        self._store = store

    @property
    def nbytes(self) -> int:
        """As numpy has it."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read_into(self, target: NDArray[Any]) -> None:
        """Read it to where it belongs; every byte is checked.

        :param target: C-contiguous, of the same shape and dtype; partly overwritten after an error
        :raises SnapshotError: if a chunk is missing or damaged
        :raises ValueError: if the target is of another kind
        """
        if target.shape != self.shape or target.dtype != self.dtype or not target.flags.c_contiguous:
            raise ValueError(
                f"the target is {target.shape} {target.dtype}, C-contiguous: {target.flags.c_contiguous}; "
                f"expected {self.shape} {self.dtype}, C-contiguous"
            )
        if not target.flags.writeable:
            raise ValueError("the target is read-only: the array cannot be read into it")
        for digest, part in zip(self._chunks, cut(target, self._chunk_bytes), strict=True):
            self._store.read_into(digest, part)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """:return: the array, read"""
        if copy is False:
            raise ValueError("a stored array has to be read: there is no way without a copy")
        array = np.empty(self.shape, self.dtype)
        self.read_into(array)
        return array if dtype is None else array.astype(dtype, copy=False)

    def __repr__(self) -> str:
        return f"ChunkedArray({self.shape}, {self.dtype}, {len(self._chunks)} chunks)"


_DIGEST = re.compile("[0-9a-f]{64}")
_BEGUN = ".new-"
_FOLDERS = "[0-9a-f][0-9a-f]"


def is_digest(name: object) -> bool:
    """:return: whether this can be a chunk's name: nothing else ever becomes a part of a path"""
    return isinstance(name, str) and _DIGEST.fullmatch(name) is not None


class StoredChunk(NamedTuple):
    """A chunk's name, and how many bytes it took to have it on disk: 0 if it was there."""

    digest: str
    n_bytes_written: int


class ObjectStore:
    """Chunks at ``<folder>/ab/abcdef...``. One process at a time writes.

    A file that is there with the right name and length is read once before it is trusted: one that the disk has
    damaged must not become part of the next snapshot.

    :param folder: made when the first chunk is stored
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known_good: set[str] = set()
        self._added: list[str] = []
        self._to_sync: set[Path] = set()

    def path(self, digest: str) -> Path:
        """:return: where a chunk is, or would be"""
        assert is_digest(digest)
        return self.folder / digest[:2] / digest

    def put(self, data: memoryview) -> StoredChunk:
        """Have these bytes on disk.

        :param data: not empty
        :return: their name
        :raises OSError: if they cannot be written
        """
        digest = hashlib.sha256(data).hexdigest()
        path = self.path(digest)
        try:
            n_there = os.stat(path).st_size
        except OSError:
            n_there = -1
        if n_there == len(data) and (digest in self._known_good or self._is_good(digest, len(data))):
            return StoredChunk(digest, 0)
        path.parent.mkdir(parents=True, exist_ok=True)
        begun = self.folder / f"{_BEGUN}{digest}"
        if os.path.lexists(begun):  # see begin()
            begun = begun.with_name(f"{begun.name}~{os.getpid()}-{time.monotonic_ns()}")
        write_durably(begun, [data])
        if n_there < 0:
            self._added.append(digest)
        os.replace(begun, path)
        self._to_sync.add(path.parent)
        self._known_good.add(digest)
        return StoredChunk(digest, len(data))

    def sync(self) -> None:
        """Wait until the disk has the names of what was put."""
        if self._to_sync:
            for folder in sorted(self._to_sync):
                sync_folder(folder)
            sync_folder(self.folder)
            self._to_sync.clear()

    def read_into(self, digest: str, target: memoryview) -> None:
        """Read a chunk and check it.

        :param digest: its name
        :param target: of its length; undefined after an error
        :raises SnapshotError: if it is missing, damaged or cannot be read
        """
        path = self.path(digest)
        name = f"{self.folder.name}/{digest[:2]}/{digest}"
        try:
            n_bytes = os.stat(path).st_size
            if n_bytes != len(target):
                raise SnapshotError(f"{name} is damaged (it has {n_bytes} bytes, not {len(target)})")
            is_whole = read_fully(path, target)
        except FileNotFoundError:
            raise SnapshotError(f"{name} is missing") from None
        except OSError as error:
            raise SnapshotError(f"{name} cannot be read ({error.strerror})") from error
        if not is_whole or hashlib.sha256(target).hexdigest() != digest:
            self._known_good.discard(digest)
            raise SnapshotError(f"{name} is damaged (digest differs)")
        self._known_good.add(digest)

    def begin(self) -> None:
        """Remove what a killed writer left, and forget what was added before.

        :raises SnapshotError: if a folder of the store is a link: nothing elsewhere is written or removed
        """
        self._added.clear()
        for folder in (self.folder, *self.folder.glob(_FOLDERS)):
            if folder.is_symlink():
                raise SnapshotError(f"{folder} is a link: put there what it points to")
        # A killed writer may not have come to sync names that are used again now.
        self._to_sync = set(self.folder.glob(_FOLDERS))
        for begun in self.folder.glob(f"{_BEGUN}*"):
            with suppress(OSError):  # what cannot be removed must not keep snapshots from being taken
                begun.unlink()

    def take_back(self, in_use: Container[str]) -> None:
        """Remove what was added since :meth:`begin`, as far as the operating system lets us.

        :param in_use: names that stay
        """
        for digest in self._added:
            with suppress(OSError):
                self._remove([] if digest in in_use else [digest])
        with suppress(OSError, SnapshotError):
            self.begin()

    def keep_only(self, in_use: Container[str]) -> None:
        """Remove every other chunk.

        :param in_use: names that stay
        """
        self._remove(digest for digest in list(self) if digest not in in_use)

    def __iter__(self) -> Iterator[str]:
        """:return: the names of the chunks that are there"""
        for path in self.folder.glob(f"{_FOLDERS}/*"):
            if is_digest(path.name):
                yield path.name

    def _is_good(self, digest: str, n_bytes: int) -> bool:
        try:
            self.read_into(digest, memoryview(bytearray(n_bytes)))
        except SnapshotError:
            return False
        return True

    def _remove(self, digests: Iterable[str]) -> None:
        for digest in digests:
            self.path(digest).unlink(missing_ok=True)
            self._known_good.discard(digest)
