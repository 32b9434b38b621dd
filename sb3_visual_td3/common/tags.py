"""Define the table of logged names: name, unit, meaning, writer and x-axis of every scalar.

Every name that is logged, read or judged is in this table, except terms of the reward (:func:`reward_term`) and alerts
of the rules (:func:`alert_of_rule`). Names must not change, because event files and scripts of earlier runs contain
them.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from sb3_visual_td3.common.groups import GROUP_NAMES, GROUPS
from sb3_visual_td3.common.types import NETWORKS

XAxis = Literal["step", "episode"]


class Tag(NamedTuple):
    """Describe one logged name: its unit, its meaning, the callback that writes it, and its x-axis.

    :ivar name: the logged name, such as ``"train/q_gap"``
    :ivar unit: unit of the value; ``"1"`` for a number without a unit, ``"0|1"`` for no or yes
    :ivar meaning: one sentence for users
    :ivar owner: class name of the callback that writes it
    :ivar x_axis: environment steps or episodes
    """

    name: str
    unit: str
    meaning: str
    owner: str
    x_axis: XAxis = "step"


TAGS: dict[str, Tag] = {}
"""Every logged name, in the order of this file."""


def _tag(name: str, unit: str, meaning: str, owner: str, x_axis: XAxis = "step") -> str:
    assert name not in TAGS, f"{name} is twice in the table: remove one of the two entries"
    TAGS[name] = Tag(name, unit, meaning, owner, x_axis)
    return name


_GRADIENTS = "GradientNormCallback"
_ALERTS = "ExplosionAlertCallback"
_DRIVING = "DrivingMetricsCallback"
_EVAL = "DrivingEvalCallback"
_POLICY_EVAL = "PolicyEvalCallback"

# train/: one point per episode
EPISODE_REWARD = _tag(
    "train/episode_reward", "reward", "Sum of the environment's own rewards over the episode.", _DRIVING, "episode"
)
EPISODE_LENGTH = _tag(
    "train/episode_length", "steps", "Number of environment steps in the episode.", _DRIVING, "episode"
)
EPISODE_COLLISIONS = _tag(
    "train/collisions_per_episode", "1", "Number of collisions in the episode.", _DRIVING, "episode"
)
EPISODE_LANE_INVASIONS = _tag(
    "train/lane_invasions_per_episode", "1", "Number of lane markings crossed in the episode.", _DRIVING, "episode"
)
EPISODE_ROUTE_COMPLETION = _tag(
    "train/route_completion",
    "1",
    "Fraction of the route that the vehicle had completed when the episode ended.",
    _DRIVING,
    "episode",
)
EPISODE_SUCCESS = _tag("train/success", "0|1", "1 if the episode ended in success, otherwise 0.", _DRIVING, "episode")

# train/: the gradient update
ACTOR_LOSS = _tag("train/actor_loss", "return", "Loss of the actor.", _GRADIENTS)
CRITIC_LOSS = _tag("train/critic_loss", "return^2", "Sum of the losses of all critics.", _GRADIENTS)
CRITIC_1_LOSS = _tag("train/critic_1_loss", "return^2", "Loss of the first critic.", _GRADIENTS)
CRITIC_2_LOSS = _tag("train/critic_2_loss", "return^2", "Loss of the second critic.", _GRADIENTS)
Q1_VALUE = _tag(
    "train/q1_value", "return", "Mean of Q1(s, a) over the replayed pairs of observation and action.", _GRADIENTS
)
Q2_VALUE = _tag(
    "train/q2_value", "return", "Mean of Q2(s, a) over the replayed pairs of observation and action.", _GRADIENTS
)
TARGET_Q_MEAN = _tag("train/target_q_mean", "return", "Mean of the bootstrapped target of the critics.", _GRADIENTS)
POLICY_Q_VALUE = _tag(
    "train/policy_q_value", "return", "Mean of Q1(s, pi(s)), the value of the policy's own actions.", _GRADIENTS
)
Q_GAP = _tag(
    "train/q_gap",
    "return",
    "policy_q_value minus q1_value: how much better the critic rates the policy's actions than the replayed ones.",
    _GRADIENTS,
)
Q_BOUND = _tag(
    "train/q_bound", "return", "Largest |Q| that the rewards sampled so far allow: max|R| / (1 - discount).", _GRADIENTS
)
REWARD_DIVISOR = _tag(
    "train/reward_divisor",
    "reward",
    "Number by which VisualTD3 divides the rewards (scale_rewards); 1 if it leaves them unchanged.",
    _GRADIENTS,
)
RETURN_IS_UNDISCOUNTED = _tag(
    "train/return_is_undiscounted",
    "0|1",
    "1 if a discount is 1, so that the rewards allow any Q and there is no bound; otherwise 0.",
    _GRADIENTS,
)
REWARD_MIN = _tag(
    "train/reward_min", "reward", "Smallest reward that the critic has seen since the last point.", _GRADIENTS
)
REWARD_MAX = _tag(
    "train/reward_max", "reward", "Largest reward that the critic has seen since the last point.", _GRADIENTS
)
EXPLORATION_NOISE = _tag(
    "train/exploration_noise", "1", "Standard deviation of the action noise, on actions scaled to [-1, 1].", _GRADIENTS
)

# gradients/: norms are measured before clipping, because clipped norms would hide an explosion
GRADIENT_NORM = {
    g: _tag(f"gradients/{g}_norm", "1", f"L2 norm of the gradient of {g} before clipping.", _GRADIENTS)
    for g in GROUP_NAMES
}
GRADIENT_NORM_CLIPPED = {
    g: _tag(f"gradients/{g}_norm_clipped", "1", f"L2 norm of the gradient of {g} after clipping.", _GRADIENTS)
    for g in GROUP_NAMES
}
CLIP_FRACTION = {
    g: _tag(
        f"gradients/{g}_clip_fraction",
        "1",
        f"Fraction of the sampled updates in which the gradient of {g} was clipped.",
        _GRADIENTS,
    )
    for g in GROUP_NAMES
}
UPDATE_RATIO = {
    g: _tag(
        f"gradients/{g}_update_ratio",
        "1",
        f"Norm of one optimizer step of {g} divided by the norm of its weights.",
        _GRADIENTS,
    )
    for g in GROUP_NAMES
}
GROUP_FROZEN = {
    g: _tag(
        f"gradients/{g}_frozen",
        "0|1",
        f"1 if no weight of {g} is trained, so that it has no gradient; otherwise 0.",
        _GRADIENTS,
    )
    for g in GROUP_NAMES
}
SEEN_BY_OPTIMIZER = _tag(
    "gradients/seen_by_optimizer",
    "0|1",
    "1 if norms are measured as the optimizer sees the gradients, after any clipping; otherwise 0.",
    _GRADIENTS,
)

DERIVED = frozenset({Q_BOUND, Q_GAP, *UPDATE_RATIO.values()})
"""Names that are computed from other measurements: ratios, differences and bounds.

