"""Read a user's OpenDRIVE file: check its text, let CARLA's client survey it in a process of its own, build a road."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
import zlib
from collections.abc import Sequence
from functools import lru_cache
from os import PathLike
from pathlib import Path
from statistics import median, mode
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.envs.backend import LaneMark
from sb3_visual_td3.envs.road.ground import Ground, GroundPlan, Strip, build_ground, build_panorama, mark_strips
from sb3_visual_td3.envs.road.lane_survey import ROUTE_ONLY, SPACING_M
from sb3_visual_td3.envs.road.network import Paint
from sb3_visual_td3.envs.road.track import Track

_GEOMETRIES = ("line", "arc", "spiral", "poly3", "paramPoly3")


def check_opendrive(text: str, source: str) -> None:
    """Return if the text has what a road map needs: a header, roads with a course, and lanes with a width.

    :param text: the whole document.
    :param source: where it comes from, for the message.
    :raises ValueError: if it is no well-formed XML or lacks any of these; the message names the road.
    """
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise _fault(source, "a document type declaration", "plain OpenDRIVE", "remove the <!DOCTYPE ...> part")
    try:
        root = ElementTree.fromstring(text.encode())
    except ElementTree.ParseError as error:
        raise _fault(source, f"broken XML ({error})", "an OpenDRIVE document", "export the map again") from error
    if root.tag != "OpenDRIVE":
        raise _fault(source, f"<{root.tag}>", "<OpenDRIVE> as the outermost element", "give an .xodr file")
    header = root.find("header")
    if header is None or header.get("revMajor") != "1":
        raise _fault(source, "no <header revMajor='1'>", "OpenDRIVE 1.x", "export the map as OpenDRIVE 1.4")
    roads = root.findall("road")
    if not roads:
        raise _fault(source, "no <road>", "at least one", "export a map that has roads")
    names = [road.get("id", "") for road in roads]
    if "" in names or len(set(names)) != len(names):
        raise _fault(source, "roads without an id or with the same one", "an id for each", "number the roads")
    for road in roads:
        _check_road(road, f"{source}, road {road.get('id')}")
    _check_links(root, set(names), source)


def _check_road(road: ElementTree.Element, place: str) -> None:
    if not _number(road, "length", place) > 0.0:
        raise _fault(place, f"length={road.get('length')!r}", "metres above 0", "mend or remove the road")
    plan_view = road.findall("planView/geometry")
    if not plan_view:
        raise _fault(place, "no <planView> with a <geometry>", "lines or arcs", "mend or remove the road")
    for geometry in plan_view:
        for name in ("s", "x", "y", "hdg"):
            _number(geometry, name, place)
        if not _number(geometry, "length", place) > 0.0:
            raise _fault(place, f"a geometry of length={geometry.get('length')!r}", "metres above 0", "mend the piece")
        shapes = [child for child in geometry if child.tag in _GEOMETRIES]
        if len(shapes) != 1:
            raise _fault(place, f"a geometry with {len(shapes)} shapes", f"one of {_GEOMETRIES}", "mend the piece")
        for name in sorted(set(shapes[0].keys()) - {"pRange"}):
            _number(shapes[0], name, place)
    _check_lanes(road, place)


def _check_lanes(road: ElementTree.Element, place: str) -> None:
    sections = road.findall("lanes/laneSection")
    if not sections:
        raise _fault(place, "no <laneSection>", "at least one", "give the road lanes")
    for section in sections:
        _number(section, "s", place)
        if section.find("center/lane") is None:
            raise _fault(place, "a lane section without a centre lane", "<center> with lane 0", "add it")
        for lane in [*section.findall("left/lane"), *section.findall("right/lane")]:
            if not _number(lane, "id", place).is_integer():
                raise _fault(place, f"lane id={lane.get('id')!r}", "a whole number", "number the lanes")
            for width in lane.findall("width"):
                for name in ("sOffset", "a", "b", "c", "d"):
                    _number(width, name, place)


def _check_links(root: ElementTree.Element, roads: set[str], source: str) -> None:
    junctions = {junction.get("id", "") for junction in root.findall("junction")}
    for entry in [*root.findall("road/link/predecessor"), *root.findall("road/link/successor")]:
        known = junctions if entry.get("elementType") == "junction" else roads
        if entry.get("elementId") not in known:
            kind = entry.get("elementType")
            raise _fault(source, f"a link to {kind} {entry.get('elementId')!r}", "one of the file's", "mend the link")
    for connection in root.findall("junction/connection"):
        for name in ("incomingRoad", "connectingRoad"):
            if connection.get(name) not in roads:
                raise _fault(
                    source, f"a junction with {name}={connection.get(name)!r}", "one of the file's roads", "mend it"
                )


def _number(element: ElementTree.Element, name: str, place: str) -> float:
    try:
        value = float(element.get(name, ""))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise _fault(place, f"<{element.tag} {name}={element.get(name)!r}>", "a finite number", "mend the file")
    return value


def _fault(place: str, got: str, expected: str, remedy: str) -> ValueError:
    return ValueError(f"{place}: got {got}, expected {expected}; {remedy}")


MIN_ROUTE_M = 50.0
_TIME_LIMIT_S = 300.0

SurveyedPoint = dict[str, Any]
"""A place on a lane, as ``lane_survey`` writes it down."""


@lru_cache(maxsize=16)
def read_route(text: str, source: str) -> Track:
    """Return the route that is driven on a map.

    :param text: of the map, in OpenDRIVE.
    :param source: what it is called, for messages.
    :raises ValueError: if it is no such map, or has no closed route of at least 50 m.
    """
    check_opendrive(text, source)
    return track_of(survey(text, source, with_lanes=False)["route"], source)


def survey(text: str, source: str, *, with_lanes: bool = True) -> dict[str, Any]:
    """Return the route and the lanes as ``lane_survey`` writes them down, in a process of its own.

    :raises ValueError: if CARLA's client cannot read the map.
    """
    # By its path: the file needs nothing of this package, which may not be installed where Python looks.
    script = Path(__file__).with_name("lane_survey.py")
    command = [sys.executable, str(script), *([] if with_lanes else [ROUTE_ONLY])]
    try:
        child = subprocess.run(
            command, input=text, capture_output=True, text=True, encoding="utf-8", timeout=_TIME_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError(
            f"{source}: CARLA's client did not read it in {_TIME_LIMIT_S:g} s; cut the map down"
        ) from error
    if child.returncode != 0:
        last = (child.stderr.strip().splitlines() or ["no message"])[-1]
        raise ValueError(
            f"{source}: CARLA's client cannot read it (exit {child.returncode}: {last}); "
            "try the file in another OpenDRIVE viewer and export it again"
        )
    answer: dict[str, Any] = json.loads(child.stdout)
    return answer


def track_of(route: Sequence[SurveyedPoint], source: str, max_extent_m: float = np.inf) -> Track:
    """Return a surveyed route as the line that the task keeps to.

    :raises ValueError: if it is shorter than 50 m, or larger than ``max_extent_m`` across.
    """
    length_m = 0.0
    if route:
        closed = places_of([*route, route[0]])
        steps = np.linalg.norm(np.diff(closed, axis=0), axis=1)
        along_m = np.concatenate([[0.0], np.cumsum(steps)])
        length_m = float(along_m[-1])
    if length_m < MIN_ROUTE_M:
        raise ValueError(
            f"{source}: got no closed route of at least {MIN_ROUTE_M:g} m (the longest is {length_m:.0f} m); "
            "join the roads to a loop of three roads or more"
        )
    if np.ptp(closed, axis=0).max() > max_extent_m:
        raise ValueError(f"{source}: got a route larger than {max_extent_m:g} m across; cut the map down")
    n = round(length_m / SPACING_M)
    even = np.arange(n) * (length_m / n)
    points = np.stack([np.interp(even, along_m, closed[:, axis]) for axis in (0, 1)], axis=1)
    inside = np.array([point["in_junction"] for point in route])[np.searchsorted(along_m, even, side="right") - 1]
    outside = [point for point in route if not point["in_junction"]] or route
    return Track(
        points,
        lane_width_m=median(point["width_m"] for point in outside),
        left_line_m=median(point["left_line_m"] for point in outside),
        right_line_m=median(point["right_line_m"] for point in outside),
        marks=_marks_of(outside),
        oncoming_lane_m=mode(point["oncoming_lane_m"] for point in outside),
        in_junction=inside if inside.any() else None,
    )


def _marks_of(route: Sequence[SurveyedPoint]) -> tuple[LaneMark, ...]:
    """Return the marks of the road that most of the route has, from right to left."""
    usual = mode(tuple(kind for _, kind in point["marks"]) for point in route)
    like = [point["marks"] for point in route if tuple(kind for _, kind in point["marks"]) == usual]
    columns = zip(*like, strict=True)
    return tuple(LaneMark(median(offset for offset, _ in column), column[0][1]) for column in columns)


def places_of(points: Sequence[SurveyedPoint]) -> NDArray[np.float64]:
    """Return x and y of each point, ``(n, 2)``."""
    return np.array([(point["x_m"], point["y_m"]) for point in points])


MAX_EXTENT_M = 1200.0
"""The ground takes 1.4 bytes per 0.1 m square: 200 MB where a route is so large both ways."""
_SIGHT_M = 80.0
_SHOULDER_M = 0.4


class OpenDriveRoad(NamedTuple):
    """What is built from an OpenDRIVE file."""

    track: Track
    ground: Ground
    panorama: NDArray[np.uint8]


def load_opendrive(path: str | PathLike[str]) -> OpenDriveRoad:
    """Read an ``.xodr`` file and build what is driven on and drawn.

    The route is the longest closed one that is found by always going straight on, always left or always right at
    junctions; what lies within 80 m of it is drawn. The world is flat: heights and bridges are left out. The route
    has one lane width and one set of marks, the usual ones outside of its junctions.

    :param path: of a file in OpenDRIVE 1.x with right-hand traffic.
    :raises ImportError: if CARLA's client is not installed.
    :raises ValueError: if the file is not there, is no such map, or has no closed route of at least 50 m that is at
        most 1,200 m across.
    """
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"path={str(path)!r}: expected an OpenDRIVE file; there is none at this place")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: got bytes that are no UTF-8, expected an OpenDRIVE file; export it again") from error
    check_opendrive(text, str(file))
    if importlib.util.find_spec("carla") is None:
        raise ImportError("a map from an OpenDRIVE file needs CARLA's client: pip install 'sb3-visual-td3[carla]'")
    answer = survey(text, str(file))
    track = track_of(answer["route"], str(file), MAX_EXTENT_M)
    rng = np.random.default_rng(zlib.crc32(text.encode()))
    ground = build_ground(_plan_of(answer["lanes"], track), rng)
    return OpenDriveRoad(track, ground, build_panorama(rng))


def _plan_of(lanes: Sequence[Sequence[SurveyedPoint]], track: Track) -> GroundPlan:
    low, high = track.points_m.min(axis=0) - _SIGHT_M, track.points_m.max(axis=0) + _SIGHT_M
    paved: list[Strip] = []
    marks: list[Strip] = []
    for lane in lanes:
        places = places_of(lane)
        in_sight = np.flatnonzero(((places >= low) & (places <= high)).all(axis=1))
        for run in np.split(in_sight, np.flatnonzero(np.diff(in_sight) > 1) + 1):
            if len(run) < 2:
                continue
            part = lane[run[0] : run[-1] + 1]
            paved.append(Strip(places[run], median(point["width_m"] for point in part) + 2.0 * _SHOULDER_M))
            if not part[len(part) // 2]["in_junction"]:
                marks += _marks_beside(part, places[run])
    return GroundPlan(tuple(paved), tuple(marks))


def _marks_beside(lane: Sequence[SurveyedPoint], places: NDArray[np.float64]) -> list[Strip]:
    headings = np.array([point["heading_rad"] for point in lane])
    left = np.stack([-np.sin(headings), np.cos(headings)], axis=1)
    half_m = 0.5 * np.array([point["width_m"] for point in lane])[:, None]
    length_m = SPACING_M * len(lane)
    kinds: tuple[Paint, Paint] = (
        mode(point["left_mark"] for point in lane),
        mode(point["right_mark"] for point in lane),
    )
    return [
        strip
        for side, kind in zip((1.0, -1.0), kinds, strict=True)
        for strip in mark_strips(places + side * half_m * left, kind, length_m)
    ]
