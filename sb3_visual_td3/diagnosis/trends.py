"""Robust trends: how a series moves, told so that single outliers do not decide."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sb3_visual_td3.diagnosis.series import BoolArray, FloatArray, Series

MAX_POINTS_FOR_SLOPE = 128
"""Longer series are reduced to the medians of this many bins before the pairwise slopes are taken."""

SMALLEST = 5e-324
"""The smallest positive double: a millionth of one that is almost as small would be 0, which has no logarithm."""


def theil_sen_slope(x: FloatArray, y: FloatArray) -> float:
    """Return the median of the slopes between all pairs of points; NaN with fewer than two distinct ``x``.

    Source: Theil 1950; Sen 1968, doi:10.1080/01621459.1968.10480934.

    :param x: ``(n,) float64``, finite, not decreasing.
    :param y: ``(n,) float64``, finite.
    """
    if x.size > MAX_POINTS_FOR_SLOPE:
        x, y = _bin_medians(x), _bin_medians(y)
    i, j = np.triu_indices(x.size, k=1)
    dx = x[j] - x[i]
    distinct = dx > 0
    if not distinct.any():
        return float("nan")
    return float(np.median((y[j] - y[i])[distinct] / dx[distinct]))


def growth_factor(series: Series) -> float:
    """Return by what factor the magnitude grows over the span of the series, by a robust slope of log|x|.

    Zeros are raised to a millionth of the largest magnitude. NaN with fewer than two distinct steps or
    where every value is zero.
    """
    finite = series.finite
    largest = finite.abs_max()
    if not largest > 0:
        return float("nan")
    logs = np.log(np.maximum(np.abs(finite.values), max(largest * 1e-6, SMALLEST)))
    steps = finite.offsets
    return float(np.exp(np.clip(theil_sen_slope(steps, logs) * float(steps[-1]), -700.0, 700.0)))


def later_half_change(series: Series) -> float:
    """Return the robust change (slope times span) over the later half of the steps; NaN with too few."""
    half = series.finite.tail(0.5)
    if len(half) == 0:
        return float("nan")
    steps = half.offsets
    return theil_sen_slope(steps, half.values) * float(steps[-1])


def recent(series: Series, at_least: int = 3) -> Series:
    """Return the last quarter of the points, and not fewer than ``at_least`` where there are as many.

    Of a live window that is its last fifty updates or so, of a run its last quarter.
    """
    n_points = max(at_least, -(-len(series) // 4))
    return Series(series.name, series.steps[-n_points:], series.values[-n_points:])


class Ends(NamedTuple):
    """How a quantity stood in the early and in the late part of a run."""

    early: float
    late: float
    late_begins_at: int


def episode_length_ends(lengths: Series, min_episodes: int = 3) -> Ends | None:
    """Return the median episode length of the first and the last third of the *environment steps*.

    Thirds of the steps, not of the episodes: a run whose episodes collapse consists almost wholly of
    short ones, and its first third of episodes is already short. Halves are taken where a third holds
    fewer than ``min_episodes``; None where a half holds fewer than two.

    :param lengths: x-axis: episodes; values: environment steps.
    """
    finite = lengths.finite
    finite = finite.where(finite.values > 0)
    if len(finite) == 0:
        return None
    ends = np.cumsum(finite.values)
    for part, at_least in ((1 / 3, min_episodes), (1 / 2, 2)):
        early = ends <= ends[-1] * part
        late = ends > ends[-1] * (1 - part)
        if early.sum() >= at_least and late.sum() >= at_least:
            return Ends(
                float(np.median(finite.values[early])),
                float(np.median(finite.values[late])),
                int(finite.steps[late][0]),
            )
    return None


def onset(series: Series, mask: BoolArray) -> int | None:
    """Return the step from which ``mask`` holds to the end; else the first step at which it holds."""
    if not mask.any():
        return None
    off = np.flatnonzero(~mask)
    begin = int(off[-1]) + 1 if off.size else 0
    if begin >= mask.size:
        begin = int(np.flatnonzero(mask)[0])
    return int(series.steps[begin])


def _bin_medians(values: FloatArray) -> FloatArray:
    return np.array([np.median(part) for part in np.array_split(values, MAX_POINTS_FOR_SLOPE)])
