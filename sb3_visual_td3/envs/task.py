"""Define the task: keep to the lane or the route at the target speed, until the goal or the end of the episode.

The task does not depend on pixels or physics: ``DrivingTask`` needs only the ``VehicleState`` and the action of each
step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

from sb3_visual_td3.envs import rewards
from sb3_visual_td3.envs.arguments import check_choice, coerce_count, coerce_quantity
from sb3_visual_td3.envs.backend import BodySize, MarkKind, VehicleState

Termination = Literal["", "collision", "off_road", "off_route", "wrong_way", "idle", "goal", "timeout"]
Ending = Literal["terminated", "truncated"]
_WAIT_AHEAD_M = 20.0
"""A vehicle has a reason to stand still if the place where it must stop, or the next car, is at most this far ahead."""


@dataclass(frozen=True)
class TaskSettings:
    """Hold the thresholds that decide what is an accident, a success, or the end of an episode.

    :raises ValueError: if a value is out of range
    """

    target_speed_mps: float = 30 / 3.6
    step_s: float = 0.1
    roadside_m: float = 0.3
    """The vehicle is off the road if its centre is farther than this beyond an outer line of the road."""
    idle_speed_mps: float = 0.5
    max_idle_steps: int = 50
    """Number of consecutive steps below ``idle_speed_mps`` that end the episode."""
    idle_ending: Ending = "truncated"
    """With ``"terminated"``, standing still is punished as an accident. With ``"truncated"``, the episode only ends."""
    goal_ending: Ending = "terminated"
    """``"truncated"`` lets an algorithm bootstrap at the goal, as if the route went on. A critic cannot foresee the
    goal, because the camera does not show how far away it is."""
    mark_half_width_m: float = 0.1
    success_speed_fraction: float = 0.5
    """On a closed route, a success needs a mean speed along the lane of at least this fraction of the target speed. On
    a route to a goal, the time limit is computed from the same minimum speed."""
    weights: rewards.RewardWeights = field(default_factory=rewards.RewardWeights)
    reward_scale: float = 1.0
    """Factor on all weighted terms."""
    spare_s: float = 30.0
    """Time for starting and for bends, which is added to the time limit of a route."""
    max_wait_s: float = 180.0
    """Time after which a waiting vehicle counts as idle. CARLA's leaderboard uses the same time."""

    def __post_init__(self) -> None:
        check_choice("idle_ending", self.idle_ending, get_args(Ending))
        check_choice("goal_ending", self.goal_ending, get_args(Ending))
        coerce_count(self, "max_idle_steps", 1, 10_000_000)
        coerce_quantity(self, "target_speed_mps", 0.1, 100.0, "m/s")
        coerce_quantity(self, "step_s", 1e-4, 10.0, "s")
        coerce_quantity(self, "roadside_m", 0.0, 100.0, "m")
        coerce_quantity(self, "idle_speed_mps", 0.0, 100.0, "m/s")
        coerce_quantity(self, "mark_half_width_m", 0.0, 1.0, "m")
        coerce_quantity(self, "success_speed_fraction", 0.0, 1.0, "of the target speed")
        coerce_quantity(self, "max_wait_s", 0.0, 1e6, "s")
        coerce_quantity(self, "spare_s", 0.0, 1e6, "s")
        coerce_quantity(self, "reward_scale", 1e-9, 1e9, "(a factor)")


class Outcome(NamedTuple):
    """Hold the result of one step: the terms of the reward, and whether the episode ends."""

    reward_terms: dict[str, float]
    terminated: bool
    truncated: bool

    @property
    def reward(self) -> float:
        """Return the reward of the step, which is the sum of the weighted terms."""
        return sum(self.reward_terms.values())


