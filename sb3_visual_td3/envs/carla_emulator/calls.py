"""The calls of CARLA's protocol that the emulator answers: on the world, on actors, and on the server itself."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import Any

from sb3_visual_td3.envs.carla_emulator import maps
from sb3_visual_td3.envs.carla_emulator.blueprints import wire_definitions
from sb3_visual_td3.envs.carla_emulator.protocol import (
    NOTHING,
    CallError,
    failure,
    number_of,
    shortened,
    value,
    void,
    void_failure,
)
from sb3_visual_td3.envs.carla_emulator.records import Transform, VehicleControl, token, vector_of
from sb3_visual_td3.envs.carla_emulator.simulation import WORLD_STREAM, Simulation
from sb3_visual_td3.envs.carla_emulator.streaming import StreamServer
from sb3_visual_td3.envs.carla_emulator.vehicles import CAR, MASS_KG, Vehicle

_WHEEL_RADIUS_M = 0.35
_TOP_GEAR = 10
_FAST_MPS = 1e4
_N_LIGHT_STATES = 2**32
_FRONT = 2
"""Wheels that steer: the first two of four."""


class ActorCalls:
    """Each method ``on_X`` answers the call X.

    :param simulation: the world.
    """

    def __init__(self, simulation: Simulation) -> None:
        self._sim = simulation

    def on_get_actors_by_id(self, numbers: list[int]) -> list[Any]:
        """Return the records of those that there are."""
        return [self._sim.record(self._sim.actors[n]) for n in numbers if n in self._sim.actors]

    def on_get_spectator(self) -> list[Any]:
        """Return the spectator's record."""
        return self._sim.record(self._sim.spectator)

    def on_spawn_actor(self, description: list[Any], place: list[Any]) -> list[Any]:
        """Make an actor."""
        return self._sim.record(self._sim.spawn(description, Transform.of_wire(place)))

    def on_spawn_actor_with_parent(self, description: list[Any], place: list[Any], parent: int, *_: Any) -> list[Any]:
        """Make an actor that is fixed to another."""
        return self._sim.record(self._sim.spawn(description, Transform.of_wire(place), parent))

    def on_destroy_actor(self, number: int) -> bool:
        """Remove an actor."""
        return self._sim.destroy(number)

    def on_get_actor_bounding_box(self, number: int) -> list[Any]:
        """Return its box."""
        return self._sim.actor(number).bounding_box()

    def on_set_actor_transform(self, number: int, place: list[Any]) -> Any:
        """Put it somewhere."""
        self._sim.actor(number).put(Transform.of_wire(place))
        return NOTHING

    def on_set_actor_location(self, number: int, location: list[float]) -> Any:
        """Put it somewhere, as it is turned."""
        rotation = self._sim.actor(number).world_place.wire()[1]
        return self.on_set_actor_transform(number, [location, rotation])

    def on_set_actor_target_velocity(self, number: int, velocity: list[float]) -> Any:
        """Give it a velocity."""
        self._sim.actor(number).push(vector_of(velocity, _FAST_MPS))
        return NOTHING

    def on_set_actor_simulate_physics(self, number: int, enabled: bool) -> Any:
        """Let it move by itself, or not."""
        actor = self._sim.actor(number)
        if isinstance(actor, Vehicle) and not actor.is_of_the_server:
            actor.set_physics(enabled)
        return NOTHING

    def on_enable_actor_constant_velocity(self, number: int, velocity: list[float]) -> Any:
        """Let a vehicle keep a speed: what of the velocity, which is in its own axes, points forward."""
        self._sim.vehicle(number).constant_mps = max(0.0, number_of(velocity[0], _FAST_MPS))
        return NOTHING

    def on_disable_actor_constant_velocity(self, number: int) -> Any:
        """Let it drive by its pedals again."""
        self._sim.vehicle(number).constant_mps = None
        return NOTHING

    def on_apply_control_to_vehicle(self, number: int, control: list[Any]) -> Any:
        """Hold the pedals and the wheel; out of range they are held at its end, and what is no number is 0."""
        throttle, steer, brake, hand_brake, reverse, manual, gear = control[:7]
        limits = ((throttle, 0.0), (steer, -1.0), (brake, 0.0))
        throttle, steer, brake = (min(1.0, max(low, part)) if math.isfinite(part) else 0.0 for part, low in limits)
        self._sim.vehicle(number).control = VehicleControl(
            throttle, steer, brake, bool(hand_brake), bool(reverse), bool(manual), min(_TOP_GEAR, max(-1, int(gear)))
        )
        return NOTHING

    def on_apply_control_to_walker(self, number: int, control: list[Any]) -> Any:
        """Let a walker walk."""
        direction, speed_mps = control[:2]
        self._sim.walker(number).walk(vector_of(direction, _FAST_MPS), number_of(speed_mps, _FAST_MPS))
        return NOTHING

    def on_set_walker_state(self, number: int, place: list[Any], speed_mps: float) -> Any:
        """Put a walker somewhere, walking on as it is turned."""
        transform = Transform.of_wire(place)
        walker = self._sim.walker(number)
        walker.put(transform._replace(z=walker.extent_m[2]))
        yaw = math.radians(transform.yaw)
        walker.walk((math.cos(yaw), math.sin(yaw), 0.0), number_of(speed_mps, _FAST_MPS))
        return NOTHING

    def on_set_vehicle_light_state(self, number: int, state: list[int] | int) -> Any:
        """Remember which lights are on; cameras do not show them."""
        lights = state if isinstance(state, int) else state[0]
        if not isinstance(lights, int) or not 0 <= lights < _N_LIGHT_STATES:
            raise CallError(f"{shortened(state)} is not a state of lights")
        self._sim.vehicle(number).lights = lights
        return NOTHING

    def on_get_vehicle_light_state(self, number: int) -> list[int]:
        """Return which lights are on."""
        return [self._sim.vehicle(number).lights]

    def on_get_vehicle_light_states(self) -> list[Any]:
        """Return which lights are on, of all vehicles."""
        return [[vehicle.number, vehicle.lights] for vehicle in self._sim.vehicles]

    def on_get_wheel_steer_angle(self, number: int, wheel: int) -> float:
        """Return where a wheel points, in degrees, positive to the right."""
        vehicle = self._sim.vehicle(number)
        return -math.degrees(vehicle.motion.wheel_rad) if wheel < _FRONT else 0.0

    def on_apply_physics_control(self, number: int, physics: list[Any]) -> Any:
        """Remember what was set, so that it can be read; every vehicle goes on driving alike."""
        if not isinstance(physics, list):
            raise CallError(f"{shortened(physics)} is not a physics control")
        self._sim.vehicle(number).physics = physics
        return NOTHING

    def on_get_physics_control(self, number: int) -> list[Any]:
        """Return what was set, or what describes the one car that there is."""
        vehicle = self._sim.vehicle(number)
        return vehicle.physics or _physics_of(vehicle)


