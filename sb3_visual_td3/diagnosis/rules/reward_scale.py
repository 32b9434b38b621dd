"""The rewards are too large for the networks to fit, or have suddenly become too large.

Adam's steps do not grow with the rewards, so the critics reach large targets slowly. Rewards that are 1,000 times
larger also make the critics' gradients 1,000 times larger.
"""

from __future__ import annotations

import math

import numpy as np

from sb3_visual_td3.common import tags
from sb3_visual_td3.common.groups import CRITIC_CNN, CRITIC_MLP
from sb3_visual_td3.diagnosis import own_scale
from sb3_visual_td3.diagnosis.findings import Cure, Evidence, RuleResult, SettingChange
from sb3_visual_td3.diagnosis.numerals import rounded
from sb3_visual_td3.diagnosis.return_curve import judge_learning
from sb3_visual_td3.diagnosis.run_kind import Family, recognise
from sb3_visual_td3.diagnosis.series import Series, SeriesSet, aligned
from sb3_visual_td3.diagnosis.tag_search import find_lengths, find_returns
from sb3_visual_td3.diagnosis.trends import onset, recent

ID = "reward_scale"
TITLE = "The rewards are too large for the networks to fit"
REMEDY = (
    "Scale the rewards to the order of 1, for example by VecNormalize with norm_reward=True. Also look for a unit that "
    "changed or a term without a weight. The critics' gradients grow with the rewards; Adam's steps do not."
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
    code=("Look for a unit that changed, or a term without a weight: scaling hides it."),
)

LARGE = 1_000.0
"""The rewards are too large if the largest |reward| of the last points is at least this value. The value is a guess."""

LARGE_AFTER_A_JUMP = 100.0
"""After a jump of the rewards (see ``JUMPED``), the rewards are too large if the largest |reward| of the last points is
at least this value. The value is a guess."""

JUMPED = 100.0
"""The rewards have jumped if the largest |reward| has grown by at least this factor. The rule compares the median of
the last points with the median of the earlier half of the run. A factor of ten is normal."""

LARGE_GRADIENT = 10_000.0
"""The confidence is higher if the gradient norm of a critic (median of the last points) is also above this value."""

NEAR_ZERO = 0.1
"""The critic's first error shows the size of the rewards only if the first |Q| is at most this fraction of the
error."""

MIN_POINTS = 3
"""The rule compares medians of this many points, because a single reward of 1,000 does not show the scale of the
rewards."""


def diagnose(data: SeriesSet) -> RuleResult | None:
    """Compare the largest rewards at the end of the run with a limit and with earlier rewards, and check the gradients.

    If no rewards were logged, their size is estimated from the critic's first losses, or from returns and lengths. A
    run whose return shows learning is then not reported.
    """
    if tags.REWARD_MIN not in data and tags.REWARD_MAX not in data:
        return _estimated(data)
    low, high = aligned(data[tags.REWARD_MIN], data[tags.REWARD_MAX])
    if len(low) < MIN_POINTS:
        return None
    # The larger magnitude of the smallest and the largest reward at each point, whatever its sign.
    size = Series(high.name, high.steps, np.maximum(np.abs(low.values), np.abs(high.values)))
    late = float(np.median(size.values[-MIN_POINTS:]))
    # The median of the earlier half is the usual size, even if the last points of that half have jumped already.
    before = float(np.median(size.values[: max(len(size) // 2, 1)]))
    has_jumped = before > 0 and late >= JUMPED * before
    threshold = LARGE_AFTER_A_JUMP if has_jumped else LARGE
    # If VisualTD3 divides the rewards by their mean magnitude, their mean magnitude is about 1. A large reward is then
    # rare, and does not show that the rewards are too large.
    is_rare = bool(np.any(own_scale.divisors_of_rewards(data).values != 1.0)) and not has_jumped
    if late < threshold or is_rare:
        return None
    speaks = low if abs(low.values[-1]) > abs(high.values[-1]) else high
    evidence = [Evidence.last_of(speaks, f"the largest |reward| of the last points is about {rounded(late)}")]
    confidence = 0.6
    if has_jumped:
        confidence += 0.25 if late >= LARGE else 0.1
        evidence.append(
            Evidence(
                high.name,
                int(size.steps[0]),
                before,
                f"the largest |reward| before; it is now {rounded(late / before)} times as large",
            )
        )
    norms = [recent(data[tags.GRADIENT_NORM[group]].finite) for group in (CRITIC_CNN.name, CRITIC_MLP.name)]
    suffering = [norm for norm in norms if len(norm) and norm.median() > LARGE_GRADIENT]
    if suffering:
        confidence += 0.2
        evidence.append(Evidence.largest_of(suffering[-1], "the critics' gradients have grown with the rewards"))
    first = onset(size, size.values >= threshold)
    return RuleResult(confidence, evidence, first, value=late, threshold=threshold)


def _estimated(data: SeriesSet) -> RuleResult | None:
    if own_scale.rewards_are_scaled(data):
        return None  # returns and losses then do not show the size of the rewards that the critic learns from
    found = _from_first_losses(data) or _from_returns(data)
    if found is None or judge_learning(data).answer == "yes":
        return None
    size, evidence = found
    # An estimate is weaker evidence than a logged reward, which gives at least 0.6.
    return RuleResult(0.55, (evidence,), evidence.step, value=size, threshold=LARGE)


def _from_first_losses(data: SeriesSet) -> tuple[float, Evidence] | None:
    kind = recognise(data.names())
    loss, q = own_scale.critic_loss(data), own_scale.q_series(data, kind)
    if kind.family is not Family.OFF_POLICY or loss is None or q is None:
        return None
    if len(loss) < MIN_POINTS or len(q) < MIN_POINTS:
        return None
    first, first_q = loss.values[:MIN_POINTS], np.abs(q.values[:MIN_POINTS])
    # The logged loss is the sum over two critics: half of it is the mean squared error of one.
    error = math.sqrt(max(float(np.median(first)), 0.0) / 2.0)
    if error < LARGE or float(np.median(first_q)) > NEAR_ZERO * error:
        return None
    note = f"the critic's error is about {rounded(error)} while Q is near 0, so this is the size of the rewards"
    return error, Evidence(loss.name, int(loss.steps[0]), float(loss.values[0]), note)


def _from_returns(data: SeriesSet) -> tuple[float, Evidence] | None:
    returns, length_tag = find_returns(data.names()), find_lengths(data.names())
    if not returns or length_tag is None:
        return None
    series, length = data[returns[0].name].finite, data[length_tag].median()
    if len(series) < MIN_POINTS or not length >= 1.0:
        return None
    size = float(np.median(np.abs(series.values))) / length
    if size < LARGE:
        return None
    return size, Evidence.last_of(series, f"about {rounded(size)} per step, for episodes of {rounded(length)} steps")
