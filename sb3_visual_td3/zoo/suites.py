"""Define suites, which are named sets of routes for comparing policies.

A suite consists of parts. Each part has routes on one map, and a route's number always means the same route.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from sb3_visual_td3.envs.road.maps import ROUTE_MAP_GROUPS
from sb3_visual_td3.envs.road.route_files import read_route_file
from sb3_visual_td3.envs.road.route_settings import RouteSettings

LITE_ROUTES = "lite-routes"
_N_LITE_ROUTES = 50
"""Number of routes of ``lite-routes`` on each of the two held-out districts."""
_LITE_LENGTH_M, _LITE_TURNS = (200.0, 800.0), (0, 8)
"""Ranges of the length and the number of turns of the routes of ``lite-routes``."""
_N_TOWN_ROUTES = 25
"""Number of routes of each task, as in CoRL 2017."""


class SuitePart(NamedTuple):
    """Describe a part of a suite: some routes on one map."""

    label: str
    env_kwargs: dict[str, Any]
    """Arguments of the environment: the map and the kind of routes."""
    n_routes: int


class _Task(NamedTuple):
    """Describe a task of the CARLA benchmark of CoRL 2017: random routes with limits on length and turns."""

    name: str
    length_m: tuple[float, float]
    turns: tuple[int, int]


class _TownSuite(NamedTuple):
    town: str
    tasks: tuple[_Task, ...]


# Source: Dosovitskiy et al. 2017, "CARLA: An Open Urban Driving Simulator" (CoRL), section 4. Town 1 is for training
# and Town 2 for the test, with 25 pairs of start and goal for each task. The mean distances to the goal are 200, 400
# and 770 m in Town 1, and 100, 170 and 360 m in Town 2. The paper's pairs belong to an older version of the towns. So
# our pairs are drawn by seeds, with distances in ranges around these means.
_TOWN_SUITES: Mapping[str, _TownSuite] = MappingProxyType(
    {
        "town01-train": _TownSuite(
            "Town01",
            (
                _Task("straight", (100.0, 300.0), (0, 0)),
                _Task("one turn", (200.0, 600.0), (1, 1)),
                _Task("navigation", (400.0, 1_140.0), (2, 20)),
            ),
        ),
        "town02-test": _TownSuite(
            "Town02",
            (
                _Task("straight", (50.0, 150.0), (0, 0)),
                _Task("one turn", (90.0, 250.0), (1, 1)),
                _Task("navigation", (200.0, 520.0), (2, 20)),
            ),
        ),
    }
)
SUITES = (*_TOWN_SUITES, LITE_ROUTES)
"""The names of the suites. The path of a route file is a suite as well."""


def suite_parts(suite: str, maps: Sequence[str] | None = None, n_routes: int | None = None) -> list[SuitePart]:
    """Return the parts of a suite, which are sets of routes on one map each.

    :param suite: a name in :data:`SUITES`, or the path of a route file of CARLA's leaderboard
    :param maps: names or paths of the maps; None for ``lite-routes``, which has its own. Other suites require maps
    :param n_routes: number of routes of each part, unless a route file has fewer; None for the suite's default
    :return: the parts in order
    :raises ValueError: if the suite is unknown, or does not fit the maps
    """
    if suite == LITE_ROUTES:
        if maps is not None:
            raise ValueError(f"--suite {suite} has maps of its own: drop --maps {' '.join(maps)}")
        return [
            SuitePart(name, _random_routes(name, _LITE_LENGTH_M, _LITE_TURNS), n_routes or _N_LITE_ROUTES)
            for name in ROUTE_MAP_GROUPS["held_out"]
        ]
    if suite in _TOWN_SUITES:
        return _town_parts(suite, maps, n_routes or _N_TOWN_ROUTES)
    if suite.endswith(".xml"):
        return _file_parts(suite, maps, n_routes)
    raise ValueError(f"--suite {suite}: expected one of {', '.join(SUITES)}, or the path of a route file (.xml)")


def _town_parts(suite: str, maps: Sequence[str] | None, n_routes: int) -> list[SuitePart]:
    """Return the parts of a town's suite: one part for each task, such as *navigation*."""
    town, tasks = _TOWN_SUITES[suite]
    if maps is None or len(maps) != 1 or Path(maps[0]).stem != town:
        given = "missing" if maps is None else " ".join(maps)
        raise ValueError(
            f"--suite {suite} needs the map {town}, but --maps is {given}: give --maps PATH/{town}.xodr, or --maps "
            f"{town} with a CARLA server"
        )
    return [
        SuitePart(f"{town}, {task.name}", _random_routes(maps[0], task.length_m, task.turns), n_routes)
        for task in tasks
    ]


def _random_routes(name: str, length_m: tuple[float, float], turns: tuple[int, int]) -> dict[str, Any]:
    """Return the arguments of an environment for random routes on a map."""
    # Without route_file=None, the route file of a training would remain, and be refused with random routes.
    return {
        "maps": [name],
        "route": "random",
        "route_file": None,
        "route_length_m": length_m,
        "route_turns": turns,
    }


def _file_parts(path: str, maps: Sequence[str] | None, n_routes: int | None) -> list[SuitePart]:
    """Return the parts of a suite that a route file defines: one part for each map."""
    settings = RouteSettings("given", given=read_route_file(path))
    if maps is None:
        towns = ", ".join(sorted({str(route.town) for route in settings.given}))
        raise ValueError(
            f"--suite {path}: --maps is missing; give the maps of {towns}, where the routes of this file are"
        )
    parts = []
    for name in maps:
        n_given = len(settings.given_on(name))
        if not n_given:
            raise ValueError(f"--suite {path}: the file has no route on the map {name}: remove this map from --maps")
        kwargs = {"maps": [name], "route": "file", "route_file": path}
        parts.append(SuitePart(Path(name).stem, kwargs, min(n_given, n_routes or n_given)))
    return parts
