"""Plan routes on a lane graph, at random from a seed or through given places.

In a route, each lane follows the lane before it or lies beside it. ``route_path`` turns a route into a line to drive
along.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import networkx
import numpy as np

from sb3_visual_td3.envs.backend import Command
from sb3_visual_td3.envs.road.lane_graph import (
    CHANGE_COST_M,
    MIN_CHANGE_M,
    NO_JUNCTION,
    JunctionWay,
    LaneGraph,
    LanePlace,
)

TURN_RAD = math.radians(30.0)
"""A way through a junction that changes the direction by more than this is a turn."""
_N_ATTEMPTS = 100
"""Number of random starts that are tried before all lanes are searched."""
_N_STARTS = 10
"""For each route that the search of all lanes finds, it tries this number of random starts on the first lane, because
from some starts a lane change has too little room."""
_NEAR_M, _FAR_M = 3.0, 10.0
"""A place belongs to the lanes whose centre is at most ``_NEAR_M`` metres away. If there is no such lane, it belongs to
the lanes within ``_FAR_M`` metres."""
_OFFSET_COST = 3.0
"""In the search for a route through given places, each metre between a place and the centre of its lane counts as this
many metres of route."""
_MAX_STARTS = 10


class NoRouteError(ValueError):
    """Report that a map has no route whose length and number of turns are in the given ranges."""


class RoutePlan(NamedTuple):
    """Hold the lanes of a route in driving order."""

    segments: tuple[int, ...]
    """Indices of segments. If a segment lies beside the previous segment, the route changes lanes there."""
    start_m: float
    """Distance of the start from the beginning of the first segment."""
    goal_m: float
    """Distance of the goal from the beginning of the last segment."""


class RoutePlace(NamedTuple):
    """Describe a place through which a route leads."""

    x_m: float
    y_m: float
    heading_rad: float | None = None
    """Direction in which the traffic drives at this place; None accepts every direction."""


class Manoeuvre(NamedTuple):
    """Describe a junction on a route, with the command that a driver needs there."""

    first: int
    """Position of the junction's first segment in the route."""
    last: int
    """Position of the junction's last segment in the route."""
    command: Command


def junction_manoeuvres(graph: LaneGraph, segments: Sequence[int]) -> list[Manoeuvre]:
    """Return the junctions on a route, each with its navigation command.

    A way through a junction is "left" or "right" if it turns by more than 30 degrees. Of all ways from the same lane
    that turn by at most 30 degrees, the straightest way is "straight", ways to the left of it are "left", and ways to
    the right of it are "right".

    :param graph: the lanes of the map
    :param segments: the numbers of the route's lane segments, in driving order
    """
    found = []
    position = 0
    while position < len(segments):
        junction = graph.segments[segments[position]].junction
        last = position
        if junction != NO_JUNCTION:
            while last + 1 < len(segments) and graph.segments[segments[last + 1]].junction == junction:
                last += 1
            if position > 0:
                ways = graph.junction_ways(segments[position - 1])
                driven = tuple(segments[position : last + 1])
                found.append(Manoeuvre(position, last, _command_of(driven, ways)))
        position = last + 1
    return found


def _command_of(driven: tuple[int, ...], ways: Sequence[JunctionWay]) -> Command:
    """Return the navigation command (left, right or straight) for a way through a junction.

    :param driven: the route's segments in the junction; incomplete if the route ends in the junction
    :param ways: all ways through the junction from the lane before it
    """
    turn_rad = next((way.turn_rad for way in ways if way.segments[: len(driven)] == driven), 0.0)
    if turn_rad > TURN_RAD:
        return "left"
    if turn_rad < -TURN_RAD:
        return "right"
    straightest_rad = min((way.turn_rad for way in ways), key=abs, default=turn_rad)
    if turn_rad > straightest_rad:
        return "left"
    if turn_rad < straightest_rad:
        return "right"
    return "straight"


def count_turns(graph: LaneGraph, segments: Sequence[int]) -> int:
    """Return the number of junctions at which a route turns left or right."""
    return sum(manoeuvre.command != "straight" for manoeuvre in junction_manoeuvres(graph, segments))


def is_change(graph: LaneGraph, one: int, two: int) -> bool:
    """Return whether a route changes lanes from segment ``one`` to segment ``two``."""
    return bool(graph.digraph.edges[one, two]["is_change"])


def route_length_m(graph: LaneGraph, plan: RoutePlan) -> float:
    """Return the length of a route from start to goal in metres; a lane change does not add to the length."""
    passed_m = 0.0
    for one, two in itertools.pairwise(plan.segments):
        if not is_change(graph, one, two):
            passed_m += graph.segments[one].length_m
    return passed_m - plan.start_m + plan.goal_m


