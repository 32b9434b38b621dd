"""A gradient norm explodes. The norm is a symptom: clipping hides it and does not remove its cause."""

from __future__ import annotations

import numpy as np

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.findings import Cure, Evidence, RuleResult, SettingChange
from sb3_visual_td3.diagnosis.numerals import rounded
from sb3_visual_td3.diagnosis.series import Series, SeriesSet
from sb3_visual_td3.diagnosis.trends import growth_factor, onset

ID = "gradient_explosion"
TITLE = "A gradient norm explodes"
REMEDY = (
    "An exploding norm is a symptom. Look at the scale of the rewards and at the learning rate of the group named "
    "in the evidence; clip its norm only as a safeguard, and log the norm before clipping."
)
IS_LIVE = True
EXPLAINED_BY = (
    "feature_leak",
    "learning_rate_too_high",
    "reward_scale",
    "stale_target_network",
    "critic_overestimation",
)
CURE = Cure(
    changes=(
        SettingChange(
            key="group_lr",
            at_most=0.0001,
            times=0.3,
            reason="1e-4 is DrQ-v2's value; for a smaller rate, the size of the reduction is a guess",
        ),
        SettingChange(
            key="max_grad_norm",
            to=10.0,
            unless_set=True,
            reason="a safeguard, not a cure; the value of the visual preset",
        ),
    )
)

EXPLODED = 50_000.0
"""A gradient norm has exploded if its median over the last quarter of the run is above this value. The value comes
from this project's first run in CARLA, as does the criterion actor_cnn_norm_no_go."""

GROWN = 100.0
"""A norm above ``AT_LEAST`` has also exploded if it has grown at least by this factor over the run, or if the median of
its last three points is more than this many times the median of all earlier points. The factor is a guess."""

AT_LEAST = 1_000.0
"""A norm below this value has not exploded, however much it has grown. The norms of healthy critic encoders were 80 to
630."""


def diagnose(data: SeriesSet) -> RuleResult | None:
    """Check the gradient norm of each parameter group, and report the largest norm that explodes."""
    exploded = [norm for tag in tags.GRADIENT_NORM.values() if _explodes(norm := data[tag].finite)]
    if not exploded:
        return None
    worst = max(exploded, key=Series.abs_max)
    growth = growth_factor(worst)
    confidence = 0.6
    if worst.abs_max() > EXPLODED:
        confidence += 0.2
    if growth >= GROWN or _has_shot_up(worst):
        confidence += 0.15
    evidence = [Evidence.largest_of(worst, f"{rounded(growth)} times over the run")]
    for tag in (tags.ALERT_CRITICAL, tags.ALERT_WARNING):
        active = data[tag].where(data[tag].values == 1.0)
        if len(active):
            note = f"{len(active)} of {len(data[tag])} points active, the first here"
            evidence.append(Evidence(tag, int(active.steps[0]), 1.0, note))
    # A norm that never exceeds 50,000 has exploded if it has grown enough. The onset is where the norm exceeds half of
    # its largest value, or 50,000 if that is lower.
    level = min(EXPLODED, worst.abs_max() / 2)
    return RuleResult(
        confidence,
        evidence,
        onset(worst, worst.values > level),
        value=worst.abs_max(),
        threshold=EXPLODED if worst.tail(0.25).median() > EXPLODED else AT_LEAST,
    )


def _explodes(norm: Series) -> bool:
    if len(norm) < 3:
        return False
    # Three ways to explode: a norm that is huge at the end, one that is large and has grown over the run, and one that
    # has just shot up, which only a live window catches in time.
    late = norm.tail(0.25).median()
    return late > EXPLODED or (late > AT_LEAST and growth_factor(norm) >= GROWN) or _has_shot_up(norm)


def _has_shot_up(norm: Series) -> bool:
    """Return whether the last points are far above the earlier points."""
    late = norm.values[-3:]
    before = norm.values[:-3]
    return before.size >= 3 and float(np.median(late)) > max(AT_LEAST, GROWN * float(np.median(before)))
