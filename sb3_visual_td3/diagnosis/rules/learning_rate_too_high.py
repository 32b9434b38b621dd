"""Single optimizer steps are as large as the weights, so they overwrite what the network has learned.

The rule divides the norm of a step by the norm of the weights. In a new network with Adam, the mean of this ratio over
the first 25 updates was 0.01 to 0.02 for a learning rate of 1e-3, 0.05 to 0.1 for 1e-2, 0.4 to 0.7 for 0.1, and 3 to 7
for 1.

Source: Karpathy 2015, CS231n notes, "Ratio of weights:updates": about 1e-3 is usual.
"""

from __future__ import annotations

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis import own_scale
from sb3_visual_td3.diagnosis.findings import Cure, Evidence, RuleResult, SettingChange, bounded
from sb3_visual_td3.diagnosis.numerals import rounded
from sb3_visual_td3.diagnosis.return_curve import judge_learning
from sb3_visual_td3.diagnosis.run_kind import Family, recognise
from sb3_visual_td3.diagnosis.series import Series, SeriesSet
from sb3_visual_td3.diagnosis.trends import onset, recent

ID = "learning_rate_too_high"
TITLE = "The learning rate is so high that single steps replace the weights"
REMEDY = (
    "Lower the learning rate of the group named in the evidence: 1e-4 to 1e-3 is usual for Adam. A step of this size "
    "overwrites what the network has learned: start again, or from the last healthy snapshot."
)
IS_LIVE = True
EXPLAINED_BY: tuple[str, ...] = ()
CURE = Cure(
    changes=(
        SettingChange(
            key="group_lr",
            at_most=0.0001,
            times=0.3,
            reason=(
                "makes steps small relative to the weights; 1e-4 is DrQ-v2's value; for a smaller rate, the size of "
                "the reduction is a guess"
            ),
        ),
    )
)

SINGLE_STEP = 0.5
"""The learning rate is too high if the norm of a single optimizer step, divided by the norm of the weights, is at least
this value. The rule uses the maximum of this ratio over the run, because such a step makes the weights large, and the
ratios of all later steps are then small."""

REPEATED_STEP = 0.1
"""Even if no single step reaches ``SINGLE_STEP``, the learning rate is too high if the last optimizer steps are large:
the median ratio of the step's norm to the norm of the weights, over the last quarter of the points, is at least this
value."""

SUDDEN = 30.0
"""A single optimizer step is reported if the ratio of its norm to the norm of the weights is at least
``REPEATED_STEP``, and also at least this many times the median ratio of the run. In a new network, the ratios of the
first steps are at most ten times as large as the ratios of later steps."""

HIGH_RATE = 0.05
"""If the sizes of the optimizer's steps were not logged, a median learning rate of at least this value is reported,
unless the return shows learning. The value is fifty times the largest usual rate."""

DOUBTFUL_RATE = 0.01
"""If the sizes of the optimizer's steps were not logged, a median learning rate from this value up to ``HIGH_RATE`` is
reported only if the return shows that nothing was learned."""


def diagnose(data: SeriesSet) -> RuleResult | None:
    """Compare the norms of optimizer steps and weights, and report the group with the strongest evidence.

    If no ratio of these norms was logged, check the logged learning rates instead.
    """
    ratios = [series for tag in tags.UPDATE_RATIO.values() if len(series := data[tag].finite)]
    found = [d for series in ratios if (d := _judge(data, series)) is not None]
    if not ratios:
        return _by_rate(data)
    return max(found, key=lambda d: (d.confidence, d.value), default=None)


def _by_rate(data: SeriesSet) -> RuleResult | None:
    names = [*own_scale.rate_tags(data.names()), *tags.GROUP_LR.values()]
    rates = [data[name].finite for name in names if len(data[name].finite)]
    # A run of an unknown kind may train a table of Q values, for which a rate of 0.1 is usual.
    if not rates or recognise(data.names()).family is Family.UNKNOWN:
        return None
    # Warm-up schedules begin low and other schedules end low, so the median rate counts.
    rate = max(rates, key=lambda series: series.median())
    typical = rate.median()
    if typical < DOUBTFUL_RATE:
        return None
    learning = judge_learning(data).answer
    if learning == "yes" or (typical < HIGH_RATE and learning != "no"):
        return None
    # The confidence stays below 0.75, from which a diagnosis blocks a GO: the rate is a setting, and its effect was not
    # measured.
    threshold = HIGH_RATE if typical >= HIGH_RATE else DOUBTFUL_RATE
    confidence = 0.72 if typical >= HIGH_RATE else 0.55
    evidence = (Evidence.largest_of(rate, "the logged rate; 1e-4 to 1e-3 is usual for Adam"),)
    first = int(rate.steps[0])
    return RuleResult(bounded(confidence), evidence, first, value=typical, threshold=threshold)


def _judge(data: SeriesSet, ratio: Series) -> RuleResult | None:
    largest, late = ratio.abs_max(), recent(ratio, 3)
    # In the order of certainty: one step as large as the weights, several large steps in a row, and one large step of a
    # network that had settled. The confidences are guesses, all above the 0.75 from which an alert is critical.
    if largest >= SINGLE_STEP:
        confidence, value, threshold = 0.9 if largest >= 1.0 else 0.8, largest, SINGLE_STEP
    elif len(late) >= 3 and late.median() >= REPEATED_STEP:
        confidence, value, threshold = 0.85, late.median(), REPEATED_STEP
    elif largest >= REPEATED_STEP and len(ratio) >= 5 and largest >= SUDDEN * ratio.median():
        confidence, value, threshold = 0.76, largest, REPEATED_STEP
    else:
        return None
    evidence = [
        Evidence.largest_of(
            ratio, f"the norm of one step, divided by the norm of the weights; the median is {rounded(ratio.median())}"
        )
    ]
    group = next(g for g, tag in tags.UPDATE_RATIO.items() if tag == ratio.name)
    rate = data[tags.GROUP_LR[group]].finite
    if len(rate):
        evidence.append(Evidence.largest_of(rate, "its learning rate"))
    first = onset(ratio, ratio.values >= threshold)
    return RuleResult(bounded(confidence), evidence, first, value=value, threshold=threshold)
