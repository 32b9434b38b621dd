"""Represent the closed route: one lane, given by the points of its centre line.

All simulators use this class to locate a vehicle on its lane.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.envs.backend import LaneMark, VehicleState
from sb3_visual_td3.envs.road.network import LANE_WIDTH_M, Road, RoadNetwork
from sb3_visual_td3.envs.road.shapes import sample, total_length_m

RIGHT_LINE_M = -0.5 * LANE_WIDTH_M
"""Offset from the lane's centre to the road's right outer line, for a road with one lane each way."""
LEFT_LINE_M = 1.5 * LANE_WIDTH_M
"""Offset from the lane's centre to the road's left outer line, for a road with one lane each way."""
TWO_LANE_MARKS = (
    LaneMark(RIGHT_LINE_M, "solid"),
    LaneMark(0.5 * (LEFT_LINE_M + RIGHT_LINE_M), "broken"),
    LaneMark(LEFT_LINE_M, "solid"),
)
_SPACING_M = 0.5


class LanePosition(NamedTuple):
    """Describe where a given position lies relative to a lane or a route."""

    nearest: int
    """Index of the point of the centre line that is closest to the position."""
    along_m: float
    """Distance along the lane from its first point. It may be slightly below 0, or slightly above the lane's length."""
    lateral_offset_m: float
    """Distance from the lane's centre, positive to the left."""
    heading_rad: float
    """Direction of the lane at this place."""


@dataclass(frozen=True, eq=False)
class Track:
    """Represent the centre line of a closed lane by evenly spaced points, in driving order.

    :param points_m: ``(n, 2) float64``: x and y; after the last point the lane continues at the first point
    :param lane_width_m: width of the lane
    :param left_line_m: offset from the lane's centre to the road's outer line on the left, positive
    :param right_line_m: offset from the lane's centre to the road's outer line on the right, negative
    :param marks: all marks of the road outside of junctions, from right to left
    :param oncoming_lane_m: offset to the centre of the nearest oncoming lane; ``None`` on a one-way road
    :param in_junction: ``(n,) bool``: True within junctions, where the lane has no marks; ``None`` without junctions
    """

    points_m: NDArray[np.float64]
    lane_width_m: float = LANE_WIDTH_M
    left_line_m: float = LEFT_LINE_M
    right_line_m: float = RIGHT_LINE_M
    marks: tuple[LaneMark, ...] = TWO_LANE_MARKS
    oncoming_lane_m: float | None = LANE_WIDTH_M
    in_junction: NDArray[np.bool_] | None = None

    @cached_property
    def spacing_m(self) -> float:
        """Return the distance between neighbouring points."""
        return self.length_m / len(self.points_m)

    @cached_property
    def length_m(self) -> float:
        """Return the length of one lap."""
        return float(np.linalg.norm(np.roll(self.points_m, -1, axis=0) - self.points_m, axis=1).sum())

    @cached_property
    def headings_rad(self) -> NDArray[np.float64]:
        """Return the direction of travel at each point, ``(n,)``, in [-pi, pi], by central differences."""
        ahead = np.roll(self.points_m, -1, axis=0) - np.roll(self.points_m, 1, axis=0)
        return np.arctan2(ahead[:, 1], ahead[:, 0])

    @cached_property
    def curvatures_per_m(self) -> NDArray[np.float64]:
        """Return the signed curvature at each point, ``(n,)``, positive where the road bends to the left."""
        # d(heading) / d(length) by central differences: the neighbours' headings are two spacings apart.
        turn = np.roll(self.headings_rad, -1) - np.roll(self.headings_rad, 1)
        return _wrap(turn) / (2.0 * self.spacing_m)

    @cached_property
    def _rows(self) -> list[tuple[float, float, float, float]]:
        """Return x, y, heading and curvature of each point as plain floats."""
        # Reading NumPy scalars one by one would take longer than the rest of a step.
        columns = (self.points_m[:, 0], self.points_m[:, 1], self.headings_rad, self.curvatures_per_m)
        return list(zip(*(column.tolist() for column in columns), strict=True))

    def offset_line_m(self, offset_m: float) -> NDArray[np.float64]:
        """Return a parallel to the lane, ``offset_m`` to its left: ``(n, 2)``, with as many points as the lane."""
        left = np.stack([-np.sin(self.headings_rad), np.cos(self.headings_rad)], axis=1)
        return self.points_m + offset_m * left

    def pose_at(self, index: int, lateral_offset_m: float) -> tuple[float, float, float]:
        """Return the pose beside a point of the lane, at a lateral offset.

        :param index: index of the point
        :param lateral_offset_m: distance from the lane's centre, positive to the left
        :return: x and y in metres and the lane's direction in radians
        """
        x, y, heading, _ = self._rows[index]
        return x - lateral_offset_m * math.sin(heading), y + lateral_offset_m * math.cos(heading), heading

    def locate(self, x_m: float, y_m: float, near: int) -> LanePosition:
        """Return the position of a place relative to the lane.

        :param x_m: x in the world
        :param y_m: y in the world
        :param near: index of a point close by, such as the closest point one step ago
        """
        # Walk from ``near`` as long as the points come closer. If ``near`` is the closest point one step ago, the walk
        # visits only a few points. Unlike a search over all points, it cannot jump to another stretch of the road.
        rows, n = self._rows, len(self._rows)
        index, best = near, self._distance2(x_m, y_m, near)
        for direction in (1, -1):
            while (closer := self._distance2(x_m, y_m, (index + direction) % n)) < best:
                index, best = (index + direction) % n, closer
        x, y, heading, curvature = rows[index]
        # ``ahead`` and ``left`` are the place in the frame of the nearest point. The points are about 0.5 m apart.
        # Up to half of this distance from a point, the lane counts as straight. Its heading follows from the curvature.
        dx, dy = x_m - x, y_m - y
        ahead = dx * math.cos(heading) + dy * math.sin(heading)
        left = dy * math.cos(heading) - dx * math.sin(heading)
        return LanePosition(index, index * self.spacing_m + ahead, left, heading + curvature * ahead)

    def waypoints_m(self, nearest: int, ahead_m: Sequence[float]) -> list[tuple[float, float]]:
        """Return the points of the lane's centre line at given distances ahead of the point ``nearest``.

        :param nearest: index of the point from which the distances are measured
        :param ahead_m: distances along the lane, rounded to the spacing of the points
        :return: (x, y) for each distance
        """
        indices = [(nearest + round(metres / self.spacing_m)) % len(self.points_m) for metres in ahead_m]
        return [self.pose_at(index, 0.0)[:2] for index in indices]

    def waypoints_from(self, lane: LanePosition, ahead_m: Sequence[float]) -> list[tuple[float, float]]:
        """Return points of the lane's centre line at given distances ahead of a position.

        :param lane: the position from which the distances are measured
        :param ahead_m: distances along the lane, rounded to the spacing of the points
        :return: (x, y) for each distance
        """
        return self.waypoints_m(lane.nearest, ahead_m)

    def advance_m(self, before: LanePosition, after: LanePosition) -> float:
        """Return the signed distance along the lane between two positions that are less than half a lap apart."""
        # The lane is closed, so ``along_m`` changes by a whole lap where the vehicle passes the first point.
        # ``remainder`` takes the shorter way round, which is the way that was driven.
        return math.remainder(after.along_m - before.along_m, self.length_m)

    def state_of(
        self,
        pose: tuple[float, float, float],
        speed_mps: float,
        lane: LanePosition,
        *,
        distance_m: float,
        has_collided: bool,
    ) -> VehicleState:
        """Return the state of a vehicle relative to this lane, in the form that the task needs.

        :param pose: x and y in metres and yaw in radians
        :param speed_mps: speed of the vehicle
        :param lane: position of the vehicle on the lane
        :param distance_m: distance along the lane since the reset
        :param has_collided: True if the vehicle has collided since the reset
        """
        is_marked = self.in_junction is None or not self.in_junction[lane.nearest]
        return VehicleState(
            *pose,
            speed_mps,
            lane.lateral_offset_m,
            math.remainder(pose[2] - lane.heading_rad, 2.0 * math.pi),
            distance_m,
            self.lane_width_m,
            self.left_line_m,
            self.right_line_m,
            self.marks if is_marked else (),
            self.length_m,
            has_collided,
        )

    def _distance2(self, x_m: float, y_m: float, index: int) -> float:
        """Return the squared distance between a place and the track's point ``index``."""
        x, y, _, _ = self._rows[index]
        return (x_m - x) * (x_m - x) + (y_m - y) * (y_m - y)


