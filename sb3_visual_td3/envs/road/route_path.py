"""Represent a route as a line, to find a vehicle's position on it, the driven distance, and the present command.

``RoutePath`` has the same methods as ``track.Track``, so that a simulator can use either class.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.envs.backend import Command, LaneMark, VehicleState
from sb3_visual_td3.envs.road.lane_graph import NO_JUNCTION, LaneGraph, LaneSegment
from sb3_visual_td3.envs.road.line_mending import along_line_m, forward_points, mended
from sb3_visual_td3.envs.road.route_planning import RoutePlan, junction_manoeuvres, stretches
from sb3_visual_td3.envs.road.track import LanePosition

SPACING_M = 0.5
COMMAND_AHEAD_M = 50.0
"""The command for a manoeuvre is given when the manoeuvre is at most this far ahead."""
CHANGE_M = 30.0
"""Length of a lane change where the road is long enough."""
_BEYOND_M = 30.0
"""The line continues beyond the goal by this length, so that there are points ahead of a vehicle at the goal."""
_MIN_WIDTH_M = 2.0
"""Smaller lane widths are replaced by this width, because a map's lane can be 0 m wide at its ends."""
_JUNCTION_SIDE = 1.5
"""Within a junction, each edge of the road is assumed to be this many lane widths from the route. The value must be
above 1, because an episode ends with ``"off_route"`` only beyond one lane width from the route."""


class RouteLine(NamedTuple):
    """Hold the points of a route, each with the lane's width, the road's outer lines, the marks and the manoeuvre.

    The points are not evenly spaced.
    """

    points_m: NDArray[np.float64]
    """``(n, 2)``: x and y."""
    width_m: NDArray[np.float64]
    left_line_m: NDArray[np.float64]
    right_line_m: NDArray[np.float64]
    marks: NDArray[np.intp]
    """For each point, the index of the road's marks in the ``marks`` of ``RoutePath``; 0 stands for no marks."""
    manoeuvre: NDArray[np.intp]
    """For each point, the index of its manoeuvre in the ``commands`` of ``RoutePath``; -1 for no manoeuvre."""


class RouteLane(NamedTuple):
    """Describe one lane of a route, and the place where a vehicle begins to drive on this lane."""

    segment: int
    """Index of the lane in the lane graph."""
    from_m: float
    """Distance from the start of the route at which a vehicle begins to drive on this lane."""
    along_m: float
    """Distance from the lane's beginning to the place where a vehicle begins to drive on this lane. It is above 0 only
    for the first lane and after a lane change."""


