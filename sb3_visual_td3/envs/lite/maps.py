"""The named maps: each a road, the ground it lies on and what stands around it."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.envs.lite.ground import Ground, build_ground
from sb3_visual_td3.envs.lite.panorama import build_panorama
from sb3_visual_td3.envs.lite.track import Track, build_track

MAP_GROUPS: dict[str, tuple[str, ...]] = {
    "train": tuple(f"train_{i}" for i in range(8)),
    "held_out": tuple(f"held_out_{i}" for i in range(2)),
}
"""The names of the maps; what is held out is never driven in training."""

_SEEDS = {name: seed for seed, name in enumerate(name for group in MAP_GROUPS.values() for name in group)}


class LiteMap(NamedTuple):
    """All that a world needs to know of one map."""

    name: str
    track: Track
    ground: Ground
    panorama: NDArray[np.uint8]


@cache
def load_map(name: str) -> LiteMap:
    """Return the map of this name, built when first asked for and then kept by the process.

    Roads with an even seed are driven counter-clockwise, the others clockwise, so that each group has both.

    :raises ValueError: if there is no such map.
    """
    if name not in _SEEDS:
        raise ValueError(f"map {name!r}: expected one of {sorted(_SEEDS)}; choose from these")
    seed = _SEEDS[name]
    track = build_track(seed, is_clockwise=seed % 2 == 1)
    rng = np.random.default_rng([seed, 1])
    return LiteMap(name, track, build_ground(track, rng), build_panorama(rng))
