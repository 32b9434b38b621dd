"""Exploration noise whose size follows a schedule."""

from __future__ import annotations

import numpy as np
from stable_baselines3.common.noise import ActionNoise, VectorizedActionNoise


class ScheduledActionNoise(ActionNoise):
    """Gaussian noise on every action dimension; the training loop sets its size.

    :param action_dim: number of action dimensions
    :param sigma: standard deviation to start with, in units of the scaled action in [-1, 1]
    """

    def __init__(self, action_dim: int, sigma: float) -> None:
        super().__init__()
        self.action_dim = action_dim
        self.sigma = sigma

    def __call__(self) -> np.ndarray:
        """:return: ``(action_dim,)`` float32"""
        return np.random.normal(0.0, self.sigma, self.action_dim).astype(np.float32)

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
