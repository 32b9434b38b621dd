"""Read the traffic lights and signs of a map file, or place traffic lights on a built-in map.

CARLA's client provides the signals and crosswalks of a file. Controllers and speed limits are read from the file's
text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.envs.road.lane_graph import LaneGraph, LaneSegment
from sb3_visual_td3.envs.road.opendrive_reading import client_number
from sb3_visual_td3.envs.road.road_signs import LIGHT_TYPE, RoadSigns, Signal, StopLine

STOP_LINE_M = 0.5
"""Distance of a stop line from the end of the lane before a junction."""
_POLE_ASIDE_M = 1.2
"""Distance from a light's pole to the right edge of the lane that leads straight through the junction. If no lane leads
straight on, this is the distance to the extended centre line of the lane before the junction."""
_STRAIGHT_RAD = 0.6
"""Largest turn, in rad, of a path through a junction that counts as leading straight on."""
_BEYOND_M = 6.0
"""If no road leads straight on, the pole of a light stands this far beyond the junction's farthest exit, in the
direction of the incoming lane."""
_LIT_SHARE = 0.75
"""Share of the built-in maps' junctions that get traffic lights."""
_MIN_ARMS = 3
"""A junction gets no lights if fewer lanes than this lead into it."""


# Read the signs of a file


def signs_of_survey(answer: Mapping[str, Any], segments: Sequence[LaneSegment], text: str) -> RoadSigns:
    """Return the lights, signs and crosswalks of a map from the data that CARLA's client has read.

    :param answer: the result of ``lane_survey.survey_graph``
    :param segments: the lanes of the graph
    :param text: the OpenDRIVE document, for the controllers, which CARLA's client does not provide
    :return: the signs, in the order in which their ids first appear in ``answer``
    """
    number_of = {segment.key: number for number, segment in enumerate(segments)}
    before: dict[int, list[int]] = {}
    for number, segment in enumerate(segments):
        for after in segment.successors:
            before.setdefault(after, []).append(number)
    rows: dict[str, Mapping[str, Any]] = {}
    stops: dict[str, set[StopLine]] = {}
    # {lane before a junction: {signal: lanes of the junction that the signal controls}}
    controlled: dict[int, dict[str, set[int]]] = {}
    for row in answer["signals"]:
        rows.setdefault(row["id"], row)
        found = stops.setdefault(row["id"], set())
        for road, section, lane, x_m, y_m in row["places"]:
            if (road, section, lane) not in number_of:
                continue
            number = number_of[road, section, lane]
            if segments[number].junction < 0:
                found.add(StopLine(number, _along_near(segments[number], x_m, y_m)))
                continue
            # A light at a lane inside the junction stops the traffic on the lanes that lead to that lane.
            for ahead, way in _ways_into(number, segments, before):
                controlled.setdefault(ahead, {}).setdefault(row["id"], set()).add(way)
    for ahead, ways_of in controlled.items():
        along_m = max(0.0, segments[ahead].length_m - STOP_LINE_M)
        lights = {name: ways for name, ways in ways_of.items() if rows[name]["type"] == LIGHT_TYPE}
        _complete(lights, segments[ahead].successors, segments)
        for name, ways in ways_of.items():
            is_for_all = name not in lights or ways.issuperset(segments[ahead].successors)
            stops[name].add(StopLine(ahead, along_m, () if is_for_all else tuple(sorted(ways))))
    signals = []
    for name, row in rows.items():
        signals.append(
            Signal(
                name,
                row["type"],
                row["value"],
                row["x_m"],
                row["y_m"],
                row["z_m"],
                row["yaw_rad"],
                tuple(sorted(stops[name])),
            )
        )
    crosswalks = tuple(tuple((x_m, y_m) for x_m, y_m in corners) for corners in answer["crosswalks"])
    return RoadSigns(tuple(signals), _cycles_of(signals, segments, text), crosswalks)


def _along_near(segment: LaneSegment, x_m: float, y_m: float) -> float:
    """Return the point of a lane that is closest to a place, as a distance along the lane in metres."""
    gaps_m = np.hypot(segment.points_m[:, 0] - x_m, segment.points_m[:, 1] - y_m)
    return float(segment.along_m[int(np.argmin(gaps_m))])


