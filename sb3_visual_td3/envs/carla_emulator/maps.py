"""The maps of the emulator: the embedded world's, under their own names and some of CARLA's."""

from __future__ import annotations

from functools import cache

import numpy as np

from sb3_visual_td3.envs.carla_emulator.protocol import CallError
from sb3_visual_td3.envs.carla_emulator.records import Transform
from sb3_visual_td3.envs.road.carla_coordinates import Pose, map_name_of
from sb3_visual_td3.envs.road.maps import MAP_GROUPS, LiteMap, load_map
from sb3_visual_td3.envs.road.opendrive_writing import to_opendrive

ALIASES = {
    "Town01": "train_0",
    "Town02": "held_out_0",
    "Town03": "junction_0",
    "Town04": "four_lanes_0",
    "Town05": "three_lanes_0",
    "Town10HD": "junction_1",
    "Town10HD_Opt": "junction_1",
}
"""So that scripts that name CARLA's towns run: what they find there is a road of the embedded world."""
NAMES = tuple(name for group in MAP_GROUPS.values() for name in group)
_FOLDER = "/Game/Carla/Maps/"
_SPAWN_EVERY_M = 20.0
_SPAWN_HEIGHT_M = 0.5


def available() -> list[str]:
    """Return the names of all maps, as CARLA writes them."""
    return [_FOLDER + name for name in (*NAMES, *ALIASES)]


def find(name: str) -> str:
    """Return the short name of a map.

    :raises CallError: if there is none of this name.
    """
    short = map_name_of(name)
    if short not in NAMES and short not in ALIASES:
        raise CallError(f"map not found: {name}")
    return short


def scene_of(name: str) -> LiteMap:
    """Return the map of this short name."""
    return load_map(ALIASES.get(name, name))


@cache
def opendrive_of(name: str) -> str:
    """Return the map as OpenDRIVE."""
    return to_opendrive(scene_of(name))


@cache
def spawn_points_of(name: str) -> tuple[Transform, ...]:
    """Return where vehicles are best spawned: along every lane of the roads outside of junctions."""
    network = scene_of(name).network
    assert network is not None
    points = []
    for road in network.roads:
        if road.junction is not None:
            continue
        for lane in road.lanes:
            line = road.line_m(network.centre_m(lane), 1.0)
            steps = np.diff(line, axis=0)
            turned = 0.0 if lane < 0 else np.pi
            for index in range(int(0.5 * _SPAWN_EVERY_M), len(steps) - 5, int(_SPAWN_EVERY_M)):
                heading = float(np.arctan2(steps[index, 1], steps[index, 0])) + turned
                x, y = line[index].tolist()
                points.append(Transform.of_pose(Pose(x, y, heading), _SPAWN_HEIGHT_M))
    return tuple(points)
