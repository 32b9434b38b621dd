"""Drive other cars on a closed route: they stay in lane, and keep their distance by the intelligent driver model.

The embedded world and the CARLA backend share this model. ``graph_traffic`` drives cars on the lanes of a whole map.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass, field, fields
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.envs.arguments import coerce_count, coerce_quantity
from sb3_visual_td3.envs.backend import BodySize
from sb3_visual_td3.envs.road.collision import OrientedBox
from sb3_visual_td3.envs.road.network import LANE_WIDTH_M
from sb3_visual_td3.envs.road.track import Track


@dataclass(frozen=True)
class IdmSettings:
    """Hold the parameters of the intelligent driver model; the defaults describe a calm driver in a town.

    :raises ValueError: if a value is not positive
    """

    time_gap_s: float = 1.5
    min_gap_m: float = 2.0
    """Distance from bumper to bumper at standstill."""
    acceleration_mps2: float = 1.5
    braking_mps2: float = 2.0
    """Comfortable deceleration, a parameter of the model."""
    max_braking_mps2: float = 8.0
    """Strongest deceleration. The model itself has no limit when a car cuts in."""

    @cached_property
    def comfort_mps2(self) -> float:
        """Return 2 sqrt(a b), a denominator in ``idm_acceleration_mps2``; a is the acceleration and b the braking."""
        return 2.0 * math.sqrt(self.acceleration_mps2 * self.braking_mps2)

    def __post_init__(self) -> None:
        for setting in fields(self):
            coerce_quantity(self, setting.name, 1e-6, 1e3, "SI units")


def idm_acceleration_mps2(
    speed_mps: float, desired_mps: float, gap_m: float, approach_mps: float, settings: IdmSettings
) -> float:
    """Return the acceleration of a driver who follows the car ahead.

    Source: Treiber, Hennecke, Helbing 2000, "Congested traffic states in empirical observations and microscopic
    simulations", Phys. Rev. E 62, 1805: the IDM acceleration a (1 - (v / v0)^4 - (s* / s)^2) with the desired gap
    s* = s0 + T v + v dv / (2 sqrt(a b)). The paper's s1 is 0 here, and s* is at least s0.

    :param speed_mps: speed v of the driver's car, >= 0
    :param desired_mps: speed v0 on an empty road, > 0
    :param gap_m: distance s from bumper to bumper; ``inf`` on an empty road
    :param approach_mps: dv, the speed of the driver's car minus the speed of the car ahead
    :param settings: T, s0, a and b
    :return: the acceleration, at least ``-settings.max_braking_mps2``
    """
    if gap_m <= 0.0:
        return -settings.max_braking_mps2
    # This function runs for each car in each step, and products and comparisons are faster than ** and max().
    following_m = speed_mps * (settings.time_gap_s + approach_mps / settings.comfort_mps2)
    near = (settings.min_gap_m + (following_m if following_m > 0.0 else 0.0)) / gap_m  # s* / s
    free = speed_mps / desired_mps
    free *= free  # (v / v0)^2
    acceleration_mps2 = settings.acceleration_mps2 * (1.0 - free * free - near * near)
    if acceleration_mps2 < -settings.max_braking_mps2:
        return -settings.max_braking_mps2
    return acceleration_mps2


class LaneLine:
    """Hold the centre line of a lane as evenly spaced points in the lane's driving direction.

    :param points_m: ``(n, 2) float64``: x and y of the lane's centre beside each point of the ego vehicle's track, in
        the order of the track's points
    :param is_oncoming: True if cars drive on the lane against the direction of the track; this object then reverses the
        order of the points
    """

    def __init__(self, points_m: NDArray[np.float64], *, is_oncoming: bool) -> None:
        if is_oncoming:
            points_m = points_m[::-1]
        # starts, (n + 1,): distance along the closed line at each point, and at the end. The points are unevenly spaced
        # in bends, so the line is sampled again at even distances.
        steps = np.roll(points_m, -1, axis=0) - points_m
        lengths = np.linalg.norm(steps, axis=1)
        starts = np.concatenate([[0.0], np.cumsum(lengths)])
        self.length_m = float(starts[-1])
        self._spacing_m = self.length_m / len(points_m)
        closed = np.vstack([points_m, points_m[:1]])
        even = np.arange(len(points_m)) * self._spacing_m
        points = np.stack([np.interp(even, starts, closed[:, axis]) for axis in (0, 1)], axis=1)
        # (n, 2): from each point to the next point; (n,): direction of that stretch; (n,): turn to the following
        # stretch.
        ahead = np.roll(points, -1, axis=0) - points
        headings = np.arctan2(ahead[:, 1], ahead[:, 0])
        turns = (np.roll(headings, -1) - headings + np.pi) % (2.0 * np.pi) - np.pi
        columns = (points[:, 0], points[:, 1], ahead[:, 0], ahead[:, 1], headings, turns)
        self._rows: list[tuple[float, ...]] = list(map(tuple, np.stack(columns, axis=1).tolist()))
        # Distances along this line, in the order of the track's points, even if the line runs the other way.
        self._along_m: list[float] = (starts[-2::-1] if is_oncoming else starts[:-1]).tolist()

    def along_at(self, index: int) -> float:
        """Convert a point of the ego vehicle's track to a distance along this lane.

        :param index: index of the point of the track
        :return: distance from the beginning of this lane to the place beside this point
        """
        return self._along_m[index]

    def pose_at(self, along_m: float) -> tuple[float, float, float]:
        """Return the pose at a distance along the line.

        :param along_m: distance from the first point; it may be longer than a lap
        :return: x and y in metres and the direction in radians
        """
        place = along_m % self.length_m / self._spacing_m
        whole = int(place)
        part = place - whole
        x, y, dx, dy, heading, turn = self._rows[whole % len(self._rows)]
        # A heading belongs to the middle of its stretch, hence part - 0.5: the direction is continuous from stretch to
        # stretch.
        return x + part * dx, y + part * dy, heading + (part - 0.5) * turn


@lru_cache(maxsize=64)
def lane_lines(track: Track) -> tuple[LaneLine, ...]:
    """Return the route's lane and the nearest oncoming lane, if there is one; cached for each track."""
    own = LaneLine(track.points_m, is_oncoming=False)
    if track.oncoming_lane_m is None:
        return (own,)
    return own, LaneLine(track.offset_line_m(track.oncoming_lane_m), is_oncoming=True)


