"""Watches the rewards that arrive: a large buffer shows a critic the new ones far too late."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from sb3_visual_td3.common import tags
from sb3_visual_td3.common.types import Points


class RewardMonitor:
    """Takes the smallest and the largest reward of each few steps, for a live window.

    :param sample_freq: how many steps lie between two points
    :raises ValueError: if ``sample_freq`` is below 1
    """

    def __init__(self, sample_freq: int = 10) -> None:
        if sample_freq < 1:
            raise ValueError(f"sample_freq={sample_freq}: expected a number of steps >= 1")
        self.sample_freq = sample_freq
        self._seen: list[npt.NDArray[np.floating]] = []
        self._points: dict[str, list[tuple[int, float]]] = {tags.REWARD_MIN: [], tags.REWARD_MAX: []}

    def see(self, rewards: npt.NDArray[np.floating], n_updates: int) -> None:
        """Take one step of the environments.

        :param rewards: ``(n_envs,)``, as the algorithm gets them (scaled, where VecNormalize scales them)
        :param n_updates: updates made so far, for the points
        """
        self._seen.append(np.array(rewards))
        if len(self._seen) >= self.sample_freq or not all(map(math.isfinite, rewards.tolist())):
            self._points[tags.REWARD_MIN].append((n_updates, float(np.min(self._seen))))
            self._points[tags.REWARD_MAX].append((n_updates, float(np.max(self._seen))))
            self._seen.clear()

    def read_points(self) -> Points:
        """Hand over the points since the last call; NaN is the smallest and the largest where it arrived."""
        points, self._points = self._points, {tags.REWARD_MIN: [], tags.REWARD_MAX: []}
        return points

    def get_state(self) -> dict[str, Any]:
        """:return: the last rewards, and what has not been read, as plain data"""
        points = {tag: [list(point) for point in kept] for tag, kept in self._points.items()}
        return {"seen": list(self._seen), "points": points}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from where ``get_state`` was called."""
        self._seen = [np.array(rewards) for rewards in state["seen"]]
        self._points = {tag: [(n, value) for n, value in kept] for tag, kept in state["points"].items()}