def _ways_into(
    number: int, segments: Sequence[LaneSegment], before: Mapping[int, Sequence[int]]
) -> set[tuple[int, int]]:
    """Return the ways by which vehicles reach lane ``number`` inside a junction.

    :return: for each way the lane that ends at the junction, and the first lane inside the junction
    """
    found: set[tuple[int, int]] = set()
    seen: set[int] = set()
    to_visit = [number]
    while to_visit:
        here = to_visit.pop()
        if here in seen:
            continue
        seen.add(here)
        for lane in before.get(here, ()):
            if segments[lane].junction < 0:
                found.add((lane, here))
            else:
                to_visit.append(lane)
    return found


def _complete(lights: Mapping[str, set[int]], successors: Sequence[int], segments: Sequence[LaneSegment]) -> None:
    """Extend the lights before a junction to the ways that no light controls.

    Many files name only one lane of the junction for a light. The lanes that no light names get the lights of the
    straightest named lane, because the light of a turning lane may be an arrow.

    :param lights: for each light the lanes of the junction that the light controls; changed in place
    :param successors: the lanes that follow the lane before the junction
    """

    def bend_rad(way: int) -> float:
        begin_rad, end_rad = segments[way].headings_rad
        return abs(math.remainder(end_rad - begin_rad, 2.0 * math.pi))

    named = set().union(*lights.values())
    if named:
        straightest = min(named, key=bend_rad)
        for ways in lights.values():
            if straightest in ways:
                ways.update(way for way in successors if way not in named)


def _cycles_of(
    signals: Sequence[Signal], segments: Sequence[LaneSegment], text: str
) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """Return the light cycle of each junction, as a sequence of groups of lights.

    All lights of a group are green at the same time. If a junction of the file lists a controller, the lights of this
    controller form one group. Each other light is a group of its own.
    """
    lights = {signal.id: number for number, signal in enumerate(signals) if signal.is_light}
    root = ElementTree.fromstring(text.encode())
    controlled: dict[str, tuple[int, ...]] = {}
    for controller in root.findall("controller"):
        names = [control.get("signalId", "") for control in controller.findall("control")]
        controlled[controller.get("id", "")] = tuple(sorted({lights[name] for name in names if name in lights}))
    used: set[int] = set()
    cycles = []
    for junction in root.findall("junction"):
        stages: list[tuple[int, ...]] = []
        for entry in junction.findall("controller"):
            # A light belongs to one stage of one cycle, even if the file lists it twice.
            stage = tuple(light for light in controlled.get(entry.get("id", ""), ()) if light not in used)
            if stage:
                stages.append(stage)
                used.update(stage)
        if stages:
            cycles.append(tuple(stages))
    others: dict[int, list[tuple[int, ...]]] = {}
    for light in lights.values():
        if light not in used:
            # Lights before the same junction take turns; a light without a junction has a cycle of its own.
            others.setdefault(_junction_after(signals[light], segments, -1 - light), []).append((light,))
    return (*cycles, *(tuple(stages) for stages in others.values()))


def _junction_after(signal: Signal, segments: Sequence[LaneSegment], none: int) -> int:
    """Return the number of the junction to which a signal's lanes lead; ``none`` if there is no such junction."""
    for stop in signal.stops:
        for after in segments[stop.segment].successors:
            if segments[after].junction >= 0:
                return segments[after].junction
    return none


def speed_limits_mps(text: str) -> dict[int, float]:
    """Return the speed limit of each road that has one, by the road's number.

    :param text: the OpenDRIVE document
    :return: the first limit of each road, in m/s
    """
    factors = {"km/h": 1.0 / 3.6, "mph": 0.44704, "m/s": 1.0}
    limits: dict[int, float] = {}
    for road in ElementTree.fromstring(text.encode()).findall("road"):
        speed = road.find("type/speed")
        try:
            limit_mps = float(speed.get("max", "")) if speed is not None else 0.0
        except ValueError:  # max="no limit"
            continue
        if speed is not None and 0.0 < limit_mps < math.inf:
            limits[client_number(road.get("id", ""))] = limit_mps * factors.get(speed.get("unit", "m/s"), 1.0)
    return limits


