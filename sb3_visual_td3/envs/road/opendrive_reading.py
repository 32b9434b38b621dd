"""Read an OpenDRIVE map, from a user's file or from a CARLA server, and build a road from it.

``check_opendrive`` looks for errors on which CARLA's client would crash. The client then runs in a separate process
(``lane_survey``), which returns plain data.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import math
import os
import re
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from os import PathLike
from pathlib import Path
from statistics import median, mode
from typing import Any, NamedTuple, TypeVar
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.common.installation import install_command
from sb3_visual_td3.envs.backend import LaneMark
from sb3_visual_td3.envs.road.ground import Ground, GroundPlan, Strip, build_ground, build_panorama, mark_strips
from sb3_visual_td3.envs.road.lane_survey import ROUTE_ONLY, SPACING_M
from sb3_visual_td3.envs.road.line_mending import forward_points, mended
from sb3_visual_td3.envs.road.network import Paint
from sb3_visual_td3.envs.road.track import Track

_SHAPES = {
    "line": (),
    "arc": ("curvature",),
    "spiral": ("curvStart", "curvEnd"),
    "poly3": (),
    "paramPoly3": (),
}
"""The shapes of OpenDRIVE 1.4 with their required attributes. CARLA's client takes a missing coefficient of a curve as
0."""
_ROAD_IDS = (0, 2**32 - 1)
_JUNCTION_IDS = (-(2**31), 2**31 - 1)
"""The least and the greatest number that CARLA's client stores as the id of a road or of a junction."""
_FAR_M = 1e5
_MAX_COORDINATE_M = 1e6
"""CARLA's client stores places with 24 bits. At these two distances from the origin, the points of Town02 were wrong by
up to 1 cm and 8 cm, and its headings by up to 0.6 and 6 degrees. The same holds for the centre of an arc."""
_MAX_FRESNEL = 3e4
"""CARLA's client computes spirals with Fresnel integrals, which it takes as constant for arguments above 36,974."""
_LOG = logging.getLogger("sb3_visual_td3")
MIN_ROUTE_M = 50.0
MAX_EXTENT_M = 1200.0
"""A closed route that extends farther than this along x or y is rejected, because its ground takes too much memory."""
_SIGHT_M = 80.0
"""Roads within this distance of the route's bounding box are drawn."""
_SHOULDER_M = 0.4
_TIME_LIMIT_S = 300.0

SurveyedPoint = dict[str, Any]
"""A place on a lane, as ``lane_survey`` writes it."""


# Check the text


def check_opendrive(text: str, source: str) -> None:
    """Raise an error unless a document is a road map: it must have a header, and roads with a geometry and lanes.

    :param text: the whole document
    :param source: the name of the document's source, for the message
    :raises ValueError: if the text is not well-formed XML, or a part is missing or invalid
    """
    # Entities can expand to gigabytes ("billion laughs"). OpenDRIVE needs none, so they are refused before parsing.
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise _fault(source, "a document type declaration", "plain OpenDRIVE", "remove the <!DOCTYPE ...> part")
    try:
        root = ElementTree.fromstring(without_namespace(text).encode())
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
    names = [_plain(road.get("id", "")) for road in roads]
    if "" in names or len(set(names)) != len(names):
        raise _fault(source, "roads without an id or with the same id", "a unique id for each road", "number the roads")
    for road in roads:
        _check_road(road, f"{source}, road {road.get('id')}")
    _check_ids("road", names, _ROAD_IDS, source)
    _check_ids("junction", _junctions_in_use(root), _JUNCTION_IDS, source)
    _check_links(root, set(names), source)
    _check_signals(root, source)
    geometries = root.findall("road/planView/geometry")
    farthest_m = max(abs(float(geometry.get(name, ""))) for geometry in geometries for name in ("x", "y"))
    if farthest_m > _FAR_M:
        _LOG.warning(
            "%s: its roads are up to %.0f km from the origin, where CARLA's client misplaces points by about %.0f cm; "
            "shift the map to its origin",
            source,
            farthest_m / 1000.0,
            farthest_m * 2.0**-23 * 100.0,
        )