def _physics_of(vehicle: Vehicle) -> list[Any]:
    max_wheel_deg = math.degrees(CAR.max_wheel_rad)
    wheels = []
    for ahead, aside, angle_deg in ((1, -1, max_wheel_deg), (1, 1, max_wheel_deg), (-1, -1, 0.0), (-1, 1, 0.0)):
        yaw = vehicle.motion.yaw_rad
        along, left = 0.5 * ahead * CAR.wheelbase_m, -0.5 * aside * CAR.width_m
        x = vehicle.motion.x_m + along * math.cos(yaw) - left * math.sin(yaw)
        y = -(vehicle.motion.y_m + along * math.sin(yaw) + left * math.cos(yaw))
        # CARLA gives the wheels' places in centimetres, and their radius too.
        place_cm = [100.0 * x, 100.0 * y, 100.0 * _WHEEL_RADIUS_M]
        wheels.append([3.5, 0.25, angle_deg, 100.0 * _WHEEL_RADIUS_M, 1500.0, 3000.0, 3.0, 17.0, 1000.0, place_cm])
    torque, steering = [[0.0, 400.0], [5000.0, 400.0]], [[0.0, 1.0], [100.0, 1.0]]
    engine = [torque, 5000.0, 1.0, 0.15, 2.0, 0.35, True, 0.5, 10.0, 4.0, []]
    return [*engine, MASS_KG, 0.3, [0.0, 0.0, 0.0], steering, wheels, False]


