import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from sb3_visual_td3.envs.backend import LaneMark
from sb3_visual_td3.envs.road.graph_reading import graph_from_network
from sb3_visual_td3.envs.road.lane_graph import LaneGraph, MarkRun
from sb3_visual_td3.envs.road.line_mending import forward_points, mended
from sb3_visual_td3.envs.road.maps import load_map
from sb3_visual_td3.envs.road.route_path import COMMAND_AHEAD_M, build_path
from sb3_visual_td3.envs.road.route_planning import RoutePlan, random_route, route_length_m

GRAPH = graph_from_network(load_map("streets_0").network)


def number_of(graph, key):
    return [segment.key for segment in graph.segments].index(key)


def path_of(seed, turns=(1, 8)):
    plan = random_route(GRAPH, seed, length_m=(200.0, 500.0), turns=turns, source="a map")
    return plan, build_path(GRAPH, plan)


@pytest.mark.parametrize("seed", range(6))
def test_a_path_has_even_steps_from_the_start_to_beyond_the_goal(seed):
    plan, path = path_of(seed)
    assert path.length_m == pytest.approx(route_length_m(GRAPH, plan), abs=1.0)
    steps = np.linalg.norm(np.diff(path.points_m, axis=0), axis=1)
    assert 0.45 < steps.min() < steps.max() < 0.55
    first, last = GRAPH.segments[plan.segments[0]], GRAPH.segments[plan.segments[-1]]
    start = [np.interp(plan.start_m, first.along_m, first.points_m[:, axis]) for axis in (0, 1)]
    goal = [np.interp(plan.goal_m, last.along_m, last.points_m[:, axis]) for axis in (0, 1)]
    assert math.dist(path.points_m[0], start) < 0.01
    assert math.dist(path.waypoints_from(path.locate(*path.points_m[0], 0), [path.length_m])[0], goal) < 0.1
    assert len(path.points_m) * path.spacing_m >= path.length_m + 29.0, "there are points ahead at the goal"


@pytest.mark.parametrize("seed", range(3))
def test_a_vehicle_is_located_as_by_a_search_over_the_points_around(seed):
    _, path = path_of(seed)
    rng = np.random.default_rng(seed)
    for index in range(0, len(path.points_m) - 5, 7):
        offset = rng.uniform(-2.0, 2.0)
        x, y, heading = path.pose_at(index, offset)
        lane = path.locate(x, y, max(0, index - 4))
        first = max(0, index - 20)  # a route may pass the same place twice
        around = path.points_m[first : index + 20]
        naive = first + int(np.argmin(np.hypot(*(around - (x, y)).T)))
        assert abs(lane.nearest - naive) <= 1
        assert lane.lateral_offset_m == pytest.approx(offset, abs=0.05)
        assert lane.along_m == pytest.approx(index * path.spacing_m, abs=0.3)
        assert math.remainder(lane.heading_rad - heading, 2 * math.pi) == pytest.approx(0.0, abs=0.05)


def test_waypoints_move_with_the_vehicle():
    _, path = path_of(0)
    index = 100
    x, y, heading = path.pose_at(index, 0.0)
    here = path.locate(x, y, index)
    ahead = path.locate(x + 0.2 * math.cos(heading), y + 0.2 * math.sin(heading), index)
    assert path.waypoints_from(here, [10.2])[0] == pytest.approx(path.waypoints_from(ahead, [10.0])[0], abs=1e-3)
    assert path.waypoints_from(here, [10.2]) != path.waypoints_from(here, [10.0])


def test_a_vehicle_beyond_the_ends_of_a_path_gets_its_first_or_last_point():
    _, path = path_of(0)
    x, y, heading = path.pose_at(0, 0.0)
    behind = path.locate(x - 3 * math.cos(heading), y - 3 * math.sin(heading), 5)
    assert (behind.nearest, behind.along_m) == (0, pytest.approx(-3.0, abs=0.01))
    end = path.locate(*path.points_m[-1], len(path.points_m) - 1)
    assert path.waypoints_from(end, [20.0])[0] == pytest.approx(tuple(path.points_m[-1]))


def test_a_command_is_given_from_50_m_before_its_junction_until_it_is_passed():
    # The route starts on the ring road of junction_0, 100 m before the crossing, and turns left into side road 4.
    graph = graph_from_network(load_map("junction_0").network)
    incoming = number_of(graph, (3, 0, -1))
    way = next(way for way in graph.junction_ways(incoming) if way.turn_rad > 1.0)
    out = graph.segments[way.segments[-1]].successors[0]
    before_m = 100.0
    plan = RoutePlan((incoming, *way.segments, out), graph.segments[incoming].length_m - before_m, 30.0)
    path = build_path(graph, plan)
    within_m = sum(graph.segments[index].length_m for index in way.segments)

    def told(along_m):
        index = round(along_m / path.spacing_m)
        state = path.state_of((*path.points_m[index], 0.0), 0.0, path.locate(*path.points_m[index], index),
                              distance_m=along_m, has_collided=False)  # fmt: skip
        return state.command, state.command_distance_m

    assert told(0.0) == ("follow", COMMAND_AHEAD_M)
    assert told(before_m - COMMAND_AHEAD_M - 2.0)[0] == "follow"
    assert told(before_m - 30.0) == ("left", pytest.approx(30.0, abs=1.2))
    assert told(before_m + 0.5 * within_m) == ("left", 0.0)
    # After the junction there is no other command, so the distance is that to the goal.
    assert told(before_m + within_m + 10.0) == ("follow", pytest.approx(20.0, abs=1.0))