def without_namespace(text: str) -> str:
    """Return a document without its XML namespace, so that its elements have the plain names of OpenDRIVE.

    :param text: an OpenDRIVE document, without a document type declaration
    :raises xml.etree.ElementTree.ParseError: if the document has a namespace, and is not well-formed XML
    """
    if "xmlns" not in text:
        return text
    root = ElementTree.fromstring(text.encode())
    namespace, brace, _ = root.tag.rpartition("}")
    if not brace:
        return text
    for element in root.iter():
        element.tag = element.tag.removeprefix(namespace + brace)
    return ElementTree.tostring(root, encoding="unicode")


def _plain(name: str) -> str:
    """Return an id without spaces around it and without leading zeros, which have no meaning for CARLA's client."""
    name = name.strip()
    return name.lstrip("0") or "0" if name.isascii() and name.isdigit() else name


def client_number(name: str, limits: tuple[int, int] = _ROAD_IDS) -> int:
    """Return the number that CARLA's client reads from an id: the integer at its beginning, or 0 without one.

    :param name: the id of a road or of a junction
    :param limits: the least and the greatest number; those of roads by default
    """
    found = re.match(r"\s*([+-]?)(?:0x([0-9a-f]{1,20})|0*([0-9]{1,20}))", name, re.ASCII | re.IGNORECASE)
    if found is None:
        return 0
    sign, hexadecimal, decimal = found.groups()
    number = int(hexadecimal, 16) if hexadecimal else int(decimal)
    return min(max(-number if sign == "-" else number, limits[0]), limits[1])


def _junctions_in_use(root: ElementTree.Element) -> set[str]:
    """Return the ids of the junctions that roads name, or that have connections or controllers."""
    connected = {
        _plain(junction.get("id", ""))
        for junction in root.findall("junction")
        if junction.find("connection") is not None or junction.find("controller") is not None
    }
    # A road with the junction -1 is in no junction.
    return {_plain(road.get("junction", "")) for road in root.findall("road")} - {"", "-1"} | connected


def _check_ids(kind: str, names: Iterable[str], limits: tuple[int, int], source: str) -> None:
    """Raise an error if CARLA's client, which stores ids as numbers, would take two roads or junctions for the same."""
    known = {-1: "no junction"}
    for name in sorted(names):
        other = known.setdefault(client_number(name, limits), name)
        if other != name:
            raise _fault(
                f"{source}, {kind} {name}",
                f"{kind} id={name!r}, which CARLA's client takes for {other!r}",
                f"an integer from 0 to {limits[1]}",
                "number the roads and junctions, also in the links to them",
            )


def _check_road(road: ElementTree.Element, place: str) -> None:
    """Raise an error unless a road has right-hand traffic, a length, and valid geometries and lanes."""
    if road.get("rule") == "LHT":
        raise _fault(
            place, "rule='LHT' (left-hand traffic)", "right-hand traffic", "give a map with right-hand traffic"
        )
    if not _number(road, "length", place) > 0.0:
        raise _fault(place, f"length={road.get('length')!r}", "a length above 0 in metres", "fix or remove the road")
    plan_view = road.findall("planView/geometry")
    if not plan_view:
        raise _fault(place, "no <planView> with a <geometry>", "lines or arcs", "fix or remove the road")
    for geometry in plan_view:
        for name in ("s", "hdg"):
            _number(geometry, name, place)
        for name in ("x", "y"):
            if abs(_number(geometry, name, place)) > _MAX_COORDINATE_M:
                raise _fault(
                    place,
                    f"a geometry at {name}={geometry.get(name)}",
                    f"at most {_MAX_COORDINATE_M:,.0f} m, because CARLA's client computes in single precision",
                    "shift the map to its origin (in a national grid, the header's <offset> then holds the shift)",
                )
        length_m = _number(geometry, "length", place)
        if not length_m > 0.0:
            raise _fault(
                place,
                f"a geometry of length={geometry.get('length')!r}",
                "a length above 0 in metres",
                "fix the geometry",
            )
        shapes = [child for child in geometry if child.tag in _SHAPES]
        if len(shapes) != 1:
            raise _fault(place, f"a geometry with {len(shapes)} shapes", f"one of {tuple(_SHAPES)}", "fix the geometry")
        _check_shape(shapes[0], length_m, place)
    _check_lanes(road, place)