If such a quantity does not exist, GradientNormCallback logs no value: undiscounted returns, for example, have no bound.
Earlier versions logged infinity instead. Checks for non-finite values therefore skip these names."""

# alerts/: 1 while the rule fires, else 0
ALERT_WARNING = _tag(
    "alerts/gradient_explosion_warning",
    "0|1",
    "1 while a gradient norm is above the warning threshold, otherwise 0.",
    _ALERTS,
)
ALERT_CRITICAL = _tag(
    "alerts/gradient_explosion_critical",
    "0|1",
    "1 while a gradient norm is above the critical threshold, otherwise 0.",
    _ALERTS,
)
ALERTS = "alerts/"
"""Prefix of the names of all alerts. Each rule of ``diagnosis/rules`` that also runs during training has an alert."""


def alert_of_rule(rule_id: str) -> str:
    """Return the tag of the alert of a rule that also runs during training.

    The values logged under this tag are 1 while the rule finds its problem, otherwise 0.
    """
    return ALERTS + rule_id


# agent/: weights, settings in force, and the health of policy, encoder and camera
TOTAL_ITERATIONS = _tag("agent/total_iterations", "1", "Number of gradient updates made.", _GRADIENTS)
IS_TRAINING = _tag(
    "agent/is_training", "0|1", "1 once the first gradient update has been made, otherwise 0.", _GRADIENTS
)
BUFFER_UTILIZATION = _tag("agent/buffer_utilization", "1", "Fraction of the replay buffer that is filled.", _GRADIENTS)
GROUP_LR = {
    group.name: _tag(f"agent/{group.rate_argument}", "1", f"Learning rate of {group.name}.", _GRADIENTS)
    for group in GROUPS
}
_HEADS_FIRST = sorted(GROUPS, key=lambda group: group.is_encoder)
PARAM_MEAN = {
    group.name: _tag(
        f"agent/{group.short_name}_param_mean", "1", f"Mean of the weights of {group.short_name}.", _GRADIENTS
    )
    for group in _HEADS_FIRST
}
PARAM_STD = {
    group.name: _tag(
        f"agent/{group.short_name}_param_std",
        "1",
        f"Standard deviation of the weights of {group.short_name}.",
        _GRADIENTS,
    )
    for group in _HEADS_FIRST
}
ACTION_SATURATION = _tag(
    "agent/action_saturation", "1", "Fraction of the policy's actions with |a| > 0.98.", _GRADIENTS
)
PRE_TANH_ABS_MEAN = _tag(
    "agent/pre_tanh_abs_mean", "1", "Mean of |u|, the policy's output before the tanh.", _GRADIENTS
)
ACTION_STD_MIN = _tag(
    "agent/action_std_min",
    "1",
    "Standard deviation of the policy's actions over a batch, in the action dimension where it is smallest.",
    _GRADIENTS,
)
ENCODER_IS_SHARED = _tag(
    "agent/encoder_is_shared",
    "0|1",
    "1 if the critic's loss trains one encoder for actor and critic, otherwise 0.",
    _GRADIENTS,
)
HAS_ENCODER = _tag(
    "agent/has_encoder", "0|1", "1 if the networks see images through an encoder, otherwise 0.", _GRADIENTS
)
REWARD_IS_NORMALIZED = _tag(
    "agent/reward_is_normalized", "0|1", "1 if the critic sees scaled rewards, otherwise 0.", _GRADIENTS
)
ENCODER_DORMANT_FRACTION = _tag(
    "agent/encoder_dormant_fraction", "1", "Fraction of dormant units in the critic's encoder.", _GRADIENTS
)
TARGET_DISTANCE = {
    n: _tag(
        f"agent/{n}_target_distance",
        "1",
        f"L2 distance between the weights of the {n} and of its target network.",
        _GRADIENTS,
    )
    for n in NETWORKS
}
TARGET_MOVED = {
    n: _tag(
        f"agent/{n}_target_moved",
        "1",
        f"Fraction of the measured updates in which the target network of the {n} had moved since the previous one.",
        _GRADIENTS,
    )
    for n in NETWORKS
}
GUARD_ACTIONS = _tag(
    "agent/guard_actions",
    "1",
    "Number of times that the guard has acted on a critical alert; see alerts.jsonl.",
    _ALERTS,
)
FRAME_STD = _tag(
    "agent/frame_std",
    "grey level",
    "Standard deviation of the pixels of the newest frame, in the environment where it is smallest.",
    _GRADIENTS,
)
FRAME_CHANGE = _tag(
    "agent/frame_change", "grey level", "Mean absolute difference between the pixels of consecutive frames.", _GRADIENTS
)

# progress/: the latest step
PROGRESS_BUFFER_SIZE = _tag(
    "progress/buffer_size", "transitions", "Number of transitions in the replay buffer.", _DRIVING
)
PROGRESS_EPISODE_STEPS = _tag(
    "progress/episode_steps", "steps", "Number of steps so far in the current episode.", _DRIVING
)
PROGRESS_REWARD = _tag(
    "progress/current_reward", "reward", "The environment's own reward of the latest step.", _DRIVING
)
PROGRESS_SPEED = _tag("progress/speed_kmh", "km/h", "Speed of the ego vehicle.", _DRIVING)

# reward/: one name for each weighted term of the reward
REWARD_TERMS = ("progress", "smoothness", "lane_centring", "efficiency", "safety")
REWARD_TERM = {
    t: _tag(f"reward/{t}", "reward", f"Mean of the weighted {t} term per step since the last point.", _DRIVING)
    for t in REWARD_TERMS
}
REWARD = "reward/"
"""Prefix of the names of all reward terms, including terms of the user's environments."""


