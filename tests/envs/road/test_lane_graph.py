import math

import networkx
import numpy as np
import pytest

from sb3_visual_td3.envs.road.graph_reading import graph_from_network
from sb3_visual_td3.envs.road.lane_graph import NO_JUNCTION, NO_LANE, graph_from_arrays
from sb3_visual_td3.envs.road.maps import load_map


def graph_of(name):
    return graph_from_network(load_map(name).network)


def number_of(graph, key):
    return [segment.key for segment in graph.segments].index(key)


@pytest.mark.parametrize("name", ["train_0", "junction_0", "junction_1", "four_lanes_0"])
def test_each_lane_ends_where_the_following_ones_begin(name):
    graph = graph_of(name)
    for segment in graph.segments:
        for after in segment.successors:
            gap_m = np.linalg.norm(segment.points_m[-1] - graph.segments[after].points_m[0])
            assert gap_m < 0.01, (segment.key, graph.segments[after].key)
            turn = graph.segments[after].headings_rad[0] - segment.headings_rad[1]
            assert abs(math.remainder(turn, 2 * math.pi)) < 0.25


def test_a_ring_is_one_circle_in_each_direction():
    graph = graph_of("train_0")
    circles = sorted(map(len, networkx.strongly_connected_components(graph.digraph)))
    assert circles == [4, 4]


def test_only_the_outgoing_lane_of_the_side_road_is_a_dead_end():
    graph = graph_of("junction_1")
    ends = [segment.key for segment in graph.segments if not segment.successors]
    assert ends == [(4, 0, -1)]


def test_each_arm_of_a_three_way_junction_has_two_ways_at_the_expected_angles():
    graph = graph_of("junction_1")  # its side road leaves to the right
    ways = {
        segment.key: sorted(round(math.degrees(way.turn_rad)) for way in graph.junction_ways(index))
        for index, segment in enumerate(graph.segments)
        if segment.junction == NO_JUNCTION and graph.junction_ways(index)
    }
    # A car on the ring can drive straight on or right, a car against the ring left or straight on, and a car from
    # the side road left or right.
    assert ways == {
        (3, 0, -1): [pytest.approx(-90, abs=8), pytest.approx(0, abs=2)],
        (0, 0, 1): [pytest.approx(0, abs=2), pytest.approx(90, abs=8)],
        (4, 0, 1): [pytest.approx(-90, abs=8), pytest.approx(90, abs=8)],
    }


def test_lanes_of_one_direction_are_neighbours_across_a_broken_mark():
    graph = graph_of("four_lanes_0")
    inner, outer = number_of(graph, (0, 0, -1)), number_of(graph, (0, 0, -2))
    assert (graph.segments[inner].left, graph.segments[inner].right) == (NO_LANE, outer)
    assert (graph.segments[outer].left, graph.segments[outer].right) == (inner, NO_LANE)
    assert graph.digraph.edges[inner, outer]["is_change"]
    assert not graph.digraph.edges[outer, number_of(graph, (1, 0, -2))]["is_change"]
    # In the other direction, the reference line is also on the left.
    inner, outer = number_of(graph, (0, 0, 1)), number_of(graph, (0, 0, 2))
    assert (graph.segments[inner].right, graph.segments[outer].left) == (outer, inner)


def test_lines_and_marks_are_offsets_from_the_lane():
    graph = graph_of("three_lanes_0")
    outer = graph.segments[number_of(graph, (0, 0, -2))]
    assert (outer.right_line_m[0], outer.left_line_m[0], outer.width_m[0]) == (-1.75, 8.75, 3.5)
    assert [(mark.offset_m, mark.kind) for mark in outer.marks[0].marks] == [
        (-1.75, "solid"), (1.75, "broken"), (5.25, "solid"), (8.75, "solid"),
    ]  # fmt: skip


def test_a_place_is_found_on_every_lane_that_comes_close():
    graph = graph_of("junction_0")
    lane = number_of(graph, (0, 0, -1))
    x, y = graph.segments[lane].points_m[20]
    places = graph.places_near(x, y, 1.0)
    assert [(distance, place.segment) for distance, place in places] == [(0.0, lane)]
    assert places[0][1].along_m == pytest.approx(graph.segments[lane].along_m[20])
    both = {graph.segments[place.segment].key for _, place in graph.places_near(x, y, 4.0)}
    assert both == {(0, 0, -1), (0, 0, 1)}


def places_of_all_lanes(graph, x, y, within_m):
    """Return what ``places_near`` must return, by a search over all points of all lanes."""
    found = []
    for index, segment in enumerate(graph.segments):
        distances = np.hypot(segment.points_m[:, 0] - x, segment.points_m[:, 1] - y)
        closest = int(distances.argmin())
        if distances[closest] <= within_m:
            found.append((distances[closest], (index, segment.along_m[closest])))
    return sorted(found)


@pytest.mark.parametrize("name", ["junction_0", "streets_0", "three_lanes_0"])
def test_places_near_a_point_match_a_search_over_all_lane_points(name):
    graph = graph_of(name)
    corners = np.concatenate([segment.points_m for segment in graph.segments])
    rng = np.random.default_rng(0)
    n_found = 0
    for x, y in rng.uniform(corners.min(axis=0) - 20.0, corners.max(axis=0) + 20.0, (400, 2)).tolist():
        for within_m in (1.0, 2.2, 8.0, 30.0):
            expected = places_of_all_lanes(graph, x, y, within_m)
            assert graph.places_near(x, y, within_m) == expected
            n_found += len(expected)
    assert n_found > 400
    # Far from the map, nothing is found and nothing is cached.
    n_stored = len(graph._squares)
    for far in (1e6, -1e6, math.inf, math.nan):
        assert graph.places_near(far, 0.0, 5.0) == graph.places_near(0.0, far, 5.0) == []
    assert len(graph._squares) == n_stored


def test_arrays_give_the_same_graph_back():
    graph = graph_of("junction_0")
    again = graph_from_arrays(graph.to_arrays())
    for one, two in zip(graph.segments, again.segments, strict=True):
        assert (one.key, one.junction, one.marks, one.successors, one.left, one.right) == (
            two.key, two.junction, two.marks, two.successors, two.left, two.right,
        )  # fmt: skip
        for name in ("points_m", "width_m", "left_line_m", "right_line_m"):
            np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
