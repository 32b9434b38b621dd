import itertools
import math

import networkx
import pytest

from sb3_visual_td3.envs.road import route_planning
from sb3_visual_td3.envs.road.graph_reading import graph_from_network
from sb3_visual_td3.envs.road.lane_graph import NO_JUNCTION, LanePlace
from sb3_visual_td3.envs.road.maps import load_map
from sb3_visual_td3.envs.road.route_planning import (
    RoutePlace,
    RoutePlan,
    count_turns,
    junction_manoeuvres,
    random_route,
    random_route_between,
    route_length_m,
    route_through,
)


def graph_of(name):
    return graph_from_network(load_map(name).network)


def number_of(graph, key):
    return [segment.key for segment in graph.segments].index(key)


def place_on(graph, key, index):
    segment = graph.segments[number_of(graph, key)]
    step = segment.points_m[index + 1] - segment.points_m[index]
    return RoutePlace(*segment.points_m[index].tolist(), math.atan2(step[1], step[0]))


def keys_of(graph, plan):
    return [graph.segments[index].key for index in plan.segments]


def drawn(graph, seed, length_m=(200.0, 800.0), turns=(0, 8)):
    return random_route(graph, seed, length_m=length_m, turns=turns, source="a map")


@pytest.mark.parametrize(
    ("length_m", "turns"), [((200.0, 400.0), (2, 3)), ((50.0, 60.0), (0, 0)), ((300, 500), (1, 8))]
)
def test_random_routes_keep_within_their_ranges(length_m, turns):
    graph = graph_of("streets_0")
    for seed in range(20):
        plan = drawn(graph, seed, length_m, turns)
        assert length_m[0] <= route_length_m(graph, plan) <= length_m[1]
        assert turns[0] <= count_turns(graph, plan.segments) <= turns[1]
        for one, two in itertools.pairwise(plan.segments):
            assert graph.digraph.has_edge(one, two)
        assert {graph.segments[plan.segments[end]].junction for end in (0, -1)} == {NO_JUNCTION}


def test_random_routes_between_places_start_and_end_at_two_of_them():
    graph = graph_of("streets_0")
    open_road = [i for i, segment in enumerate(graph.segments) if segment.junction == NO_JUNCTION]
    places = [LanePlace(segment, 10.0 + 0.5 * number) for number, segment in enumerate(open_road)]
    ends = set()
    for seed in range(20):
        plan = random_route_between(graph, seed, places, length_m=(100.0, 400.0), turns=(1, 3), source="a map")
        assert 100.0 <= route_length_m(graph, plan) <= 400.0
        assert 1 <= count_turns(graph, plan.segments) <= 3
        start, goal = LanePlace(plan.segments[0], plan.start_m), LanePlace(plan.segments[-1], plan.goal_m)
        assert {start, goal} <= set(places)
        ends.add((start, goal))
    assert len(ends) > 10
    for few in ([], places[:1]):
        with pytest.raises(ValueError, match=f"a map, between {len(few)} given places: found no route of 100 to 400 m"):
            random_route_between(graph, 0, few, length_m=(100.0, 400.0), turns=(0, 3), source="a map")


def test_a_route_is_the_shortest_way_to_its_goal():
    graph = graph_of("streets_1")
    for seed in range(10):
        plan = drawn(graph, seed)
        naive = networkx.bellman_ford_path_length(graph.digraph, plan.segments[0], plan.segments[-1])
        assert route_length_m(graph, plan) == pytest.approx(naive - plan.start_m + plan.goal_m)


def test_the_seed_determines_the_route():
    graph = graph_of("streets_0")
    assert drawn(graph, 3) == drawn(graph, 3)
    assert len({drawn(graph, seed) for seed in range(10)}) == 10


def test_random_route_fails_if_no_route_has_the_requested_length_and_turns():
    with pytest.raises(ValueError, match=r"a map: found no route of 200 to 300 m with 5 to 8 turns; widen"):
        drawn(graph_of("train_0"), 0, (200.0, 300.0), (5, 8))


@pytest.mark.parametrize(("length_m", "turns"), [((300.0, 300.0), (0, 8)), ((300.0, 400.0), (0, 0))])
def test_rare_routes_are_found_by_every_seed(length_m, turns):
    graph = graph_of("streets_0")
    plans = [drawn(graph, seed, length_m, turns) for seed in range(25)]
    for plan in plans:
        assert length_m[0] - 1e-6 <= route_length_m(graph, plan) <= length_m[1] + 1e-6
        assert turns[0] <= count_turns(graph, plan.segments) <= turns[1]
        assert 0.0 <= plan.start_m <= graph.segments[plan.segments[0]].length_m
        assert 0.0 <= plan.goal_m <= graph.segments[plan.segments[-1]].length_m
    assert len(set(plans)) == 25


