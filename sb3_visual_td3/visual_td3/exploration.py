"""Exploration noise whose size follows a schedule."""

from __future__ import annotations

import numpy as np
from stable_baselines3.common.noise import ActionNoise, VectorizedActionNoise


class ScheduledActionNoise(ActionNoise):
    """Gaussian noise on every action dimension; the training loop sets its size.

    :param action_dim: number of action dimensions, or the shape of an action: for a ``Box(-1, 1, (2, 3))`` it is
        ``(2, 3)``. Saved models and snapshots know it by this name
    :param sigma: standard deviation to start with, in units of the scaled action in [-1, 1]
    """

    def __init__(self, action_dim: int | tuple[int, ...], sigma: float) -> None:
        super().__init__()
        self.action_dim = action_dim
        self.sigma = sigma

    def __call__(self) -> np.ndarray:
        """Draw the noise of one action, as float32."""
        return np.asarray(np.random.normal(0.0, self.sigma, self.action_dim), np.float32)

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
