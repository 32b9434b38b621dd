"""Other cars, which keep their lane and their distance."""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass, field
from typing import Any, NamedTuple

import numpy as np

from sb3_visual_td3.envs.arguments import check_count, check_quantity
from sb3_visual_td3.envs.backend import BodySize
from sb3_visual_td3.envs.lite.collision import OrientedBox, boxes_overlap
from sb3_visual_td3.envs.lite.idm import IdmSettings, idm_acceleration_mps2
from sb3_visual_td3.envs.lite.lane_line import LaneLine, lane_lines
from sb3_visual_td3.envs.lite.track import LANE_WIDTH_M, Track

MAX_CARS = 20
N_PAINTS = 6


@dataclass(frozen=True)
class TrafficSettings:
    """How many cars there are and how they drive.

    :raises ValueError: if a value is outside the range that its check names.
    """

    n_cars: int = 0
    min_desired_mps: float = 5.0
    max_desired_mps: float = 8.0
    clear_m: float = 20.0
    """So far before and behind the ego vehicle no car begins, measured between centres along either lane."""
    length_m: float = 4.4
    width_m: float = 1.8
    idm: IdmSettings = field(default_factory=IdmSettings)

    def __post_init__(self) -> None:
        check_count("n_cars", self.n_cars, 0, MAX_CARS)
        check_quantity("min_desired_mps", self.min_desired_mps, 0.1, 100.0, "m/s")
        check_quantity("max_desired_mps", self.max_desired_mps, self.min_desired_mps, 100.0, "m/s")
        check_quantity("clear_m", self.clear_m, 10.0, 1000.0, "m")
        check_quantity("length_m", self.length_m, 1.0, 20.0, "m")
        check_quantity("width_m", self.width_m, 0.5, LANE_WIDTH_M, "m")


@dataclass(slots=True)
class Car:
    """One of the other cars."""

    lane: int
    """0 drives beside or before the ego vehicle, 1 comes towards it."""
    along_m: float
    speed_mps: float
    desired_mps: float
    paint: int
    """Which of ``N_PAINTS`` colours it has."""


class Ego(NamedTuple):
    """What the others see of the ego vehicle."""

    nearest: int
    """Index of the closest point of the road."""
    lateral_offset_m: float
    speed_along_mps: float
    """Its speed in the direction of the own lane."""


