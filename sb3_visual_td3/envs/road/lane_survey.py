"""Read an OpenDRIVE map with CARLA's client, and print its closed route and lanes, or its lane graph, as JSON.

``opendrive_reading`` runs this file as a separate process, with the document on standard input, because the client
aborts its process on some errors in a map. The file must import nothing from this package. Waypoints are in CARLA's
coordinates; the output is in this package's coordinates.
"""

from __future__ import annotations

import json
import math
import os
import sys
from typing import Any, Literal

SPACING_M = 0.5
"""Distance between the points of lanes and of the route."""
FINE_M = 0.1
"""Distance between the points of the route if only the route is read (``--route-only``)."""
ROUTE_ONLY = "--route-only"
GRAPH = "--graph"
_STRIDE = 4
"""Marks, neighbours and outer lines are read at every fourth point only, every 2 m, because reading them is slow."""
_MAX_STARTS = 500
"""The search for a loop starts from at most this many lanes, which limits its time on the map of a large town."""
_SEGMENT_STEP_M = 2.0
_END_M = 1e-5
"""The last waypoint of a lane is at most this far from the end of the lane."""
_MAX_LANES = 32
# Names of carla.LaneMarkingType. All others, such as "SolidBroken", count as solid.
_BROKEN = {"Broken", "BrokenBroken", "BottsDots"}
_NONE = {"NONE", "Other"}

Key = tuple[int, int, int]
"""Identifies a lane by the numbers of its road, of a section of this road, and of the lane in this section."""
Turn = Literal["straight", "left", "right"]


def survey(text: str, *, with_lanes: bool = True) -> dict[str, Any]:
    """Return the route and the lanes of a map.

    The route is the longest loop that a car finds by taking the same turn (left, right or straight on) at every
    junction. The route is empty if the map has no such loop.

    :param text: the OpenDRIVE document
    :param with_lanes: False leaves out the lanes, which is much faster. The points of the route are then 0.1 m apart
        instead of 0.5 m.
    :return: ``{"route": [point, ...], "lanes": [[point, ...], ...]}``; :func:`_point` describes a point
    """
    import carla

    road_map = carla.Map("surveyed", text)
    lanes: dict[Key, list[Any]] = {}
    step_m = FINE_M
    if with_lanes:
        step_m = SPACING_M
        for waypoint in road_map.generate_waypoints(SPACING_M):
            lanes.setdefault(_key(waypoint), []).append(waypoint)
    loop = _longest_loop(road_map.get_topology())
    return {
        "route": [_point(waypoint) for start in loop for waypoint in _along(start, step_m)],
        "lanes": [[_point(waypoint) for waypoint in _in_order(lane)] for _, lane in sorted(lanes.items())],
    }


def survey_graph(text: str) -> dict[str, Any]:
    """Return all lanes of a map with the links between them, and the map's signals and crosswalks.

    A segment is one lane in one section of a road. It names the segments that follow it, and the segments on its left
    and right to which a car may change.

    :param text: the OpenDRIVE document
    :return: ``{"segments": [segment, ...], "rise_m": float, "signals": [...], "crosswalks": [[(x, y), ...], ...]}``;
        :func:`_segment` describes a segment, :func:`_signal` a signal. ``rise_m`` is the difference in height between
        the highest and the lowest lane.
    """
    import carla

    road_map = carla.Map("surveyed", text)
    lanes: dict[Key, list[Any]] = {}
    for waypoint in road_map.generate_waypoints(SPACING_M):
        lanes.setdefault(_key(waypoint), []).append(waypoint)
    # ``s`` is the distance along the road. Lanes with positive numbers are driven against it.
    for lane in lanes.values():
        lane.sort(key=lambda waypoint: -math.copysign(waypoint.s, waypoint.lane_id))
    topology = road_map.get_topology()
    begins = {_key(each): each for pair in topology for each in pair}
    # A section of less than 0.5 m may lie between two points. Its lanes get one point each.
    for key, waypoint in begins.items():
        if key not in lanes and str(waypoint.lane_type) == "Driving":
            lanes[key] = [waypoint]
    # Points lie at multiples of 0.5 m along the road, so a lane that is driven against the road would begin up to 0.5 m
    # late. The topology contains its exact beginning.
    for key, waypoint in begins.items():
        lane = lanes.get(key, [])
        if lane and 0.01 < waypoint.transform.location.distance(lane[0].transform.location) <= 2.0 * SPACING_M:
            lane.insert(0, waypoint)
    after: dict[Key, set[Key]] = {}
    for first, second in topology:
        if _key(first) not in lanes or _key(second) not in lanes:
            continue
        end, begin = lanes[_key(first)][-1].transform.location, lanes[_key(second)][0].transform.location
        # At a dead end, the client may return a successor that begins elsewhere.
        if end.distance(begin) < 2.0 * _SEGMENT_STEP_M:
            after.setdefault(_key(first), set()).add(_key(second))
    heights_m = [waypoint.transform.location.z for lane in lanes.values() for waypoint in lane]
    return {
        "segments": [_segment(key, lane, sorted(after.get(key, ()))) for key, lane in sorted(lanes.items())],
        "rise_m": max(heights_m, default=0.0) - min(heights_m, default=0.0),
        "signals": [_signal(road_map, landmark) for landmark in road_map.get_all_landmarks()],
        "crosswalks": _crosswalks(road_map.get_crosswalks()),
    }


