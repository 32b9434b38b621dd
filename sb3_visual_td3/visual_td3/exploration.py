"""Exploration noise whose size follows a schedule."""

from __future__ import annotations

from typing import Any

import numpy as np
from stable_baselines3.common.noise import ActionNoise, VectorizedActionNoise


class ScheduledActionNoise(ActionNoise):
    """Gaussian noise on every action dimension; the training loop sets its size.

    :param action_shape: of one action: what is added to a ``Box(-1, 1, (2, 3))`` is ``(2, 3)`` as well
    :param sigma: standard deviation to start with, in units of the scaled action in [-1, 1]
    """

    def __init__(self, action_shape: int | tuple[int, ...], sigma: float) -> None:
        super().__init__()
        self.action_shape = action_shape
        self.sigma = sigma

    def __call__(self) -> np.ndarray:
        """:return: ``action_shape`` float32"""
        return np.asarray(np.random.normal(0.0, self.sigma, self.action_shape), np.float32)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take up a saved model's noise; earlier versions knew the number of actions only."""
        self.action_shape = state["action_shape"] if "action_shape" in state else state["action_dim"]
        self.sigma = state["sigma"]

    def __repr__(self) -> str:
        return f"ScheduledActionNoise(sigma={self.sigma})"


def set_sigma(noise: ActionNoise | None, sigma: float) -> None:
    """Set the size of scheduled noise, of every environment; noise of any other kind is left alone.

    :param noise: the model's action noise
    :param sigma: the standard deviation
    """
    for each in noise.noises if isinstance(noise, VectorizedActionNoise) else [noise]:
        if isinstance(each, ScheduledActionNoise):
            each.sigma = sigma