class Traffic:
    """The cars of one episode at a time; those of a lane are kept in driving order, for none overtakes.

    :param settings: how many cars there are and how they drive.
    :param ego_body: outer size of the ego vehicle.
    """

    def __init__(self, settings: TrafficSettings, ego_body: BodySize) -> None:
        self.settings = settings
        self._ego_body = ego_body
        self._clearance_m = 0.5 * (settings.length_m + ego_body.length_m)
        reach_m = 0.5 * (math.hypot(*ego_body[:2]) + math.hypot(settings.length_m, settings.width_m))
        self._reach2_m2 = reach_m * reach_m
        self.cars: list[Car] = []
        self.boxes: list[OrientedBox] = []
        self.paints: list[int] = []

    def reset(self, track: Track, nearest: int, scene_seed: int) -> None:
        """Spread the cars over both lanes, none near the ego vehicle, which is at the point ``nearest``.

        :raises ValueError: if the road is too short for so many cars.
        """
        self._enter(track)
        rng = np.random.default_rng([scene_seed, 1])
        n_oncoming = (self.settings.n_cars + int(rng.integers(2))) // 2 * (len(self._lines) - 1)
        n_in_lane = (self.settings.n_cars - n_oncoming, n_oncoming)
        self._lanes = [
            self._spread(lane, n_in_lane[lane], line.along_at(nearest), rng) for lane, line in enumerate(self._lines)
        ]
        self._gather()

    def advance(self, dt_s: float, *egos: Ego) -> None:
        """Let every car drive for ``dt_s`` seconds.

        :param dt_s: in seconds.
        :param egos: the vehicles, one or more, that others drive on the same road.
        """
        for lane, (line, cars) in enumerate(zip(self._lines, self._lanes, strict=True)):
            wanted = self._wanted(lane, line, cars, egos[0])
            for ego in egos[1:]:
                wanted = list(map(min, wanted, self._wanted(lane, line, cars, ego)))
            for car, acceleration in zip(cars, wanted, strict=True):
                speed = car.speed_mps + acceleration * dt_s
                speed = speed if speed > 0.0 else 0.0
                car.along_m = (car.along_m + 0.5 * (car.speed_mps + speed) * dt_s) % line.length_m
                car.speed_mps = speed
        self._place_boxes()

    def remove(self, number: int) -> None:
        """Take a car off the road: the others' numbers in ``cars``, ``boxes`` and ``paints`` move up."""
        gone = self.cars[number]
        self._lanes = [[car for car in cars if car is not gone] for cars in self._lanes]
        self._gather()

    def hits(self, x_m: float, y_m: float, yaw_rad: float) -> bool:
        """Return whether the ego vehicle, standing here, touches a car."""
        for box in self.boxes:
            dx, dy = box.x_m - x_m, box.y_m - y_m
            if dx * dx + dy * dy <= self._reach2_m2:
                ego = OrientedBox(x_m, y_m, yaw_rad, self._ego_body.length_m, self._ego_body.width_m)
                if boxes_overlap(ego, box):
                    return True
        return False

    def get_state(self) -> list[list[Any]]:
        """Return every car as a list of plain values."""
        return [list(astuple(car)) for car in self.cars]

    def set_state(self, track: Track, state: list[list[Any]]) -> None:
        """Put every car of ``get_state`` back on ``track``."""
        self._enter(track)
        cars = [Car(*values) for values in state]
        self._lanes = [[car for car in cars if car.lane == lane] for lane in range(len(self._lines))]
        self._gather()

    def _enter(self, track: Track) -> None:
        self._lines = lane_lines(track) if self.settings.n_cars else ()
        self._lane_offsets_m = (0.0, track.oncoming_lane_m or 0.0)
        self._blocking_m = 0.5 * (track.lane_width_m + self._ego_body.width_m)

    def _gather(self) -> None:
        self.cars = [car for cars in self._lanes for car in cars]
        self.paints = [car.paint for car in self.cars]
        self._place_boxes()

    def _spread(self, lane: int, n_cars: int, ego_along_m: float, rng: np.random.Generator) -> list[Car]:
        if not n_cars:
            return []
        settings, lap_m = self.settings, self._lines[lane].length_m
        slot_m = (lap_m - 2.0 * settings.clear_m) / n_cars
        needed_m = settings.length_m + settings.idm.min_gap_m
        if slot_m < needed_m:
            raise ValueError(
                f"n_cars={settings.n_cars}: expected at most one car per {needed_m:g} m of a lane of {lap_m:.0f} m; "
                "take fewer cars or a longer road"
            )
        cars = []
        for number in range(n_cars):
            within_m = number * slot_m + 0.5 * needed_m + float(rng.uniform(0.0, slot_m - needed_m))
            along_m = (ego_along_m + settings.clear_m + within_m) % lap_m
            desired = float(rng.uniform(settings.min_desired_mps, settings.max_desired_mps))
            cars.append(Car(lane, along_m, 0.5 * desired, desired, int(rng.integers(N_PAINTS))))
        return cars

    def _wanted(self, lane: int, line: LaneLine, cars: list[Car], ego: Ego) -> list[float]:
        is_blocked = abs(ego.lateral_offset_m - self._lane_offsets_m[lane]) < self._blocking_m
        ego_along_m = line.along_at(ego.nearest) if is_blocked else None
        return self._accelerations(line, cars, ego_along_m, -ego.speed_along_mps if lane else ego.speed_along_mps)

    def _accelerations(self, line: LaneLine, cars: list[Car], ego_along_m: float | None, ego_mps: float) -> list[float]:
        """Return what each car of a lane asks for: it follows the next car, or the ego vehicle where that is nearer."""
        lap_m, length_m, idm = line.length_m, self.settings.length_m, self.settings.idm
        wanted = []
        for car, leader in zip(cars, cars[1:] + cars[:1], strict=True):
            gap_m = (leader.along_m - car.along_m) % lap_m - length_m if leader is not car else math.inf
            leader_mps = leader.speed_mps
            if ego_along_m is not None:
                to_ego_m = (ego_along_m - car.along_m) % lap_m - self._clearance_m
                if to_ego_m < gap_m:
                    gap_m, leader_mps = to_ego_m, ego_mps
            approach_mps = car.speed_mps - leader_mps
            wanted.append(idm_acceleration_mps2(car.speed_mps, car.desired_mps, gap_m, approach_mps, idm))
        return wanted

    def _place_boxes(self) -> None:
        length_m, width_m = self.settings.length_m, self.settings.width_m
        self.boxes = []
        for line, cars in zip(self._lines, self._lanes, strict=True):
            pose_at = line.pose_at
            self.boxes += [OrientedBox(*pose_at(car.along_m), length_m, width_m) for car in cars]