def stretches(graph: LaneGraph, plan: RoutePlan) -> list[list[int]]:
    """Group the segments of a route: segments that lie side by side form one stretch of road.

    :param graph: the lanes of the map
    :param plan: the route
    :return: for each stretch, the positions of its segments in ``plan.segments``
    """
    groups = [[0]]
    for position, (one, two) in enumerate(itertools.pairwise(plan.segments), start=1):
        if is_change(graph, one, two):
            groups[-1].append(position)
        else:
            groups.append([position])
    return groups


def has_room_for_changes(graph: LaneGraph, plan: RoutePlan) -> bool:
    """Return whether each lane change of a route has at least ``MIN_CHANGE_M`` of road."""
    groups = stretches(graph, plan)
    for number, group in enumerate(groups):
        begin, end = 0.0, 1.0  # fractions of the stretch
        if number == 0:
            begin = plan.start_m / graph.segments[plan.segments[0]].length_m
        if number == len(groups) - 1:
            end = plan.goal_m / graph.segments[plan.segments[-1]].length_m
        room_m = (end - begin) * min(graph.segments[plan.segments[position]].length_m for position in group)
        if room_m < MIN_CHANGE_M * (len(group) - 1) or end < begin:
            return False
    return True


# Random routes


def random_route(
    graph: LaneGraph,
    seed: int,
    *,
    length_m: tuple[float, float],
    turns: tuple[int, int],
    source: str,
) -> RoutePlan:
    """Choose a random start and goal whose shortest route has a length and a number of turns in given ranges.

    :param graph: the lanes of the map
    :param seed: seed of the choice
    :param length_m: least and greatest length of the route
    :param turns: least and greatest number of turns
    :param source: the name of the map, for messages
    :return: the route; start and goal are outside of junctions
    :raises NoRouteError: if there is no such route
    :raises ValueError: if the map has no lane outside of junctions
    """
    rng = np.random.default_rng([seed, 5])
    open_road = [i for i, segment in enumerate(graph.segments) if segment.junction == NO_JUNCTION]
    if not open_road:
        raise ValueError(f"{source}: got no lane outside of junctions, expected a lane to start on; choose another map")
    weights = np.array([graph.segments[index].length_m for index in open_road])
    for _ in range(_N_ATTEMPTS):
        first = open_road[int(rng.choice(len(open_road), p=weights / weights.sum()))]
        start = LanePlace(first, float(rng.uniform(0.0, graph.segments[first].length_m)))
        plans = _routes_from(graph, start, length_m, turns)
        if not plans:
            continue
        rooms_m = np.array([room_m for _, room_m in plans])
        # If the least length equals the greatest, each route has only one possible goal, and all are equally likely.
        shares = rooms_m / rooms_m.sum() if rooms_m.any() else None
        plan, room_m = plans[int(rng.choice(len(plans), p=shares))]
        plan = plan._replace(goal_m=plan.goal_m + float(rng.uniform(0.0, room_m)))
        if has_room_for_changes(graph, plan):
            return plan
    rare = _rare_route(graph, rng, length_m, turns)
    if rare is None:
        raise _no_route(length_m, turns, source)
    return rare


def has_random_route(graph: LaneGraph, length_m: tuple[float, float], turns: tuple[int, int]) -> bool:
    """Return whether a map has a route whose length and number of turns are in given ranges.

    :param graph: the lanes of the map
    :param length_m: least and greatest length of the route
    :param turns: least and greatest number of turns
    """
    return _rare_route(graph, np.random.default_rng(0), length_m, turns) is not None


def _rare_route(
    graph: LaneGraph, rng: np.random.Generator, length_m: tuple[float, float], turns: tuple[int, int]
) -> RoutePlan | None:
    """Search the routes from every lane, in random order, for one within the given ranges; None if there is none."""
    for first in rng.permutation(len(graph.segments)).tolist():
        lane = graph.segments[first]
        if lane.junction != NO_JUNCTION:
            continue
        # The search begins at the beginning of the lane. A start farther along the lane makes the route shorter.
        plans = _routes_from(graph, LanePlace(first, 0.0), (length_m[0], length_m[1] + lane.length_m), turns)
        for number in rng.permutation(len(plans)).tolist():
            path = plans[number][0].segments
            to_begin_m = route_length_m(graph, RoutePlan(path, 0.0, 0.0))
            last_m = graph.segments[path[-1]].length_m
            # If the start lies between these two places on the first lane, some goal on the last lane is at a permitted
            # distance.
            nearest_m = max(0.0, to_begin_m - length_m[1])
            farthest_m = min(lane.length_m, to_begin_m + last_m - length_m[0])
            for _ in range(_N_STARTS if farthest_m >= nearest_m else 0):
                start_m = float(rng.uniform(nearest_m, farthest_m))
                least_m = max(0.0, length_m[0] - to_begin_m + start_m)
                most_m = min(last_m, length_m[1] - to_begin_m + start_m)
                plan = RoutePlan(path, start_m, float(rng.uniform(least_m, max(least_m, most_m))))
                if has_room_for_changes(graph, plan):
                    return plan
    return None


