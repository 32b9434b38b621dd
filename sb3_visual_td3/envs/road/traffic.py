"""Other cars on the road: they follow the car ahead (intelligent driver model) and keep to their lane."""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass, field, fields
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.envs.arguments import coerce_count, coerce_quantity
from sb3_visual_td3.envs.backend import BodySize
from sb3_visual_td3.envs.road.collision import OrientedBox, boxes_overlap
from sb3_visual_td3.envs.road.network import LANE_WIDTH_M
from sb3_visual_td3.envs.road.track import Track


@dataclass(frozen=True)
class IdmSettings:
    """A calm driver in a town.

    :raises ValueError: if a value is not positive.
    """

    time_gap_s: float = 1.5
    min_gap_m: float = 2.0
    """From bumper to bumper, at standstill."""
    acceleration_mps2: float = 1.5
    braking_mps2: float = 2.0
    """What the driver finds comfortable."""
    max_braking_mps2: float = 8.0
    """What the brakes can do; the model alone asks for any amount where a car cuts in."""

    @cached_property
    def comfort_mps2(self) -> float:
        """The model's 2 sqrt(a b)."""
        return 2.0 * math.sqrt(self.acceleration_mps2 * self.braking_mps2)

    def __post_init__(self) -> None:
        for setting in fields(self):
            coerce_quantity(self, setting.name, 1e-6, 1e3, "SI units")


def idm_acceleration_mps2(
    speed_mps: float, desired_mps: float, gap_m: float, approach_mps: float, settings: IdmSettings
) -> float:
    """Return the acceleration of a driver who keeps lane and distance.

    Source: Treiber, Hennecke, Helbing 2000, "Congested traffic states in empirical observations and microscopic
    simulations", Phys. Rev. E 62, 1805: the IDM acceleration a (1 - (v / v0)^4 - (s* / s)^2) with the desired gap
    s* = s0 + T v + v dv / (2 sqrt(a b)), whose s1 is 0 here and which never falls below s0.

    :param speed_mps: own speed v, >= 0.
    :param desired_mps: speed v0 on an empty road, > 0.
    :param gap_m: metres s from the own bumper to the one ahead; ``inf`` on an empty road.
    :param approach_mps: own speed less the leader's, dv.
    :param settings: T, s0, a and b.
    :return: at least ``-settings.max_braking_mps2``, which is what no gap at all gives.
    """
    if gap_m <= 0.0:
        return -settings.max_braking_mps2
    # Called for every car at every step: plain products and comparisons, which are the fastest here.
    following_m = speed_mps * (settings.time_gap_s + approach_mps / settings.comfort_mps2)
    near = (settings.min_gap_m + (following_m if following_m > 0.0 else 0.0)) / gap_m
    free = speed_mps / desired_mps
    free *= free
    acceleration = settings.acceleration_mps2 * (1.0 - free * free - near * near)
    return acceleration if acceleration > -settings.max_braking_mps2 else -settings.max_braking_mps2


class LaneLine:
    """A closed line, driven in the order of its points.

    :param points_m: ``(n, 2) float64``, x and y: one beside each point of the track.
    :param is_oncoming: whether it is driven against the order of the track's points.
    """

    def __init__(self, points_m: NDArray[np.float64], *, is_oncoming: bool) -> None:
        points_m = points_m[::-1] if is_oncoming else points_m
        steps = np.roll(points_m, -1, axis=0) - points_m
        lengths = np.linalg.norm(steps, axis=1)
        starts = np.concatenate([[0.0], np.cumsum(lengths)])
        self.length_m = float(starts[-1])
        self._spacing_m = self.length_m / len(points_m)
        closed = np.vstack([points_m, points_m[:1]])
        even = np.arange(len(points_m)) * self._spacing_m
        points = np.stack([np.interp(even, starts, closed[:, axis]) for axis in (0, 1)], axis=1)
        ahead = np.roll(points, -1, axis=0) - points
        headings = np.arctan2(ahead[:, 1], ahead[:, 0])
        turns = (np.roll(headings, -1) - headings + np.pi) % (2.0 * np.pi) - np.pi
        columns = (points[:, 0], points[:, 1], ahead[:, 0], ahead[:, 1], headings, turns)
        self._rows: list[tuple[float, ...]] = list(map(tuple, np.stack(columns, axis=1).tolist()))
        self._along_m: list[float] = (starts[-2::-1] if is_oncoming else starts[:-1]).tolist()

    def along_at(self, index: int) -> float:
        """Return the metres along this line beside the track's point of this index."""
        return self._along_m[index]

    def pose_at(self, along_m: float) -> tuple[float, float, float]:
        """Return x and y in metres and the direction in radians, ``along_m`` metres from the first point."""
        place = along_m % self.length_m / self._spacing_m
        whole = int(place)
        part = place - whole
        x, y, dx, dy, heading, turn = self._rows[whole % len(self._rows)]
        # Half a point back, because a heading belongs to the middle of its stretch.
        return x + part * dx, y + part * dy, heading + (part - 0.5) * turn


@lru_cache(maxsize=64)
def lane_lines(track: Track) -> tuple[LaneLine, ...]:
    """Return the own lane and the nearest oncoming one, if any, each in its own driving direction."""
    own = LaneLine(track.points_m, is_oncoming=False)
    if track.oncoming_lane_m is None:
        return (own,)
    return own, LaneLine(track.offset_line_m(track.oncoming_lane_m), is_oncoming=True)


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
        coerce_count(self, "n_cars", 0, MAX_CARS)
        coerce_quantity(self, "min_desired_mps", 0.1, 100.0, "m/s")
        coerce_quantity(self, "max_desired_mps", self.min_desired_mps, 100.0, "m/s")
        coerce_quantity(self, "clear_m", 10.0, 1000.0, "m")
        coerce_quantity(self, "length_m", 1.0, 20.0, "m")
        coerce_quantity(self, "width_m", 0.5, LANE_WIDTH_M, "m")


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
