"""Find where pedestrians can walk on a map: walkways beside the roads, and crossings between the walkways.

The walkways are the map's lanes of type ``sidewalk``. On a map without such lanes, they are the shoulders of the roads.
The crossings lie at the map's crosswalks. On a map without crosswalks, they lie before junctions and in the middle of
long roads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.envs.road.lane_graph import NO_JUNCTION, LaneGraph, LaneSegment

_STEP_M = 4.0
"""Approximate length of a piece of a walkway."""
_SHOULDER_GAP_M, _SHOULDER_WIDTH_M = 0.6, 1.6
"""Gap between the road's outer line and a walkway on the shoulder, and width of this walkway."""
_CLEARANCE_M = 0.05
"""Pieces of a walkway that are closer than this to the edge of a lane are left out."""
_NEAR_M = 5.0
"""Only lanes whose centre is closer than this to a piece of a walkway are tested for overlap with the piece."""
_JOIN_M = 1.5
"""Ends of walkways that are closer to each other than this are merged."""
_BRIDGE_M = 15.0
"""Ends of walkways that are closer to each other than this, as at the corner of a junction, are joined by an
additional piece."""
_MAX_CROSSING_M = 30.0
_CROSSWALK_REACH_M = 6.0
"""A crosswalk joins two walkways if each end of the crosswalk is closer than this to one of the walkways."""
_LONG_ROAD_M = 60.0
_MIN_AREA_M2 = 0.5


class Footways(NamedTuple):
    """Hold a mesh of convex quadrangles on which pedestrians walk."""

    corners_m: NDArray[np.float64]
    """``(n_corners, 2)``: x and y."""
    quads: NDArray[np.int64]
    """``(n_quads, 4)``: indices of corners, clockwise. In a quadrangle of a walkway, the first two corners lie at the
    road."""
    beyond: NDArray[np.int64]
    """``(n_quads, 4)``: index of the neighbouring quadrangle at each side, -1 at an edge. Side ``i`` leads from corner
    ``i`` to corner ``i + 1``.
    """
    is_crossing: NDArray[np.bool_]
    """``(n_quads,)``: True where the quadrangle crosses the road."""


class _Mesh:
    """Build the mesh of :class:`Footways`: add corners and quadrangles, and join neighbouring quadrangles."""

    def __init__(self) -> None:
        self.corners: list[tuple[float, float]] = []
        self.quads: list[list[int]] = []
        self.beyond: list[list[int]] = []
        self.is_crossing: list[bool] = []

    def corner(self, point: NDArray[np.float64]) -> int:
        self.corners.append((float(point[0]), float(point[1])))
        return len(self.corners) - 1

    def add(self, quad: Sequence[int], *, is_crossing: bool = False) -> int:
        self.quads.append(list(quad))
        self.beyond.append([-1] * 4)
        self.is_crossing.append(is_crossing)
        return len(self.quads) - 1

    def join(self, one: int, side: int, two: int, other_side: int) -> None:
        self.beyond[one][side], self.beyond[two][other_side] = two, one

    def side_middle(self, quad: int, side: int) -> NDArray[np.float64]:
        first, second = self.quads[quad][side], self.quads[quad][(side + 1) % 4]
        (x1, y1), (x2, y2) = self.corners[first], self.corners[second]
        return np.array((0.5 * (x1 + x2), 0.5 * (y1 + y2)))


# Sides of a walkway's piece, in the order of its corners.
_ROADSIDE, _AHEAD, _BEHIND = 0, 1, 3


def footways_of(graph: LaneGraph) -> Footways:
    """Return the walkways and crossings on which pedestrians can walk on a map.

    :param graph: the lanes of the map
    :return: an empty mesh if there is no room beside any road
    """
    mesh = _Mesh()
    strips = []
    for number, offset_m, width_m in _strips_of(graph):
        pieces = list(_add_strip(mesh, graph, graph.segments[number], offset_m, width_m))
        if pieces:
            strips.append((number, pieces))
    _join_ends(mesh, [pieces for _, pieces in strips])
    _bridge_ends(mesh, graph, [pieces for _, pieces in strips])
    if graph.signs.crosswalks:
        for corners in graph.signs.crosswalks:
            _add_crosswalk(mesh, np.array(corners))
    else:
        for number, pieces in strips:
            for piece in _crossing_pieces(graph, number, pieces):
                _add_crossing(mesh, graph.segments[number], piece)
    return Footways(
        np.array(mesh.corners, np.float64).reshape(-1, 2),
        np.array(mesh.quads, np.int64).reshape(-1, 4),
        np.array(mesh.beyond, np.int64).reshape(-1, 4),
        np.array(mesh.is_crossing, np.bool_),
    )


