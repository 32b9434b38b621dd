"""Implement the driving task's backend in CARLA, through the official client.

The backend never repairs a failure itself: it raises ``SimulatorLostError``, and the environment calls ``lose()`` and
``reset()``.
"""

from __future__ import annotations

import atexit
import math
import weakref
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.envs.backend import BodySize, CollidedWith, Control, PictureView, Start, VehicleState
from sb3_visual_td3.envs.carla.connection import Connection, client_library, lost_on_error
from sb3_visual_td3.envs.carla.ego import Ego, Reading
from sb3_visual_td3.envs.carla.server import Address, Server
from sb3_visual_td3.envs.carla.settings import CameraMount, ServerSettings, VehicleChoice
from sb3_visual_td3.envs.carla.spawning import ROLE_NAME, OtherCars, SpawnPolicy, places_on, starts_on
from sb3_visual_td3.envs.carla.walkers import Walkers
from sb3_visual_td3.envs.road.carla_coordinates import WHEELBASE_PER_LENGTH, from_carla, to_frame
from sb3_visual_td3.envs.road.collision import OrientedBox, any_overlap
from sb3_visual_td3.envs.road.graph_reading import read_graph
from sb3_visual_td3.envs.road.lane_graph import LaneGraph, LanePlace
from sb3_visual_td3.envs.road.opendrive_reading import read_route
from sb3_visual_td3.envs.road.route_path import RoutePath
from sb3_visual_td3.envs.road.route_settings import RoutePlanner, RouteSettings
from sb3_visual_td3.envs.road.route_traffic import RouteTraffic
from sb3_visual_td3.envs.road.shapes import Pose
from sb3_visual_td3.envs.road.street_life import StreetLife
from sb3_visual_td3.envs.road.track import Track
from sb3_visual_td3.envs.road.traffic import Ego as EgoOnLane
from sb3_visual_td3.envs.road.traffic import Traffic, TrafficSettings

_WEATHER_NAMES = ("clear", "rain", "night", "random")
_SUN = {"sun_azimuth_angle": 250.0}

PARAMETERS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "clear": {"cloudiness": 10.0, "sun_altitude_angle": 60.0, **_SUN},
        "rain": {
            "cloudiness": 90.0,
            "precipitation": 70.0,
            "precipitation_deposits": 60.0,
            "wetness": 80.0,
            "sun_altitude_angle": 45.0,
            "fog_density": 15.0,
            **_SUN,
        },
        "night": {"cloudiness": 20.0, "sun_altitude_angle": -30.0, **_SUN},
    }
)
"""CARLA's parameters for each weather that LiteDriving-v0 has too. Parameters that are not listed are 0."""


def check_weather(weather: object, presets: tuple[str, ...] | None = None) -> str:
    """Check the name of a weather and return it.

    :param weather: ``"clear"``, ``"rain"``, ``"night"``, ``"random"``, or one of CARLA's presets
    :param presets: names of the presets of CARLA's client; None accepts every name with a capital first letter
    :raises ValueError: if there is no such weather
    """
    if isinstance(weather, str):
        is_preset = weather[:1].isupper() if presets is None else weather in presets
        if weather in _WEATHER_NAMES or is_preset:
            return weather
    examples = (presets or ("ClearNoon", "WetSunset"))[:20]
    raise ValueError(
        f"weather={weather!r}: expected one of {list(_WEATHER_NAMES)}, or one of CARLA's presets, such as "
        f"{', '.join(repr(each) for each in examples)}"
    )


def weather_of_scene(weather: str, scene_seed: int) -> str:
    """Return the weather of one episode.

    :param weather: the environment's weather; ``"random"`` chooses clear, rain or night
    :param scene_seed: seed of the choice
    """
    if weather != "random":
        return weather
    return str(np.random.default_rng([scene_seed, 2]).choice(list(PARAMETERS)))


MAP_GROUPS: Mapping[str, tuple[str, ...]] = {"train": ("Town01",), "held_out": ("Town02",)}
"""The training and the test town of Dosovitskiy et al. 2017, "CARLA: An Open Urban Driving Simulator", section 4."""
LOADED_MAP = ""
"""The map name that stands for the map that the server has loaded."""
# The size of a typical car is used until the real car has been spawned and measured.
_DEFAULT_BODY = BodySize(4.4, 1.8, 4.4 * WHEELBASE_PER_LENGTH)
_open: weakref.WeakSet[CarlaBackend] = weakref.WeakSet()
# The other cars are moved at least this often, as in ``LiteDriving-v0``.
_TRAFFIC_STEP_S = 0.1