def reward_term(term: str) -> str:
    """Return the name under which a term of the reward is logged, in any environment."""
    return REWARD + term


def is_known(name: str) -> bool:
    """Return whether a name is in the table, is a term of a reward, or is the alert of a rule."""
    return name in TAGS or name.startswith((REWARD, ALERTS))


def is_on_steps(name: str) -> bool:
    """Return whether the x-axis of a name counts environment steps; False if the name is not in the table."""
    return name in TAGS and TAGS[name].x_axis == "step"


def is_on_episodes(name: str) -> bool:
    """Return whether the x-axis of a name counts episodes; False if the name is not in the table."""
    return name in TAGS and TAGS[name].x_axis == "episode"


# eval/: one point per evaluation
EVAL_REWARD = _tag("eval/mean_reward", "reward", "Mean return of the policy over the evaluation episodes.", _EVAL)
EVAL_SUCCESS_RATE = _tag("eval/success_rate", "1", "Fraction of the evaluation episodes that ended in success.", _EVAL)
EVAL_COLLISIONS = _tag("eval/avg_collisions", "1", "Mean number of collisions per evaluation episode.", _EVAL)
EVAL_LANE_INVASIONS = _tag(
    "eval/avg_lane_invasions", "1", "Mean number of lane markings crossed per evaluation episode.", _EVAL
)
EVAL_LENGTH = _tag("eval/avg_episode_length", "steps", "Mean number of steps per evaluation episode.", _EVAL)
OF_SB3 = {
    "ep_rew_mean": "rollout/ep_rew_mean",
    "ep_len_mean": "rollout/ep_len_mean",
    "success_rate": "rollout/success_rate",
    "approx_kl": "train/approx_kl",
    "clip_fraction": "train/clip_fraction",
    "ent_coef": "train/ent_coef",
    "entropy_loss": "train/entropy_loss",
    "explained_variance": "train/explained_variance",
    "learning_rate": "train/learning_rate",
    "policy_gradient_loss": "train/policy_gradient_loss",
    "std": "train/std",
    "value_loss": "train/value_loss",
}
"""Names that the report reads and that only Stable-Baselines3 writes. Each key is the part of a name after the slash.
A --tags file may map other names to these names."""
EVAL_LENGTH_OF_SB3 = "eval/mean_ep_length"
"""SB3's name for the mean episode length of an evaluation. Only SB3's EvalCallback writes it."""
EVAL_DISTANCE = _tag("eval/mean_distance_m", "m", "Mean distance driven along the lane per evaluation episode.", _EVAL)
EVAL_SPEED = _tag("eval/mean_speed_mps", "m/s", "Mean speed of the vehicle over the evaluation.", _EVAL)
EVAL_RANDOM_DISTANCE = _tag(
    "eval/random_distance_m",
    "m",
    "Mean distance per evaluation episode of a driver with uniformly random actions.",
    _EVAL,
)
EVAL_BRAKE_DISTANCE = _tag(
    "eval/full_brake_distance_m", "m", "Mean distance per evaluation episode of a driver that only brakes.", _EVAL
)

