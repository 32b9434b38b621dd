"""Small observations, such as a vehicle's state: both of each transition are kept as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.preprocessing import get_obs_shape

from sb3_visual_td3.buffers.observation_store import AFTER, BEFORE, Continuity, Moment, Place, step_rows
from sb3_visual_td3.common.arrays import fill


class PairStore:
    """Observations that are no frames, before and after each transition.

    :param space: of one observation
    :param size: steps to hold
    :param n_envs: environments that write side by side
    """

    def __init__(self, space: spaces.Space[Any], size: int, n_envs: int) -> None:
        shape = get_obs_shape(space)
        assert isinstance(shape, tuple)
        self.shape = (size, n_envs, *shape)
        self.dtype = np.dtype(space.dtype)
        self._pairs: NDArray[Any] = np.zeros((2, 0, *self.shape[1:]), self.dtype)

    @property
    def n_bytes(self) -> int:
        """What it will need when it is full."""
        return 2 * int(np.prod(self.shape)) * self.dtype.itemsize

    def allocate(self) -> None:
        """Get the room."""
        self._pairs = np.zeros((2, *self.shape), self.dtype)

    def clear(self) -> None:
        """Forget everything: what is not asked for need not go."""

    def write(self, place: Place, obs: NDArray[Any], next_obs: NDArray[Any]) -> Continuity:
        """Store a step of all environments.

        :param place: where
        :param obs: ``(n_envs, *observation)``
        :param next_obs: the same after the step, before any reset
        :return: whether it continues the step before; it always shifts, there being no stack
        """
        n_envs = self.shape[1]
        before = step_rows("obs", obs, self.shape[1:], self.dtype)
        after = step_rows("next_obs", next_obs, self.shape[1:], self.dtype)
        continues = np.zeros(n_envs, bool)
        if place.previous is not None:
            known = self._pairs[AFTER, place.previous]
            # Bytes: a NaN is the NaN that was stored.
            continues[:] = [known[env].tobytes() == before[env].tobytes() for env in range(n_envs)]
        self._pairs[BEFORE, place.row] = before
        self._pairs[AFTER, place.row] = after
        return Continuity(continues, np.ones(n_envs, bool))

    def take(self, moment: Moment, index: Any) -> NDArray[Any]:
        """:return: a copy of the observations at an index into ``(size, n_envs)``"""
        return np.array(self._pairs[moment][index])

    def get_state(self, n_rows: int) -> dict[str, Any]:
        """Show what is held, without a copy.

        :param n_rows: rows in use
        :return: the observations before each transition and those after it, an array each: both grow at their end
        """
        return {"before": self._pairs[BEFORE, :n_rows], "after": self._pairs[AFTER, :n_rows]}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take up what was held.

        :param state: of a store made alike
        """
        for moment, name in ((BEFORE, "before"), (AFTER, "after")):
            fill(self._pairs[moment, : state[name].shape[0]], state[name])
