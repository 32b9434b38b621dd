"""Looks an OpenDRIVE text over before CARLA's client sees it: on some faults the client kills the process."""

from __future__ import annotations

import math
from xml.etree import ElementTree

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