def wheel_reach_m(heading_error_rad: float, body: BodySize) -> float:
    """Return how far the outermost wheels are from the vehicle's centre, measured across the lane.

    :param heading_error_rad: the vehicle's yaw minus the direction of the lane
    :param body: the vehicle's outer size
    :return: metres, >= 0
    """
    # A wheel is at (+-wheelbase / 2, +-width / 2) in the vehicle's frame. Rotated by the heading error, its sideways
    # coordinate is +-width / 2 * cos +- wheelbase / 2 * sin; for the outermost wheel the two signs are equal.
    along, across = abs(math.cos(heading_error_rad)), abs(math.sin(heading_error_rad))
    return 0.5 * (body.width_m * along + body.wheelbase_m * across)


class DrivingTask:
    """Compute the reward and the counters of an episode, and decide when it ends.

    :param settings: the thresholds and weights
    :param body: the vehicle's outer size
    """

    def __init__(self, settings: TaskSettings, body: BodySize) -> None:
        self.settings = settings
        self.body = body

    def reset(self, state: VehicleState) -> None:
        """Begin an episode at ``state``."""
        self.n_steps = 0
        self.n_collisions = 0
        self.n_lane_invasions = 0
        self.termination: Termination = ""
        # Steps at standstill without a reason to wait, since the vehicle last moved.
        self._n_idle = 0
        # Steps at standstill with a reason to wait, in the whole episode.
        self._n_waited = 0
        # All steps at standstill since the vehicle last moved.
        self._n_standing = 0
        self.n_new_red_lights = 0
        self._state = state
        self._action = (0.0, 0.0)
        # A vehicle that starts across a mark has not just crossed it.
        self._is_across = self._are_across(state)
        self.marks_crossed: list[MarkKind] = []

    def advance(self, state: VehicleState, steer: float, pedal: float) -> Outcome:
        """Return the reward terms of the step that led to ``state``, and whether the episode ends.

        :param state: the vehicle after the step
        :param steer: steering part of the action, in [-1, 1]
        :param pedal: throttle/brake part of the action, in [-1, 1]
        """
        self.n_steps += 1
        is_standing = state.speed_mps < self.settings.idle_speed_mps
        if not is_standing:
            self._n_standing = self._n_idle = 0
        elif self._has_reason_to_wait(state):
            # Steps of waiting count neither as idling nor towards the route's time limit.
            self._n_standing += 1
            self._n_waited += 1
        else:
            self._n_standing += 1
            self._n_idle += 1
        self.n_new_red_lights = (state.n_red_lights or 0) - (self._state.n_red_lights or 0)
        self.termination = self._judge_end(state)
        self.n_collisions += self.termination in ("collision", "off_road")
        self.marks_crossed = self._find_crossed_marks(state)
        self.n_lane_invasions += len(self.marks_crossed)
        truncated = self.termination == "timeout"
        truncated |= self.termination == "idle" and self.settings.idle_ending == "truncated"
        truncated |= self.termination == "goal" and self.settings.goal_ending == "truncated"
        terminated = self.termination != "" and not truncated
        is_accident = terminated and self.termination != "goal"
        # The terms compare the new state and action with the previous ones, so they are computed before the update.
        terms = self._reward_terms(state, steer, pedal, is_accident)
        self._state = state
        self._action = (steer, pedal)
        return Outcome(terms, terminated, truncated)

    @property
    def max_steps(self) -> int | None:
        """Return the time limit of a route to a goal, in steps; None on a closed route, which has no end.

        Steps in which the vehicle waits for a red light, a pedestrian or a car do not count.
        """
        if not self._state.has_goal:
            return None
        # A vehicle that keeps this mean speed reaches the goal in time. On a closed route, it would be a success.
        slowest_mps = max(0.1, self.settings.success_speed_fraction * self.settings.target_speed_mps)
        limit_s = self.settings.spare_s + self._state.route_length_m / slowest_mps
        return math.ceil(limit_s / self.settings.step_s)

    def info(self, map_name: str) -> dict[str, Any]:
        """Return the ``info`` of the last step as plain Python values.

        ``is_success`` says what the result would be if the episode ended now. It is absent before the first step.

        :param map_name: the name of the current map
        """
        state = self._state
        info: dict[str, Any] = {
            "collisions": self.n_collisions,
            "lane_invasions": self.n_lane_invasions,
            "lane_marks_crossed": list(self.marks_crossed),
            "speed_mps": state.speed_mps,
            "speed_kmh": state.speed_mps * 3.6,
            "distance_m": state.distance_m,
            "route_completion": min(1.0, max(0.0, state.distance_m / state.route_length_m)),
            "lateral_offset_m": state.lateral_offset_m,
            "heading_error_rad": state.heading_error_rad,
            "map": map_name,
            "termination": self.termination,
        }
        if state.has_goal:
            info["route_length_m"] = state.route_length_m
            info["command"] = state.command
            info["command_distance_m"] = state.command_distance_m
        if state.n_red_lights is not None:
            info["red_light"] = self.n_new_red_lights
            info["red_lights"] = state.n_red_lights
        if state.collided_with:
            info["collision"] = state.collided_with
        if self.n_steps:
            info["is_success"] = self._is_success()
        return info

    def get_state(self) -> dict[str, Any]:
        """Return the counters of this episode as plain Python values."""
        return {
            "n_steps": self.n_steps,
            "n_collisions": self.n_collisions,
            "n_lane_invasions": self.n_lane_invasions,
            "termination": self.termination,
            "n_idle": self._n_idle,
            "n_waited": self._n_waited,
            "n_standing": self._n_standing,
            "n_new_red_lights": self.n_new_red_lights,
            "action": list(self._action),
            "is_across": list(self._is_across),
            "marks_crossed": list(self.marks_crossed),
        }

    def set_state(self, saved: Mapping[str, Any], state: VehicleState) -> None:
        """Continue an episode from a saved state.

        :param saved: the state that ``get_state`` returned
        :param state: the vehicle at the time of ``get_state``
        """
        self.reset(state)
        self.n_steps = saved["n_steps"]
        self.n_collisions = saved["n_collisions"]
        self.n_lane_invasions = saved["n_lane_invasions"]
        self.termination = saved["termination"]
        self._n_idle = saved["n_idle"]
        # States of earlier versions may lack these entries.
        self._n_waited = saved.get("n_waited", 0)
        self._n_standing = saved.get("n_standing", 0)
        self.n_new_red_lights = saved.get("n_new_red_lights", 0)
        self._action = (saved["action"][0], saved["action"][1])
        self._is_across = list(saved["is_across"])
        self.marks_crossed = list(saved["marks_crossed"])

    def _has_reason_to_wait(self, state: VehicleState) -> bool:
        """Return whether the vehicle waits for a light, a pedestrian or a car, and its waiting time is not used up."""
        is_near = state.stop_ahead_m < _WAIT_AHEAD_M or state.vehicle_ahead_m < _WAIT_AHEAD_M
        return is_near and self._n_standing * self.settings.step_s < self.settings.max_wait_s

    def _is_success(self) -> bool:
        """Return whether the episode would be a success if it ended now."""
        if self._state.has_goal:
            return self.termination == "goal"
        # The mean speed along the lane decides, because a policy that creeps until the time limit has not succeeded.
        mean_speed_mps = self._state.distance_m / (self.n_steps * self.settings.step_s)
        needed_mps = self.settings.success_speed_fraction * self.settings.target_speed_mps
        return self.termination == "" and mean_speed_mps >= needed_mps

    def _judge_end(self, state: VehicleState) -> Termination:
        """Return why the episode ends at ``state``; "" if it continues."""
        # Several reasons may hold at once, for example when a collision pushes the vehicle off the road. The first
        # reason in this order counts.
        margin_m = self.settings.roadside_m
        is_on_road = state.road_right_m - margin_m <= state.lateral_offset_m <= state.road_left_m + margin_m
        max_steps = self.max_steps
        endings: tuple[tuple[Termination, bool], ...] = (
            ("collision", state.has_collided),
            # The vehicle may use the route's lane and the lanes beside it; farther away it has left the route.
            ("off_route", state.has_goal and abs(state.lateral_offset_m) > state.lane_width_m),
            ("off_road", not is_on_road),
            ("wrong_way", abs(state.heading_error_rad) > 0.5 * math.pi),
            ("goal", state.has_goal and state.distance_m >= state.route_length_m),
            ("idle", self._n_idle >= self.settings.max_idle_steps),
            ("timeout", max_steps is not None and self.n_steps - self._n_waited >= max_steps),
        )
        return next((name for name, holds in endings if holds), "")

    def _overhangs_m(self, state: VehicleState) -> list[float]:
        """Return for each lane mark how far the outermost wheel is beyond it; negative if no wheel has reached it."""
        reach_m = wheel_reach_m(state.heading_error_rad, self.body)
        left_m, right_m = state.lateral_offset_m + reach_m, state.lateral_offset_m - reach_m
        overhangs_m = []
        for mark in state.marks:
            # Marks to the left of the lane's centre are crossed by the left wheels, the others by the right ones.
            overhang_m = left_m - mark.offset_m if mark.offset_m > 0.0 else mark.offset_m - right_m
            overhangs_m.append(overhang_m)
        return overhangs_m

    def _are_across(self, state: VehicleState) -> list[bool]:
        """Return for each lane mark whether a wheel is completely across the mark."""
        return [overhang_m > self.settings.mark_half_width_m for overhang_m in self._overhangs_m(state)]

    def _find_crossed_marks(self, state: VehicleState) -> list[MarkKind]:
        """Return the kinds of the lane marks that the vehicle crossed in the step that led to ``state``."""
        # Other marks begin here, for example after a junction. Marks that are already beneath the vehicle do not count
        # as crossed.
        if state.marks != self._state.marks:
            self._is_across = self._are_across(state)
            return []
        # Hysteresis: a mark counts as crossed at its far edge and is armed again when the wheel is back behind its
        # middle. A wheel that runs along the mark is counted once.
        crossed: list[MarkKind] = []
        for number, overhang_m in enumerate(self._overhangs_m(state)):
            was_across = self._is_across[number]
            threshold_m = 0.0 if was_across else self.settings.mark_half_width_m
            is_across = overhang_m > threshold_m
            if is_across and not was_across:
                crossed.append(state.marks[number].kind)
            self._is_across[number] = is_across
        return crossed

    def _reward_terms(self, state: VehicleState, steer: float, pedal: float, is_accident: bool) -> dict[str, float]:
        """Return the weighted and scaled terms of the step from ``self._state`` to ``state``.

        They are in the order of ``common.tags.REWARD_TERMS``, and their sum in this order is the reward.
        """
        target_mps, step_s, weights = self.settings.target_speed_mps, self.settings.step_s, self.settings.weights
        gate = rewards.speed_gate(state.speed_mps, target_mps)
        distance_m, offset_m = state.distance_m - self._state.distance_m, state.lateral_offset_m
        steer_change, pedal_change = steer - self._action[0], pedal - self._action[1]
        n_crossed = len(self.marks_crossed)
        terms = {
            "progress": weights.progress * rewards.progress_term(distance_m, step_s, target_mps),
            "smoothness": weights.smoothness * rewards.smoothness_term(steer_change, pedal_change, gate),
            "lane_centring": weights.lane_centring * rewards.lane_centring_term(offset_m, state.lane_width_m, gate),
            "efficiency": weights.efficiency * rewards.efficiency_term(state.speed_mps, target_mps),
            "safety": rewards.safety_term(
                is_accident,
                n_crossed,
                weights,
                n_red_lights=self.n_new_red_lights,
                has_hit_walker=is_accident and state.collided_with == "walker",
            ),
        }
        scale = self.settings.reward_scale
        # Adding 0 turns -0.0, the product of a weight of 0 and a cost, into 0.0.
        return {name: scale * term + 0.0 for name, term in terms.items()}
