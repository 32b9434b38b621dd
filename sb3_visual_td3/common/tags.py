"""The one table of logged names: nothing is logged, read or judged under a name that is not here.

A name has one writer (``owner``). The x-axis is environment steps (``"step"``) unless the table says
``"episode"``. The 39 names of the first, hand-judged run are kept to the letter so that its readers and
its files still compare; the rest is what that run could not see. The terms of a reward that is not ours have names
that no table knows beforehand: see :func:`reward_term`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from sb3_visual_td3.common.groups import GROUP_NAMES, GROUPS
from sb3_visual_td3.common.types import NETWORKS

XAxis = Literal["step", "episode"]


class Tag(NamedTuple):
    """One row of the table."""

    name: str
    unit: str
    meaning: str
    owner: str
    x_axis: XAxis = "step"


TAGS: dict[str, Tag] = {}
"""Every logged name, in the order of this file."""


def _tag(name: str, unit: str, meaning: str, owner: str, x_axis: XAxis = "step") -> str:
    assert name not in TAGS, f"{name} stands twice in the table"
    TAGS[name] = Tag(name, unit, meaning, owner, x_axis)
    return name


_GRADIENTS = "GradientNormCallback"
_ALERTS = "ExplosionAlertCallback"
_DRIVING = "DrivingMetricsCallback"
_EVAL = "DrivingEvalCallback"

# train/: one point per episode
EPISODE_REWARD = _tag("train/episode_reward", "reward", "sum of the environment's own rewards", _DRIVING, "episode")
EPISODE_LENGTH = _tag("train/episode_length", "steps", "environment steps in the episode", _DRIVING, "episode")
EPISODE_COLLISIONS = _tag("train/collisions_per_episode", "1", "collisions in the episode", _DRIVING, "episode")
EPISODE_LANE_INVASIONS = _tag(
    "train/lane_invasions_per_episode", "1", "lane marks crossed in the episode", _DRIVING, "episode"
)
EPISODE_ROUTE_COMPLETION = _tag(
    "train/route_completion", "1", "part of the route behind the vehicle when the episode ended", _DRIVING, "episode"
)
EPISODE_SUCCESS = _tag("train/success", "0|1", "1 where the episode ended in success", _DRIVING, "episode")

# train/: the update
ACTOR_LOSS = _tag("train/actor_loss", "return", "the actor's loss", _GRADIENTS)
CRITIC_LOSS = _tag("train/critic_loss", "return^2", "sum of the critics' losses", _GRADIENTS)
CRITIC_1_LOSS = _tag("train/critic_1_loss", "return^2", "loss of the first critic", _GRADIENTS)
CRITIC_2_LOSS = _tag("train/critic_2_loss", "return^2", "loss of the second critic", _GRADIENTS)
Q1_VALUE = _tag("train/q1_value", "return", "mean Q1(s, a) on replayed pairs", _GRADIENTS)
Q2_VALUE = _tag("train/q2_value", "return", "mean Q2(s, a) on replayed pairs", _GRADIENTS)
TARGET_Q_MEAN = _tag("train/target_q_mean", "return", "mean bootstrapped target", _GRADIENTS)
POLICY_Q_VALUE = _tag("train/policy_q_value", "return", "mean Q1(s, pi(s))", _GRADIENTS)
Q_GAP = _tag("train/q_gap", "return", "policy_q_value - q1_value: what the actor believes it gains", _GRADIENTS)
Q_BOUND = _tag(
    "train/q_bound", "return", "largest |Q| that the rewards sampled so far allow: max|R| / (1 - discount)", _GRADIENTS
)
RETURN_IS_UNDISCOUNTED = _tag(
    "train/return_is_undiscounted",
    "0|1",
    "1 where a discount is 1: the rewards then allow any Q, there is no bound",
    _GRADIENTS,
)
REWARD_MIN = _tag(
    "train/reward_min", "reward", "smallest reward the critic has been shown since the last point", _GRADIENTS
)
REWARD_MAX = _tag(
    "train/reward_max", "reward", "largest reward the critic has been shown since the last point", _GRADIENTS
)
EXPLORATION_NOISE = _tag("train/exploration_noise", "1", "standard deviation of the action noise", _GRADIENTS)

# gradients/: before clipping
GRADIENT_NORM = {
    g: _tag(f"gradients/{g}_norm", "1", f"L2 norm of the gradient of {g}, before clipping", _GRADIENTS)
    for g in GROUP_NAMES
}
GRADIENT_NORM_CLIPPED = {
    g: _tag(f"gradients/{g}_norm_clipped", "1", f"L2 norm of the gradient of {g}, after clipping", _GRADIENTS)
    for g in GROUP_NAMES
}
CLIP_FRACTION = {
    g: _tag(f"gradients/{g}_clip_fraction", "1", f"fraction of sampled updates in which {g} was clipped", _GRADIENTS)
    for g in GROUP_NAMES
}
UPDATE_RATIO = {
    g: _tag(f"gradients/{g}_update_ratio", "1", f"norm of the step of {g} over the norm of its weights", _GRADIENTS)
    for g in GROUP_NAMES
}
GROUP_FROZEN = {
    g: _tag(f"gradients/{g}_frozen", "0|1", f"1 where no weight of {g} is trained: it has no gradient", _GRADIENTS)
    for g in GROUP_NAMES
}
SEEN_BY_OPTIMIZER = _tag(
    "gradients/seen_by_optimizer", "0|1", "1 where norms are as the optimizer saw them, after any clipping", _GRADIENTS
)

DERIVED = frozenset({Q_BOUND, Q_GAP, *UPDATE_RATIO.values()})
"""Ratios, differences and bounds of what is logged or looked at under other names. One that does not exist is not
logged: undiscounted returns have no bound, weights of norm 0 have no ratio. None of them is judged for not being
finite: what is not finite in the training shows in what they are made of."""

# alerts/: 1 while the rule fires, else 0
ALERT_WARNING = _tag("alerts/gradient_explosion_warning", "0|1", "a norm above the warning threshold", _ALERTS)
ALERT_CRITICAL = _tag("alerts/gradient_explosion_critical", "0|1", "a norm above the critical threshold", _ALERTS)
ALERTS = "alerts/"
"""Prefix of the names of all alerts; the live rules of ``diagnosis/rules`` have one each."""


def alert_of_rule(rule_id: str) -> str:
    """Return the name under which a live rule is logged: 1 while the last updates show its diagnosis, else 0."""
    return ALERTS + rule_id


# agent/
TOTAL_ITERATIONS = _tag("agent/total_iterations", "1", "gradient updates made", _GRADIENTS)
IS_TRAINING = _tag("agent/is_training", "0|1", "1 once gradient updates are made", _GRADIENTS)
BUFFER_UTILIZATION = _tag("agent/buffer_utilization", "1", "filled part of the replay buffer", _GRADIENTS)
GROUP_LR = {
    group.name: _tag(f"agent/{group.rate_argument}", "1", f"learning rate of {group.name}", _GRADIENTS)
    for group in GROUPS
}
_HEADS_FIRST = sorted(GROUPS, key=lambda group: group.is_encoder)
PARAM_MEAN = {
    group.name: _tag(
        f"agent/{group.short_name}_param_mean", "1", f"mean of the weights of {group.short_name}", _GRADIENTS
    )
    for group in _HEADS_FIRST
}
PARAM_STD = {
    group.name: _tag(
        f"agent/{group.short_name}_param_std",
        "1",
        f"standard deviation of the weights of {group.short_name}",
        _GRADIENTS,
    )
    for group in _HEADS_FIRST
}
ACTION_SATURATION = _tag("agent/action_saturation", "1", "fraction of policy actions with |a| > 0.98", _GRADIENTS)
PRE_TANH_ABS_MEAN = _tag("agent/pre_tanh_abs_mean", "1", "mean |u| before the tanh of the policy", _GRADIENTS)
ACTION_STD_MIN = _tag(
    "agent/action_std_min", "1", "smallest per-dimension std of the policy's actions over a batch", _GRADIENTS
)
ENCODER_IS_SHARED = _tag("agent/encoder_is_shared", "0|1", "1 where actor and critic share one encoder", _GRADIENTS)
HAS_ENCODER = _tag("agent/has_encoder", "0|1", "1 where the networks look at images through an encoder", _GRADIENTS)
REWARD_IS_NORMALIZED = _tag(
    "agent/reward_is_normalized", "0|1", "1 where the critic sees rewards scaled by VecNormalize", _GRADIENTS
)
ENCODER_DORMANT_FRACTION = _tag(
    "agent/encoder_dormant_fraction", "1", "fraction of dormant units of the critic's encoder", _GRADIENTS
)
TARGET_DISTANCE = {
    n: _tag(f"agent/{n}_target_distance", "1", f"L2 distance of the {n} from its target copy", _GRADIENTS)
    for n in NETWORKS
}
TARGET_MOVED = {
    n: _tag(
        f"agent/{n}_target_moved",
        "1",
        f"fraction of measured updates in which the target copy of the {n} had moved since the one before",
        _GRADIENTS,
    )
    for n in NETWORKS
}
GUARD_ACTIONS = _tag(
    "agent/guard_actions", "1", "how often the guard has acted on a critical alert: see alerts.jsonl", _ALERTS
)
FRAME_STD = _tag("agent/frame_std", "grey level", "standard deviation of the pixels of the newest frames", _GRADIENTS)
FRAME_CHANGE = _tag("agent/frame_change", "grey level", "mean |difference| of consecutive frames", _GRADIENTS)

# progress/
PROGRESS_BUFFER_SIZE = _tag("progress/buffer_size", "transitions", "transitions in the replay buffer", _DRIVING)
PROGRESS_EPISODE_STEPS = _tag("progress/episode_steps", "steps", "steps so far in the current episode", _DRIVING)
PROGRESS_REWARD = _tag("progress/current_reward", "reward", "the environment's own reward of the step", _DRIVING)
PROGRESS_SPEED = _tag("progress/speed_kmh", "km/h", "speed of the ego vehicle", _DRIVING)

# reward/: mean per step of each named term since the last point, weighted as it enters the sum
REWARD_TERMS = ("progress", "smoothness", "lane_centring", "efficiency", "safety")
REWARD_TERM = {t: _tag(f"reward/{t}", "reward", f"mean weighted {t} term per step", _DRIVING) for t in REWARD_TERMS}
REWARD = "reward/"
"""What the name of every term begins with, of terms that stand in no table too."""


def reward_term(term: str) -> str:
    """:return: the name that a term of the reward is logged under, of an environment that is not ours too"""
    return REWARD + term


def is_known(name: str) -> bool:
    """Return whether this name is in the table, or is a term of a reward or the alert of a rule."""
    return name in TAGS or name.startswith((REWARD, ALERTS))


# eval/
EVAL_REWARD = _tag("eval/mean_reward", "reward", "mean return of the evaluated policy", _EVAL)
EVAL_SUCCESS_RATE = _tag("eval/success_rate", "1", "fraction of evaluation episodes that succeeded", _EVAL)
EVAL_COLLISIONS = _tag("eval/avg_collisions", "1", "collisions per evaluation episode", _EVAL)
EVAL_LANE_INVASIONS = _tag("eval/avg_lane_invasions", "1", "lane marks crossed per evaluation episode", _EVAL)
EVAL_LENGTH = _tag("eval/avg_episode_length", "steps", "steps per evaluation episode", _EVAL)
EVAL_DISTANCE = _tag("eval/mean_distance_m", "m", "metres driven along the lane per evaluation episode", _EVAL)
EVAL_SPEED = _tag("eval/mean_speed_mps", "m/s", "mean speed over the evaluation", _EVAL)
EVAL_RANDOM_DISTANCE = _tag("eval/random_distance_m", "m", "the same for uniformly random actions", _EVAL)
EVAL_BRAKE_DISTANCE = _tag("eval/full_brake_distance_m", "m", "the same for a driver that only brakes", _EVAL)
