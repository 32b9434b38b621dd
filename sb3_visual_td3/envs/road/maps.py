"""Build the built-in maps. Each map consists of roads, a route on these roads, the ground, and a panorama."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.envs.road.ground import Ground, build_ground, build_panorama, ground_plan
from sb3_visual_td3.envs.road.network import (
    APPROACH_M,
    LANE_WIDTH_M,
    REACH_M,
    RoadNetwork,
    crossed_network,
    loop_network,
)
from sb3_visual_td3.envs.road.opendrive_reading import KnownMaps, load_opendrive, map_of_file
from sb3_visual_td3.envs.road.shapes import random_loop
from sb3_visual_td3.envs.road.streets import street_network
from sb3_visual_td3.envs.road.track import Track, route_track

OPENDRIVE_SUFFIX = ".xodr"
MIN_RADIUS_M = 14.0
"""Smallest radius of the lane that a route follows. A car at full lock turns with a radius of 8 m."""


class MapPlan(NamedTuple):
    """Define the seed, the lanes and the streets from which a map is built."""

    seed: int
    n_left: int = 1
    n_right: int = 1
    sides: tuple[int, ...] = ()
    """Side roads of the junction: 1 to the left, -1 to the right; empty for a map without a junction."""
    grid: tuple[int, int] | None = None
    """Numbers of columns and rows of a grid of streets; None for a map with one closed loop of road."""


MAP_GROUPS: dict[str, tuple[str, ...]] = {
    "train": tuple(f"train_{i}" for i in range(8)),
    "held_out": tuple(f"held_out_{i}" for i in range(2)),
    "junction": ("junction_0", "junction_1"),
    "wide": ("three_lanes_0", "four_lanes_0"),
    "streets": tuple(f"streets_{i}" for i in range(6)),
    "streets_held_out": tuple(f"streets_held_out_{i}" for i in range(2)),
}
"""The names of the maps by group. By default, an environment uses the maps of the group ``"train"``."""

# The number of a map is its seed. It must never change, because published results refer to the map by its name.
_PLANS = {
    **{name: MapPlan(seed) for seed, name in enumerate((*MAP_GROUPS["train"], *MAP_GROUPS["held_out"]))},
    "junction_0": MapPlan(10, sides=(1, -1)),
    "junction_1": MapPlan(11, sides=(-1,)),
    "three_lanes_0": MapPlan(12, n_right=2),
    "four_lanes_0": MapPlan(13, n_left=2, n_right=2),
    **{name: MapPlan(20 + i, grid=(3 + i % 2, 3)) for i, name in enumerate(MAP_GROUPS["streets"])},
    **{name: MapPlan(40 + i, grid=(3 + i % 2, 3)) for i, name in enumerate(MAP_GROUPS["streets_held_out"])},
}
ROUTE_MAP_GROUPS: dict[str, tuple[str, ...]] = {
    **MAP_GROUPS,
    "train": MAP_GROUPS["streets"],
    "held_out": MAP_GROUPS["streets_held_out"],
}
"""The names of the maps of ``LiteRoutes-v0`` by group. Here, ``"train"`` and ``"held_out"`` are maps with streets, not
with a closed loop of road.
"""


class LiteMap(NamedTuple):
    """Hold the parts of a map that a simulator needs: the closed route, and the ground and panorama to draw."""

    name: str
    """Name of the map. It must be unique, because cameras use it as a cache key."""
    track: Track
    ground: Ground
    panorama: NDArray[np.uint8]
    network: RoadNetwork | None = None
    """The roads; ``None`` for a map that was read from a file."""
    text: str = ""
    """The OpenDRIVE document of a map that was read from a file."""


class Scene(Protocol):
    """Define the parts of a map that a camera draws: the ground and the panorama."""

    @property
    def name(self) -> str:
        """Return the name of the scene. It must be unique, because cameras use it as a cache key."""

    @property
    def ground(self) -> Ground:
        """Return the ground of the map as a raster."""

    @property
    def panorama(self) -> NDArray[np.uint8]:
        """Return the panorama, a picture of the surroundings in all directions."""


def load_map(name: str) -> LiteMap:
    """Return a map, which is built at the first call and then shared by all worlds of the process.

    A file is read again if it has changed. Worlds that have loaded it before keep the map that they have.

    :param name: a name in ``MAP_GROUPS``, or the path of an OpenDRIVE file, ``.xodr``
    :raises ValueError: if there is no such map, or the file is not a valid map with a closed route
    :raises ImportError: if the name is a file and CARLA's client is not installed
    """
    if name.endswith(OPENDRIVE_SUFFIX):
        return map_of_file(name, _read_map, _MAPS_OF_FILES)
    return _built_in_map(name)


_MAPS_OF_FILES: KnownMaps[LiteMap] = {}


def _read_map(path: str, name: str) -> LiteMap:
    """Return the map of an OpenDRIVE file."""
    road = load_opendrive(path)
    return LiteMap(name, road.track, road.ground, road.panorama, text=road.text)


@cache
def _built_in_map(name: str) -> LiteMap:
    """Return a built-in map."""
    if name not in _PLANS:
        raise ValueError(f"map {name!r}: expected one of {sorted(_PLANS)}, or the path of an OpenDRIVE file (.xodr)")
    return build_map(name, _PLANS[name])


def build_map(name: str, plan: MapPlan) -> LiteMap:
    """Build a map; the same plan gives the same bytes.

    :param name: name of the map
    :param plan: the plan of the roads to build
    """
    network = build_network(plan)
    rng = np.random.default_rng([plan.seed, 1])
    ground = build_ground(ground_plan(network), rng)
    return LiteMap(name, route_track(network), ground, build_panorama(rng), network)


def build_network(plan: MapPlan) -> RoadNetwork:
    """Build the roads of a map from its plan.

    The route runs counter-clockwise if ``plan.seed`` is even, otherwise clockwise.

    :param plan: the plan of the roads to build
    """
    rng = np.random.default_rng(plan.seed)
    is_clockwise = plan.seed % 2 == 1
    if plan.grid is not None:
        return street_network(rng, *plan.grid, is_clockwise=is_clockwise)
    # The route keeps the outermost lane on the right, (n_right - 0.5) lanes from the reference line. In a bend to the
    # right this lane is the inner lane, so the radius of the reference line must be larger by this distance. A margin
    # of 0.1 m is added.
    min_radius_m = MIN_RADIUS_M + 0.1 + (plan.n_right - 0.5) * LANE_WIDTH_M
    if not plan.sides:
        shape = random_loop(rng, is_clockwise=is_clockwise, min_radius_m=min_radius_m)
        return loop_network(shape, n_left=plan.n_left, n_right=plan.n_right)
    # Room for the junction and for a straight approach on either side. Random loops are generated until the side roads
    # fit.
    straight_m = 2.0 * (REACH_M + APPROACH_M)
    while True:
        shape = random_loop(rng, is_clockwise=is_clockwise, min_radius_m=min_radius_m, min_straight_m=straight_m)
        network = crossed_network(shape, sides=plan.sides)
        if network is not None:
            return network
