"""Represent the lanes of a map as a graph: edges lead to the lanes that follow a lane, and to lanes beside it.

``graph_reading`` builds the graph, ``graph_cache`` stores it on disk, and ``route_planning`` searches routes on it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import networkx
import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.envs.backend import LaneMark
from sb3_visual_td3.envs.road.road_signs import NO_SIGNS, RoadSigns

LaneKey = tuple[int, int, int]
"""Identifies a lane by the numbers of its road, of a section of this road, and of the lane in this section."""
NO_JUNCTION = -1
NO_LANE = -1
CHANGE_COST_M = 50.0
"""Cost of a lane change in the search for routes. A change must shorten the route by more than this."""
MIN_CHANGE_M = 20.0
"""A route changes lanes only on segments that are at least this long."""


class MarkRun(NamedTuple):
    """Describe a part of a lane along which the road marks do not change."""

    first: int
    """Index of the lane's point at which this part of the lane begins. The part ends where the next ``MarkRun``
    begins."""
    marks: tuple[LaneMark, ...]
    """The marks from right to left, with their offsets from the lane's centre."""


class LanePlace(NamedTuple):
    """Describe a place on a lane of the graph."""

    segment: int
    along_m: float
    """Distance from the beginning of the segment."""


@dataclass(frozen=True, eq=False)
class LaneSegment:
    """Describe one lane in one section of a road by points in driving order, about 0.5 m apart.

    :param key: numbers of the lane in the map file
    :param junction: number of the junction that contains the lane; ``NO_JUNCTION`` outside of junctions
    :param points_m: ``(n, 2) float64``, at least two points: x and y of the centre line
    :param width_m: ``(n,)``: width of the lane
    :param left_line_m: ``(n,)``: offset from the lane's centre to the road's outer line on the left, positive
    :param right_line_m: ``(n,)``: offset from the lane's centre to the road's outer line on the right, negative
    :param marks: the marks of the road, with a new entry where they change; the first entry begins at point 0
    :param successors: indices of the segments that follow
    :param left: index of the segment to the left to which a car may change, or ``NO_LANE``
    :param right: index of the segment to the right to which a car may change, or ``NO_LANE``
    :param speed_limit_mps: speed limit of the road; NaN if the map has none
    :param footway_m: ``(offset, width)`` of the pavement on the right. The offset leads from the lane's centre to the
        middle of the pavement, and is negative. None if there is no pavement.
    """

    key: LaneKey
    junction: int
    points_m: NDArray[np.float64]
    width_m: NDArray[np.float64]
    left_line_m: NDArray[np.float64]
    right_line_m: NDArray[np.float64]
    marks: tuple[MarkRun, ...]
    successors: tuple[int, ...]
    left: int = NO_LANE
    right: int = NO_LANE
    speed_limit_mps: float = math.nan
    footway_m: tuple[float, float] | None = None

    @cached_property
    def along_m(self) -> NDArray[np.float64]:
        """Return for each point its distance from the first point, measured along the lane, ``(n,)``."""
        steps = np.linalg.norm(np.diff(self.points_m, axis=0), axis=1)
        return np.concatenate([[0.0], np.cumsum(steps)])

    @cached_property
    def length_m(self) -> float:
        """Return the length of the lane."""
        return float(self.along_m[-1])

    @cached_property
    def headings_rad(self) -> tuple[float, float]:
        """Return the directions in which the lane begins and ends, each measured over about 2 m."""
        n = min(4, len(self.points_m) - 1)
        first, last = self.points_m[n] - self.points_m[0], self.points_m[-1] - self.points_m[-1 - n]
        return math.atan2(first[1], first[0]), math.atan2(last[1], last[0])


class JunctionWay(NamedTuple):
    """Describe one way through a junction: its segments within the junction, and its change of direction."""

    segments: tuple[int, ...]
    turn_rad: float
    """Change of direction on this way, positive to the left."""


_MAX_WAY_SEGMENTS = 20
"""A way through a junction has at most this many segments. The limit ends the search where segments form a ring."""


_SQUARE_M = 16.0
"""Side of a grid cell. The grid speeds up the search for nearby lanes: a cell holds the points of all lanes near it."""


class _Square(NamedTuple):
    """Hold all lane points in a grid cell and in a margin of the search distance around the cell."""

    x_m: NDArray[np.float64]
    y_m: NDArray[np.float64]
    parts: list[tuple[int, int, int, int]]
    """One tuple ``(lane, first, begin, end)`` for each lane in this cell. ``x_m[begin:end]`` and ``y_m[begin:end]``
    hold the lane's points from the index ``first`` on.
    """


