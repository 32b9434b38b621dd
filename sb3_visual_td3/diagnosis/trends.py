"""Measure robust trends of a series: slopes, growth and levels that single outliers do not change.

A median tolerates outliers in up to half of the points, a Theil-Sen slope in up to 29 %.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from sb3_visual_td3.diagnosis.series import BoolArray, FloatArray, Series, StepArray

MAX_POINTS_FOR_SLOPE = 128
"""A series with more points is reduced to the medians of this many bins before its pairwise slopes are computed."""

SMALLEST = 5e-324
"""The smallest positive double."""


def theil_sen_slope(x: FloatArray, y: FloatArray) -> float:
    """Return the median of the slopes between all pairs of points.

    Source: Theil 1950; Sen 1968, doi:10.1080/01621459.1968.10480934.

    :param x: ``(n,) float64``, finite, not decreasing
    :param y: ``(n,) float64``, finite
    :return: the slope; NaN with fewer than two distinct ``x``
    """
    # The number of pairs grows with the square of the points: a million points would have 5e11 pairs.
    if x.size > MAX_POINTS_FOR_SLOPE:
        x, y = block_medians(x, MAX_POINTS_FOR_SLOPE), block_medians(y, MAX_POINTS_FOR_SLOPE)
    # All n(n-1)/2 pairs i < j: at most 8,128 with the bins above. Pairs at the same x have no slope.
    i, j = np.triu_indices(x.size, k=1)
    dx = x[j] - x[i]
    distinct = dx > 0
    if not distinct.any():
        return float("nan")
    return float(np.median((y[j] - y[i])[distinct] / dx[distinct]))


def growth_factor(series: Series) -> float:
    """Return the factor by which the magnitude grows over the series, from a robust slope of log|x|.

    Magnitudes below a millionth of the largest magnitude are raised to this limit, because 0 has no logarithm.

    :param series: values of any sign; non-finite values are left out
    :return: above 1 for growth; NaN with fewer than two distinct steps, or if every value is 0
    """
    finite = series.finite
    largest = finite.abs_max()
    if not largest > 0:
        return float("nan")
    # If the largest magnitude is tiny, a millionth of it underflows to 0.
    logs = np.log(np.maximum(np.abs(finite.values), max(largest * 1e-6, SMALLEST)))
    steps = finite.offsets
    # exp(x) overflows for x above 709.78, so the limit keeps the factor finite.
    return float(np.exp(np.clip(theil_sen_slope(steps, logs) * float(steps[-1]), -700.0, 700.0)))


def later_half_change(series: Series) -> float:
    """Return how much a series changes over the later half of its steps, as a robust slope times the number of steps.

    :param series: the points of one tag
    :return: the change, in the unit of the values; NaN without a finite point in that half
    """
    half = series.finite.tail(0.5)
    if len(half) == 0:
        return float("nan")
    steps = half.offsets
    return theil_sen_slope(steps, half.values) * float(steps[-1])


def recent(series: Series, at_least: int = 3) -> Series:
    """Return the last quarter of the points.

    :param series: the points of one tag
    :param at_least: the fewest points to return, if the series has them
    """
    # -(-n // 4) rounds n / 4 up.
    n_points = max(at_least, -(-len(series) // 4))
    return Series(series.name, series.steps[-n_points:], series.values[-n_points:])


class Ends(NamedTuple):
    """Hold a quantity in the early and in the late part of a run.

    :ivar early: value in the early part
    :ivar late: value in the late part
    :ivar late_begins_at: first step of the late part, on the series' own x-axis
    :ivar part: length of both parts in words: "third" or "half" of the environment steps
    """

    early: float
    late: float
    late_begins_at: int
    part: str


def episode_length_ends(lengths: Series, min_episodes: int = 3) -> Ends | None:
    """Return the median episode length of the first and the last third of the *environment steps*.

    The thirds divide the steps, not the episodes, because a policy that collapses late in the run adds many short
    episodes. If a third holds too few episodes, the function uses halves.

    :param lengths: length of each episode in environment steps
    :param min_episodes: fewest episodes in a third
    :return: both medians; None if a half holds fewer than two episodes
    """
    finite = lengths.finite
    finite = finite.where(finite.values > 0)
    if len(finite) == 0:
        return None
    # The environment step at which each episode ends, counted from the first logged episode.
    ends = np.cumsum(finite.values)
    for part, name, at_least in ((1 / 3, "third", min_episodes), (1 / 2, "half", 2)):
        early = ends <= ends[-1] * part
        late = ends > ends[-1] * (1 - part)
        if early.sum() >= at_least and late.sum() >= at_least:
            return Ends(
                float(np.median(finite.values[early])),
                float(np.median(finite.values[late])),
                int(finite.steps[late][0]),
                name,
            )
    return None


def onset(series: Series, mask: BoolArray) -> int | None:
    """Return the step from which a condition holds.

    If the condition holds at the last point, the result is the first step of the uninterrupted period that ends at the
    last point. Otherwise, the result is the first step at which the condition holds.

    :param series: points that the condition was evaluated on
    :param mask: ``(n,) bool``, whether the condition holds at each point
    :return: the step; None if the condition never holds
    """
    if not mask.any():
        return None
    # The final period begins after the last point at which the condition does not hold.
    off = np.flatnonzero(~mask)
    begin = int(off[-1]) + 1 if off.size else 0
    if begin >= mask.size:
        begin = int(np.flatnonzero(mask)[0])
    return int(series.steps[begin])


def block_medians(values: FloatArray, n_blocks: int) -> FloatArray:
    """Return the medians of consecutive blocks of equal length; the first blocks may be one value longer.

    :param values: ``(n,)``, with ``n >= n_blocks``
    :param n_blocks: number of blocks
    :return: ``(n_blocks,)``
    """
    # Blocks of the same length become the rows of a table, and one call handles all rows. A call for each block takes a
    # hundred times as long.
    length, n_longer = divmod(values.size, n_blocks)
    end = n_longer * (length + 1)
    longer = values[:end].reshape(n_longer, length + 1)
    others = values[end:].reshape(n_blocks - n_longer, length)
    return np.concatenate([np.median(longer, axis=1), np.median(others, axis=1)])


def moving_medians(values: FloatArray, window: int) -> tuple[StepArray, FloatArray]:
    """Return the medians of windows that move by a quarter of their width; the last window ends at the last value.

    :param values: ``(n,)``, in the order of their steps
    :param window: number of values in a window; more than ``n`` means a single window
    :return: index at which each window begins, and the medians
    """
    window = min(window, values.size)
    last = values.size - window
    begins = np.append(np.arange(0, last, max(1, window // 4)), last)
    return begins, np.median(sliding_window_view(values, window)[begins], axis=1)