def random_route_between(
    graph: LaneGraph,
    seed: int,
    places: Sequence[LanePlace],
    *,
    length_m: tuple[float, float],
    turns: tuple[int, int],
    source: str,
) -> RoutePlan:
    """Choose at random two places whose shortest route has a length and a number of turns in given ranges.

    :param graph: the lanes of the map
    :param seed: seed of the choice
    :param places: where a route may start and end, outside of junctions
    :param length_m: least and greatest length of the route
    :param turns: least and greatest number of turns
    :param source: the name of the map, for messages
    :raises NoRouteError: if there is no such route
    """
    rng = np.random.default_rng([seed, 5])
    for start in _starts(places, rng):
        found = []
        for plan, room_m in _routes_from(graph, start, length_m, turns):
            for goal in places:
                if goal.segment == plan.segments[-1] and plan.goal_m <= goal.along_m <= plan.goal_m + room_m:
                    longer = plan._replace(goal_m=goal.along_m)
                    if has_room_for_changes(graph, longer):
                        found.append(longer)
        if found:
            return found[int(rng.integers(len(found)))]
    raise _no_route(length_m, turns, f"{source}, between {len(places)} given places")


def _starts(places: Sequence[LanePlace], rng: np.random.Generator) -> Iterator[LanePlace]:
    """Yield random places, which may repeat, and then all places in random order."""
    for _ in range(_N_ATTEMPTS if places else 0):
        yield places[int(rng.integers(len(places)))]
    for number in rng.permutation(len(places)).tolist():
        yield places[number]


def _no_route(length_m: tuple[float, float], turns: tuple[int, int], source: str) -> NoRouteError:
    """Return the error for a map without a route in the given ranges of length and turns."""
    return NoRouteError(
        f"{source}: found no route of {length_m[0]:g} to {length_m[1]:g} m with {turns[0]} to {turns[1]} turns; widen "
        "route_length_m or route_turns, or choose another map"
    )


def _routes_from(
    graph: LaneGraph, start: LanePlace, length_m: tuple[float, float], turns: tuple[int, int]
) -> list[tuple[RoutePlan, float]]:
    """Find the shortest route from a place to each lane, and return the routes within the given ranges.

    Since the goal can lie anywhere on the last lane, a route has a range of possible lengths.

    :param length_m: least and greatest length of the route
    :param turns: least and greatest number of turns
    :return: for each returned route: the route to the first possible goal on its last lane, and the distance in metres
        by which this goal may be moved forward
    """
    # The search is bounded by cost, and each lane change adds to the cost of a route but not to its length.
    cutoff_m = length_m[1] + start.along_m + 4.0 * CHANGE_COST_M
    _, paths = networkx.single_source_dijkstra(graph.digraph, start.segment, cutoff=cutoff_m)
    plans = []
    for last, path in paths.items():
        segment = graph.segments[last]
        if segment.junction != NO_JUNCTION:
            continue
        to_begin_m = route_length_m(graph, RoutePlan(tuple(path), start.along_m, 0.0))
        nearest_m = max(0.0, length_m[0] - to_begin_m)
        farthest_m = min(segment.length_m, length_m[1] - to_begin_m)
        if len(path) == 1:
            nearest_m = max(nearest_m, start.along_m)
        if farthest_m >= nearest_m and turns[0] <= count_turns(graph, path) <= turns[1]:
            plans.append((RoutePlan(tuple(path), start.along_m, nearest_m), farthest_m - nearest_m))
    return plans


# Routes through given places


def route_through(graph: LaneGraph, places: Sequence[RoutePlace], name: str) -> RoutePlan:
    """Return the shortest route that leads through all places in their order.

    A place may lie on several lanes, for example in a junction.

    :param graph: the lanes of the map
    :param places: two or more places
    :param name: the name of the route, for messages
    :raises ValueError: if a place is not on a lane, there is no way from one place to the next, or the route ends where
        it starts
    """
    layers = [_lanes_at(graph, place, name) for place in places]
    # (cost, plan) of the best route to each lane of the current layer, or None: dynamic programming over the places.
    best: list[tuple[float, RoutePlan] | None] = [
        (cost, RoutePlan((place.segment,), place.along_m, place.along_m)) for cost, place in layers[0]
    ]
    for place, layer in zip(places[1:], layers[1:], strict=True):
        following: list[tuple[float, RoutePlan] | None] = [None] * len(layer)
        for reached in best:
            if reached is not None:
                _extend(graph, reached, layer, following)
        best = following
        if not any(best):
            raise ValueError(
                f"{name}: no lanes lead to ({place.x_m:g}, {place.y_m:g}) from the place before it; move this place, "
                "or check on which side of the road it lies"
            )
    plan = min(reached for reached in best if reached is not None)[1]
    if route_length_m(graph, plan) <= 0.0:
        x_m, y_m, _ = places[0]
        raise ValueError(f"{name}: start and goal are both at ({x_m:g}, {y_m:g}); give a goal ahead of the start")
    return plan