@dataclass(frozen=True, eq=False)
class LaneGraph:
    """Hold all lanes of a map and the links between them.

    :param segments: the lanes; links between them are indices into this tuple
    :param rise_m: difference in height between the highest and the lowest lane
    :param signs: the traffic lights, signs and crosswalks
    """

    segments: tuple[LaneSegment, ...]
    rise_m: float = 0.0
    signs: RoadSigns = NO_SIGNS

    @cached_property
    def digraph(self) -> networkx.DiGraph[int]:
        """Return the lanes as a networkx graph, for the search of shortest routes; its nodes are indices of segments.

        The attribute ``is_change`` of an edge is True for a lane change to the adjacent segment, False for the way to
        the next segment. ``weight`` is the cost of the change, or the length of the segment at which the edge begins.
        """
        graph: networkx.DiGraph[int] = networkx.DiGraph()
        graph.add_nodes_from(range(len(self.segments)))
        for index, segment in enumerate(self.segments):
            # Edges of lane changes are added first. If the adjacent segment is also a successor, the edge to the
            # successor replaces the edge of the lane change.
            for beside in (segment.left, segment.right):
                if beside != NO_LANE and segment.length_m >= MIN_CHANGE_M and segment.junction == NO_JUNCTION:
                    graph.add_edge(index, beside, weight=CHANGE_COST_M, is_change=True)
            for successor in segment.successors:
                graph.add_edge(index, successor, weight=segment.length_m, is_change=False)
        return graph

    @cached_property
    def _bounds(self) -> NDArray[np.float64]:
        """Return (least x, least y) and (greatest x, greatest y) of each segment's points, ``(n_segments, 2, 2)``."""
        return np.stack([(each.points_m.min(axis=0), each.points_m.max(axis=0)) for each in self.segments])

    @cached_property
    def _extent(self) -> tuple[float, float, float, float]:
        """Return the least x, the least y, the greatest x and the greatest y of all lanes."""
        least, greatest = self._bounds[:, 0].min(axis=0), self._bounds[:, 1].max(axis=0)
        return float(least[0]), float(least[1]), float(greatest[0]), float(greatest[1])

    @cached_property
    def _squares(self) -> dict[tuple[float, float, float], _Square]:
        return {}

    def places_near(self, x_m: float, y_m: float, within_m: float) -> list[tuple[float, LanePlace]]:
        """Find the lanes near a point, and return the closest place on each of them, the nearest lane first.

        :param x_m: x of the point in the world
        :param y_m: y of the point in the world
        :param within_m: largest distance from the lane's centre
        :return: for each lane the distance from its centre in metres, and the place
        """
        left_m, low_m, right_m, high_m = self._extent
        if not (left_m - within_m <= x_m <= right_m + within_m and low_m - within_m <= y_m <= high_m + within_m):
            return []
        # The points of a cell are collected only once, because this method is called for vehicles in every step, and
        # only a few of a map's points are near.
        key = (x_m // _SQUARE_M, y_m // _SQUARE_M, within_m)
        square = self._squares.get(key)
        if square is None:
            square = self._squares[key] = self._square(*key)
        distances = np.hypot(square.x_m - x_m, square.y_m - y_m)
        found = []
        for segment, first, begin, end in square.parts:
            closest = int(distances[begin:end].argmin())
            distance_m = float(distances[begin + closest])
            if distance_m <= within_m:
                along_m = float(self.segments[segment].along_m[first + closest])
                found.append((distance_m, LanePlace(segment, along_m)))
        found.sort()
        return found

    def _square(self, column: float, row: float, within_m: float) -> _Square:
        """Return all lane points in a grid cell and in a margin of ``within_m`` around the cell.

        ``column`` and ``row`` are x and y of the cell in multiples of its side.
        """
        # (2,): the corners of the cell with its surroundings.
        low = _SQUARE_M * np.array((column, row)) - within_m
        high = _SQUARE_M * np.array((column + 1.0, row + 1.0)) + within_m
        is_near = (low <= self._bounds[:, 1]) & (high >= self._bounds[:, 0])
        parts, points = [], [np.empty((0, 2))]
        n_points = 0
        for index in np.flatnonzero(is_near.all(axis=1)).tolist():
            all_points = self.segments[index].points_m
            inside = np.flatnonzero(((all_points >= low) & (all_points <= high)).all(axis=1))
            if inside.size:
                # A lane may leave the surroundings of the cell and return: the points between are kept too.
                first, end = int(inside[0]), int(inside[-1]) + 1
                parts.append((index, first, n_points, n_points + end - first))
                points.append(all_points[first:end])
                n_points += end - first
        x_m, y_m = np.concatenate(points).T
        return _Square(np.ascontiguousarray(x_m), np.ascontiguousarray(y_m), parts)

    def junction_ways(self, incoming: int) -> list[JunctionWay]:
        """Return the ways through the junction to which a lane leads; cached.

        :param incoming: index of a segment outside of junctions
        :return: an empty list if no junction follows
        """
        if incoming not in self._ways:
            self._ways[incoming] = self._find_ways(incoming)
        return self._ways[incoming]

    @cached_property
    def _ways(self) -> dict[int, list[JunctionWay]]:
        return {}

    def _find_ways(self, incoming: int) -> list[JunctionWay]:
        """Return all ways through the junction after a lane, by following successors until they leave the junction."""
        ways = []
        open_paths: list[tuple[int, ...]] = [(first,) for first in self.segments[incoming].successors]
        while open_paths:
            path = open_paths.pop()
            last = self.segments[path[-1]]
            if last.junction == NO_JUNCTION:
                continue
            after = [way for way in last.successors if self.segments[way].junction == last.junction]
            if after and len(path) < _MAX_WAY_SEGMENTS:
                open_paths += [(*path, way) for way in after if way not in path]
            else:
                enters_rad = self.segments[incoming].headings_rad[1]
                ways.append(JunctionWay(path, self._turn_rad(enters_rad, path)))
        return ways

    def _turn_rad(self, enters_rad: float, path: tuple[int, ...]) -> float:
        """Return by how many radians a way through a junction turns, positive to the left; it may turn more than pi."""
        # The change is summed over the segments: a way around a roundabout turns by more than 180 degrees, and the
        # difference of two headings would have the wrong sign.
        turn_rad, heading_rad = 0.0, enters_rad
        for index in path:
            for next_rad in self.segments[index].headings_rad:
                turn_rad += math.remainder(next_rad - heading_rad, 2.0 * math.pi)
                heading_rad = next_rad
        return turn_rad

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the graph as arrays of numbers and text, without Python objects."""
        segments = self.segments
        links = [(index, after) for index, segment in enumerate(segments) for after in segment.successors]
        marks = [[(run.first, [list(mark) for mark in run.marks]) for run in segment.marks] for segment in segments]
        return {
            "keys": np.array([segment.key for segment in segments], np.int64),
            "junctions": np.array([segment.junction for segment in segments], np.int64),
            "n_points": np.array([len(segment.points_m) for segment in segments], np.int64),
            "points_m": np.concatenate([segment.points_m for segment in segments]),
            "width_m": np.concatenate([segment.width_m for segment in segments]),
            "left_line_m": np.concatenate([segment.left_line_m for segment in segments]),
            "right_line_m": np.concatenate([segment.right_line_m for segment in segments]),
            "links": np.array(links, np.int64).reshape(-1, 2),
            "beside": np.array([(segment.left, segment.right) for segment in segments], np.int64),
            "marks": np.array(json.dumps(marks)),
            "rise_m": np.array(self.rise_m),
            "speed_limits_mps": np.array([segment.speed_limit_mps for segment in segments]),
            "footways_m": np.array([segment.footway_m or (math.nan, math.nan) for segment in segments]),
            "signs": np.array(self.signs.to_json()),
        }


def graph_from_arrays(arrays: Mapping[str, NDArray[Any]]) -> LaneGraph:
    """Rebuild a graph from the arrays that ``LaneGraph.to_arrays`` returned.

    :param arrays: the arrays by name
    :return: a new graph
    """
    ends = np.cumsum(arrays["n_points"])[:-1]
    columns = [np.split(arrays[name], ends) for name in ("points_m", "width_m", "left_line_m", "right_line_m")]
    successors: list[list[int]] = [[] for _ in arrays["keys"]]
    for before, after in arrays["links"].tolist():
        successors[before].append(after)
    marks = json.loads(str(arrays["marks"]))
    segments = []
    limits_mps, footways_m = arrays["speed_limits_mps"].tolist(), arrays["footways_m"].tolist()
    for index, (key, junction, beside) in enumerate(
        zip(arrays["keys"].tolist(), arrays["junctions"].tolist(), arrays["beside"].tolist(), strict=True)
    ):
        offset_m, footway_width_m = footways_m[index]
        points_m, width_m, left_line_m, right_line_m = (column[index] for column in columns)
        runs = tuple(MarkRun(first, tuple(LaneMark(*mark) for mark in row)) for first, row in marks[index])
        segments.append(
            LaneSegment(
                (key[0], key[1], key[2]),
                junction,
                points_m,
                width_m,
                left_line_m,
                right_line_m,
                runs,
                tuple(successors[index]),
                beside[0],
                beside[1],
                speed_limit_mps=limits_mps[index],
                footway_m=None if math.isnan(offset_m) else (offset_m, footway_width_m),
            )
        )
    return LaneGraph(tuple(segments), float(arrays["rise_m"]), RoadSigns.from_json(str(arrays["signs"])))
