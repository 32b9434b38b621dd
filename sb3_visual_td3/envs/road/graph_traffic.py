"""Drive cars along the lanes of any map: they stay in lane, keep their distance, and choose their way at junctions.

The embedded world, the CARLA backend and the emulator share this model. A car follows the car ahead by the intelligent
driver model. It enters a junction only after its way through the junction is reserved for it. Cars on crossing ways
wait until it has left the junction.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from sb3_visual_td3.envs.road.lane_graph import NO_JUNCTION, LaneGraph, LaneSegment
from sb3_visual_td3.envs.road.shapes import Pose
from sb3_visual_td3.envs.road.traffic import IdmSettings, idm_acceleration_mps2

_IDM = IdmSettings()
_SLOT_M = 12.0
"""Smallest distance between the starting places of two cars on a lane."""
_SIGHT_M = 60.0
"""Distance that a car looks ahead along its path."""
_LATERAL_MPS2 = 2.0
"""Cars slow down before a bend so that their lateral acceleration in the bend is at most this."""
_SLOWEST_BEND_MPS = 2.5
_CONFLICT_M = 2.6
"""Two ways through a junction are not driven at the same time if their centre lines come closer than this."""
_ROOM_AFTER_M = 8.0
"""A car enters a junction only if the lane after the junction has this much room."""
_RESERVE_FROM_M = 15.0
_ON_LANE_M = 2.2
"""A vehicle blocks a lane if its centre is at most this far from the centre of the lane."""
_SPLIT_M = 8.0
"""A vehicle within this distance of the beginning of a lane also blocks other lanes that begin at the same place."""
_END_M = 5.0
"""A car has reached a dead end if it stands with its front closer than this to the end of the last lane."""
_CLEAR_OF_CARS_M, _CLEAR_OF_OTHERS_M = 20.0, 50.0
"""A car that leaves a dead end continues at a place that is farther than the first distance from the other cars of the
traffic, and farther than the second distance from the ego vehicle and the pedestrians."""
_SLOT_ATTEMPTS = 20
WAY_CLEARANCE_M = 0.5
"""A lane of a junction stays reserved for a car until the rear of the car is this far beyond the end of the lane."""


class RoadUser(NamedTuple):
    """Describe a vehicle or a pedestrian that the traffic model does not move, such as the ego vehicle."""

    id: int
    pose: Pose
    half_length_m: float
    half_width_m: float
    speed_mps: float
    """Speed in the direction of the pose."""
    reach_m: float = _ON_LANE_M
    """The vehicle or pedestrian blocks a lane if it is at most this far from the lane's centre."""


class _Blocked(NamedTuple):
    """Hold the pose of a vehicle or pedestrian, and the places on lanes that it blocks while it has this pose."""

    pose: Pose
    reach_m: float
    places: list[tuple[int, float, float]]
    """One entry for each blocked lane: its index, the position of the vehicle or pedestrian in metres along the lane,
    and the cosine of the angle between the lane and ``pose``."""


class Occupant(NamedTuple):
    """Describe a vehicle or pedestrian that occupies a place on a lane."""

    along_m: float
    half_length_m: float
    speed_mps: float
    """Speed in the direction of the lane."""
    owner: int
    """Id of the vehicle or pedestrian."""


class JunctionAhead(NamedTuple):
    """Describe a car's way through the next junction."""

    distance_m: float
    """Distance from the car's centre to the junction."""
    before: int
    """The lane that leads to the junction."""
    segments: list[int]
    """The lanes of the way through the junction."""
    after: int | None
    """The lane after the junction; None if the path ends within the junction."""


class Outlook(NamedTuple):
    """Describe the next vehicle and the next junction ahead, which can make a vehicle slow down or stop."""

    vehicle_ahead_m: float = math.inf
    """Distance from the vehicle's centre to the rear of the next vehicle; infinite on an empty road."""
    vehicle_ahead_mps: float = 0.0
    """Speed of the next vehicle."""
    junction_m: float = math.inf
    """Distance from the vehicle's centre to the next junction if the vehicle must wait there, otherwise infinite. The
    vehicle must wait if the junction is near, and the way through it is not reserved for the vehicle.
    """


