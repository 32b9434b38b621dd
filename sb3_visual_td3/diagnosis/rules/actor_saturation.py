"""The policy is dead: its actions sit at the ends of their range, where the tanh passes no gradient.

Measured in dead policies: saturation 0.92 to 1.0, largest |u| before the tanh 13 to 16, actor gradients
0 from about 750 updates on, while the critic's loss and gradients look normal. Saturation alone is no death:
one healthy policy drove with 79 % of its actions at the ends, and its head still got a gradient.
"""

from __future__ import annotations

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.findings import Cure, Diagnosis, Evidence, SettingChange, bounded
from sb3_visual_td3.diagnosis.rules.vanishing_actor_gradient import head_has_vanished
from sb3_visual_td3.diagnosis.series import SeriesSet
from sb3_visual_td3.diagnosis.trends import onset

ID = "actor_saturation"
TITLE = "The policy is dead: its actions are stuck at the ends of their range"
REMEDY = (
    "Bound what goes into the tanh: a Linear-LayerNorm-Tanh trunk before the actor's head and a penalty on the "
    "pre-tanh activations (pre_tanh_penalty). A dead policy gets no gradient and does not come back: start again."
)
IS_LIVE = True
CURE = Cure(
    changes=(
        SettingChange(
            key="pre_tanh_penalty",
            at_least=0.005,
            times=4,
            reason="keeps the activations where the tanh passes a gradient; 5e-3 is our preset's, measured",
        ),
        SettingChange(
            key="policy_kwargs.trunk_dim",
            to=50,
            unless_set=True,
            reason="a Linear-LayerNorm-Tanh trunk bounds what the head sees (DrQ-v2)",
        ),
    )
)

SATURATED = 0.5
"""Mean fraction of saturated actions over the last quarter."""

EXPLAINED_BY = ("feature_leak", "learning_rate_too_high", "twin_critic_desync", "critic_overestimation", "reward_scale")
"""Values without a limit push every action to its end."""

STILL_ALIVE = 0.7
"""Confidence is not above this where the actor's head still gets a gradient."""


def diagnose(data: SeriesSet) -> Diagnosis | None:
    """Look at the fraction of saturated actions over the last quarter."""
    saturation = data[tags.ACTION_SATURATION].finite
    if len(saturation) < 3:
        return None
    level = saturation.tail(0.25).mean()
    if level < SATURATED:
        return None
    confidence = 0.55 + 0.35 * min(1.0, (level - SATURATED) / 0.45)
    evidence = [Evidence.last_of(saturation, f"mean of the last quarter {level:.2f}; healthy policies stay below 0.1")]
    pre_tanh = data[tags.PRE_TANH_ABS_MEAN].finite
    if len(pre_tanh) and pre_tanh.values[-1] > 3.0:
        confidence += 0.03
        evidence.append(Evidence.last_of(pre_tanh, "the tanh passes no gradient here"))
    spread = data[tags.ACTION_STD_MIN].finite
    if len(spread) and spread.values[-1] < 0.01:
        confidence += 0.03
        evidence.append(Evidence.last_of(spread, "an action no longer depends on what the camera sees"))
    has_vanished = head_has_vanished(data)
    if has_vanished is False:
        confidence = min(confidence, STILL_ALIVE)
    elif has_vanished:
        confidence += 0.05
        head = data[tags.GRADIENT_NORM["actor_mlp"]].finite
        evidence.append(Evidence.last_of(head, "the actor's head gets no gradient any more"))
    return Diagnosis(
        ID,
        TITLE,
        bounded(confidence),
        tuple(evidence),
        REMEDY,
        onset(saturation, saturation.values >= SATURATED),
        explained_by=EXPLAINED_BY,
        value=level,
        threshold=SATURATED,
    )
