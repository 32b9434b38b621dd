"""Write the roads of a map as OpenDRIVE 1.4, which ``carla.Map`` and other tools can read.

Elements and attributes have the names of the standard: ASAM OpenDRIVE 1.4, format specification rev. H.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.etree import ElementTree

import numpy as np

from sb3_visual_td3.envs.road.lane_graph import LaneSegment
from sb3_visual_td3.envs.road.maps import LiteMap
from sb3_visual_td3.envs.road.network import Junction, Neighbour, Paint, Road, RoadNetwork
from sb3_visual_td3.envs.road.road_signs import NO_SIGNS, RoadSigns
from sb3_visual_td3.envs.road.shapes import joints, sample

# CARLA's client requires a geographic reference. This one puts the origin of the map at latitude and longitude 0.
_GEO_REFERENCE = "+proj=tmerc +lat_0=0 +lon_0=0 +k=1 +x_0=0 +y_0=0 +datum=WGS84 +units=m +no_defs"
_MARK_WIDTH_M = 0.2
_PROJECTIONS = 20


def to_opendrive(scene: LiteMap, signs: RoadSigns = NO_SIGNS, lanes: Sequence[LaneSegment] = ()) -> str:
    """Return the roads of a map as an OpenDRIVE 1.4 document; the same map gives the same text.

    :param scene: a built-in map
    :param signs: traffic lights to write with the roads
    :param lanes: the lanes of the map's graph; the stop lines of the lights refer to these lanes
    :raises ValueError: if the map was read from a file
    """
    if scene.network is None:
        raise ValueError(
            f"map {scene.name!r} was read from a file and cannot be exported; choose a built-in map, such as train_0"
        )
    root = ElementTree.Element("OpenDRIVE")
    header = _add(root, "header", revMajor=1, revMinor=4, name=scene.name, version="1.00", vendor="sb3_visual_td3")
    for name, value in zip(("north", "south", "east", "west"), _bounds_m(scene.network), strict=True):
        header.set(name, _text(value))
    _add(header, "geoReference").text = _GEO_REFERENCE
    for road in scene.network.roads:
        _add_road(root, road, scene.network)
    _add_signals(root, scene.network, signs, lanes)
    for stages in signs.cycles:
        for stage in stages:
            controller = _add(root, "controller", name=f"controller {stage[0]}", id=stage[0], sequence=0)
            for light in stage:
                _add(controller, "control", signalId=signs.signals[light].id, type="")
    for junction in scene.network.junctions:
        element = _add_junction(root, junction)
        for number, stage in enumerate(_stages_at(junction, signs, lanes)):
            _add(element, "controller", id=stage[0], type="", sequence=number)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _add_road(root: ElementTree.Element, road: Road, network: RoadNetwork) -> None:
    """Add a road: its links, its reference line as geometries, a flat profile, and its lanes."""
    junction = -1 if road.junction is None else road.junction
    element = _add(root, "road", name=f"road {road.id}", length=road.length_m, id=road.id, junction=junction)
    link = _add(element, "link")
    for name, neighbour in (("predecessor", road.predecessor), ("successor", road.successor)):
        if neighbour is not None:
            entry = _add(link, name, elementType=neighbour.kind, elementId=neighbour.id)
            if neighbour.contact is not None:
                entry.set("contactPoint", neighbour.contact)
    _add(_add(element, "type", s=0.0, type="town"), "speed", max=50, unit="km/h")
    # Each geometry states its own place: s along the road, and the pose at which it begins.
    plan_view, along_m = _add(element, "planView"), 0.0
    for piece, pose in zip(road.pieces, joints(road.start, road.pieces), strict=False):  # the last joint is the end
        place = {"s": along_m, "x": pose.x_m, "y": pose.y_m, "hdg": pose.heading_rad, "length": piece.length_m}
        geometry = _add(plan_view, "geometry", **place)
        if piece.curvature_per_m:
            _add(geometry, "arc", curvature=piece.curvature_per_m)
        else:
            _add(geometry, "line")
        along_m += piece.length_m
    _add(_add(element, "elevationProfile"), "elevation", s=0.0, a=0.0, b=0.0, c=0.0, d=0.0)
    _add(element, "lateralProfile")
    _add_lanes(element, road, network.lane_width_m)


def _add_signals(
    root: ElementTree.Element, network: RoadNetwork, signs: RoadSigns, lanes: Sequence[LaneSegment]
) -> None:
    """Add each traffic light to the road that is nearest to its pole.

    The candidates are the road of the light's lane, and the roads by which this lane continues in the junction.
    """
    roads = {road.id: road for road in network.roads}
    elements = {element.get("id"): element for element in root.findall("road")}
    for signal in signs.signals:
        for stop in signal.stops:
            lane = lanes[stop.segment]
            near = [lane.key, *(lanes[after].key for after in lane.successors)]
            places = [(*_place_beside(roads[key[0]], signal.x_m, signal.y_m), key) for key in near]
            _, along_m, aside_m, heading_rad, key = min(places)
            element = elements[repr(key[0])]
            signals = element.find("signals")
            if signals is None:
                signals = _add(element, "signals")
            entry = _add(
                signals,
                "signal",
                id=signal.id,
                name="traffic light",
                s=along_m,
                t=aside_m,
                zOffset=0.0,
                hOffset=math.remainder(signal.yaw_rad - heading_rad, 2.0 * math.pi),
                roll=0.0,
                pitch=0.0,
                # Lanes with positive numbers are driven against the road.
                orientation="-" if key[2] < 0 else "+",
                dynamic="yes",
                country="OpenDRIVE",
                type=signal.type,
                subtype="-1",
                value=-1.0,
                height=1.2,
                width=0.4,
            )
            _add(entry, "validity", fromLane=key[2], toLane=key[2])


def _place_beside(road: Road, x_m: float, y_m: float) -> tuple[float, float, float, float]:
    """Locate a point relative to a road, in OpenDRIVE's road coordinates s (along) and t (to the left).

    :return: ``(gap, s, t, heading)``. The gap is the distance along the road by which the point lies before the road's
        start or after its end; it is 0 for other points. The gap, s and t are in metres. The heading is the road's
        direction at s in radians.
    """
    along_m = road.length_m
    # A few steps along the line are needed to find the place in bends.
    for _ in range(_PROJECTIONS):
        line_x_m, line_y_m, heading_rad = sample(road.start, road.pieces, np.array([along_m]))[0].tolist()
        dx_m, dy_m = x_m - line_x_m, y_m - line_y_m
        ahead_m = dx_m * math.cos(heading_rad) + dy_m * math.sin(heading_rad)
        aside_m = dy_m * math.cos(heading_rad) - dx_m * math.sin(heading_rad)
        before_m, along_m = along_m, min(road.length_m, max(0.0, along_m + 0.7 * ahead_m))
    return abs(ahead_m), before_m, aside_m, heading_rad


def _stages_at(junction: Junction, signs: RoadSigns, lanes: Sequence[LaneSegment]) -> Sequence[tuple[int, ...]]:
    """Return the stages of the light cycle at a junction; an empty sequence if the junction has no lights."""
    incoming = {path.incoming_road for path in junction.connections}
    for stages in signs.cycles:
        (stop, *_) = signs.signals[stages[0][0]].stops
        after = {lanes[way].junction for way in lanes[stop.segment].successors}
        if lanes[stop.segment].key[0] in incoming and junction.id in after:
            return stages
    return ()


def _add_lanes(element: ElementTree.Element, road: Road, width_m: float) -> None:
    """Add the only lane section of a road, with the lanes from left to right, as OpenDRIVE recommends."""
    section = _add(_add(element, "lanes"), "laneSection", s=0.0)
    if road.n_left:
        left = _add(section, "left")
        for lane in range(road.n_left, 0, -1):
            _add_lane(left, lane, road, width_m)
    centre = _add(_add(section, "center"), "lane", id=0, type="none", level="false")
    _add_mark(centre, road.mark(0))
    right = _add(section, "right")
    for lane in range(-1, -road.n_right - 1, -1):
        _add_lane(right, lane, road, width_m)


def _add_lane(side: ElementTree.Element, lane: int, road: Road, width_m: float) -> None:
    """Add a lane with its links, its constant width, and the road mark at its outer edge."""
    element = _add(side, "lane", id=lane, type="driving", level="false")
    # A road that ends at a junction has no lane link there: the junction's connections say where its lanes lead.
    link = _add(element, "link")
    for name, neighbour in (("predecessor", road.predecessor), ("successor", road.successor)):
        if neighbour is not None and neighbour.kind == "road":
            _add(link, name, id=_lane_beyond(neighbour, lane))
    _add(element, "width", sOffset=0.0, a=width_m, b=0.0, c=0.0, d=0.0)
    _add_mark(element, road.mark(lane))


def _lane_beyond(neighbour: Neighbour, lane: int) -> int:
    """Return the number of the lane that continues ``lane`` on a neighbouring road."""
    return lane if neighbour.lane is None else neighbour.lane


def _add_mark(lane: ElementTree.Element, kind: Paint) -> None:
    """Add the road mark that OpenDRIVE stores with a lane."""
    # OpenDRIVE forbids lane changes across a solid mark.
    change = "none" if kind == "solid" else "both"
    mark = _add(lane, "roadMark", sOffset=0.0, type=kind, weight="standard", color="standard", laneChange=change)
    mark.set("width", _text(_MARK_WIDTH_M if kind != "none" else 0.0))


def _add_junction(root: ElementTree.Element, junction: Junction) -> ElementTree.Element:
    """Add a junction with its connections."""
    element = _add(root, "junction", id=junction.id, name=f"junction {junction.id}")
    for number, path in enumerate(junction.connections):
        connection = _add(
            element,
            "connection",
            id=number,
            incomingRoad=path.incoming_road,
            connectingRoad=path.connecting_road,
            contactPoint="start",
        )
        # A connecting road has the single lane -1. ``from`` is a keyword of Python, hence the dictionary.
        _add(connection, "laneLink", **{"from": path.incoming_lane, "to": -1})
    return element


def _bounds_m(network: RoadNetwork) -> tuple[float, float, float, float]:
    """Return the north, south, east and west bounds of the points at which pieces of reference lines join."""
    poses = [pose for road in network.roads for pose in joints(road.start, road.pieces)]
    x, y = [pose.x_m for pose in poses], [pose.y_m for pose in poses]
    return max(y), min(y), max(x), min(x)


def _add(parent: ElementTree.Element, tag: str, **attributes: str | float) -> ElementTree.Element:
    """Append an XML element to its parent, and return the element."""
    return ElementTree.SubElement(parent, tag, {name: _text(value) for name, value in attributes.items()})


def _text(value: str | float) -> str:
    """Return a value as the text of an XML attribute."""
    # repr() of a float is the shortest text that reads back as the same float: nothing is lost in the file.
    return value if isinstance(value, str) else repr(value)
