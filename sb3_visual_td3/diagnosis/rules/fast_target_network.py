"""The target networks follow the critics without delay: each critic learns towards its own latest values.

An update moves each target network by the fraction ``tau`` towards its critic. After ``u`` updates of the targets, Q is
about as large as the rewards of ``1 + tau u`` steps, so the first logged Q shows how large ``tau`` is. This holds while
``tau u`` is small compared with the horizon of the discount. It follows from
dQ_target/du = tau (r - (1 - gamma) Q_target), starting from Q_target = 0.

With stock TD3 on Pendulum-v1, after 600 updates of the critics, Q was as large as the rewards of 2 steps if tau was
0.005, and as large as the rewards of 50 steps if tau was 1. TD3 updates its targets only at every second update of the
critics, so the formula gives 2.5 steps for a tau of 0.005. With a tau of 1, the formula does not hold, because
``tau u`` is larger than the horizon of the discount.
"""

from __future__ import annotations

import numpy as np

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis import own_scale
from sb3_visual_td3.diagnosis.findings import Cure, Evidence, RuleResult, SettingChange
from sb3_visual_td3.diagnosis.numerals import rounded
from sb3_visual_td3.diagnosis.return_curve import judge_learning
from sb3_visual_td3.diagnosis.run_kind import Family, recognise
from sb3_visual_td3.diagnosis.series import Series, SeriesSet, aligned
from sb3_visual_td3.diagnosis.tag_search import find_lengths, find_returns

ID = "fast_target_network"
TITLE = "The target networks follow the critics without delay"
REMEDY = (
    "Let the targets follow slowly: tau of 0.005 (SB3's default) to 0.01, applied once per update; with "
    "target_update_interval, tau = 1 is right only at an interval of hundreds or thousands of updates."
)
IS_LIVE = False
# A critic that diverges for another reason also has a large Q early in the run.
EXPLAINED_BY = (
    "non_finite",
    "frozen_by_learning_rate",
    "learning_rate_too_high",
    "feature_leak",
    "critic_overestimation",
    "q_beyond_returns",
    "twin_critic_desync",
)
CURE = Cure(
    changes=(SettingChange(key="tau", at_most=0.005, reason="the targets follow slowly; 0.005 is SB3's default"),)
)

FAST = 0.03
"""The estimated tau is too high if it is at least this value. 0.005 is usual."""

MOST_UPDATES = 2_000.0
"""A run is not judged if its first Q was logged after more updates than this, because Q is then large even with the
usual tau."""

MIN_POINTS = 3


def diagnose(data: SeriesSet) -> RuleResult | None:
    """Estimate tau from the first logged Q, the updates before this Q, and the rewards of the first episodes.

    Only off-policy runs whose return does not show learning are judged. If the number of updates was not logged, the
    rule uses an upper limit for it.
    """
    kind = recognise(data.names())
    returns, length_tag = find_returns(data.names()), find_lengths(data.names())
    q = own_scale.q_series(data, kind)
    if kind.family is not Family.OFF_POLICY or not returns or length_tag is None or q is None:
        return None
    series, length = data[returns[0].name].finite, data[length_tag].median()
    if min(len(q), len(series)) < MIN_POINTS or not length >= 1.0:
        return None
    n_updates = _updates_before(data, q, series)
    if not 0.0 < n_updates <= MOST_UPDATES:
        return None
    first_returns = series.values[:MIN_POINTS]
    reward = float(abs(first_returns).max()) / length
    if kind.has_entropy_bonus:
        # SAC's Q counts the entropy as a reward.
        coefficient = own_scale.entropy_coefficient(data, q)
        reward += own_scale.ENTROPY_BONUS * float(np.max(coefficient))
    if not reward > 0.0:
        return None
    ahead = abs(float(q.values[0])) / reward
    tau = (ahead - 1.0) / n_updates
    learning = judge_learning(data).answer
    logged_q = data[q.name].finite
    if tau < FAST or learning == "yes" or abs(float(logged_q.values[0])) <= own_scale.NORMALISED_Q:
        return None
    evidence = (
        Evidence(
            q.name,
            int(q.steps[0]),
            float(logged_q.values[0]),
            f"as large as the rewards of {rounded(ahead)} steps, after at most {rounded(n_updates)} updates; with "
            f"tau = 0.005, it would be as large as the rewards of {rounded(1.0 + 0.005 * n_updates)} steps",
        ),
    )
    remedy = (
        "Consistent with targets that follow without delay (tau near 1) or, less likely, with a learning rate that is "
        "too high, or with rewards of a different scale than the logged returns. To tell them apart, log: "
        f"{tags.TARGET_DISTANCE['critic']}. {REMEDY}"
    )
    confidence = 0.62 if learning == "no" else 0.5
    return RuleResult(confidence, evidence, int(q.steps[0]), value=tau, threshold=FAST, remedy=remedy)


def _updates_before(data: SeriesSet, q: Series, returns: Series) -> float:
    """Return the number of updates before the first point of Q, or an upper limit if the number was not logged."""
    _, counted = aligned(q, data["train/n_updates"])
    if len(counted):
        return float(counted.values[0])
    before = returns.steps[returns.steps < q.steps[0]]
    return float(q.steps[0] - (before[-1] if before.size else 0))
