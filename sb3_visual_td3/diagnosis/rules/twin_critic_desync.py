"""The two critics no longer agree on the same pairs of observation and action.

The two critics learn towards the same target, so their values should stay close.
"""

from __future__ import annotations

import numpy as np

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.findings import Cure, Evidence, RuleResult, SettingChange
from sb3_visual_td3.diagnosis.numerals import rounded
from sb3_visual_td3.diagnosis.series import Series, SeriesSet, aligned
from sb3_visual_td3.diagnosis.trends import onset

ID = "twin_critic_desync"
TITLE = "The two critics disagree by a large part of their values"
REMEDY = (
    "Check that both critics are trained on the same target and that both are in the critic's optimizer; then "
    "lower the critics' learning rate."
)
IS_LIVE = False
EXPLAINED_BY = ("learning_rate_too_high", "reward_scale", "critic_overestimation")
CURE = Cure(
    changes=(
        SettingChange(
            key="critic_lr",
            times=0.3,
            reason=(
                "critics with the same target diverge when their steps are too large; the size of the reduction is a "
                "guess"
            ),
        ),
    ),
    code=("First check that both critics are trained on the same target and that both are in the optimizer."),
)

DISAGREES = 0.3
"""The critics disagree if the mean |Q1 - Q2| over the last quarter of the run is above this fraction of the scale of Q.
The value is a guess."""


def diagnose(data: SeriesSet) -> RuleResult | None:
    """Compare the mean difference of the critics' values over the last quarter of the run with the scale of Q."""
    q1, q2 = aligned(data[tags.Q1_VALUE], data[tags.Q2_VALUE])
    if len(q1) < 5:
        return None
    # The smaller of the two scales: if one critic diverges alone, its own size must not make the distance look small.
    scale = max(1.0, min(q1.abs_max(), q2.abs_max()))
    distance = Series(q1.name, q1.steps, np.abs(q1.values - q2.values) / scale)
    part = distance.tail(0.25).mean()
    if part <= DISAGREES:
        return None
    evidence = (
        Evidence.last_of(q1, f"the two critics differ by {rounded(part)} of the scale of Q, mean of the last quarter"),
        Evidence.last_of(q2, "the other critic at the same step"),
    )
    confidence = 0.5 + 0.4 * min(1.0, (part - DISAGREES) / 0.7)
    return RuleResult(
        confidence, evidence, onset(distance, distance.values > DISAGREES), value=part, threshold=DISAGREES
    )
