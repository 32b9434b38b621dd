"""What each remote procedure call does: the names that CARLA 0.9.16's client uses."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from sb3_visual_td3.envs.carla_emulator import maps
from sb3_visual_td3.envs.carla_emulator.actors import Vehicle
from sb3_visual_td3.envs.carla_emulator.blueprints import wire_definitions
from sb3_visual_td3.envs.carla_emulator.faults import KINDS
from sb3_visual_td3.envs.carla_emulator.protocol import CallError, failure, value, void, void_failure
from sb3_visual_td3.envs.carla_emulator.records import Transform, VehicleControl, token
from sb3_visual_td3.envs.carla_emulator.simulation import WORLD_STREAM, Simulation

VERSION = "0.9.16"
NOTHING = object()
"""What a call returns that returns nothing."""
_EMPTY_LISTS = (
    "get_required_files",
    "query_lights_state",
    "get_vehicle_light_states",
    "get_vehicles_light_states",
    "get_environment_objects",
    "get_all_level_BBs",
    "get_group_traffic_lights",
    "get_light_boxes",
    "get_names_of_all_objects",
)
_ACCEPTED = (
    "reset_all_traffic_lights",
    "freeze_all_traffic_lights",
    "set_actor_enable_gravity",
    "update_lights_state",
    "apply_control_to_walker",
    "set_vehicle_light_state",
    "show_vehicle_debug_telemetry",
    "enable_environment_objects",
    "set_actor_target_angular_velocity",
    "draw_debug_shape",
    "add_traffic_manager_running",
    "destroy_traffic_manager",
)
_MAX_CULLING_M, _TILES_M, _ACTIVE_M = 0.0, 3000.0, 2000.0


class Calls:
    """Answers calls from one simulation.

    :param simulation: the world.
    :param stream_port: where streams are to be had.
    """

    def __init__(self, simulation: Simulation, stream_port: int) -> None:
        self._sim, self._stream_port = simulation, stream_port
        self._bare = {"apply_batch": self._apply_batch}
        self._table: dict[str, Callable[..., Any]] = {
            name.removeprefix("_on_"): getattr(self, name) for name in dir(self) if name.startswith("_on_")
        }
        self._table |= {name: lambda *_: [] for name in _EMPTY_LISTS}
        self._table |= {name: lambda *_: NOTHING for name in _ACCEPTED}

    def answer(self, name: str, arguments: list[Any]) -> tuple[list[Any], str]:
        """Do what a call asks for.

        :return: what is sent back, and a line for the server's console, empty where all is well
        """
        if name in self._bare:
            return self._bare[name](*arguments), ""
        handler = self._table.get(name)
        if handler is None:
            return failure(f"the emulator does not know the call {name!r}"), f"unknown call {name!r}"
        try:
            result = handler(*arguments)
        except CallError as error:
            # A call that returns nothing fails in another shape.
            is_void = name.startswith(("set_", "apply_", "add_", "load_", "copy_"))
            return (void_failure if is_void and name not in _VALUED else failure)(str(error)), ""
        except (TypeError, ValueError, IndexError, LookupError) as error:
            return failure(f"{name}: {error}"), f"{name}{arguments!r:.200}: {error!r}"
        return (void() if result is NOTHING else value(result)), ""

    def _on_version(self) -> str:
        return self._sim.trouble.version or VERSION

    def _on_get_episode_info(self) -> list[Any]:
        return [self._sim.episode_id, [token(WORLD_STREAM, self._stream_port)]]

    def _on_get_sensor_token(self, stream_id: int) -> list[Any]:
        return [token(stream_id, self._stream_port)]

    def _on_get_episode_settings(self) -> list[Any]:
        sim = self._sim
        step = [False] if sim.step_s is None else [True, sim.step_s]
        return [sim.is_synchronous, False, step, True, 0.01, 10, _MAX_CULLING_M, False, _TILES_M, _ACTIVE_M, True]

    def _on_set_episode_settings(self, settings: list[Any]) -> int:
        is_synchronous, _, step, *_ = settings
        self._sim.is_synchronous = bool(is_synchronous)
        self._sim.step_s = float(step[1]) if step[0] and step[1] > 0.0 else None
        return self._sim.frame

    def _on_tick_cue(self) -> int:
        return self._sim.tick()

    def _on_get_map_info(self) -> list[Any]:
        points = [point.wire() for point in maps.spawn_points_of(self._sim.map_name)]
        return [f"Carla/Maps/{self._sim.map_name}", points]

    def _on_get_map_data(self) -> str:
        return maps.opendrive_of(self._sim.map_name)

    def _on_get_available_maps(self) -> list[str]:
        return maps.available()

    def _on_load_new_episode(self, name: str, reset_settings: bool = True, *_: Any) -> Any:
        self._sim.load(maps.find(name), reset_settings=reset_settings)
        return NOTHING

    def _on_copy_opendrive_to_file(self, *_: Any) -> Any:
        raise CallError("the emulator drives on its own maps only: it cannot generate a world from OpenDRIVE")

    def _on_get_actor_definitions(self) -> list[Any]:
        return wire_definitions()

    def _on_get_actors_by_id(self, numbers: list[int]) -> list[Any]:
        return [self._sim.record(self._sim.actors[n]) for n in numbers if n in self._sim.actors]

    def _on_get_spectator(self) -> list[Any]:
        return self._sim.record(self._sim.spectator)

    def _on_get_weather_parameters(self) -> list[float]:
        return list(self._sim.weather)

    def _on_set_weather_parameters(self, weather: list[float]) -> Any:
        self._sim.weather = weather
        return NOTHING

    def _on_spawn_actor(self, description: list[Any], place: list[Any]) -> list[Any]:
        return self._sim.record(self._sim.spawn(description, Transform.of_wire(place)))

    def _on_spawn_actor_with_parent(self, description: list[Any], place: list[Any], parent: int, *_: Any) -> list[Any]:
        return self._sim.record(self._sim.spawn(description, Transform.of_wire(place), parent))

    def _on_destroy_actor(self, number: int) -> bool:
        return self._sim.destroy(number)

    def _on_get_actor_bounding_box(self, number: int) -> list[Any]:
        return self._sim.actor(number).bounding_box()

    def _on_apply_control_to_vehicle(self, number: int, control: list[Any]) -> Any:
        self._sim.vehicle(number).control = VehicleControl(*control[:7])
        return NOTHING

    def _on_set_actor_transform(self, number: int, place: list[Any]) -> Any:
        actor, transform = self._sim.actor(number), Transform.of_wire(place)
        if isinstance(actor, Vehicle):
            actor.put(transform)
        else:
            actor.place = transform
        return NOTHING

    def _on_set_actor_location(self, number: int, location: list[float]) -> Any:
        rotation = self._sim.actor(number).world_place.wire()[1]
        return self._on_set_actor_transform(number, [location, rotation])

    def _on_set_actor_target_velocity(self, number: int, velocity: list[float]) -> Any:
        self._sim.vehicle(number).push((velocity[0], velocity[1], velocity[2]))
        return NOTHING

    def _on_set_actor_simulate_physics(self, number: int, enabled: bool) -> Any:
        actor = self._sim.actor(number)
        if isinstance(actor, Vehicle):
            actor.has_physics = enabled
            if not enabled:
                actor.stop()
        return NOTHING

    def _on_is_traffic_manager_running(self, *_: Any) -> bool:
        return False

    def _on_emulator_fault(self, kind: str, amount: float | None = None) -> str:
        if kind not in KINDS:
            raise CallError(f"fault {kind!r}: expected one of {', '.join(KINDS)}")
        self._sim.trouble.begin(kind, amount)
        return kind

    def _on_emulator_status(self) -> dict[str, Any]:
        sim = self._sim
        with open("/proc/self/statm", encoding="ascii") as memory:
            rss_bytes = int(memory.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return {
            "frame": sim.frame,
            "map": sim.map_name,
            "n_actors": len(sim.actors) - 1,
            "synchronous": sim.is_synchronous,
            "rss_mb": rss_bytes / 1e6,
            "n_file_descriptors": len(os.listdir("/proc/self/fd")),
        }

    def _apply_batch(self, commands: list[Any], do_tick: bool = False) -> list[Any]:
        answers: list[Any] = []
        for [[index, fields]] in commands:
            try:
                answers.append([[1, self._command(index, fields)]])
            except CallError as error:
                answers.append([[0, [str(error)]]])
        if do_tick:
            self._sim.tick()
        return answers

    def _command(self, index: int, fields: list[Any]) -> int:
        if index == 0:
            return self._spawn_command(fields)
        number = int(fields[0])
        if index == 1:
            if not self._sim.destroy(number):
                raise CallError(f"unable to destroy actor {number}: not found")
            return number
        handlers: dict[int, Callable[..., Any]] = {
            2: self._on_apply_control_to_vehicle,
            6: self._on_set_actor_transform,
            8: self._on_set_actor_target_velocity,
            9: lambda *_: NOTHING,
            14: self._on_set_actor_simulate_physics,
            19: self._on_set_actor_location,
        }
        if index not in handlers:
            raise CallError(f"the emulator does not know the batch command {index}")
        handlers[index](*fields)
        return number

    def _spawn_command(self, fields: list[Any]) -> int:
        description, place, parent, *rest = fields
        # Without a parent the bytes about the attachment mean nothing.
        parent_number = parent[1] if parent[0] else None
        actor = self._sim.spawn(description, Transform.of_wire(place), parent_number)
        follow_ups = next((item for item in reversed(rest) if isinstance(item, list)), [])
        for entry in follow_ups:
            if entry and isinstance(entry[0], list):
                index, following = int(entry[0][0]), list(entry[0][1])
                follow_up: list[Any] = [actor.number]
                follow_up += following[1:]
                self._command(index, follow_up)
        return actor.number


_VALUED = {"set_episode_settings", "add_traffic_manager_running"}
