"""The critics' values of state-action pairs in the replay buffer are larger than the rewards allow.

Source: with rewards in [r_min, r_max] and discount g, |Q| <= max|r| / (1 - g); overestimation in
actor-critic methods: Fujimoto et al. 2018, arXiv 1802.09477.
"""

from __future__ import annotations

import math

import numpy as np

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis import own_scale
from sb3_visual_td3.diagnosis.findings import Cure, Evidence, RuleResult, SettingChange, bounded
from sb3_visual_td3.diagnosis.numerals import rounded
from sb3_visual_td3.diagnosis.run_kind import recognise
from sb3_visual_td3.diagnosis.series import Series, SeriesSet
from sb3_visual_td3.diagnosis.trends import growth_factor, onset

ID = "critic_overestimation"
TITLE = "The critics' values are higher than the rewards allow"
REMEDY = (
    "Look at the sampled rewards for outliers first. Then clamp the target to the range of values that the rewards "
    "allow, put LayerNorm after the critics' dense layers, and let the actor maximise the smaller of the two critics."
)
IS_LIVE = True
EXPLAINED_BY = ("learning_rate_too_high", "stale_target_network")
CURE = Cure(
    changes=(
        SettingChange(
            key="target_q_clamp",
            to=True,
            unless_set=True,
            reason="targets stay within what the rewards seen so far can add up to (TD7)",
        ),
        SettingChange(
            key="actor_objective", to="min", reason="the actor maximises the smaller of the two critics (DrQ-v2)"
        ),
        SettingChange(
            key="policy_kwargs.layer_norm",
            to=True,
            reason="LayerNorm after the critics' dense layers bounds what they extrapolate (BRO)",
        ),
    )
)

MIN_POINTS = 5
UNTRAINED = 1.0
"""If the logged bound on Q is below this value, |Q| is compared with this value instead of the bound. The reason is
that the Q values of an untrained network already have this order of magnitude."""
RUNAWAY = 10.0
"""Without a logged bound on Q, the critic overestimates if |Q| grows at least by this factor over the later half of the
run, and also becomes large (see ``LARGE``). The value is a guess."""

BEYOND_RETURNS = 0.1
"""The confidence rises by this value if |Q| grows and also exceeds the range of the logged returns, as in the rule
q_beyond_returns. This test is used only if no bound on Q was logged."""

LARGE = 200.0
"""Without a logged bound on Q, a growing |Q| is reported if it ends above this value, which the criterion q_magnitude
uses too. A smaller |Q| is reported only if it exceeds every logged return and the critic's error grows as well."""


def diagnose(data: SeriesSet) -> RuleResult | None:
    """Compare |Q| with its bound, which is the largest value that the rewards allow.

    If the bound was not logged, look for exponential growth of |Q|.
    """
    found = [d for tag in (tags.Q1_VALUE, tags.Q2_VALUE, tags.TARGET_Q_MEAN) if (d := _judge(data, data[tag].finite))]
    return max(found, key=lambda d: d.confidence, default=None)


def _judge(data: SeriesSet, q: Series) -> RuleResult | None:
    if len(q) < MIN_POINTS:
        return None
    bound = data[tags.Q_BOUND].finite
    # A bound of 0 means that all rewards so far were 0.
    bound = bound.where(bound.values > 0)
    return _beyond_bound(q, bound) if len(bound) else _runaway(data, q)


def _beyond_bound(q: Series, bound: Series) -> RuleResult | None:
    # Each Q value is compared with the latest bound at or before its step; values before the first bound are left out.
    at = np.searchsorted(bound.steps, q.steps, side="right") - 1
    q = q.where(at >= 0)
    if len(q) == 0:
        return None
    ratio = np.abs(q.values) / np.maximum(bound.values[at[at >= 0]], UNTRAINED)
    # Event files hold 32-bit floats: a Q value at its bound must not count as beyond it.
    beyond = ratio > 1.0 + 1e-6
    if beyond.sum() < 2:
        return None
    worst = int(np.argmax(ratio))
    evidence = Evidence(q.name, int(q.steps[worst]), float(q.values[worst]), f"{rounded(ratio[worst])} times the bound")
    # The confidence rises from 0.6 at the bound to 0.95 at ten times the bound.
    confidence = bounded(0.6 + 0.35 * min(1.0, math.log10(ratio[worst])))
    return RuleResult(confidence, (evidence,), onset(q, beyond), value=float(ratio[worst]), threshold=1.0)


def _runaway(data: SeriesSet, q: Series) -> RuleResult | None:
    later = q.tail(0.5)
    growth = growth_factor(later)
    if len(later) < 3 or not growth >= RUNAWAY:
        return None
    if not abs(later.values[-1]) > LARGE and not _error_runs_away(data, q):
        return None
    evidence = Evidence.last_of(q, f"grows {rounded(growth)} times over the later half; no bound was logged")
    # Growth alone is weaker evidence than the bound: 0.45 for a factor of 10, 0.75 from 100 upwards.
    confidence = 0.45 + 0.3 * min(1.0, math.log10(growth) - 1.0)
    # A critic that approaches correct values may grow as fast, but does not exceed the range of the logged returns.
    beyond = own_scale.q_within_returns(data, recognise(data.names()), "unknown")
    if isinstance(beyond, own_scale.Sign):
        confidence += BEYOND_RETURNS
    # If |Q| ends below LARGE, the onset is where |Q| passes a tenth of its last value.
    end = abs(float(q.values[-1]))
    first = onset(q, np.abs(q.values) > (LARGE if end > LARGE else end / RUNAWAY))
    return RuleResult(bounded(min(confidence, 0.75)), (evidence,), first, value=growth, threshold=RUNAWAY)


def _error_runs_away(data: SeriesSet, q: Series) -> bool:
    """Return whether Q ends beyond every logged return and the critic's loss grows a hundredfold in the later half.

    If only the Q values grow, the critic may be healthy. If the loss grows as well, the critic is not.
    """
    scale, loss = own_scale.return_scale(data), data[tags.CRITIC_LOSS].finite
    if scale is None or len(loss) < MIN_POINTS:
        return False
    # The loss is a squared error: it grows a hundredfold where the error grows tenfold.
    last_q = own_scale.in_unit_of_returns(data, q).values[-1]
    return abs(float(last_q)) > scale.largest and growth_factor(loss.tail(0.5)) >= RUNAWAY**2
