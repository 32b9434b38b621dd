"""Answer "is it learning?" from the curve of returns that a run logged.

A curve is measured in units of its own noise, so the scale of the rewards does not matter. A curve counts as learning
only if it rises above two kinds of noise.

- *The spread of single episodes* says whether a change matters. The gain is divided by this spread (Cohen's d), see
  :func:`episode_spread`.
- *The wander of the curve* is the size of its slow fluctuations, see :func:`block_wander`. It says whether a change is
  too large to be noise. Consecutive returns are correlated, so a test for independent points would report slow
  fluctuations as learning.

The answer for a rise, with the gain in units of the spread of single episodes and the relative size as the gain divided
by ``max(|start|, |end|)``:

================  ==================  =====================  ==================================
Gain              Relative size       Exceeds the wander     Answer
================  ==================  =====================  ==================================
2 or more         any                 yes (3 times)          "yes"
0.5 to 2          3/4 or more         yes (4 times)          "yes", with ten points or more
1 or more         any                 no                     "unknown"
1 to 2            below 3/4           any                    "unknown"
below 1           1/3 or more         yes (3 times)          "unknown"
below 1           below 1/3           yes (3 times)          "no"; "unknown" below twenty points
below 1           any                 no                     "no"
================  ==================  =====================  ==================================

A curve of ten to nineteen points that rises almost throughout never gets "no". "No" also needs a run that is long
enough, and "yes" a curve that covers the run. A fall is judged before a rise, see ``LARGE_FALL``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import permutations
from typing import Literal, NamedTuple

import numpy as np

from sb3_visual_td3.common.tags import EVAL_SUCCESS_RATE, OF_SB3, TAGS, is_on_episodes
from sb3_visual_td3.diagnosis.numerals import rounded
from sb3_visual_td3.diagnosis.series import FloatArray, Series, SeriesSet, aligned, once_per_run
from sb3_visual_td3.diagnosis.tag_search import (
    ROLLOUT_WINDOW,
    STANDARD_PREFIXES,
    ReturnTag,
    find_actor_losses,
    find_critic_losses,
    find_lengths,
    find_q_values,
    find_returns,
    is_entropy_coefficient,
    is_on_environment_steps,
    is_standard,
    may_be_sum,
    return_tag,
)
from sb3_visual_td3.diagnosis.trends import block_medians, moving_medians

Answer = Literal["yes", "no", "unknown"]

# The thresholds on the effect size d. With normal noise, P(a late episode beats an early one) = Phi(d / sqrt(2)), which
# is 0.92 for d = 2 and 0.76 for d = 1. Between these two d the answer is "unknown".
CLEAR_GAIN, SURE_GAIN = 2.0, 3.5
"""A gain of at least ``CLEAR_GAIN`` standard deviations of the returns of single episodes counts as learning if it is
too large to be noise. A curve of fewer than ten points needs a gain of at least ``SURE_GAIN`` standard deviations."""
LONE_GAIN = 5.0
"""The start level of a curve of ten to nineteen points is usually its first point, but this point may be an outlier. If
the gain from this point lies between ``NO_GAIN`` and ``LONE_GAIN``, the start level is the median of the first three
points. The two limits are in standard deviations of the returns of single episodes."""
NO_GAIN = 1.0
"""The answer to "is it learning?" may be "no" if the gain is below this many standard deviations of the returns of
single episodes."""
LARGE_PART, LEAST_GAIN = 0.75, 0.5
"""A gain below ``CLEAR_GAIN`` can still count as learning. It must be at least ``LEAST_GAIN`` standard deviations, and
at least ``LARGE_PART`` times ``max(|start|, |end|)``."""
SMALL_PART = 1 / 3
"""A gain below ``NO_GAIN`` counts as no learning in two cases: if it is below this fraction of
``max(|start|, |end|)``, or if it may be only noise."""
WANDER, SURE_WANDER = 3.0, 4.0
"""A change of the return curve is too large to be noise if it exceeds ``WANDER`` times the standard deviation of
changes that are only noise. A gain below ``CLEAR_GAIN`` counts as learning only if it exceeds ``SURE_WANDER`` times
this standard deviation."""
MONOTONE = 0.6
"""In a curve of ten to nineteen points, the rise between two neighbouring points may exceed the noise. If Kendall's tau
with the order of the points is at least this value, the spread of single episodes is estimated without the trend."""
FEW_VALUES = 5
"""Medians hide most changes of returns with at most this many distinct values, such as 0 and 1, and of returns most of
which are the smallest one. Means of blocks of episodes replace such returns if there are at least
``MIN_EPISODES_OF_BLOCKS``."""
MIN_EPISODES_OF_BLOCKS = 200
MOST_BLOCKS = 100
RANGE_IN_SPREADS = 8.0
"""The spread of returns with at most ``FEW_VALUES`` distinct values is at most their range divided by this number, so a
rise by a quarter of the range is ``CLEAR_GAIN``. The standard deviation of returns of 0 and 1 is up to half of the
range, so even a rise from 0.5 to 1 would be small."""
RISE = 1.645
"""A curve counts as still rising only if the rise over its last third exceeds this many standard errors (one-sided test
at 5 %)."""
LARGE_FALL = 0.5
"""If a curve learned up to its peak and then fell by at least one standard deviation of the returns of single episodes,
the answer to "is it learning?" is "no" under three conditions:

- The curve lost at least this fraction of the gain that it had at its peak.
- The fall is too large to be noise, or the level at the end no longer shows learning.
- The run is long enough, see ``MIN_STEPS_FOR_NO``."""
NOTED_FALL = 0.3
"""If a curve has lost at least this fraction of the gain that it had at its peak, the answer to "is it learning?" is
never "yes"."""

TRAINED_STEPS = 20.0
FIRST_Q = 0.05
MAX_FIRST_Q = 10_000
"""A flat return with a Q of its final size, worth at least ``TRAINED_STEPS`` rewards, comes from a model that was
trained before, if the first Q was logged within this fraction of the run and this number of steps. Later, the Q of a
new critic may have its final size too."""
SOLVED = 0.9
"""With at least this success rate, a task counts as solved."""
MIN_POINTS_OF_SUM = 50
"""A curve of fewer points is not recognised as the sum of all returns so far."""

MIN_POINTS = 5
"""A series with fewer points is too short to judge. In many public runs, SB3's EvalCallback logged only five points."""
MIN_POINTS_FOR_NO = 10
MIN_EPISODES_FOR_NO = 50
MIN_STEPS_FOR_NO = 10_000
"""A flat curve means "not learning" only if the run has at least this many environment steps, ``MIN_POINTS_FOR_NO``
points and ``MIN_EPISODES_FOR_NO`` episodes."""
N_BLOCKS = 20
"""The largest number of blocks into which a curve is divided to measure its slow fluctuations, see ``block_wander``."""
LONGEST_GAP = 0.2
"""A part of a curve counts as missing only if a gap between two points is longer than this fraction of the curve's
steps. A curve with a missing part never gives the answer "yes" to "is it learning?"."""

