"""Store the large arrays of a run's snapshots in chunks; equal chunks are stored only once.

Each chunk is named by the SHA-256 of its content. A second snapshot shares most of the replay buffer with the first,
and writes only the new chunks.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.runs.durable_files import bytes_of, read_fully, sync_folder, write_durably
from sb3_visual_td3.runs.snapshot import SnapshotError, is_digest

CHUNK_BYTES = 512 << 10
"""Size of a chunk in bytes. With 512 KiB, a snapshot writes 6 to 8 % of a 40 MB buffer if 5 % is new. Smaller chunks
take more time."""
LARGE_CHUNK_BYTES = 4 << 20
LARGE_ARRAY_BYTES = 1 << 30
"""Arrays of at least this many bytes are stored in large chunks, so that 7 GB need 1,750 files instead of 14,000."""


def chunk_bytes_for(n_bytes: int) -> int:
    """Return the size of an array's chunks in bytes, a multiple of every item size.

    The last chunk may be smaller.

    :param n_bytes: size of the array in bytes
    """
    return LARGE_CHUNK_BYTES if n_bytes >= LARGE_ARRAY_BYTES else CHUNK_BYTES


def cut(array: NDArray[Any], chunk_bytes: int) -> Iterator[memoryview]:
    """Yield the content of an array in C order, one chunk at a time.

    :param array: array in any memory layout; the chunks are copies if the array is not C-contiguous
    :param chunk_bytes: size in bytes of each chunk except the last; a multiple of the item size
    """
    # For a transposed array, slicing array.flat copies only the slice.
    n_numbers = chunk_bytes // array.itemsize
    flat = array.reshape(-1) if array.flags.c_contiguous else array.flat
    for start in range(0, array.size, n_numbers):
        yield bytes_of(flat[start : start + n_numbers])


class ChunkedArray:
    """Represent a large array of a snapshot, and read the array from disk only when it is used.

    This class implements ``StoredArray``.

    :param shape: shape of the array
    :param dtype: dtype of the array
    :param chunk_bytes: size in bytes of each chunk except the last
    :param chunks: digests of the chunks, in order
    :param store: the store that holds the chunks
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
        """Return the size of the array in bytes, like ``numpy.ndarray.nbytes``."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read_into(self, target: NDArray[Any]) -> None:
        """Read the array into memory that is already allocated, and check every byte.

        :param target: C-contiguous array of the same shape and dtype; after an error it is partly overwritten
        :raises SnapshotError: if a chunk is missing or damaged
        :raises ValueError: if the target has a different shape, dtype or layout, or is read-only
        """
        if target.shape != self.shape or target.dtype != self.dtype or not target.flags.c_contiguous:
            raise ValueError(
                f"the target is an array with shape={target.shape}, dtype={target.dtype} and "
                f"c_contiguous={target.flags.c_contiguous}; expected shape={self.shape}, dtype={self.dtype} and "
                "c_contiguous=True"
            )
        if not target.flags.writeable:
            raise ValueError("the target is read-only: expected an array that can be written to")
        for digest, part in zip(self._chunks, cut(target, self._chunk_bytes), strict=True):
            self._store.read_into(digest, part)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Read the array into a new NumPy array."""
        if copy is False:
            raise ValueError("copy=False: an array on disk is always copied into memory; use copy=None or copy=True")
        array = np.empty(self.shape, self.dtype)
        self.read_into(array)
        return array if dtype is None else array.astype(dtype, copy=False)

    def __repr__(self) -> str:
        return f"ChunkedArray({self.shape}, {self.dtype}, {len(self._chunks)} chunks)"


_TEMPORARY = ".new-"
_FOLDERS = "[0-9a-f][0-9a-f]"


class StoredChunk(NamedTuple):
    """Hold the name of a chunk and the number of bytes written for it, which is 0 if the chunk already existed."""

    digest: str
    n_bytes_written: int