VERSION = "0.9.16"
_MAX_CULLING_M, _TILES_M, _ACTIVE_M = 0.0, 3000.0, 2000.0
_GROUND_LABELS = {"road": 1, "terrain": 10}
_N_WEATHER = 14
_MOST_WEATHER = 1e4
_N_STREAMS = 2**32
_SHORTEST_STEP_S, _LONGEST_STEP_S = 1e-6, 10.0


class WorldCalls:
    """Each method ``on_X`` answers the call X.

    :param simulation: the world.
    :param streams: who listens.
    :param stream_port: where streams are to be had.
    """

    def __init__(self, simulation: Simulation, streams: StreamServer, stream_port: int) -> None:
        self._sim, self._streams, self._stream_port = simulation, streams, stream_port

    def on_version(self) -> str:
        """Return the server's version."""
        return self._sim.trouble.version or VERSION

    def on_get_episode_info(self) -> list[Any]:
        """Return the episode's number and how to hear of its ticks."""
        return [self._sim.episode_id, [token(WORLD_STREAM, self._stream_port)]]

    def on_get_sensor_token(self, stream_id: int) -> list[Any]:
        """Return how to hear of a sensor."""
        if not isinstance(stream_id, int) or not 0 <= stream_id < _N_STREAMS:
            raise CallError(f"{shortened(stream_id)} is not the number of a stream")
        return [token(stream_id, self._stream_port)]

    def on_get_episode_settings(self) -> list[Any]:
        """Return how time passes."""
        sim = self._sim
        step = [False] if sim.step_s is None else [True, sim.step_s]
        more = [_MAX_CULLING_M, False, _TILES_M, _ACTIVE_M, True]
        return [sim.is_synchronous, sim.has_cameras_off, step, True, 0.01, 10, *more]

    def on_set_episode_settings(self, settings: list[Any]) -> int:
        """Set how time passes; without rendering cameras send nothing."""
        is_synchronous, no_rendering, step, *_ = settings
        step_s = number_of(step[1], _LONGEST_STEP_S, "a step in seconds") if step[0] else 0.0
        self._sim.is_synchronous = bool(is_synchronous)
        self._sim.has_cameras_off = bool(no_rendering)
        self._sim.step_s = step_s if step_s >= _SHORTEST_STEP_S else None
        return self._sim.frame

    def on_tick_cue(self) -> int:
        """Let a tick pass."""
        return self._sim.tick()

    def on_get_map_info(self) -> list[Any]:
        """Return the map's name and where vehicles are best spawned."""
        points = [point.wire() for point in maps.spawn_points_of(self._sim.map_name)]
        return [f"Carla/Maps/{self._sim.map_name}", points]

    def on_get_map_data(self) -> str:
        """Return the map as OpenDRIVE."""
        return maps.opendrive_of(self._sim.map_name)

    def on_get_available_maps(self) -> list[str]:
        """Return the names of all maps."""
        return maps.available()

    def on_load_new_episode(self, name: str, reset_settings: bool = True, *_: Any) -> Any:
        """Load a map and begin again on it; without a name, reload the present one."""
        self._sim.load(maps.find(name) if name else self._sim.map_name, reset_settings=reset_settings)
        return NOTHING

    def on_copy_opendrive_to_file(self, *_: Any) -> Any:
        """Refuse: the server may not use the client, which alone could read a user's map."""
        raise CallError("the emulator drives on its own maps only: it cannot generate a world from OpenDRIVE")

    def on_get_actor_definitions(self) -> list[Any]:
        """Return all blueprints."""
        return wire_definitions()

    def on_get_weather_parameters(self) -> list[float]:
        """Return the weather."""
        return list(self._sim.weather)

    def on_set_weather_parameters(self, weather: list[float]) -> Any:
        """Set the weather."""
        if not isinstance(weather, list) or len(weather) != _N_WEATHER:
            raise CallError(f"weather: expected {_N_WEATHER} numbers, got {shortened(weather)}")
        self._sim.weather = [number_of(part, _MOST_WEATHER, "a weather parameter") for part in weather]
        return NOTHING

    def on_project_point(self, place: list[float], direction: list[float], search_m: float) -> list[Any]:
        """Return where a ray meets the ground within some metres, as CARLA does: whether, and the point."""
        length = math.hypot(*direction)
        down = -direction[2] / length if length else 0.0
        if down <= 0.0 or not 0.0 <= place[2] / down <= search_m:
            return [False, [[0.0, 0.0, 0.0], 0]]
        return [
            True,
            self._ground_point([a + b / length * place[2] / down for a, b in zip(place, direction, strict=True)]),
        ]

    def on_cast_ray(self, start: list[float], end: list[float]) -> list[Any]:
        """Return where a ray meets the ground, which alone it can meet."""
        if not min(start[2], end[2]) <= 0.0 < max(start[2], end[2]):
            return []
        part = start[2] / (start[2] - end[2])
        return [self._ground_point([a + (b - a) * part for a, b in zip(start, end, strict=True)])]

    def on_get_imui_gravity(self) -> float:
        """Return the gravity that inertial units measure."""
        return 9.81

    def on_is_traffic_manager_running(self, *_: Any) -> bool:
        """Return that no Traffic Manager is known: it would be a client's."""
        return False

    def on_add_traffic_manager_running(self, *_: Any) -> bool:
        """Take note of a client's Traffic Manager."""
        return True

    def on_emulator_fault(self, kind: str, amount: float | None = None) -> str:
        """Make something go wrong."""
        try:
            self._sim.trouble.begin(kind, amount)
        except ValueError as error:
            raise CallError(str(error)) from error
        return kind

    def on_emulator_status(self) -> dict[str, Any]:
        """Return how the emulator is."""
        sim = self._sim
        with open("/proc/self/statm", encoding="ascii") as memory:
            rss_bytes = int(memory.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return {
            "frame": sim.frame,
            "map": sim.map_name,
            "n_actors": len(sim.actors) - 1,
            "n_clients": sim.n_clients - 1,  # without the one that asks
            "n_stream_connections": self._streams.n_connections,
            "synchronous": sim.is_synchronous,
            "rss_mb": rss_bytes / 1e6,
            "n_file_descriptors": len(os.listdir("/proc/self/fd")),
        }

    def _ground_point(self, place: list[float]) -> list[Any]:
        ground = self._sim.scene.ground
        column, row = (ground.from_world(2) @ (place[0], -place[1], 1.0))[:2].round().astype(int)
        height, width = ground.paved.shape
        is_paved = 0 <= row < height and 0 <= column < width and ground.paved[row, column] > 127
        return [[place[0], place[1], 0.0], _GROUND_LABELS["road" if is_paved else "terrain"]]


_EMPTY_LISTS = (
    "get_required_files",
    "query_lights_state",
    "get_environment_objects",
    "get_all_level_BBs",
    "get_group_traffic_lights",
    "get_light_boxes",
    "get_names_of_all_objects",
)
"""There is nothing of the kind on these maps."""
_ACCEPTED = (
    "reset_all_traffic_lights",
    "freeze_all_traffic_lights",
    "update_lights_state",
    "enable_environment_objects",
    "load_map_layer",
    "unload_map_layer",
    "draw_debug_shape",
    "set_actor_enable_gravity",
    "set_actor_target_angular_velocity",
    "show_vehicle_debug_telemetry",
    "destroy_traffic_manager",
)
"""Calls that return nothing and change nothing here."""
_VALUED = {"set_episode_settings", "add_traffic_manager_running"}
_VOID_PREFIXES = ("set_", "apply_", "add_", "load_", "unload_", "copy_", "enable_", "disable_")
_COMMANDS = {
    2: "apply_control_to_vehicle",
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
}
"""The calls that the commands of a batch stand for."""
_SPAWN, _DESTROY = 0, 1
Handler = Callable[..., Any]


class Calls:
    """Answers calls from one simulation.

    :param simulation: the world.
    :param streams: who listens.
    :param stream_port: where streams are to be had.
    """

    def __init__(self, simulation: Simulation, streams: StreamServer, stream_port: int) -> None:
        self._sim = simulation
        self._table: dict[str, Handler] = {name: lambda *_: [] for name in _EMPTY_LISTS}
        self._table |= {name: lambda *_: NOTHING for name in _ACCEPTED}
        self._table |= _methods_of(WorldCalls(simulation, streams, stream_port))
        self._table |= _methods_of(ActorCalls(simulation))

    def answer(self, name: str, arguments: list[Any]) -> tuple[list[Any], str]:
        """Do what a call asks for.

        :return: what is sent back, and a line for the server's console, empty where all is well
        """
        is_void = name.startswith(_VOID_PREFIXES) and name not in _VALUED
        refuse = void_failure if is_void else failure
        try:
            if name == "apply_batch":
                return self._apply_batch(*arguments), ""
            handler = self._table.get(name)
            if handler is None:
                told = shortened(name)
                return refuse(f"the emulator does not know the call {told}"), f"unknown call {told}"
            result = handler(*arguments)
        except CallError as error:
            return refuse(str(error)), ""
        except Exception as error:  # arguments of a wrong shape lead to any of them, and one client's ends no server
            return refuse(f"{name}: {shortened(error)}"), f"{name}{shortened(arguments)}: {shortened(error)}"
        return (void() if result is NOTHING else value(result)), ""

    def _apply_batch(self, commands: list[Any], do_tick: bool = False) -> list[Any]:
        answers: list[Any] = []
        for [[index, fields]] in commands:
            try:
                answers.append([[1, self._command(index, fields)]])
            except CallError as error:
                answers.append([[0, [str(error)]]])
            except Exception as error:
                answers.append([[0, [shortened(error)]]])
        if do_tick:
            self._sim.tick()
        return answers

    def _command(self, index: int, fields: list[Any]) -> int:
        if index == _SPAWN:
            return self._spawn(fields)
        number = int(fields[0])
        if index == _DESTROY:
            if not self._sim.destroy(number):
                raise CallError(f"unable to destroy actor {number}: not found")
            return number
        if index not in _COMMANDS:
            raise CallError(f"the emulator does not know the batch command {index}")
        self._table[_COMMANDS[index]](*fields)
        return number

    def _spawn(self, fields: list[Any]) -> int:
        description, place, parent, *rest = fields
        # Without a parent the bytes about the attachment mean nothing.
        actor = self._sim.spawn(description, Transform.of_wire(place), parent[1] if parent[0] else None)
        follow_ups = rest[-1] if rest and isinstance(rest[-1], list) else []
        for [[index, following]] in follow_ups:
            self._command(index, [actor.number, *following[1:]])
        return actor.number


def _methods_of(calls: object) -> Mapping[str, Handler]:
    return {name.removeprefix("on_"): getattr(calls, name) for name in dir(calls) if name.startswith("on_")}
