"""Read route files in the format of CARLA's leaderboard, versions 1.0, 2.0 and 2.1.

A ``<route>`` contains ``<waypoint x= y= z= yaw= .../>`` in version 1.0, and ``<waypoints>`` with
``<position x= y= z=/>`` since version 2.0. Both use CARLA's coordinates, whose y has the opposite sign of this
package's y.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from xml.etree import ElementTree

from sb3_visual_td3.envs.road.carla_coordinates import from_carla
from sb3_visual_td3.envs.road.route_planning import RoutePlace
from sb3_visual_td3.envs.road.route_settings import GivenRoute, RouteSettings, pair_settings, random_settings

_LOG = logging.getLogger("sb3_visual_td3")


def route_settings(
    route: object, route_file: str | PathLike[str] | None, route_length_m: object, route_turns: object
) -> RouteSettings:
    """Return the :class:`RouteSettings` for the route arguments of an environment.

    :param route: ``"loop"``, ``"random"``, ``"file"``, or a sequence of ``(start, goal)``
    :param route_file: path of the file with the routes, for ``route="file"``
    :param route_length_m: least and greatest length of a random route
    :param route_turns: least and greatest number of turns of a random route
    :raises ValueError: if an argument is invalid, or the file cannot be read
    """
    checked = random_settings(route_length_m, route_turns)
    if (route_file is not None) != (isinstance(route, str) and route == "file"):
        raise ValueError(
            f"route={route!r}, route_file={route_file!r}: route='file' and route_file go together; set both, or neither"
        )
    if route_file is not None:
        return RouteSettings("given", given=read_route_file(route_file))
    if isinstance(route, str):
        if route == "random":
            return checked
        if route == "loop":
            return RouteSettings()
    elif isinstance(route, Sequence):
        return pair_settings(route)
    raise ValueError(f"route={route!r}: expected 'loop', 'random', 'file', or a list of (start, goal)")


def read_route_file(path: str | PathLike[str]) -> tuple[GivenRoute, ...]:
    """Return the routes of a file, and log a warning if parts of the file are not simulated.

    :param path: path of the XML file
    :return: the routes in the order of the file
    :raises ValueError: if the file does not exist or is not a route file, or a route has fewer than two places
    """
    file = Path(path)
    if not file.is_file():
        raise ValueError(
            f"route_file={str(path)!r}: no such file exists; give a route file (.xml) in the format of CARLA's "
            "leaderboard"
        )
    text = file.read_bytes()
    # Entities can expand to gigabytes; route files need none.
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise ValueError(f"{file}: got a document type declaration, expected plain XML; remove the <!DOCTYPE ...> part")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ValueError(
            f"{file}: got broken XML ({error}), expected a file of routes; export the file again"
        ) from error
    elements = root.findall("route")
    if root.tag != "routes" or not elements:
        raise ValueError(
            f"{file}: got <{root.tag}>, expected <routes> with at least one <route>; give a route file in the format "
            "of CARLA's leaderboard"
        )
    routes = tuple(_route(element, str(file)) for element in elements)
    ignored = _ignored(elements)
    if ignored:
        listed = ", ".join(f"{count} {name}" for name, count in sorted(ignored.items()))
        _LOG.warning("%s: these parts are not simulated and are ignored: %s", file, listed)
    return routes


def _route(element: ElementTree.Element, source: str) -> GivenRoute:
    """Read one route from its XML element."""
    name = f"{source}, route {element.get('id')}"
    town = element.get("town")
    if not town:
        raise ValueError(f"{name}: got no town, expected the name of a town; add, for example, town='Town01'")
    places = [_place(each, name) for each in element.findall("waypoint")]
    places += [_place(each, name) for each in element.findall("waypoints/position")]
    if len(places) < 2:
        raise ValueError(f"{name}: too few places ({len(places)}), expected at least a start and a goal; add places")
    return GivenRoute(name, tuple(places), town.rsplit("/", maxsplit=1)[-1])


def _place(element: ElementTree.Element, name: str) -> RoutePlace:
    """Read a place of a route from an XML element, and convert it to this package's coordinates."""
    values = []
    for attribute in ("x", "y", "yaw"):
        try:
            value = float(element.get(attribute, "0" if attribute == "yaw" else ""))
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ValueError(
                f"{name}: got <{element.tag} {attribute}={element.get(attribute)!r}>, expected a finite number; "
                "fix the file"
            )
        values.append(value)
    pose = from_carla(*values)
    # A direction helps to choose between lanes. Only version 1.0 has directions, and 0 usually means that none is
    # given.
    has_direction = values[2] != 0.0
    return RoutePlace(pose.x_m, pose.y_m, pose.heading_rad if has_direction else None)


def _ignored(elements: Sequence[ElementTree.Element]) -> Counter[str]:
    """Count the parts of a route file that are not simulated: weather, scenarios by type, and others."""
    counts: Counter[str] = Counter()
    for element in elements:
        for child in element:
            if child.tag == "scenarios":
                counts.update(f"scenario {scenario.get('type', 'unnamed')}" for scenario in child)
            elif child.tag not in {"waypoint", "waypoints"}:
                counts[child.tag] += 1
    return counts
