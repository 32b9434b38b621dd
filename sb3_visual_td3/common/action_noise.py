"""Read the size of an action noise; the noise is used by its attributes, so Stable-Baselines3 is not imported."""

from __future__ import annotations

from typing import Any

import numpy as np


def noise_std(noise: Any) -> float | None:
    """Return the standard deviation of an action noise, averaged over the dimensions of the action.

    :param noise: an action noise for one environment, or Stable-Baselines3's VectorizedActionNoise
    :return: the standard deviation; None if the noise has no attribute ``sigma`` or ``_sigma``
    """
    # The first of several environments: all have copies of the same noise. The copies follow a schedule, but the
    # ``base_noise`` of a VectorizedActionNoise keeps its first value.
    each = getattr(noise, "noises", [noise])[0]
    sigma = getattr(each, "sigma", getattr(each, "_sigma", None))
    return None if sigma is None else float(np.mean(sigma))