def _strips_of(graph: LaneGraph) -> Iterator[tuple[int, float, float]]:
    """Yield each walkway: index of the lane beside it, offset of the walkway from the lane's centre, and width."""
    has_pavements = any(segment.footway_m is not None for segment in graph.segments)
    for number, segment in enumerate(graph.segments):
        if segment.footway_m is not None:
            yield number, *segment.footway_m
        elif not has_pavements:
            middle = len(segment.points_m) // 2
            right_m = float(segment.right_line_m[middle])
            # The right edge of the outermost lane is the edge of the road.
            if abs(right_m + 0.5 * float(segment.width_m[middle])) < 0.2:
                yield number, right_m - _SHOULDER_GAP_M - 0.5 * _SHOULDER_WIDTH_M, _SHOULDER_WIDTH_M


def _add_strip(mesh: _Mesh, graph: LaneGraph, segment: LaneSegment, offset_m: float, width_m: float) -> Iterator[int]:
    """Add a walkway beside a lane, piece by piece, and yield the index of each piece.

    A piece that would overlap a lane, or is not convex, is left out.
    """
    n_pieces = max(1, round(segment.length_m / _STEP_M))
    along = np.linspace(0.0, segment.length_m, n_pieces + 1)
    points = np.stack([np.interp(along, segment.along_m, segment.points_m[:, axis]) for axis in (0, 1)], axis=1)
    ahead = np.gradient(points, axis=0)
    left = np.stack([-ahead[:, 1], ahead[:, 0]], axis=1)
    left /= np.maximum(np.linalg.norm(left, axis=1), 1e-9)[:, None]
    near = points + (offset_m + 0.5 * width_m) * left
    far = points + (offset_m - 0.5 * width_m) * left
    before = -1
    corners_before: tuple[int, int] | None = None
    for index in range(n_pieces):
        outline = np.stack([near[index], near[index + 1], far[index + 1], far[index]])
        if not _is_convex(outline) or not _is_beside_the_road(graph, outline):
            before, corners_before = -1, None
            continue
        if corners_before is None:
            corners_before = mesh.corner(near[index]), mesh.corner(far[index])
        corners_after = mesh.corner(near[index + 1]), mesh.corner(far[index + 1])
        piece = mesh.add((corners_before[0], corners_after[0], corners_after[1], corners_before[1]))
        if before >= 0:
            mesh.join(before, _AHEAD, piece, _BEHIND)
        before, corners_before = piece, corners_after
        yield piece


def _is_convex(outline: NDArray[np.float64]) -> bool:
    """Return whether a quadrangle is convex, clockwise seen from above, and not too small."""
    sides = np.roll(outline, -1, axis=0) - outline
    after = np.roll(sides, -1, axis=0)
    turns = sides[:, 0] * after[:, 1] - sides[:, 1] * after[:, 0]
    return bool((turns < 0.0).all()) and -0.5 * float(turns[0] + turns[2]) > _MIN_AREA_M2