# Place lights on built-in maps


def place_lights(graph: LaneGraph, seed: int) -> RoadSigns:
    """Return traffic lights for the junctions of a map that has none.

    A junction with at least three incoming lanes gets lights with a probability of 75 %. Each of these lanes has its
    own light and its own green time.

    :param graph: the lanes of the map
    :param seed: determines which junctions have lights
    :return: the signs with the new lights, or the graph's own signs if they already contain lights
    """
    if any(signal.is_light for signal in graph.signs.signals):
        return graph.signs
    rng = np.random.default_rng([seed, 5])
    signals = list(graph.signs.signals)
    cycles = []
    for junction, lanes in sorted(_lanes_before_junctions(graph).items()):
        is_lit = float(rng.uniform()) < _LIT_SHARE
        if len(lanes) < _MIN_ARMS or not is_lit:
            continue
        stages = []
        for lane in lanes:
            stages.append((len(signals),))
            signals.append(_light_behind(graph, lane, f"{junction}{len(stages):02d}"))
        cycles.append(tuple(stages))
    return graph.signs._replace(signals=tuple(signals), cycles=tuple(cycles))


def _lanes_before_junctions(graph: LaneGraph) -> dict[int, list[int]]:
    """Return for each junction the lanes that lead into it."""
    found: dict[int, list[int]] = {}
    for number, segment in enumerate(graph.segments):
        junctions = {graph.segments[after].junction for after in segment.successors} - {segment.junction, -1}
        if segment.junction < 0 and junctions:
            found.setdefault(min(junctions), []).append(number)
    return found


def _light_behind(graph: LaneGraph, number: int, name: str) -> Signal:
    """Return a light for a lane, on the far side of its junction, where a vehicle at the stop line sees it."""
    segment = graph.segments[number]
    along_m = max(0.0, segment.length_m - STOP_LINE_M)
    heading_rad = segment.headings_rad[1]
    ways = graph.junction_ways(number)
    straight = min(ways, key=lambda way: abs(way.turn_rad))
    if abs(straight.turn_rad) < _STRAIGHT_RAD:
        # The pole stands at the right of the road by which vehicles leave the junction.
        last = graph.segments[straight.segments[-1]]
        place, direction_rad = last.points_m[-1], last.headings_rad[1]
        aside_m = 0.5 * float(last.width_m[-1]) + _POLE_ASIDE_M
    else:
        # No road leads straight on, so the pole stands beyond the road that crosses.
        ends = np.stack([graph.segments[way.segments[-1]].points_m[-1] for way in ways]) - segment.points_m[-1]
        ahead_m = float((ends @ (math.cos(heading_rad), math.sin(heading_rad))).max()) + _BEYOND_M
        place = segment.points_m[-1] + ahead_m * np.array((math.cos(heading_rad), math.sin(heading_rad)))
        direction_rad, aside_m = heading_rad, _POLE_ASIDE_M
    x_m = float(place[0]) + aside_m * math.sin(direction_rad)
    y_m = float(place[1]) - aside_m * math.cos(direction_rad)
    return Signal(name, LIGHT_TYPE, -1.0, x_m, y_m, 0.0, heading_rad, (StopLine(number, along_m),))


def stop_bar_m(segment: LaneSegment, along_m: float) -> NDArray[np.float64]:
    """Return x and y of the left and the right end of the stop line across a lane, ``(2, 2)``, in metres.

    :param segment: the lane
    :param along_m: distance of the stop line from the beginning of the lane
    """
    index = min(int(np.searchsorted(segment.along_m, along_m)), len(segment.points_m) - 1)
    first = max(0, index - 1)
    ahead = segment.points_m[first + 1] - segment.points_m[first]
    left = np.array((-ahead[1], ahead[0])) / max(1e-9, float(np.hypot(*ahead)))
    middle = np.array([np.interp(along_m, segment.along_m, segment.points_m[:, axis]) for axis in (0, 1)])
    half_m = 0.5 * float(segment.width_m[index])
    return np.stack([middle + half_m * left, middle - half_m * left])