class _Line:
    """Hold a lane's centre line with the direction and the highest speed at each point.

    :param segment: the lane
    """

    def __init__(self, segment: LaneSegment) -> None:
        points = segment.points_m
        ahead = np.gradient(points, axis=0)
        headings = np.unwrap(np.arctan2(ahead[:, 1], ahead[:, 0]))
        self.length_m = segment.length_m
        self.along_m: list[float] = segment.along_m.tolist()
        self._last_index = len(self.along_m) - 2
        self._rows: list[tuple[float, float, float]] = list(
            zip(points[:, 0].tolist(), points[:, 1].tolist(), headings.tolist(), strict=True)
        )
        # (n,): the highest speed, from v^2 = a / curvature, where the heading changes.
        turn = np.abs(np.gradient(headings))
        step = np.maximum(np.hypot(ahead[:, 0], ahead[:, 1]), 1e-6)
        squared = np.maximum(_LATERAL_MPS2 * step / np.maximum(turn, 1e-6), _SLOWEST_BEND_MPS**2)
        # Before a bend the highest speed is limited so that a car can brake: v_i^2 <= v_j^2 + 2 b (s_j - s_i) for all j
        # > i.
        reserve = 2.0 * _IDM.acceleration_mps2 * segment.along_m
        squared = np.minimum.accumulate((squared + reserve)[::-1])[::-1] - reserve
        self.limit_mps: list[float] = np.sqrt(squared).tolist()

    def index_at(self, along_m: float) -> int:
        """Return the index i for which ``along_m`` lies between the points i and i + 1 of the line."""
        index = bisect_right(self.along_m, along_m) - 1
        if index < 0:
            return 0
        if index > self._last_index:
            return self._last_index
        return index

    def pose_at(self, along_m: float) -> Pose:
        """Return the place and direction at a distance along the lane."""
        index = self.index_at(along_m)
        x, y, heading = self._rows[index]
        next_x, next_y, next_heading = self._rows[index + 1]
        begin_m = self.along_m[index]
        step_m = self.along_m[index + 1] - begin_m
        part = 0.0
        if step_m > 0.0:
            part = (along_m - begin_m) / step_m
            # This function runs for each car in each step, and comparisons are faster than min() and max().
            if part < 0.0:
                part = 0.0
            elif part > 1.0:
                part = 1.0
        return Pose(x + part * (next_x - x), y + part * (next_y - y), heading + part * (next_heading - heading))


class TrafficMap:
    """Hold the lanes of a map, the lanes that cross each other, and the places where cars can start.

    :param graph: the lanes of the map
    """

    def __init__(self, graph: LaneGraph) -> None:
        self.graph = graph
        self._lines: dict[int, _Line] = {}
        self._conflicts: dict[int, frozenset[int]] = {}

    def line(self, segment: int) -> _Line:
        """Return the centre line of a lane; cached."""
        if segment not in self._lines:
            self._lines[segment] = _Line(self.graph.segments[segment])
        return self._lines[segment]

    def in_junction(self, segment: int) -> bool:
        """Return whether a lane leads through a junction."""
        return self.graph.segments[segment].junction != NO_JUNCTION

    @cached_property
    def onward(self) -> tuple[tuple[int, ...], ...]:
        """Return for each lane the lanes on which a car may continue, without lanes that lead only to dead ends.

        If every following lane leads only to dead ends, all following lanes are permitted.
        """
        lasting = set(range(len(self.graph.segments)))
        while True:
            ending = {i for i in lasting if not any(after in lasting for after in self.graph.segments[i].successors)}
            if not ending:
                break
            lasting -= ending
        ways = []
        for segment in self.graph.segments:
            kept = tuple(after for after in segment.successors if after in lasting)
            ways.append(kept or segment.successors)
        return tuple(ways)

    @cached_property
    def siblings(self) -> tuple[tuple[int, ...], ...]:
        """Return for each lane the other lanes that begin at the same place."""
        found: list[set[int]] = [set() for _ in self.graph.segments]
        for segment in self.graph.segments:
            for after in segment.successors:
                found[after].update(segment.successors)
        return tuple(tuple(sorted(beside - {i})) for i, beside in enumerate(found))

    def conflicts(self, segment: int) -> frozenset[int]:
        """Return the lanes of a junction that must be free of cars while a car drives on lane ``segment``; cached.

        They lie in the same junction, and come closer to lane ``segment`` than ``_CONFLICT_M``.
        """
        if segment not in self._conflicts:
            own = self.graph.segments[segment]
            found = []
            for other, candidate in enumerate(self.graph.segments):
                if other != segment and candidate.junction == own.junction:
                    # (n_own, n_other): the distances of all pairs of points.
                    gaps = own.points_m[:, None] - candidate.points_m[None]
                    if np.hypot(gaps[..., 0], gaps[..., 1]).min() < _CONFLICT_M:
                        found.append(other)
            self._conflicts[segment] = frozenset(found)
        return self._conflicts[segment]

    def slots(self) -> list[tuple[int, float]]:
        """Return places at which cars can start: for each the lane, and the distance along the lane in metres."""
        found = []
        for index, segment in enumerate(self.graph.segments):
            if segment.junction == NO_JUNCTION and self.onward[index]:
                n_slots = int(segment.length_m / _SLOT_M)
                first_m = 0.5 * (segment.length_m - (n_slots - 1) * _SLOT_M)
                found += [(index, first_m + number * _SLOT_M) for number in range(n_slots)]
        return found


