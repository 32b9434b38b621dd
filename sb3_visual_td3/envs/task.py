"""The task: keep the right-hand lane at the target speed for as long as the episode lasts."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from sb3_visual_td3.envs import rewards
from sb3_visual_td3.envs.arguments import check_count, check_quantity
from sb3_visual_td3.envs.backend import BodySize, VehicleState

Termination = Literal["", "off_road", "wrong_way", "idle"]


@dataclass(frozen=True)
class TaskSettings:
    """What counts as done, as an accident and as a success.

    :raises ValueError: if a value is outside the range that its check names.
    """

    target_speed_mps: float = 30 / 3.6
    step_s: float = 0.1
    roadside_m: float = 0.3
    """How far beyond an outer line the vehicle's centre may get before that is an accident."""
    idle_speed_mps: float = 0.5
    max_idle_steps: int = 50
    """So many steps in a row below ``idle_speed_mps`` end the episode."""
    mark_half_width_m: float = 0.1
    success_speed_fraction: float = 0.5
    """Part of the target speed that the mean speed along the lane must reach."""
    weights: rewards.RewardWeights = field(default_factory=rewards.RewardWeights)

    def __post_init__(self) -> None:
        check_count("max_idle_steps", self.max_idle_steps, 1, 10_000_000)
        check_quantity("target_speed_mps", self.target_speed_mps, 0.1, 100.0, "m/s")
        check_quantity("step_s", self.step_s, 1e-4, 10.0, "s")
        check_quantity("roadside_m", self.roadside_m, 0.0, 100.0, "m")
        check_quantity("idle_speed_mps", self.idle_speed_mps, 0.0, 100.0, "m/s")
        check_quantity("mark_half_width_m", self.mark_half_width_m, 0.0, 1.0, "m")
        check_quantity("success_speed_fraction", self.success_speed_fraction, 0.0, 1.0, "of the target speed")


class Outcome(NamedTuple):
    """What the task makes of one step."""

    reward_terms: dict[str, float]
    terminated: bool

    @property
    def reward(self) -> float:
        """Sum of the weighted terms."""
        return sum(self.reward_terms.values())


def overhang_m(state: VehicleState, body: BodySize) -> float:
    """Return by how many metres the body reaches beyond its lane's edge lines (negative: it is inside)."""
    along, across = abs(math.cos(state.heading_error_rad)), abs(math.sin(state.heading_error_rad))
    reach = 0.5 * (body.width_m * along + body.length_m * across)
    return abs(state.lateral_offset_m) + reach - 0.5 * state.lane_width_m


class DrivingTask:
    """Keeps the books of one episode at a time.

    :param settings: what counts as what.
    :param body: outer size of the vehicle.
    """

    def __init__(self, settings: TaskSettings, body: BodySize) -> None:
        self.settings = settings
        self._body = body
        self._is_across = False

    def reset(self, state: VehicleState) -> None:
        """Begin an episode at ``state``; a vehicle that starts across a mark has not just crossed it."""
        self.n_steps = 0
        self.n_collisions = 0
        self.n_lane_invasions = 0
        self.termination: Termination = ""
        self._n_idle = 0
        self._state = state
        self._action = (0.0, 0.0)
        self._is_across = overhang_m(state, self._body) > self.settings.mark_half_width_m

    def advance(self, state: VehicleState, steer: float, pedal: float) -> Outcome:
        """Judge the step that led to ``state`` under the action ``(steer, pedal)``, both in [-1, 1]."""
        self.n_steps += 1
        self._n_idle = self._n_idle + 1 if state.speed_mps < self.settings.idle_speed_mps else 0
        self.termination = self._judge_end(state)
        self.n_collisions += self.termination == "off_road"
        has_invaded = self._notice_mark(state)
        self.n_lane_invasions += has_invaded
        terminated = self.termination != ""
        terms = self._reward_terms(state, steer, pedal, terminated, int(has_invaded))
        self._state = state
        self._action = (steer, pedal)
        return Outcome(terms, terminated)

    def info(self, map_name: str) -> dict[str, Any]:
        """Return the episode so far in plain Python values; ``is_success`` says how it would end if it ended here."""
        state = self._state
        info: dict[str, Any] = {
            "collisions": self.n_collisions,
            "lane_invasions": self.n_lane_invasions,
            "speed_mps": state.speed_mps,
            "speed_kmh": state.speed_mps * 3.6,
            "distance_m": state.distance_m,
            "lateral_offset_m": state.lateral_offset_m,
            "heading_error_rad": state.heading_error_rad,
            "map": map_name,
            "termination": self.termination,
        }
        if self.n_steps:
            info["is_success"] = self._is_success()
        return info

    def _is_success(self) -> bool:
        # Metres along the lane, not survival: a driver that creeps through its time has not succeeded.
        mean_speed_mps = self._state.distance_m / (self.n_steps * self.settings.step_s)
        needed_mps = self.settings.success_speed_fraction * self.settings.target_speed_mps
        return self.termination == "" and mean_speed_mps >= needed_mps

    def _judge_end(self, state: VehicleState) -> Termination:
        margin = self.settings.roadside_m
        if not state.road_right_m - margin <= state.lateral_offset_m <= state.road_left_m + margin:
            return "off_road"
        if abs(state.heading_error_rad) > 0.5 * math.pi:
            return "wrong_way"
        if self._n_idle >= self.settings.max_idle_steps:
            return "idle"
        return ""

    def _notice_mark(self, state: VehicleState) -> bool:
        # Crossed at the mark's far edge, re-armed within its middle: a body that rides on the mark counts once.
        overhang = overhang_m(state, self._body)
        was_across = self._is_across
        self._is_across = overhang > (0.0 if was_across else self.settings.mark_half_width_m)
        return self._is_across and not was_across

    def _reward_terms(
        self, state: VehicleState, steer: float, pedal: float, is_accident: bool, n_lane_invasions: int
    ) -> dict[str, float]:
        target_mps, step_s, weights = self.settings.target_speed_mps, self.settings.step_s, self.settings.weights
        gate = rewards.speed_gate(state.speed_mps, target_mps)
        old_steer, old_pedal = self._action
        return rewards.weigh(
            progress=rewards.progress_term(state.distance_m - self._state.distance_m, step_s, target_mps),
            smoothness=rewards.smoothness_term(steer - old_steer, pedal - old_pedal, gate),
            lane_centring=rewards.lane_centring_term(state.lateral_offset_m, state.lane_width_m, gate),
            efficiency=rewards.efficiency_term(state.speed_mps, target_mps),
            safety=rewards.safety_term(is_accident, n_lane_invasions, weights),
            weights=weights,
        )
