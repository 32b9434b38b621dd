"""The task: keep the right-hand lane at the target speed for as long as the episode lasts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

from sb3_visual_td3.envs import rewards
from sb3_visual_td3.envs.arguments import check_choice, coerce_count, coerce_quantity
from sb3_visual_td3.envs.backend import BodySize, MarkKind, VehicleState

Termination = Literal["", "collision", "off_road", "wrong_way", "idle"]
Ending = Literal["terminated", "truncated"]


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
    idle_ending: Ending = "truncated"
    """How: as an accident that pays the penalty, or cut short without one."""
    mark_half_width_m: float = 0.1
    success_speed_fraction: float = 0.5
    """Part of the target speed that the mean speed along the lane must reach."""
    weights: rewards.RewardWeights = field(default_factory=rewards.RewardWeights)
    reward_scale: float = 1.0
    """Factor on every weighted term."""

    def __post_init__(self) -> None:
        check_choice("idle_ending", self.idle_ending, get_args(Ending))
        coerce_count(self, "max_idle_steps", 1, 10_000_000)
        coerce_quantity(self, "target_speed_mps", 0.1, 100.0, "m/s")
        coerce_quantity(self, "step_s", 1e-4, 10.0, "s")
        coerce_quantity(self, "roadside_m", 0.0, 100.0, "m")
        coerce_quantity(self, "idle_speed_mps", 0.0, 100.0, "m/s")
        coerce_quantity(self, "mark_half_width_m", 0.0, 1.0, "m")
        coerce_quantity(self, "success_speed_fraction", 0.0, 1.0, "of the target speed")
        coerce_quantity(self, "reward_scale", 1e-9, 1e9, "(a factor)")


class Outcome(NamedTuple):
    """What the task makes of one step."""

    reward_terms: dict[str, float]
    terminated: bool
    truncated: bool

    @property
    def reward(self) -> float:
        """Sum of the weighted terms."""
        return sum(self.reward_terms.values())


def wheel_reach_m(heading_error_rad: float, body: BodySize) -> float:
    """Return how far to either side of the vehicle's centre its outermost wheel stands, across the lane."""
    along, across = abs(math.cos(heading_error_rad)), abs(math.sin(heading_error_rad))
    return 0.5 * (body.width_m * along + body.wheelbase_m * across)


