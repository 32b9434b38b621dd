"""Roads with lanes, the junctions between them, and the route that an episode drives."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.envs.lite.road_pieces import Piece, Pose, joints, sample, total_length_m

Paint = Literal["solid", "broken", "none"]
End = Literal["start", "end"]


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
