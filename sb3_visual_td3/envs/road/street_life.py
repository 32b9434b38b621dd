"""Simulate traffic lights and crossing pedestrians along the route that a vehicle drives.

The vehicle runs a red light when its centre passes the stop line while the light is red. A pedestrian begins to cross
only when the vehicle is far enough away to brake.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.envs.arguments import check_count, check_flag
from sb3_visual_td3.envs.road.collision import OrientedBox, boxes_overlap
from sb3_visual_td3.envs.road.lane_graph import NO_JUNCTION, LaneGraph
from sb3_visual_td3.envs.road.light_cycle import LightColour, LightCycles
from sb3_visual_td3.envs.road.road_signs import lights_of
from sb3_visual_td3.envs.road.route_path import RoutePath
from sb3_visual_td3.envs.road.shapes import Pose
from sb3_visual_td3.envs.road.sign_reading import place_lights, stop_bar_m
from sb3_visual_td3.envs.road.track import LanePosition, Track

MAX_WALKERS = 50
LIGHTS_SEED = 0
"""This seed decides which junctions of a built-in map get traffic lights. The emulator's ``--seed`` has the same
default."""
_ON_LINE_M = 1.5
"""A stop line counts as part of the vehicle's route if its middle is closer to the route than this."""
_SAME_LINE_M = 5.0
"""Stop lines of several lights count as one line if they are closer together on the route than this."""
_CLOSED = ("red", "yellow")
_BEHIND_M = 3.0
"""A stop line counts as ahead until the vehicle has passed it by this distance."""
_LIGHT_OFFSET_S = 4.0
_WALKER_MPS = 1.4
_WALKER_SIZE_M = 0.4
_ASIDE_M = 1.5
"""Pedestrians wait this far outside the road's outer line."""
_PAUSE_S = (4.0, 20.0)
"""Range of the time for which a pedestrian waits before crossing again."""
_REACTION_S, _BRAKING_MPS2, _MARGIN_M = 1.5, 3.0, 6.0
"""A pedestrian does not start to cross within the vehicle's stopping distance, which follows from these values."""
_CLEAR_M = 25.0
"""No pedestrian stands within this distance ahead of the vehicle's starting place."""
_BETWEEN_M = 12.0
_TRIES = 200


@dataclass
class Walker:
    """Hold the state of a pedestrian who crosses the vehicle's route at one place, back and forth."""

    along_m: float
    """Distance along the route at which the pedestrian crosses."""
    index: int
    """Index of the route's point at the distance ``along_m``."""
    lateral_m: float
    """Present offset from the route, positive to the left."""
    right_m: float
    """Lateral offset of the pedestrian's waiting place on the right side of the road; a negative number."""
    left_m: float
    """Lateral offset of the pedestrian's waiting place on the left side of the road; a positive number."""
    direction: int
    """1 to the left, -1 to the right, 0 while standing."""
    pause_s: float
    """Remaining time at the roadside."""


class WalkerMotion(NamedTuple):
    """Describe the current position, direction and speed of a pedestrian."""

    pose: Pose
    """Place and walking direction; a standing pedestrian faces the road."""
    speed_mps: float


class PostedLight(NamedTuple):
    """Describe a traffic light to draw."""

    x_m: float
    y_m: float
    yaw_rad: float
    colour: LightColour


class _LineStop(NamedTuple):
    """Hold a place where the route passes a stop line: its distance along the route, and the number of the light."""

    along_m: float
    light: int


