"""Describe roads, lanes and junctions, and build the two ring layouts of the built-in maps.

The terms come from OpenDRIVE 1.4, so that a network can be written to a file without conversion.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.envs.road.shapes import LoopShape, Piece, Pose, joints, sample, total_length_m

Paint = Literal["solid", "broken", "none"]
End = Literal["start", "end"]
LANE_WIDTH_M = 3.5
"""Width of every lane of the built-in maps, in metres."""


class Neighbour(NamedTuple):
    """Describe the neighbour of a road at one of its ends: an end of another road, or a junction."""

    kind: Literal["road", "junction"]
    id: int
    contact: End | None = None
    """The end of the neighbouring road that touches this road; ``None`` for a junction."""
    lane: int | None = None
    """A road within a junction has a single lane, which connects to the neighbour's lane with this number. ``None`` for
    other roads: each of their lanes connects to the neighbour's lane with the same number."""


class Road(NamedTuple):
    """Describe a road with right-hand traffic; its reference line separates the two directions.

    As in OpenDRIVE, the lanes -1, -2, … lie to the right of the reference line and are driven along it. The lanes 1, 2,
    … lie to its left and are driven in the opposite direction.
    """

    id: int
    start: Pose
    pieces: tuple[Piece, ...]
    n_left: int
    n_right: int
    centre_mark: Paint
    edge_mark: Paint = "solid"
    predecessor: Neighbour | None = None
    successor: Neighbour | None = None
    junction: int | None = None
    """Number of the junction that contains this road; ``None`` outside of junctions."""

    @property
    def length_m(self) -> float:
        """Return the length of the reference line."""
        return total_length_m(self.pieces)

    @property
    def end(self) -> Pose:
        """Return the pose at which the reference line ends."""
        return joints(self.start, self.pieces)[-1]

    @property
    def lanes(self) -> tuple[int, ...]:
        """Return the numbers of the lanes from left to right; 0 is not a lane, but the reference line."""
        return (*range(self.n_left, 0, -1), *range(-1, -self.n_right - 1, -1))

    def mark(self, border: int) -> Paint:
        """Return the road mark at a lane's outer edge, which is the edge farther from the reference line.

        :param border: number of the lane; 0 for the mark on the reference line itself
        """
        if border == 0:
            return self.centre_mark
        is_outer = border in (self.n_left, -self.n_right)
        if is_outer or self.edge_mark == "none":
            return self.edge_mark
        return "broken"

    def line_m(self, left_m: float, spacing_m: float) -> NDArray[np.float64]:
        """Return evenly spaced points on a parallel to the reference line, both ends included.

        :param left_m: distance to the left of the reference line
        :param spacing_m: approximate distance between neighbouring points, measured along the reference line
        :return: ``(n, 2)``: x and y
        """
        n = max(2, round(self.length_m / spacing_m) + 1)
        x, y, heading = sample(self.start, self.pieces, np.linspace(0.0, self.length_m, n)).T
        return np.stack([x - left_m * np.sin(heading), y + left_m * np.cos(heading)], axis=1)


class Connection(NamedTuple):
    """Describe one path through a junction."""

    incoming_road: int
    incoming_lane: int
    connecting_road: int
    """A road with the single lane -1 that begins where the incoming road touches the junction."""


class Junction(NamedTuple):
    """Describe a place where roads meet."""

    id: int
    connections: tuple[Connection, ...]


class RoadNetwork(NamedTuple):
    """Hold all roads of a map."""

    roads: tuple[Road, ...]
    junctions: tuple[Junction, ...]
    route: tuple[int, ...]
    """Numbers of the roads of the closed route, in driving order; all are driven along their reference line."""
    route_lane: int
    """Number of the lane that the route follows, the outermost on the right."""
    lane_width_m: float

    def road(self, number: int) -> Road:
        """Return a road by its number."""
        return next(road for road in self.roads if road.id == number)

    def border_m(self, border: int) -> float:
        """Return the offset of a lane's outer edge from the reference line, in metres, positive to the left.

        :param border: number of the lane; 0 for the reference line itself
        """
        return border * self.lane_width_m

    def centre_m(self, lane: int) -> float:
        """Return the offset of a lane's middle from the reference line, in metres, positive to the left."""
        # Lane 1 lies between offsets of 0 and 1 lane widths, lane -1 between 0 and -1. The middle is half a lane width
        # closer to 0 than the outer edge.
        return (lane - math.copysign(0.5, lane)) * self.lane_width_m