MAX_CARS = 20
N_PAINTS = 6
"""Number of colours of the cars."""


@dataclass(frozen=True)
class TrafficSettings:
    """Hold number, size and behaviour of the other cars.

    :raises ValueError: if a value is out of range
    """

    n_cars: int = 0
    min_desired_mps: float = 5.0
    max_desired_mps: float = 8.0
    clear_m: float = 20.0
    """No car starts within this distance ahead of or behind the ego vehicle. The distance is measured between centres,
    along each lane."""
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
    """Hold the state of a car of the traffic."""

    lane: int
    """0 is the ego vehicle's lane, 1 the oncoming lane."""
    along_m: float
    speed_mps: float
    desired_mps: float
    paint: int
    """Number of the car's colour, 0 to ``N_PAINTS - 1``."""


class Ego(NamedTuple):
    """Describe the ego vehicle, or another obstacle to which the cars react.

    The other obstacles, which are pedestrians on the road and red or yellow traffic lights, have speed 0.
    """

    nearest: int
    """Index of the track point that is closest to this vehicle or obstacle."""
    lateral_offset_m: float
    """Offset from the track, positive to the left."""
    speed_along_mps: float
    """Speed in the direction of the track; negative in the opposite direction."""


class Traffic:
    """Drive the other cars on the closed route, one episode at a time.

    Cars never overtake, so the list of a lane's cars stays in driving order.

    :param settings: number, size and behaviour of the cars
    :param ego_body: outer size of the ego vehicle
    """

    def __init__(self, settings: TrafficSettings, ego_body: BodySize) -> None:
        self.settings = settings
        self._ego_body = ego_body
        # If the centres of a car and the ego vehicle are this far apart, their bumpers touch.
        self._clearance_m = 0.5 * (settings.length_m + ego_body.length_m)
        self.cars: list[Car] = []
        self.boxes: list[OrientedBox] = []
        self.paints: list[int] = []

    def reset(self, track: Track, nearest: int, scene_seed: int) -> None:
        """Place the cars at random on both lanes, none near the ego vehicle.

        :param track: the ego vehicle's lane
        :param nearest: index of the track's point closest to the ego vehicle
        :param scene_seed: seed of the cars' positions
        :raises ValueError: if the road is too short for this number of cars
        """
        self._enter(track)
        rng = np.random.default_rng([scene_seed, 1])
        # Half of the cars drive on the oncoming lane, if there is one; an odd car is assigned at random. The random
        # number is drawn even without an oncoming lane, so that the generator is then in the same state on every map.
        n_oncoming = (self.settings.n_cars + int(rng.integers(2))) // 2 * (len(self._lines) - 1)
        n_in_lane = (self.settings.n_cars - n_oncoming, n_oncoming)
        self._lanes = [
            self._spread(lane, n_in_lane[lane], line.along_at(nearest), rng) for lane, line in enumerate(self._lines)
        ]
        self._gather()

    def advance(self, dt_s: float, *egos: Ego) -> None:
        """Move all cars.

        :param dt_s: duration of the movement in seconds
        :param egos: the obstacles to which the cars react, at least one
        """
        # All accelerations of a lane are computed before its first car moves. With several obstacles, a car brakes
        # for the one that requires the strongest braking.
        for lane, (line, cars) in enumerate(zip(self._lines, self._lanes, strict=True)):
            accelerations = self._accelerations(lane, line, cars, egos[0])
            for ego in egos[1:]:
                accelerations = list(map(min, accelerations, self._accelerations(lane, line, cars, ego)))
            for car, acceleration in zip(cars, accelerations, strict=True):
                speed_mps = car.speed_mps + acceleration * dt_s
                speed_mps = speed_mps if speed_mps > 0.0 else 0.0  # cars do not reverse
                # The mean of both speeds: exact under constant acceleration.
                car.along_m = (car.along_m + 0.5 * (car.speed_mps + speed_mps) * dt_s) % line.length_m
                car.speed_mps = speed_mps
        self._place_boxes()

    def remove(self, number: int) -> None:
        """Remove a car; the indices of later cars in ``cars``, ``boxes`` and ``paints`` decrease by one."""
        gone = self.cars[number]
        self._lanes = [[car for car in cars if car is not gone] for cars in self._lanes]
        self._gather()

    def get_state(self) -> list[list[Any]]:
        """Return the fields of each car as a list of plain values."""
        return [list(astuple(car)) for car in self.cars]

    def set_state(self, track: Track, state: list[list[Any]]) -> None:
        """Restore the cars on ``track`` from a state that ``get_state`` returned."""
        self._enter(track)
        cars = [Car(*values) for values in state]
        self._lanes = [[car for car in cars if car.lane == lane] for lane in range(len(self._lines))]
        self._gather()

    def _enter(self, track: Track) -> None:
        """Set the track, and find the lanes on which cars drive."""
        self._lines: tuple[LaneLine, ...] = ()
        if self.settings.n_cars:
            self._lines = lane_lines(track)
        self._lane_offsets_m = (0.0, track.oncoming_lane_m or 0.0)
        # The ego vehicle blocks a lane if the distance between their centres is less than the sum of their half widths.
        self._blocking_m = 0.5 * (track.lane_width_m + self._ego_body.width_m)

    def _gather(self) -> None:
        """Update ``cars``, ``paints`` and ``boxes`` from the cars of each lane."""
        self.cars = [car for cars in self._lanes for car in cars]
        self.paints = [car.paint for car in self.cars]
        self._place_boxes()

    def _spread(self, lane: int, n_cars: int, ego_along_m: float, rng: np.random.Generator) -> list[Car]:
        """Place new cars at random on one lane, none near the ego vehicle, and return them in driving order."""
        if not n_cars:
            return []
        # The lap without the clear zone is divided into equal slots. Each car gets a random place in its own slot, with
        # half the needed distance left at either end, so that neighbours cannot be too close.
        settings, lap_m = self.settings, self._lines[lane].length_m
        slot_m = (lap_m - 2.0 * settings.clear_m) / n_cars
        needed_m = settings.length_m + settings.idm.min_gap_m
        if slot_m < needed_m:
            raise ValueError(
                f"n_cars={settings.n_cars}: too many for a lane of {lap_m:.0f} m, because each car needs {needed_m:g} "
                "m; take fewer cars or a longer road"
            )
        cars = []
        for number in range(n_cars):
            within_m = number * slot_m + 0.5 * needed_m + float(rng.uniform(0.0, slot_m - needed_m))
            along_m = (ego_along_m + settings.clear_m + within_m) % lap_m
            desired_mps = float(rng.uniform(settings.min_desired_mps, settings.max_desired_mps))
            cars.append(Car(lane, along_m, 0.5 * desired_mps, desired_mps, int(rng.integers(N_PAINTS))))
        return cars

    def _accelerations(self, lane: int, line: LaneLine, cars: list[Car], ego: Ego) -> list[float]:
        """Return the acceleration of each car of a lane, in m/s^2, as it reacts to the car ahead and to ``ego``."""
        # If the ego vehicle is in this lane, it counts as one of the cars. The oncoming lane has the opposite
        # direction, so the sign of the speed changes.
        is_blocked = abs(ego.lateral_offset_m - self._lane_offsets_m[lane]) < self._blocking_m
        ego_along_m = line.along_at(ego.nearest) if is_blocked else None
        ego_mps = -ego.speed_along_mps if lane else ego.speed_along_mps

        lap_m, length_m, idm = line.length_m, self.settings.length_m, self.settings.idm
        accelerations = []
        for car, leader in zip(cars, cars[1:] + cars[:1], strict=True):
            gap_m = math.inf  # for a single car, which has no car ahead
            if leader is not car:
                gap_m = (leader.along_m - car.along_m) % lap_m - length_m
            leader_mps = leader.speed_mps
            if ego_along_m is not None:
                to_ego_m = (ego_along_m - car.along_m) % lap_m - self._clearance_m
                if to_ego_m < gap_m:
                    gap_m, leader_mps = to_ego_m, ego_mps
            approach_mps = car.speed_mps - leader_mps
            accelerations.append(idm_acceleration_mps2(car.speed_mps, car.desired_mps, gap_m, approach_mps, idm))
        return accelerations

    def _place_boxes(self) -> None:
        """Update ``boxes`` from the cars' distances along their lanes."""
        length_m, width_m = self.settings.length_m, self.settings.width_m
        self.boxes = []
        for line, cars in zip(self._lines, self._lanes, strict=True):
            pose_at = line.pose_at
            self.boxes += [OrientedBox(*pose_at(car.along_m), length_m, width_m) for car in cars]
