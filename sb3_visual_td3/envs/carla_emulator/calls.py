"""What each remote procedure call does: the names that CARLA 0.9.16's client uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sb3_visual_td3.envs.carla_emulator.actor_calls import ActorCalls
from sb3_visual_td3.envs.carla_emulator.protocol import (
    NOTHING,
    CallError,
    failure,
    shortened,
    value,
    void,
    void_failure,
)
from sb3_visual_td3.envs.carla_emulator.records import Transform
from sb3_visual_td3.envs.carla_emulator.simulation import Simulation
from sb3_visual_td3.envs.carla_emulator.streaming import StreamServer
from sb3_visual_td3.envs.carla_emulator.world_calls import WorldCalls

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