class Scenery(NamedTuple):
    """Hold the settings of the scene: weather, other cars, starting places, traffic lights and pedestrians."""

    weather: str
    traffic: TrafficSettings
    spawn: SpawnPolicy
    has_lights: bool = False
    """Whether the task counts how often the vehicle runs a red light."""
    n_walkers: int = 0
    """Number of pedestrians who cross the route."""


# Lights whose stop line is farther ahead than this are not read, because each reading takes time.
_LIGHTS_AHEAD_M = 60.0


class CarlaBackend:
    """Implement ``envs.backend.Backend`` on a CARLA server. It connects at the first reset.

    :param server: address of the simulator, or command that starts it
    :param tick_s: length of a tick in seconds
    :param vehicle: the vehicle's blueprint and role
    :param mount: position and image format of the policy's camera
    :param scenery: weather, other cars, starting places, traffic lights and pedestrians
    :param maps: all maps that episodes may use
    :param routes: the routes to drive; the closed route by default
    """

    map_file_suffix = None

    def __init__(
        self,
        server: ServerSettings,
        *,
        tick_s: float,
        vehicle: VehicleChoice,
        mount: CameraMount,
        scenery: Scenery,
        maps: Sequence[str],
        routes: RouteSettings | None = None,
    ) -> None:
        self.server = Server(server)
        self.tick_s = tick_s
        self.map_groups = {"all": tuple(maps)}
        self.frame_shape = mount.frame_shape
        self.has_varying_scenes = bool(scenery.traffic.n_cars or scenery.n_walkers or scenery.weather != "clear")
        self._settings, self._vehicle, self._mount, self._scenery = server, vehicle, mount, scenery
        self._planner = RoutePlanner(RouteSettings() if routes is None else routes)
        self.has_routes = self._planner.settings.has_goals
        self._street = StreetLife(scenery.has_lights, scenery.n_walkers, are_lights_remote=True)
        self._track: Track | RoutePath  # set by the first reset
        self._picture_view: PictureView | None = None
        self._pose: Pose | None = None
        """The pose at which the vehicle was placed; None from the first step on, because the vehicle may have moved."""
        self._connection: Connection | None = None
        self._ego: Ego | None = None
        self._found_settings: Any = None
        self._n_episodes = 0
        self._state: VehicleState | None = None
        _open.add(self)

    @property
    def body(self) -> BodySize:
        """Return the outer size of the vehicle; before the first reset, the size of a typical car."""
        return _DEFAULT_BODY if self._ego is None else self._body

    @property
    def is_connected(self) -> bool:
        """Return whether there is a connection that has not failed."""
        return self._connection is not None

    @property
    def map_name(self) -> str:
        """Return the name of the loaded map; empty before the first reset."""
        return "" if self._connection is None else self._connection.map_name

    @property
    def state(self) -> VehicleState:
        """Return the vehicle's state after the last tick."""
        assert self._state is not None, "reset() first"
        return self._state

    def reset(self, start: Start) -> VehicleState:
        """Start an episode; if necessary, first connect, load the map and spawn the actors.

        :param start: place and conditions of the start
        :raises SimulatorLostError: if the simulator fails; call :meth:`lose` and try again
        :raises SimulatorUnusableError: if the simulator cannot be used as requested
        """
        if self._settings.restart_every and self._n_episodes >= self._settings.restart_every:
            self.lose(restart=True)
        self._prepare(start.map_name)
        self._n_episodes += 1
        connection, _ = self._connected()
        index = 0
        if start.route_seed is not None:
            graph = self._graph(connection)
            path = self._planner.path(graph, connection.map_name, start.route_seed, self._places(graph))
            self._track = path
            if isinstance(self._cars.traffic, RouteTraffic):
                self._cars.traffic.enter(graph, path)
        else:
            index = self._start_index(start.position)
        x, y, heading = self._track.pose_at(index, start.lateral_offset_m)
        pose = Pose(x, y, heading + start.heading_error_rad)
        self._lane = self._track.locate(x, y, index)
        self._distance_m = 0.0
        self._collided_with: CollidedWith = ""
        self._set_weather(weather_of_scene(self._scenery.weather, start.scene_seed))
        if self._street.is_on:
            self._street.enter(self._graph(connection), self._track)
            self._street.reset(self._lane, start.scene_seed)
        if self._scenery.n_walkers:
            self._walkers.reset(connection, self._street)
        if isinstance(self._cars.traffic, RouteTraffic):
            self._cars.traffic.reset(pose, self._lane, start.speed_mps, start.scene_seed)
        elif isinstance(self._track, Track):
            self._cars.traffic.reset(self._track, self._lane.nearest, start.scene_seed)
        self._cars.show(connection)
        reading = self._place_ego(pose, start.speed_mps)
        self._store_images(reading)
        self._pose = pose
        self._read_lights()
        # The vehicle stands still in this frame; the state has the speed with which it will be released.
        self._state = self._describe(reading.pose, start.speed_mps)
        return self._state

    def step(self, control: Control, n_ticks: int) -> VehicleState:
        """Apply a control for some ticks, or until the vehicle hits something.

        :param control: steering, throttle and brake
        :param n_ticks: number of ticks
        :raises SimulatorLostError: if the simulator fails
        """
        connection, ego = self._connected()
        ego.control(control)  # once: CARLA repeats a control until the next one
        self._pose = None
        n_left = n_ticks
        while n_left and not self._collided_with:
            # Without other cars and pedestrians there is nothing to do between the ticks of a step.
            n_next = n_left
            if self._cars.n_cars or self._scenery.n_walkers:
                n_next = min(n_left, max(1, int(_TRAFFIC_STEP_S / self.tick_s)))
            self._move_others(n_next * self.tick_s)
            # The camera renders every tick, but only the image of the last one is read.
            for _ in range(n_next):
                frame = connection.tick_alone()
            reading = ego.read(frame)
            self._follow(reading, n_next * self.tick_s)
            n_left -= n_next
        return self.state

    def camera_frame(self) -> NDArray[np.uint8]:
        """Return the last image of the policy's camera: ``uint8`` of ``frame_shape``, a new array."""
        return to_frame(self._image, self._mount.image_size, grayscale=self._mount.grayscale)

    def picture(self, height: int, width: int, view: PictureView = "front") -> NDArray[np.uint8]:
        """Return an image of the scene for human viewers.

        The first call attaches a second camera to the vehicle, with the view ``view``. Later calls ignore ``view``.

        If the first call comes after a step of the episode, the second camera has no image yet, and the call returns
        the image of the policy's camera. After the next step or reset, calls return the image of the second camera.

        :param height: height in pixels
        :param width: width in pixels
        :param view: ``"front"`` through the windscreen, ``"chase"`` from behind and above
        :return: ``(height, width, 3) uint8``, RGB, a new array
        :raises SimulatorLostError: if the simulator fails
        """
        if self._picture_view is None and self._ego is not None:
            self._picture_view = view
            self._ego.look_from(view)
            # Before the first step, the vehicle is placed again, so that the second camera takes an image of the start.
            # Later, the extra ticks of the warm-up would change the episode.
            if self._pose is not None:
                self._ego.warm_up()
                self._store_images(self._place_ego(self._pose, self.state.speed_mps))
        image = self._image if self._picture is None else self._picture
        picture = cv2.cvtColor(image, cv2.COLOR_BGRA2RGB)
        if picture.shape[:2] != (height, width):
            picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)
        return np.asarray(picture, dtype=np.uint8)

    def waypoints_m(self, ahead_m: Sequence[float]) -> list[tuple[float, float]]:
        """Return points of the lane's centre ahead of the vehicle.

        :param ahead_m: distances along the lane
        :return: x and y of each point
        """
        return self._track.waypoints_from(self._lane, ahead_m)

    def lose(self, *, restart: bool) -> None:
        """Drop the connection to a simulator that failed or is to be restarted; never raises.

        :param restart: whether to end a simulator that this backend started, so that the next reset starts a new one
        """
        if self._ego is not None:
            self._ego.abandon()
        self._ego = self._connection = None
        self._n_episodes = 0
        if restart:
            self.server.restart()

    def withdraw(self) -> None:
        """Remove this backend's actors from the server and disconnect; the server keeps running. Never raises."""
        if self._ego is not None:
            self._ego.close()
        if self._connection is not None:
            self._connection.leave((self._vehicle.role_name, ROLE_NAME), as_found=False)
        self._ego = self._connection = None

    def share(self, address: Address) -> None:
        """Use the server of another environment. The two environments take turns.

        :param address: the server's address
        """
        if self.server.address != address:
            self.close()
            self.server.share(address)

    def close(self) -> None:
        """Disconnect from the server, and end the simulator if this backend started it.

        It also removes the actors of this backend and restores the server's settings.
        """
        connection, ego = self._connection, self._ego
        self._ego = self._connection = None
        # In a forked child the client's calls would only time out, and the actors belong to the parent.
        if connection is not None and connection.is_of_this_process:
            if ego is not None:
                ego.close()
            connection.leave((self._vehicle.role_name, ROLE_NAME), as_found=not self.server.is_shared)
        self.server.close()

    def _place_ego(self, pose: Pose, speed_mps: float) -> Reading:
        """Place the vehicle at rest for one tick, and give it its initial speed for the next tick."""
        _, ego = self._connected()
        reading = ego.read(ego.place(pose))
        ego.collided_with()  # drop events from its former position
        ego.release(pose.heading_rad, speed_mps)
        return reading

    def _connected(self) -> tuple[Connection, Ego]:
        assert self._connection is not None
        assert self._ego is not None
        return self._connection, self._ego

    def _prepare(self, map_name: str) -> None:
        """Connect, load the map and spawn the actors; skip what has already been done."""
        if self._connection is not None and not self._connection.is_of_this_process:
            self._ego = self._connection = None  # a forked child cannot use its parent's client
        if self._connection is None:
            self._connection = Connection(
                self.server.ensure(),
                tick_s=self.tick_s,
                timeout_s=self._settings.timeout_s,
                load_timeout_s=self._settings.start_timeout_s,
                found_settings=self._found_settings,
            )
            self._found_settings = self._connection.found_settings
            self._ego = None
        if map_name not in {LOADED_MAP, self._connection.map_name}:
            if self._ego is not None:
                self._ego.close()
                self._ego = None
            self._connection.load(map_name)
        if self._ego is None:
            self._populate(self._connection)

    def _populate(self, connection: Connection) -> None:
        connection.remove_actors_of((self._vehicle.role_name, ROLE_NAME))
        with lost_on_error("reading the map"):
            self._opendrive = connection.map.to_opendrive()
            spawn_points = connection.map.get_spawn_points()
        points = [from_carla(each.location.x, each.location.y, each.rotation.yaw) for each in spawn_points]
        self._spawn_points = points
        # With routes to a goal, the map need not have a closed route.
        if not self.has_routes:
            closed = read_route(self._opendrive, f"map {connection.map_name}")
            self._track = closed
            self._starts = starts_on(closed, points, self._scenery.spawn)
        self._ego = Ego(connection, self._vehicle, self._mount, self._picture_view, self._settings.timeout_s)
        self._body = self._ego.body
        traffic: Traffic | RouteTraffic = Traffic(self._scenery.traffic, self._body)
        if self.has_routes:
            traffic = RouteTraffic(self._scenery.traffic, self._body, self._is_closed)
        self._cars = OtherCars(traffic)
        self._walkers = Walkers()
        self._cars.spawn(connection)
        self._weather_set = ""

    def _graph(self, connection: Connection) -> LaneGraph:
        """Return the lane graph of the loaded map."""
        return read_graph(self._opendrive, f"map {connection.map_name}")

    def _places(self, graph: LaneGraph) -> list[LanePlace] | None:
        """Return the spawn points at which random routes may start and end; None means no restriction."""
        return places_on(graph, self._spawn_points) if self._scenery.spawn == "points" else None

    def _start_index(self, position: float) -> int:
        """Return the index of the track's point at which the episode starts, for a position in [0, 1)."""
        if self._starts is None:
            return int(position * len(self._track.points_m)) % len(self._track.points_m)
        return self._starts[int(position * len(self._starts)) % len(self._starts)]

    def _set_weather(self, weather: str) -> None:
        if weather == self._weather_set:
            return
        carla = client_library()
        connection, _ = self._connected()
        if weather in PARAMETERS:
            parameters = carla.WeatherParameters(**PARAMETERS[weather])
        else:
            presets = tuple(name for name in dir(carla.WeatherParameters) if name[:1].isupper())
            parameters = getattr(carla.WeatherParameters, check_weather(weather, presets))
        with lost_on_error("setting the weather"):
            connection.world.set_weather(parameters)
        self._weather_set = weather

    def _move_others(self, dt_s: float) -> None:
        """Set the positions of the other cars and the motion of the pedestrians for the next ``dt_s`` seconds."""
        connection, _ = self._connected()
        if self._scenery.n_walkers:
            self._walkers.walk(connection, self._street)
        if not self._cars.n_cars:
            return
        state, lane, traffic = self.state, self._lane, self._cars.traffic
        if isinstance(traffic, RouteTraffic):
            walkers = self._street.walkers_on_road()
            traffic.advance(dt_s, Pose(state.x_m, state.y_m, state.yaw_rad), lane, state.speed_mps, walkers)
        else:
            along_mps = state.speed_mps * math.cos(state.heading_error_rad)
            egos = [EgoOnLane(lane.nearest, lane.lateral_offset_m, along_mps)]
            # The other cars treat pedestrians on the road as vehicles at standstill.
            egos += [EgoOnLane(index, lateral_m, 0.0) for index, lateral_m in self._street.walker_obstacles()]
            traffic.advance(dt_s, *egos)
        self._cars.show(connection)

    def _is_closed(self, segment: int, way: Sequence[int]) -> bool:
        """Return whether other cars must stop at the end of a lane because the traffic light there is red or yellow.

        :param segment: the lane
        :param way: the lanes that the other car takes through the junction after the lane
        """
        _, ego = self._connected()
        for light, name in self._street.lights_at(segment, way):
            self._street.show(light, ego.light_colour(name))
        return self._street.is_closed(segment, way)

    def _follow(self, reading: Reading, dt_s: float) -> None:
        """Update the position of the vehicle, its collisions and the number of red lights that it has run."""
        lane = self._track.locate(reading.pose.x_m, reading.pose.y_m, self._lane.nearest)
        self._distance_m += self._track.advance_m(self._lane, lane)
        box = OrientedBox(*reading.pose, self._body.length_m, self._body.width_m)
        if self._street.is_on:
            # The colours from before this step decide whether the vehicle ran a red light.
            self._street.advance(dt_s, self._lane, lane, box, reading.speed_mps)
        self._lane = lane
        self._read_lights()
        self._collided_with = self._connected()[1].collided_with()
        if not self._collided_with and self._street.has_hit_walker:
            self._collided_with = "walker"
        # The other cars are moved without physics, so a slight touch may give no collision event.
        if not self._collided_with and any_overlap(box, self._cars.traffic.boxes):
            self._collided_with = "vehicle"
        self._store_images(reading)
        self._state = self._describe(reading.pose, reading.speed_mps)

    def _store_images(self, reading: Reading) -> None:
        self._image, self._picture = reading.image, reading.picture

    def _describe(self, pose: Pose, speed_mps: float) -> VehicleState:
        has_collided = bool(self._collided_with)
        state = self._track.state_of(
            pose, speed_mps, self._lane, distance_m=self._distance_m, has_collided=has_collided
        )
        if has_collided:
            state = state._replace(collided_with=self._collided_with)
        if self._street.is_on:
            state = state._replace(stop_ahead_m=self._street.stop_ahead_m(self._lane))
        if self._street.has_lights:
            state = state._replace(n_red_lights=self._street.n_red_lights)
        if isinstance(self._cars.traffic, RouteTraffic):
            vehicle_ahead_m, vehicle_ahead_mps, junction_m = self._cars.traffic.outlook
            state = state._replace(
                stop_ahead_m=min(state.stop_ahead_m, junction_m),
                vehicle_ahead_m=vehicle_ahead_m,
                vehicle_ahead_mps=vehicle_ahead_mps,
            )
        return state

    def _read_lights(self) -> None:
        """Read from the server the colours of the traffic lights that the vehicle reaches next."""
        if self._street.is_on:
            _, ego = self._connected()
            for light, name in self._street.lights_ahead(self._lane, _LIGHTS_AHEAD_M).items():
                self._street.show(light, ego.light_colour(name))


@atexit.register
def _close_all() -> None:
    """Close all open backends at exit, because CARLA's client may abort the process if a sensor still listens."""
    for backend in tuple(_open):
        backend.close()
