"""Execute the calls of CARLA 0.9.16's protocol, which clients make by name.

:class:`WorldCalls` and :class:`ActorCalls` hold one method ``on_NAME`` for each call. Arguments arrive unchecked from
the network, and :class:`Calls` turns every exception into the failure of that one call.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import Any

from sb3_visual_td3.common.errors import show_traceback_if_debugging
from sb3_visual_td3.envs.carla_emulator.actors import Vehicle, Walker
from sb3_visual_td3.envs.carla_emulator.catalogue import blueprints_message
from sb3_visual_td3.envs.carla_emulator.navigation import FOLDER as NAVIGATION_FOLDER
from sb3_visual_td3.envs.carla_emulator.protocol import (
    VOID,
    AckermannControl,
    CallError,
    Transform,
    VehicleControl,
    checked_number,
    failure,
    shortened,
    stream_token,
    value,
    vector_from_message,
    void,
    void_failure,
)
from sb3_visual_td3.envs.carla_emulator.roadside import LightCalls, RoadSign
from sb3_visual_td3.envs.carla_emulator.simulation import UNUSED_SETTINGS, WORLD_STREAM, Simulation
from sb3_visual_td3.envs.carla_emulator.streaming import StreamServer

_MAX_SPEED_MPS = 1e4
_MIN_GEAR, _MAX_GEAR = -1, 10
# CARLA's defaults of carla.AckermannControllerSettings: gains of two PID controllers.
_ACKERMANN_GAINS = (0.15, 0.0, 0.25, 0.01, 0.0, 0.01)
_ANY_TAG = 255  # carla.CityObjectLabel.Any
_MAX_LIGHT_STATE = 2**32 - 1  # rpc::VehicleLightState, a u32 of flags


class ActorCalls:
    """Execute the calls of CARLA's protocol that concern actors.

    :param simulation: the emulated world
    :param tick_when_due: waits for the next tick of asynchronous mode and simulates it; None simulates it at once
    """

    def __init__(self, simulation: Simulation, tick_when_due: Callable[[], object] | None = None) -> None:
        self._sim = simulation
        self._tick_when_due = simulation.tick if tick_when_due is None else tick_when_due

    def on_get_actors_by_id(self, actor_ids: list[int]) -> list[Any]:
        """Return the requested actors; ids of actors that do not exist are left out."""
        return [self._sim.actor_message(self._sim.actors[each]) for each in actor_ids if each in self._sim.actors]

    def on_get_spectator(self) -> list[Any]:
        """Return the spectator."""
        return self._sim.actor_message(self._sim.spectator)

    def on_spawn_actor(self, description: list[Any], transform: list[Any]) -> list[Any]:
        """Create an actor and return it."""
        actor = self._sim.spawn(description, Transform.from_message(transform))
        if isinstance(actor, Walker) and not self._sim.is_synchronous:
            # CARLA answers after the frame in which the actor appears. Without this frame the client would plan a
            # walker's route from the origin of the map. If no pavement is near the origin, the client recurses until
            # its process ends (SIGSEGV).
            self._tick_when_due()
        return self._sim.actor_message(actor)

    def on_spawn_actor_with_parent(
        self, description: list[Any], transform: list[Any], parent_id: int, *_: Any
    ) -> list[Any]:
        """Create an actor that is rigidly attached to another actor, and return the new actor."""
        return self._sim.actor_message(self._sim.spawn(description, Transform.from_message(transform), parent_id))

    def on_destroy_actor(self, actor_id: int) -> bool:
        """Remove an actor and return whether it existed."""
        return self._sim.destroy(actor_id)

    def on_get_actor_bounding_box(self, actor_id: int) -> list[Any]:
        """Return an actor's bounding box."""
        return self._sim.actor(actor_id).bounding_box()

    def on_get_all_level_BBs(self, tag: int) -> list[Any]:  # noqa: N802  the name of the call
        """Return the bounding boxes of all objects with the semantic tag ``tag``; 255 stands for any tag."""
        boxes = []
        for actor in self._sim.actors.values():
            if actor.semantic_tags and tag in (*actor.semantic_tags, _ANY_TAG):
                boxes.append(actor.world_box())
        return boxes

    def on_set_actor_transform(self, actor_id: int, transform: list[Any]) -> Any:
        """Teleport an actor; an attached actor is moved relative to its parent."""
        self._sim.actor(actor_id).set_transform(Transform.from_message(transform))
        return VOID

    def on_set_actor_location(self, actor_id: int, location: list[float]) -> Any:
        """Teleport an actor and keep its rotation."""
        actor = self._sim.actor(actor_id)
        pitch, yaw, roll = actor.transform.to_message()[1]
        if actor.parent is None:
            yaw = actor.world_transform.yaw  # a vehicle has turned since it was put somewhere
        return self.on_set_actor_transform(actor_id, [location, [pitch, yaw, roll]])

    def on_set_actor_target_velocity(self, actor_id: int, velocity: list[float]) -> Any:
        """Set an actor's velocity in world coordinates."""
        self._sim.actor(actor_id).set_velocity(vector_from_message(velocity, _MAX_SPEED_MPS))
        return VOID

    def on_set_actor_simulate_physics(self, actor_id: int, enabled: bool) -> Any:
        """Enable or disable a vehicle's physics; other actors have none."""
        actor = self._sim.actor(actor_id)
        if isinstance(actor, Vehicle) and not actor.is_server_traffic:
            actor.set_physics(enabled)
        return VOID

    def on_enable_actor_constant_velocity(self, actor_id: int, velocity: list[float]) -> Any:
        """Make a vehicle keep the forward component of a velocity, regardless of its pedals.

        :param actor_id: id of the vehicle
        :param velocity: x, y and z in the vehicle's own coordinates, in m/s; only x, which points forward, counts
        """
        self._sim.vehicle(actor_id).constant_mps = checked_number(velocity[0], _MAX_SPEED_MPS)
        return VOID

    def on_disable_actor_constant_velocity(self, actor_id: int) -> Any:
        """End the constant velocity of a vehicle, so that its pedals control it again."""
        self._sim.vehicle(actor_id).constant_mps = None
        return VOID

    def on_apply_control_to_vehicle(self, actor_id: int, control: list[Any]) -> Any:
        """Set a vehicle's control.

        Values are clipped to their range, and NaN and infinity count as 0.
        """
        throttle, steer, brake, hand_brake, reverse, manual, gear = control[:7]
        vehicle = self._sim.vehicle(actor_id)
        vehicle.ackermann = None
        vehicle.control = VehicleControl(
            _clipped(throttle, 0.0, 1.0),
            _clipped(steer, -1.0, 1.0),
            _clipped(brake, 0.0, 1.0),
            bool(hand_brake),
            bool(reverse),
            bool(manual),
            min(_MAX_GEAR, max(_MIN_GEAR, int(gear))),
        )
        return VOID

    def on_apply_ackermann_control_to_vehicle(self, actor_id: int, control: list[Any]) -> Any:
        """Make a vehicle keep a steering angle and a speed, until it gets another control."""
        numbers = [checked_number(part, _MAX_SPEED_MPS) for part in control[:5]]
        steer_rad, steer_rad_s, speed_mps, acceleration_mps2, jerk_mps3 = numbers
        self._sim.vehicle(actor_id).ackermann = AckermannControl(
            steer_rad, steer_rad_s, speed_mps, abs(acceleration_mps2), jerk_mps3
        )
        return VOID

    def on_get_ackermann_controller_settings(self, actor_id: int) -> list[float]:
        """Return CARLA's default gains for Ackermann control; the emulator does not use them."""
        self._sim.vehicle(actor_id)
        return list(_ACKERMANN_GAINS)

    def on_apply_control_to_walker(self, actor_id: int, control: list[Any]) -> Any:
        """Make a walker walk in a direction at a speed. The command to jump is ignored."""
        direction, speed_mps = control[:2]
        walker = self._sim.walker(actor_id)
        walker.walk(vector_from_message(direction, _MAX_SPEED_MPS), checked_number(speed_mps, _MAX_SPEED_MPS))
        return VOID

    def on_set_walker_state(self, actor_id: int, transform: list[Any], speed_mps: float) -> Any:
        """Put a walker at the place that the client's navigation has computed for this tick."""
        speed = checked_number(speed_mps, _MAX_SPEED_MPS)
        self._sim.walker(actor_id).place(Transform.from_message(transform), speed)
        return VOID

    def on_set_vehicle_light_state(self, actor_id: int, state: list[int] | int) -> Any:
        """Store which of a vehicle's lights are on; cameras do not show these lights."""
        lights = state if isinstance(state, int) else state[0]
        if not isinstance(lights, int) or not 0 <= lights <= _MAX_LIGHT_STATE:
            raise CallError(f"{shortened(state)}: expected a vehicle light state, 0 to {_MAX_LIGHT_STATE}")
        self._sim.vehicle(actor_id).lights = lights
        return VOID

    def on_get_vehicle_light_state(self, actor_id: int) -> list[int]:
        """Return which of a vehicle's lights are on."""
        return [self._sim.vehicle(actor_id).lights]

    def on_get_vehicle_light_states(self) -> list[Any]:
        """Return for each vehicle which of its lights are on."""
        return [[vehicle.id, vehicle.lights] for vehicle in self._sim.vehicles]

    def on_get_wheel_steer_angle(self, actor_id: int, wheel: int) -> float:
        """Return a wheel's steering angle in degrees, positive to the right."""
        vehicle = self._sim.vehicle(actor_id)
        is_front_wheel = wheel < 2  # carla.VehicleWheelLocation: front left, front right, back left, back right
        return -math.degrees(vehicle.motion.wheel_rad) if is_front_wheel else 0.0

    def on_apply_physics_control(self, actor_id: int, physics: list[Any]) -> Any:
        """Store a vehicle's physics control, so that it can be read back; it has no effect on the driving."""
        if not isinstance(physics, list):
            raise CallError(f"{shortened(physics)}: expected the fields of a carla.VehiclePhysicsControl")
        self._sim.vehicle(actor_id).physics = physics
        return VOID

    def on_get_physics_control(self, actor_id: int) -> list[Any]:
        """Return the physics control that was set, or else a physics control that describes the vehicle."""
        vehicle = self._sim.vehicle(actor_id)
        return vehicle.physics or _physics_control_of(vehicle)


