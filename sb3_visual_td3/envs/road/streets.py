"""Generate random districts: streets between crossings and T-junctions, so that routes contain turns.

The streets follow a grid with uneven spacing, which is rotated by a random angle. Some streets are left out, and others
are curved.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import networkx
import numpy as np

from sb3_visual_td3.envs.road.network import (
    LANE_WIDTH_M,
    REACH_M,
    Arm,
    Neighbour,
    Road,
    RoadNetwork,
    connect_arms,
)
from sb3_visual_td3.envs.road.shapes import Piece, Pose, joints

Node = tuple[int, int]
"""Column and row of a node of the grid, where a column and a row of streets meet."""
_SPACING_M = (72.0, 110.0)
"""Range of the distance between neighbouring lines of the grid."""
_CORNER_M = (17.0, 28.0)
"""Range of the radius of a street's corner."""
_KEPT_SHARE = 0.85
"""Share of the grid's streets that are kept. A street is always kept if its removal would create a dead end or remove
the last crossing, so the actual share can be larger."""
_WINDING_SHARE = 0.6
_WINDING_M = (28.0, 50.0)
"""Range of the radius of a winding street's arcs."""
_WINDING_RAD = (0.25, 0.5)
"""Range of the angle by which a winding street turns away from the straight line, in radians."""
_STRAIGHT_M = 8.0
"""Length of straight road on either side of a junction or a winding part."""
_FIRST_JUNCTION, _FIRST_PATH = 100, 1000
"""Numbers of the first junction and of the first road within a junction; streets are numbered from 0."""


class _Street(NamedTuple):
    """Describe a street of a district: a path along the lines of a grid, from one junction to the next."""

    nodes: tuple[Node, ...]


def street_network(rng: np.random.Generator, n_columns: int, n_rows: int, *, is_clockwise: bool) -> RoadNetwork:
    """Generate the roads of a random district.

    :param rng: generator of the district's random values
    :param n_columns: number of the grid's columns, 3 or more
    :param n_rows: number of the grid's rows, 3 or more
    :param is_clockwise: direction of the closed route
    :return: roads of two lanes, and a closed route along the longest ring of streets
    """
    x_m = np.cumsum(rng.uniform(*_SPACING_M, n_columns))
    y_m = np.cumsum(rng.uniform(*_SPACING_M, n_rows))
    turn_rad = float(rng.uniform(0.0, 2.0 * math.pi))
    places = {
        (column, row): (
            float(x_m[column]) * math.cos(turn_rad) - float(y_m[row]) * math.sin(turn_rad),
            float(x_m[column]) * math.sin(turn_rad) + float(y_m[row]) * math.cos(turn_rad),
        )
        for column, row in itertools.product(range(n_columns), range(n_rows))
    }
    grid = _thinned(rng, n_columns, n_rows)
    ring = _longest_ring(grid)
    if (_area(ring) < 0.0) != is_clockwise:
        ring = [ring[0], *reversed(ring[1:])]
    streets = _streets(grid, ring)
    roads = [
        Road(number, *_line(rng, [places[node] for node in street.nodes]), 1, 1, "broken")
        for number, street in enumerate(streets)
    ]
    return _joined(grid, streets, roads, ring)


def _thinned(rng: np.random.Generator, n_columns: int, n_rows: int) -> networkx.Graph[Node]:
    """Return a grid from which some edges are removed; every node can still be reached from two sides."""
    grid = networkx.grid_2d_graph(n_columns, n_rows)
    edges = sorted(tuple(sorted(edge)) for edge in grid.edges)
    n_kept = math.ceil(_KEPT_SHARE * len(edges))
    for number in rng.permutation(len(edges)).tolist():
        if grid.number_of_edges() <= n_kept:
            break
        grid.remove_edge(*edges[number])
        # In a biconnected graph there are no dead ends.
        has_crossing = any(degree == 4 for _, degree in grid.degree)
        if not has_crossing or not networkx.is_biconnected(grid):
            grid.add_edge(*edges[number])
    return grid


def _longest_ring(grid: networkx.Graph[Node]) -> list[Node]:
    """Return the nodes of the longest cycle of the grid, beginning at a junction."""
    # networkx does not guarantee the order of its results. So of equally long cycles, the first in sorted order is
    # taken.
    ring = min(map(_in_order, networkx.simple_cycles(grid)), key=lambda cycle: (-len(cycle), cycle))
    first = next(index for index, node in enumerate(ring) if grid.degree[node] > 2)
    return ring[first:] + ring[:first]


def _in_order(cycle: list[Node]) -> list[Node]:
    """Return the nodes of a cycle in an order that does not depend on the given first node and direction.

    The smallest node, compared as a tuple, comes first. The smaller of its two neighbours in the cycle comes second.
    """
    first = cycle.index(min(cycle))
    onward = cycle[first:] + cycle[:first]
    return min(onward, [onward[0], *reversed(onward[1:])])


def _area(ring: list[Node]) -> float:
    """Return the area within a closed ring of nodes, positive if the ring runs counter-clockwise."""
    return 0.5 * sum(x * next_y - next_x * y for (x, y), (next_x, next_y) in itertools.pairwise([*ring, ring[0]]))


