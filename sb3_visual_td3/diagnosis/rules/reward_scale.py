"""The rewards are of a size that the networks cannot follow, or they have jumped to it."""

from __future__ import annotations

import numpy as np

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.findings import Cure, Diagnosis, Evidence, SettingChange, bounded
from sb3_visual_td3.diagnosis.numerals import rounded
from sb3_visual_td3.diagnosis.series import Series, SeriesSet, aligned
from sb3_visual_td3.diagnosis.trends import onset, recent

ID = "reward_scale"
TITLE = "The rewards are too large for the networks to follow"
REMEDY = (
    "Scale the rewards to the order of 1 (VecNormalize with norm_reward=True does it), and look for a unit that "
    "changed or a term that is not weighted. The critics' gradients grow with the rewards, what Adam moves does not."
)
IS_LIVE = True
EXPLAINED_BY: tuple[str, ...] = ()
CURE = Cure(
    changes=(
        SettingChange(
            key="normalize",
            to={"norm_reward": True},
            fill={"norm_obs": False},
            unless_rewards_are_normalized=True,
            reason="VecNormalize scales the rewards to the order of 1; images are scaled by the policy",
        ),
    ),
    code=("Look for a unit that changed, or a term that is not weighted: scaling hides it."),
)

LARGE = 1_000.0
"""Largest |reward| of a point: a guess. The first recorded run had 20 to 130, our environments have 10."""

LARGE_AFTER_A_JUMP = 100.0
"""The same, of rewards that have jumped."""

JUMPED = 100.0
"""Over the median of the earlier half. A first accident among rewards of 1 is a jump of ten."""

CRITICS_SUFFER = 10_000.0
"""The first run's warning threshold for a gradient norm."""

MIN_POINTS = 3
"""All of them, by their median: one reward of 1,000 on arrival is not the scale of the rewards."""


def diagnose(data: SeriesSet) -> Diagnosis | None:
    """Look at the largest reward of the last points, at what it was before, and at the critics' gradients."""
    low, high = aligned(data[tags.REWARD_MIN], data[tags.REWARD_MAX])
    if len(low) < MIN_POINTS:
        return None
    size = Series(high.name, high.steps, np.maximum(np.abs(low.values), np.abs(high.values)))
    late = float(np.median(size.values[-MIN_POINTS:]))
    before = float(np.median(size.values[: max(len(size) // 2, 1)]))
    has_jumped = before > 0 and late >= JUMPED * before
    threshold = LARGE_AFTER_A_JUMP if has_jumped else LARGE
    if late < threshold:
        return None
    speaks = low if abs(low.values[-1]) > abs(high.values[-1]) else high
    evidence = [Evidence.last_of(speaks, f"{rounded(late)} is the usual size of the largest by now")]
    confidence = 0.6
    if has_jumped:
        confidence += 0.25 if late >= LARGE else 0.1
        evidence.append(
            Evidence(high.name, int(size.steps[0]), before, f"was usual before: {rounded(late / before)} times")
        )
    norms = [recent(data[tags.GRADIENT_NORM[group]].finite) for group in ("critic_cnn", "critic_mlp")]
    suffering = [norm for norm in norms if len(norm) and norm.median() > CRITICS_SUFFER]
    if suffering:
        confidence += 0.2
        evidence.append(Evidence.largest_of(suffering[-1], "the critics' gradients have grown with them"))
    first = onset(size, size.values >= threshold)
    return Diagnosis(ID, TITLE, bounded(confidence), tuple(evidence), REMEDY, first, value=late, threshold=threshold)