WRITTEN_TOGETHER = 0.9
"""Two tags count as logged together if they share this fraction of their steps, in the range where they overlap."""

SHORT_EPISODE = 3.0
"""If episodes become shorter than this many steps, a rise of the return does not show learning. If rewards are
negative, shorter episodes alone raise the return."""
STILL_NEGATIVE = 0.5
"""A rise of a negative return does not show learning in the following case: episodes last at least twice as long as at
the start, and |return| is still at least this fraction of its value at the start. For example, a walking robot may have
learned only to stand still until the time limit."""
LONG_EPISODE = 1000.0
"""Number of steps that an episode is assumed to last if no lengths are logged: the time limit of most benchmark
tasks."""
EPISODE_AXIS_SPACING = 100
"""The x-axis of a training return is assumed to count episodes if the points are regularly spaced and at most this far
apart."""
SAME_LENGTH = 2.0
"""If the last step of a return and the last step of the tags on environment steps differ at most by this factor, the
x-axis of the return counts environment steps. Numbers of episodes are smaller, because an episode has several steps."""


class CurveState(Enum):
    """Define the possible shapes of a return curve."""

    IMPROVING = "improving"
    PLATEAU = "plateau after improving"
    FLAT = "flat"
    DECLINING = "declining"
    COLLAPSED = "collapsed after learning"
    TOO_SHORT = "too short to say"
    UNCLEAR = "unclear"


@dataclass(frozen=True)
class ReturnCurve:
    """Hold the judgement of one return curve.

    :param tag: the name of the series
    :param state: the shape of the curve
    :param learning: the answer to "is it learning?" from this curve alone
    :param n_points: number of finite points
    :param start: median of the first points
    :param late: median of the last tenth of the points
    :param peak: the highest median over a tenth of the points
    :param peak_step: the step in the middle of the points that give ``peak``; None if the curve is too short
    :param first_step: the first step; None if the curve is too short
    :param last_step: the last step; None without points
    :param gain: ``late - start``, in standard deviations of the returns of single episodes; NaN if the curve is too
        short
    :param lost: fraction of the gain at the peak that is lost at the end, ``(peak - late) / (peak - start)``
    :param still_rising: whether the curve rises over its last third and ends at least as high as its earlier peak
    :param reasons: the deciding facts, in words
    """

    tag: str
    state: CurveState
    learning: Answer
    n_points: int
    start: float = math.nan
    late: float = math.nan
    peak: float = math.nan
    peak_step: int | None = None
    first_step: int | None = None
    last_step: int | None = None
    gain: float = math.nan
    lost: float = 0.0
    still_rising: bool = False
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Learning:
    """Hold the answer to "is it learning?" for one run.

    :param answer: the answer from all curves together
    :param curve: the curve that represents the run; None if no return is logged
    :param curves: the judged curves, evaluation first
    :param reasons: the deciding facts, in words
    """

    answer: Answer
    curve: ReturnCurve | None
    curves: tuple[ReturnCurve, ...] = ()
    reasons: tuple[str, ...] = ()


# ---- Noise


def episode_spread(values: FloatArray, averaged_over: int = 1, episodes_between: float | None = None) -> float:
    """Estimate the standard deviation of the returns of single episodes from differences of neighbouring points.

    For normal noise, the 68 % quantile of the absolute differences is sqrt(2) times the standard deviation of the
    noise.

    If each point is a moving mean over ``W`` episodes, of which ``k`` are new at each point, the difference has the
    variance ``2 k sigma^2 / W^2``.

    :param values: the values of the curve, ``(n,)``, finite, with ``n >= 2``
    :param averaged_over: number of episodes that one point averages, ``W``
    :param episodes_between: number of new episodes at each point, ``k``; None stands for ``W``
    """
    steps = np.abs(np.diff(values))
    of_points = float(np.quantile(steps, 0.6827)) / math.sqrt(2.0)
    if of_points == 0.0:
        of_points = math.sqrt(float(np.mean(steps**2)) / 2.0)
    exchanged = averaged_over if episodes_between is None else min(max(episodes_between, 1.0), averaged_over)
    return of_points * averaged_over / math.sqrt(exchanged)


def spread_around_trend(values: FloatArray, averaged_over: int = 1, episodes_between: float | None = None) -> float:
    """Estimate the standard deviation of the returns of single episodes from second differences.

    A steady trend cancels out of the second differences. The parameters are those of :func:`episode_spread`.
    """
    bends = np.abs(np.diff(values, n=2))
    new = averaged_over if episodes_between is None else min(max(episodes_between, 1.0), averaged_over)
    # The second difference of moving means has the variance 4 k sigma^2 / W^2, or 6 sigma^2 / W for independent means.
    variance = (4.0 * new + 2.0 * max(2.0 * new - averaged_over, 0.0)) / averaged_over**2
    return float(np.quantile(bends, 0.6827)) / math.sqrt(variance)


def is_monotone(values: FloatArray) -> bool:
    """Return whether a curve rises almost throughout, see ``MONOTONE``."""
    i, j = np.triu_indices(values.size, k=1)
    return float(np.sign(values[j] - values[i]).mean()) >= MONOTONE


