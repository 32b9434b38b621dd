"""Simulate the embedded world: a car on a map, among other cars, seen through its camera."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.envs.arguments import check_quantity
from sb3_visual_td3.envs.backend import BodySize, CollidedWith, Control, PictureView, Start, VehicleState
from sb3_visual_td3.envs.lite.figure_painter import NO_FIGURES, Figures, Person, Post
from sb3_visual_td3.envs.lite.vehicle import Motion, VehicleSettings, advance
from sb3_visual_td3.envs.lite.view import CameraSettings, View
from sb3_visual_td3.envs.road.collision import OrientedBox, any_overlap
from sb3_visual_td3.envs.road.graph_reading import read_graph
from sb3_visual_td3.envs.road.maps import MAP_GROUPS, OPENDRIVE_SUFFIX, LiteMap, load_map
from sb3_visual_td3.envs.road.route_maps import RouteMap, load_route_map
from sb3_visual_td3.envs.road.route_path import RoutePath
from sb3_visual_td3.envs.road.route_settings import RoutePlanner, RouteSettings
from sb3_visual_td3.envs.road.route_traffic import RouteTraffic
from sb3_visual_td3.envs.road.shapes import Pose
from sb3_visual_td3.envs.road.street_life import StreetLife
from sb3_visual_td3.envs.road.track import LanePosition, Track
from sb3_visual_td3.envs.road.traffic import Ego, Traffic, TrafficSettings

_TRAFFIC_INTERVAL_S = 0.1
"""Longest time between two movements of the other cars, and between two tests for collisions. It is too short for cars
to pass through each other."""
_EGO_PAINT = 1
"""Colour of the ego vehicle in the chase view, as an index into ``PAINTS``."""
_SAME_PLACE_M = 0.5
"""A saved place on a route may differ by at most this from the place that follows from the car's position."""
_LOG = logging.getLogger("sb3_visual_td3")


