"""The critic's values are larger than the returns that the same run logged.

Q is a discounted part of an episode's return, so a mean |Q| of several times the largest |return| is wrong. If
GradientNormCallback logged the largest |Q| that the rewards allow, the rule critic_overestimation is more exact.

Source: overestimation in actor-critic methods: Fujimoto et al. 2018, arXiv 1802.09477. The ratio of |Q|
to the largest |Q| that the returns allow was at most 0.35 in public runs that learned, and at least 2.4 in public runs
that diverged.
"""

from __future__ import annotations

import math

from sb3_visual_td3.diagnosis import own_scale
from sb3_visual_td3.diagnosis.findings import Cure, Evidence, RuleResult, SettingChange
from sb3_visual_td3.diagnosis.numerals import rounded
from sb3_visual_td3.diagnosis.return_curve import judge_learning
from sb3_visual_td3.diagnosis.run_kind import Family, recognise
from sb3_visual_td3.diagnosis.series import SeriesSet

ID = "q_beyond_returns"
TITLE = "The critic's values are larger than the returns of the run allow"
REMEDY = (
    "Check that the logged returns and the rewards in the replay buffer have the same scale. If they have the same "
    "scale, the critic overestimates: check gamma and the sign of its exponent, lower the learning rate, put LayerNorm "
    "after the critics' dense layers, and use the smaller of two critics in the target."
)
IS_LIVE = False
# Each of these diagnoses can cause Q values beyond the returns. critic_overestimation reports the same fault, but
# compares Q with the largest |Q| that the rewards allow.
EXPLAINED_BY = (
    "non_finite",
    "feature_leak",
    "learning_rate_too_high",
    "reward_scale",
    "critic_overestimation",
    "stale_target_network",
    "twin_critic_desync",
    "policy_extrapolation",
)
CURE = Cure(
    changes=(
        SettingChange(
            key="target_q_clamp",
            to=True,
            unless_set=True,
            reason="targets stay within what the rewards seen so far can add up to (TD7)",
        ),
        SettingChange(
            key="policy_kwargs.layer_norm",
            to=True,
            reason="LayerNorm after the critics' dense layers bounds what they extrapolate (BRO)",
        ),
    )
)

WEAK = own_scale.Q_NOTED
"""The rule reports a |Q| of at least this many times the largest value that the returns allow. The margin is needed
because the rule assumes a discount of 0.99."""


def diagnose(data: SeriesSet) -> RuleResult | None:
    """Compare Q with the largest returns; if Q is not logged, the negated actor loss is used instead.

    Single outliers do not count. A run whose return shows learning is not reported, unless the ratio is extreme.
    """
    kind = recognise(data.names())
    if kind.family not in (Family.OFF_POLICY, Family.VALUE_BASED):
        return None
    learning = judge_learning(data).answer
    sign = own_scale.q_within_returns(data, kind, learning)
    if not isinstance(sign, own_scale.Sign):
        return None
    if learning == "yes" and not sign.is_clear:
        return None
    q, scale = data[sign.tag].finite, own_scale.return_scale(data)
    note = f"about {rounded(sign.value)} times what the returns of the run allow"
    if scale is not None:
        note += f" (largest |return| {rounded(scale.largest)})"
    # The confidence rises from 0.5 at the lower threshold to 0.7 at a ratio of twenty. It stays below 0.75, from which
    # a diagnosis blocks a GO, because returns that were logged before a reward wrapper have a different scale.
    sureness = math.log(sign.value / WEAK) / math.log(own_scale.Q_HOPELESS / WEAK)
    return RuleResult(
        0.5 + 0.2 * min(1.0, sureness),
        (Evidence.near(q, sign.step, note),),
        sign.step,
        value=sign.value,
        threshold=WEAK,
    )