def block_wander(values: FloatArray) -> float:
    """Estimate the size of the slow fluctuations of a curve.

    The curve is divided into blocks of consecutive points. A slow fluctuation moves the medians of the blocks. A steady
    trend and single jumps do not count as fluctuations.

    :param values: the values of the curve, ``(n,)``, finite, with ``n >= 5``
    :return: standard deviation of the median of a block
    """
    # Second differences of the medians of blocks cancel a steady trend. The median of these differences ignores single
    # jumps. A second difference has six times the variance of one median.
    n_blocks = min(N_BLOCKS, max(values.size // 2, MIN_POINTS))
    levels = block_medians(values, n_blocks)
    bends = levels[:-2] - 2.0 * levels[1:-1] + levels[2:]
    return float(1.4826 * np.median(np.abs(bends)) / math.sqrt(6.0))


def is_still_rising(values: FloatArray, error: float = 0.0) -> bool:
    """Return whether a curve rises over its last third and ends at least as high as the peak before this third.

    The test is Mann-Kendall on block medians, one-sided at 5 %. The points of a moving mean are not independent, so the
    rise must also exceed ``RISE`` times its standard error.

    :param values: ``(n,)`` values of the curve, finite
    :param error: standard error of the rise; with 0, any positive rise is enough
    """
    window = max(2, values.size // 10)
    split = -(-2 * values.size // 3)
    last = values[split:]
    if last.size < 3 or split < window:
        return False
    levels = block_medians(last, min(10, last.size))
    i, j = np.triu_indices(levels.size, k=1)
    score = float(np.sign(levels[j] - levels[i]).sum())
    n = levels.size
    if score <= 1.645 * math.sqrt(n * (n - 1) * (2 * n + 5) / 18.0):
        return False
    before, _ = _peak(np.zeros(split), values[:split], window)
    late = float(np.median(values[-window:]))
    if late - float(np.median(last[:window])) <= RISE * error:
        return False
    return late >= before


# ---- One curve


def judge_curve(
    series: Series,
    averaged_over: int = 1,
    *,
    lengths: Series | None = None,
    on_steps: bool = True,
    is_complete: bool = True,
    succeeds: bool | None = None,
) -> ReturnCurve:
    """Judge the shape of one return curve against its own noise.

    :param series: returns by step, in any scale; points that are not finite are left out
    :param averaged_over: number of episodes that one point averages
    :param lengths: episode lengths in environment steps; None if they are not known
    :param on_steps: whether the x-axis counts environment steps; otherwise, it counts episodes
    :param is_complete: whether the series covers the whole run; if not, ``learning`` is never ``"yes"``
    :param succeeds: whether an episode ever ended in success; None if no success rate is logged
    """
    finite = _without_repeats(series.finite)
    n = len(finite)
    if n < MIN_POINTS:
        last_step = int(finite.steps[-1]) if n else None
        reason = f"{series.name}: too few points for a curve: {n}"
        return ReturnCurve(series.name, CurveState.TOO_SHORT, "unknown", n, last_step=last_step, reasons=(reason,))
    largest = float(np.abs(finite.values).max())
    # Squares of the largest doubles overflow, and squares of the smallest are 0. No answer depends on the scale.
    unit = largest if largest > 1e150 or 0.0 < largest < 1e-150 else 1.0
    best, values_range = float(finite.values.max()) / unit, float(np.ptp(finite.values / unit))
    has_few_values = False
    if averaged_over == 1 and n >= MIN_EPISODES_OF_BLOCKS and _are_medians_blind(finite.values):
        has_few_values = np.unique(finite.values).size <= FEW_VALUES
        finite, averaged_over = _means_of_blocks(finite)
        n = len(finite)
    values = finite.values / unit
    experience = _experience(finite, averaged_over, lengths, on_steps=on_steps)
    window = max(2, n // 10)
    spread = episode_spread(values, averaged_over, experience.episodes_between)
    is_steady = MIN_POINTS_FOR_NO <= n < N_BLOCKS and is_monotone(values)
    if is_steady:
        around_trend = spread_around_trend(values, averaged_over, experience.episodes_between)
        # Without any noise, a spread of 0 could not divide the gain.
        spread = min(spread, max(around_trend, 1e-3 * spread))
    if has_few_values:
        spread = min(spread, values_range / RANGE_IN_SPREADS)
    late = float(np.median(values[-window:]))
    start, n_first = _start(values, late, spread)
    # The standard error of the difference of two medians; a median has pi / 2 times the variance of a mean.
    of_late = 1.0 / experience.episodes_in(window, averaged_over)
    of_start = 1.0 / experience.episodes_in(n_first, averaged_over)
    error = spread * math.sqrt(math.pi / 2.0 * (of_start + of_late))
    noise = _Noise(spread, block_wander(values), error, n, is_steady)
    peak, peak_step = _peak(finite.steps.astype(np.float64), values, window)
    curve = ReturnCurve(
        series.name,
        CurveState.UNCLEAR,
        "unknown",
        n,
        start=start * unit,
        late=late * unit,
        peak=peak * unit,
        peak_step=peak_step,
        first_step=int(finite.steps[0]),
        last_step=int(finite.steps[-1]),
        lost=(peak - late) / (peak - start) if peak > start else 0.0,
        still_rising=is_still_rising(values, spread * experience.error_of_rise(n, window, averaged_over)),
    )
    if _is_running_sum(finite.values, series.name):
        reason = f"{series.name}: seems to be the sum of all returns so far, which rises with any policy"
        return replace(curve, reasons=(reason,))
    # If all points are equal, the noise is 0, and the gain cannot be divided by it.
    if float(np.ptp(values)) == 0.0:
        return _all_equal(curve, averaged_over, experience, _only_length(finite, lengths), succeeds)
    curve = replace(curve, gain=(late - start) / noise.spread)
    # The fall is judged before the rise: a curve that has lost half of its gain may still end clearly above its start.
    if noise.is_learning(start, peak) and curve.lost >= NOTED_FALL and peak - late >= noise.spread:
        return _fallen(curve, noise, experience, (start, late, peak), averaged_over)
    if noise.is_learning(start, late):
        return _risen(curve, finite, is_complete=is_complete)
    judged = _not_risen(curve, noise, experience, (start, late, peak), averaged_over)
    if has_few_values and judged.learning == "no" and 0.0 < best <= late + values_range / RANGE_IN_SPREADS:
        # The rise may have ended within the first block.
        reason = f"nearly all episodes reach {rounded(best * unit)}, the best return that was seen"
        judged = replace(judged, learning="unknown", reasons=(*judged.reasons, reason))
    return judged


def _fallen(
    curve: ReturnCurve,
    noise: _Noise,
    experience: _Experience,
    levels: tuple[float, float, float],
    averaged_over: int,
) -> ReturnCurve:
    """Judge a curve that rose and then lost at least the fraction ``NOTED_FALL`` of its gain."""
    start, late, peak = levels
    reason = (
        f"{curve.tag}: rose from {rounded(curve.start)} to {rounded(curve.peak)} near step {curve.peak_step:,} and "
        f"ends at {rounded(curve.late)}: {min(curve.lost, 1.0):.0%} of the gain is lost"
    )
    is_clear = curve.lost >= LARGE_FALL and (noise.stands_out(peak - late) or not noise.is_learning(start, late))
    answer: Answer = "no" if is_clear and experience.is_enough_for_no(curve.n_points, averaged_over) else "unknown"
    return replace(curve, state=CurveState.COLLAPSED, learning=answer, reasons=(reason,))


def _risen(curve: ReturnCurve, series: Series, *, is_complete: bool) -> ReturnCurve:
    """Judge a curve that rose by more than its noise."""
    curve = replace(
        curve,
        state=CurveState.IMPROVING if curve.still_rising else CurveState.PLATEAU,
        reasons=(_gain_in_words(curve),),
    )
    doubts = []
    if len(series) < MIN_POINTS_FOR_NO and not (curve.gain >= SURE_GAIN and _last_beat_first_half(series.values)):
        doubts.append(f"too few points to be sure with this noise: {len(series)}")
    if curve.lost >= NOTED_FALL:
        doubts.append(f"{curve.lost:.0%} of the gain at step {curve.peak_step:,} is lost, or was noise")
    if not is_complete or _has_hole(series):
        doubts.append(f"{curve.tag} covers only a part of the run")
    return replace(curve, learning="unknown" if doubts else "yes", reasons=(*curve.reasons, *doubts))


def _not_risen(
    curve: ReturnCurve,
    noise: _Noise,
    experience: _Experience,
    levels: tuple[float, float, float],
    averaged_over: int,
) -> ReturnCurve:
    """Judge a curve that did not rise, or that rose by no more than its noise."""
    start, late, peak = levels
    curve = replace(curve, reasons=(_gain_in_words(curve),))
    if not experience.is_enough_for_no(curve.n_points, averaged_over):
        reason = "the run is too short to call that a failure"
        return replace(curve, state=CurveState.TOO_SHORT, reasons=(*curve.reasons, reason))
    if not noise.is_no_gain(start, late) or noise.is_large_rise(start, peak):
        return curve
    is_decline = late < start and noise.stands_out(start - late)
    curve = replace(curve, state=CurveState.DECLINING if is_decline else CurveState.FLAT)
    if curve.still_rising:
        return replace(curve, reasons=(*curve.reasons, "the last third still rises to the curve's highest level"))
    return replace(curve, learning="no") if is_decline else _flat(curve)


def _flat(curve: ReturnCurve) -> ReturnCurve:
    """Answer "no" for a flat curve, or "unknown" if the policy may have learned before the first point."""
    assert curve.first_step is not None
    assert curve.last_step is not None
    if not _begins_late(curve.first_step, curve.last_step):
        return replace(curve, state=CurveState.FLAT, learning="no")
    reason = f"the curve begins only at step {curve.first_step:,}: the policy may have learned before"
    return replace(curve, state=CurveState.FLAT, reasons=(*curve.reasons, reason))


def _all_equal(
    curve: ReturnCurve, averaged_over: int, experience: _Experience, length: float | None, succeeds: bool | None
) -> ReturnCurve:
    """Judge a curve whose points are all equal: the policy never varies, or the logger repeats a value.

    :param length: the length of all episodes; None if it varies or is not known
    :param succeeds: whether an episode ever ended in success; None if it is not known
    """
    reason = f"{curve.tag}: all {curve.n_points} points are {rounded(curve.late)}"
    curve = replace(curve, gain=0.0, reasons=(reason,))
    if length is not None and math.isclose(curve.late, length, rel_tol=1e-3):
        # Each step earns 1, and the episodes always last to the time limit.
        reason += ", the length of the episodes: the policy may have learned before the first point"
        return replace(curve, state=CurveState.FLAT, reasons=(reason,))
    # Each step costs 1, and no episode reaches a goal before the time limit.
    if succeeds:
        reason += ", and the episodes are successful: the policy may have learned before the first point"
        return replace(curve, state=CurveState.UNCLEAR, reasons=(reason,))
    is_failure = succeeds is False or (length is not None and math.isclose(-curve.late, length, rel_tol=1e-3))
    # Otherwise, a mean over the last hundred training episodes is never constant while episodes end.
    if averaged_over >= ROLLOUT_WINDOW and not is_failure:
        reason += ": no episode seems to end, or the logger repeats an old value"
        return replace(curve, state=CurveState.UNCLEAR, reasons=(reason,))
    if experience.is_enough_for_no(curve.n_points, averaged_over):
        return _flat(curve)
    return replace(curve, state=CurveState.TOO_SHORT)


def _gain_in_words(curve: ReturnCurve) -> str:
    return (
        f"{curve.tag}: from {rounded(curve.start)} to {rounded(curve.late)}, a gain of {curve.gain:.1f} times the "
        "spread of single episodes"
    )


class _Noise(NamedTuple):
    """Hold the noise of a return curve, with which a rise or fall of the curve is compared.

    :param spread: standard deviation of the returns of single episodes
    :param wander: standard deviation of the median of a block of points
    :param error: standard error of a difference between two levels, for independent points
    :param n: number of points
    :param is_steady: whether the curve is short and rises almost throughout, see ``MONOTONE``
    """

    spread: float
    wander: float
    error: float
    n: int
    is_steady: bool = False

    def stands_out(self, change: float, times: float = WANDER) -> bool:
        """Return whether a change from one level of the curve to another is too large to be noise.

        :param change: the size of the change, positive
        :param times: the change must exceed this many times the standard deviation of changes that are only noise
        """
        # The standard deviation is the larger of sqrt(2) * wander and error. In a curve with fewer than ten points
        # (MIN_POINTS_FOR_NO), wander cannot be measured.
        wander = math.sqrt(2.0) * self.wander if self.n >= MIN_POINTS_FOR_NO else 0.0
        return change > times * max(wander, self.error)

    def is_learning(self, start: float, level: float) -> bool:
        """Return whether the rise from ``start`` to ``level`` shows learning.

        The rise must be large, and must exceed the noise (see ``stands_out``). A rise is large if it is at least
        ``CLEAR_GAIN`` standard deviations of the returns of single episodes. In some tasks, these returns vary so
        widely that no rise gets that far. In a curve of at least ten points, a smaller rise therefore also counts as
        large if it is at least ``LEAST_GAIN`` standard deviations and at least ``LARGE_PART`` times
        ``max(|start|, |level|)``.
        """
        gain = level - start
        if gain >= CLEAR_GAIN * self.spread:
            return self.stands_out(gain)
        if self.n < MIN_POINTS_FOR_NO or gain < LEAST_GAIN * self.spread:
            return False
        return self.is_large_rise(start, level, SURE_WANDER)

    def is_large_rise(self, start: float, level: float, times: float = WANDER) -> bool:
        """Return whether the rise from ``start`` to ``level`` is large, and exceeds the noise.

        Here, a rise is large if it is at least ``LARGE_PART`` times ``max(|start|, |level|)``. See ``stands_out`` for
        the noise and for ``times``.
        """
        gain = level - start
        return gain >= LARGE_PART * max(abs(start), abs(level)) and self.stands_out(gain, times)

    def is_no_gain(self, start: float, level: float) -> bool:
        """Return whether the rise from ``start`` to ``level`` is too small to show that anything was learned."""
        gain = level - start
        if gain >= NO_GAIN * self.spread or self.is_steady:
            return False
        # In a short curve, the spread is too uncertain to call a rise small that exceeds the noise.
        is_small = self.n >= N_BLOCKS and gain < SMALL_PART * max(abs(start), abs(level))
        return is_small or not self.stands_out(gain)


def _begins_late(first_step: int, last_step: int) -> bool:
    """Return whether a curve begins after the middle of the steps from 0 to its last point.

    A run that continues an earlier run in a new folder has such a curve. Its policy may have learned before.
    """
    return first_step > last_step - first_step


def _n_first(n: int) -> int:
    """Return the number of points that give the starting level of a curve of ``n`` points.

    The number is small, because the level would otherwise already contain the rise of a fast learner.
    """
    at_least = 1 + int(n >= 20) + int(n >= 40)
    return max(at_least, n // 20)


def _start(values: FloatArray, late: float, spread: float) -> tuple[float, int]:
    """Return the level at which a curve starts, and the number of points from which it was computed.

    The level is the median of the first points. :func:`_n_first` returns their number, which is 1 for short curves. If
    this one point may be an outlier (see ``LONE_GAIN``), the level is the median of the first three points.
    """
    n_first = _n_first(values.size)
    start = float(np.median(values[:n_first]))
    # After a rise of at least LONE_GAIN, the policy may have learned before the second point, so only the first point
    # shows the start.
    is_doubtful = NO_GAIN * spread <= late - start < LONE_GAIN * spread
    if n_first > 1 or values.size < MIN_POINTS_FOR_NO or not is_doubtful:
        return start, n_first
    return float(np.median(values[:3])), 3


def _peak(steps: FloatArray, values: FloatArray, window: int) -> tuple[float, int]:
    """Return the highest median over a window of points, and the step in the middle of that window."""
    begins, levels = moving_medians(values, window)
    best = int(np.argmax(levels))
    begin = int(begins[best])
    return float(levels[best]), int(np.median(steps[begin : begin + window]))


def _last_beat_first_half(values: FloatArray) -> bool:
    """Return whether the last two points both exceed every point of the first half.

    One in six curves of five points passes this test by pure chance, so the caller also requires a large gain.
    """
    return bool(values[-2:].min() > values[: values.size // 2].max())


def _has_hole(series: Series) -> bool:
    """Return whether a part of the curve is missing."""
    pauses = np.diff(series.offsets)
    longest, span = float(pauses.max()), float(pauses.sum())
    if len(series) < MIN_POINTS_FOR_NO:
        return longest > 0.5 * span
    return longest > LONGEST_GAP * span and longest > 5.0 * float(np.median(pauses))


def _only_length(series: Series, lengths: Series | None) -> float | None:
    """Return the length of all episodes in the range of a curve; None if it varies or is not known."""
    if lengths is None:
        return None
    known = lengths.finite
    within = known.values[(known.steps >= series.steps[0]) & (known.steps <= series.steps[-1])]
    if within.size < 2 or float(np.ptp(within)) > 1e-3 * abs(float(within[0])):
        return None
    return float(within[0])


def _is_running_sum(values: FloatArray, name: str) -> bool:
    """Return whether a curve is the sum of all returns so far.

    The name must allow this. A sum changes in one direction only, it begins at about one of its increments, and the
    increments of a policy that does not learn stay the same.
    """
    if values.size < MIN_POINTS_OF_SUM or not may_be_sum(name):
        return False
    with np.errstate(over="ignore"):
        increments = np.diff(values)
    mean = float(np.mean(increments / values.size)) * values.size
    if mean == 0.0 or not math.isfinite(mean) or (np.sign(mean) * increments < 0.0).any():
        return False
    first, second = (abs(float(half.mean())) for half in np.array_split(increments / abs(mean), 2))
    begins_at_increment = abs(float(values[0])) <= 5.0 * abs(mean)
    return begins_at_increment and max(first, second) <= 2.0 * min(first, second)


def _are_medians_blind(values: FloatArray) -> bool:
    """Return whether medians hide most changes of the returns of single episodes, see ``FEW_VALUES``."""
    distinct, counts = np.unique(values, return_counts=True)
    if distinct.size <= FEW_VALUES:
        return distinct.size > 1
    # A sparse reward: most episodes have the smallest return, at the start and at the end.
    is_sparse = bool(counts[0] > values.size / 2)
    ends = values[: values.size // 20], values[-values.size // 10 :]
    return is_sparse and all(float(np.median(end)) == distinct[0] for end in ends)


def _means_of_blocks(series: Series) -> tuple[Series, int]:
    """Return the means of consecutive blocks of episodes, and the number of episodes in a block.

    Each mean is at the step of the last episode of its block. Episodes that fill no block are left out at the start.
    """
    length = max(series.values.size // MOST_BLOCKS, 10)
    n_blocks = series.values.size // length
    values = series.values[-n_blocks * length :].reshape(n_blocks, length).mean(axis=1)
    return Series(series.name, series.steps[-n_blocks * length :][length - 1 :: length], values), length


def _without_repeats(series: Series) -> Series:
    """Drop each point that equals the previous point in step and value, which happens if a file is read twice."""
    if len(series) == 0:
        return series
    is_new = (series.steps[1:] != series.steps[:-1]) | (series.values[1:] != series.values[:-1])
    return series.where(np.append(True, is_new))


class _Experience(NamedTuple):
    """Hold the number of episodes and environment steps behind a curve.

    :param episodes_between: number of episodes between two points; None if it is not known
    :param n_episodes: number of episodes of the run; infinite if it is not known, so that it passes every minimum
    :param n_steps: number of environment steps of the run; infinite if it is not known
    """

    episodes_between: float | None
    n_episodes: float
    n_steps: float

    def new_episodes(self, averaged_over: int) -> float:
        """Return how many of the episodes in a point's mean are not in the previous point's mean."""
        between = averaged_over if self.episodes_between is None else self.episodes_between
        return min(max(between, 1.0), averaged_over)

    def episodes_in(self, n_points: int, averaged_over: int) -> float:
        """Return the number of different episodes behind several consecutive points of a moving mean."""
        return averaged_over + (n_points - 1) * self.new_episodes(averaged_over)

    def error_of_rise(self, n_points: int, window: int, averaged_over: int) -> float:
        """Return the standard error of a curve's rise over its last third.

        :return: the error, in standard deviations of the returns of single episodes
        """
        # If two means are over D episodes each, and m episodes of each mean are not in the other mean, their difference
        # has the variance 2 m / D^2. For medians, the variance is pi / 2 times as large.
        in_level = self.episodes_in(window, averaged_over)
        points_between = max(n_points // 3 - window, 1)
        exchanged = min(points_between * self.new_episodes(averaged_over), in_level)
        return math.sqrt(math.pi / 2.0 * 2.0 * exchanged) / in_level

    def is_enough_for_no(self, n_points: int, averaged_over: int) -> bool:
        """Return whether the run is long enough to conclude from a flat curve that the policy does not learn.

        If the curve is a moving mean, the run is long enough only if the first and the last point share no episode.
        """
        n_episodes = MIN_EPISODES_FOR_NO
        if self.new_episodes(averaged_over) < averaged_over:
            n_episodes = max(n_episodes, 2 * averaged_over)
        return n_points >= MIN_POINTS_FOR_NO and self.n_episodes >= n_episodes and self.n_steps >= MIN_STEPS_FOR_NO


def _experience(series: Series, averaged_over: int, lengths: Series | None, *, on_steps: bool) -> _Experience:
    spacing = float(np.median(np.diff(series.offsets)))
    span = max(float(series.steps[-1]), float(series.offsets[-1]))
    if _begins_late(int(series.steps[0]), int(series.steps[-1])):
        span = float(series.offsets[-1]) + spacing
    length = lengths.median() if lengths is not None else math.nan
    is_known = math.isfinite(length) and length > 0.0
    if not on_steps:
        return _Experience(max(spacing, 1.0), span, span * length if is_known else math.inf)
    if is_known:
        return _Experience(spacing / length, span / length, span)
    if averaged_over == 1:
        # Each point stands for at least one episode. Between two points, there may be episodes that were not logged.
        return _Experience(None, max(float(len(series)), span / LONG_EPISODE), span)
    return _Experience(None, math.inf, span)


# ---- One run


@once_per_run
def judge_learning(data: SeriesSet) -> Learning:
    """Answer "is it learning?" for one run.

    The best evaluation curve and the best training curve are judged. If one gives "yes" and the other "no", the answer
    is "unknown". A collapsed curve or suspicious episode lengths can also turn a "yes" into "unknown".
    """
    names = data.names()
    length_tag = find_lengths(names)
    lengths = data[length_tag] if length_tag is not None else None
    success = _success_rate(data)
    span = _span_of_run(data)
    curves = []
    for tag in _to_judge(find_returns(names), data):
        series = data[tag.name]
        on_steps = not counts_episodes(tag, data)
        if not is_standard(tag.name):
            is_complete = _covers(series.finite, *_span_of_lengths(series, lengths))
        else:
            is_complete = not on_steps or _covers(series.finite, *span)
        averaged_over = tag.averaged_over
        if lengths is not None and averaged_over == ROLLOUT_WINDOW:
            series, averaged_over = of_new_episodes(series, lengths)
        curve = judge_curve(
            series,
            averaged_over,
            lengths=lengths,
            on_steps=on_steps,
            is_complete=is_complete,
            succeeds=None if success is None else bool(success.values.any()),
        )
        if averaged_over != tag.averaged_over:
            # The levels differ from the logged curve that the report shows, so the report needs an explanation.
            parts = "single episodes" if averaged_over == 1 else f"means of {averaged_over} episodes"
            reason = f"these returns are {parts}, computed from {tag.name}, which is the mean of all episodes so far"
            curve = replace(curve, reasons=(*curve.reasons, reason))
        curves.append(curve)
    if not curves:
        return Learning("unknown", None, (), ("no return of episodes is logged",))
    answer, speaks = _combined(curves, data, lengths)
    reasons = [reason for curve in curves for reason in curve.reasons]
    for flat, other in permutations(curves, 2):
        if _began_too_late(flat, other):
            reasons.append(
                f"{flat.tag} begins only at step {flat.first_step:,}, at a level above the middle of the rise of "
                f"{other.tag}"
            )
    doubt = _doubt_about_no(speaks, data, lengths, success) if answer == "no" else None
    if doubt is not None:
        answer = "unknown"
        reasons.append(doubt)
    if answer == "yes" and success is not None and not success.values.any():
        reasons.append(f"{success.name} stayed 0 throughout: the return may reward something else than success")
    doubt = _doubt_about_yes(speaks, lengths) if answer == "yes" and lengths is not None else None
    if doubt is not None:
        answer = "unknown"
        reasons.append(doubt)
    return Learning(answer, speaks, tuple(curves), tuple(reasons))


def of_new_episodes(series: Series, lengths: Series) -> tuple[Series, int]:
    """Undo the moving mean of returns in a run that has not filled SB3's window of 100 episodes yet.

    Until then, ``rollout/ep_rew_mean`` is the mean of all episodes so far. The returns of the last episodes hardly
    change this mean. It can be undone if the run has a single environment, and each point was logged at the end of an
    episode.

    :param series: mean returns, such as ``rollout/ep_rew_mean``
    :param lengths: mean episode lengths over the same episodes, such as ``rollout/ep_len_mean``
    :return: the mean returns of only the new episodes at each point, and the median number of these episodes; if the
        mean cannot be undone, the given series and 100
    """
    means, mean_lengths = aligned(series, lengths)
    if len(means) < MIN_POINTS or len(means) < len(series.finite) or not (mean_lengths.values > 0.0).all():
        return series, ROLLOUT_WINDOW
    exact = means.steps / mean_lengths.values
    n_episodes = np.rint(exact)
    new = np.diff(n_episodes, prepend=0.0)
    is_whole = bool((np.abs(exact - n_episodes) < 1e-3).all() and (new >= 1.0).all())
    if not is_whole or n_episodes[-1] > ROLLOUT_WINDOW:
        return series, ROLLOUT_WINDOW
    of_new = np.diff(means.values * n_episodes, prepend=0.0) / new
    return Series(series.name, means.steps, of_new), int(np.median(new))


def _to_judge(found: Sequence[ReturnTag], data: SeriesSet) -> list[ReturnTag]:
    """Choose the tags to judge: at most one evaluation tag and one training tag, each with the smallest rank.

    If several tags have the smallest rank, prefer a tag of this package, and then the tag with the most points.
    """
    chosen = []
    for source in ("evaluation", "training"):
        of_source = [tag for tag in found if tag.source == source]
        if of_source:
            chosen.append(
                min(
                    of_source,
                    key=lambda tag: (tag.rank, tag.name not in TAGS, -len(data[tag.name].finite), tag.name),
                )
            )
    return chosen


def _combined(curves: Sequence[ReturnCurve], data: SeriesSet, lengths: Series | None) -> tuple[Answer, ReturnCurve]:
    """Combine the curves of a run, and return the curve that represents the run."""
    for one, other in permutations(curves, 2):
        if _learned_before(one, other, data, lengths):
            return "yes", other
        if _lags_behind(other, one, data, lengths):
            return "no", one
    answers = {curve.learning for curve in curves}
    # If no curve decides, the curve with the most points represents the run, but a collapsed curve takes precedence.
    speaks = max(curves, key=lambda curve: (curve.state is CurveState.COLLAPSED, curve.n_points))
    if "yes" in answers and "no" not in answers and speaks.state is not CurveState.COLLAPSED:
        return "yes", next(curve for curve in curves if curve.learning == "yes")
    if "yes" in answers or "no" not in answers:
        return "unknown", speaks
    flat = next(curve for curve in curves if curve.learning == "no")
    others = [curve for curve in curves if curve.learning == "unknown"]
    # Another curve may rise where this one is flat: the run needs more time.
    if any(curve.still_rising or _began_too_late(flat, curve) for curve in others):
        return "unknown", speaks
    return "no", flat


def _began_too_late(flat: ReturnCurve, other: ReturnCurve) -> bool:
    """Return whether a flat curve begins only after the policy has learned much.

    The curve ``other`` of the same run shows the earlier learning. ``flat`` must begin later than ``other``, and at a
    level above the middle of the rise of ``other``. For example, a policy may learn most of the task before the first
    evaluation. The curve of evaluation returns is then flat, but the curve of training returns rises.
    """
    if flat.state is not CurveState.FLAT or other.state is not CurveState.UNCLEAR:
        return False
    if flat.first_step is None or other.first_step is None or flat.first_step <= other.first_step:
        return False
    return other.late > other.start and flat.start > (other.start + other.late) / 2.0


def _learned_before(flat: ReturnCurve, other: ReturnCurve, data: SeriesSet, lengths: Series | None) -> bool:
    """Return whether the policy had learned before the first point of a flat curve, and has kept what it learned.

    The curve ``other`` of the same run shows the learning, most of it before ``flat`` begins. ``flat`` must not be
    below the upper quarter of the rise of ``other``. A training return also rises when random actions end, so ``flat``
    must show success itself: each step of its episodes earns 1, or the success rate is high.
    """
    if flat.state is not CurveState.FLAT or other.learning != "yes":
        return False
    if flat.first_step is None or other.first_step is None or flat.first_step <= other.first_step:
        return False
    success = _success_rate(data)
    succeeds = success is not None and success.tail(0.25).median() >= SOLVED
    lasts = lengths is not None and math.isclose(flat.late, lengths.tail(0.25).median(), rel_tol=0.05)
    if not (succeeds or (success is None and lasts)):
        return False
    earlier = data[other.tag].finite.until(flat.first_step)
    has_risen = len(earlier) > 0 and earlier.tail(0.25).median() > (other.start + other.late) / 2.0
    return has_risen and min(flat.start, flat.late) >= other.late - (other.late - other.start) / 4.0


def _lags_behind(mean: ReturnCurve, fallen: ReturnCurve, data: SeriesSet, lengths: Series | None) -> bool:
    """Return whether the training return still shows learning only because it is a mean over many episodes.

    The evaluation curve ``fallen`` lost its gain during the last ``ROLLOUT_WINDOW`` episodes.
    """
    is_fall = fallen.state is CurveState.COLLAPSED and fallen.learning == "no"
    if not is_fall or mean.learning != "yes" or lengths is None:
        return False
    tag = return_tag(mean.tag)
    if tag is None or tag.averaged_over < ROLLOUT_WINDOW or fallen.last_step is None:
        return False
    series = data[fallen.tag].finite
    # A mean over episodes before and after the fall is already below its maximum.
    returns = data[mean.tag].finite.tail(0.25).values
    if float(returns.max() - returns[-1]) < 0.1 * (mean.late - mean.start):
        return False
    high = series.steps[series.values >= fallen.peak - LARGE_FALL * (fallen.peak - fallen.start)]
    return fallen.last_step - int(high[-1]) <= ROLLOUT_WINDOW * lengths.tail(0.25).median()


def _success_rate(data: SeriesSet) -> Series | None:
    """Return the success rate that the run logged, of evaluations if possible; None without such a tag."""
    for name in (EVAL_SUCCESS_RATE, OF_SB3["success_rate"]):
        if len(data[name].finite) >= MIN_POINTS_FOR_NO:
            return data[name].finite
    return None


def _doubt_about_yes(curve: ReturnCurve, lengths: Series) -> str | None:
    """Return why a return may have risen although nothing was learned; None without such a reason."""
    if _ends_at_once(lengths):
        late = rounded(lengths.finite.tail(0.1).median())
        return f"{lengths.name}: episodes now end after {late} steps, which alone may raise the return"
    if _merely_lasts(curve, lengths):
        return (
            f"{lengths.name}: episodes last at least twice as long, but the return is still negative and has not "
            "halved in size: the policy may only have learned to stand still"
        )
    return None


def _doubt_about_no(curve: ReturnCurve, data: SeriesSet, lengths: Series | None, success: Series | None) -> str | None:
    """Return why a run may have learned although its return does not show it; None without such a reason."""
    if success is not None:
        rate = judge_curve(success, ROLLOUT_WINDOW, lengths=lengths)
        if rate.learning == "yes":
            return (
                f"{rate.tag} rises from {rounded(rate.start)} to {rounded(rate.late)}, although the return does not "
                "show it"
            )
    if curve.state is CurveState.FLAT and _was_trained_before(curve, data, lengths):
        return "Q has its final size from the first logged value on, which suggests a model that was already trained"
    return None


def _was_trained_before(curve: ReturnCurve, data: SeriesSet, lengths: Series | None) -> bool:
    """Return whether Q has its final size from the first logged value on, as if a trained model was loaded.

    A new critic begins near 0 and needs thousands of updates. Q must be worth at least ``TRAINED_STEPS`` rewards, since
    a critic that does not change at all also has a constant Q.
    """
    names = data.names()
    q_values, losses = find_q_values(names), find_actor_losses(names)
    if lengths is None or curve.last_step is None or not (q_values or (losses and find_critic_losses(names))):
        return False
    # The loss of a deterministic actor is -Q. SAC's actor has another loss.
    if not q_values and any(is_entropy_coefficient(name) for name in names):
        return False
    series, sign = (data[q_values[0]].finite, 1.0) if q_values else (data[losses[0]].finite, -1.0)
    if len(series) < MIN_POINTS_FOR_NO or int(series.steps[0]) > min(FIRST_Q * curve.last_step, MAX_FIRST_Q):
        return False
    length = lengths.median()
    if not length > 0.0:  # NaN too
        return False
    reward = curve.late / length
    q = sign * series.values
    final = float(np.median(q[-max(3, q.size // 3) :]))
    is_large = reward != 0.0 and final / reward >= TRAINED_STEPS
    return is_large and abs(float(q[0]) - final) <= 0.1 * abs(final)


def on_environment_steps(data: SeriesSet) -> list[str]:
    """Return the tags whose x-axis counts environment steps, as the run's files state or as their names show.

    :param data: everything that the run logged
    """
    if data.counts_environment_steps is None:
        return [name for name in data.names() if is_on_environment_steps(name)]
    return [name for name in data.names() if data.counts_environment_steps and not is_on_episodes(name)]


def counts_episodes(tag: ReturnTag, data: SeriesSet) -> bool:
    """Return whether the x-axis of a return counts episodes instead of environment steps.

    A training return without a standard name counts episodes if its points are at regular intervals of at most
    ``EPISODE_AXIS_SPACING``. If the x-axis counted environment steps, the intervals would usually be irregular. With
    episodes of a fixed length, they are regular too. Other tags of the run then show the unit, see ``SAME_LENGTH``.

    :param tag: the return
    :param data: everything that the run logged
    """
    if is_standard(tag.name):
        return is_on_episodes(tag.name)
    series = data[tag.name]
    pauses = np.diff(series.finite.offsets)
    if pauses.size == 0:
        return True
    spacing = float(pauses.min())
    is_regular = spacing > 0.0 and float(np.mean(pauses == spacing)) >= 0.4
    if tag.source != "training" or not is_regular or spacing > EPISODE_AXIS_SPACING:
        return False
    # An x-axis that grows by 1 from point to point counts episodes, because an episode has more than one step.
    return spacing == 1.0 or not _is_as_long_as_run(series, data)


def _is_as_long_as_run(series: Series, data: SeriesSet) -> bool:
    """Return whether a return reaches about the same last step as the tags on environment steps."""
    last = int(series.steps[-1])
    ends = [int(data[name].steps[-1]) for name in on_environment_steps(data)]
    return bool(ends) and max(ends) <= SAME_LENGTH * last and last <= SAME_LENGTH * max(ends)


def _span_of_run(data: SeriesSet) -> tuple[int | None, int | None]:
    """Return the first and the last environment step at which one of SB3's tags was logged; None if none was logged."""
    shared = [data[name] for name in data.names() if name.startswith(STANDARD_PREFIXES) and not is_on_episodes(name)]
    if not shared:
        return None, None
    return min(int(series.steps[0]) for series in shared), max(int(series.steps[-1]) for series in shared)


def _span_of_lengths(series: Series, lengths: Series | None) -> tuple[int | None, int | None]:
    """Return the first and the last step at which episode lengths were logged.

    Both are None if the lengths were not logged together with the returns.
    """
    if lengths is None or len(series) == 0 or len(lengths) == 0:
        return None, None
    first, last = int(series.steps[0]), int(series.steps[-1])
    within = lengths.steps[(lengths.steps >= first) & (lengths.steps <= last)]
    if within.size == 0:
        return None, None
    together = min(float(np.isin(series.steps, within).mean()), float(np.isin(within, series.steps).mean()))
    if together < WRITTEN_TOGETHER:
        return None, None
    return int(lengths.steps[0]), int(lengths.steps[-1])


def _covers(series: Series, begin: int | None, end: int | None) -> bool:
    """Return whether a series reaches from the start to the end of its run; True if the start or the end is unknown."""
    if begin is None or end is None or len(series) == 0:
        return True
    longest = float(np.diff(series.offsets).max(initial=0.0))
    allowed = max(LONGEST_GAP * (end - begin), longest)
    return int(series.steps[0]) - begin <= allowed and end - int(series.steps[-1]) <= allowed


def _ends_at_once(lengths: Series) -> bool:
    """Return whether late episodes last less than ``SHORT_EPISODE`` steps, and less than half as long as the first."""
    finite = lengths.finite
    if len(finite) < MIN_POINTS:
        return False
    late = float(np.median(finite.values[-max(2, len(finite) // 10) :]))
    first = float(np.median(finite.values[: _n_first(len(finite))]))
    return late < SHORT_EPISODE and late < 0.5 * first


def _merely_lasts(curve: ReturnCurve, lengths: Series) -> bool:
    """Return whether the return may have risen only because episodes last longer, see ``STILL_NEGATIVE``."""
    finite = lengths.finite
    if len(finite) < MIN_POINTS or not curve.start < 0.0 or curve.late > STILL_NEGATIVE * curve.start:
        return False
    late = float(np.median(finite.values[-max(2, len(finite) // 10) :]))
    first = float(np.median(finite.values[: _n_first(len(finite))]))
    return late >= 2.0 * first