class LiteWorld:
    """Simulate a car on a map, inside the Python process; implements ``envs.backend.RestorableBackend``.

    Everything that varies between episodes follows from the ``Start`` of the episode.

    :param tick_s: length of a tick, 0.001 to 0.2 s
    :param camera: settings of the camera's frames
    :param vehicle: size and limits of the car
    :param traffic: number and behaviour of the other cars
    :param routes: the kind of routes to drive; None for a closed route, which is a loop on the map
    :param map_groups: the names of the maps, by group
    :param street_life: traffic lights and pedestrians; None for a world without traffic lights and pedestrians
    :raises ValueError: if ``tick_s`` is out of range
    """

    def __init__(
        self,
        *,
        tick_s: float = 0.05,
        camera: CameraSettings | None = None,
        vehicle: VehicleSettings | None = None,
        traffic: TrafficSettings | None = None,
        routes: RouteSettings | None = None,
        map_groups: Mapping[str, Sequence[str]] = MAP_GROUPS,
        street_life: StreetLife | None = None,
    ) -> None:
        self._tick_s = check_quantity("dt_s", tick_s, 0.001, 0.2, "s")
        self._camera = CameraSettings() if camera is None else camera
        self._vehicle = VehicleSettings() if vehicle is None else vehicle
        self._street = StreetLife() if street_life is None else street_life
        self._planner = RoutePlanner(RouteSettings() if routes is None else routes)
        cars = TrafficSettings() if traffic is None else traffic
        self._traffic: Traffic | RouteTraffic = Traffic(cars, self._vehicle.body)
        if self.has_routes:
            self._traffic = RouteTraffic(cars, self._vehicle.body, self._street.is_closed)
        self._view = View(self._camera)
        self.map_groups = map_groups
        # A world keeps the maps that it has loaded: a map file that is edited must not disturb a training.
        self._maps: dict[str, LiteMap] = {}
        self._route_maps: dict[str, RouteMap] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Return what a pickle or a copy contains: all but the loaded maps, which take up to 20 MB each."""
        return {**self.__dict__, "_maps": {}, "_route_maps": {}}

    @property
    def map_name(self) -> str:
        """Return the name of the current map."""
        return self._map_name

    @property
    def has_routes(self) -> bool:
        """Return whether each episode follows a route from a start to a goal."""
        return self._planner.settings.has_goals

    @property
    def map_file_suffix(self) -> str:
        """Return the suffix of OpenDRIVE files, which this world can read."""
        return OPENDRIVE_SUFFIX

    @property
    def body(self) -> BodySize:
        """Return the outer size of the car."""
        return self._vehicle.body

    @property
    def tick_s(self) -> float:
        """Return the length of a tick in seconds."""
        return self._tick_s

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Return the shape of ``camera_frame()``: ``(height, width)`` in grey, ``(3, height, width)`` in colour."""
        return self._camera.frame_shape

    @property
    def has_varying_scenes(self) -> bool:
        """Return whether ``Start.scene_seed`` changes the scene: cars, lights, pedestrians, weather or noise."""
        camera = self._camera
        return bool(
            self._traffic.settings.n_cars or self._street.is_on or camera.weather != "clear" or camera.noise_std
        )

    @property
    def cars(self) -> list[OrientedBox]:
        """Return the other cars as rectangles on the ground."""
        return list(self._traffic.boxes)

    def reset(self, start: Start) -> VehicleState:
        """Begin an episode: place the car, with straight wheels, and the other cars around it.

        :param start: map, place, motion and seed
        :raises ValueError: if the map does not exist or is too short for the number of cars
        """
        self._enter(start.map_name, start.scene_seed, start.route_seed)
        track = self._track
        # On a closed route, ``start.position`` is the place of the start as a fraction of the route's length. A route
        # to a goal begins at its first point.
        index = 0 if self.has_routes else int(start.position * len(track.points_m)) % len(track.points_m)
        x, y, heading = track.pose_at(index, start.lateral_offset_m)
        self._motion = Motion(x, y, heading + start.heading_error_rad, start.speed_mps, 0.0)
        self._lane = track.locate(x, y, index)
        self._distance_m = 0.0
        self._n_ticks = 0
        self._has_collided = False
        # The lights are prepared first, because the cars react to them from the beginning.
        if self._street.is_on:
            self._street.reset(self._lane, start.scene_seed)
        if isinstance(self._traffic, RouteTraffic):
            self._traffic.reset(Pose(*self._motion[:3]), self._lane, start.speed_mps, start.scene_seed)
        elif isinstance(track, Track):
            self._traffic.reset(track, self._lane.nearest, start.scene_seed)
        return self.state

    def step(self, control: Control, n_ticks: int) -> VehicleState:
        """Apply ``control`` during ``n_ticks`` ticks, or until the car collides.

        :param control: the driver's controls
        :param n_ticks: number of ticks
        """
        # Without other cars, traffic lights and pedestrians, there is nothing to test between ticks, so one faster call
        # advances all ticks.
        if not self._traffic.cars and not self._street.is_on:
            self._drive(control, n_ticks)
            return self.state
        n_left = n_ticks
        while n_left and not self._has_collided:
            # The car moves by as many ticks as fit into the interval, at least by one.
            n_next = min(n_left, max(1, int(_TRAFFIC_INTERVAL_S / self._tick_s)))
            before = self._lane
            self._drive(control, n_next)
            if self._traffic.cars:
                self._advance_traffic(n_next)
            if self._street.is_on:
                self._advance_street(n_next, before)
            n_left -= n_next
        return self.state

    def camera_frame(self) -> NDArray[np.uint8]:
        """Return the camera's view: ``uint8`` of ``frame_shape``, a new array."""
        cars = (self._traffic.boxes, self._traffic.paints)
        return self._view.frame(self._motion[:3], cars, self._n_ticks, self._figures())

    def picture(self, height: int, width: int, view: PictureView = "front") -> NDArray[np.uint8]:
        """Return an image of the scene for human viewers.

        :param height: height in pixels
        :param width: width in pixels
        :param view: ``"front"`` through the camera, ``"chase"`` from behind and above the car
        :return: ``(height, width, 3) uint8``, RGB, a new array
        """
        boxes, paints = self._traffic.boxes, self._traffic.paints
        if view == "chase":  # only the chase camera sees the ego vehicle
            boxes = [*boxes, self._box()]
            paints = [*paints, _EGO_PAINT]
        return self._view.picture(
            (height, width), view, self._motion[:3], (boxes, paints), self._n_ticks, self._figures()
        )

    def waypoints_m(self, ahead_m: Sequence[float]) -> list[tuple[float, float]]:
        """Return points (x, y) of the lane's centre, in metres, at the distances ``ahead_m`` ahead of the car."""
        return self._track.waypoints_from(self._lane, ahead_m)

    def get_state(self) -> dict[str, Any]:
        """Return everything that the rest of the episode depends on, as plain Python values."""
        state: dict[str, Any] = {
            "map_name": self._map_name,
            "route_seed": self._route_seed,
            "scene_seed": self._scene_seed,
            "route_length_m": self._track.length_m,
            "tick_s": self._tick_s,
            "motion": list(self._motion),
            "lane": list(self._lane),
            "distance_m": self._distance_m,
            "n_ticks": self._n_ticks,
            "has_collided": self._has_collided,
            "cars": [],
        }
        if isinstance(self._traffic, Traffic):
            state["cars"] = self._traffic.get_state()
        elif self._traffic.settings.n_cars:
            state["traffic"] = self._traffic.get_state()
        if self._street.is_on:
            state["street"] = self._street.get_state()
        return state

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state, in this world or in another world with the same settings.

        :param state: the state that ``get_state`` returned
        :raises ValueError: if the map of the saved state does not exist, or if the settings of routes, traffic, lights,
            pedestrians or the length of a tick differ
        """
        # States of earlier versions have neither ``tick_s`` nor ``route_length_m``.
        if state.get("tick_s", self._tick_s) != self._tick_s:
            raise ValueError(
                f"the state was saved with dt_s={state['tick_s']}, but this env has dt_s={self._tick_s}: make the env "
                "with the settings of the saved env"
            )
        if ("street" in state) != self._street.is_on:
            with_or_without = "with" if "street" in state else "without"
            raise ValueError(
                f"the state was saved {with_or_without} traffic lights or pedestrians, but this env has "
                f"traffic_lights={self._street.has_lights}, n_walkers={self._street.n_walkers}: make the env with the "
                "settings of the saved env"
            )
        n_cars = self._traffic.settings.n_cars
        # On a short map there may be fewer cars than ``n_cars``, so the state of a route's traffic contains ``n_cars``
        # itself.
        n_saved = state["traffic"]["n_cars"] if "traffic" in state else len(state["cars"])
        if n_saved != n_cars:
            raise ValueError(
                f"the state was saved with n_cars={n_saved}, but this env has n_cars={n_cars}: make the env with the "
                "settings of the saved env"
            )
        # States of earlier versions have only the closed route.
        self._enter(state["map_name"], state["scene_seed"], state.get("route_seed"))
        length_m = self._track.length_m
        # Another version of NumPy may round the length differently.
        if not math.isclose(state.get("route_length_m", length_m), length_m, rel_tol=1e-6):
            raise ValueError(
                f"the state was saved on a route of {state['route_length_m']:.1f} m, but the route of this env has "
                f"{length_m:.1f} m: make the env with the settings of the saved env (route, route_length_m, "
                "route_turns), and with the same map file"
            )
        motion, lane = Motion(*state["motion"]), LanePosition(*state["lane"])
        if "route_length_m" not in state:
            self._check_place(motion, lane)
        self._motion, self._lane = motion, lane
        self._distance_m = state["distance_m"]
        self._n_ticks = state["n_ticks"]
        self._has_collided = state["has_collided"]
        if isinstance(self._traffic, RouteTraffic):
            if "traffic" in state:
                motion = self._motion
                self._traffic.set_state(state["traffic"], self._lane, motion.speed_mps, self._scene_seed)
        elif isinstance(self._track, Track):
            self._traffic.set_state(self._track, state["cars"])
        if self._street.is_on:
            self._street.set_state(state["street"])

    def _check_place(self, motion: Motion, lane: LanePosition) -> None:
        """Raise an error if a state of an earlier version was saved on another route than the current one.

        Such a state has no length of its route. Earlier versions found other routes on some map files.
        """
        last = len(self._track.points_m) - 1
        here = self._track.locate(motion.x_m, motion.y_m, min(lane.nearest, last))
        along_m, aside_m = here.along_m - lane.along_m, here.lateral_offset_m - lane.lateral_offset_m
        if lane.nearest > last or max(abs(along_m), abs(aside_m)) > _SAME_PLACE_M:
            raise ValueError(
                f"the state was saved {lane.along_m:.1f} m along its route and {lane.lateral_offset_m:.1f} m left of "
                f"it, but on the route of this env the same place is {here.along_m:.1f} m along and "
                f"{here.lateral_offset_m:.1f} m left: the state is of another map file or of other settings, or of an "
                "earlier version, which found another route; use that version, or begin a new episode"
            )
        if self.has_routes and self._map_name.endswith(OPENDRIVE_SUFFIX):
            _LOG.warning(
                "%s: the state is of an earlier version, which may have planned the rest of its route differently",
                self._map_name,
            )

    def close(self) -> None:
        """Do nothing: the maps are shared by all worlds of the process and stay loaded."""

    @property
    def state(self) -> VehicleState:
        """Return the current state of the car."""
        motion = self._motion
        state = self._track.state_of(
            motion[:3], motion.speed_mps, self._lane, distance_m=self._distance_m, has_collided=self._has_collided
        )
        # On the closed route the state of the vehicle contains no data about other cars.
        if not self._street.is_on and not (self._traffic.cars and self.has_routes):
            return state
        collided_with: CollidedWith = ""
        if self._has_collided:
            collided_with = "walker" if self._street.has_hit_walker else "vehicle"
        state = state._replace(collided_with=collided_with)
        if self._street.is_on:
            state = state._replace(
                n_red_lights=self._street.n_red_lights if self._street.has_lights else None,
                stop_ahead_m=self._street.stop_ahead_m(self._lane),
            )
        if isinstance(self._traffic, RouteTraffic):
            vehicle_ahead_m, vehicle_ahead_mps, junction_m = self._traffic.outlook
            state = state._replace(
                stop_ahead_m=min(state.stop_ahead_m, junction_m),
                vehicle_ahead_m=vehicle_ahead_m,
                vehicle_ahead_mps=vehicle_ahead_mps,
            )
        return state

    def _enter(self, map_name: str, scene_seed: int, route_seed: int | None) -> None:
        """Load a map, plan a route on it, and prepare traffic, lights, pedestrians and camera for an episode."""
        if self.has_routes != (route_seed is not None):
            raise ValueError(
                f"route_seed={route_seed!r} does not fit this env: an env with routes to a goal needs a number, an env "
                "with the closed route needs None; make the env with the settings of the saved env"
            )
        self._map_name, self._scene_seed, self._route_seed = map_name, scene_seed, route_seed
        if route_seed is None:
            closed = self._map(map_name)
            self._track: Track | RoutePath = closed.track
            self._view.reset(closed, scene_seed)
            if self._street.is_on:
                if closed.network is None:
                    graph = read_graph(closed.text, map_name)
                else:
                    graph = self._route_map(map_name).graph
                self._street.enter(graph, self._track, is_map_file=closed.network is None)
            return
        scene = self._route_map(map_name)
        path = self._planner.path(scene.graph, map_name, route_seed)
        self._track = path
        self._view.reset(scene, scene_seed)
        if isinstance(self._traffic, RouteTraffic):
            self._traffic.enter(scene.graph, path)
        if self._street.is_on:
            self._street.enter(scene.graph, self._track, is_map_file=map_name.endswith(OPENDRIVE_SUFFIX))

    def _map(self, name: str) -> LiteMap:
        """Return the map that this world uses under a name."""
        if name not in self._maps:
            self._maps[name] = load_map(name)
        return self._maps[name]

    def _route_map(self, name: str) -> RouteMap:
        """Return the map with its lane graph that this world uses under a name."""
        if name not in self._route_maps:
            self._route_maps[name] = load_route_map(name)
        return self._route_maps[name]

    def _drive(self, control: Control, n_ticks: int) -> None:
        """Advance the car and its position on the lane."""
        for _ in range(n_ticks):
            self._motion = advance(self._motion, control, self._tick_s, self._vehicle)
        self._n_ticks += n_ticks
        lane = self._track.locate(self._motion.x_m, self._motion.y_m, self._lane.nearest)
        self._distance_m += self._track.advance_m(self._lane, lane)
        self._lane = lane

    def _box(self) -> OrientedBox:
        """Return the rectangle that the ego vehicle covers."""
        body = self._vehicle.body
        return OrientedBox(*self._motion[:3], body.length_m, body.width_m)

    def _advance_traffic(self, n_ticks: int) -> None:
        """Advance the other cars, and test for a collision with the ego vehicle."""
        motion, lane = self._motion, self._lane
        if isinstance(self._traffic, RouteTraffic):
            walkers = self._street.walkers_on_road() if self._street.is_on else ()
            self._traffic.advance(n_ticks * self._tick_s, Pose(*motion[:3]), lane, motion.speed_mps, walkers)
            self._has_collided = any_overlap(self._box(), self._traffic.boxes)
            return
        # The other cars react to the ego vehicle's speed along the lane, because the vehicle may drive at an angle to
        # the lane.
        speed_along_mps = motion.speed_mps * math.cos(motion.yaw_rad - lane.heading_rad)
        egos = [Ego(lane.nearest, lane.lateral_offset_m, speed_along_mps)]
        # The other cars treat red and yellow lights, and pedestrians on the road, as vehicles at standstill.
        egos += [Ego(index, lateral_m, 0.0) for index, lateral_m in self._street.obstacles()]
        self._traffic.advance(n_ticks * self._tick_s, *egos)
        self._has_collided = any_overlap(self._box(), self._traffic.boxes)

    def _advance_street(self, n_ticks: int, before: LanePosition) -> None:
        """Advance lights and pedestrians, count red lights that the car runs, and test whether it hits a pedestrian."""
        self._street.advance(n_ticks * self._tick_s, before, self._lane, self._box(), self._motion.speed_mps)
        self._has_collided = self._has_collided or self._street.has_hit_walker

    def _figures(self) -> Figures:
        """Return the traffic lights and pedestrians to draw."""
        if not self._street.is_on:
            return NO_FIGURES
        posts = [Post(*light) for light in self._street.posted_lights()]
        people = [Person(x_m, y_m, number) for number, (x_m, y_m) in enumerate(self._street.walker_places())]
        return Figures(posts, people, self._street.stop_bars)
