"""Roads with lanes, the junctions that connect them, and the two layouts that our own maps are built from."""

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
"""Width of every lane of our own maps, in metres."""


class Neighbour(NamedTuple):
    """What lies beyond an end of a road: an end of another road, or a junction."""

    kind: Literal["road", "junction"]
    id: int
    contact: End | None = None
    """The end of the other road that is touched; ``None`` for a junction."""
    lane: int | None = None
    """The one lane that a road within a junction leads from or to; ``None``: each lane goes on as itself."""


class Road(NamedTuple):
    """A road along a reference line, which parts the two directions; right-hand traffic.

    Lanes are numbered as in OpenDRIVE: -1, -2, … to the right of the line and along it, 1, 2, … to the left, against
    it.
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
    """The junction that this road lies in."""

    @property
    def length_m(self) -> float:
        """Length of the reference line."""
        return total_length_m(self.pieces)

    @property
    def end(self) -> Pose:
        """Where the reference line ends."""
        return joints(self.start, self.pieces)[-1]

    @property
    def lanes(self) -> tuple[int, ...]:
        """Numbers of the lanes from left to right, without the 0 of the reference line."""
        return (*range(self.n_left, 0, -1), *range(-1, -self.n_right - 1, -1))

    def mark(self, border: int) -> Paint:
        """Return the mark on the far side of lane ``border`` (0: on the reference line)."""
        if border == 0:
            return self.centre_mark
        is_outer = border in (self.n_left, -self.n_right)
        return self.edge_mark if is_outer or self.edge_mark == "none" else "broken"

    def line_m(self, left_m: float, spacing_m: float) -> NDArray[np.float64]:
        """Return points ``(n, 2)`` on the parallel ``left_m`` to the left, both ends included."""
        n = max(2, round(self.length_m / spacing_m) + 1)
        x, y, heading = sample(self.start, self.pieces, np.linspace(0.0, self.length_m, n)).T
        return np.stack([x - left_m * np.sin(heading), y + left_m * np.cos(heading)], axis=1)


class Connection(NamedTuple):
    """One way through a junction."""

    incoming_road: int
    incoming_lane: int
    connecting_road: int
    """A road of one lane, -1, that begins where the incoming one touches the junction."""


class Junction(NamedTuple):
    """A place where roads meet."""

    id: int
    connections: tuple[Connection, ...]


class RoadNetwork(NamedTuple):
    """All roads of a map."""

    roads: tuple[Road, ...]
    junctions: tuple[Junction, ...]
    route: tuple[int, ...]
    """Numbers of the roads of the closed route, in driving order; each is driven along its reference line."""
    route_lane: int
    """The lane that the route keeps, the outermost on the right."""
    lane_width_m: float

    def road(self, number: int) -> Road:
        """Return the road of this number."""
        return next(road for road in self.roads if road.id == number)

    def border_m(self, border: int) -> float:
        """Return how far to the left of the reference line the far side of lane ``border`` lies."""
        return border * self.lane_width_m

    def centre_m(self, lane: int) -> float:
        """Return how far to the left of the reference line the middle of a lane lies."""
        return (lane - math.copysign(0.5, lane)) * self.lane_width_m


REACH_M = 10.0
"""From the middle of the crossing to where its arms begin; the radius of the turns' reference lines."""


class Arm(NamedTuple):
    """A road that ends at the crossing."""

    road: int
    contact: End
    """The end of the road that touches the crossing."""
    gate: Pose
    """Where it touches, facing the crossing's middle."""

    @property
    def lane_in(self) -> int:
        """The lane that leads into the crossing."""
        return -1 if self.contact == "end" else 1

    @property
    def lane_out(self) -> int:
        """The lane that leads away from it."""
        return -self.lane_in


def connect(number: int, arms: Sequence[Arm], first_road: int) -> tuple[Junction, tuple[Road, ...]]:
    """Return the junction of ``arms`` and a road of one lane for every way through it, but no U-turn.

    :param number: of the junction.
    :param arms: with gates ``REACH_M`` from one point, at right angles to each other.
    :param first_road: number of the first of the roads; the others count on.
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
                pieces=(_way(into.gate, out.gate),),
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


def _way(into: Pose, out: Pose) -> Piece:
    turn = math.remainder(out.heading_rad + math.pi - into.heading_rad, 2.0 * math.pi)
    if abs(turn) < 1e-6:
        return Piece(2.0 * REACH_M, 0.0)
    return Piece(0.5 * math.pi * REACH_M, math.copysign(1.0 / REACH_M, turn))


N_ROADS = 4
"""Roads that a loop is cut into; CARLA's client finds no way round a loop of fewer than three."""
APPROACH_M = 8.0
"""Straight road on either side of a crossing."""
SIDE_ROAD_M = 42.0
_CLEARANCE_M = 14.0


