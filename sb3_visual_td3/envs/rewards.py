"""The terms of the reward: pure functions, one per name in ``common.tags.REWARD_TERMS``.

Each returns its term before weighting; ``weigh`` puts the weights on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType

from sb3_visual_td3.envs.arguments import coerce_quantity

FULL_GATE_FRACTION = 0.3
"""Fraction of the target speed from which gated terms count in full."""


@dataclass(frozen=True)
class RewardWeights:
    """Weight of each term; ``accident`` and ``lane_invasion`` are the two costs within ``safety``.

    A weighted term lies within its weight's distance of 0, ``smoothness`` never below 0 and ``safety`` never above.

    :raises ValueError: if a weight is negative or not finite.
    """

    progress: float = 0.60
    smoothness: float = 0.20
    lane_centring: float = 0.10
    efficiency: float = 0.10
    accident: float = 10.0
    lane_invasion: float = 1.0

    def __post_init__(self) -> None:
        for weight in fields(self):
            coerce_quantity(self, weight.name, 0.0, 1e6, "reward")


REWARD_SETS: Mapping[str, RewardWeights] = MappingProxyType(
    {
        "balanced": RewardWeights(),
        "progress_heavy": RewardWeights(progress=0.95, smoothness=0.025, lane_centring=0.0, efficiency=0.025),
    }
)
"""The weights that have a name: ``progress_heavy`` are those of a run that came to drive recklessly."""


def reward_weights(reward: str | RewardWeights) -> RewardWeights:
    """Return the weights that ``reward`` names, or itself where it is some.

    Raises:
        ValueError: if there is no set of this name.
    """
    if isinstance(reward, RewardWeights):
        return reward
    if not isinstance(reward, str) or reward not in REWARD_SETS:
        raise ValueError(
            f"reward={reward!r}: expected one of {sorted(REWARD_SETS)} or a RewardWeights; choose from these"
        )
    return REWARD_SETS[reward]


def speed_gate(speed_mps: float, target_speed_mps: float) -> float:
    """Return how far terms that standing still would satisfy may count.

    Args:
        speed_mps: speed of the vehicle, >= 0.
        target_speed_mps: the speed asked for, > 0.

    Returns:
        0 at standstill, rising linearly to 1 at 0.3 of the target speed.

    Raises:
        ValueError: if ``target_speed_mps`` is not positive.
    """
    _check_target(target_speed_mps)
    return min(1.0, speed_mps / (FULL_GATE_FRACTION * target_speed_mps))


def progress_term(distance_m: float, step_s: float, target_speed_mps: float) -> float:
    """Return the reward for getting along the lane, triangular about the target speed.

    Without the falling side a driver would be paid for going as fast as the car can.

    Args:
        distance_m: signed metres along the lane in this step.
        step_s: length of the step in seconds, > 0.
        target_speed_mps: the speed asked for, > 0.

    Returns:
        1 at the target speed, 0 at standstill and at twice the target, never below -1.

    Raises:
        ValueError: if ``step_s`` or ``target_speed_mps`` is not positive.
    """
    _check_target(target_speed_mps)
    if not step_s > 0.0:
        raise ValueError(f"step_s={step_s!r}: expected a positive number of seconds")
    ratio = distance_m / (step_s * target_speed_mps)
    return max(-1.0, 2.0 - ratio if ratio > 1.0 else ratio)


def smoothness_term(steer_change: float, pedal_change: float, gate: float) -> float:
    """Return the reward for holding the controls still.

    Args:
        steer_change: change of the steering action since the last step, in [-2, 2].
        pedal_change: change of the throttle/brake action since the last step, in [-2, 2].
        gate: result of ``speed_gate``, in [0, 1].

    Returns:
        ``gate`` where nothing changed, 0 where steering went from one side to the other.

    Raises:
        ValueError: if ``gate`` is outside [0, 1].
    """
    _check_gate(gate)
    return gate * (1.0 - min(1.0, 0.5 * abs(steer_change) + 0.25 * abs(pedal_change)))


def lane_centring_term(lateral_offset_m: float, lane_width_m: float, gate: float) -> float:
    """Return the reward for keeping to the middle of the own lane.

    Args:
        lateral_offset_m: distance of the vehicle from the centre of its lane, either sign.
        lane_width_m: width of the lane, > 0.
        gate: result of ``speed_gate``, in [0, 1].

    Returns:
        ``gate`` in the middle, 0 on the lane's edge, never below ``-gate``.

    Raises:
        ValueError: if ``lane_width_m`` is not positive or ``gate`` is outside [0, 1].
    """
    _check_gate(gate)
    if not lane_width_m > 0.0:
        raise ValueError(f"lane_width_m={lane_width_m!r}: expected a positive number of metres")
    return gate * max(-1.0, 1.0 - 2.0 * abs(lateral_offset_m) / lane_width_m)


def efficiency_term(speed_mps: float, target_speed_mps: float) -> float:
    """Return the reward for driving at the target speed.

    Args:
        speed_mps: speed of the vehicle, >= 0.
        target_speed_mps: the speed asked for, > 0.

    Returns:
        1 at the target speed, 0 at half and at one and a half of it, never below -1.

    Raises:
        ValueError: if ``target_speed_mps`` is not positive.
    """
    _check_target(target_speed_mps)
    return max(-1.0, 1.0 - 2.0 * abs(speed_mps - target_speed_mps) / target_speed_mps)


def safety_term(is_accident: bool, n_lane_invasions: int, weights: RewardWeights) -> float:
    """Return the cost of what must not happen, already weighted.

    Args:
        is_accident: the step ended the episode before its time.
        n_lane_invasions: lane marks newly crossed in this step, >= 0.
        weights: the costs of both.

    Returns:
        0 for a clean step, else minus the costs.

    Raises:
        ValueError: if ``n_lane_invasions`` is negative.
    """
    if n_lane_invasions < 0:
        raise ValueError(f"n_lane_invasions={n_lane_invasions}: expected 0 or more")
    return 0.0 - weights.accident * is_accident - weights.lane_invasion * n_lane_invasions


def weigh(
    progress: float, smoothness: float, lane_centring: float, efficiency: float, safety: float, weights: RewardWeights
) -> dict[str, float]:
    """Return the weighted terms by name; their sum, in this order, is the reward of the step.

    Args:
        progress: result of ``progress_term``.
        smoothness: result of ``smoothness_term``.
        lane_centring: result of ``lane_centring_term``.
        efficiency: result of ``efficiency_term``.
        safety: result of ``safety_term``, which carries its weights already.
        weights: the weight of each of the others.

    Returns:
        One float for every name in ``REWARD_TERMS``, in that order.
    """
    return {
        "progress": weights.progress * progress,
        "smoothness": weights.smoothness * smoothness,
        "lane_centring": weights.lane_centring * lane_centring,
        "efficiency": weights.efficiency * efficiency,
        "safety": safety,
    }


def _check_target(target_speed_mps: float) -> None:
    if not target_speed_mps > 0.0:
        raise ValueError(f"target_speed_mps={target_speed_mps!r}: expected a positive speed in m/s")


def _check_gate(gate: float) -> None:
    if not 0.0 <= gate <= 1.0:
        raise ValueError(f"gate={gate!r}: expected a number in [0, 1], as speed_gate gives it")
