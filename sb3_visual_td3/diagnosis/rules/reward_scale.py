"""The rewards are of a size that the networks cannot follow, or they have jumped to it."""

from __future__ import annotations

import numpy as np

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.findings import Diagnosis, Evidence, bounded
from sb3_visual_td3.diagnosis.numerals import rounded
from sb3_visual_td3.diagnosis.series import Series, SeriesSet, aligned
from sb3_visual_td3.diagnosis.trends import onset, recent

ID = "reward_scale"
TITLE = "The rewards are too large for the networks to follow"
REMEDY = (
    "Scale the rewards to the order of 1 (VecNormalize with norm_reward=True does it), and look for a unit that "
    "changed or a term that is not weighted. The critics' gradients grow with the rewards, what Adam moves does not."
)
LARGE = 1_000.0
"""Largest |reward| that the critic is shown: a guess. The first recorded run had 20 to 130, our environments 10."""

JUMPED = 100.0
"""Largest recent |reward| over the largest before. A first accident among rewards of 1 is a jump of ten."""

CRITICS_SUFFER = 10_000.0
"""The first run's warning threshold for a gradient norm."""


def diagnose(data: SeriesSet) -> Diagnosis | None:
    """Look at the largest reward of the last points, at what it was before, and at the critics' gradients."""
    low, high = aligned(data[tags.REWARD_MIN], data[tags.REWARD_MAX])
    if len(low) == 0:
        return None
    size = Series(high.name, high.steps, np.maximum(np.abs(low.values), np.abs(high.values)))
    late = recent(size, 1)
    largest = late.abs_max()
    if largest < LARGE:
        return None
    before = float(size.values[: len(size) - len(late)].max(initial=0.0))
    jump = largest / before if before > 0 else 0.0
    at = int(late.values.argmax())
    sign = high if abs(high.values[len(size) - len(late) + at]) == late.values[at] else low
    evidence = [Evidence(sign.name, int(late.steps[at]), float(sign.values[len(size) - len(late) + at]), "as sampled")]
    confidence = 0.6
    if jump >= JUMPED:
        confidence += 0.25
        evidence.append(Evidence(high.name, int(size.steps[0]), before, f"largest until then; {rounded(jump)} times"))
    norms = [recent(data[tags.GRADIENT_NORM[group]].finite) for group in ("critic_cnn", "critic_mlp")]
    suffering = [norm for norm in norms if len(norm) and norm.median() > CRITICS_SUFFER]
    if suffering:
        confidence += 0.2
        evidence.append(Evidence.largest_of(suffering[-1], "the critics' gradients have grown with them"))
    first = onset(size, size.values >= LARGE)
    return Diagnosis(ID, TITLE, bounded(confidence), tuple(evidence), REMEDY, first, value=largest, threshold=LARGE)
