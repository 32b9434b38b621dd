"""Fewer points for a plot: the extremes of every bucket stay, so no spike is lost. Never for judging."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from sb3_visual_td3.diagnosis.series import Series

MAX_POINTS = 2000


def thinned(series: Series, max_points: int = MAX_POINTS) -> Series:
    """Return at most ``max_points`` points: smallest and largest of each bucket, and both ends.

    :param series: without NaN.
    """
    n = len(series)
    if n <= max_points:
        return series
    edges = np.linspace(0, n, max_points // 2).astype(np.int64)
    kept = {0, n - 1}
    for begin, end in pairwise(edges):
        part = series.values[begin:end]
        if part.size:
            kept |= {int(begin + part.argmin()), int(begin + part.argmax())}
    chosen = np.array(sorted(kept))
    return Series(series.name, series.steps[chosen], series.values[chosen])
