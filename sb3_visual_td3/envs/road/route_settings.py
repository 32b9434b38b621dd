"""Configure the routes that an environment drives: the closed route, random routes, or given routes."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sb3_visual_td3.common.numbers import to_float
from sb3_visual_td3.envs.arguments import check_count, check_quantity
from sb3_visual_td3.envs.road.lane_graph import LaneGraph, LanePlace
from sb3_visual_td3.envs.road.route_path import RoutePath, build_path
from sb3_visual_td3.envs.road.route_planning import (
    RoutePlace,
    RoutePlan,
    random_route,
    random_route_between,
    route_through,
)

_LOG = logging.getLogger("sb3_visual_td3")
Pair = tuple[Sequence[float], Sequence[float]]
"""Start and goal of a route: for each, x and y in metres and optionally the direction in radians."""


class GivenRoute(NamedTuple):
    """Describe a route through given places."""

    name: str
    places: tuple[RoutePlace, ...]
    town: str | None = None
    """Name of the map, such as ``"Town01"``; None for any map."""


@dataclass(frozen=True)
class RouteSettings:
    """Hold the kind of routes to drive, and the settings of this kind.

    :param kind: ``"loop"``, ``"random"`` or ``"given"``
    :param length_m: least and greatest length of a random route
    :param turns: least and greatest number of turns of a random route
    :param given: the routes of the kind ``"given"``
    """

    kind: str = "loop"
    length_m: tuple[float, float] = (200.0, 800.0)
    turns: tuple[int, int] = (0, 8)
    given: tuple[GivenRoute, ...] = ()

    @property
    def has_goals(self) -> bool:
        """Return whether an episode leads from a start to a goal."""
        return self.kind != "loop"

    def given_on(self, map_name: str) -> tuple[GivenRoute, ...]:
        """Return the given routes that can be driven on a map.

        :param map_name: name of a map, or path of a map file such as ``maps/Town01.xodr``, which is the map Town01
        :return: the routes of this map and the routes for any map, in the order given
        """
        return tuple(route for route in self.given if route.town in {None, map_name, Path(map_name).stem})


class RoutePlanner:
    """Plan the route of each episode.

    :param settings: the kind of routes to plan, with their ranges or places
    """

    def __init__(self, settings: RouteSettings) -> None:
        self.settings = settings
        self._plans: dict[tuple[str, int], RoutePlan] = {}

    def path(
        self, graph: LaneGraph, map_name: str, route_seed: int, places: Sequence[LanePlace] | None = None
    ) -> RoutePath:
        """Plan one route, and return it as a path to drive on.

        :param graph: the lanes of the map
        :param map_name: the name of the map
        :param route_seed: seed of a random route, or index of a given route. The index is taken modulo the
            number of given routes on this map.
        :param places: where random routes may start and end; None for anywhere outside of junctions
        :raises ValueError: if the map has no such route
        """
        settings = self.settings
        if settings.kind == "random" and places is not None:
            return build_path(
                graph,
                random_route_between(
                    graph, route_seed, places, length_m=settings.length_m, turns=settings.turns, source=map_name
                ),
            )
        if settings.kind == "random":
            plan = random_route(graph, route_seed, length_m=settings.length_m, turns=settings.turns, source=map_name)
            return build_path(graph, plan)
        given = settings.given_on(map_name)
        if not given:
            raise ValueError(
                f"map {map_name!r}: none of the given routes is on this map; add a route, or choose another map"
            )
        # Given routes are driven repeatedly, so each is planned only once.
        number = route_seed % len(given)
        if (map_name, number) not in self._plans:
            self._plans[map_name, number] = route_through(graph, given[number].places, given[number].name)
        return build_path(graph, self._plans[map_name, number])


def check_range(name: str, value: object) -> tuple[object, object]:
    """Check that a range is a pair, and return its two ends.

    :param name: name of the argument, for the error message
    :param value: the range to check
    :return: both ends, not checked yet
    :raises ValueError: if the value is not a pair
    """
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 2:
        raise ValueError(f"{name}={value!r}: expected two numbers, the least and the greatest; give both")
    return value[0], value[1]


def random_settings(length_m: object, turns: object) -> RouteSettings:
    """Return the settings of random routes.

    :param length_m: least and greatest length, 20 to 100,000 m
    :param turns: least and greatest number of turns, 0 to 1,000
    :raises ValueError: if a range is not a pair of numbers within these limits, or is reversed
    """
    shortest, longest = check_range("route_length_m", length_m)
    fewest, most = check_range("route_turns", turns)
    lengths = tuple(check_quantity("route_length_m", end, 20.0, 1e5, "m") for end in (shortest, longest))
    counts = tuple(check_count("route_turns", end, 0, 1000) for end in (fewest, most))
    if lengths[0] > lengths[1] or counts[0] > counts[1]:
        raise ValueError(
            f"route_length_m={length_m!r}, route_turns={turns!r}: one of these ranges is reversed; give each as "
            "(smallest, largest)"
        )
    return RouteSettings("random", (lengths[0], lengths[1]), (counts[0], counts[1]))


def pair_settings(pairs: Sequence[Pair]) -> RouteSettings:
    """Return the settings of routes that are given by their starts and goals.

    :param pairs: ``(start, goal)`` for each route; see :data:`Pair`
    :raises ValueError: if a pair does not have this form
    """
    routes = []
    for number, pair in enumerate(pairs):
        name = f"route[{number}]"
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise ValueError(f"{name}={pair!r}: expected (start, goal), each (x, y) or (x, y, heading_rad) in metres")
        routes.append(GivenRoute(name, tuple(_place(name, place) for place in pair)))
    if not routes:
        raise ValueError("route=[]: expected at least one (start, goal); give a route, or set route='random'")
    return RouteSettings("given", given=tuple(routes))


def _place(name: str, place: object) -> RoutePlace:
    """Check a start or a goal, and return it as a place."""
    if isinstance(place, str) or not isinstance(place, Sequence) or len(place) not in (2, 3):
        raise ValueError(f"{name}: got {place!r}, expected (x, y) or (x, y, heading_rad); give metres and radians")
    x_m, y_m = (check_quantity(name, number, -1e7, 1e7, "m") for number in place[:2])
    if len(place) == 2:
        return RoutePlace(x_m, y_m)
    # Up to two full turns are accepted, because an angle may be a sum of angles. A larger number is probably in
    # degrees.
    limit = 4.0 * math.pi
    expected = f"a number from {-limit:g} to {limit:g} rad; give radians, not degrees, such as math.radians(90)"
    return RoutePlace(x_m, y_m, to_float(f"{name}, heading_rad", place[2], -limit, limit, expected=expected))


def check_given(settings: RouteSettings, maps: Sequence[str]) -> None:
    """Raise an error if a map has no route, and log a warning if routes belong to towns that are not among the maps.

    :param settings: settings with the given routes
    :param maps: the maps of the environment
    :raises ValueError: if there is a map without a route
    """
    if settings.kind != "given":
        return
    without = [name for name in maps if not settings.given_on(name)]
    towns = sorted({str(route.town) for route in settings.given})
    if without:
        raise ValueError(
            f"maps={list(maps)}: there is no route for {without}, the routes are for {towns}; name the map files after "
            "their towns, as in Town01.xodr, or leave these maps out"
        )
    unused = {route.town for route in settings.given} - {None, *maps, *(Path(name).stem for name in maps)}
    if unused:
        _LOG.warning("routes of %s are left out: these towns are not among the maps", sorted(map(str, unused)))
