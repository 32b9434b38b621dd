"""Where pedestrians walk: strips beside the road and crossings, as one mesh."""

import networkx
import numpy as np
import pytest

from sb3_visual_td3.envs.road.footways import footways_of
from sb3_visual_td3.envs.road.graph_reading import read_graph
from sb3_visual_td3.envs.road.lane_graph import LaneGraph
from sb3_visual_td3.envs.road.route_maps import load_route_map
from tests.towns import TOWNS, needs_carla, needs_towns


def mesh_of(footways):
    mesh = networkx.Graph()
    mesh.add_nodes_from(range(len(footways.quads)))
    for number, beyond in enumerate(footways.beyond.tolist()):
        mesh.add_edges_from((number, other) for other in beyond if other >= 0)
    return mesh


@pytest.mark.parametrize("name", ["streets_0", "train_0", "junction_0", "four_lanes_0"])
def test_pieces_fit_together_and_lie_beside_the_road(name):
    graph = load_route_map(name).graph
    footways = footways_of(graph)
    assert footways.is_crossing.any()
    corners = footways.corners_m[footways.quads]
    sides = np.roll(corners, -1, axis=1) - corners
    after = np.roll(sides, -1, axis=1)
    turns = sides[..., 0] * after[..., 1] - sides[..., 1] * after[..., 0]
    assert (turns < 0.0).all(), "all pieces are convex and have the same direction"
    for number, beyond in enumerate(footways.beyond.tolist()):
        for side, other in enumerate(beyond):
            if other < 0:
                continue
            back = footways.beyond[other].tolist().index(number)
            edge = {footways.quads[number][side], footways.quads[number][(side + 1) % 4]}
            assert edge == {footways.quads[other][back], footways.quads[other][(back + 1) % 4]}
    for middle in corners[~footways.is_crossing].mean(axis=1):
        for gap_m, place in graph.places_near(*middle.tolist(), 5.0):
            assert gap_m > 0.5 * graph.segments[place.segment].width_m[0]
    for middle in corners[footways.is_crossing].mean(axis=1):
        assert graph.places_near(*middle.tolist(), 5.0), "a crossing leads over a lane"


def test_the_same_map_has_the_same_footways():
    graph = load_route_map("streets_0").graph
    one, two = footways_of(graph), footways_of(LaneGraph(graph.segments))
    np.testing.assert_array_equal(one.corners_m, two.corners_m)
    np.testing.assert_array_equal(one.quads, two.quads)


@pytest.mark.parametrize("name", ["train_0", "streets_0", "junction_0"])
def test_all_footways_of_a_map_are_connected(name):
    footways = footways_of(load_route_map(name).graph)
    assert networkx.number_connected_components(mesh_of(footways)) == 1


@pytest.mark.carla
@needs_carla
@needs_towns
def test_the_pavements_of_a_town_are_connected_around_corners_and_over_crossings():
    footways = footways_of(read_graph((TOWNS / "Town01.xodr").read_text(), "Town01"))
    assert networkx.number_connected_components(mesh_of(footways)) == 1