class ObjectStore:
    """Store chunks at ``<folder>/ab/abcdef...``, named by their SHA-256; only one process at a time may write.

    :param folder: folder of the chunks, created with the first chunk
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known_good: set[str] = set()
        self._added: list[str] = []
        self._to_sync: set[Path] = set()

    def path(self, digest: str) -> Path:
        """Return the path of a chunk, which need not exist."""
        assert is_digest(digest)
        return self.folder / digest[:2] / digest

    def put(self, data: memoryview) -> StoredChunk:
        """Store a chunk, unless the store already has an undamaged copy.

        :param data: the content, not empty
        :raises OSError: if it cannot be written
        """
        digest = hashlib.sha256(data).hexdigest()
        path = self.path(digest)
        # -1 means that the file is missing. A file of a different size is damaged and is replaced.
        try:
            n_there = os.stat(path).st_size
        except OSError:
            n_there = -1
        if n_there == len(data) and (digest in self._known_good or self._is_good(digest, len(data))):
            return StoredChunk(digest, 0)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f"{_TEMPORARY}{digest}"
        # A killed writer's temporary file that begin() could not remove must not block this chunk.
        if os.path.lexists(temporary):
            temporary = temporary.with_name(f"{temporary.name}~{os.getpid()}-{time.monotonic_ns()}")
        write_durably(temporary, [data])
        # The chunk is recorded before the rename, because take_back() must also find it if the rename is interrupted.
        if n_there < 0:
            self._added.append(digest)
        os.replace(temporary, path)
        self._to_sync.add(path.parent)
        self._known_good.add(digest)
        return StoredChunk(digest, len(data))

    def sync(self) -> None:
        """Wait until the folder entries of all stored chunks are on the disk, so a power failure loses no chunk."""
        if self._to_sync:
            for folder in sorted(self._to_sync):
                sync_folder(folder)
            sync_folder(self.folder)
            self._to_sync.clear()

    def read_into(self, digest: str, target: memoryview) -> None:
        """Read a chunk and check its digest.

        :param digest: name of the chunk
        :param target: memory of the chunk's size; its content is undefined after an error
        :raises SnapshotError: if the chunk is missing, damaged or cannot be read
        """
        path = self.path(digest)
        name = f"{self.folder.name}/{digest[:2]}/{digest}"
        try:
            n_bytes = os.stat(path).st_size
            if n_bytes != len(target):
                raise SnapshotError(
                    f"{name} is damaged (it has {n_bytes} bytes, not {len(target)}), so snapshots that need this chunk "
                    "cannot be loaded"
                )
            is_whole = read_fully(path, target)
        except FileNotFoundError:
            raise SnapshotError(f"{name} is missing, so snapshots that need this chunk cannot be loaded") from None
        except OSError as error:
            raise SnapshotError(f"{name} cannot be read ({error.strerror})") from error
        if not is_whole or hashlib.sha256(target).hexdigest() != digest:
            self._known_good.discard(digest)
            raise SnapshotError(
                f"{name} is damaged (its SHA-256 differs from the file name), so snapshots that need this chunk "
                "cannot be loaded"
            )
        self._known_good.add(digest)

    def begin(self) -> None:
        """Prepare for a new snapshot: remove temporary files of a killed writer, and clear the list of added chunks.

        :raises SnapshotError: if a folder of the store is a link
        """
        self._added.clear()
        # A run from another person may hold such links, and removing chunks would remove files elsewhere.
        for folder in (self.folder, *self.folder.glob(_FOLDERS)):
            if folder.is_symlink():
                raise SnapshotError(f"{folder} is a link: replace it with a copy of its target")
        # A killed writer may have stored chunks without syncing their names. This snapshot may use these chunks again.
        self._to_sync = set(self.folder.glob(_FOLDERS))
        for temporary in self.folder.glob(f"{_TEMPORARY}*"):
            # A file that cannot be removed must not prevent snapshots.
            with suppress(OSError):
                temporary.unlink()

    def take_back(self, in_use: Container[str]) -> None:
        """Remove the chunks that were added since :meth:`begin`; errors of the operating system are ignored.

        :param in_use: digests of the chunks to keep
        """
        for digest in self._added:
            if digest not in in_use:
                with suppress(OSError):
                    self._remove([digest])
        with suppress(OSError, SnapshotError):
            self.begin()

    def keep_only(self, in_use: Container[str]) -> None:
        """Remove every chunk that no snapshot uses.

        :param in_use: digests of the chunks to keep
        """
        self._remove(digest for digest in list(self) if digest not in in_use)

    def __iter__(self) -> Iterator[str]:
        """Yield the digest of every chunk in the store."""
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
