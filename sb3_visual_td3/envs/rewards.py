"""Compute the terms of the reward, with one pure function for each name in ``common.tags.REWARD_TERMS``.

``task.DrivingTask`` calls each function once per step, and multiplies the result by the weight of the term. It does not
multiply the result of ``safety_term``, because this function applies its weights itself. docs/developer.md has the
recipe for a new term.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType

from sb3_visual_td3.envs.arguments import coerce_quantity

FULL_GATE_FRACTION = 0.3
"""``speed_gate`` is 1 at this fraction of the target speed and above."""


@dataclass(frozen=True)
class RewardWeights:
    """Hold the weight of each reward term.

    ``accident``, ``lane_invasion``, ``red_light`` and ``walker`` are costs within the term ``safety``. A collision with
    a pedestrian costs the sum of ``accident`` and ``walker``.

    :raises ValueError: if a weight is negative or not finite
    """

    progress: float = 0.60
    smoothness: float = 0.20
    lane_centring: float = 0.10
    efficiency: float = 0.10
    accident: float = 10.0
    lane_invasion: float = 1.0
    red_light: float = 5.0
    walker: float = 10.0

    def __post_init__(self) -> None:
        for weight in fields(self):
            coerce_quantity(self, weight.name, 0.0, 1e6, "reward")


REWARD_SETS: Mapping[str, RewardWeights] = MappingProxyType(
    {
        # Progress, smoothness, lane centring and efficiency add up to 1: a perfect step has the reward 1.
        "balanced": RewardWeights(),
        "progress_heavy": RewardWeights(progress=0.95, smoothness=0.025, lane_centring=0.0, efficiency=0.025),
    }
)
"""The named sets of weights. ``balanced`` is the default. ``progress_heavy`` rewards almost only progress: a policy
that was trained with these weights in CARLA drove recklessly."""


def reward_weights(reward: str | RewardWeights | Mapping[str, float]) -> RewardWeights:
    """Return the weights for the argument ``reward`` of an environment.

    :param reward: a name in ``REWARD_SETS``; a ``RewardWeights``, which is returned unchanged; or a mapping with the
        weights that differ from ``"balanced"``, such as ``{"accident": 1.0}``
    :raises ValueError: if ``reward`` is an unknown name, or a mapping with a key that is not a weight
    """
    if isinstance(reward, RewardWeights):
        return reward
    if isinstance(reward, Mapping):
        names = [weight.name for weight in fields(RewardWeights)]
        unknown = [name for name in reward if name not in names]
        if unknown:
            raise ValueError(f"reward={dict(reward)!r}: unknown weights {unknown}; expected only names among {names}")
        return replace(REWARD_SETS["balanced"], **reward)
    if not isinstance(reward, str) or reward not in REWARD_SETS:
        raise ValueError(
            f"reward={reward!r}: expected one of {sorted(REWARD_SETS)}, a RewardWeights, or a mapping of weights"
        )
    return REWARD_SETS[reward]


def speed_gate(speed_mps: float, target_speed_mps: float) -> float:
    """Return the factor for reward terms that would otherwise reward a vehicle at standstill.

    Without this factor the policy learns to stand still.

    :param speed_mps: speed of the vehicle, >= 0
    :param target_speed_mps: the requested speed, > 0
    :return: 0 at standstill, rising linearly to 1 at 0.3 of the target speed
    :raises ValueError: if ``target_speed_mps`` is not positive
    """
    _check_target(target_speed_mps)
    return min(1.0, speed_mps / (FULL_GATE_FRACTION * target_speed_mps))


def progress_term(distance_m: float, step_s: float, target_speed_mps: float) -> float:
    """Return the reward for progress along the lane: it rises up to the target speed and falls beyond it.

    Without the decrease, the policy would learn to drive as fast as the car can.

    :param distance_m: signed distance along the lane in this step
    :param step_s: length of the step in seconds, > 0
    :param target_speed_mps: the requested speed, > 0
    :return: 1 at the target speed, 0 at standstill and at twice the target, never below -1
    :raises ValueError: if ``step_s`` or ``target_speed_mps`` is not positive
    """
    _check_target(target_speed_mps)
    if not step_s > 0.0:
        raise ValueError(f"step_s={step_s!r}: expected a positive number of seconds; pass the length of one step")
    ratio = distance_m / (step_s * target_speed_mps)
    if ratio > 1.0:
        ratio = 2.0 - ratio
    return max(-1.0, ratio)


def smoothness_term(steer_change: float, pedal_change: float, gate: float) -> float:
    """Return the reward for keeping the controls still.

    :param steer_change: change of the steering action since the last step, in [-2, 2]
    :param pedal_change: change of the throttle/brake action since the last step, in [-2, 2]
    :param gate: result of ``speed_gate``, in [0, 1]
    :return: ``gate`` if neither action changed, 0 if the steering went from full left to full right
    :raises ValueError: if ``gate`` is outside [0, 1]
    """
    _check_gate(gate)
    # A change from full left to full right is 2 and costs the whole term; the pedals count half as much.
    return gate * (1.0 - min(1.0, 0.5 * abs(steer_change) + 0.25 * abs(pedal_change)))


def lane_centring_term(lateral_offset_m: float, lane_width_m: float, gate: float) -> float:
    """Return the reward for keeping to the middle of the lane.

    :param lateral_offset_m: distance from the centre of the lane, either sign
    :param lane_width_m: width of the lane, > 0
    :param gate: result of ``speed_gate``, in [0, 1]
    :return: ``gate`` in the middle, 0 at the lane's edge, never below ``-gate``
    :raises ValueError: if ``lane_width_m`` is not positive or ``gate`` is outside [0, 1]
    """
    _check_gate(gate)
    if not lane_width_m > 0.0:
        raise ValueError(f"lane_width_m={lane_width_m!r}: expected a positive number of metres; pass the lane's width")
    return gate * max(-1.0, 1.0 - 2.0 * abs(lateral_offset_m) / lane_width_m)


def efficiency_term(speed_mps: float, target_speed_mps: float) -> float:
    """Return the reward for driving at the target speed.

    Unlike ``progress_term`` it depends on the speed, not on the distance along the lane.

    :param speed_mps: speed of the vehicle, >= 0
    :param target_speed_mps: the requested speed, > 0
    :return: 1 at the target speed, 0 at 0.5 and at 1.5 times the target speed, never below -1
    :raises ValueError: if ``target_speed_mps`` is not positive
    """
    _check_target(target_speed_mps)
    return max(-1.0, 1.0 - 2.0 * abs(speed_mps - target_speed_mps) / target_speed_mps)


def safety_term(
    is_accident: bool,
    n_lane_invasions: int,
    weights: RewardWeights,
    *,
    n_red_lights: int = 0,
    has_hit_walker: bool = False,
) -> float:
    """Return the cost of accidents, crossed marks and red lights, as a reward of at most 0.

    Unlike the results of the other functions, this result already contains the weights.

    :param is_accident: True if the step ended the episode with an accident
    :param n_lane_invasions: number of lane marks crossed in this step, >= 0
    :param weights: the cost of each event
    :param n_red_lights: number of red lights run in this step
    :param has_hit_walker: True if the accident is a collision with a pedestrian
    :return: 0 for a clean step, otherwise minus the sum of the costs
    :raises ValueError: if ``n_lane_invasions`` is negative
    """
    if n_lane_invasions < 0:
        raise ValueError(f"n_lane_invasions={n_lane_invasions}: expected 0 or more; pass the number of crossed marks")
    # Subtracted from 0.0, because a clean step would otherwise have the reward -0.0.
    cost = 0.0 - weights.accident * is_accident - weights.lane_invasion * n_lane_invasions
    return cost - weights.red_light * n_red_lights - weights.walker * has_hit_walker


def _check_target(target_speed_mps: float) -> None:
    if not target_speed_mps > 0.0:
        raise ValueError(f"target_speed_mps={target_speed_mps!r}: expected a positive speed in m/s; set one above 0")


def _check_gate(gate: float) -> None:
    if not 0.0 <= gate <= 1.0:
        raise ValueError(f"gate={gate!r}: expected a number in [0, 1]; pass the result of speed_gate")
