"""Read the arrays of a saved state from disk, and check a state before an object restores it.

Replay buffers, monitors, callbacks and environments return their state as plain data, see
:class:`~sb3_visual_td3.common.types.HasState`. When a state is restored, its large arrays are still on disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@runtime_checkable
class StoredArray(Protocol):
    """Represent an array that is still on disk and is read when it is used."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of the array, without reading it."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the dtype of the array, without reading it."""

    def read_into(self, target: NDArray[Any]) -> None:
        """Read the array into memory that is already allocated, because there may be no room for a second copy.

        :param target: C-contiguous array of the same shape and dtype
        """

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Read the array into a new NumPy array."""


AnyArray: TypeAlias = "NDArray[Any] | StoredArray"


def fill(target: NDArray[Any], source: AnyArray) -> None:
    """Overwrite an array with another one, without an intermediate copy.

    :param target: C-contiguous array
    :param source: array in memory or on disk, with the same shape and dtype
    :raises ValueError: if shape or dtype differ; nothing is broadcast or cast
    """
    # Broadcasting would accept a state of a different shape without an error and fill the buffer with wrong numbers.
    if source.shape != target.shape or source.dtype != target.dtype:
        raise ValueError(f"the saved array is {source.shape} {source.dtype}: expected {target.shape} {target.dtype}")
    if isinstance(source, np.ndarray):
        target[...] = source
    else:
        source.read_into(target)


def require_same_settings(kept: Mapping[str, Any], here: Mapping[str, Any], what: str) -> None:
    """Refuse the state of an object that was created with other settings.

    Call this before anything is changed, so that the object stays usable.

    :param kept: plain settings by name, as they were saved
    :param here: current settings of the object
    :param what: name of the object, the subject of the message
    :raises ValueError: if any settings differ; the message names each of them
    """
    differing = []
    for name in dict.fromkeys([*here, *kept]):
        was, now = _shown(kept, name), _shown(here, name)
        if was != now:
            differing.append(f"{name} was {was} and is {now}")
    if differing:
        raise ValueError(
            f"{what} cannot continue from this state: {'; '.join(differing)}. Create it with the saved values"
        )


def _shown(settings: Mapping[str, Any], name: str) -> str:
    # Compared as text, because the repr of a float is exact, and because == does not distinguish True from 1.
    if name not in settings:
        return "not there"
    return repr(settings[name])