def loop_network(shape: LoopShape, *, n_left: int = 1, n_right: int = 1) -> RoadNetwork:
    """Return a ring of four roads; the route keeps the rightmost lane.

    The line between the directions is broken on a road of two lanes and solid on a wider one.

    :param n_left: lanes of the oncoming traffic, 1 or more.
    :param n_right: lanes in the direction of the route, 1 or more.
    """
    roads = _roads_along(shape.start, shape.pieces, n_left, n_right)
    ids = [road.id for road in roads]
    linked = [
        road._replace(
            predecessor=Neighbour("road", ids[i - 1], "end"),
            successor=Neighbour("road", ids[(i + 1) % len(ids)], "start"),
        )
        for i, road in enumerate(roads)
    ]
    return RoadNetwork(tuple(linked), (), tuple(ids), -n_right, LANE_WIDTH_M)


def crossed_network(shape: LoopShape, *, sides: Sequence[int]) -> RoadNetwork | None:
    """Return a ring of two-lane roads that is crossed in the middle of its longest line, or ``None`` without room.

    :param shape: a loop whose first line is at least ``2 * (REACH_M + APPROACH_M)`` long.
    :param sides: where side roads begin: 1 for the left, -1 for the right, or both.
    """
    line = shape.pieces[0]
    half_m = 0.5 * line.length_m - REACH_M
    if half_m < APPROACH_M:
        return None
    leave = shape.pieces[0].from_pose(shape.start, 0.5 * line.length_m + REACH_M)
    pieces = (Piece(half_m, 0.0), *shape.pieces[1:], Piece(half_m, 0.0))
    ring = _roads_along(leave, pieces, 1, 1)
    middle = line.from_pose(shape.start, 0.5 * line.length_m)
    side_roads = [_side_road(middle, side, len(ring) + i) for i, side in enumerate(sides)]
    if not all(_is_clear(road, shape) for road in side_roads):
        return None
    return _joined(ring, side_roads)


def _joined(ring: list[Road], side_roads: list[Road]) -> RoadNetwork:
    ids = [road.id for road in ring]
    number = 100
    crossing = Neighbour("junction", number)
    linked = [
        road._replace(
            predecessor=Neighbour("road", road.id - 1, "end") if road.id else crossing,
            successor=Neighbour("road", road.id + 1, "start") if road.id < ids[-1] else crossing,
        )
        for road in ring
    ]
    arms = [Arm(ids[-1], "end", ring[-1].end), Arm(ids[0], "start", ring[0].start.reversed())]
    arms += [Arm(road.id, "start", road.start.reversed()) for road in side_roads]
    junction, ways = connect(number, arms, first_road=number + 1)
    side_roads = [road._replace(predecessor=crossing) for road in side_roads]
    return RoadNetwork((*linked, *side_roads, *ways), (junction,), (*ids, ways[0].id), -1, LANE_WIDTH_M)


def _roads_along(start: Pose, pieces: Sequence[Piece], n_left: int, n_right: int) -> list[Road]:
    """Cut the line where pieces meet, into roads of about one length."""
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
    heading = math.remainder(middle.heading_rad + side * 0.5 * math.pi, 2.0 * math.pi)
    start = Piece(REACH_M, 0.0).from_pose(Pose(middle.x_m, middle.y_m, heading), REACH_M)
    return Road(number, start, (Piece(SIDE_ROAD_M, 0.0),), 1, 1, "broken")


def _is_clear(side_road: Road, shape: LoopShape) -> bool:
    """Return whether the side road's far part keeps away from the loop."""
    around = sample(shape.start, shape.pieces, np.arange(0.0, total_length_m(shape.pieces), 1.0))[:, :2]
    line = side_road.line_m(0.0, 1.0)
    line = line[round(_CLEARANCE_M) :]
    gaps = np.linalg.norm(line[:, None] - around[None], axis=2)
    return bool(gaps.min() >= _CLEARANCE_M)
