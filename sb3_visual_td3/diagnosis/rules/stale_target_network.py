"""The critics learn towards target networks that never change.

The rule reads ``agent/critic_target_moved``, which shows directly whether the targets move. If this tag was not logged,
the rule looks at the Q values. A critic whose targets never move predicts only the next reward, so Q is about as large
as the reward of a step.

Stock TD3 was trained on Pendulum-v1 with 12,000 updates. With tau = 0, Q was 1.03 times the reward of a step. In
healthy runs, Q was 11 to 15 times this reward. A discount near 0 makes Q just as small.
"""

from __future__ import annotations

import math

from sb3_visual_td3.common import tags
from sb3_visual_td3.common.groups import ACTOR_MLP, CRITIC_MLP
from sb3_visual_td3.diagnosis import own_scale
from sb3_visual_td3.diagnosis.findings import Cure, Evidence, RuleResult, SettingChange
from sb3_visual_td3.diagnosis.numerals import rounded
from sb3_visual_td3.diagnosis.return_curve import judge_learning
from sb3_visual_td3.diagnosis.run_kind import Family, recognise
from sb3_visual_td3.diagnosis.series import Series, SeriesSet
from sb3_visual_td3.diagnosis.tag_search import find_lengths, find_returns
from sb3_visual_td3.diagnosis.trends import onset

ID = "stale_target_network"
TITLE = "The target networks do not follow the critics"
REMEDY = (
    "Check that tau is above 0; 0.005 is usual. Call the soft update after the critics' step, with the networks that "
    "are trained and not with a reference to networks that were replaced."
)
IS_LIVE = True
EXPLAINED_BY: tuple[str, ...] = ()
CURE = Cure(
    changes=(SettingChange(key="tau", at_least=0.005, reason="makes the targets follow the critics; 0.005 is SB3's"),),
    if_nothing_to_change=(
        "No hyperparameter cures it: tau has a usual value, so the soft update must be missing or use other networks "
        "than the trained ones."
    ),
)

MIN_POINTS = 5
MIN_Q_PER_REWARD = 0.7
"""A critic is not judged if its |Q| is below this fraction of the average reward of a step, because it has not even
learned the reward."""

MAX_Q_PER_REWARD = 2.0
"""The critic counts as predicting only the next reward if its |Q| is at most this many times the average reward of a
step."""

SETTLED = 0.3
"""The critic's values count as settled if its error is at most this fraction of the average reward of a step. In a run
with tau = 0, the error was 0.003 times this reward."""

FEWEST_STEPS = 10_000.0
"""A run with fewer environment steps is not judged. Even with a correct tau, its critic may still predict only the
next reward."""

SHORTEST_EPISODE = 20.0
"""A run is not judged if its median episode has fewer steps than this, because in short episodes a small |Q| may be
correct."""


def diagnose(data: SeriesSet) -> RuleResult | None:
    """Look for a target network of the critics that did not change while critics and actor were updated.

    If the movement of the targets was not logged, look for a critic that has settled at the reward of a single step.
    """
    if tags.TARGET_MOVED["critic"] not in data:
        return _looks_one_step_ahead(data)
    moved, steps = data[tags.TARGET_MOVED["critic"]].finite, data[tags.UPDATE_RATIO[CRITIC_MLP.name]].finite
    still = _still_end(moved)
    if len(still) < MIN_POINTS:
        return None
    # A target that stands still is wrong only while the critics take steps.
    since = still.steps[0]
    learning = steps.where(steps.steps >= since)
    # TD3 moves its targets only when it updates the actor (policy_delay): without such an update they need not move.
    actor = data[tags.GRADIENT_NORM[ACTOR_MLP.name]]
    if not learning.abs_max() > 0 or (actor.steps >= since).sum() < MIN_POINTS:
        return None
    evidence = [Evidence.last_of(still, f"not one of its weights has changed over {len(still)} points")]
    distance = data[tags.TARGET_DISTANCE["critic"]].finite
    if len(distance):
        evidence.append(Evidence.last_of(distance, "the distance of the critics from their target networks at the end"))
    first = onset(moved, moved.values == 0.0)
    return RuleResult(0.9, evidence, first, value=0.0, threshold=0.0)


def _looks_one_step_ahead(data: SeriesSet) -> RuleResult | None:
    kind = recognise(data.names())
    returns, length_tag = find_returns(data.names()), find_lengths(data.names())
    q, loss = own_scale.q_series(data, kind), own_scale.critic_loss(data)
    if kind.family is not Family.OFF_POLICY or not returns or length_tag is None or q is None or loss is None:
        return None
    series, length = data[returns[0].name].finite, data[length_tag].median()
    if min(len(series), len(q), len(loss)) < own_scale.MIN_POINTS or not length >= SHORTEST_EPISODE:
        return None
    # Q and the reward are taken from the later half. The replay buffer also holds older steps, so medians are compared
    # within wide limits.
    reward = abs(series.tail(0.5).median()) / length
    if not reward > 0.0:
        return None
    ahead = abs(q.tail(0.5).median()) / reward
    error = math.sqrt(max(loss.tail(0.5).median(), 0.0) / 2.0) / reward
    if not MIN_Q_PER_REWARD <= ahead <= MAX_Q_PER_REWARD or error > SETTLED:
        return None
    learning = judge_learning(data).answer
    if learning == "yes" or (data.n_steps or 0) < FEWEST_STEPS:
        return None
    confidence = 0.6 if learning == "no" else 0.5
    logged_q, logged_loss = data[q.name].finite, data[loss.name].finite
    evidence = (
        Evidence.last_of(
            logged_q,
            f"{rounded(ahead)} times the reward of a step: the critic predicts only the next reward",
        ),
        Evidence.last_of(logged_loss, f"its error is {rounded(error)} of that reward, so it has settled there"),
    )
    remedy = (
        "Consistent with targets that never move (tau) or, less likely, with a discount near 0 (gamma). "
        "To tell them apart, log: "
        f"{tags.TARGET_MOVED['critic']}. {REMEDY}"
    )
    return RuleResult(confidence, evidence, None, value=ahead, threshold=MAX_Q_PER_REWARD, remedy=remedy)


def _still_end(moved: Series) -> Series:
    """Return the consecutive zeros at the end of a series."""
    begin = len(moved)
    while begin and moved.values[begin - 1] == 0.0:
        begin -= 1
    return Series(moved.name, moved.steps[begin:], moved.values[begin:])