def _check_shape(shape: ElementTree.Element, length_m: float, place: str) -> None:
    """Raise an error if an attribute is missing or not a number, or if CARLA's client would compute a wrong shape."""
    # Apart from pRange, all attributes are numbers.
    for name in sorted({*_SHAPES[shape.tag], *shape.keys()} - {"pRange"}):
        _number(shape, name, place)
    if shape.tag == "arc" and abs(float(shape.get("curvature", ""))) * _MAX_COORDINATE_M < 1.0:
        raise _fault(
            place,
            f"<arc curvature={shape.get('curvature')!r}>",
            f"a radius of at most {_MAX_COORDINATE_M:,.0f} m, because CARLA's client computes in single precision",
            "use a <line>",
        )
    if shape.tag == "spiral":
        start, end = float(shape.get("curvStart", "")), float(shape.get("curvEnd", ""))
        # The largest argument of the Fresnel integrals is the curvature divided by this root.
        root = math.sqrt(math.pi * abs(end - start) / length_m)
        if max(abs(start), abs(end)) >= _MAX_FRESNEL * root:
            raise _fault(
                place,
                f"<spiral> with curvStart and curvEnd of {shape.get('curvStart')} and {shape.get('curvEnd')}",
                "two curvatures that differ more",
                "use an <arc> or a <line>",
            )


def _check_lanes(road: ElementTree.Element, place: str) -> None:
    """Raise an error unless each lane section of a road has a centre lane and valid numbers."""
    sections = road.findall("lanes/laneSection")
    if not sections:
        raise _fault(place, "no <laneSection>", "at least one", "add lanes to the road")
    for section in sections:
        _number(section, "s", place)
        if section.find("center/lane") is None:
            raise _fault(place, "a lane section without a centre lane", "<center> with lane 0", "add the centre lane")
        for lane in [*section.findall("left/lane"), *section.findall("right/lane")]:
            if not _number(lane, "id", place).is_integer():
                raise _fault(place, f"lane id={lane.get('id')!r}", "an integer", "number the lanes")
            for width in lane.findall("width"):
                for name in ("sOffset", "a", "b", "c", "d"):
                    _number(width, name, place)


def _check_links(root: ElementTree.Element, roads: set[str], source: str) -> None:
    """Raise an error if the file or CARLA's client lacks the road or junction of a link; the client can crash on it."""
    junctions = {_plain(junction.get("id", "")) for junction in root.findall("junction")} - {""}
    road_numbers = {client_number(name) for name in roads}
    for entry in [*root.findall("road/link/predecessor"), *root.findall("road/link/successor")]:
        known = junctions if entry.get("elementType") == "junction" else roads
        if _plain(entry.get("elementId", "")) not in known:
            kind = entry.get("elementType")
            raise _fault(
                source,
                f"a link to {kind} {entry.get('elementId')!r}",
                f"the id of a {kind} of the file",
                "fix the link",
            )
        name = entry.get("elementId", "")
        number = client_number(name)
        # The client does not read the type of a link: it takes each number of a road for this road.
        if known is junctions and (number in road_numbers or number != client_number(name, _JUNCTION_IDS)):
            raise _fault(
                source,
                f"a link to junction {name!r}, which CARLA's client takes for a road or does not find",
                f"an integer from 0 to {_JUNCTION_IDS[1]} that is the id of no road",
                "number the junctions differently from the roads, also in the links to them",
            )
    for connection in root.findall("junction/connection"):
        for name in ("incomingRoad", "connectingRoad"):
            if _plain(connection.get(name, "")) not in roads:
                raise _fault(
                    source,
                    f"a junction with {name}={connection.get(name)!r}",
                    "the id of a road of the file",
                    "fix the id",
                )


