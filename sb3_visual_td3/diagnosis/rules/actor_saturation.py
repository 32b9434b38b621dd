"""The policy is dead: its actions sit at the ends of their range, where the tanh passes no gradient.

The critic's loss looks normal meanwhile. Saturation alone does not prove that a policy is dead: one healthy policy
drove with 79 % of its actions at the ends.
"""

from __future__ import annotations

from sb3_visual_td3.common import tags
from sb3_visual_td3.common.groups import ACTOR_MLP, CRITIC_MLP
from sb3_visual_td3.diagnosis.findings import Cure, Evidence, RuleResult, SettingChange
from sb3_visual_td3.diagnosis.numerals import rounded
from sb3_visual_td3.diagnosis.rules.vanishing_actor_gradient import head_has_vanished
from sb3_visual_td3.diagnosis.series import SeriesSet
from sb3_visual_td3.diagnosis.trends import onset

ID = "actor_saturation"
TITLE = "The policy is dead: its actions are stuck at the ends of their range"
REMEDY = (
    "Limit the activations before the tanh: a Linear-LayerNorm-Tanh trunk in front of the actor's head and a penalty "
    "on the pre-tanh activations (pre_tanh_penalty). A dead policy gets no gradient and does not recover: start again."
)
IS_LIVE = True
CURE = Cure(
    changes=(
        SettingChange(
            key="pre_tanh_penalty",
            at_least=0.005,
            times=4,
            reason="keeps the activations where the tanh passes a gradient; 5e-3 is the visual preset's value, from "
            "measurements",
        ),
        SettingChange(
            key="policy_kwargs.trunk_dim",
            to=50,
            unless_set=True,
            reason="a Linear-LayerNorm-Tanh trunk bounds the input of the head (DrQ-v2)",
        ),
    )
)

SATURATED = 0.5
"""The policy counts as dead if the mean fraction of saturated actions over the last quarter is at least this value.
The mean fraction was 0.92 to 1.0 in dead policies and below 0.1 in most healthy policies. The criterion policy_is_alive
uses the same value."""

# Q values without a limit push every action to an end of its range, so each of these explains a saturated actor.
EXPLAINED_BY = ("feature_leak", "learning_rate_too_high", "twin_critic_desync", "critic_overestimation", "reward_scale")

STILL_ALIVE = 0.7
"""If the actor's head still gets a gradient, the confidence is at most this value, and an alert during training is only
a warning."""

WAS_ALIVE = 1e-3
"""Without a logged fraction of saturated actions, the rule reports only policies that were alive at the start. A policy
was alive if the largest of the first three gradient norms of the actor's head exceeds this fraction of the median
gradient norm of the critics' head."""


def diagnose(data: SeriesSet) -> RuleResult | None:
    """Compare the fraction of saturated actions over the last quarter of the run with a threshold.

    Large activations before the tanh, a constant action and a vanished gradient raise the confidence. If the fraction
    was not logged, the gradients decide instead.
    """
    saturation = data[tags.ACTION_SATURATION].finite
    if tags.ACTION_SATURATION not in data:
        return _by_gradients(data)
    if len(saturation) < 3:
        return None
    level = saturation.tail(0.25).mean()
    if level < SATURATED:
        return None
    # The confidence rises from 0.55 at the threshold to 0.9 at a saturation of 0.95, which dead policies reach.
    confidence = 0.55 + 0.35 * min(1.0, (level - SATURATED) / 0.45)
    evidence = [Evidence.last_of(saturation, f"mean of the last quarter {level:.2f}; below 0.1 in most healthy runs")]
    pre_tanh = data[tags.PRE_TANH_ABS_MEAN].finite
    # tanh'(3) is 0.01: beyond 3 the tanh passes almost no gradient.
    if len(pre_tanh) and pre_tanh.values[-1] > 3.0:
        confidence += 0.03
        evidence.append(Evidence.last_of(pre_tanh, "the tanh passes almost no gradient here"))
    spread = data[tags.ACTION_STD_MIN].finite
    if len(spread) and spread.values[-1] < 0.01:
        confidence += 0.03
        evidence.append(Evidence.last_of(spread, "an action no longer depends on the observation"))
    has_vanished = head_has_vanished(data)
    # None means that too few norms were logged, which does not change the confidence.
    if has_vanished is False:
        confidence = min(confidence, STILL_ALIVE)
    elif has_vanished:
        confidence += 0.05
        head = data[tags.GRADIENT_NORM[ACTOR_MLP.name]].finite
        evidence.append(Evidence.last_of(head, "the actor's head no longer receives a gradient"))
    return RuleResult(
        confidence,
        evidence,
        onset(saturation, saturation.values >= SATURATED),
        value=level,
        threshold=SATURATED,
    )


def _by_gradients(data: SeriesSet) -> RuleResult | None:
    if not head_has_vanished(data):
        return None
    head = data[tags.GRADIENT_NORM[ACTOR_MLP.name]].finite
    critic = data[tags.GRADIENT_NORM[CRITIC_MLP.name]].finite
    # Three points, because a saturated head loses its gradient within some hundred updates.
    first, late = float(head.values[:3].max()), head.tail(0.25).median()
    if first <= WAS_ALIVE * critic.median():
        return None
    evidence = (
        Evidence.last_of(head, f"the head gets no gradient now; at first its norm was {rounded(first)}"),
        Evidence.last_of(critic, "the critics still receive a gradient"),
    )
    remedy = (
        "The vanished gradient is consistent with a saturated tanh or, less likely, with dead units in the actor. To "
        f"tell them apart, log: {tags.ACTION_SATURATION}. {REMEDY}"
    )
    return RuleResult(
        0.6,
        evidence,
        onset(head, head.values <= WAS_ALIVE * first),
        value=late,
        threshold=WAS_ALIVE * first,
        remedy=remedy,
    )