class StreetLife:
    """Simulate the traffic lights and the pedestrians of one episode at a time.

    :param traffic_lights: True for the lights of the map file, or for lights at junctions of a built-in map
    :param n_walkers: number of pedestrians who cross the vehicle's route, 0 to 50; a short route has fewer
    :param are_lights_remote: whether a CARLA server simulates the lights; the caller then passes their colours to
        ``show``
    :raises ValueError: if an argument is out of range
    """

    def __init__(self, traffic_lights: bool = False, n_walkers: int = 0, *, are_lights_remote: bool = False) -> None:
        self._are_lights_remote = are_lights_remote
        self.has_lights = check_flag("traffic_lights", traffic_lights)
        self.n_walkers = check_count("n_walkers", n_walkers, 0, MAX_WALKERS)
        self.walkers: list[Walker] = []
        self.n_red_lights = 0
        """Number of red lights that the vehicle has run since the reset."""
        self.has_hit_walker = False
        self._lights: LightCycles | None = None
        self._stops: list[_LineStop] = []
        self.stop_bars: list[NDArray[np.float64]] = []
        """All stop lines of the map, by their two ends."""

    @property
    def is_on(self) -> bool:
        """Return whether there are traffic lights or pedestrians to simulate."""
        return self.has_lights or self.n_walkers > 0

    def enter(self, graph: LaneGraph, line: Track | RoutePath, *, is_map_file: bool = False) -> None:
        """Set the map and the route that the vehicle drives on it, and find the stop lines on this route.

        :param graph: the lanes of the map
        :param line: the route, closed (``Track``) or to a goal (``RoutePath``)
        :param is_map_file: whether the map is a file, which has only its own lights
        """
        self._line = line
        self._lap_m = line.length_m if isinstance(line, Track) else None
        self._lights, self._stops, self.stop_bars = None, [], []
        self._graph = graph
        if not self.has_lights:
            return
        has_own_lights = is_map_file or self._are_lights_remote
        signs = graph.signs if has_own_lights else place_lights(graph, LIGHTS_SEED)
        self._lights = LightCycles(signs, _LIGHT_OFFSET_S)
        points, headings = line.points_m, _headings_rad(line.points_m)
        for number, signal in lights_of(signs):
            for stop in signal.stops:
                bar = stop_bar_m(graph.segments[stop.segment], stop.along_m)
                self.stop_bars.append(bar)
                middle, across = bar.mean(axis=0), bar[0] - bar[1]
                gaps_m = np.linalg.norm(points - middle, axis=1)
                passages = _passages(gaps_m, is_closed=self._lap_m is not None)
                for position, index in enumerate(passages):
                    # Traffic that the light stops crosses the stop line at a right angle. The line's left end is at the
                    # traffic's left.
                    if across[1] * math.cos(headings[index]) - across[0] * math.sin(headings[index]) <= 0.0:
                        continue
                    if stop.ways:
                        # The points from here to the route's next passage of the same line, or to the end of the route.
                        # On a closed route, the next passage may be in the next lap.
                        following = points[index : (*passages, len(points))[position + 1]]
                        if self._lap_m is not None and position + 1 == len(passages):
                            following = np.concatenate([following, points[: passages[0]]])
                        if not any(_is_on_line(graph.segments[way].points_m, following) for way in stop.ways):
                            continue
                    self._stops.append(_LineStop(index * line.spacing_m, number))
        self._stops = _joined(self._stops)

    def reset(self, lane: LanePosition, scene_seed: int) -> None:
        """Begin an episode: advance the light cycles by a random time, and place the pedestrians.

        Call ``enter`` before each reset, because it starts the light cycles.

        :param lane: the position of the vehicle on the route
        :param scene_seed: seed of the episode
        """
        rng = np.random.default_rng([scene_seed, 6])
        self.n_red_lights, self.has_hit_walker = 0, False
        if self._lights is not None:
            self._lights.advance(float(rng.uniform(0.0, 60.0)))
        self.walkers = []
        for _ in range(_TRIES * self.n_walkers):
            if len(self.walkers) == self.n_walkers:
                break
            walker = self._drawn_walker(lane, rng)
            if walker is not None:
                self.walkers.append(walker)

    def advance(self, dt_s: float, before: LanePosition, after: LanePosition, box: OrientedBox, mps: float) -> None:
        """Advance the lights and pedestrians, and check whether the vehicle ran a red light or hit a pedestrian.

        :param dt_s: duration in seconds
        :param before: position of the vehicle on the route ``dt_s`` ago
        :param after: position of the vehicle on the route now
        :param box: the rectangle of the vehicle now
        :param mps: speed of the vehicle in m/s
        """
        if self._lights is not None:
            moved_m = self._line.advance_m(before, after)
            passed_red = set()
            for stop in self._stops:
                ahead_m = self._ahead_m(before, stop.along_m)
                if 0.0 < ahead_m <= moved_m and self._lights.colours[stop.light] == "red":
                    passed_red.add(stop.along_m)
            # Several red lights at the same stop line count once.
            self.n_red_lights += len(passed_red)
            if not self._are_lights_remote:
                self._lights.advance(dt_s)
        for number, walker in enumerate(self.walkers):
            self._walk(walker, number, dt_s, after, mps)
            self.has_hit_walker = self.has_hit_walker or boxes_overlap(box, self._box_of(walker))

    def stop_ahead_m(self, lane: LanePosition) -> float:
        """Return the distance in metres to the nearest place at which the vehicle must stop; infinite if it may go on.

        :param lane: the position of the vehicle on the route
        """
        nearest_m = math.inf
        if self._lights is not None:
            for stop in self._stops:
                if self._lights.colours[stop.light] in _CLOSED:
                    ahead_m = self._ahead_m(lane, stop.along_m)
                    if 0.0 < ahead_m < nearest_m:
                        nearest_m = ahead_m
        for walker in self.walkers:
            if walker.direction:
                ahead_m = self._ahead_m(lane, walker.along_m)
                if 0.0 < ahead_m < nearest_m:
                    nearest_m = ahead_m
        return nearest_m

    def lights_ahead(self, lane: LanePosition, within_m: float) -> dict[int, str]:
        """Return the traffic lights on the route whose stop lines are ahead of the vehicle.

        :param lane: the position of the vehicle on the route
        :param within_m: largest distance to the stop line
        :return: ``{number: id}``: index among the signals of the lane graph, and id in the map
        """
        found: dict[int, str] = {}
        if self._lights is not None:
            for stop in self._stops:
                if -_BEHIND_M < self._ahead_m(lane, stop.along_m) < within_m:
                    found[stop.light] = self._lights.signs.signals[stop.light].id
        return found

    def show(self, light: int, colour: LightColour) -> None:
        """Set the colour of a light that a CARLA server simulates.

        :param light: number of the light
        :param colour: the new colour
        """
        if self._lights is not None:
            self._lights.set_colour(light, colour)

    def obstacles(self) -> list[tuple[int, float]]:
        """Return the places at which other cars must stop: at pedestrians, and at lights that are red or yellow.

        :return: for each place the index of a route point, and the lateral offset from it in metres
        """
        found = self.walker_obstacles()
        if self._lights is not None:
            for stop in self._stops:
                if self._lights.colours[stop.light] in _CLOSED:
                    found.append((round(stop.along_m / self._line.spacing_m) % len(self._line.points_m), 0.0))
        return found

    def walker_obstacles(self) -> list[tuple[int, float]]:
        """Return the places of all pedestrians who are crossing the road.

        :return: for each pedestrian the index of a route point, and the lateral offset from it in metres
        """
        return [(walker.index, walker.lateral_m) for walker in self.walkers if walker.direction]

    def is_closed(self, segment: int, way: Collection[int]) -> bool:
        """Return whether a red or yellow light stops vehicles at the end of a lane.

        :param segment: number of the lane
        :param way: numbers of the lanes that the vehicle takes through the junction after the lane
        """
        return self._lights is not None and self._lights.stop_ahead_m(segment, way=way) is not None

    def lights_at(self, segment: int, way: Collection[int]) -> list[tuple[int, str]]:
        """Return the lights that control a lane: for each, its number, and its id in the map.

        :param segment: number of the lane
        :param way: numbers of the lanes that the vehicle takes through the junction after the lane
        """
        if self._lights is None:
            return []
        signals = self._lights.signs.signals
        return [(light, signals[light].id) for _, light in self._lights.lights_on(segment, way)]

    def walker_motions(self) -> list[WalkerMotion]:
        """Return position, direction and speed of each pedestrian."""
        motions = []
        for walker in self.walkers:
            x_m, y_m, heading_rad = self._line.pose_at(walker.index, walker.lateral_m)
            # A pedestrian on the right side looks to the left, and a pedestrian on the left side looks to the right.
            side = walker.direction or (1 if walker.lateral_m <= walker.right_m else -1)
            speed_mps = _WALKER_MPS if walker.direction else 0.0
            motions.append(WalkerMotion(Pose(x_m, y_m, heading_rad + side * 0.5 * math.pi), speed_mps))
        return motions

    def keep_walkers(self, numbers: Sequence[int]) -> None:
        """Keep some pedestrians and remove all others.

        :param numbers: numbers of the pedestrians to keep
        """
        self.walkers = [self.walkers[number] for number in numbers]

    def walkers_on_road(self) -> list[tuple[float, float]]:
        """Return x and y of each pedestrian who is crossing the road at this moment."""
        places = zip(self.walkers, self.walker_places(), strict=True)
        return [place for walker, place in places if walker.direction]

    def posted_lights(self) -> list[PostedLight]:
        """Return all traffic lights of the map with their colours."""
        if self._lights is None:
            return []
        colours = self._lights.colours
        return [
            PostedLight(signal.x_m, signal.y_m, signal.yaw_rad, colours[number])
            for number, signal in lights_of(self._lights.signs)
        ]

    def walker_places(self) -> list[tuple[float, float]]:
        """Return x and y of each pedestrian."""
        return [self._line.pose_at(walker.index, walker.lateral_m)[:2] for walker in self.walkers]

    def get_state(self) -> dict[str, Any]:
        """Return everything that the rest of the episode depends on, as plain values."""
        return {
            "lights": None if self._lights is None else self._lights.get_state(),
            "n_walkers": self.n_walkers,
            "walkers": [asdict(walker) for walker in self.walkers],
            "n_red_lights": self.n_red_lights,
            "has_hit_walker": self.has_hit_walker,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore a state that ``get_state`` returned; call ``enter`` with the same map and route first.

        :param state: the result of ``get_state``
        :raises ValueError: if the state comes from a world with other settings
        """
        if (state["lights"] is None) != (self._lights is None):
            raise ValueError(
                f"the state was saved {'without' if state['lights'] is None else 'with'} traffic lights, but this env "
                f"has traffic_lights={self.has_lights}: make the env with the settings of the saved env"
            )
        # States of earlier versions do not have ``n_walkers``, so they are not checked. The number of saved pedestrians
        # does not show it, because a short route has fewer pedestrians.
        if state.get("n_walkers", self.n_walkers) != self.n_walkers:
            raise ValueError(
                f"the state was saved with n_walkers={state['n_walkers']}, but this env has "
                f"n_walkers={self.n_walkers}: make the env with the settings of the saved env"
            )
        if self._lights is not None:
            self._lights.set_state(state["lights"])
        self.walkers = [Walker(**walker) for walker in state["walkers"]]
        self.n_red_lights, self.has_hit_walker = state["n_red_lights"], state["has_hit_walker"]

    def _ahead_m(self, lane: LanePosition, along_m: float) -> float:
        """Return the distance along the route to a place ahead; negative if the place is behind.

        On a closed route, the distance is measured the shorter way round.
        """
        if self._lap_m is None:
            return along_m - lane.along_m
        return math.remainder(along_m - lane.along_m, self._lap_m)

    def _drawn_walker(self, lane: LanePosition, rng: np.random.Generator) -> Walker | None:
        """Return a pedestrian at a random place of the route; None if the place is unsuitable.

        A place in a junction, close ahead of the vehicle, or near another pedestrian is unsuitable.
        """
        line = self._line
        n_points = int(line.length_m / line.spacing_m)
        index = int(rng.integers(n_points))
        side, pause_s = int(rng.integers(2)), float(rng.uniform(*_PAUSE_S))
        along_m = index * line.spacing_m
        if -5.0 < self._ahead_m(lane, along_m) < _CLEAR_M:
            return None
        for other in self.walkers:
            if abs(other.along_m - along_m) < _BETWEEN_M:
                return None
        x_m, y_m = line.points_m[index].tolist()
        near = self._graph.places_near(x_m, y_m, 8.0)
        if not near or any(self._graph.segments[place.segment].junction != NO_JUNCTION for _, place in near):
            return None
        segment = self._graph.segments[near[0][1].segment]
        middle = len(segment.points_m) // 2
        right_m = float(segment.right_line_m[middle]) - _ASIDE_M
        left_m = float(segment.left_line_m[middle]) + _ASIDE_M
        return Walker(along_m, index, (right_m, left_m)[side], right_m, left_m, 0, 0.5 * pause_s)

    def _walk(self, walker: Walker, number: int, dt_s: float, lane: LanePosition, mps: float) -> None:
        """Move a pedestrian, who waits at the roadside and crosses when the vehicle is far enough away."""
        if walker.direction == 0:
            walker.pause_s -= dt_s
            ahead_m = self._ahead_m(lane, walker.along_m)
            needed_m = mps * _REACTION_S + 0.5 * mps * mps / _BRAKING_MPS2 + _MARGIN_M
            if walker.pause_s <= 0.0 and not -4.0 < ahead_m < needed_m:
                walker.direction = 1 if walker.lateral_m <= walker.right_m else -1
            return
        walker.lateral_m += walker.direction * _WALKER_MPS * dt_s
        if not walker.right_m < walker.lateral_m < walker.left_m:
            walker.lateral_m = min(walker.left_m, max(walker.right_m, walker.lateral_m))
            walker.direction = 0
            # Each pedestrian waits for a different time, which follows from the pedestrian's number. With random times,
            # the state of the generator would have to be saved.
            spread = (number * 0.618) % 1.0
            walker.pause_s = _PAUSE_S[0] + spread * (_PAUSE_S[1] - _PAUSE_S[0])

    def _box_of(self, walker: Walker) -> OrientedBox:
        x_m, y_m, heading_rad = self._line.pose_at(walker.index, walker.lateral_m)
        return OrientedBox(x_m, y_m, heading_rad, _WALKER_SIZE_M, _WALKER_SIZE_M)


def _passages(gaps_m: NDArray[np.float64], is_closed: bool) -> list[int]:
    """Return where a route passes a stop line: for each passage, the index of the route's nearest point.

    :param gaps_m: distance of each point of the route from the middle of the stop line, ``(n,)``
    :param is_closed: whether the route continues at its first point after its last point
    """
    near = np.flatnonzero(gaps_m < _ON_LINE_M)
    # Neighbouring points belong to the same passage.
    runs = np.split(near, np.flatnonzero(np.diff(near) > 1) + 1)
    if is_closed and len(runs) > 1 and near[0] == 0 and near[-1] == len(gaps_m) - 1:
        runs[0] = np.concatenate([runs.pop(), runs[0]])
    return [int(run[np.argmin(gaps_m[run])]) for run in runs if len(run)]


def _is_on_line(lane_m: NDArray[np.float64], line_m: NDArray[np.float64]) -> bool:
    """Return whether a route leads along a whole lane: both pass the lane's beginning, middle and end.

    :param lane_m: x and y of the lane's points, ``(n, 2)``
    :param line_m: x and y of the route's points, ``(m, 2)``
    """
    samples_m = lane_m[[0, len(lane_m) // 2, -1]]
    gaps_m = np.linalg.norm(samples_m[:, None] - line_m[None], axis=2)
    return bool((gaps_m.min(axis=1) < _ON_LINE_M).all())


def _joined(stops: Sequence[_LineStop]) -> list[_LineStop]:
    """Merge stop lines that are close together on the route: all take the position of the first; the order is kept."""
    lines_m: list[float] = []
    for along_m in sorted(stop.along_m for stop in stops):
        if not lines_m or along_m - lines_m[-1] >= _SAME_LINE_M:
            lines_m.append(along_m)
    return [stop._replace(along_m=lines_m[bisect_right(lines_m, stop.along_m) - 1]) for stop in stops]


def _headings_rad(points_m: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the direction of a line at each of its points in radians, ``(n,)``."""
    ahead = np.gradient(points_m, axis=0)
    headings: NDArray[np.float64] = np.arctan2(ahead[:, 1], ahead[:, 0])
    return headings