# eval/: in environments without a road. PolicyEvalCallback also writes EVAL_REWARD and EVAL_SUCCESS_RATE, as
# Stable-Baselines3's EvalCallback does. DrivingEvalCallback also writes EVAL_RANDOM_REWARD. A run has only one of the
# two callbacks, so each name has one writer.
EVAL_RANDOM_REWARD = _tag(
    "eval/random_reward",
    "reward",
    "Mean return of uniformly random actions over the evaluation episodes, measured once at the start of training.",
    _POLICY_EVAL,
)
EVAL_UNTRAINED_REWARD = _tag(
    "eval/untrained_reward",
    "reward",
    "Mean return that the policy reached over the evaluation episodes before its first update.",
    _POLICY_EVAL,
)
EVAL_BEST_REWARD = _tag("eval/best_reward", "reward", "Mean return of the best evaluation so far.", _POLICY_EVAL)
EVAL_BEST_STEP = _tag(
    "eval/best_step", "steps", "Environment steps at which the best evaluation was made.", _POLICY_EVAL
)

HIDDEN_IN_STOCK = frozenset([TARGET_Q_MEAN, Q_BOUND, REWARD_MIN, REWARD_MAX])
"""Tags that no callback can log for SB3's own algorithms, because their values exist only inside ``train()``."""