@lru_cache(maxsize=8)
def traffic_map(graph: LaneGraph) -> TrafficMap:
    """Return the :class:`TrafficMap` of a lane graph, cached: the same graph gives the same object."""
    return TrafficMap(graph)


class _Plan:
    """Store the centre lines of a path and its next junction, so that they are not looked up in each step.

    ``_plan_of`` notices appended lanes. ``_move`` must discard the plan when it removes a lane from the path.
    """

    def __init__(self, path: list[int], map_: TrafficMap) -> None:
        self.path, self.n_lanes = path, len(path)
        self.lines = [map_.line(segment) for segment in path]
        in_junction = [map_.in_junction(segment) for segment in path]
        self.ends_in_junction = in_junction[-1]
        self.enters_junction = [False]
        """For each lane of the path: True if it is the first lane within a junction."""
        for before, now in itertools.pairwise(in_junction):
            self.enters_junction.append(now and not before)
        self.way: list[int] = []
        """The lanes of the way through the next junction; empty if there is no junction on the path."""
        self.after: int | None = None
        """The lane after the next junction; None if there is no junction on the path, or if the path ends within it."""
        if True in self.enters_junction:
            first = end = self.enters_junction.index(True)
            while end < len(path) and in_junction[end]:
                end += 1
            self.before, self.approach, self.way = path[first - 1], self.lines[:first], path[first:end]
            if end < len(path):
                self.after = path[end]


@dataclass(eq=False)
class GraphCar:
    """Hold the state of a car that drives along the lanes of a map."""

    id: int
    half_length_m: float
    path: list[int]
    """The lanes of the car's path; the first is its present lane."""
    along_m: float
    """Distance of the car's centre from the beginning of its present lane."""
    desired_mps: float
    choose: Callable[[Sequence[int]], int]
    """Function that chooses one of several numbers, such as one of the lanes that follow the last lane of the path."""
    speed_mps: float = 0.0
    waited_s: float = 0.0
    held: list[int] = field(default_factory=list)
    """Lanes of junctions that are reserved for the car."""
    left: list[tuple[int, float]] = field(default_factory=list)
    """Reserved lanes that the car has left, each with the distance that the car's centre has driven since then."""
    plan: _Plan | None = field(default=None, repr=False)
    """Centre lines and next junction of the path, stored for the following steps; None if they must be found again."""


CarT = TypeVar("CarT", bound=GraphCar)