def _streets(grid: networkx.Graph[Node], ring: list[Node]) -> list[_Street]:
    """Return all streets; the streets of the closed route ``ring`` come first, in its order and direction."""
    around = list(itertools.pairwise([*ring, ring[0]]))
    streets: list[_Street] = []
    done: set[frozenset[Node]] = set()
    edges = sorted(tuple(sorted(edge)) for edge in grid.edges)
    others = [edge for one, two in edges for edge in ((one, two), (two, one))]
    for first, second in [*around, *others]:
        # A street begins and ends at a junction; each node in between has only one onward neighbour.
        if grid.degree[first] == 2 or frozenset((first, second)) in done:
            continue
        nodes = [first, second]
        while grid.degree[nodes[-1]] == 2:
            nodes.append(next(node for node in grid[nodes[-1]] if node != nodes[-2]))
        done.update(frozenset(edge) for edge in itertools.pairwise(nodes))
        streets.append(_Street(tuple(nodes)))
    return streets


def _line(rng: np.random.Generator, places: list[tuple[float, float]]) -> tuple[Pose, tuple[Piece, ...]]:
    """Lay a street from one junction to the next; both of its ends are ``REACH_M`` from the middle of a junction.

    :param places: x and y of the first junction, of the corners in between, and of the last junction
    """
    pieces: list[Piece] = []
    headings = [math.atan2(two[1] - one[1], two[0] - one[0]) for one, two in itertools.pairwise(places)]
    cut_m = REACH_M
    for number, (one, two) in enumerate(itertools.pairwise(places)):
        is_last = number == len(headings) - 1
        turn_rad = 0.0 if is_last else math.remainder(headings[number + 1] - headings[number], 2.0 * math.pi)
        radius_m = float(rng.uniform(*_CORNER_M))
        # Corners are right angles: the arc touches both lines one radius away from the corner.
        next_cut_m = REACH_M
        if not is_last:
            next_cut_m = radius_m if abs(turn_rad) > 0.1 else 0.0
        pieces += _straight_or_winding(rng, math.dist(one, two) - cut_m - next_cut_m)
        if not is_last and abs(turn_rad) > 0.1:
            pieces.append(Piece(radius_m * abs(turn_rad), math.copysign(1.0 / radius_m, turn_rad)))
        cut_m = next_cut_m
    middle = Pose(*places[0], headings[0])
    return Piece(REACH_M, 0.0).from_pose(middle, REACH_M), tuple(pieces)


def _straight_or_winding(rng: np.random.Generator, length_m: float) -> list[Piece]:
    """Return a straight line, or a winding line with the same start, end and direction at both ends."""
    is_winding = rng.random() < _WINDING_SHARE
    radius_m, angle_rad = float(rng.uniform(*_WINDING_M)), float(rng.uniform(*_WINDING_RAD))
    side = 1.0 if rng.random() < 0.5 else -1.0
    # Three arcs: away by the angle, back by twice the angle, and straight again. Together they replace a part of the
    # line that is 4 * radius * sin(angle) long.
    taken_m = 4.0 * radius_m * math.sin(angle_rad)
    line = Piece(0.5 * (length_m - taken_m), 0.0)
    if not is_winding or line.length_m < _STRAIGHT_M:
        return [Piece(length_m, 0.0)]
    away = Piece(radius_m * angle_rad, side / radius_m)
    back = Piece(2.0 * radius_m * angle_rad, -side / radius_m)
    return [line, away, back, away, line]


def _joined(grid: networkx.Graph[Node], streets: list[_Street], roads: list[Road], ring: list[Node]) -> RoadNetwork:
    """Link the streets to the junctions at their ends, and add the junctions' connecting roads."""
    crossings = sorted(node for node in grid if grid.degree[node] > 2)
    number_of = {node: _FIRST_JUNCTION + number for number, node in enumerate(crossings)}
    arms: dict[Node, list[Arm]] = {node: [] for node in crossings}
    linked = []
    for street, road in zip(streets, roads, strict=True):
        # The pose of an arm faces the middle of its junction. The start pose of a road faces away from the junction, so
        # it is reversed.
        arms[street.nodes[0]].append(Arm(road.id, "start", road.start.reversed()))
        arms[street.nodes[-1]].append(Arm(road.id, "end", joints(road.start, road.pieces)[-1]))
        ends = [Neighbour("junction", number_of[node]) for node in (street.nodes[0], street.nodes[-1])]
        linked.append(road._replace(predecessor=ends[0], successor=ends[1]))
    paths: list[Road] = []
    junctions = []
    for node in crossings:
        junction, connecting = connect_arms(number_of[node], arms[node], _FIRST_PATH + len(paths))
        junctions.append(junction)
        paths += connecting
    return RoadNetwork((*linked, *paths), tuple(junctions), _route(streets, paths, ring), -1, LANE_WIDTH_M)


def _route(streets: list[_Street], paths: list[Road], ring: list[Node]) -> tuple[int, ...]:
    """Return the roads of the closed route: the ring's streets, and between them the roads within the junctions."""
    edges = {frozenset(edge) for edge in itertools.pairwise([*ring, ring[0]])}
    around = [n for n, street in enumerate(streets) if frozenset(street.nodes[:2]) in edges]
    route = []
    for one, two in itertools.pairwise([*around, around[0]]):
        route.append(one)
        # All streets of the ring are driven from their start to their end.
        route += [
            path.id
            for path in paths
            if path.predecessor == Neighbour("road", one, "end", -1)
            and path.successor == Neighbour("road", two, "start", -1)
        ]
    return tuple(route)
