"""Build the lane graph of a map, from an OpenDRIVE document or from the roads of a built-in map (``network``).

CARLA's client reads OpenDRIVE, so that routes lie on the same lanes as in CARLA. The built-in maps need no client.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.envs.backend import LaneMark
from sb3_visual_td3.envs.road.graph_cache import load_graph, store_graph
from sb3_visual_td3.envs.road.lane_graph import NO_JUNCTION, NO_LANE, LaneGraph, LaneKey, LaneSegment, MarkRun
from sb3_visual_td3.envs.road.lane_survey import GRAPH
from sb3_visual_td3.envs.road.network import End, Neighbour, Road, RoadNetwork
from sb3_visual_td3.envs.road.opendrive_reading import check_opendrive, survey, without_namespace
from sb3_visual_td3.envs.road.sign_reading import signs_of_survey, speed_limits_mps

_SPACING_M = 0.5
_MAX_GAP_M = 1.5
"""A lane is extended to the beginning of the next lane if the gap between them is at most this long."""
_SAME_OFFSET_M = 0.1
"""Marks at two successive points count as the same marks if their offsets differ by at most this."""


@lru_cache(maxsize=16)
def read_graph(text: str, source: str) -> LaneGraph:
    """Return the lane graph of an OpenDRIVE document, from the cache on disk if the cache has it.

    :param text: the document
    :param source: the name of the map, for messages
    :return: the graph, which all environments of the process share
    :raises ImportError: if the graph is not in the cache and CARLA's client is not installed
    :raises ValueError: if the document is not a valid map, or has no lanes to drive on
    """
    graph = load_graph(text)
    if graph is None:
        check_opendrive(text, source)
        graph = graph_from_survey(survey(text, source, GRAPH), source, text)
        store_graph(text, graph)
    return graph


def graph_from_survey(answer: Mapping[str, Any], source: str, text: str) -> LaneGraph:
    """Return the lane graph of a map from the lanes that CARLA's client has read.

    :param answer: the result of ``lane_survey.survey_graph``
    :param source: the name of the map, for messages
    :param text: the OpenDRIVE document, for controllers and speed limits, which CARLA's client does not provide
    :raises ValueError: if the map has no lanes
    """
    rows = answer["segments"]
    if not rows:
        raise ValueError(f"{source}: got no lane of type 'driving', expected at least one; add lanes to its roads")
    text = without_namespace(text)
    number_of = {tuple(row["key"]): number for number, row in enumerate(rows)}
    limits_mps = speed_limits_mps(text)
    segments = []
    for row in rows:
        successors = tuple(number_of[tuple(key)] for key in row["successors"])
        points = _joined_points(row, [rows[number] for number in successors])
        at, n = row["surveyed"], len(points)
        segments.append(
            LaneSegment(
                key=(row["key"][0], row["key"][1], row["key"][2]),
                junction=row["junction"],
                points_m=points,
                width_m=np.interp(np.arange(n), np.arange(len(row["width_m"])), row["width_m"]),
                left_line_m=np.interp(np.arange(n), at, row["left_line_m"]),
                right_line_m=np.interp(np.arange(n), at, row["right_line_m"]),
                marks=_runs(at, [tuple(LaneMark(*mark) for mark in marks) for marks in row["marks"]]),
                successors=successors,
                left=NO_LANE if row["left"] is None else number_of.get(tuple(row["left"]), NO_LANE),
                right=NO_LANE if row["right"] is None else number_of.get(tuple(row["right"]), NO_LANE),
                speed_limit_mps=limits_mps.get(row["key"][0], math.nan),
                footway_m=None if row["footway_m"] is None else (row["footway_m"][0], row["footway_m"][1]),
            )
        )
    return LaneGraph(tuple(segments), float(answer["rise_m"]), signs_of_survey(answer, segments, text))


def _joined_points(row: Mapping[str, Any], after: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
    """Return the points of a lane, ``(n, 2)`` with n >= 2, extended to the beginning of the next lane."""
    points = [np.array((x, y)) for x, y in zip(row["x_m"], row["y_m"], strict=True)]
    begins = [np.array((following["x_m"][0], following["y_m"][0])) for following in after]
    gaps_m = [float(np.linalg.norm(begin - points[-1])) for begin in begins]
    if gaps_m and 0.01 < min(gaps_m) <= _MAX_GAP_M:
        points.append(begins[int(np.argmin(gaps_m))])
    if len(points) == 1:
        heading_rad = row["heading_rad"][0]
        points.append(points[0] + 0.1 * np.array((math.cos(heading_rad), math.sin(heading_rad))))
    return np.stack(points)


def _runs(at: Sequence[int], marks: Sequence[tuple[LaneMark, ...]]) -> tuple[MarkRun, ...]:
    """Divide a lane into parts along which the road marks do not change.

    :param at: indices of the points at which the marks were read
    """
    runs = [MarkRun(0, marks[0])]
    for first, here in zip(at[1:], marks[1:], strict=True):
        if not _are_alike(runs[-1].marks, here):
            runs.append(MarkRun(first, here))
    return tuple(runs)


def _are_alike(one: Sequence[LaneMark], two: Sequence[LaneMark]) -> bool:
    """Return whether two sequences of marks have the same kinds, and offsets that differ by at most 0.1 m."""
    if [mark.kind for mark in one] != [mark.kind for mark in two]:
        return False
    return all(abs(a.offset_m - b.offset_m) <= _SAME_OFFSET_M for a, b in zip(one, two, strict=True))


# Roads of the built-in maps


def graph_from_network(network: RoadNetwork) -> LaneGraph:
    """Return the lane graph of the roads of a built-in map.

    :param network: the roads of the map
    :return: a graph with the same lane keys as the graph of the network's OpenDRIVE document
    """
    lanes = sorted((road.id, 0, lane) for road in network.roads for lane in road.lanes)
    number_of = {key: number for number, key in enumerate(lanes)}
    roads = {road.id: road for road in network.roads}
    after: dict[LaneKey, list[LaneKey]] = {key: [] for key in lanes}
    for key in lanes:
        neighbour = _neighbour_ahead(roads[key[0]], key[2])
        if neighbour is not None and neighbour.kind == "road":
            after[key].append((neighbour.id, 0, _lane_ahead(key[2], neighbour)))
    for junction in network.junctions:
        for path in junction.connections:
            after[path.incoming_road, 0, path.incoming_lane].append((path.connecting_road, 0, -1))
    segments = [
        _own_segment(roads[key[0]], key, network, tuple(number_of[way] for way in sorted(after[key])), number_of)
        for key in lanes
    ]
    return LaneGraph(tuple(segments))


def _neighbour_ahead(road: Road, lane: int) -> Neighbour | None:
    """Return what follows a road in the driving direction of one of its lanes; None if the road ends there."""
    return road.successor if lane < 0 else road.predecessor


def _lane_ahead(lane: int, neighbour: Neighbour) -> int:
    """Return the number of the lane that continues ``lane`` on a neighbouring road."""
    if neighbour.lane is not None:
        return neighbour.lane
    own_end: End = "end" if lane < 0 else "start"
    # Where the end of one road touches the start of the other, both reference lines run the same way, so the lane keeps
    # its number.
    return lane if own_end != neighbour.contact else -lane


def _own_segment(
    road: Road, key: LaneKey, network: RoadNetwork, successors: tuple[int, ...], number_of: Mapping[LaneKey, int]
) -> LaneSegment:
    """Return one lane of a road as a segment of the lane graph."""
    lane = key[2]
    side = math.copysign(1.0, -lane)  # 1 if the lane is driven along the reference line, otherwise -1
    points = road.line_m(network.centre_m(lane), _SPACING_M)
    if lane > 0:
        points = points[::-1]
    # Offsets are measured from the lane's centre, positive to the left in its driving direction.
    offsets = {
        border: side * (network.border_m(border) - network.centre_m(lane))
        for border in range(-road.n_right, road.n_left + 1)
    }
    marks = [LaneMark(offset, paint) for border, offset in offsets.items() if (paint := road.mark(border)) != "none"]
    width = np.full(len(points), network.lane_width_m)
    return LaneSegment(
        key=key,
        junction=NO_JUNCTION if road.junction is None else road.junction,
        points_m=np.ascontiguousarray(points),
        width_m=width,
        left_line_m=np.full(len(points), max(offsets.values())),
        right_line_m=np.full(len(points), min(offsets.values())),
        marks=(MarkRun(0, tuple(sorted(marks, key=lambda mark: mark.offset_m))),),
        successors=successors,
        left=_lane_beside(road, lane, -1, number_of),
        right=_lane_beside(road, lane, 1, number_of),
    )


def _lane_beside(road: Road, lane: int, outward: int, number_of: Mapping[LaneKey, int]) -> int:
    """Return the index of the neighbouring lane to which a car may change from ``lane``, or ``NO_LANE``.

    ``outward`` is 1 for the right neighbour and -1 for the left neighbour, as seen in the driving direction.
    """
    beside = lane + outward * (1 if lane > 0 else -1)
    border = lane if outward > 0 else beside
    if beside == 0 or beside not in road.lanes or road.mark(border) == "solid":
        return NO_LANE
    return number_of[road.id, 0, beside]