class GraphTraffic(Generic[CarT]):
    """Drive cars along the lanes of a map; a car enters a junction only after reserving a way through the junction."""

    def __init__(self) -> None:
        self.cars: list[CarT] = []
        self.guest: GraphCar | None = None
        """A vehicle that the model does not drive, but for which it reserves ways through junctions."""
        self.is_closed: Callable[[int, Sequence[int]], bool] = _never_closed
        """Function that returns whether vehicles must stop at the end of a lane, as at a red light. The arguments are
        the lane, and the lanes of the way that a vehicle takes through the junction after it."""

    def enter(self, map_: TrafficMap) -> None:
        """Switch to another map, and remove all cars.

        :param map_: the new map
        """
        self._map = map_
        self._known: dict[int, _Blocked] = {}
        """For each vehicle or pedestrian of the last step, by its id: the places that it blocks."""
        self.cars = []
        self.guest = None

    def pose_of(self, car: CarT) -> Pose:
        """Return the place and direction of a car."""
        return self._map.line(car.path[0]).pose_at(car.along_m)

    def advance(self, dt_s: float, others: Iterable[RoadUser]) -> None:
        """Move all cars by one time step.

        :param dt_s: duration of the movement in seconds
        :param others: all vehicles and pedestrians that this model does not move
        """
        others = list(others)
        for car in self.cars:
            self._extend_path(car)
            if self._is_at_dead_end(car):
                self._leave_dead_end(car, others)
        self._on_lane, self._foreign_lanes = self._occupants(others)
        self._reserve()
        # All accelerations are computed before the first car moves, so that they belong to the same moment.
        accelerations = [self._acceleration_mps2(car) for car in self.cars]
        for car, acceleration in zip(self.cars, accelerations, strict=True):
            self._move(car, acceleration, dt_s)

    def outlook(self, guest: GraphCar) -> Outlook:
        """Return the next vehicle and the next junction ahead of a vehicle.

        :param guest: the vehicle, which the traffic model does not drive
        """
        self._on_lane, self._foreign_lanes = self._occupants(())
        ahead = self._way_ahead(guest)
        junction_m = math.inf
        if ahead is not None and ahead.segments[0] not in guest.held and self._reaches(guest, ahead):
            junction_m = ahead.distance_m
        begin_m = -guest.along_m
        for segment in guest.path:
            if begin_m > _SIGHT_M:
                break
            nearest = self._nearest_ahead(segment, begin_m, guest.id, begin_m > 0.0)
            if nearest is not None:
                return Outlook(begin_m + nearest.along_m - nearest.half_length_m, nearest.speed_mps, junction_m)
            begin_m += self._map.line(segment).length_m
        return Outlook(junction_m=junction_m)

    def _extend_path(self, car: GraphCar) -> None:
        """Append lanes to a car's path until it covers the sight distance and ends outside of junctions.

        If no lane follows, the path stays shorter.
        """
        plan = self._plan_of(car)
        reach_m = -car.along_m
        for line in plan.lines:
            reach_m += line.length_m
        while reach_m < _SIGHT_M or plan.ends_in_junction:
            ways = self._map.onward[car.path[-1]]
            if not ways:
                return
            car.path.append(car.choose(ways))
            plan = self._plan_of(car)
            reach_m += plan.lines[-1].length_m

    def _is_at_dead_end(self, car: GraphCar) -> bool:
        """Return whether a car stands at the end of a path that leads no farther."""
        if car.waited_s <= 0.0 or self._map.onward[car.path[-1]]:
            return False
        to_end_m = sum(line.length_m for line in self._plan_of(car).lines) - car.along_m
        return to_end_m - car.half_length_m < _END_M

    def _leave_dead_end(self, car: CarT, others: Iterable[RoadUser]) -> None:
        """Let a car continue at another place of the map, because it would block the dead end forever.

        If no free place is found, the car stays, and the next step tries again.
        """
        slots = self._map.slots()
        taken = [(self.pose_of(each), _CLEAR_OF_CARS_M) for each in self.cars if each is not car]
        taken += [(each.pose, _CLEAR_OF_OTHERS_M) for each in others]
        for _ in range(_SLOT_ATTEMPTS if slots else 0):
            segment, along_m = slots[car.choose(range(len(slots)))]
            place = self._map.line(segment).pose_at(along_m)
            if all(math.dist(place[:2], pose[:2]) > clear_m for pose, clear_m in taken):
                car.path, car.along_m, car.speed_mps, car.waited_s = [segment], along_m, 0.0, 0.0
                car.held, car.left = [], []
                self._extend_path(car)
                return

    def _plan_of(self, car: GraphCar) -> _Plan:
        """Return the centre lines and the next junction of a car's path; cached until the path changes."""
        plan = car.plan
        if plan is None or plan.path is not car.path or plan.n_lanes != len(car.path):
            plan = car.plan = _Plan(car.path, self._map)
        return plan

    def _occupants(self, others: Iterable[RoadUser]) -> tuple[dict[int, list[Occupant]], dict[int, set[int]]]:
        """Find the vehicles and pedestrians on each lane.

        :param others: all vehicles and pedestrians that this model does not move
        :return: two dicts by lane: all vehicles and pedestrians on the lane, and the ids of the ``others`` on the lane
        """
        on_lane: dict[int, list[Occupant]] = {}
        for car in self.cars:
            mine = Occupant(car.along_m, car.half_length_m, car.speed_mps, car.id)
            on_lane.setdefault(car.path[0], []).append(mine)
        foreign_lanes: dict[int, set[int]] = {}
        known, self._known = self._known, {}
        for other in others:
            last = known.get(other.id)
            # Many vehicles stand still. The lanes that they block are searched only once.
            if last is None or last.pose != other.pose or last.reach_m != other.reach_m:
                last = self._blocked_by(other)
            self._known[other.id] = last
            for segment, along_m, cos in last.places:
                # A vehicle at an angle to the lane blocks less of the lane than its length, but at least its width.
                half_m = max(abs(cos) * other.half_length_m, other.half_width_m)
                found = Occupant(along_m, half_m, other.speed_mps * cos, other.id)
                on_lane.setdefault(segment, []).append(found)
                foreign_lanes.setdefault(segment, set()).add(other.id)
        return on_lane, foreign_lanes

    def _blocked_by(self, other: RoadUser) -> _Blocked:
        """Return the places on lanes that a vehicle or pedestrian blocks."""
        x, y, yaw = other.pose
        places = []
        for _, place in self._map.graph.places_near(x, y, other.reach_m):
            turn_rad = yaw - self._map.line(place.segment).pose_at(place.along_m).heading_rad
            places.append((place.segment, place.along_m, math.cos(turn_rad)))
        return _Blocked(other.pose, other.reach_m, places)

    # Junctions

    def _way_ahead(self, car: GraphCar) -> JunctionAhead | None:
        """Return the way through the next junction on a car's path; None if there is no junction on it."""
        plan = self._plan_of(car)
        if not plan.way:
            return None
        distance_m = -car.along_m
        for line in plan.approach:
            distance_m += line.length_m
        return JunctionAhead(distance_m, plan.before, plan.way, plan.after)

    def _reserve(self) -> None:
        """Reserve ways through junctions for approaching cars; the car that has waited longest comes first."""
        cars: list[GraphCar] = list(self.cars)
        if self.guest is not None:
            cars.insert(0, self.guest)
        reserved: dict[int, set[int]] = {}
        for car in cars:
            for segment in car.held:
                reserved.setdefault(segment, set()).add(car.id)
        for car in sorted(cars, key=lambda each: -each.waited_s):
            ahead = self._way_ahead(car)
            if ahead is None:
                continue
            way = ahead.segments
            to_line_m = ahead.distance_m - car.half_length_m
            if way[0] in car.held:
                if self.is_closed(ahead.before, way) and to_line_m > _braking_m(car):
                    # The light has changed and the car can still stop, so it gives up its reservation.
                    car.held = [segment for segment in car.held if segment not in way]
                continue
            if not self._reaches(car, ahead) or self.is_closed(ahead.before, way):
                continue
            # Only the first car of a lane may reserve a way. If a car behind it reserved the way, the first car would
            # wait for the way and block the car behind it forever.
            if self._is_first(car) and self._is_free(car, ahead, reserved):
                car.held += way
                for segment in way:
                    reserved.setdefault(segment, set()).add(car.id)

    @staticmethod
    def _reaches(car: GraphCar, ahead: JunctionAhead) -> bool:
        """Return whether a car is close enough to a junction to reserve its way through the junction."""
        return ahead.distance_m - car.half_length_m <= _RESERVE_FROM_M + _braking_m(car)

    def _is_first(self, car: GraphCar) -> bool:
        """Return whether no vehicle or pedestrian is between a car and the next junction on its path."""
        plan = self._plan_of(car)
        begin_m = -car.along_m
        for segment, line, is_entry in zip(car.path, plan.lines, plan.enters_junction, strict=True):
            if is_entry:
                return True
            if self._nearest_ahead(segment, begin_m, car.id, begin_m > 0.0) is not None:
                return False
            begin_m += line.length_m
        return True

    def _is_free(self, car: GraphCar, ahead: JunctionAhead, reserved: dict[int, set[int]]) -> bool:
        """Return whether a car's way through a junction is free, and the lane after the junction has room."""
        way, after = ahead.segments, ahead.after
        for segment in way:
            for crossing in self._map.conflicts(segment):
                if crossing in way:
                    continue
                if reserved.get(crossing, set()) - {car.id}:
                    return False
                if self._is_taken(crossing, car.id) and not self._is_taken(segment, car.id):
                    return False
        if after is None:
            return True
        # The lane needs room for this car, and for the cars that are already driving towards it.
        n_ahead = 1
        for segment in way:
            n_ahead = max(n_ahead, 1 + len(reserved.get(segment, set()) - {car.id}))
        first_m = min((each.along_m - each.half_length_m for each in self._on_lane.get(after, ())), default=math.inf)
        is_moving = all(each.speed_mps > 2.0 for each in self._on_lane.get(after, ()) if each.along_m < 15.0)
        return first_m > n_ahead * _ROOM_AFTER_M or (is_moving and n_ahead == 1)

    def _is_taken(self, segment: int, own_id: int) -> bool:
        """Return whether a :class:`RoadUser` other than ``own_id`` blocks a lane."""
        return any(owner != own_id for owner in self._foreign_lanes.get(segment, ()))

    # Movement

    def _acceleration_mps2(self, car: GraphCar) -> float:
        plan = self._plan_of(car)
        line = plan.lines[0]
        desired_mps = min(car.desired_mps, line.limit_mps[line.index_at(car.along_m)])
        gap_m, leader_mps = math.inf, 0.0
        begin_m = -car.along_m  # where the lane begins, from the car's centre
        own_id = car.id
        for position, line in enumerate(plan.lines):
            if begin_m > _SIGHT_M:
                break
            segment = car.path[position]
            if position:
                entry_mps = line.limit_mps[0]
                if entry_mps < car.desired_mps:
                    # A bend at the beginning of a lane also limits the speed on the lanes before it.
                    reserve = 2.0 * _IDM.acceleration_mps2 * max(0.0, begin_m)
                    desired_mps = min(desired_mps, math.sqrt(entry_mps**2 + reserve))
                if plan.enters_junction[position] and segment not in car.held:
                    stop_m = begin_m - car.half_length_m
                    if stop_m < gap_m:
                        gap_m, leader_mps = stop_m, 0.0
                    break
            nearest = self._nearest_ahead(segment, begin_m, own_id, begin_m > 0.0)
            if nearest is not None:
                ahead_m = begin_m + nearest.along_m - nearest.half_length_m - car.half_length_m
                if ahead_m < gap_m:
                    gap_m, leader_mps = ahead_m, nearest.speed_mps
                break
            begin_m += line.length_m
        else:
            if begin_m < _SIGHT_M and not self._map.onward[car.path[-1]]:
                # The road ends.
                end_m = begin_m - car.half_length_m
                if end_m < gap_m:
                    gap_m, leader_mps = end_m, 0.0
        return idm_acceleration_mps2(car.speed_mps, desired_mps, gap_m, car.speed_mps - leader_mps, _IDM)

    def _nearest_ahead(self, segment: int, begin_m: float, own_id: int, checks_siblings: bool) -> Occupant | None:
        """Return the nearest vehicle or pedestrian ahead of a car on one lane of its path; None if the lane is free.

        :param segment: the lane
        :param begin_m: distance from the car's centre to the beginning of the lane; negative on the car's present lane
        :param checks_siblings: whether also to check the first 8 m of the other lanes that begin at the same place
        """
        best: Occupant | None = None
        for each in self._on_lane.get(segment, ()):
            is_ahead = begin_m + each.along_m > 0.0 and each.owner != own_id
            if is_ahead and (best is None or each.along_m < best.along_m):
                best = each
        if checks_siblings:
            for sibling in self._map.siblings[segment]:
                for each in self._on_lane.get(sibling, ()):
                    is_near = each.along_m < _SPLIT_M and each.owner != own_id
                    if is_near and (best is None or each.along_m < best.along_m):
                        best = each
        return best

    def _move(self, car: GraphCar, acceleration_mps2: float, dt_s: float) -> None:
        """Move a car along its path, and release reserved lanes that the car has left."""
        speed_mps = max(0.0, car.speed_mps + acceleration_mps2 * dt_s)  # cars do not reverse
        # The mean of both speeds: exact under constant acceleration.
        moved_m = 0.5 * (car.speed_mps + speed_mps) * dt_s
        car.speed_mps = speed_mps
        car.waited_s = car.waited_s + dt_s if speed_mps < 0.1 else 0.0
        car.along_m += moved_m
        if car.left:
            car.left = [(segment, since_m + moved_m) for segment, since_m in car.left]
        length_m = self._map.line(car.path[0]).length_m
        while len(car.path) > 1 and car.along_m >= length_m:
            car.along_m -= length_m
            car.left.append((car.path.pop(0), car.along_m))
            car.plan = None
            length_m = self._map.line(car.path[0]).length_m
        if car.left:
            free_after_m = car.half_length_m + WAY_CLEARANCE_M
            for segment, since_m in car.left:
                if since_m > free_after_m and segment in car.held:
                    car.held.remove(segment)
            car.left = [(segment, since_m) for segment, since_m in car.left if since_m <= free_after_m]
        car.along_m = min(car.along_m, length_m)


def _braking_m(car: GraphCar) -> float:
    """Return the distance in which a car stops comfortably."""
    return 0.5 * car.speed_mps**2 / _IDM.braking_mps2


def _never_closed(_segment: int, _way: Sequence[int]) -> bool:
    return False