def _clipped(number: float, low: float, high: float) -> float:
    if not math.isfinite(number):
        return 0.0
    return min(high, max(low, number))


_WHEEL_RADIUS_CM = 35.0


def _physics_control_of(vehicle: Vehicle) -> list[Any]:
    """Return the msgpack form of a carla.VehiclePhysicsControl.

    Only size, mass and steering are the vehicle's own; the rest are CARLA's defaults.
    """
    settings = vehicle.handling.settings
    max_steer_deg = math.degrees(settings.max_wheel_rad)
    # (forward, right) from the centre, and the largest steering angle, in CARLA's order of the wheels.
    corners = ((1, -1, max_steer_deg), (1, 1, max_steer_deg), (-1, -1, 0.0), (-1, 1, 0.0))
    yaw = vehicle.motion.yaw_rad
    wheels = []
    for ahead, aside, steer_deg in corners:
        along, left = 0.5 * ahead * settings.wheelbase_m, -0.5 * aside * settings.width_m
        x = vehicle.motion.x_m + along * math.cos(yaw) - left * math.sin(yaw)
        y = -(vehicle.motion.y_m + along * math.sin(yaw) + left * math.cos(yaw))
        # CARLA gives the wheels' positions in the world and their radius in centimetres, which is Unreal's unit.
        position_cm = [100.0 * x, 100.0 * y, _WHEEL_RADIUS_CM]
        # Friction, damping, steering angle, radius, brake and hand brake torque, three stiffnesses, position.
        wheels.append([3.5, 0.25, steer_deg, _WHEEL_RADIUS_CM, 1500.0, 3000.0, 3.0, 17.0, 1000.0, position_cm])
    torque_curve, steering_curve = [[0.0, 400.0], [5000.0, 400.0]], [[0.0, 1.0], [100.0, 1.0]]
    # Torque curve, max rpm, moment of inertia, three damping rates, automatic gearbox, gear switch time, clutch
    # strength, final ratio, gears.
    engine = [torque_curve, 5000.0, 1.0, 0.15, 2.0, 0.35, True, 0.5, 10.0, 4.0, []]
    # Mass, drag, centre of mass, steering curve, wheels, sweep wheel collision.
    return [*engine, vehicle.handling.mass_kg, 0.3, [0.0, 0.0, 0.0], steering_curve, wheels, False]