def _signal(road_map: Any, landmark: Any) -> dict[str, Any]:
    """Return a landmark (a traffic light or sign) as plain data: its pole, and the lanes that it controls.

    A signal of several roads gives one landmark for each road, all with the same id. ``sign_reading`` merges them.
    """
    place = landmark.transform
    places: list[tuple[float, ...]] = []
    for first, last in landmark.get_lane_validities():
        for lane_id in range(min(first, last), max(first, last) + 1):
            # Lane 0 is the reference line of the road, on which nothing drives.
            waypoint = road_map.get_waypoint_xodr(landmark.road_id, lane_id, landmark.s) if lane_id else None
            if waypoint is not None and str(waypoint.lane_type) == "Driving":
                location = waypoint.transform.location
                places.append((*_key(waypoint), round(location.x, 3), round(-location.y, 3)))
    return {
        "id": landmark.id,
        "type": landmark.type,
        "value": landmark.value,
        "x_m": round(place.location.x, 3),
        "y_m": round(-place.location.y, 3),
        "z_m": round(place.location.z, 3),
        "yaw_rad": round(-math.radians(place.rotation.yaw), 4),
        "places": places,
    }


def _crosswalks(corners: list[Any]) -> list[list[tuple[float, float]]]:
    """Return the corners of each crosswalk from the client's list, in which each crosswalk repeats its first corner."""
    found: list[list[tuple[float, float]]] = []
    open_outline: list[tuple[float, float]] = []
    for corner in corners:
        point = (round(corner.x, 3), round(-corner.y, 3))
        if open_outline and point == open_outline[0]:
            found.append(open_outline)
            open_outline = []
        else:
            open_outline.append(point)
    return [outline for outline in found if len(outline) >= 3]


