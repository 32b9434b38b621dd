"""Record the smallest and the largest of the rewards that the environment returns.

Batches from a large replay buffer would show a reward of the wrong scale too late.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from sb3_visual_td3.common import tags
from sb3_visual_td3.common.numbers import to_integer
from sb3_visual_td3.common.types import Points


class RewardMonitor:
    """Record the smallest and the largest reward of every ``sample_freq`` steps, for the alerts during training.

    :param sample_freq: number of steps between two points
    :raises ValueError: if ``sample_freq`` is not an integer >= 1
    """

    def __init__(self, sample_freq: int = 10) -> None:
        self.sample_freq = to_integer("sample_freq", sample_freq, 1)
        self._seen: list[npt.NDArray[np.floating]] = []
        self._points: dict[str, list[tuple[int, float]]] = {tags.REWARD_MIN: [], tags.REWARD_MAX: []}

    def see(self, rewards: npt.NDArray[np.floating], n_updates: int) -> None:
        """Add the rewards of one step of the environments.

        :param rewards: ``(n_envs,)``, scaled as the critics see them
        :param n_updates: gradient updates made so far
        """
        self._seen.append(np.array(rewards))
        # A non-finite reward becomes a point at once, because training may end with this step.
        if len(self._seen) >= self.sample_freq or not all(map(math.isfinite, rewards.tolist())):
            self._points[tags.REWARD_MIN].append((n_updates, float(np.min(self._seen))))
            self._points[tags.REWARD_MAX].append((n_updates, float(np.max(self._seen))))
            self._seen.clear()

    def read_points(self) -> Points:
        """Return the points since the last call.

        If a reward of a point was NaN, both the smallest and the largest reward of the point are NaN.
        """
        points, self._points = self._points, {tags.REWARD_MIN: [], tags.REWARD_MAX: []}
        return points

    def get_state(self) -> dict[str, Any]:
        """Return the last rewards and all points that have not been read yet, as plain data."""
        points = {tag: [list(point) for point in kept] for tag, kept in self._points.items()}
        return {"seen": list(self._seen), "points": points}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore the state that ``get_state`` returned."""
        self._seen = [np.array(rewards) for rewards in state["seen"]]
        self._points = {tag: [(n, value) for n, value in kept] for tag, kept in state["points"].items()}