def test_a_lane_change_leads_smoothly_from_lane_to_lane_and_has_no_marks():
    graph = graph_from_network(load_map("four_lanes_0").network)
    outer, inner = number_of(graph, (0, 0, -2)), number_of(graph, (0, 0, -1))
    path = build_path(graph, RoutePlan((outer, inner), 5.0, 95.0))
    states = [
        path.state_of((*point, 0.0), 0.0, path.locate(*point, index), distance_m=0.0, has_collided=False)
        for index, point in enumerate(path.points_m)
    ]
    assert {state.command for state in states} == {"follow", "change_left"}
    changing = [state for state in states if (state.command, state.command_distance_m) == ("change_left", 0.0)]
    assert 28.0 < len(changing) * path.spacing_m < 32.0
    assert {state.marks for state in changing} == {()}
    # The left edge of the road gets nearer by one lane width, and the right edge gets farther by one lane width.
    assert states[0].road_left_m - states[-1].road_left_m == pytest.approx(3.5, abs=0.01)
    assert states[0].road_right_m - states[-1].road_right_m == pytest.approx(3.5, abs=0.01)
    middle = changing[len(changing) // 2]
    assert middle.road_left_m == pytest.approx(0.5 * (states[0].road_left_m + states[-1].road_left_m), abs=0.2)
    headings = np.unwrap([path.pose_at(index, 0.0)[2] for index in range(len(path.points_m))])
    assert np.abs(np.diff(headings)).max() < 0.06


def test_marks_count_on_the_road_and_not_within_a_junction():
    plan, _ = path_of(0, turns=(1, 1))
    # This holds even if a map gives marks to the lanes of a junction.
    mark = LaneMark(1.75, "solid")
    marked = [replace(segment, marks=(MarkRun(0, (mark,)),)) for segment in GRAPH.segments]
    path = build_path(LaneGraph(tuple(marked)), plan)
    states = [
        path.state_of((*point, 0.0), 0.0, path.locate(*point, index), distance_m=0.0, has_collided=False)
        for index, point in enumerate(path.points_m)
    ]
    within = [state for state in states if state.command != "follow" and state.command_distance_m == 0.0]
    on_road = [state for state in states if state.command_distance_m > 2.0]
    assert {state.marks for state in within} == {()}
    assert {state.marks for state in on_road} == {(mark,)}
    assert {state.road_left_m for state in within} == {1.5 * 3.5}, "beyond the lane width that ends an episode"


def test_beyond_a_dead_end_the_path_goes_straight_on():
    graph = graph_from_network(load_map("junction_1").network)
    dead_end = number_of(graph, (4, 0, -1))
    path = build_path(graph, RoutePlan((dead_end,), 2.0, 40.0))
    assert path.length_m == pytest.approx(38.0, abs=0.01)
    number = round(path.length_m / path.spacing_m)
    goal = path.pose_at(number, 0.0)
    ahead = path.waypoints_from(path.locate(*goal[:2], number), [20.0])[0]
    assert math.atan2(ahead[1] - goal[1], ahead[0] - goal[0]) == pytest.approx(goal[2], abs=1e-3)


def chords(offset_m):
    """Return points on 4 chords of a quarter circle with a radius of 12 m, each shifted left by ``offset_m``."""
    angles = np.linspace(0.0, math.pi / 2, 5)
    corners = 12.0 * np.stack([np.sin(angles), 1.0 - np.cos(angles)], axis=1)
    points = []
    for one, two in itertools.pairwise(corners):
        along = (two - one) / np.linalg.norm(two - one)
        left = np.array((-along[1], along[0]))
        points += [one + part * (two - one) + offset_m * left for part in np.linspace(0.0, 1.0, 10)]
    return np.array(points)


def test_a_lane_that_runs_backwards_at_its_corners_is_repaired():
    inner = chords(4.0)
    steps = np.diff(inner, axis=0)
    assert (np.einsum("ij,ij->i", steps[:-1], steps[1:]) < 0).any(), "beside its corners the lane runs backwards"
    line = mended(inner[forward_points(inner)])
    headings = np.arctan2(*np.diff(line, axis=0).T[::-1])
    assert (np.diff(np.unwrap(headings)) > -0.05).all(), "it bends to the left only"
    assert np.abs(np.hypot(line[:, 0], line[:, 1] - 12.0) - 8.0).max() < 1.0, "it keeps near its circle"
    np.testing.assert_allclose(line[[0, -1]], inner[[0, -1]], atol=0.3)


def test_a_line_that_needs_no_repair_keeps_its_points():
    line = load_map("train_0").track.points_m
    np.testing.assert_array_equal(forward_points(line), np.arange(len(line)))
    assert mended(line) is line


@pytest.mark.parametrize("seed", range(6))
def test_a_path_lists_the_lanes_of_its_plan_and_where_each_begins(seed):
    plan, path = path_of(seed)
    assert tuple(lane.segment for lane in path.lanes) == plan.segments
    assert path.lanes[0][1:] == (0.0, pytest.approx(plan.start_m))
    for lane in path.lanes:
        segment = GRAPH.segments[lane.segment]
        on_lane = [np.interp(lane.along_m, segment.along_m, segment.points_m[:, axis]) for axis in (0, 1)]
        (on_path,) = path.waypoints_from(path.locate(*path.points_m[0], 0), [lane.from_m])
        assert math.dist(on_lane, on_path) < 0.6


def test_the_next_lane_begins_in_the_middle_of_a_lane_change():
    graph = graph_from_network(load_map("four_lanes_0").network)
    outer, inner = number_of(graph, (0, 0, -2)), number_of(graph, (0, 0, -1))
    path = build_path(graph, RoutePlan((outer, inner), 5.0, 95.0))
    assert [lane.segment for lane in path.lanes] == [outer, inner]
    assert path.lanes[1].from_m == pytest.approx(45.0, abs=3.0)
    assert path.lanes[1].along_m == pytest.approx(50.0, abs=3.0)