def test_a_route_of_an_exact_length_is_found_without_a_search_of_all_lanes(monkeypatch):
    monkeypatch.setattr(route_planning, "_rare_route", None)
    plan = drawn(graph_of("streets_0"), 0, (300.0, 300.0))
    assert route_length_m(graph_of("streets_0"), plan) == pytest.approx(300.0)


def test_the_only_place_of_many_that_has_a_route_is_found():
    graph = graph_of("streets_0")
    known = drawn(graph, 0, (100.0, 200.0))
    start, goals = LanePlace(known.segments[0], known.start_m), [LanePlace(known.segments[-1], known.goal_m)] * 3_000
    exact_m = route_length_m(graph, known)
    length_m = (exact_m - 1.0, exact_m + 1.0)
    for seed in range(3):
        plan = random_route_between(graph, seed, [*goals, start], length_m=length_m, turns=(0, 8), source="a map")
        assert plan == known


def test_turns_are_recognised_by_the_change_of_direction():
    graph = graph_of("junction_0")  # a crossing of the ring (roads 3 and 0) with side roads 4 (left) and 5 (right)
    commands = {}
    incoming = number_of(graph, (3, 0, -1))
    for way in graph.junction_ways(incoming):
        out = graph.segments[way.segments[-1]].successors[0]
        (manoeuvre,) = junction_manoeuvres(graph, (incoming, *way.segments, out))
        commands[graph.segments[out].key] = manoeuvre.command
        assert (manoeuvre.first, manoeuvre.last) == (1, len(way.segments))
    assert commands == {(0, 0, -1): "straight", (4, 0, -1): "left", (5, 0, -1): "right"}


def test_a_way_through_places_takes_them_in_their_order():
    graph = graph_of("junction_0")
    places = [place_on(graph, key, 20) for key in ((3, 0, -1), (4, 0, -1))]
    plan = route_through(graph, places, "a route")
    keys = keys_of(graph, plan)
    assert (keys[0], keys[-1], len(keys)) == ((3, 0, -1), (4, 0, -1), 3)
    assert count_turns(graph, plan.segments) == 1


def test_a_goal_behind_the_start_is_reached_after_one_lap():
    graph = graph_of("train_0")
    start, goal = place_on(graph, (0, 0, -1), 60), place_on(graph, (0, 0, -1), 40)
    plan = route_through(graph, [start, goal], "a route")
    assert keys_of(graph, plan) == [(0, 0, -1), (1, 0, -1), (2, 0, -1), (3, 0, -1), (0, 0, -1)]
    lap_m = sum(segment.length_m for segment in graph.segments if segment.key[2] == -1)
    assert route_length_m(graph, plan) == pytest.approx(lap_m - 10.0, abs=0.5)


def test_a_neighbouring_lane_is_reached_by_a_lane_change():
    graph = graph_of("four_lanes_0")
    start, goal = place_on(graph, (0, 0, -2), 10), place_on(graph, (0, 0, -1), 180)
    plan = route_through(graph, [start, goal], "a route")
    assert keys_of(graph, plan) == [(0, 0, -2), (0, 0, -1)]
    # Too near for a change on this road: the route goes once around.
    near = place_on(graph, (0, 0, -1), 20)
    assert len(route_through(graph, [start, near], "a route").segments) > 2


def test_a_place_without_direction_takes_the_lane_that_gives_the_shorter_route():
    graph = graph_of("train_0")
    one, two = (place_on(graph, (0, 0, -1), index)._replace(heading_rad=None) for index in (40, 60))
    assert keys_of(graph, route_through(graph, [one, two], "a route")) == [(0, 0, -1)]


def test_places_off_the_road_or_out_of_reach_are_named():
    graph = graph_of("junction_1")
    on_ring = place_on(graph, (0, 0, -1), 20)
    with pytest.raises(ValueError, match=r"route 7: \(5000, 5000\) is not on a lane"):
        route_through(graph, [on_ring, RoutePlace(5000.0, 5000.0)], "route 7")
    dead_end = place_on(graph, (4, 0, -1), 20)  # the lane that leads away from the junction
    with pytest.raises(ValueError, match="route 7: no lanes lead to"):
        route_through(graph, [dead_end, on_ring], "route 7")


def test_a_route_that_ends_at_its_start_is_refused():
    graph = graph_of("streets_0")
    place = place_on(graph, graph.segments[0].key, 20)
    with pytest.raises(ValueError, match=r"^route\[3\]: start and goal are both at .*; give a goal ahead of the start"):
        route_through(graph, [place, place], "route[3]")
    around = [place, place_on(graph, graph.segments[0].key, 10), place]
    assert route_length_m(graph, route_through(graph, around, "a lap")) > 50.0


def test_the_route_length_counts_parallel_lanes_of_a_lane_change_once():
    graph = graph_of("four_lanes_0")
    outer, inner = number_of(graph, (0, 0, -2)), number_of(graph, (0, 0, -1))
    plan = RoutePlan((outer, inner), 10.0, 60.0)
    assert route_length_m(graph, plan) == pytest.approx(50.0)
