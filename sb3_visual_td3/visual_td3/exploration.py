"""Make exploration noise that follows ``noise_schedule``, and fit action noise to the number of environments."""

from __future__ import annotations

import numpy as np
from stable_baselines3.common.noise import ActionNoise, VectorizedActionNoise


class ScheduledActionNoise(ActionNoise):
    """Draw Gaussian noise for every action dimension; the training loop sets the standard deviation.

    With a correlation ``c``, the noise is ``sigma * x`` with ``x' = c x + sqrt(1 - c^2) e``, where ``e`` is standard
    normal: an Ornstein-Uhlenbeck process in discrete time. Its standard deviation is ``sigma``, whatever ``c`` is.

    :param action_dim: number of action dimensions, or the shape of an action. Saved models and snapshots contain this
        parameter's name, so it must not change
    :param sigma: standard deviation to start with, in units of the scaled action in [-1, 1]
    :param correlation: correlation of the noise from one step to the next, in [0, 1)
    """

    correlation = 0.0  # in models that were saved before there was a correlation

    def __init__(self, action_dim: int | tuple[int, ...], sigma: float, correlation: float = 0.0) -> None:
        super().__init__()
        self.action_dim = action_dim
        self.sigma = sigma
        self.correlation = correlation
        self.unscaled: np.ndarray | None = None

    def reset(self) -> None:
        """Begin an episode, with noise that does not depend on the previous episode."""
        self.unscaled = None

    def __call__(self) -> np.ndarray:
        """Draw the noise of one action, as float32."""
        if not self.correlation:
            return np.asarray(np.random.normal(0.0, self.sigma, self.action_dim), np.float32)
        fresh = np.random.normal(0.0, 1.0, self.action_dim)
        if self.unscaled is None:
            self.unscaled = fresh
        else:
            self.unscaled = self.correlation * self.unscaled + np.sqrt(1.0 - self.correlation**2) * fresh
        return np.asarray(self.sigma * self.unscaled, np.float32)

    def __repr__(self) -> str:
        return f"ScheduledActionNoise(sigma={self.sigma}, correlation={self.correlation})"


def set_sigma(noise: ActionNoise | None, sigma: float) -> None:
    """Set the standard deviation of scheduled noise for every environment; other kinds of noise are left unchanged.

    :param noise: the model's action noise
    :param sigma: the standard deviation, in units of the scaled action in [-1, 1]
    """
    noises = noise.noises if isinstance(noise, VectorizedActionNoise) else [noise]
    for each in noises:
        if isinstance(each, ScheduledActionNoise):
            each.sigma = sigma


def is_scheduled(noise: ActionNoise | None) -> bool:
    """Return whether a noise follows ``noise_schedule``; it may be the noise of one environment or of several."""
    if isinstance(noise, VectorizedActionNoise):
        noise = noise.base_noise
    return isinstance(noise, ScheduledActionNoise)


def noise_for_n_envs(noise: ActionNoise | None, n_envs: int) -> ActionNoise | None:
    """Return an action noise for a number of environments.

    Stable-Baselines3 saves a noise with one copy for each environment of the training.

    :param noise: the model's action noise; None if it has none
    :param n_envs: number of environments
    :return: ``noise`` itself if it fits, otherwise one with the same base noise
    """
    if not isinstance(noise, VectorizedActionNoise) or noise.n_envs == n_envs:
        return noise
    return noise.base_noise if n_envs == 1 else VectorizedActionNoise(noise.base_noise, n_envs)