REACH_M = 10.0
"""Roads end this many metres before the middle of a junction. So a turn by 90 degrees between them has this radius."""


class Arm(NamedTuple):
    """Describe a road that ends at a junction."""

    road: int
    contact: End
    """Which end of the road lies at the junction."""
    gate: Pose
    """The pose of the end of the road at the junction; its heading points to the middle of the junction."""

    @property
    def lane_in(self) -> int:
        """Return the number, -1 or 1, of this road's lane into the junction."""
        return -1 if self.contact == "end" else 1

    @property
    def lane_out(self) -> int:
        """Return the number, -1 or 1, of this road's lane out of the junction."""
        return -self.lane_in


def connect_arms(number: int, arms: Sequence[Arm], first_road: int) -> tuple[Junction, tuple[Road, ...]]:
    """Build a junction with a single-lane road for each path through it, except U-turns.

    :param number: number of the junction in the map
    :param arms: the roads, which meet at right angles and end ``REACH_M`` away from the middle
    :param first_road: number of the first connecting road; the others take the numbers that follow
    :return: the junction and its connecting roads
    """
    roads: list[Road] = []
    connections = []
    for into in arms:
        for out in arms:
            if out is into:
                continue
            road = Road(
                id=first_road + len(roads),
                start=into.gate,
                pieces=(_path_between(into.gate, out.gate),),
                n_left=0,
                n_right=1,
                centre_mark="none",
                edge_mark="none",
                predecessor=Neighbour("road", into.road, into.contact, into.lane_in),
                successor=Neighbour("road", out.road, out.contact, out.lane_out),
                junction=number,
            )
            roads.append(road)
            connections.append(Connection(into.road, into.lane_in, road.id))
    return Junction(number, tuple(connections)), tuple(roads)


def _path_between(into: Pose, out: Pose) -> Piece:
    """Return the line or the quarter circle that leads across a junction from one arm to another."""
    # Both poses face the middle of the junction, so the path leaves in the direction opposite to ``out``.
    turn_rad = math.remainder(out.heading_rad + math.pi - into.heading_rad, 2.0 * math.pi)
    if abs(turn_rad) < 1e-6:
        return Piece(2.0 * REACH_M, 0.0)
    return Piece(0.5 * math.pi * REACH_M, math.copysign(1.0 / REACH_M, turn_rad))


N_ROADS = 4
"""Number of roads into which a loop is cut; CARLA's client finds no route around a loop of fewer than three roads."""
APPROACH_M = 8.0
"""Length of straight road on either side of a junction."""
SIDE_ROAD_M = 42.0
"""Length of a side road."""
_CLEARANCE_M = 14.0
"""Smallest permitted distance between a side road and the loop. The side road's first 14 m, where it leaves the loop,
are not checked."""
_JUNCTION_ID = 100
"""Number of the junction; the connecting roads are numbered from 101, beyond all other roads."""


def loop_network(shape: LoopShape, *, n_left: int = 1, n_right: int = 1) -> RoadNetwork:
    """Build a ring of four roads, whose route follows the rightmost lane.

    The mark between the two driving directions is broken on a road with two lanes, and solid on a road with more.

    :param shape: the closed reference line of the ring
    :param n_left: number of oncoming lanes, 1 or more
    :param n_right: number of lanes in the direction of the route, 1 or more
    """
    roads = _roads_along(shape.start, shape.pieces, n_left, n_right)
    ids = [road.id for road in roads]
    # All roads of the ring run in the same direction: each begins at the end of the road before it.
    linked = [
        road._replace(
            predecessor=Neighbour("road", ids[i - 1], "end"),
            successor=Neighbour("road", ids[(i + 1) % len(ids)], "start"),
        )
        for i, road in enumerate(roads)
    ]
    return RoadNetwork(tuple(linked), (), tuple(ids), -n_right, LANE_WIDTH_M)


