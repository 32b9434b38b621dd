"""Saved states: arrays that are still on disk, and the checks before an object takes a state back.

Everything that a snapshot saves (replay buffers, monitors, callbacks, environments) hands over its state as plain data,
see :class:`~sb3_visual_td3.common.types.HasState`. After a restart the large arrays of that state are still on disk.
:func:`fill` reads them straight into their final place, and :func:`require_same_settings` makes sure beforehand that
the object was created with the same settings as the one that was saved.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@runtime_checkable
class StoredArray(Protocol):
    """An array that is still on disk; it is read when it is used."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape that the array has once it is read."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the dtype that the array has once it is read."""

    def read_into(self, target: NDArray[Any]) -> None:
        """Read the array into memory that is already allocated.

        The frames of a replay buffer can take most of the memory, so there is no room for a second copy.

        :param target: C-contiguous, of the same shape and dtype
        """

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Read the array into a new NumPy array."""


AnyArray: TypeAlias = "NDArray[Any] | StoredArray"


def fill(target: NDArray[Any], source: AnyArray) -> None:
    """Overwrite an array with another one, without an intermediate copy.

    :param target: C-contiguous
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

    Call this before anything is changed, so that a refused object is still usable.

    :param kept: plain settings by name, as they were saved
    :param here: current settings of the object that receives the state
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
            f"{what} cannot continue from this state: {'; '.join(differing)}. Create it with the same arguments"
        )


def _shown(settings: Mapping[str, Any], name: str) -> str:
    # Compared as text, because the repr of a float is exact and, unlike ==, tells True from 1.
    if name not in settings:
        return "not there"
    return repr(settings[name])
