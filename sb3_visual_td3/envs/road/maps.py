"""The named maps: each a road, the ground that it lies on and the panorama around it."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

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
from sb3_visual_td3.envs.road.opendrive_reading import load_opendrive
from sb3_visual_td3.envs.road.shapes import random_loop
from sb3_visual_td3.envs.road.track import Track, route_track

OPENDRIVE_SUFFIX = ".xodr"
MIN_RADIUS_M = 14.0
"""Of the sharpest bend of a lane that a route keeps."""


class MapPlan(NamedTuple):
    """What one map is built from."""

    seed: int
    n_left: int = 1
    n_right: int = 1
    sides: tuple[int, ...] = ()
    """Side roads of the junction: 1 to the left, -1 to the right; none: no junction."""


MAP_GROUPS: dict[str, tuple[str, ...]] = {
    "train": tuple(f"train_{i}" for i in range(8)),
    "held_out": tuple(f"held_out_{i}" for i in range(2)),
    "junction": ("junction_0", "junction_1"),
    "wide": ("three_lanes_0", "four_lanes_0"),
}
"""The names of the maps; only the first group is driven in training unless a user says otherwise."""

_PLANS = {
    **{name: MapPlan(seed) for seed, name in enumerate((*MAP_GROUPS["train"], *MAP_GROUPS["held_out"]))},
    "junction_0": MapPlan(10, sides=(1, -1)),
    "junction_1": MapPlan(11, sides=(-1,)),
    "three_lanes_0": MapPlan(12, n_right=2),
    "four_lanes_0": MapPlan(13, n_left=2, n_right=2),
}


class LiteMap(NamedTuple):
    """All that a world needs to know of one map."""

    name: str
    track: Track
    ground: Ground
    panorama: NDArray[np.uint8]
    network: RoadNetwork | None = None
    """The roads; ``None`` for a map that was not built from them."""


@cache
def load_map(name: str) -> LiteMap:
    """Return the map of this name, built when first asked for and then kept by the process.

    :param name: one of ``MAP_GROUPS``, or the path of an OpenDRIVE file, ``.xodr``.
    :raises ValueError: if there is no such map, or the file cannot be driven on.
    :raises ImportError: if it is a file and CARLA's client, which reads it, is not installed.
    """
    if name.endswith(OPENDRIVE_SUFFIX):
        return LiteMap(name, *load_opendrive(name))
    if name not in _PLANS:
        raise ValueError(f"map {name!r}: expected one of {sorted(_PLANS)} or a path ending in .xodr; choose from these")
    return build_map(name, _PLANS[name])


def build_map(name: str, plan: MapPlan) -> LiteMap:
    """Return a new map; the same plan gives the same bytes.

    Roads with an even seed are driven counter-clockwise, the others clockwise, so that each group has both.
    """
    network = build_network(plan)
    rng = np.random.default_rng([plan.seed, 1])
    ground = build_ground(ground_plan(network), rng)
    return LiteMap(name, route_track(network), ground, build_panorama(rng), network)


def build_network(plan: MapPlan) -> RoadNetwork:
    """Return the roads of ``plan``; the lane of the route bends with a radius of 14 m or more."""
    rng = np.random.default_rng(plan.seed)
    is_clockwise = plan.seed % 2 == 1
    # Of a bend to the right the outermost lane is the inner one: it needs the wider line.
    min_radius_m = MIN_RADIUS_M + 0.1 + (plan.n_right - 0.5) * LANE_WIDTH_M
    if not plan.sides:
        shape = random_loop(rng, is_clockwise=is_clockwise, min_radius_m=min_radius_m)
        return loop_network(shape, n_left=plan.n_left, n_right=plan.n_right)
    straight_m = 2.0 * (REACH_M + APPROACH_M)
    while True:
        shape = random_loop(rng, is_clockwise=is_clockwise, min_radius_m=min_radius_m, min_straight_m=straight_m)
        network = crossed_network(shape, sides=plan.sides)
        if network is not None:
            return network