def crossed_network(shape: LoopShape, *, sides: Sequence[int]) -> RoadNetwork | None:
    """Build a ring of two-lane roads with a junction in the middle of its longest straight part.

    :param shape: the reference line, whose first piece is its longest straight piece
    :param sides: 1 for a side road to the left, -1 for one to the right, or both
    :return: ``None`` if there is no room for the junction or a side road
    """
    line = shape.pieces[0]
    half_m = 0.5 * line.length_m - REACH_M
    if half_m < APPROACH_M:
        return None
    # The ring now begins behind the junction and ends before it, with half of the first piece at either end.
    leave = shape.pieces[0].from_pose(shape.start, 0.5 * line.length_m + REACH_M)
    pieces = (Piece(half_m, 0.0), *shape.pieces[1:], Piece(half_m, 0.0))
    ring = _roads_along(leave, pieces, 1, 1)
    middle = line.from_pose(shape.start, 0.5 * line.length_m)
    side_roads = [_side_road(middle, side, len(ring) + i) for i, side in enumerate(sides)]
    if not all(_is_clear(road, shape) for road in side_roads):
        return None
    return _joined(ring, side_roads)


def _joined(ring: list[Road], side_roads: list[Road]) -> RoadNetwork:
    """Join the two ends of a ring and the beginnings of its side roads at one junction, and return the network."""
    ids = [road.id for road in ring]  # 0, 1, …
    crossing = Neighbour("junction", _JUNCTION_ID)
    linked = []
    for road in ring:
        predecessor = successor = crossing
        if road.id != ids[0]:
            predecessor = Neighbour("road", road.id - 1, "end")
        if road.id != ids[-1]:
            successor = Neighbour("road", road.id + 1, "start")
        linked.append(road._replace(predecessor=predecessor, successor=successor))
    # Two arms are the ends of the ring, the other arms are the side roads. The pose of an arm faces the middle of the
    # junction. A road that begins at the junction leads away from the middle, so the pose of its start is turned
    # around.
    arms = [Arm(ids[-1], "end", ring[-1].end), Arm(ids[0], "start", ring[0].start.reversed())]
    arms += [Arm(road.id, "start", road.start.reversed()) for road in side_roads]
    # The route enters by the first arm and leaves by the second arm, so the first connecting road closes the route.
    junction, paths = connect_arms(_JUNCTION_ID, arms, first_road=_JUNCTION_ID + 1)
    side_roads = [road._replace(predecessor=crossing) for road in side_roads]
    return RoadNetwork((*linked, *side_roads, *paths), (junction,), (*ids, paths[0].id), -1, LANE_WIDTH_M)


def _roads_along(start: Pose, pieces: Sequence[Piece], n_left: int, n_right: int) -> list[Road]:
    """Cut a line into roads of about the same length, at joints between its pieces."""
    # Each cut is at the joint nearest to 1/4, 2/4 or 3/4 of the length.
    ends_m = np.cumsum([piece.length_m for piece in pieces])
    targets_m = total_length_m(pieces) * np.arange(1, N_ROADS) / N_ROADS
    cuts = [0, *(int(np.argmin(np.abs(ends_m - target))) + 1 for target in targets_m), len(pieces)]
    poses = joints(start, pieces)
    centre: Paint = "broken" if n_left + n_right == 2 else "solid"
    return [
        Road(i, poses[first], tuple(pieces[first:last]), n_left, n_right, centre)
        for i, (first, last) in enumerate(itertools.pairwise(cuts))
    ]


def _side_road(middle: Pose, side: int, number: int) -> Road:
    """Return a straight road that leads away from the middle of the junction, at a right angle to the ring."""
    heading_rad = math.remainder(middle.heading_rad + side * 0.5 * math.pi, 2.0 * math.pi)
    start = Piece(REACH_M, 0.0).from_pose(Pose(middle.x_m, middle.y_m, heading_rad), REACH_M)
    return Road(number, start, (Piece(SIDE_ROAD_M, 0.0),), 1, 1, "broken")


def _is_clear(side_road: Road, shape: LoopShape) -> bool:
    """Return whether a side road is at least ``_CLEARANCE_M`` away from the loop; its first metres are not checked."""
    # (n_line, n_around): distance of each point of the side road, without its first 14 m, from each point of the loop.
    # The points are 1 m apart.
    around = sample(shape.start, shape.pieces, np.arange(0.0, total_length_m(shape.pieces), 1.0))[:, :2]
    line = side_road.line_m(0.0, 1.0)
    line = line[round(_CLEARANCE_M) :]
    gaps = np.linalg.norm(line[:, None] - around[None], axis=2)
    return bool(gaps.min() >= _CLEARANCE_M)