class RoutePath:
    """Represent a route by evenly spaced points in driving order, from its start to some metres beyond its goal.

    :param line: the points of the route's lanes, not yet evenly spaced
    :param n_to_goal: number of points of the line up to the goal
    :param marks: the distinct sets of road marks on the route; ``line.marks`` contains indices into this list. The
        first set is empty, for points without marks.
    :param commands: the command of each manoeuvre
    :param driven: for each lane up to the goal: the lane's index in the lane graph, the index of the lane's first point
        in ``line``, and the distance of this point from the lane's beginning
    """

    def __init__(
        self,
        line: RouteLine,
        n_to_goal: int,
        marks: Sequence[tuple[LaneMark, ...]],
        commands: Sequence[Command],
        driven: Sequence[tuple[int, int, float]] = (),
    ) -> None:
        kept = forward_points(line.points_m)
        points_m = mended(line.points_m[kept])
        along_m = along_line_m(points_m)
        n = max(2, round(float(along_m[-1]) / SPACING_M) + 1)
        even = np.linspace(0.0, float(along_m[-1]), n)
        self.spacing_m = float(even[1])
        self.points_m = np.stack([np.interp(even, along_m, points_m[:, axis]) for axis in (0, 1)], axis=1)
        # (n,): for each evenly spaced point, the index of the line's last kept point before it. Columns that cannot be
        # interpolated are read at these indices.
        before = kept[np.searchsorted(along_m, even + 1e-9, side="right") - 1]
        last_before_goal = int(np.searchsorted(kept, n_to_goal - 1, side="right")) - 1
        self.length_m = float(along_m[last_before_goal])
        self._headings_rad, self._curvatures_per_m = _directions(self.points_m, self.spacing_m)
        columns = (self.points_m[:, 0], self.points_m[:, 1], self._headings_rad, self._curvatures_per_m)
        # Plain floats: reading NumPy scalars one by one would take longer than the rest of a step.
        self._rows = list(zip(*(column.tolist() for column in columns), strict=True))
        lanes = [np.interp(even, along_m, column[kept]) for column in line[1:4]]
        lanes[0] = np.maximum(lanes[0], _MIN_WIDTH_M)
        self._lanes = [
            (width, left, right, tuple(marks[number]))
            for width, left, right, number in zip(*(lane.tolist() for lane in lanes), line.marks[before], strict=True)
        ]
        self._commands = _commands_ahead(line.manoeuvre[before], commands, even, self.length_m)
        # If the first point of a lane was removed as a backward step, the next point that was kept takes its place.
        firsts = np.minimum(np.searchsorted(kept, [point for _, point, _ in driven]), len(kept) - 1)
        self.lanes = [
            RouteLane(segment, from_m, place_m)
            for (segment, _, place_m), from_m in zip(driven, along_m[firsts].tolist(), strict=True)
        ]

    def pose_at(self, index: int, lateral_offset_m: float) -> tuple[float, float, float]:
        """Return the pose beside a point of the route, at a lateral offset.

        :param index: index of the point
        :param lateral_offset_m: distance from the lane's centre, positive to the left
        :return: x and y in metres and the lane's direction in radians
        """
        x, y, heading, _ = self._rows[index]
        return x - lateral_offset_m * math.sin(heading), y + lateral_offset_m * math.cos(heading), heading

    def locate(self, x_m: float, y_m: float, near: int) -> LanePosition:
        """Return the position of a place relative to the route.

        :param x_m: x in the world
        :param y_m: y in the world
        :param near: index of a point close by, such as the closest point one step ago
        """
        # This is the search of ``Track.locate``, but on an open line: it stops at both ends.
        rows, last = self._rows, len(self._rows) - 1
        index = near
        dx, dy = x_m - rows[index][0], y_m - rows[index][1]
        best = dx * dx + dy * dy
        for direction in (1, -1):
            while 0 <= index + direction <= last:
                row = rows[index + direction]
                dx, dy = x_m - row[0], y_m - row[1]
                closer = dx * dx + dy * dy
                if closer >= best:
                    break
                index, best = index + direction, closer
        x, y, heading, curvature = rows[index]
        dx, dy = x_m - x, y_m - y
        cos, sin = math.cos(heading), math.sin(heading)
        ahead = dx * cos + dy * sin
        return LanePosition(index, index * self.spacing_m + ahead, dy * cos - dx * sin, heading + curvature * ahead)

    def waypoints_from(self, lane: LanePosition, ahead_m: Sequence[float]) -> list[tuple[float, float]]:
        """Return x and y of the route at given distances beyond a position.

        The waypoints are interpolated, so that they move continuously with the vehicle, unlike those of ``Track``.

        :param lane: the position on the route
        :param ahead_m: distances along the route
        :return: (x, y) for each distance; the last point for distances beyond the end
        """
        rows, last = self._rows, len(self._rows) - 1
        result = []
        for metres in ahead_m:
            place = min(float(last), max(0.0, (lane.along_m + metres) / self.spacing_m))
            whole = min(last - 1, int(place))
            part = place - whole
            one, two = rows[whole], rows[whole + 1]
            result.append((one[0] + part * (two[0] - one[0]), one[1] + part * (two[1] - one[1])))
        return result

    @staticmethod
    def advance_m(before: LanePosition, after: LanePosition) -> float:
        """Return the signed distance along the route between two positions."""
        return after.along_m - before.along_m

    def state_of(
        self,
        pose: tuple[float, float, float],
        speed_mps: float,
        lane: LanePosition,
        *,
        distance_m: float,
        has_collided: bool,
    ) -> VehicleState:
        """Return the state of a vehicle relative to this route, in the form that the task needs.

        :param pose: x and y in metres and yaw in radians
        :param speed_mps: speed of the vehicle
        :param lane: position of the vehicle on the route
        :param distance_m: distance along the route since the reset
        :param has_collided: True if the vehicle has collided since the reset
        """
        width_m, left_line_m, right_line_m, marks = self._lanes[lane.nearest]
        command, command_distance_m = self._commands[lane.nearest]
        return VehicleState(
            *pose,
            speed_mps,
            lane.lateral_offset_m,
            math.remainder(pose[2] - lane.heading_rad, 2.0 * math.pi),
            distance_m,
            width_m,
            left_line_m,
            right_line_m,
            marks,
            self.length_m,
            has_collided,
            True,
            command,
            command_distance_m,
        )


def build_path(graph: LaneGraph, plan: RoutePlan) -> RoutePath:
    """Build the path of a planned route: join its lanes to one line that a vehicle can follow.

    :param graph: the lanes of the map
    :param plan: the route
    """
    return _Builder(graph, plan).build()