def _check_signals(root: ElementTree.Element, source: str) -> None:
    """Raise an error if a controller or a reference names a signal that the file lacks; CARLA's client would crash."""
    signals = {signal.get("id") for signal in root.findall("road/signals/signal")}
    names = []
    # The client does not use controllers that no junction names.
    used = {controller.get("id") for controller in root.findall("junction/controller")}
    for controller in root.findall("controller"):
        if controller.get("id") in used:
            names += [("controller", control.get("signalId")) for control in controller.findall("control")]
    names += [("signalReference", reference.get("id")) for reference in root.findall("road/signals/signalReference")]
    for kind, name in names:
        if name not in signals:
            raise _fault(source, f"a <{kind}> of signal {name!r}", "the id of a signal of the file", "fix the id")


def _number(element: ElementTree.Element, name: str, place: str) -> float:
    """Return an attribute of an XML element as a finite number, or raise an error."""
    try:
        value = float(element.get(name, ""))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise _fault(place, f"<{element.tag} {name}={element.get(name)!r}>", "a finite number", "fix the file")
    return value


def _fault(place: str, got: str, expected: str, remedy: str) -> ValueError:
    """Return the error for a defect of a map. The message says where the defect is, and how to repair it."""
    return ValueError(f"{place}: got {got}, expected {expected}; {remedy}")


def read_opendrive(path: str | PathLike[str]) -> str:
    """Return the text of an ``.xodr`` file.

    :param path: path of the file
    :return: the text, not checked yet
    :raises ValueError: if there is no such file, or the file is not UTF-8
    """
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"path={str(path)!r}: no such file exists; give the path of an OpenDRIVE file (.xodr)")
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{file}: got bytes that are not UTF-8, expected an OpenDRIVE file; export the file again"
        ) from error


Map = TypeVar("Map")
KnownMaps = dict[str, tuple[tuple[int, int] | None, Map]]
"""The last version of each map file that was read, by path: the time of its last change and its size, and the map."""


def map_of_file(path: str, read: Callable[[str, str], Map], known: KnownMaps[Map]) -> Map:
    """Return the map of an OpenDRIVE file, which is read if it is new or has changed.

    If the file was removed, the map that was read from it can still be used.

    :param path: path of the file
    :param read: reads the file; takes the path, and a unique name for this version of the map
    :param known: the maps that were read before; the new map replaces the former version
    :raises ValueError: if the file is new, and does not exist or is not a valid map
    """
    version = None
    with contextlib.suppress(OSError):
        status = os.stat(path)
        version = status.st_mtime_ns, status.st_size
    if path not in known or version not in (None, known[path][0]):
        known[path] = version, read(path, f"{path} {version}")
    return known[path][1]


# Find the route


@lru_cache(maxsize=16)
def read_route(text: str, source: str) -> Track:
    """Return the closed route of a map; cached, because all environments on a server use the same route.

    :param text: the OpenDRIVE document
    :param source: the name of the map, for messages
    :raises ImportError: if CARLA's client is not installed
    :raises ValueError: if the text is not a valid map, or has no closed route of at least 50 m
    """
    check_opendrive(text, source)
    return track_of(survey(text, source, ROUTE_ONLY)["route"], source)