def _is_beside_the_road(graph: LaneGraph, outline: NDArray[np.float64]) -> bool:
    """Return whether a piece of a walkway lies beside the road: neither its corners nor its middle are on a lane."""
    for x_m, y_m in (*outline.tolist(), outline.mean(axis=0).tolist()):
        for gap_m, place in graph.places_near(x_m, y_m, _NEAR_M):
            segment = graph.segments[place.segment]
            if gap_m < 0.5 * float(segment.width_m[len(segment.width_m) // 2]) + _CLEARANCE_M:
                return False
    return True


def _join_ends(mesh: _Mesh, strips: Sequence[Sequence[int]]) -> None:
    """Join each walkway's open end to the nearest open beginning, by moving the corners of the beginning.

    An end is open if no piece follows it, and a beginning is open if no piece precedes it.
    """
    pieces = [piece for strip in strips for piece in strip]
    ends = [piece for piece in pieces if mesh.beyond[piece][_AHEAD] < 0]
    begins = [piece for piece in pieces if mesh.beyond[piece][_BEHIND] < 0]
    if not ends or not begins:
        return
    # (n, 2, 2): the two corners of each end and of each beginning, the corner near the road first.
    end_corners = np.array([[mesh.corners[mesh.quads[piece][corner]] for corner in (1, 2)] for piece in ends])
    begin_corners = np.array([[mesh.corners[mesh.quads[piece][corner]] for corner in (0, 3)] for piece in begins])
    gaps_m = np.linalg.norm(end_corners[:, None] - begin_corners[None], axis=3).max(axis=2)
    taken: set[int] = set()
    for row, piece in enumerate(ends):
        for column in np.argsort(gaps_m[row])[:3].tolist():
            other = begins[column]
            if gaps_m[row, column] > _JOIN_M or column in taken or other == piece:
                continue
            kept = [mesh.quads[piece][corner] for corner in (1, 2)]
            moved = [kept[0], mesh.quads[other][1], mesh.quads[other][2], kept[1]]
            if not _is_convex(np.array([mesh.corners[corner] for corner in moved])):
                continue
            mesh.quads[other] = moved
            mesh.join(piece, _AHEAD, other, _BEHIND)
            taken.add(column)
            break


def _bridge_ends(mesh: _Mesh, graph: LaneGraph, strips: Sequence[Sequence[int]]) -> None:
    """Add pieces that connect open ends of walkways with open beginnings nearby; the new pieces cover no lane."""
    pieces = [piece for strip in strips for piece in strip]
    ends = [piece for piece in pieces if mesh.beyond[piece][_AHEAD] < 0]
    begins = [piece for piece in pieces if mesh.beyond[piece][_BEHIND] < 0]
    for piece in ends:
        near, far = mesh.quads[piece][1], mesh.quads[piece][2]
        ranked = sorted(begins, key=lambda other: math.dist(mesh.corners[near], mesh.corners[mesh.quads[other][0]]))
        for other in ranked[:3]:
            begin_near, begin_far = mesh.quads[other][0], mesh.quads[other][3]
            if math.dist(mesh.corners[near], mesh.corners[begin_near]) > _BRIDGE_M or other == piece:
                break
            corners = (near, begin_near, begin_far, far)
            outline = np.array([mesh.corners[corner] for corner in corners])
            if len(set(corners)) < len(corners) or not _is_convex(outline) or not _is_beside_the_road(graph, outline):
                continue
            bridge = mesh.add(corners)
            mesh.join(piece, _AHEAD, bridge, _BEHIND)
            mesh.join(bridge, _AHEAD, other, _BEHIND)
            begins.remove(other)
            break


def _crossing_pieces(graph: LaneGraph, number: int, pieces: Sequence[int]) -> list[int]:
    """Return the pieces of a walkway where a crossing begins: before a junction, and in the middle of a long road."""
    segment = graph.segments[number]
    if segment.junction != NO_JUNCTION:
        return []
    chosen = []
    if any(graph.segments[after].junction != NO_JUNCTION for after in segment.successors) and len(pieces) > 3:
        chosen.append(pieces[-2])
    if segment.length_m > _LONG_ROAD_M:
        chosen.append(pieces[len(pieces) // 2])
    return chosen


def _add_crossing(mesh: _Mesh, segment: LaneSegment, piece: int) -> None:
    """Add a crossing from a piece of a walkway to a piece across the road, if neither piece has a crossing yet."""
    if mesh.beyond[piece][_ROADSIDE] >= 0:
        return
    here = mesh.side_middle(piece, _ROADSIDE)
    road_width_m = float(segment.left_line_m[0] - segment.right_line_m[0])
    other = _nearest_piece(mesh, here, piece, min(_MAX_CROSSING_M, road_width_m + 8.0))
    if other is not None:
        _add_quad_between(mesh, piece, other)


def _add_crosswalk(mesh: _Mesh, corners: NDArray[np.float64]) -> None:
    """Add the crossing at a crosswalk of the map: it joins the two walkway pieces nearest to the crosswalk's ends."""
    middle = corners.mean(axis=0)
    # The crosswalk's long axis is the direction in which its corners spread most.
    _, _, axes = np.linalg.svd(corners - middle)
    half_m = 0.5 * float(np.ptp((corners - middle) @ axes[0]))
    found = []
    for side in (-1.0, 1.0):
        end = middle + side * half_m * axes[0]
        found.append(_nearest_piece(mesh, end, -1, _CROSSWALK_REACH_M))
    one, two = found
    if one is not None and two is not None and one != two:
        _add_quad_between(mesh, one, two)


def _nearest_piece(mesh: _Mesh, point: NDArray[np.float64], own: int, within_m: float) -> int | None:
    """Return the walkway piece whose edge at the road is nearest to a point; None if no piece is within ``within_m``.

    Pieces that already have a crossing are ignored.

    :param own: the piece at which a crossing begins. Another piece counts only if the crossing to it is a convex
        quadrangle. With -1, this condition does not apply.
    """
    best, best_m = None, within_m
    for piece, beyond in enumerate(mesh.beyond):
        if piece == own or beyond[_ROADSIDE] >= 0 or mesh.is_crossing[piece]:
            continue
        first = mesh.corners[mesh.quads[piece][0]]
        if abs(first[0] - point[0]) + abs(first[1] - point[1]) > 2.0 * within_m + _STEP_M:
            continue
        gap_m = math.dist(mesh.side_middle(piece, _ROADSIDE), point)
        if gap_m < best_m and (own < 0 or _quad_between(mesh, own, piece) is not None):
            best, best_m = piece, gap_m
    return best


def _quad_between(mesh: _Mesh, one: int, two: int) -> list[int] | None:
    """Return the four corners of a crossing between two walkway pieces; None if the quadrangle is not convex."""
    corners = [mesh.quads[one][1], mesh.quads[one][0], mesh.quads[two][1], mesh.quads[two][0]]
    if len(set(corners)) < len(corners) or not _is_convex(np.array([mesh.corners[corner] for corner in corners])):
        return None
    return corners


def _add_quad_between(mesh: _Mesh, one: int, two: int) -> None:
    corners = _quad_between(mesh, one, two)
    if corners is not None:
        crossing = mesh.add(corners, is_crossing=True)
        mesh.join(one, _ROADSIDE, crossing, 0)
        mesh.join(two, _ROADSIDE, crossing, 2)
