"""Drive the other cars while the ego vehicle follows a route to a goal; cars and ego vehicle react to each other.

The traffic model of ``graph_traffic`` moves the cars. It reserves ways through junctions for the ego vehicle too, but
the environment moves this vehicle.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sb3_visual_td3.envs.backend import BodySize
from sb3_visual_td3.envs.road.collision import OrientedBox, any_overlap
from sb3_visual_td3.envs.road.graph_traffic import (
    WAY_CLEARANCE_M,
    GraphCar,
    GraphTraffic,
    Outlook,
    RoadUser,
    traffic_map,
)
from sb3_visual_td3.envs.road.lane_graph import LaneGraph
from sb3_visual_td3.envs.road.route_path import RoutePath
from sb3_visual_td3.envs.road.shapes import Pose
from sb3_visual_td3.envs.road.track import LanePosition
from sb3_visual_td3.envs.road.traffic import N_PAINTS, TrafficSettings

_NEAR_ROUTE_M = 100.0
"""Cars start at most this far from the route as long as there is room, so that the ego vehicle meets them."""
_ROUTE_STEP = 20
"""Distances from the route are measured only to every 20th point of the route, which is one point in 10 m."""
_EGO = -1
"""Id of the ego vehicle. Cars have the ids 0, 1, ..., and pedestrians -2, -3, ..."""
_WALKER_REACH_M = 3.0
"""Cars stop for a pedestrian who is at most this far from the centre of their lane."""
_WALKER_HALF_M = 0.2


class SeededChoice:
    """Choose at random which lane a car takes at each junction, and where it continues after a dead end.

    :param seed: seed of all choices
    :param n_chosen: number of choices made before
    """

    def __init__(self, seed: Sequence[int], n_chosen: int = 0) -> None:
        self._seed = seed
        self.n_chosen = n_chosen

    def __call__(self, ways: Sequence[int]) -> int:
        """Choose at random one of several numbers.

        :param ways: the numbers, at least one, such as the lanes on which the car can continue
        """
        if len(ways) == 1:
            return ways[0]
        self.n_chosen += 1
        # Each choice has a new generator, because the state of a generator is large and a saved episode would contain
        # one per car.
        return ways[int(np.random.default_rng([*self._seed, self.n_chosen]).integers(len(ways)))]


@dataclass(eq=False, kw_only=True)
class RouteCar(GraphCar):
    """Hold the state of a car that the ego vehicle may meet on the route."""

    choose: SeededChoice
    paint: int
    """Number of the car's colour, 0 to ``N_PAINTS - 1``."""