def _segment(key: Key, lane: list[Any], successors: list[Key]) -> dict[str, Any]:
    """Return a lane as plain data.

    The entry ``surveyed`` of the result holds the indices of every fourth waypoint. The entries ``left_line_m``,
    ``right_line_m`` and ``marks`` have one value for each of these waypoints.
    """
    places = [waypoint.transform for waypoint in lane]
    numbers = list(range(0, len(lane), _STRIDE))
    surveyed = [_point(lane[number]) for number in numbers]
    return {
        "key": key,
        "junction": lane[0].junction_id if lane[0].is_junction else -1,
        "x_m": [round(place.location.x, 4) for place in places],
        "y_m": [round(-place.location.y, 4) for place in places],
        "heading_rad": [round(-math.radians(place.rotation.yaw), 5) for place in places],
        "width_m": [round(waypoint.lane_width, 4) for waypoint in lane],
        "surveyed": numbers,
        "left_line_m": [point["left_line_m"] for point in surveyed],
        "right_line_m": [point["right_line_m"] for point in surveyed],
        "marks": [point["marks"] for point in surveyed],
        "successors": successors,
        "left": _lane_to_change_to([lane[number] for number in numbers], "left"),
        "right": _lane_to_change_to([lane[number] for number in numbers], "right"),
        "footway_m": _footway(lane[len(lane) // 2]),
    }


def _footway(waypoint: Any) -> tuple[float, float] | None:
    """Return ``(offset, width)`` of the pavement to the right of a lane, in metres.

    The offset leads from the lane's centre to the middle of the pavement, and is negative. The function returns
    None if there is no pavement, or if another lane for vehicles lies between the lane and the pavement.
    """
    offset_m, lane = -0.5 * waypoint.lane_width, waypoint
    for _ in range(_MAX_LANES):
        lane = lane.get_right_lane()
        if lane is None or str(lane.lane_type) in {"Driving", "Bidirectional"}:
            return None
        if str(lane.lane_type) == "Sidewalk":
            return round(offset_m - 0.5 * lane.lane_width, 3), round(lane.lane_width, 3)
        offset_m -= lane.lane_width
    return None


def _lane_to_change_to(waypoints: list[Any], side: Literal["left", "right"]) -> Key | None:
    """Return the lane to which most of these waypoints allow a change; None if there is no such lane."""
    found: list[Key] = []
    for waypoint in waypoints:
        allowed = str(waypoint.lane_change)
        beside = waypoint.get_left_lane() if side == "left" else waypoint.get_right_lane()
        if allowed not in {"Both", side.capitalize()} or beside is None:
            continue
        if str(beside.lane_type) == "Driving" and beside.lane_id * waypoint.lane_id > 0:
            found.append(_key(beside))
    if 2 * len(found) <= len(waypoints):
        return None
    return max(sorted(set(found)), key=found.count)


def _longest_loop(topology: list[tuple[Any, Any]]) -> list[Any]:
    """Return the longest loop that a car finds by taking the same turn at every junction.

    :return: the first waypoint of each lane of the loop, in driving order; empty if there is no loop
    """
    starts = {_key(first): first for first, _ in topology}
    starts |= {_key(second): second for _, second in topology if _key(second) not in starts}
    segments = {key: _along(start, _SEGMENT_STEP_M) for key, start in starts.items()}
    after: dict[Key, list[Key]] = {}
    for first, second in topology:
        # At a dead end, the client may return the lane as its own successor, although the lane's ends do not meet.
        begin = starts[_key(second)].transform.location
        gap_m = segments[_key(first)][-1].transform.location.distance(begin)
        if gap_m < 2.0 * _SEGMENT_STEP_M:
            after.setdefault(_key(first), []).append(_key(second))
    turns = {key: _turned_rad(segment) for key, segment in segments.items()}
    best: list[Key] = []
    turn_names: tuple[Turn, ...] = ("straight", "left", "right")
    for start in sorted(starts)[:_MAX_STARTS]:
        for turn in turn_names:
            loop = _walk(start, after, turns, turn)
            # All steps are equally long, so the longest loop has the most waypoints. Of equally long loops the first is
            # kept, so that the same file gives the same route.
            if sum(len(segments[key]) for key in loop) > sum(len(segments[key]) for key in best):
                best = loop
    return [starts[key] for key in best]


def _walk(start: Key, after: dict[Key, list[Key]], turns: dict[Key, float], turn: Turn) -> list[Key]:
    """Return the loop on which a car ends up if it takes the same turn at every junction.

    :return: the lanes of the loop in driving order, which need not contain ``start``; empty if the car comes to a dead
        end
    """
    path: list[Key] = []
    seen: dict[Key, int] = {}
    key = start
    while key not in seen:
        seen[key] = len(path)
        path.append(key)
        ways = sorted(set(after.get(key, [])))
        if not ways:
            return []
        if turn == "straight":
            key = min(ways, key=lambda way: abs(turns[way]))
        elif turn == "left":
            key = min(ways, key=lambda way: -turns[way])
        else:
            key = min(ways, key=lambda way: turns[way])
    # The lanes before the first repeated lane lead into the loop, but are not part of it.
    return path[seen[key] :]


def _along(start: Any, step_m: float) -> list[Any]:
    """Return waypoints from the start of a lane to the end of its section.

    The last step may be shorter than the others. The client's ``next_until_lane_end`` is not used, because it leads to
    the end of the road, and fails on some roads of several sections.
    """
    line = [start]
    while (ahead := _ahead_in_lane(line[-1], start, step_m)) is not None:
        line.append(ahead)
    # Halve the step to find the last waypoint of the section.
    end = line[-1]
    while step_m > _END_M:
        step_m *= 0.5
        end = _ahead_in_lane(end, start, step_m) or end
    return line if end is line[-1] else [*line, end]


def _ahead_in_lane(waypoint: Any, start: Any, step_m: float) -> Any | None:
    """Return the waypoint that lies ``step_m`` ahead in the lane that begins at ``start``; None beyond its end."""
    for ahead in waypoint.next(step_m):
        # If a single road forms a ring, its lane leads back to its own start. There the distance from the start drops.
        if _key(ahead) == _key(start) and abs(ahead.s - start.s) > abs(waypoint.s - start.s):
            return ahead
    return None


def _turned_rad(segment: list[Any]) -> float:
    """Return the angle between the first and the last direction of a segment, positive to the left."""
    first, last = (waypoint.transform.rotation.yaw for waypoint in (segment[0], segment[-1]))
    return -math.remainder(math.radians(last - first), 2.0 * math.pi)


def _in_order(lane: list[Any]) -> list[Any]:
    """Return a lane's waypoints in driving order, with one extra waypoint before the first and one after the last.

    The extra waypoints close the gaps between lanes that follow each other. At a dead end there is no extra waypoint.
    """
    # ``s`` is the distance along the road. Lanes with positive numbers are driven against it.
    ordered = sorted(lane, key=lambda waypoint: -math.copysign(waypoint.s, waypoint.lane_id))
    return [*ordered[0].previous(SPACING_M)[:1], *ordered, *ordered[-1].next(SPACING_M)[:1]]


def _point(waypoint: Any) -> dict[str, Any]:
    """Return a waypoint as plain data, in this package's coordinates: metres, radians, offsets positive to the left."""
    place = waypoint.transform.location
    half_m = 0.5 * waypoint.lane_width
    left, right = _lanes_beside(waypoint, "left"), _lanes_beside(waypoint, "right")
    # Offsets of the left lines: first of the waypoint's own lane, then of each lane to the left of this lane.
    borders_m = [half_m + sum(lane.lane_width for lane in left[:i]) for i in range(len(left) + 1)]
    oncoming_lane_m = None
    for lane, border_m in zip(left, borders_m, strict=False):
        if lane.lane_id * waypoint.lane_id < 0:  # the sign of a lane's number is its direction
            oncoming_lane_m = border_m + 0.5 * lane.lane_width
            break
    return {
        "x_m": place.x,
        "y_m": -place.y,
        "heading_rad": -math.radians(waypoint.transform.rotation.yaw),
        "width_m": waypoint.lane_width,
        "left_line_m": borders_m[-1],
        "right_line_m": -half_m - sum(lane.lane_width for lane in right),
        "left_mark": _mark(waypoint.left_lane_marking),
        "right_mark": _mark(waypoint.right_lane_marking),
        "marks": _marks(waypoint, left, right),
        "oncoming_lane_m": oncoming_lane_m,
        "in_junction": waypoint.is_junction,
    }


def _lanes_beside(waypoint: Any, side: str) -> list[Any]:
    """Return the lanes on one side of a waypoint's lane, the nearest first: lanes for cars, in either direction."""
    lanes: list[Any] = []
    lane = waypoint
    while len(lanes) < _MAX_LANES:
        # CARLA's left and right are those of the lane's own traffic. On an oncoming lane the sides are exchanged.
        is_same_direction = lane.lane_id * waypoint.lane_id > 0
        is_their_left = (side == "left") == is_same_direction
        lane = lane.get_left_lane() if is_their_left else lane.get_right_lane()
        if lane is None or str(lane.lane_type) not in {"Driving", "Bidirectional"}:
            break
        lanes.append(lane)
    return lanes


def _marks(waypoint: Any, left: list[Any], right: list[Any]) -> list[tuple[float, str]]:
    """Return the lateral offset in metres and the kind of each painted mark of the road, from right to left."""
    offset_m = -0.5 * waypoint.lane_width - sum(lane.lane_width for lane in right)
    marks: list[tuple[float, str]] = []
    for lane in [*reversed(right), waypoint, *left]:
        near, far = lane.right_lane_marking, lane.left_lane_marking
        if lane.lane_id * waypoint.lane_id < 0:  # an oncoming lane: its left is our right
            near, far = far, near
        if not marks:  # adjacent lanes share a mark, so only the first lane adds the mark on its near side
            marks.append((offset_m, _mark(near)))
        offset_m += lane.lane_width
        marks.append((offset_m, _mark(far)))
    return [(offset, kind) for offset, kind in marks if kind != "none"]


def _mark(marking: Any) -> str:
    """Return ``"none"``, ``"broken"`` or ``"solid"`` for a marking of CARLA's client."""
    if marking is None or str(marking.type) in _NONE:
        return "none"
    if str(marking.type) in _BROKEN:
        return "broken"
    return "solid"


def _key(waypoint: Any) -> Key:
    """Return the numbers that identify the waypoint's lane."""
    return waypoint.road_id, waypoint.section_id, waypoint.lane_id


if __name__ == "__main__":
    # CARLA's client prints warnings on standard output, where they would mix with the answer. The answer goes to a copy
    # of the output instead.
    with os.fdopen(os.dup(1), "w") as output, open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        if GRAPH in sys.argv:
            answer = survey_graph(sys.stdin.read())
        else:
            answer = survey(sys.stdin.read(), with_lanes=ROUTE_ONLY not in sys.argv)
        json.dump(answer, output)