def _lanes_at(graph: LaneGraph, place: RoutePlace, name: str) -> list[tuple[float, LanePlace]]:
    """Return the lanes on which a place may lie, each with the cost of choosing it."""
    for within_m in (_NEAR_M, _FAR_M):
        found = []
        for distance_m, lane_place in graph.places_near(place.x_m, place.y_m, within_m):
            if place.heading_rad is not None:
                begin_rad, end_rad = graph.segments[lane_place.segment].headings_rad
                # The direction in the middle of the lane is used: a lane that bends by less than 180 degrees stays
                # within 90 degrees of this direction.
                middle_rad = begin_rad + 0.5 * math.remainder(end_rad - begin_rad, 2.0 * math.pi)
                if abs(math.remainder(middle_rad - place.heading_rad, 2.0 * math.pi)) > 0.5 * math.pi:
                    continue
            found.append((_OFFSET_COST * distance_m, lane_place))
        if found:
            return found[:_MAX_STARTS]
    direction = "" if place.heading_rad is None else f" in the direction {place.heading_rad:g} rad"
    raise ValueError(
        f"{name}: ({place.x_m:g}, {place.y_m:g}) is not on a lane{direction}: expected a lane within {_FAR_M:g} m; "
        "move the place, or check its coordinates. (start, goal) pairs use OpenDRIVE's coordinates. Route files use "
        "CARLA's coordinates, whose y and yaw have the opposite sign"
    )


def _extend(
    graph: LaneGraph,
    reached: tuple[float, RoutePlan],
    layer: Sequence[tuple[float, LanePlace]],
    following: list[tuple[float, RoutePlan] | None],
) -> None:
    """Extend a route to the next place, and keep the cheapest route to each lane on which this place may lie.

    :param reached: the route so far, with its cost
    :param layer: the lanes on which the next place may lie, each with the cost of choosing it
    :param following: for each lane of ``layer`` the cheapest route so far, with its cost, or None; changed in place
    """
    cost, plan = reached
    here = LanePlace(plan.segments[-1], plan.goal_m)
    distances, paths = networkx.single_source_dijkstra(graph.digraph, here.segment)
    for number, (offset_cost, place) in enumerate(layer):
        ways: list[tuple[float, list[int]]] = []
        # The place may be behind on the same lane, or too near for the lane change. Then the route must come back
        # around.
        if place.segment in paths and (place.segment != here.segment or place.along_m >= here.along_m):
            ways.append((distances[place.segment], paths[place.segment]))
        if not ways or not has_room_for_changes(graph, _continued(plan, ways[0][1], place)):
            ways = _ways_around(graph, here.segment, place.segment)
        for way_m, way in ways:
            longer = _continued(plan, way, place)
            total = cost + way_m - here.along_m + place.along_m + offset_cost
            best = following[number]
            if (best is None or total < best[0]) and has_room_for_changes(graph, longer):
                following[number] = (total, longer)


def _continued(plan: RoutePlan, way: Sequence[int], place: LanePlace) -> RoutePlan:
    """Extend a route along the lanes ``way`` to a new goal; ``way`` begins with the last lane of the route."""
    return RoutePlan(plan.segments + tuple(way[1:]), plan.start_m, place.along_m)


def _ways_around(graph: LaneGraph, first: int, last: int) -> list[tuple[float, list[int]]]:
    """Return the shortest ways that leave a segment at its end and enter another segment at its beginning.

    :return: length in metres and segments of each way; there is one way for each successor of ``first`` from which
        ``last`` can be reached
    """

    def weight(_: int, to: int, data: Mapping[str, Any]) -> float | None:
        # A weight of None hides an edge from the search, so that a lane change never enters the last segment.
        if to == last and data["is_change"]:
            return None
        return float(data["weight"])

    ways = []
    for after in graph.segments[first].successors:
        try:
            length_m, path = networkx.single_source_dijkstra(graph.digraph, after, last, weight=weight)
        except networkx.NetworkXNoPath:
            continue
        ways.append((graph.segments[first].length_m + length_m, [first, *path]))
    return ways
