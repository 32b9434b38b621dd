"""Read an OpenDRIVE map through CARLA's client and print its lanes and a route as plain data.

This runs as a process of its own, with the document on its input and JSON on its output, because the client ends the
process on some faults of a map.
"""

from __future__ import annotations

import json
import math
import sys
from typing import Any, Literal

SPACING_M = 0.5
FINE_M = 0.1
"""Between points of a route that is surveyed alone: chords cut corners, a millimetre a bend."""
ROUTE_ONLY = "--route-only"
_MAX_STARTS = 500
_SEGMENT_STEP_M = 2.0
_MAX_LANES = 32
_BROKEN = {"Broken", "BrokenBroken", "BottsDots"}
_NONE = {"NONE", "Other"}

Key = tuple[int, int, int]
"""Road, lane section and lane."""
Turn = Literal["straight", "left", "right"]


def survey(text: str, *, with_lanes: bool = True) -> dict[str, Any]:
    """Return ``{"route": [point...], "lanes": [[point...]...]}``; x, y in OpenDRIVE's metres.

    Without lanes, only those of the route are looked at, which is a matter of moments on the map of a town too.

    The route is the longest loop that is found from any lane by always going straight on, always left or always
    right where a junction leaves a choice. It is empty where there is none.
    """
    import carla

    road_map = carla.Map("surveyed", text)
    lanes: dict[Key, list[Any]] = {}
    for waypoint in road_map.generate_waypoints(SPACING_M) if with_lanes else ():
        lanes.setdefault(_key(waypoint), []).append(waypoint)
    loop, step_m = _longest_loop(road_map.get_topology()), SPACING_M if with_lanes else FINE_M
    return {
        "route": [_point(waypoint) for start in loop for waypoint in _along(start, step_m)],
        "lanes": [[_point(waypoint) for waypoint in _in_order(lane)] for _, lane in sorted(lanes.items())],
    }


def _longest_loop(topology: list[tuple[Any, Any]]) -> list[Any]:
    starts = {_key(first): first for first, _ in topology}
    starts |= {_key(second): second for _, second in topology if _key(second) not in starts}
    segments = {key: _along(start, _SEGMENT_STEP_M) for key, start in starts.items()}
    after: dict[Key, list[Key]] = {}
    for first, second in topology:
        # Beyond a dead end the client may name the lane itself, which begins far from its end.
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
            # A tie goes to the first, so that the same file gives the same route.
            if sum(len(segments[key]) for key in loop) > sum(len(segments[key]) for key in best):
                best = loop
    return [starts[key] for key in best]


def _walk(start: Key, after: dict[Key, list[Key]], turns: dict[Key, float], turn: Turn) -> list[Key]:
    """Return the loop that one runs into from ``start``, or nothing if the way ends."""
    path: list[Key] = []
    seen: dict[Key, int] = {}
    key = start
    while key not in seen:
        seen[key] = len(path)
        path.append(key)
        ways = sorted(set(after.get(key, [])))
        if not ways:
            return []
        sign = {"straight": 0.0, "left": -1.0, "right": 1.0}[turn]
        key = min(ways, key=lambda way: sign * turns[way] if sign else abs(turns[way]))
    return path[seen[key] :]


def _along(start: Any, step_m: float) -> list[Any]:
    return [start, *start.next_until_lane_end(step_m)]


def _turned_rad(segment: list[Any]) -> float:
    """Return by how much a segment turns, positive to the left."""
    first, last = (waypoint.transform.rotation.yaw for waypoint in (segment[0], segment[-1]))
    return -math.remainder(math.radians(last - first), 2.0 * math.pi)


def _in_order(lane: list[Any]) -> list[Any]:
    """Return a lane's waypoints in driving order, and one beyond either end, so that no gap is left."""
    ordered = sorted(lane, key=lambda waypoint: -math.copysign(waypoint.s, waypoint.lane_id))
    return [*ordered[0].previous(SPACING_M)[:1], *ordered, *ordered[-1].next(SPACING_M)[:1]]


def _point(waypoint: Any) -> dict[str, Any]:
    place = waypoint.transform.location
    half_m = 0.5 * waypoint.lane_width
    left, right = _lanes_beside(waypoint, "left"), _lanes_beside(waypoint, "right")
    borders_m = [half_m + sum(lane.lane_width for lane in left[:i]) for i in range(len(left) + 1)]
    oncoming = [i for i, lane in enumerate(left) if lane.lane_id * waypoint.lane_id < 0]
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
        "oncoming_lane_m": borders_m[oncoming[0]] + 0.5 * left[oncoming[0]].lane_width if oncoming else None,
        "in_junction": waypoint.is_junction,
    }


def _lanes_beside(waypoint: Any, side: str) -> list[Any]:
    """Return the lanes for cars on one side, the nearest first, whichever way they lead."""
    lanes: list[Any] = []
    lane = waypoint
    while len(lanes) < _MAX_LANES:
        # "Left" is as its own traffic sees it: beyond the middle one goes on to the right.
        is_same_way = lane.lane_id * waypoint.lane_id > 0
        lane = lane.get_left_lane() if (side == "left") == is_same_way else lane.get_right_lane()
        if lane is None or str(lane.lane_type) not in {"Driving", "Bidirectional"}:
            break
        lanes.append(lane)
    return lanes


def _marks(waypoint: Any, left: list[Any], right: list[Any]) -> list[tuple[float, str]]:
    """Return offset and kind of every mark of the road, from right to left, without those that are not painted."""
    offset_m = -0.5 * waypoint.lane_width - sum(lane.lane_width for lane in right)
    marks: list[tuple[float, str]] = []
    for lane in [*reversed(right), waypoint, *left]:
        is_same_way = lane.lane_id * waypoint.lane_id > 0
        near, far = lane.right_lane_marking, lane.left_lane_marking
        if not is_same_way:
            near, far = far, near
        if not marks:
            marks.append((offset_m, _mark(near)))
        offset_m += lane.lane_width
        marks.append((offset_m, _mark(far)))
    return [(offset, kind) for offset, kind in marks if kind != "none"]


def _mark(marking: Any) -> str:
    kind = "NONE" if marking is None else str(marking.type)
    return "none" if kind in _NONE else "broken" if kind in _BROKEN else "solid"


def _key(waypoint: Any) -> Key:
    return waypoint.road_id, waypoint.section_id, waypoint.lane_id


if __name__ == "__main__":
    json.dump(survey(sys.stdin.read(), with_lanes=ROUTE_ONLY not in sys.argv), sys.stdout)