def survey(text: str, source: str, flag: str | None = None) -> dict[str, Any]:
    """Read a map with CARLA's client, in a separate process that runs ``lane_survey``.

    :param text: the OpenDRIVE document
    :param source: the name of the map, for messages
    :param flag: ``ROUTE_ONLY`` for the route alone, which is faster; ``GRAPH`` for the lanes as a graph
    :return: the result of :func:`lane_survey.survey`, or of :func:`lane_survey.survey_graph`
    :raises ImportError: if CARLA's client is not installed
    :raises ValueError: if CARLA's client cannot read the map, or computes a number that is not finite
    """
    if importlib.util.find_spec("carla") is None:
        raise ImportError(f"a map from an OpenDRIVE file needs CARLA's client: {install_command('carla')}")
    # The child process runs the file by its path, not with ``-m``, because this package may not be installed.
    script = Path(__file__).with_name("lane_survey.py")
    command = [sys.executable, str(script)]
    if flag is not None:
        command.append(flag)
    try:
        child = subprocess.run(
            command,
            input=without_namespace(text),  # the client does not find elements with a prefix
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=_TIME_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError(
            f"{source}: CARLA's client did not read the map in {_TIME_LIMIT_S:g} s; use a smaller part of the map"
        ) from error
    if child.returncode != 0:
        last = (child.stderr.strip().splitlines() or ["no message"])[-1]
        raise ValueError(
            f"{source}: CARLA's client cannot read the map (exit {child.returncode}: {last}); "
            "try the file in another OpenDRIVE viewer and export it again"
        )

    def refuse(number: str) -> None:
        raise _fault(
            source,
            f"a place or size that CARLA's client computes as {number}",
            "finite numbers",
            "check the shapes, heights and widths of the roads",
        )

    answer: dict[str, Any] = json.loads(child.stdout, parse_constant=refuse)
    return answer


def track_of(route: Sequence[SurveyedPoint], source: str, max_extent_m: float = np.inf) -> Track:
    """Return the closed route of a map as a ``Track``, from the points that ``lane_survey`` found.

    :param route: the points of the route
    :param source: the name of the map, for messages
    :param max_extent_m: largest extent in x or y that is accepted
    :raises ValueError: if the route is shorter than 50 m, or larger than ``max_extent_m``
    """
    length_m = 0.0
    if route:
        # Where a map draws a bend as straight chords, the points of a lane step backwards at each corner on the inside
        # of the bend (see ``line_mending``). Such a route is mended; any other route keeps all of its points.
        is_mended = _has_backward_steps(places_of(route))
        if is_mended:
            route = [route[index] for index in forward_points(places_of(route))]
        # (n + 1, 2): the points, and the first point again; (n + 1,): distance along the route at each point.
        closed = places_of([*route, route[0]])
        steps = np.linalg.norm(np.diff(closed, axis=0), axis=1)
        along_m = np.concatenate([[0.0], np.cumsum(steps)])
        length_m = float(along_m[-1])
    if length_m < MIN_ROUTE_M:
        raise ValueError(
            f"{source}: got no closed route of at least {MIN_ROUTE_M:g} m (the longest is {length_m:.0f} m); "
            "join the roads into a loop of three roads or more"
        )
    if np.ptp(closed, axis=0).max() > max_extent_m:
        raise ValueError(f"{source}: got a route larger than {max_extent_m:g} m across; use a smaller part of the map")
    # The client's points are unevenly spaced where lanes join. Sample again: (n,) even distances, (n, 2) points there.
    n = round(length_m / SPACING_M)
    even = np.arange(n) * (length_m / n)
    points = np.stack([np.interp(even, along_m, closed[:, axis]) for axis in (0, 1)], axis=1)
    if is_mended:
        points = _mended_loop(points)
    # (n,): a new point is in a junction if the surveyed point before it is.
    inside = np.array([point["in_junction"] for point in route])[np.searchsorted(along_m, even, side="right") - 1]
    # A track has one lane width and one set of marks: the most frequent values outside of junctions.
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


def _has_backward_steps(points_m: NDArray[np.float64]) -> bool:
    """Return whether a line turns by more than 90 degrees between two steps; steps of less than 5 cm do not count."""
    steps = np.diff(points_m, axis=0)
    steps = steps[np.linalg.norm(steps, axis=1) > 0.05]
    return bool((np.einsum("ij,ij->i", steps[:-1], steps[1:]) < 0.0).any())


def _mended_loop(points_m: NDArray[np.float64]) -> NDArray[np.float64]:
    """Round the sharp corners of a closed line, and return its points, ``(n, 2)``."""
    # Smooth two laps, and take points from their middle, which the ends of the line do not influence.
    half = len(points_m) // 2
    twice = mended(np.vstack([points_m, points_m]))
    return np.vstack([twice[len(points_m) : len(points_m) + half], twice[half : len(points_m)]])


def _marks_of(route: Sequence[SurveyedPoint]) -> tuple[LaneMark, ...]:
    """Return the most frequent set of road marks on a route, from right to left, with median offsets."""
    usual = mode(tuple(kind for _, kind in point["marks"]) for point in route)
    like = [point["marks"] for point in route if tuple(kind for _, kind in point["marks"]) == usual]
    columns = zip(*like, strict=True)
    return tuple(LaneMark(median(offset for offset, _ in column), column[0][1]) for column in columns)


def places_of(points: Sequence[SurveyedPoint]) -> NDArray[np.float64]:
    """Return x and y of points that ``lane_survey`` has read from a map, as an array ``(n, 2)``."""
    return np.array([(point["x_m"], point["y_m"]) for point in points])


# Build the road


class OpenDriveRoad(NamedTuple):
    """Hold the closed route of an OpenDRIVE file, and the ground and the panorama to draw."""

    track: Track
    ground: Ground
    panorama: NDArray[np.uint8]
    text: str
    """The document."""


def load_opendrive(path: str | PathLike[str]) -> OpenDriveRoad:
    """Read an ``.xodr`` file and build its route and its ground.

    The route is the longest loop that a car finds by taking the same turn (left, right or straight on) at every
    junction. The world is flat: heights and bridges are ignored. Lane width and marks are the same along the whole
    route.

    :param path: path of a file in OpenDRIVE 1.x with right-hand traffic
    :raises ImportError: if CARLA's client is not installed
    :raises ValueError: if the file does not exist, is not a valid map, or has no closed route of at least 50 m length
        and at most 1,200 m extent
    """
    text = read_opendrive(path)
    check_opendrive(text, str(path))
    answer = survey(text, str(path))
    track = track_of(answer["route"], str(path), MAX_EXTENT_M)
    # The random values of the ground are seeded by the text, so that the same file always looks the same.
    rng = np.random.default_rng(zlib.crc32(text.encode()))
    ground = build_ground(_plan_of(answer["lanes"], track), rng)
    return OpenDriveRoad(track, ground, build_panorama(rng), text)


def _plan_of(lanes: Sequence[Sequence[SurveyedPoint]], track: Track) -> GroundPlan:
    """Return the strips to paint on the ground: asphalt and lane marks of all lanes near the track."""
    low, high = track.points_m.min(axis=0) - _SIGHT_M, track.points_m.max(axis=0) + _SIGHT_M
    paved: list[Strip] = []
    marks: list[Strip] = []
    for lane in lanes:
        places = places_of(lane)
        # Indices of the points inside the track's bounding box, enlarged by 80 m on each side. They are split into runs
        # of consecutive indices.
        in_sight = np.flatnonzero(((places >= low) & (places <= high)).all(axis=1))
        for run in np.split(in_sight, np.flatnonzero(np.diff(in_sight) > 1) + 1):
            if len(run) < 2:
                continue
            part = lane[run[0] : run[-1] + 1]
            paved.append(Strip(places[run], median(point["width_m"] for point in part) + 2.0 * _SHOULDER_M))
            # The middle point tells whether the lane is in a junction and therefore has no marks. The end points do
            # not, because they can belong to the lanes before and after.
            if not part[len(part) // 2]["in_junction"]:
                marks += _marks_beside(part, places[run])
    return GroundPlan(tuple(paved), tuple(marks))


def _marks_beside(lane: Sequence[SurveyedPoint], places: NDArray[np.float64]) -> list[Strip]:
    """Return the marks on both sides of a lane; ``places`` are x and y of its points, ``(n, 2)``."""
    # (n, 2): unit vectors to the left; (n, 1): half the lane's width. A mark is half a width to either side.
    headings = np.array([point["heading_rad"] for point in lane])
    left = np.stack([-np.sin(headings), np.cos(headings)], axis=1)
    half_m = 0.5 * np.array([point["width_m"] for point in lane])[:, None]
    length_m = SPACING_M * len(lane)
    left_kind: Paint = mode(point["left_mark"] for point in lane)
    right_kind: Paint = mode(point["right_mark"] for point in lane)
    left_marks = mark_strips(places + half_m * left, left_kind, length_m)
    return left_marks + mark_strips(places - half_m * left, right_kind, length_m)
