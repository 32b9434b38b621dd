import math

import networkx
import numpy as np
import pytest

from sb3_visual_td3.envs.road.graph_reading import graph_from_network
from sb3_visual_td3.envs.road.maps import MAP_GROUPS, load_map
from sb3_visual_td3.envs.road.shapes import joints
from sb3_visual_td3.envs.road.streets import street_network

NAMES = (*MAP_GROUPS["streets"], *MAP_GROUPS["streets_held_out"])


@pytest.mark.parametrize("name", NAMES)
def test_each_road_begins_and_ends_at_its_neighbours(name):
    roads = {road.id: road for road in load_map(name).network.roads}
    for road in roads.values():
        if road.junction is None:
            continue
        before, after = roads[road.predecessor.id], roads[road.successor.id]
        gates = {"start": lambda each: each.start, "end": lambda each: joints(each.start, each.pieces)[-1]}
        begin, end = gates[road.predecessor.contact](before), gates[road.successor.contact](after)
        assert math.dist(begin[:2], road.start[:2]) < 1e-6
        assert math.dist(end[:2], joints(road.start, road.pieces)[-1][:2]) < 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_a_district_has_a_crossing_and_t_junctions_and_no_dead_end(name):
    network = load_map(name).network
    n_ways = sorted(len(junction.connections) for junction in network.junctions)
    assert {6, 12} == set(n_ways), "6 ways at a T-junction, 12 at a crossing"
    assert len(n_ways) >= 4
    assert networkx.is_strongly_connected(graph_from_network(network).digraph)


@pytest.mark.parametrize("name", NAMES)
def test_streets_keep_apart_outside_of_junctions(name):
    network = load_map(name).network
    lines = [road.line_m(0.0, 1.0)[12:-12] for road in network.roads if road.junction is None]
    for number, line in enumerate(lines):
        for other in lines[:number]:
            assert np.linalg.norm(line[:, None] - other[None], axis=2).min() > 12.0


def test_the_closed_route_is_driven_along_its_roads():
    for name in NAMES:
        track = load_map(name).track
        turns = np.abs(track.curvatures_per_m)
        assert turns.max() < 1 / 8.0, "a car at full lock turns with 8 m"
        assert track.length_m > 300.0
        assert track.in_junction is not None
        gaps = np.linalg.norm(np.roll(track.points_m, -1, axis=0) - track.points_m, axis=1)
        assert gaps.max() < 1.02 * gaps.min(), "the last point joins the first like any other"
        assert track.spacing_m == pytest.approx(0.5, rel=0.01)


def test_the_same_seed_gives_the_same_district():
    one, two = (street_network(np.random.default_rng(7), 3, 4, is_clockwise=False) for _ in range(2))
    assert one == two
    assert one != street_network(np.random.default_rng(8), 3, 4, is_clockwise=False)