class RouteTraffic:
    """Simulate the other cars while the ego vehicle follows a route to a goal, one episode at a time.

    :param settings: number, size and speeds of the cars; a short map has fewer cars
    :param ego_body: outer size of the ego vehicle
    :param is_closed: function that returns whether vehicles must stop at the end of a lane, as at a red light; see
        ``GraphTraffic.is_closed``
    """

    def __init__(
        self,
        settings: TrafficSettings,
        ego_body: BodySize,
        is_closed: Callable[[int, Sequence[int]], bool] | None = None,
    ) -> None:
        self.settings = settings
        self._ego_body = ego_body
        self._traffic: GraphTraffic[RouteCar] = GraphTraffic()
        if is_closed is not None:
            self._traffic.is_closed = is_closed
        self.cars: list[RouteCar] = []
        self.boxes: list[OrientedBox] = []
        self.paints: list[int] = []
        self.outlook = Outlook()
        """The next car and the next junction ahead of the ego vehicle."""

    def enter(self, graph: LaneGraph, path: RoutePath) -> None:
        """Set the map and the ego vehicle's route, and remove all cars; ``reset`` places new cars.

        :param graph: the lanes of the map
        :param path: the route of the ego vehicle
        """
        self.boxes, self.paints, self.outlook = [], [], Outlook()
        self._path = path
        self._lane_starts_m = [lane.from_m for lane in path.lanes]
        self._way_ends_m: dict[int, float] = {}
        """For each lane that is reserved for the ego vehicle: the distance along the route at which the lane ends."""
        if self.settings.n_cars:
            self._map = traffic_map(graph)
            self._traffic.enter(self._map)
            self.cars = self._traffic.cars

    def reset(self, ego: Pose, lane: LanePosition, speed_mps: float, scene_seed: int) -> None:
        """Place the cars at random, none near the ego vehicle, and most of them near its route.

        :param ego: place and direction of the ego vehicle
        :param lane: position of the ego vehicle on the route
        :param speed_mps: speed of the ego vehicle
        :param scene_seed: seed of the cars' places, speeds and turns
        """
        if not self.settings.n_cars:
            return
        rng = np.random.default_rng([scene_seed, 7])
        slots = self._map.slots()
        poses = [self._map.line(segment).pose_at(along_m) for segment, along_m in slots]
        for number in self._order(np.array([pose[:2] for pose in poses]).reshape(-1, 2), rng):
            if len(self.cars) == self.settings.n_cars:
                break
            box = OrientedBox(*poses[number], self.settings.length_m, self.settings.width_m)
            is_near_ego = math.dist(box[:2], ego[:2]) < self.settings.clear_m
            # Where lanes overlap, another car may already stand at this place.
            if is_near_ego or any_overlap(box, self.boxes):
                continue
            self._add_car(*slots[number], scene_seed, rng)
            self.boxes.append(box)
        self.paints = [car.paint for car in self.cars]
        # A step of 0 s moves nothing, but reserves ways through junctions.
        self.advance(0.0, ego, lane, speed_mps)

    def advance(
        self, dt_s: float, ego: Pose, lane: LanePosition, speed_mps: float, walkers: Sequence[tuple[float, float]] = ()
    ) -> None:
        """Move all cars.

        :param dt_s: duration of the movement in seconds
        :param ego: place and direction of the ego vehicle
        :param lane: position of the ego vehicle on the route
        :param speed_mps: speed of the ego vehicle
        :param walkers: x and y of each pedestrian on the road
        """
        if not self.cars:
            return
        guest = self._follow(lane, speed_mps)
        guest.waited_s = guest.waited_s + dt_s if speed_mps < 0.1 else 0.0
        length_m, width_m, _ = self._ego_body
        others = [RoadUser(_EGO, ego, 0.5 * length_m, 0.5 * width_m, speed_mps)]
        for number, (x_m, y_m) in enumerate(walkers):
            place = Pose(x_m, y_m, 0.0)
            others.append(
                RoadUser(_EGO - 1 - number, place, _WALKER_HALF_M, _WALKER_HALF_M, 0.0, reach_m=_WALKER_REACH_M)
            )
        self._traffic.advance(dt_s, others)
        self._note_reserved(lane)
        self._place_boxes()
        self.outlook = self._traffic.outlook(guest)

    def get_state(self) -> dict[str, Any]:
        """Return the complete state of the cars as plain values, from which ``set_state`` continues."""
        cars = []
        for car in self.cars:
            cars.append(
                {
                    "path": list(car.path),
                    "along_m": car.along_m,
                    "desired_mps": car.desired_mps,
                    "speed_mps": car.speed_mps,
                    "waited_s": car.waited_s,
                    "held": list(car.held),
                    "left": [list(each) for each in car.left],
                    "n_chosen": car.choose.n_chosen,
                    "paint": car.paint,
                }
            )
        guest = self._traffic.guest
        waited_s = 0.0 if guest is None else guest.waited_s
        reserved = [[segment, end_m] for segment, end_m in self._way_ends_m.items()]
        return {"n_cars": self.settings.n_cars, "cars": cars, "ego_waited_s": waited_s, "ego_reserved": reserved}

    def set_state(self, state: Mapping[str, Any], lane: LanePosition, speed_mps: float, scene_seed: int) -> None:
        """Restore the cars from a state that ``get_state`` returned; call ``enter`` with the same map and route first.

        :param state: the result of ``get_state``
        :param lane: position of the ego vehicle on the route
        :param speed_mps: speed of the ego vehicle
        :param scene_seed: seed of the episode
        """
        if not self.settings.n_cars:
            return
        for number, saved in enumerate(state["cars"]):
            car = RouteCar(
                id=number,
                half_length_m=0.5 * self.settings.length_m,
                path=list(saved["path"]),
                along_m=saved["along_m"],
                desired_mps=saved["desired_mps"],
                choose=SeededChoice(_seed_of(scene_seed, number), saved["n_chosen"]),
                speed_mps=saved["speed_mps"],
                waited_s=saved["waited_s"],
                held=list(saved["held"]),
                left=[(segment, since_m) for segment, since_m in saved["left"]],
                paint=saved["paint"],
            )
            self.cars.append(car)
        self.paints = [car.paint for car in self.cars]
        self._place_boxes()
        self._way_ends_m = dict(state["ego_reserved"])
        guest = self._follow(lane, speed_mps)
        guest.waited_s = state["ego_waited_s"]
        self.outlook = self._traffic.outlook(guest)

    def _order(self, places_m: np.ndarray[Any, np.dtype[np.float64]], rng: np.random.Generator) -> list[int]:
        """Return the numbers of the starting places in random order; all places near the route come first."""
        order = rng.permutation(len(places_m))
        route = self._path.points_m[::_ROUTE_STEP]
        # gaps, (n_places, n_route_points, 2): at most 3,000 places of a town and 80 points of the route.
        gaps = places_m[:, None] - route[None]
        is_near = np.hypot(gaps[..., 0], gaps[..., 1]).min(axis=1, initial=math.inf) < _NEAR_ROUTE_M
        return [*order[is_near[order]].tolist(), *order[~is_near[order]].tolist()]

    def _add_car(self, segment: int, along_m: float, scene_seed: int, rng: np.random.Generator) -> None:
        number = len(self.cars)
        desired_mps = float(rng.uniform(self.settings.min_desired_mps, self.settings.max_desired_mps))
        car = RouteCar(
            id=number,
            half_length_m=0.5 * self.settings.length_m,
            path=[segment],
            along_m=along_m,
            desired_mps=desired_mps,
            choose=SeededChoice(_seed_of(scene_seed, number)),
            speed_mps=0.5 * desired_mps,
            paint=int(rng.integers(N_PAINTS)),
        )
        self.cars.append(car)

    def _follow(self, lane: LanePosition, speed_mps: float) -> GraphCar:
        """Update the ego vehicle's place and speed in the traffic model, and return the model's object for it."""
        lanes = self._path.lanes
        index = max(0, bisect_right(self._lane_starts_m, lane.along_m) - 1)
        here = lanes[index]
        along_m = max(0.0, here.along_m + lane.along_m - here.from_m)
        path = [here.segment]
        for after in lanes[index + 1 :]:
            # Of lanes side by side, only the first counts. The vehicle enters the others by lane changes.
            if after.along_m == 0.0:
                path.append(after.segment)
        # Lanes that the rear of the vehicle has left are free again.
        rear_m = lane.along_m - 0.5 * self._ego_body.length_m - WAY_CLEARANCE_M
        self._way_ends_m = {segment: end_m for segment, end_m in self._way_ends_m.items() if end_m > rear_m}
        if self._traffic.guest is None:
            half_m = 0.5 * self._ego_body.length_m
            self._traffic.guest = GraphCar(_EGO, half_m, path, along_m, math.inf, SeededChoice([]))
        guest = self._traffic.guest
        guest.path, guest.along_m, guest.speed_mps = path, along_m, speed_mps
        guest.held = list(self._way_ends_m)
        return guest

    def _note_reserved(self, lane: LanePosition) -> None:
        """Record the ends of all lanes that are reserved for the ego vehicle, as distances along the route."""
        guest = self._traffic.guest
        assert guest is not None
        lanes = self._path.lanes
        self._way_ends_m = {segment: end_m for segment, end_m in self._way_ends_m.items() if segment in guest.held}
        index = max(0, bisect_right(self._lane_starts_m, lane.along_m) - 1)
        for segment in guest.held:
            if segment in self._way_ends_m:
                continue
            for number in range(index, len(lanes)):
                if lanes[number].segment == segment:
                    end_m = math.inf if number + 1 == len(lanes) else lanes[number + 1].from_m
                    self._way_ends_m[segment] = end_m
                    break

    def _place_boxes(self) -> None:
        """Update ``boxes`` from the places of the cars."""
        length_m, width_m = self.settings.length_m, self.settings.width_m
        self.boxes = [OrientedBox(*self._traffic.pose_of(car), length_m, width_m) for car in self.cars]


def _seed_of(scene_seed: int, number: int) -> list[int]:
    """Return the seed of a car's random choices at junctions."""
    return [scene_seed, 8, number]
