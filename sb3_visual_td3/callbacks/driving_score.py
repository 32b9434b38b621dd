"""Compute the driving score of CARLA's leaderboard 2.1, and find the infractions that it counts.

Leaderboard 1.0 and 2.0 use another formula, which gives lower scores. Source of formula and penalties:
carla-simulator/leaderboard, branch ``leaderboard-2.1``, ``leaderboard/utils/statistics_manager.py``
(``PENALTY_VALUE_DICT`` and ``compute_route_statistics``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Literal, get_args

Infraction = Literal[
    "collision_vehicle",
    "collision_walker",
    "collision_layout",
    "red_light",
    "off_route",
    "lane_invasion",
    "blocked",
    "timeout",
]
INFRACTIONS: tuple[Infraction, ...] = get_args(Infraction)

PENALTIES: Mapping[Infraction, float] = MappingProxyType(
    {
        "collision_walker": 1.0,
        "collision_vehicle": 0.7,
        "collision_layout": 0.6,
        "red_light": 0.4,
    }
)
"""Penalties of infractions; see :func:`infraction_penalty`. Infractions that are not listed have no penalty.
``off_route``, ``blocked`` and ``timeout`` end the route, which lowers its completion."""

_INFRACTION_OF_ENDING: Mapping[str, Infraction] = MappingProxyType(
    {
        # In CARLA, a vehicle that leaves the road may hit a kerb or a building. LiteDriving-v0 has neither, so leaving
        # the road counts as such a collision.
        "off_road": "collision_layout",
        "off_route": "off_route",
        # The vehicle has turned around on its route. The leaderboard does not have this ending.
        "wrong_way": "off_route",
        "idle": "blocked",
        "timeout": "timeout",
    }
)


def infraction_penalty(infractions: Iterable[Infraction]) -> float:
    """Return the penalty factor on the score of a route, ``1 / (1 + sum of the infractions' penalties)``.

    :param infractions: the infractions of the route; one that happened twice is listed twice
    :return: the factor, in (0, 1]
    """
    return 1.0 / (1.0 + sum(PENALTIES.get(infraction, 0.0) for infraction in infractions))


def driving_score(route_completion: float, infractions: Iterable[Infraction]) -> float:
    """Return the driving score of a route: its completion in percent times the penalty factor.

    :param route_completion: driven fraction of the route, 0 to 1
    :param infractions: the infractions of the route; one that happened twice is listed twice
    :return: the score, 0 to 100
    :raises ValueError: if ``route_completion`` is not in [0, 1]
    """
    if not 0.0 <= route_completion <= 1.0:
        raise ValueError(f"route_completion={route_completion!r}: expected a fraction in [0, 1]")
    return 100.0 * route_completion * infraction_penalty(infractions)


def infractions_of_step(info: Mapping[str, Any], is_last: bool) -> list[Infraction]:
    """Return the infractions of one step of a driving environment.

    :param info: the ``info`` of the step
    :param is_last: whether the step ends the episode
    """
    found: list[Infraction] = ["lane_invasion"] * len(info.get("lane_marks_crossed", ()))
    found += ["red_light"] * info.get("red_light", 0)
    ending = info.get("termination", "")
    if ending == "collision":
        found.append(_collision(info))
    elif ending in _INFRACTION_OF_ENDING:
        found.append(_INFRACTION_OF_ENDING[ending])
    elif is_last and ending == "":
        found.append("timeout")  # by the step limit of gym.make
    return found


def _collision(info: Mapping[str, Any]) -> Infraction:
    """Return the kind of a collision; a collision without a reported kind counts as a collision with a vehicle."""
    kinds: dict[str, Infraction] = {
        "vehicle": "collision_vehicle",
        "walker": "collision_walker",
        "layout": "collision_layout",
    }
    return kinds.get(info.get("collision") or "vehicle", "collision_layout")