class _Builder:
    """Join the lanes of a route to one continuous line.

    :param graph: the lanes of the map
    :param plan: the route
    """

    def __init__(self, graph: LaneGraph, plan: RoutePlan) -> None:
        self._graph, self._plan = graph, plan
        self._marks: dict[tuple[LaneMark, ...], int] = {(): 0}
        self._commands: list[Command] = []
        self._parts: list[RouteLine] = []
        self._lanes: list[tuple[int, int, float]] = []

    def build(self) -> RoutePath:
        """Build the line of the route from the lanes, and return it."""
        graph, plan = self._graph, self._plan
        manoeuvres = junction_manoeuvres(graph, plan.segments)
        at_position = {
            position: number
            for number, manoeuvre in enumerate(manoeuvres)
            for position in range(manoeuvre.first, manoeuvre.last + 1)
        }
        self._commands = [manoeuvre.command for manoeuvre in manoeuvres]
        groups = stretches(graph, plan)
        goal = plan.goal_m / graph.segments[plan.segments[-1]].length_m
        for number, group in enumerate(groups):
            begin = plan.start_m / graph.segments[plan.segments[0]].length_m if number == 0 else 0.0
            end = goal if number == len(groups) - 1 else 1.0
            lanes = [plan.segments[position] for position in group]
            self._note_lanes(lanes, begin, end)
            self._add_stretch(lanes, begin, end, at_position.get(group[0], -1))
        n_to_goal = self._n_points()
        self._add_what_follows(plan.segments[-1], goal)
        line = RouteLine(*(np.concatenate(columns) for columns in zip(*self._parts, strict=True)))
        return RoutePath(line, n_to_goal, tuple(self._marks), self._commands, self._lanes)

    def _n_points(self) -> int:
        """Return how many points the line of the route has so far."""
        return sum(len(part.points_m) for part in self._parts)

    def _note_lanes(self, lanes: Sequence[int], begin: float, end: float) -> None:
        """Store for each lane the index of the lane's first point in the line.

        This method must be called before ``_add_stretch`` adds these lanes to the line. ``begin`` and ``end`` are
        fractions of the lanes' length.
        """
        first_m = self._graph.segments[lanes[0]].length_m
        n = _n_points_of((end - begin) * first_m)
        for number, lane in enumerate(lanes):
            share = number / len(lanes)
            place_m = (begin + share * (end - begin)) * self._graph.segments[lane].length_m
            self._lanes.append((lane, self._n_points() + int(share * n), place_m))

    def _add_stretch(self, lanes: Sequence[int], begin: float, end: float, manoeuvre: int) -> None:
        """Append the next part of the route to the route's line.

        :param lanes: one lane, or neighbouring lanes between which the vehicle changes
        :param begin: where the part begins, as a fraction of the lanes' length
        :param end: where the part ends, as a fraction of the lanes' length
        :param manoeuvre: index in ``self._commands`` of the navigation command for the junction that contains the part;
            -1 outside of junctions, or if the junction has no command
        """
        rows = [self._graph.segments[lane] for lane in lanes]
        length_m = (end - begin) * rows[0].length_m
        n = _n_points_of(length_m)
        at = np.linspace(begin, end, n)
        n_changes = len(lanes) - 1
        # (n,): the lane at each point, as an index into ``lanes`` with fractions during a lane change. The length is
        # divided equally between the changes, and each change lies in the middle of its share.
        progress = np.zeros(n)
        numbers = np.full(n, manoeuvre, np.intp)
        for change in range(n_changes):
            part_m = length_m / n_changes
            middle_m = (change + 0.5) * part_m
            half_m = 0.5 * min(CHANGE_M, part_m)
            within = np.clip((np.linspace(0.0, length_m, n) - middle_m + half_m) / (2.0 * half_m), 0.0, 1.0)
            progress += within * within * (3.0 - 2.0 * within)
            numbers[(within > 0.0) & (within < 1.0)] = len(self._commands)
            is_left = self._graph.segments[lanes[change]].left == lanes[change + 1]
            self._commands.append("change_left" if is_left else "change_right")
        # (lanes, n, 5): x, y, width and both outer lines of each lane at the same fractions of their lengths. Each
        # point is then interpolated between its ``lower`` and ``upper`` lane.
        values = np.stack([_sampled(row.along_m, _columns(row), at) for row in rows])
        lower = np.minimum(progress.astype(np.intp), max(0, n_changes - 1))
        upper = np.minimum(lower + 1, n_changes)
        part = (progress - lower)[:, None]
        index = np.arange(n)
        mixed = (1.0 - part) * values[lower, index] + part * values[upper, index]
        marks = np.zeros(n, np.intp)  # a car that changes lanes crosses marks on purpose: none count
        for number, row in enumerate(rows):
            is_here = progress == number
            marks[is_here] = self._mark_numbers(lanes[number], at * row.length_m)[is_here]
        left_m, right_m = mixed[:, 3], mixed[:, 4]
        if rows[0].junction != NO_JUNCTION:
            left_m, right_m = _JUNCTION_SIDE * mixed[:, 2], -_JUNCTION_SIDE * mixed[:, 2]
            marks[:] = 0
        self._parts.append(RouteLine(mixed[:, :2], mixed[:, 2], left_m, right_m, marks, numbers))

    def _mark_numbers(self, lane: int, along_m: NDArray[np.float64]) -> NDArray[np.intp]:
        """Return which road marks a lane has at given distances along it, as indices into the list of all marks."""
        row = self._graph.segments[lane]
        firsts = [row.along_m[run.first] for run in row.marks]
        numbers = np.array([self._marks.setdefault(run.marks, len(self._marks)) for run in row.marks])
        return np.asarray(numbers[np.searchsorted(firsts, along_m, side="right") - 1])

    def _add_what_follows(self, lane: int, goal: float) -> None:
        """Continue the line beyond the goal along the straightest lanes; where no lane follows, extend it straight."""
        self._add_stretch([lane], goal, 1.0, -1)
        missing_m = _BEYOND_M - (1.0 - goal) * self._graph.segments[lane].length_m
        while missing_m > 0.0:
            ways = self._graph.segments[lane].successors
            if not ways:
                break
            heading_rad = self._graph.segments[lane].headings_rad[1]
            lane = min(ways, key=lambda way: self._bend_rad(heading_rad, way))
            self._add_stretch([lane], 0.0, 1.0, -1)
            missing_m -= self._graph.segments[lane].length_m
        if missing_m > 0.0:
            last = self._parts[-1]
            heading_rad = self._graph.segments[lane].headings_rad[1]
            along = np.array((math.cos(heading_rad), math.sin(heading_rad)))
            points = last.points_m[-1] + np.array([SPACING_M, missing_m])[:, None] * along
            end = np.array([len(last.points_m) - 1] * 2)  # both new points take the last point's values
            self._parts.append(
                RouteLine(
                    points,
                    last.width_m[end],
                    last.left_line_m[end],
                    last.right_line_m[end],
                    last.marks[end],
                    last.manoeuvre[end],
                )
            )

    def _bend_rad(self, heading_rad: float, way: int) -> float:
        """Return the angle between ``heading_rad`` and the direction at the end of lane ``way``, in radians, >= 0."""
        return abs(math.remainder(self._graph.segments[way].headings_rad[1] - heading_rad, 2.0 * math.pi))


