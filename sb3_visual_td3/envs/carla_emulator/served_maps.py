"""Provide the emulator's maps: the map files of a folder, a map that a client generates, and the built-in maps.

A file takes precedence over a built-in map of the same name. For a CARLA town without a file, a built-in map is served
under the town's name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from sb3_visual_td3.envs.carla_emulator.navigation import navigation_file
from sb3_visual_td3.envs.carla_emulator.protocol import CallError, Transform, shortened
from sb3_visual_td3.envs.road.carla_coordinates import map_name_of
from sb3_visual_td3.envs.road.footways import footways_of
from sb3_visual_td3.envs.road.lane_graph import NO_JUNCTION, LaneGraph, LaneSegment
from sb3_visual_td3.envs.road.maps import MAP_GROUPS, OPENDRIVE_SUFFIX, Scene, load_map
from sb3_visual_td3.envs.road.opendrive_reading import without_namespace
from sb3_visual_td3.envs.road.opendrive_writing import to_opendrive
from sb3_visual_td3.envs.road.route_maps import load_route_map, route_map_of_text
from sb3_visual_td3.envs.road.shapes import Pose
from sb3_visual_td3.envs.road.sign_reading import place_lights

TOWN_ALIASES = {
    "Town01": "train_0",
    "Town02": "held_out_0",
    "Town03": "junction_0",
    "Town04": "four_lanes_0",
    "Town05": "three_lanes_0",
    "Town10HD": "junction_1",
    "Town10HD_Opt": "junction_1",
}
"""For each of CARLA's towns, the built-in map that is served under the town's name."""
MAP_NAMES = tuple(name for group in MAP_GROUPS.values() for name in group)
GENERATED_MAP = "OpenDriveMap"
"""The name under which CARLA serves the world that ``client.generate_opendrive_world`` generates."""
# CARLA lists its maps as paths of Unreal assets, and clients cut the folder off.
_MAP_FOLDER = "/Game/Carla/Maps/"
_LAYERED_SUFFIX = "_Opt"


@dataclass(frozen=True, eq=False)
class ServedMap:
    """Hold a map: its name, its OpenDRIVE document, its lanes, and the scene that cameras draw."""

    name: str
    """Short name, such as ``"Town02"``."""
    opendrive: str
    """The OpenDRIVE document that clients receive; for a map from a file, the text of the file."""
    graph: LaneGraph
    """The lanes of the map and the links between them."""
    scene: Scene
    """The ground and the panorama, which cameras draw."""

    @cached_property
    def spawn_points(self) -> tuple[Transform, ...]:
        """Return recommended places for vehicles: every 15 m on each lane outside of junctions."""
        return spawn_points_of(self.graph)

    @cached_property
    def navigation_file(self) -> bytes:
        """Return the file from which the client plans the routes of walkers."""
        return navigation_file(footways_of(self.graph))


class MapLibrary:
    """Find and load maps by the names that clients use.

    :param folder: folder of OpenDRIVE files; ``NAME.xodr`` becomes the map ``NAME``. None for the built-in maps only
    :param lights_seed: seed of the traffic lights on the built-in maps; None for no lights there
    :raises ValueError: if there is no such folder, or it has no map
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None, lights_seed: int | None = None) -> None:
        self._lights_seed = lights_seed
        self._files: dict[str, Path] = {}
        self._loaded: dict[str, ServedMap] = {}
        if folder is not None:
            self._add_folder(Path(folder))

    def _add_folder(self, folder: Path) -> None:
        if not folder.is_dir():
            raise ValueError(f"{str(folder)!r}: no such folder exists; give a folder with OpenDRIVE files (*.xodr)")
        for path in sorted(folder.glob(f"*{OPENDRIVE_SUFFIX}")):
            self._files[path.stem] = path.resolve()
        if not self._files:
            raise ValueError(f"{str(folder)!r}: found no *{OPENDRIVE_SUFFIX} file; put a map into this folder")

    @property
    def has_files(self) -> bool:
        """Return whether the library contains maps that were read from files."""
        return bool(self._files)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the short names of all maps; the maps that were read from files come first."""
        own = [name for name in (*MAP_NAMES, *TOWN_ALIASES) if name not in self._files]
        return (*self._files, *own)

    @property
    def paths(self) -> list[str]:
        """Return the names of all maps as CARLA writes them, such as ``/Game/Carla/Maps/Town02``."""
        return [_MAP_FOLDER + name for name in self.names]

    def add_file(self, path: str | os.PathLike[str]) -> str:
        """Serve one more OpenDRIVE file, and return the name of its map.

        :param path: path of the file
        :raises ValueError: if there is no such file
        """
        file = Path(path)
        if not file.is_file():
            raise ValueError(f"{str(path)!r}: no such file exists; give an OpenDRIVE file (*.xodr)")
        self._files[file.stem] = file.resolve()
        return file.stem

    def generate(self, text: str) -> None:
        """Make a document available as the map ``OpenDriveMap``, in place of the previous document.

        :param text: OpenDRIVE document
        :raises CallError: if no car can drive on the map
        """
        # Each text gets a new name, because cameras use the name of the scene as a key of their cache.
        digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        try:
            scene = route_map_of_text(text, GENERATED_MAP, f"{GENERATED_MAP} {digest}")
        except (ValueError, ImportError) as error:
            raise CallError(str(error)) from error
        self._loaded[GENERATED_MAP] = ServedMap(GENERATED_MAP, without_namespace(text), scene.graph, scene)

    def find(self, name: str) -> str:
        """Find a map by a name that a client uses, and return its short name.

        :param name: short name, or a path such as ``/Game/Carla/Maps/Town02``; ``_Opt`` at the end is ignored
            if there is no map of the full name
        :raises CallError: if there is no such map
        """
        short_name = map_name_of(name)
        for candidate in (short_name, short_name.removesuffix(_LAYERED_SUFFIX)):
            if candidate in self.names or candidate in self._loaded:
                return candidate
        raise CallError(f"map not found: {shortened(name).strip(chr(39))}")

    def load(self, short_name: str) -> ServedMap:
        """Load a map, or return it if it is loaded already.

        :param short_name: a name that ``find`` returned
        :raises CallError: if the file cannot be read, or no car can drive on the map
        """
        if short_name not in self._loaded:
            try:
                self._loaded[short_name] = self._read(short_name)
            except (ValueError, ImportError, OSError) as error:
                raise CallError(str(error)) from error
        return self._loaded[short_name]

    def _read(self, short_name: str) -> ServedMap:
        path = self._files.get(short_name)
        if path is not None:
            scene = load_route_map(str(path))
            # The client gets the unchanged file, including its line ends, but it cannot read a namespace's prefix.
            text = without_namespace(path.read_bytes().decode("utf-8-sig"))
            return ServedMap(short_name, text, scene.graph, scene)
        own_name = TOWN_ALIASES.get(short_name, short_name)
        scene = load_route_map(own_name)
        graph = scene.graph
        if self._lights_seed is not None:
            graph = dataclasses.replace(graph, signs=place_lights(graph, self._lights_seed))
        text = to_opendrive(load_map(own_name), graph.signs, graph.segments)
        return ServedMap(short_name, text, graph, scene)


# Spawn points

_SPAWN_POINT_DISTANCE_M = 15.0
# CARLA's spawn points lie some decimetres above the road, so that wheels do not start inside it.
_SPAWN_POINT_HEIGHT_M = 0.5
# The ends of a lane lie too close to a junction.
_SPAWN_POINT_MARGIN_M = 5.0
# Where lanes split or merge, they overlap: of two points that are closer than this, the second is left out.
_MIN_SPAWN_POINT_DISTANCE_M = 3.0


def spawn_points_of(graph: LaneGraph) -> tuple[Transform, ...]:
    """Return recommended places for vehicles on all lanes outside of junctions.

    The order follows the lanes: by road, section and lane, and along each lane.

    :param graph: lanes of the map
    :return: at least one place
    """
    points: list[Transform] = []
    cells: dict[tuple[int, int], list[Transform]] = {}
    for segment in graph.segments:
        if segment.junction != NO_JUNCTION:
            continue
        for along_m in _spawn_distances_m(segment.length_m):
            point = Transform.from_pose(pose_on(segment, along_m), _SPAWN_POINT_HEIGHT_M)
            if not _is_near_another(point, cells):
                cells.setdefault(_cell_of(point), []).append(point)
                points.append(point)
    if not points:
        # The map has only short lanes or only junctions.
        longest = max(graph.segments, key=lambda segment: segment.length_m)
        points.append(Transform.from_pose(pose_on(longest, 0.5 * longest.length_m), _SPAWN_POINT_HEIGHT_M))
    return tuple(points)


def _spawn_distances_m(length_m: float) -> Sequence[float]:
    """Return the distances along a lane at which vehicles may start, evenly spaced around its middle."""
    room_m = length_m - 2.0 * _SPAWN_POINT_MARGIN_M
    if room_m < 0.0:
        return []
    n_points = 1 + int(room_m / _SPAWN_POINT_DISTANCE_M)
    first_m = 0.5 * (length_m - (n_points - 1) * _SPAWN_POINT_DISTANCE_M)
    return [first_m + number * _SPAWN_POINT_DISTANCE_M for number in range(n_points)]


def _cell_of(point: Transform) -> tuple[int, int]:
    return math.floor(point.x / _MIN_SPAWN_POINT_DISTANCE_M), math.floor(point.y / _MIN_SPAWN_POINT_DISTANCE_M)


def _is_near_another(point: Transform, cells: dict[tuple[int, int], list[Transform]]) -> bool:
    column, row = _cell_of(point)
    for beside in range(column - 1, column + 2):
        for above in range(row - 1, row + 2):
            for other in cells.get((beside, above), ()):
                if math.hypot(other.x - point.x, other.y - point.y) < _MIN_SPAWN_POINT_DISTANCE_M:
                    return True
    return False


def pose_on(segment: LaneSegment, along_m: float) -> Pose:
    """Return the place and direction at a distance along a lane.

    :param segment: the lane
    :param along_m: distance in metres, limited to the lane's length
    """
    points, along = segment.points_m, segment.along_m
    index = int(np.clip(np.searchsorted(along, along_m, side="right") - 1, 0, len(points) - 2))
    step_x, step_y = (points[index + 1] - points[index]).tolist()
    length_m = float(along[index + 1] - along[index])
    part = 0.0
    if length_m > 0.0:
        part = min(1.0, max(0.0, (along_m - float(along[index])) / length_m))
    x, y = points[index].tolist()
    return Pose(x + part * step_x, y + part * step_y, math.atan2(step_y, step_x))
