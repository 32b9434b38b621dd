"""Compare the evaluations of a run with baselines: random actions and, in driving environments, full braking.

If a policy improves before the first evaluation, its return curve is flat. The comparison still shows that it has
learned.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.numerals import rounded
from sb3_visual_td3.diagnosis.return_curve import NOTED_FALL, Answer
from sb3_visual_td3.diagnosis.series import FloatArray, Series, SeriesSet

BASELINES = (
    (tags.EVAL_DISTANCE, (tags.EVAL_RANDOM_DISTANCE, tags.EVAL_BRAKE_DISTANCE)),
    (tags.EVAL_REWARD, (tags.EVAL_RANDOM_REWARD,)),
)
"""Each entry holds the tag of an evaluated quantity and the tags of its baselines. The comparison uses the first entry
for which the run logged the quantity and a baseline. The distance comes first, because a policy may earn reward while
it stands still."""
UNTRAINED = {tags.EVAL_REWARD: tags.EVAL_UNTRAINED_REWARD}
"""Maps an evaluated quantity to the tag of its value before the first update. Only an evaluation above this value shows
that the policy has learned."""

MIN_EVALUATIONS = 3
"""With fewer evaluations than this, the comparison gives the answer "unknown"."""
MIN_LATE = 4
"""The noise at the end of a run is estimated from the later half of its evaluations. If the half has fewer evaluations
than this number, the last ``MIN_LATE`` evaluations are used."""
CLEARLY_ABOVE = 2.0
"""A policy is clearly better than the baselines if the median of its last three evaluations exceeds the best baseline
by at least this many standard deviations (see ``evaluation_spread``)."""
CLEAR_FALL = 1.5
"""A policy has fallen if it ends below its best evaluation by at least this many standard deviations (see
``evaluation_spread``). It must also have lost at least the fraction ``NOTED_FALL`` of its lead over the baseline."""


class Comparison(NamedTuple):
    """Hold the result of comparing a run's evaluations with the baselines.

    :param tag: logged name of the quantity that the evaluations measured
    :param n_points: number of evaluations
    :param answer: unknown if there are fewer than ``MIN_EVALUATIONS`` evaluations, or if ``has_fallen`` is True.
        Otherwise, yes if ``late`` is clearly above ``baseline`` and ``untrained``; no if ``late`` is not above
        ``baseline`` and the last evaluation does not jump above ``baseline``; unknown in all other cases
    :param late: median of the last three evaluations
    :param baseline: level of the best baseline
    :param peak: value of the best evaluation
    :param peak_step: step of the best evaluation
    :param last_step: step of the last evaluation
    :param has_fallen: whether the policy has lost much of its lead over the baseline (see ``CLEAR_FALL``)
    :param reason: the measured numbers behind the answer, as text
    :param untrained: level of the policy before its first update; -inf if there was no such evaluation
    """

    tag: str
    n_points: int
    answer: Answer
    late: float
    baseline: float
    peak: float
    peak_step: int
    last_step: int
    has_fallen: bool
    reason: str
    untrained: float = -math.inf


def evaluation_spread(values: FloatArray) -> float:
    """Estimate the standard deviation with which the results of evaluations scatter around the trend of the run.

    The scatter of the episodes within an evaluation is not used.

    :param values: ``(n,)`` results of the evaluations, finite, ``n >= 3``
    """
    # The second difference of three neighbours cancels a steady trend, and has six times the variance of one value.
    bends = values[:-2] - 2.0 * values[1:-1] + values[2:]
    return float(1.4826 * np.median(np.abs(bends)) / math.sqrt(6.0))


def compare_with_baselines(data: SeriesSet) -> Comparison | None:
    """Compare the evaluations of a run with the baselines that the run logged.

    :param data: the series of the run
    :return: the result; None if no baseline was logged
    """
    for tag, baseline_tags in BASELINES:
        policy = data[tag].finite
        logged = [data[name].finite for name in baseline_tags if len(data[name].finite)]
        if len(policy) and logged:
            untrained = -math.inf
            if tag in UNTRAINED and len(data[UNTRAINED[tag]].finite):
                untrained = data[UNTRAINED[tag]].finite.median()
            return _compared(policy, max(series.median() for series in logged), untrained)
    return None


def _has_jumped(values: FloatArray) -> bool:
    """Return whether the last evaluation is far above all earlier evaluations.

    After such a jump, only later evaluations show whether the policy keeps the new level.

    :param values: ``(n,)`` results of the evaluations, finite, ``n >= 3``
    """
    earlier = values[:-1]
    return bool(values[-1] - np.max(earlier) > CLEARLY_ABOVE * np.ptp(earlier))


def _compared(policy: Series, baseline: float, untrained: float) -> Comparison:
    values = policy.values
    n = values.size
    late = float(np.median(values[-3:]))
    best = int(np.argmax(values))
    peak, peak_step = float(values[best]), int(policy.steps[best])
    baselines = "untrained policies"
    if policy.name == tags.EVAL_REWARD:
        baselines = "random actions"
    words = f"{policy.name}: the last evaluations are at {rounded(late)}, {baselines} at {rounded(baseline)}"
    if untrained > baseline:
        words += f", the policy before its first update at {rounded(untrained)}"
    answer: Answer = "unknown"
    has_fallen = False
    if n < MIN_EVALUATIONS:
        words += f"; a comparison needs {MIN_EVALUATIONS} evaluations, and there are {n}"
    else:
        spread = evaluation_spread(values)
        # In a curve of five or six points, the jump of a fast learner looks like noise. The later half may not contain
        # the jump, so the smaller of the two spreads counts.
        late_spread = min(spread, evaluation_spread(values[-max(MIN_LATE, n // 2) :]))
        # While a curve still rises, the median of its last three points is below its last point.
        end = max(late, float(values[-1]))
        lost = (peak - end) / (peak - baseline) if peak > baseline else 0.0
        has_fallen = lost >= NOTED_FALL and peak - end >= CLEAR_FALL * spread
        if has_fallen:
            words += (
                f"; the best policy was near step {peak_step:,} with {rounded(peak)}: {min(lost, 1.0):.0%} of what it "
                "had gained is lost"
            )
        elif late - max(baseline, untrained) >= CLEARLY_ABOVE * late_spread and late > max(baseline, untrained):
            answer = "yes"
        elif late <= baseline and values[-1] > baseline and _has_jumped(values):
            words += f"; only the last evaluation, {rounded(float(values[-1]))}, is above all earlier ones"
        elif late <= baseline:
            answer = "no"
        elif late <= untrained:
            words += ": the policy has not become better since then"
        else:
            words += f", with a spread of {rounded(late_spread)} from one evaluation to the next"
    last_step = int(policy.steps[-1])
    return Comparison(policy.name, n, answer, late, baseline, peak, peak_step, last_step, has_fallen, words, untrained)