VERSION = "0.9.16"
_MAX_SETTING = 1e9
_MIN_STEP_S, _MAX_STEP_S = 1e-6, 10.0
_N_WEATHER_PARAMETERS = 14
_MAX_WEATHER_PARAMETER = 1e4
_MAX_STREAM_ID = 2**32 - 1
# carla.CityObjectLabel of what a ray can hit.
_ROAD_LABEL, _TERRAIN_LABEL = 1, 10


class WorldCalls:
    """Execute the calls of CARLA's protocol that concern the world and the server itself.

    :param simulation: the emulated world
    :param streams: the stream server
    :param stream_port: port of the stream server
    """

    def __init__(self, simulation: Simulation, streams: StreamServer, stream_port: int) -> None:
        self._sim, self._streams, self._stream_port = simulation, streams, stream_port

    def on_version(self) -> str:
        """Return the server's version. A client of a different version only prints a warning."""
        return self._sim.active_faults.version or VERSION

    def on_get_episode_info(self) -> list[Any]:
        """Return the episode's number and the token of the world's stream."""
        return [self._sim.episode_id, [stream_token(WORLD_STREAM, self._stream_port)]]

    def on_get_sensor_token(self, stream_id: int) -> list[Any]:
        """Return the token of a stream. The client requests it before each subscription."""
        if not isinstance(stream_id, int) or not 0 <= stream_id <= _MAX_STREAM_ID:
            raise CallError(
                f"{shortened(stream_id)}: expected the number of a stream, an integer from 0 to {_MAX_STREAM_ID}"
            )
        return [stream_token(stream_id, self._stream_port)]

    def on_get_episode_settings(self) -> list[Any]:
        """Return the carla.WorldSettings: synchronous mode, rendering, time step."""
        sim = self._sim
        optional_step = [False] if sim.step_s is None else [True, sim.step_s]
        return [sim.is_synchronous, sim.has_cameras_off, optional_step, *sim.unused_settings]

    def on_set_episode_settings(self, settings: list[Any]) -> int:
        """Set synchronous mode, rendering and time step, and return the frame.

        Without rendering, cameras send no images. The other settings are stored, so that a client can read them back.
        """
        is_synchronous, no_rendering, optional_step, *others = settings
        step_s = 0.0
        if optional_step[0]:
            step_s = checked_number(optional_step[1], _MAX_STEP_S, "a step in seconds")
        unused_settings = list(UNUSED_SETTINGS)
        for index, (default, given) in enumerate(zip(UNUSED_SETTINGS, others, strict=False)):
            # Scripts also set infinite distances.
            if not isinstance(default, bool) and not (isinstance(default, float) and given in (math.inf, -math.inf)):
                checked_number(given, math.inf if isinstance(default, float) else _MAX_SETTING, "a setting")
            # The client aborts if a setting arrives with another type.
            unused_settings[index] = type(default)(given)
        self._sim.unused_settings = tuple(unused_settings)
        self._sim.is_synchronous = bool(is_synchronous)
        self._sim.has_cameras_off = bool(no_rendering)
        # CARLA takes 0 as "variable time step" too.
        self._sim.step_s = step_s if step_s >= _MIN_STEP_S else None
        return self._sim.frame

    def on_tick_cue(self) -> int:
        """Simulate one tick and return its frame; in asynchronous mode, return the frame of the next tick.

        The client waits for this frame. In asynchronous mode, the clock decides when it comes.
        """
        if not self._sim.is_synchronous:
            return self._sim.frame + 1
        return self._sim.tick()

    def on_get_map_info(self) -> list[Any]:
        """Return the map's name and its spawn points."""
        points = [point.to_message() for point in self._sim.map.spawn_points]
        return [f"Carla/Maps/{self._sim.map.name}", points]

    def on_get_map_data(self) -> str:
        """Return the map as OpenDRIVE."""
        return self._sim.map.opendrive

    def on_get_available_maps(self) -> list[str]:
        """Return the names of all maps."""
        return self._sim.maps.paths

    def on_load_new_episode(self, name: str, reset_settings: bool = True, *_: Any) -> Any:
        """Load a map and start a new episode on it; an empty name reloads the current map."""
        map_name = self._sim.map.name
        if name:
            map_name = self._sim.maps.find(name)
        self._sim.load(map_name, reset_settings=reset_settings)
        return VOID

    def on_copy_opendrive_to_file(self, text: str, *_: Any) -> Any:
        """Make an OpenDRIVE document available as the map ``OpenDriveMap``, which the client then loads."""
        if not isinstance(text, str):
            raise CallError(f"{shortened(text)}: expected an OpenDRIVE document")
        self._sim.maps.generate(text)
        return VOID

    def on_get_actor_definitions(self) -> list[Any]:
        """Return all blueprints."""
        return blueprints_message()

    def on_get_weather_parameters(self) -> list[float]:
        """Return the weather."""
        return list(self._sim.weather)

    def on_set_weather_parameters(self, weather: list[float]) -> Any:
        """Set the weather from its 14 parameters."""
        if not isinstance(weather, list) or len(weather) != _N_WEATHER_PARAMETERS:
            raise CallError(f"weather: expected {_N_WEATHER_PARAMETERS} numbers, got {shortened(weather)}")
        parameters = [checked_number(part, _MAX_WEATHER_PARAMETER, "a weather parameter") for part in weather]
        self._sim.weather = parameters
        return VOID

    def on_project_point(self, location: list[float], direction: list[float], search_m: float) -> list[Any]:
        """Return the point at which a ray meets the ground, as an optional ``carla.LabelledPoint``.

        :param location: start of the ray
        :param direction: of any length
        :param search_m: length of the ray in metres
        """
        length = math.hypot(*direction)
        down = 0.0  # metres down per metre along the ray
        if length:
            down = -direction[2] / length
        if down <= 0.0 or not 0.0 <= location[2] / down <= search_m:
            return [False, [[0.0, 0.0, 0.0], 0]]
        point = [a + b / length * location[2] / down for a, b in zip(location, direction, strict=True)]
        return [True, self._labelled_point(point)]

    def on_cast_ray(self, start: list[float], end: list[float]) -> list[Any]:
        """Return the points (``carla.LabelledPoint``) at which a ray meets the ground: one or none."""
        if not min(start[2], end[2]) <= 0.0 < max(start[2], end[2]):
            return []
        fraction = start[2] / (start[2] - end[2])
        return [self._labelled_point([a + (b - a) * fraction for a, b in zip(start, end, strict=True)])]

    def on_get_required_files(self, folder: str = "", *_: Any) -> list[str]:
        """Return the names of a folder's required files: only the navigation folder has one, the navigation file."""
        return [self._sim.navigation_name] if folder == NAVIGATION_FOLDER else []

    def on_request_file(self, name: str) -> bytes:
        """Return the content of the navigation file; other files do not exist."""
        if name != self._sim.navigation_name:
            raise CallError(f"there is no file {shortened(name)} on this server")
        return self._sim.navigation_file

    def on_get_imui_gravity(self) -> float:
        """Return the gravity that inertial sensors measure, in m/s^2."""
        return self._sim.gravity_mps2

    def on_set_imui_gravity(self, gravity_mps2: float) -> Any:
        """Set the gravity that inertial sensors measure. It has no other effect."""
        self._sim.gravity_mps2 = checked_number(gravity_mps2, _MAX_SPEED_MPS, "a gravity in m/s^2")
        return VOID

    def on_is_traffic_manager_running(self, *_: Any) -> bool:
        """Return False: no Traffic Manager is registered, because it runs in the client's process."""
        return False

    def on_add_traffic_manager_running(self, *_: Any) -> bool:
        """Accept the message that a client has started a Traffic Manager; it changes nothing."""
        return True

    def on_emulator_fault(self, kind: str, amount: float | None = None) -> str:
        """Activate a fault. CARLA does not have this call; ``process.EmulatorControl`` uses it."""
        try:
            self._sim.active_faults.activate(kind, amount)
        except ValueError as error:
            raise CallError(str(error)) from error
        return kind

    def on_emulator_status(self) -> dict[str, Any]:
        """Return the emulator's status. CARLA does not have this call; ``process.EmulatorControl`` uses it."""
        sim = self._sim
        with open("/proc/self/statm", encoding="ascii") as memory:
            rss_bytes = int(memory.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return {
            "frame": sim.frame,
            "map": sim.map.name,
            # The count excludes the spectator and the actors that belong to the map.
            "n_actors": sum(not isinstance(actor, RoadSign) for actor in sim.actors.values()) - 1,
            "n_clients": sim.n_clients - 1,  # without the connection of this call
            "n_stream_connections": self._streams.n_connections,
            "synchronous": sim.is_synchronous,
            "rss_mb": rss_bytes / 1e6,
            "n_file_descriptors": len(os.listdir("/proc/self/fd")),
        }

    def _labelled_point(self, location: list[float]) -> list[Any]:
        ground = self._sim.map.scene.ground
        # Level 2 of the ground's image pyramid; y changes its sign from CARLA's to the embedded world's coordinates.
        column, row = (ground.from_world(2) @ (location[0], -location[1], 1.0))[:2].round().astype(int)
        height, width = ground.paved.shape
        is_inside = 0 <= row < height and 0 <= column < width
        is_paved = is_inside and ground.paved[row, column] > 127
        return [[location[0], location[1], 0.0], _ROAD_LABEL if is_paved else _TERRAIN_LABEL]


_EMPTY_LISTS = (
    "query_lights_state",
    "get_environment_objects",
    "get_names_of_all_objects",
)
"""Calls that return an empty list, because these maps have no such objects."""
_SILENT = ("query_lights_state",)
"""Calls that the client makes by itself; the console does not report them."""
_MAX_TOLD = 1000
_IGNORED = (
    "update_lights_state",
    "apply_ackermann_controller_settings",
    "enable_environment_objects",
    "load_map_layer",
    "unload_map_layer",
    "draw_debug_shape",
    "set_actor_collisions",
    "set_actor_dead",
    "set_actor_enable_gravity",
    "set_actor_target_angular_velocity",
    "show_vehicle_debug_telemetry",
    "destroy_traffic_manager",
    "stop_recorder",
    "stop_replayer",
    "set_replayer_time_factor",
    "set_replayer_ignore_hero",
    "set_replayer_ignore_spectator",
)
"""Calls that the emulator accepts without effect; they return nothing."""
_RECORDER = (
    "start_recorder",
    "show_recorder_file_info",
    "show_recorder_collisions",
    "show_recorder_actors_blocked",
    "replay_file",
)
"""Calls of CARLA's recorder. Each returns a text; nothing is recorded, and no file is written."""
_NOT_RECORDED = "The emulator records nothing"
# The error of a call that returns nothing is packed differently. The emulator recognises such a call by its name: by
# these prefixes, with two exceptions.
_VOID_PREFIXES = ("set_", "apply_", "add_", "load_", "unload_", "copy_", "enable_", "disable_", "freeze_", "reset_")
_NOT_VOID = {"set_episode_settings", "add_traffic_manager_running"}
# Each command of a batch is [type number, fields]. The numbers are the indices of the variant in CARLA 0.9.16's
# rpc/Command.h. 0, 1 and 2 were verified with the client, the others come from the source.
_SPAWN, _DESTROY = 0, 1
# The client itself registers the spawned vehicle with its Traffic Manager, so the emulator has nothing to do.
_SET_AUTOPILOT = 16
_COMMANDS = {
    2: "apply_control_to_vehicle",
    3: "apply_ackermann_control_to_vehicle",
    4: "apply_control_to_walker",
    5: "apply_physics_control",
    6: "set_actor_transform",
    7: "set_walker_state",
    8: "set_actor_target_velocity",
    9: "set_actor_target_angular_velocity",
    14: "set_actor_simulate_physics",
    15: "set_actor_enable_gravity",
    17: "show_vehicle_debug_telemetry",
    18: "set_vehicle_light_state",
    19: "set_actor_location",
    21: "set_traffic_light_state",
}
"""Maps the type number of a batch command to the name of the call that does the same."""
_REMARKS = {name: f"the call {name} is accepted and changes nothing" for name in _IGNORED}
_REMARKS |= {name: f"the call {name} is accepted, but nothing is recorded" for name in _RECORDER}
_REMARKS |= {name: f"the call {name} returns an empty list" for name in _EMPTY_LISTS if name not in _SILENT}
"""Maps the name of a call to the line that the console prints when a client first makes this call."""
Handler = Callable[..., Any]


class Calls:
    """Execute the calls of clients on one simulation, and pack their results.

    :param simulation: the emulated world
    :param streams: the stream server
    :param stream_port: port of the stream server
    :param tick_when_due: waits for the next tick of asynchronous mode and simulates it; None simulates it at once
    """

    def __init__(
        self,
        simulation: Simulation,
        streams: StreamServer,
        stream_port: int,
        tick_when_due: Callable[[], object] | None = None,
    ) -> None:
        self._sim = simulation
        self._handlers: dict[str, Handler] = {name: lambda *_: [] for name in _EMPTY_LISTS}
        self._handlers |= {name: lambda *_: VOID for name in _IGNORED}
        self._handlers |= {name: lambda *_: _NOT_RECORDED for name in _RECORDER}
        self._told: set[str] = set()
        """Names of the unsupported and failed calls that the console has already reported; each is reported once."""
        self._handlers |= _methods_of(WorldCalls(simulation, streams, stream_port))
        self._handlers |= _methods_of(ActorCalls(simulation, tick_when_due))
        self._handlers |= _methods_of(LightCalls(lambda: simulation.roadside))

    def answer(self, name: str, arguments: list[Any], *, wants_response: bool = True) -> tuple[list[Any], str]:
        """Execute the call of a client and pack its result.

        :param name: name of the call
        :param arguments: as they came from the network
        :param wants_response: whether the client waits for the result. If it does not, the console is the only place
            at which an error can appear: the first error of each call is then printed.
        :return: result to send back, and a line for the console, which may be empty
        """
        try:
            if name == "apply_batch":
                # The one call whose result is a bare list, not wrapped as a value.
                results = self._apply_batch(*arguments)
                errors = [content[0] for [[is_done, content]] in results if not is_done]
                complaint = ""
                if errors and not wants_response:
                    complaint = self._once(name, f"{name}: {errors[0]}")
                return results, complaint
            handler = self._handlers.get(name)
            if handler is None:
                shown_name = shortened(name)
                effect = "returns an error"
                if not wants_response:
                    effect = "has no effect; the client does not wait for an answer"
                complaint = self._once(name, f"unknown call {shown_name} {effect}")
                return _failed(name, f"the emulator does not support the call {shown_name}"), complaint
            result = handler(*arguments)
        except CallError as error:
            complaint = ""
            if not wants_response:
                complaint = self._once(name, f"{name}: {shortened(error)}")
            return _failed(name, str(error)), complaint
        except Exception as error:
            # Arguments of a wrong shape can cause any exception. One client must not stop the server for all.
            show_traceback_if_debugging(error)
            complaint = f"{name}{shortened(arguments)}: {shortened(error)}"
            return _failed(name, f"{name}: {shortened(error)}"), complaint
        complaint = ""
        if name in _REMARKS:
            complaint = self._once(name, _REMARKS[name])
        if result is VOID:
            return void(), complaint
        return value(result), complaint

    def _once(self, name: str, line: str) -> str:
        """Return ``line`` for the first report about a call of this name, and an empty text for each later one."""
        if name in self._told:
            return ""
        # A client that keeps sending new names must not fill the memory.
        if len(self._told) < _MAX_TOLD:
            self._told.add(name)
        return line

    def _apply_batch(self, commands: list[Any], do_tick: bool = False) -> list[Any]:
        """Execute a batch and return, for each command, ``[[1, actor_id]]`` or ``[[0, ["text"]]]``."""
        results: list[Any] = []
        for [[index, fields]] in commands:
            try:
                results.append(value(self._command(index, fields)))
            except CallError as error:
                results.append(failure(str(error)))
            except Exception as error:
                show_traceback_if_debugging(error)
                results.append(failure(shortened(error)))
        if do_tick:
            self._handlers["tick_cue"]()
        return results

    def _command(self, index: int, fields: list[Any]) -> int:
        """Execute one command of a batch and return the id of the actor to which it applies."""
        if index == _SPAWN:
            return self._spawn(fields)
        actor_id = int(fields[0])
        if index == _DESTROY:
            if not self._sim.destroy(actor_id):
                raise CallError(f"unable to destroy actor {actor_id}: not found")
            return actor_id
        if index not in _COMMANDS:
            raise CallError(
                f"the emulator does not support batch commands of type {shortened(index)} (as numbered in CARLA's "
                "rpc/Command.h); leave out this command"
            )
        self._handlers[_COMMANDS[index]](*fields)
        return actor_id

    def _spawn(self, fields: list[Any]) -> int:
        """Execute a spawn command ``[description, transform, optional parent, attachment, socket, do_after]``."""
        description, transform, optional_parent, *rest = fields
        # Without a parent the client sends uninitialised bytes as the kind of attachment, which is ignored in any case.
        parent_id = None
        if optional_parent[0]:
            parent_id = optional_parent[1]
        actor = self._sim.spawn(description, Transform.from_message(transform), parent_id)
        follow_ups = []
        if rest and isinstance(rest[-1], list):
            follow_ups = rest[-1]
        # As in CARLA, a follow-up that fails does not make the spawn fail: the client must learn the actor's id.
        for [[index, following]] in follow_ups:
            try:
                # carla.command.FutureActor stands in the field of the actor id: put the new actor there.
                self._command(index, [actor.id, *following[1:]])
            except Exception as error:
                show_traceback_if_debugging(error)
                line = f"a command that follows a spawn in a batch has no effect: {shortened(error)}"
                if index == _SET_AUTOPILOT:
                    line = (
                        "SetAutopilot after a spawn: the Traffic Manager of the client drives the vehicle; "
                        "this has not been tested with the emulator"
                    )
                if self._once(f"follow-up {shortened(index)}", line):
                    self._sim.complaints.append(line)
        return actor.id


def _failed(name: str, text: str) -> list[Any]:
    """Return the result of a call that failed."""
    if name.startswith(_VOID_PREFIXES) and name not in _NOT_VOID:
        return void_failure(text)
    return failure(text)


def _methods_of(calls: object) -> Mapping[str, Handler]:
    return {name.removeprefix("on_"): getattr(calls, name) for name in dir(calls) if name.startswith("on_")}