def _n_points_of(length_m: float) -> int:
    """Return how many points a part of a route needs: at least 2, with at most ``SPACING_M`` between neighbours."""
    return max(2, math.ceil(length_m / SPACING_M) + 1)


def _columns(row: LaneSegment) -> NDArray[np.float64]:
    """Return ``(n, 5)``: x, y, width, and offsets of the road's left and right outer line, at each point of a lane."""
    return np.column_stack([row.points_m, row.width_m, row.left_line_m, row.right_line_m])


def _sampled(
    along_m: NDArray[np.float64], columns: NDArray[np.float64], at: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Interpolate columns of values at given places on a line.

    :param along_m: ``(n,)``: distance of each point from the beginning of the line
    :param columns: ``(n, n_columns)``: the values at each point
    :param at: ``(n_at,)``: the places, as fractions of the line's length
    :return: ``(n_at, n_columns)``
    """
    places = at * along_m[-1]
    return np.stack([np.interp(places, along_m, column) for column in columns.T], axis=1)


def _directions(points_m: NDArray[np.float64], spacing_m: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return direction and curvature at each point, by central differences; one-sided at the ends."""
    ahead = np.gradient(points_m, axis=0)
    headings = np.unwrap(np.arctan2(ahead[:, 1], ahead[:, 0]))
    return headings, np.gradient(headings) / spacing_m


def _commands_ahead(
    numbers: NDArray[np.intp], commands: Sequence[Command], along_m: NDArray[np.float64], goal_m: float
) -> list[tuple[Command, float]]:
    """Return the command at each point of a route, and the distance to the place where the command applies.

    :param numbers: for each point the index of its manoeuvre's command in ``commands``; -1 outside manoeuvres
    """
    result: list[tuple[Command, float]] = []
    next_number, next_m = -1, math.inf
    # The loop runs from the end to the start, so the next manoeuvre of a point is the last that the loop has met.
    for number, here_m in zip(numbers[::-1].tolist(), along_m[::-1].tolist(), strict=True):
        if number >= 0:
            next_number, next_m = number, here_m
        if next_m - here_m <= COMMAND_AHEAD_M:
            result.append((commands[next_number], next_m - here_m))
        else:
            result.append(("follow", min(COMMAND_AHEAD_M, max(0.0, goal_m - here_m))))
    return result[::-1]
