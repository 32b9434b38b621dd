"""Remote procedure calls about the world: time, settings, maps, weather, blueprints, the emulator itself."""

from __future__ import annotations

import math
import os
from typing import Any

from sb3_visual_td3.envs.carla_emulator import maps
from sb3_visual_td3.envs.carla_emulator.blueprints import wire_definitions
from sb3_visual_td3.envs.carla_emulator.protocol import NOTHING, CallError, number_of, shortened
from sb3_visual_td3.envs.carla_emulator.records import token
from sb3_visual_td3.envs.carla_emulator.simulation import WORLD_STREAM, Simulation
from sb3_visual_td3.envs.carla_emulator.streaming import StreamServer

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
        """Begin anew on a map; without a name on the one that there is."""
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
