"""Build maps for routes to a goal; each map has a lane graph, the ground and the panorama."""

from __future__ import annotations

import logging
import zlib
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.envs.road.graph_reading import graph_from_network, read_graph
from sb3_visual_td3.envs.road.ground import Ground, GroundPlan, Strip, build_ground, build_panorama, mark_strips
from sb3_visual_td3.envs.road.lane_graph import LaneGraph, LaneSegment
from sb3_visual_td3.envs.road.maps import OPENDRIVE_SUFFIX, load_map
from sb3_visual_td3.envs.road.network import Paint
from sb3_visual_td3.envs.road.opendrive_reading import KnownMaps, map_of_file, read_opendrive

MAX_SIDE_M = 3000.0
"""A map is rejected if it extends farther than this along x or y, because OpenCV cannot read a raster with more
than 32,767 texels along a side."""
MAX_AREA_M2 = 4e6
"""A map is rejected if its area is larger than this. Painting a map of this area takes about 1.2 GB."""
_SHOULDER_M = 0.4
_SAME_PLACE_M = 0.3
_FLAT_RISE_M = 1.0
_LOG = logging.getLogger("sb3_visual_td3")


class RouteMap(NamedTuple):
    """Hold the lane graph of a map, and the ground and the panorama to draw."""

    name: str
    """Name of the map. It must be unique, because cameras use it as a cache key."""
    graph: LaneGraph
    ground: Ground
    panorama: NDArray[np.uint8]


def load_route_map(name: str) -> RouteMap:
    """Return a map with its lane graph, which is built at the first call and then shared by all worlds of the process.

    A file is read again if it has changed. Worlds that have loaded it before keep the map that they have. The world is
    flat: heights are ignored, and a warning is logged if the roads rise by more than 1 m.

    :param name: a name in ``MAP_GROUPS``, or the path of an OpenDRIVE file
    :raises ImportError: if the file is not in the cache and CARLA's client is not installed
    :raises ValueError: if there is no such map, or the map is too large
    """
    if name.endswith(OPENDRIVE_SUFFIX):
        return map_of_file(name, _read_map, _MAPS_OF_FILES)
    return _built_in_map(name)


_MAPS_OF_FILES: KnownMaps[RouteMap] = {}


def _read_map(path: str, name: str) -> RouteMap:
    """Return the map of an OpenDRIVE file with its lane graph."""
    return route_map_of_text(read_opendrive(path), path, f"{name} with all lanes")


@cache
def _built_in_map(name: str) -> RouteMap:
    """Return a built-in map with its lane graph."""
    scene = load_map(name)
    assert scene.network is not None, "built-in maps have roads"
    return RouteMap(name, graph_from_network(scene.network), scene.ground, scene.panorama)


def route_map_of_text(text: str, source: str, name: str) -> RouteMap:
    """Build the map of an OpenDRIVE document.

    :param text: the document
    :param source: the name of the document's source, for messages
    :param name: the name of the new map
    :raises ImportError: if the document is not in the cache and CARLA's client is not installed
    :raises ValueError: if the document is not a valid map, or the map is too large
    """
    graph = read_graph(text, source)
    low, high = extent_m(graph)
    check_size(high - low, source)
    if graph.rise_m > _FLAT_RISE_M:
        _LOG.warning(
            "%s: its roads rise by %.0f m; they are driven and drawn as if they were flat", source, graph.rise_m
        )
    # The random values of the ground are seeded by the text, so that the same file always looks the same.
    rng = np.random.default_rng(zlib.crc32(text.encode()))
    ground = build_ground(lane_plan(graph), rng)
    return RouteMap(name, graph, ground, build_panorama(rng))


def check_size(size_m: NDArray[np.float64], source: str) -> None:
    """Raise an error if a map is too large to be painted.

    :param size_m: ``(2,)``: extent along x and y, in metres
    :param source: the name of the map's source, for the message
    :raises ValueError: if a side or the area is too large
    """
    width_m, height_m = size_m.tolist()
    if max(width_m, height_m) > MAX_SIDE_M or width_m * height_m > MAX_AREA_M2:
        raise ValueError(
            f"{source}: got a map of {width_m:.0f} m x {height_m:.0f} m, expected at most {MAX_SIDE_M:g} m per side "
            f"and {MAX_AREA_M2 / 1e6:g} square kilometres; use a part of the map"
        )


def extent_m(graph: LaneGraph) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the least and the greatest x and y of all lanes."""
    points = np.concatenate([segment.points_m for segment in graph.segments])
    return points.min(axis=0), points.max(axis=0)


def lane_plan(graph: LaneGraph) -> GroundPlan:
    """Return the strips to paint on the ground for the lanes of a graph: the asphalt and the marks of each lane.

    :param graph: the lanes of the map
    """
    paved: list[Strip] = []
    marks: list[Strip] = []
    for segment in graph.segments:
        paved.append(Strip(segment.points_m, float(np.median(segment.width_m)) + 2.0 * _SHOULDER_M))
        firsts = [run.first for run in segment.marks]
        for number, run in enumerate(segment.marks):
            end = firsts[number + 1] + 1 if number + 1 < len(firsts) else len(segment.points_m)
            if end - run.first < 2:
                continue
            for side in (1.0, -1.0):
                marks += _marks_at(segment, run.first, end, side)
    return GroundPlan(tuple(paved), tuple(marks))


def _marks_at(segment: LaneSegment, first: int, end: int, side: float) -> list[Strip]:
    """Return the strips to paint for the road mark on one side of a part of a lane.

    :param side: 1 for the left side, -1 for the right side
    """
    width_m = segment.width_m[first:end]
    run = next(run for run in segment.marks if run.first == first)
    near = [mark for mark in run.marks if abs(mark.offset_m - side * 0.5 * width_m[0]) < _SAME_PLACE_M]
    if not near:
        return []
    points = segment.points_m[first:end]
    ahead = np.gradient(points, axis=0)
    left = np.stack([-ahead[:, 1], ahead[:, 0]], axis=1) / np.maximum(np.linalg.norm(ahead, axis=1), 1e-9)[:, None]
    kind: Paint = near[0].kind
    length_m = float(segment.along_m[end - 1] - segment.along_m[first])
    return mark_strips(points + side * 0.5 * width_m[:, None] * left, kind, length_m)
