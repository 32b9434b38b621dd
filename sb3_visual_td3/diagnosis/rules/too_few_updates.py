"""The networks are hardly ever trained: the updates begin late in the run, or are rare.

A warm-up that takes most of the run, or a ``train_freq`` in the hundreds with one gradient step, leaves the policy as
it was initialised.

Stable-Baselines3 writes the number of updates to progress.csv, not to event files. If this number is missing, the rule
compares Q with the mean reward of a step. If Q has not even reached this reward, the updates are probably rare. With
stock TD3 on Pendulum-v1 and an update every 500 steps, Q was 0.4 times this reward; in healthy runs it was 11 to 15
times.
"""

from __future__ import annotations

import math

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis import own_scale
from sb3_visual_td3.diagnosis.findings import Cure, Evidence, RuleResult, SettingChange
from sb3_visual_td3.diagnosis.numerals import rounded
from sb3_visual_td3.diagnosis.return_curve import MIN_STEPS_FOR_NO, judge_learning
from sb3_visual_td3.diagnosis.run_kind import Family, recognise
from sb3_visual_td3.diagnosis.series import Series, SeriesSet
from sb3_visual_td3.diagnosis.tag_search import find_lengths, find_returns, is_standard
from sb3_visual_td3.diagnosis.two_questions import LATE_UPDATES, environment_steps, in_or_after_warm_up

ID = "too_few_updates"
TITLE = "The networks are hardly ever updated"
REMEDY = (
    "Let updates begin within the first tenth of the run (learning_starts), and make about one update per environment "
    "step: train_freq=1 with gradient_steps=1, or gradient_steps=-1 for one update per step taken."
)
IS_LIVE = False
EXPLAINED_BY = ("non_finite", "frozen_by_learning_rate", "learning_rate_too_high")
CURE = Cure(
    changes=(
        SettingChange(key="learning_starts", at_most=1000, reason="updates begin early in the run"),
        SettingChange(key="train_freq", at_most=1, reason="one update per environment step, as in SB3's TD3 and SAC"),
    )
)

UPDATES = "train/n_updates"
"""The tag in which Stable-Baselines3 logs the number of updates."""

RARE = 0.01
"""Updates are rare if their number, divided by the number of environment steps, is below this value. The rule leaves
out the steps before the first logged number of updates, but never more than half of the run. One update per step is
usual."""

FEWEST_STEPS = 2_000
"""A run with fewer environment steps is not judged, because it may still be in its warm-up."""

NOT_LEARNED = 0.7
"""The critic has not even learned the reward of a single step if its last |Q| is below this fraction of the mean reward
of a step."""

UNSETTLED = 0.3
"""The critic is still learning if its TD error (the root mean square, computed from the loss) is at least this
fraction of the mean reward of a step."""

LAST_TENTH = 0.1
"""The medians of Q and of the critic's error are taken over this last fraction of the run."""

SHORTEST_EPISODE = 20.0
"""Q is not judged if the median episode has fewer steps than this, because in short episodes a small Q may be
correct."""


def diagnose(data: SeriesSet) -> RuleResult | None:
    """Compare the step of the first loss with the length of the run, and the number of updates with the steps.

    The rule judges only off-policy runs that do not learn.
    """
    n_steps = environment_steps(data)
    if recognise(data.names()).family is not Family.OFF_POLICY or n_steps is None or n_steps < FEWEST_STEPS:
        return None
    if judge_learning(data).answer != "no" or in_or_after_warm_up(data) is not None:
        return None
    late = _begins_late(data, data[tags.CRITIC_LOSS].finite, n_steps)
    updates = _updates(data)
    return late or (_is_rare(updates, n_steps) if len(updates) else _has_not_learned_the_reward(data, n_steps))


def _begins_late(data: SeriesSet, loss: Series, n_steps: int) -> RuleResult | None:
    if len(loss) == 0:
        return None
    # A run that continues from a checkpoint keeps its step count and its buffer.
    begin = min(int(data[name].steps[0]) for name in data.names() if is_standard(name))
    part = (float(loss.steps[0]) - begin) / max(n_steps - begin, 1)
    if part < LATE_UPDATES:
        return None
    evidence = Evidence(
        loss.name, int(loss.steps[0]), float(loss.values[0]), f"the first loss, after {part:.0%} of the run"
    )
    return RuleResult(0.7, (evidence,), 0, value=part, threshold=LATE_UPDATES)


def _is_rare(updates: Series, n_steps: int) -> RuleResult | None:
    # Only steps since the first logged update count, because a warm-up has no updates.
    since = max(n_steps - int(updates.steps[0]), 1)
    rate = float(updates.values[-1]) / max(since, n_steps // 2)
    if rate >= RARE:
        return None
    evidence = Evidence.last_of(updates, f"updates in {n_steps:,} steps: one in {rounded(1.0 / max(rate, 1e-9))} steps")
    return RuleResult(0.7, (evidence,), int(updates.steps[0]), value=rate, threshold=RARE)


def _has_not_learned_the_reward(data: SeriesSet, n_steps: int) -> RuleResult | None:
    kind = recognise(data.names())
    length_tag = find_lengths(data.names())
    q, loss = own_scale.q_series(data, kind), own_scale.critic_loss(data)
    if length_tag is None or q is None or loss is None or n_steps < MIN_STEPS_FOR_NO:
        return None
    length = data[length_tag].median()
    returns = data[find_returns(data.names())[0].name].finite
    if min(len(q), len(loss)) < own_scale.MIN_POINTS or not length >= SHORTEST_EPISODE:
        return None
    reward = abs(returns.tail(0.5).median()) / length
    if not reward > 0.0:
        return None
    ahead = abs(q.tail(LAST_TENTH).median()) / reward
    error = math.sqrt(max(loss.tail(LAST_TENTH).median(), 0.0) / 2.0) / reward
    if ahead >= NOT_LEARNED or error < UNSETTLED:
        return None
    logged_q, logged_loss = data[q.name].finite, data[loss.name].finite
    evidence = (
        Evidence.last_of(
            logged_q,
            f"{rounded(ahead)} times the reward of a step, so not even that reward has been learned",
        ),
        Evidence.last_of(logged_loss, f"its error is {rounded(error)} of that reward"),
    )
    remedy = (
        "Consistent with rare updates (train_freq, gradient_steps) or, less likely, with rewards of both signs that "
        f"cancel. To tell them apart, log: {UPDATES}. {REMEDY}"
    )
    return RuleResult(0.55, evidence, None, value=ahead, threshold=NOT_LEARNED, remedy=remedy)


def _updates(data: SeriesSet) -> Series:
    counted = data[UPDATES].finite
    return counted if len(counted) else data[tags.TOTAL_ITERATIONS].finite
