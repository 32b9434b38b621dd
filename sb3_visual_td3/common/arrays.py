"""Arrays that are here, and arrays that are still on disk."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@runtime_checkable
class StoredArray(Protocol):
    """An array that has not been read yet."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of its numbers."""

    def read_into(self, target: NDArray[Any]) -> None:
        """Read it straight to where it belongs: a replay buffer's frames are too many to be there twice.

        :param target: C-contiguous, of the same shape and dtype
        """

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """:return: the array, read"""


AnyArray: TypeAlias = "NDArray[Any] | StoredArray"


def fill(target: NDArray[Any], source: AnyArray) -> None:
    """Write an array over another, without a copy in between.

    :param target: C-contiguous
    :param source: of the same shape and dtype
    :raises ValueError: if shape or dtype differ: nothing is broadcast or cast
    """
    if source.shape != target.shape or source.dtype != target.dtype:
        raise ValueError(
            f"an array {source.shape} {source.dtype}: expected {target.shape} {target.dtype}, as it is here"
        )
    if isinstance(source, np.ndarray):
        target[...] = source
    else:
        source.read_into(target)
