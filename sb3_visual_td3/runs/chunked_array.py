"""Large arrays as chunks: written from their own memory and read to where they belong, never there twice."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.runs.durable_files import bytes_of
from sb3_visual_td3.runs.object_store import ObjectStore

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
    """A large array of a snapshot, not read yet: a :class:`~sb3_visual_td3.common.arrays.StoredArray`.

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