class DrivingTask:
    """Keeps the books of one episode at a time.

    :param settings: what counts as what.
    :param body: outer size of the vehicle.
    """

    def __init__(self, settings: TaskSettings, body: BodySize) -> None:
        self.settings = settings
        self.body = body

    def reset(self, state: VehicleState) -> None:
        """Begin an episode at ``state``; a vehicle that starts across a mark has not just crossed it."""
        self.n_steps = 0
        self.n_collisions = 0
        self.n_lane_invasions = 0
        self.termination: Termination = ""
        self._n_idle = 0
        self._state = state
        self._action = (0.0, 0.0)
        self._is_across = [over > self.settings.mark_half_width_m for over in self._overhangs_m(state)]
        self.marks_crossed: list[MarkKind] = []

    def advance(self, state: VehicleState, steer: float, pedal: float) -> Outcome:
        """Judge the step that led to ``state`` under the action ``(steer, pedal)``, both in [-1, 1]."""
        self.n_steps += 1
        self._n_idle = self._n_idle + 1 if state.speed_mps < self.settings.idle_speed_mps else 0
        self.termination = self._judge_end(state)
        self.n_collisions += self.termination in ("collision", "off_road")
        self.marks_crossed = self._notice_marks(state)
        self.n_lane_invasions += len(self.marks_crossed)
        truncated = self.termination == "idle" and self.settings.idle_ending == "truncated"
        terminated = self.termination != "" and not truncated
        terms = self._reward_terms(state, steer, pedal, terminated)
        self._state = state
        self._action = (steer, pedal)
        return Outcome(terms, terminated, truncated)

    def info(self, map_name: str) -> dict[str, Any]:
        """Return the episode so far in plain Python values; ``is_success`` says how it would end if it ended here."""
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
        if self.n_steps:
            info["is_success"] = self._is_success()
        return info

    def get_state(self) -> dict[str, Any]:
        """Return the books of this episode in plain Python values."""
        return {
            "n_steps": self.n_steps,
            "n_collisions": self.n_collisions,
            "n_lane_invasions": self.n_lane_invasions,
            "termination": self.termination,
            "n_idle": self._n_idle,
            "action": list(self._action),
            "is_across": list(self._is_across),
            "marks_crossed": list(self.marks_crossed),
        }

    def set_state(self, books: Mapping[str, Any], state: VehicleState) -> None:
        """Go on with the ``books`` that ``get_state`` gave, the vehicle being in ``state``."""
        self.reset(state)
        self.n_steps = books["n_steps"]
        self.n_collisions = books["n_collisions"]
        self.n_lane_invasions = books["n_lane_invasions"]
        self.termination = books["termination"]
        self._n_idle = books["n_idle"]
        self._action = (books["action"][0], books["action"][1])
        self._is_across = list(books["is_across"])
        self.marks_crossed = list(books["marks_crossed"])

    def _is_success(self) -> bool:
        # Metres along the lane, not survival: a driver that creeps through its time has not succeeded.
        mean_speed_mps = self._state.distance_m / (self.n_steps * self.settings.step_s)
        needed_mps = self.settings.success_speed_fraction * self.settings.target_speed_mps
        return self.termination == "" and mean_speed_mps >= needed_mps

    def _judge_end(self, state: VehicleState) -> Termination:
        if state.has_collided:
            return "collision"
        margin = self.settings.roadside_m
        if not state.road_right_m - margin <= state.lateral_offset_m <= state.road_left_m + margin:
            return "off_road"
        if abs(state.heading_error_rad) > 0.5 * math.pi:
            return "wrong_way"
        if self._n_idle >= self.settings.max_idle_steps:
            return "idle"
        return ""

    def _overhangs_m(self, state: VehicleState) -> list[float]:
        """Return by how far the outermost wheel is beyond each mark, seen from the own lane (negative: before it)."""
        reach = wheel_reach_m(state.heading_error_rad, self.body)
        left, right = state.lateral_offset_m + reach, state.lateral_offset_m - reach
        return [left - mark.offset_m if mark.offset_m > 0.0 else mark.offset_m - right for mark in state.marks]

    def _notice_marks(self, state: VehicleState) -> list[MarkKind]:
        # Crossed at the mark's far edge, re-armed within its middle: a wheel that rides on the mark counts once.
        if state.marks != self._state.marks:  # marks that begin here have not been crossed just now
            self._is_across = [over > self.settings.mark_half_width_m for over in self._overhangs_m(state)]
            return []
        crossed: list[MarkKind] = []
        for number, over in enumerate(self._overhangs_m(state)):
            was_across = self._is_across[number]
            is_across = over > (0.0 if was_across else self.settings.mark_half_width_m)
            if is_across and not was_across:
                crossed.append(state.marks[number].kind)
            self._is_across[number] = is_across
        return crossed

    def _reward_terms(self, state: VehicleState, steer: float, pedal: float, is_accident: bool) -> dict[str, float]:
        target_mps, step_s, weights = self.settings.target_speed_mps, self.settings.step_s, self.settings.weights
        gate = rewards.speed_gate(state.speed_mps, target_mps)
        old_steer, old_pedal = self._action
        terms = rewards.weigh(
            progress=rewards.progress_term(state.distance_m - self._state.distance_m, step_s, target_mps),
            smoothness=rewards.smoothness_term(steer - old_steer, pedal - old_pedal, gate),
            lane_centring=rewards.lane_centring_term(state.lateral_offset_m, state.lane_width_m, gate),
            efficiency=rewards.efficiency_term(state.speed_mps, target_mps),
            safety=rewards.safety_term(is_accident, len(self.marks_crossed), weights),
            weights=weights,
        )
        scale = self.settings.reward_scale
        return terms if scale == 1.0 else {name: scale * term for name, term in terms.items()}
