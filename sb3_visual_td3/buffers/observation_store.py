"""What a replay buffer asks of the place where it keeps observations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.buffers.frame_index import Flags

Moment = Literal[0, 1]
BEFORE: Moment = 0
"""A transition's ``obs``."""
AFTER: Moment = 1
"""A transition's ``next_obs``."""


class Place(NamedTuple):
    """Where a step of all environments is written: its row, and the row of the step before, None for the first.

    ``replaces`` says that the row holds the oldest step, which goes.
    """

    row: int
    previous: int | None
    replaces: bool


class Continuity(NamedTuple):
    """How a step follows from what is stored, for each environment: both ``(n_envs,)``.

    ``continues``: its observation is the one that the step before ended with. ``shifts``: what it ended with is that
    observation, moved on by one frame.
    """

    continues: Flags
    shifts: Flags


class ObservationStore(Protocol):
    """Keeps what every transition began and ended with, for one kind of observation."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(size, n_envs, *observation)``."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the observations."""

    @property
    def n_bytes(self) -> int:
        """What it will need when it is full."""

    def allocate(self) -> None:
        """Get the room, for use from now on."""

    def clear(self) -> None:
        """Forget everything; the room stays."""

    def write(self, place: Place, obs: NDArray[Any], next_obs: NDArray[Any]) -> Continuity:
        """Store a step of all environments, both arrays ``(n_envs, *observation)``."""

    def take(self, moment: Moment, index: Any) -> NDArray[Any]:
        """Copy observations out, by an index such as numpy's into ``(size, n_envs)``."""

    def get_state(self, n_rows: int) -> dict[str, Any]:
        """:return: what the first rows hold and what the future depends on, as plain data and views of arrays"""

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take up such a state, array by array; there is room, and it is empty."""


class ObservationView:
    """Reads like the array ``(size, n_envs, *observation)`` that Stable-Baselines3 keeps, and copies what is read.

    :param store: where the observations are
    :param moment: before the transition or after it
    """

    def __init__(self, store: ObservationStore, moment: Moment) -> None:
        self._store = store
        self._moment = moment

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        return self._store.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the array."""
        return self._store.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """:return: a copy"""
        if not isinstance(index, tuple):
            return self._store.take(self._moment, index)
        if any(part is Ellipsis or part is None for part in index):
            return np.asarray(self)[index]
        of_transitions, of_pixels = index[:2], index[2:]
        found = self._store.take(self._moment, of_transitions)
        n_kept = found.ndim - len(self.shape[2:])
        return found[(slice(None),) * n_kept + of_pixels] if of_pixels else found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """:return: a copy of everything"""
        return self[:].astype(self.dtype if dtype is None else dtype, copy=False)
