"""The actor's gradients are clipped on nearly every update, although clipping is a safeguard for rare outliers.

The critic's encoder is not judged, because its gradient norm was 80 to 630 in healthy runs, and a limit of 10 always
clips such norms.
"""

from __future__ import annotations

from sb3_visual_td3.common import tags
from sb3_visual_td3.common.groups import ACTOR_CNN, ACTOR_MLP
from sb3_visual_td3.diagnosis.findings import Cure, Evidence, RuleResult, SettingChange
from sb3_visual_td3.diagnosis.numerals import rounded
from sb3_visual_td3.diagnosis.series import Series, SeriesSet
from sb3_visual_td3.diagnosis.trends import onset, recent

ID = "constant_clipping"
TITLE = "The actor's gradients are clipped on nearly every update"
REMEDY = (
    "Find out why the norms before clipping are so large; clipping hides them from the optimizer and does not remove "
    "their cause. If they are healthy, the limit is too low: raise max_grad_norm for the group named in the evidence."
)
IS_LIVE = True
EXPLAINED_BY = ("feature_leak", "learning_rate_too_high", "reward_scale", "gradient_explosion", "critic_overestimation")
CURE = Cure(
    changes=(
        SettingChange(
            key="max_grad_norm",
            times=10,
            reason="only if the norms before clipping are healthy: then the limit is too low",
        ),
    )
)

NEARLY_EVERY = 0.9
"""Clipping counts as constant if at least this fraction of the updates is clipped, as a mean over the last points. The
criterion actor_clipping_is_rare uses the same value."""

MIN_POINTS = 5


def diagnose(data: SeriesSet) -> RuleResult | None:
    """Judge how often the gradients of the actor's encoder and of its head were clipped; the larger fraction counts."""
    groups = [data[tags.CLIP_FRACTION[group]].finite for group in (ACTOR_CNN.name, ACTOR_MLP.name)]
    clipped = max((series for series in groups if len(series) >= MIN_POINTS), key=_level, default=None)
    if clipped is None or _level(clipped) < NEARLY_EVERY:
        return None
    evidence = [Evidence.last_of(clipped, f"mean of the last points {rounded(_level(clipped))}")]
    norm = data[clipped.name.removesuffix("_clip_fraction") + "_norm"].finite
    if len(norm):
        evidence.append(Evidence.last_of(norm, "before clipping"))
    # The confidence is the lowest at which a cause counts, because a low limit clips healthy gradients as well.
    return RuleResult(
        0.5,
        evidence,
        onset(clipped, clipped.values >= NEARLY_EVERY),
        value=_level(clipped),
        threshold=NEARLY_EVERY,
    )


def _level(series: Series) -> float:
    return recent(series, MIN_POINTS).mean()
