"""The critic values the policy's own actions far above the actions in the replay buffer.

The actor moves towards actions that the critic overrates, and no transition in the buffer corrects the critic there. A
small positive gap is healthy.

Source: Fujimoto et al. 2019, arXiv 1812.02900, on extrapolation error. The largest Q value that the rewards allow is
computed as for critic_overestimation.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.findings import Cure, Evidence, RuleResult, SettingChange
from sb3_visual_td3.diagnosis.numerals import rounded
from sb3_visual_td3.diagnosis.q_support import FLOOR, UNSUPPORTED, actor_loss_support
from sb3_visual_td3.diagnosis.run_kind import recognise
from sb3_visual_td3.diagnosis.series import Series, SeriesSet, aligned
from sb3_visual_td3.diagnosis.trends import onset, recent

ID = "policy_extrapolation"
TITLE = "The critic values the policy's own actions far above those in the replay buffer"
REMEDY = (
    "Let the actor maximise the smaller of the two critics (actor_objective='min'), keep more exploration noise, to "
    "fill the buffer with actions like the policy's, and lower the actor's learning rate below the critics'."
)
IS_LIVE = True
CURE = Cure(
    changes=(
        SettingChange(
            key="actor_objective", to="min", reason="the actor maximises the smaller of the two critics (DrQ-v2)"
        ),
        SettingChange(
            key="actor_lr",
            times=0.3,
            reason="the critics get time to correct their values; the size of the reduction is a guess",
        ),
    )
)

MIN_POINTS = 5
GAP = 0.5
"""The critic overrates the policy's actions if their Q minus the Q of replayed actions (median of the last points) is
above this fraction of the largest |Q| of replayed actions. In healthy runs, the fraction was 0.05. The criterion
q_gap_small uses the same value."""

EXPLAINED_BY = (
    "feature_leak",
    "learning_rate_too_high",
    "stale_target_network",
    "critic_overestimation",
    "twin_critic_desync",
)


def diagnose(data: SeriesSet) -> RuleResult | None:
    """Compare Q of the policy's actions with the largest Q that the rewards allow, or with the Q of replayed actions.

    If the Q of the policy's actions is not logged, the negated actor loss is used instead, except for SAC.
    """
    return _beyond_bound(data) or _wide_gap(data, data[tags.Q_GAP].finite) or _gap_of_loss(data)


def _beyond_bound(data: SeriesSet) -> RuleResult | None:
    policy_q, q1, bound = (recent(data[tag].finite) for tag in (tags.POLICY_Q_VALUE, tags.Q1_VALUE, tags.Q_BOUND))
    if len(data[tags.POLICY_Q_VALUE].finite) < MIN_POINTS or not len(q1) or not len(bound) or not bound.values[-1] > 0:
        return None
    # If Q on replayed pairs also exceeds the bound, the critics overestimate everywhere: that is critic_overestimation.
    limit = max(float(bound.values[-1]), FLOOR) * (1 + 1e-6)
    value = abs(policy_q.median())
    if value <= limit or q1.abs_max() > limit:
        return None
    evidence = (
        Evidence.last_of(policy_q, f"{rounded(value / limit)} times what the rewards allow"),
        Evidence.last_of(q1, "Q on replayed pairs stays within what the rewards allow"),
    )
    whole = data[tags.POLICY_Q_VALUE].finite
    return RuleResult(0.85, evidence, onset(whole, np.abs(whole.values) > limit), value=value / limit, threshold=1.0)


def _gap_of_loss(data: SeriesSet) -> RuleResult | None:
    is_logged = tags.POLICY_Q_VALUE in data or tags.Q_GAP in data
    if is_logged or recognise(data.names()).has_entropy_bonus:
        return None
    # A loss of more than ten times Q is not the value of an action: the rule feature_leak judges such a loss.
    support = actor_loss_support(data)
    if support is None or support.ratio > UNSUPPORTED:
        return None
    loss, q1 = aligned(data[tags.ACTOR_LOSS], data[tags.Q1_VALUE])
    # TD3's loss is minus the mean of Q1. A penalty on the activations makes the loss larger and this gap smaller, so
    # the gap is never overestimated. The loss of a single update is noisy, so the median of the gaps counts.
    found = _wide_gap(data, Series(tags.ACTOR_LOSS, loss.steps, -loss.values - q1.values))
    if found is None:
        return None
    evidence = Evidence.last_of(
        loss, f"the negated loss, Q of the policy's actions, exceeds Q by {rounded(found.value)} times the largest |Q|"
    )
    return replace(found, evidence=(evidence, Evidence.last_of(q1, "Q on replayed pairs at the same time")))


def _wide_gap(data: SeriesSet, gap: Series) -> RuleResult | None:
    q1 = data[tags.Q1_VALUE].finite
    if len(gap) < MIN_POINTS or len(q1) == 0:
        return None
    # The gap is divided by the largest |Q| of the run, so that the result does not depend on the scale of the rewards.
    scale = max(FLOOR, q1.abs_max())
    part = recent(gap).median() / scale
    if part <= GAP:
        return None
    note = f"the median of the last points is {rounded(part)} times the largest |Q| on replayed pairs"
    # A wide gap is weaker evidence than a value beyond the bound: its confidence is 0.5 to 0.7, not 0.85 as above.
    confidence = 0.5 + 0.2 * min(1.0, part - GAP)
    return RuleResult(
        confidence, (Evidence.last_of(gap, note),), onset(gap, gap.values > GAP * scale), value=part, threshold=GAP
    )