def route_track(network: RoadNetwork) -> Track:
    """Return the lane that a network's route follows, with a point every 0.5 m."""
    offset_m = network.centre_m(network.route_lane)
    roads = [network.road(number) for number in network.route]
    first = roads[0]
    # The lane is parallel to the reference lines, so it also consists of lines and arcs, and is sampled exactly.
    pieces = [piece.beside(offset_m) for road in roads for piece in road.pieces]
    n = round(total_length_m(pieces) / _SPACING_M)
    along_m: NDArray[np.float64] = np.arange(n, dtype=np.float64) * (total_length_m(pieces) / n)
    # ends_m, (n_roads,): where along the lane each road ends. road_of_point, (n,): the index of each point's road.
    ends_m = np.cumsum([total_length_m([piece.beside(offset_m) for piece in road.pieces]) for road in roads])
    road_of_point = np.minimum(np.searchsorted(ends_m, along_m, side="right"), len(roads) - 1)
    inside = np.array([road.junction is not None for road in roads])[road_of_point]
    return Track(
        sample(first.start.beside(offset_m), pieces, along_m)[:, :2],
        lane_width_m=network.lane_width_m,
        left_line_m=network.border_m(first.n_left) - offset_m,
        right_line_m=network.border_m(-first.n_right) - offset_m,
        # All roads of a route have the same lanes and marks, except for the roads in junctions.
        marks=_marks_of(first, network),
        oncoming_lane_m=network.centre_m(1) - offset_m if first.n_left else None,
        in_junction=inside if inside.any() else None,
    )


def _marks_of(road: Road, network: RoadNetwork) -> tuple[LaneMark, ...]:
    """Return the lines painted on a road, from right to left, with their offsets from the route's lane."""
    marks = []
    for border in range(-road.n_right, road.n_left + 1):
        paint = road.mark(border)
        if paint != "none":
            marks.append(LaneMark(network.border_m(border) - network.centre_m(network.route_lane), paint))
    return tuple(marks)


def _wrap(angle_rad: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return angles wrapped to [-pi, pi)."""
    return (angle_rad + np.pi) % (2.0 * np.pi) - np.pi
