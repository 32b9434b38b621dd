"""Test the other cars on routes to a goal.

The tests check where the cars start, how they react to the ego vehicle, and the distances to the next car and the next
junction that ``RouteTraffic`` reports to the ego vehicle.
"""

import itertools
import json
import math

import numpy as np
import pytest

from sb3_visual_td3.envs.backend import BodySize
from sb3_visual_td3.envs.road.collision import OrientedBox, any_overlap, boxes_overlap
from sb3_visual_td3.envs.road.graph_reading import graph_from_network
from sb3_visual_td3.envs.road.lane_graph import NO_JUNCTION, LaneGraph, LaneSegment, MarkRun
from sb3_visual_td3.envs.road.maps import load_map
from sb3_visual_td3.envs.road.route_path import build_path
from sb3_visual_td3.envs.road.route_planning import RoutePlan, random_route
from sb3_visual_td3.envs.road.route_traffic import RouteTraffic, SeededChoice
from sb3_visual_td3.envs.road.shapes import Pose
from sb3_visual_td3.envs.road.traffic import TrafficSettings

GRAPH = graph_from_network(load_map("streets_0").network)
BODY = BodySize(4.4, 1.8, 2.9)


def path_of(seed=1, length_m=(300.0, 500.0)):
    return build_path(GRAPH, random_route(GRAPH, seed, length_m=length_m, turns=(1, 8), source="a map"))


def begun(n_cars, path, seed=0, along_m=0.0, speed_mps=0.0, is_closed=None):
    """Return the traffic, and the lane position and pose of an ego vehicle ``along_m`` from the route's start."""
    traffic = RouteTraffic(TrafficSettings(n_cars=n_cars), BODY, is_closed)
    traffic.enter(GRAPH, path)
    lane, ego = place_at(path, along_m)
    traffic.reset(ego, lane, speed_mps, seed)
    return traffic, lane, ego


def place_at(path, along_m):
    index = round(along_m / path.spacing_m)
    pose = Pose(*path.pose_at(index, 0.0))
    return path.locate(pose.x_m, pose.y_m, index), pose


def begun_without_ego(n_cars, is_closed=None):
    """Return traffic for tests without an ego vehicle on the road, and the lane position of the goal.

    The tests pass this lane position and the pose ``FAR`` to ``advance``. At the goal, no junction is reserved for the
    ego vehicle.
    """
    path = path_of()
    return begun(n_cars, path, along_m=path.length_m, is_closed=is_closed)[0], place_at(path, path.length_m)[0]


FAR = Pose(1e5, 1e5, 0.0)


def first_junction_of(path):
    """Return the first junction lane that begins more than 20 m after the start of a route."""
    far = [lane for lane in path.lanes if lane.from_m > 20.0]
    return next(lane for lane in far if GRAPH.segments[lane.segment].junction != NO_JUNCTION)


def touches(traffic, ego):
    """Return whether an ego vehicle at a pose touches one of the other cars."""
    return any_overlap(OrientedBox(*ego, BODY.length_m, BODY.width_m), traffic.boxes)


def assert_apart(traffic):
    for one, two in itertools.combinations(traffic.boxes, 2):
        assert not boxes_overlap(one, two)


@pytest.mark.parametrize("seed", range(3))
def test_cars_start_apart_away_from_the_ego_vehicle_and_near_its_route(seed):
    path = path_of(seed)
    traffic, _, ego = begun(12, path, seed)
    assert len(traffic.cars) == len(traffic.boxes) == len(traffic.paints) == 12
    assert_apart(traffic)
    for box in traffic.boxes:
        assert math.dist(box[:2], ego[:2]) >= 20.0
        assert np.hypot(*(path.points_m - box[:2]).T).min() < 100.0
    assert len({car.desired_mps for car in traffic.cars}) == 12
    assert all(5.0 <= car.desired_mps <= 8.0 for car in traffic.cars)


def test_a_short_map_has_as_many_cars_as_fit():
    graph = graph_from_network(load_map("junction_0").network)
    path = build_path(graph, random_route(graph, 0, length_m=(40.0, 200.0), turns=(0, 8), source="a map"))
    traffic = RouteTraffic(TrafficSettings(n_cars=20, clear_m=200.0), BODY)
    traffic.enter(graph, path)
    lane, ego = place_at(path, 0.0)
    traffic.reset(ego, lane, 0.0, 0)
    assert 0 < len(traffic.cars) < 20


@pytest.mark.parametrize("seed", range(3))
def test_cars_stop_behind_an_ego_vehicle_that_stands_and_never_touch(seed):
    path = path_of(seed)
    # The ego vehicle stands in the middle of a junction, which is the worst place.
    inside = first_junction_of(path)
    traffic, lane, ego = begun(15, path, seed, inside.from_m + 4.0)
    for _ in range(600):
        traffic.advance(0.1, ego, lane, 0.0)
        assert not touches(traffic, ego)
        assert_apart(traffic)
    assert sum(car.speed_mps < 0.05 for car in traffic.cars) >= 2


def test_without_the_ego_vehicle_in_the_way_all_cars_keep_driving():
    traffic, lane = begun_without_ego(15)
    travelled = np.zeros(15)
    for step in range(900):
        before = [box[:2] for box in traffic.boxes]
        traffic.advance(0.1, FAR, lane, 0.0)
        moved = np.array([math.dist(old, box[:2]) for old, box in zip(before, traffic.boxes, strict=True)])
        assert moved.max() < 1.0, "no car jumps"
        travelled += moved
        if step % 5 == 0:
            assert_apart(traffic)
    assert travelled.min() > 100.0


def road_with_dead_ends():
    """Return a straight road of 400 m with one lane in each direction; both lanes end at a dead end."""
    lanes = []
    for number, (begin_m, end_m, y_m) in enumerate(
        [(0, 200, -1.75), (200, 400, -1.75), (400, 200, 1.75), (200, 0, 1.75)]
    ):
        points_m = np.stack([np.linspace(begin_m, end_m, 401), np.full(401, y_m)], axis=1)
        columns = (
            np.full(401, value) for value in (3.5, 5.25, -1.75)
        )  # the lane's width, the road's left and right line
        after = (number + 1,) if number % 2 == 0 else ()
        lanes.append(LaneSegment((number, 0, -1), NO_JUNCTION, points_m, *columns, (MarkRun(0, ()),), after))
    return LaneGraph(tuple(lanes))


def test_cars_leave_a_dead_end_and_continue_elsewhere():
    graph = road_with_dead_ends()
    path = build_path(graph, RoutePlan((0, 1), 0.0, 195.0))
    traffic, restored = (RouteTraffic(TrafficSettings(n_cars=5), BODY) for _ in range(2))
    for each in (traffic, restored):
        each.enter(graph, path)
    lane, ego = place_at(path, 60.0)
    traffic.reset(ego, lane, 0.0, 0)
    n_jumps = 0
    for step in range(1_500):
        before = list(traffic.boxes)
        traffic.advance(0.1, ego, lane, 0.0)
        for old, new in zip(before, traffic.boxes, strict=True):
            if math.dist(old[:2], new[:2]) > 1.0:
                n_jumps += 1
                # The car stood with its front near an end of the road, and continues away from the ego vehicle.
                assert min(old.x_m, 400.0 - old.x_m) < 10.0
                assert math.dist(new[:2], ego[:2]) > 45.0
        assert not touches(traffic, ego)
        assert_apart(traffic)
        if step == 750:
            restored.set_state(json.loads(json.dumps(traffic.get_state())), lane, 0.0, 0)
        elif step > 750:
            restored.advance(0.1, ego, lane, 0.0)
    assert n_jumps > 5
    assert restored.get_state() == traffic.get_state()


def test_cars_take_different_ways_at_junctions_and_only_those_that_the_map_has():
    traffic, lane = begun_without_ego(15)
    chosen = {}
    for _ in range(900):
        traffic.advance(0.1, FAR, lane, 0.0)
        for car in traffic.cars:
            for one, two in itertools.pairwise(car.path):
                chosen.setdefault(one, set()).add(two)
    assert max(map(len, chosen.values())) >= 2
    for one, ways in chosen.items():
        assert ways <= set(GRAPH.segments[one].successors)


def test_crossing_cars_wait_while_the_way_is_reserved_for_the_ego_vehicle():
    """The ego vehicle stands before a junction until it may enter, and then drives through the junction."""
    path = path_of()
    junctions = [lane for lane in path.lanes if GRAPH.segments[lane.segment].junction != NO_JUNCTION]
    traffic, at_goal, _ = begun(20, path, along_m=path.length_m)
    n_waits = 0
    for inside in 6 * [lane for lane in junctions if lane.from_m > 20.0]:
        for _ in range(30):
            traffic.advance(0.1, FAR, at_goal, 0.0)
        lane, ego = place_at(path, inside.from_m - 8.0)
        if any(math.dist(box[:2], ego[:2]) < 12.0 for box in traffic.boxes):
            continue
        for _ in range(300):
            traffic.advance(0.1, ego, lane, 0.0)
            if math.isinf(traffic.outlook.junction_m):
                break
            assert traffic.outlook.junction_m == pytest.approx(8.0, abs=0.6)
            n_waits += 1
        assert traffic.outlook.junction_m == math.inf, "its turn has come"
        for along_m in np.arange(inside.from_m - 8.0, min(inside.from_m + 25.0, path.length_m), 0.4):  # at 4 m/s
            if traffic.outlook.vehicle_ahead_m < 6.0:
                break
            lane, ego = place_at(path, along_m)
            traffic.advance(0.1, ego, lane, 4.0)
            assert not touches(traffic, ego)
    assert n_waits > 10, "at times others were in the junction first"


def test_the_distance_and_speed_of_the_car_ahead_of_the_ego_vehicle_are_reported():
    path = path_of()
    here = max(path.lanes[1:], key=lambda lane: GRAPH.segments[lane.segment].length_m)
    traffic, lane, ego = begun(1, path, along_m=here.from_m + 20.0)
    (car,) = traffic.cars
    car.path, car.along_m, car.speed_mps, car.held = [here.segment], 35.0, 6.0, []
    traffic.advance(0.0, ego, lane, 0.0)
    # The distance from centre to centre, minus half the length of the car.
    assert traffic.outlook.vehicle_ahead_m == pytest.approx(15.0 - 2.2, abs=0.3)
    assert traffic.outlook.vehicle_ahead_mps == 6.0
    car.along_m, car.speed_mps = 5.0, 0.0
    traffic.advance(0.0, ego, lane, 0.0)
    assert traffic.outlook.vehicle_ahead_m == math.inf, "a car behind is not ahead"


def test_cars_stop_at_closed_junctions_and_for_pedestrians():
    traffic, lane = begun_without_ego(10, is_closed=lambda segment, way: True)
    for _ in range(400):
        before = [car.path[0] for car in traffic.cars]
        traffic.advance(0.1, FAR, lane, 0.0)
        for old, car in zip(before, traffic.cars, strict=True):
            if car.path[0] != old:
                assert GRAPH.segments[old].junction != NO_JUNCTION, "a car left a junction, and none entered one"
    assert all(car.speed_mps < 0.05 for car in traffic.cars)

    traffic, lane = begun_without_ego(1)
    (car,) = traffic.cars
    for _ in range(50):
        traffic.advance(0.1, FAR, lane, 0.0)
    line = traffic._map.line(car.path[1])
    # The pedestrian stands 2.5 m beside the lane's centre line.
    walker = line.pose_at(0.5 * line.length_m).beside(2.5)[:2]
    for _ in range(300):
        traffic.advance(0.1, FAR, lane, 0.0, [walker])
    assert car.speed_mps < 0.05
    assert math.dist(traffic.boxes[0][:2], walker) > 2.2
    for _ in range(50):
        traffic.advance(0.1, FAR, lane, 0.0)
    assert car.speed_mps > 1.0


def test_the_seed_determines_everything_and_a_saved_state_continues():
    path = path_of()
    runs = []
    for seed in (3, 3, 4):
        traffic, lane, ego = begun(10, path, seed)
        start = list(traffic.boxes)
        for _ in range(200):
            traffic.advance(0.1, ego, lane, 0.0)
        runs.append((start, list(traffic.boxes), traffic.paints))
    assert runs[0] == runs[1]
    assert runs[0][0] != runs[2][0]
    state = json.loads(json.dumps(traffic.get_state()))
    other = RouteTraffic(TrafficSettings(n_cars=10), BODY)
    other.enter(GRAPH, path)
    other.set_state(state, lane, 0.0, 4)
    assert (other.boxes, other.paints, other.outlook) == (traffic.boxes, traffic.paints, traffic.outlook)
    for _ in range(300):
        for each in (traffic, other):
            each.advance(0.1, ego, lane, 0.0)
        assert other.boxes == traffic.boxes
        assert other.outlook == traffic.outlook


def test_zero_cars_give_nothing_ahead_and_no_collision():
    path = path_of()
    traffic, lane, ego = begun(0, path)
    traffic.advance(0.1, ego, lane, 0.0)
    assert traffic.cars == traffic.boxes == traffic.paints == []
    assert not touches(traffic, ego)
    assert traffic.outlook == (math.inf, 0.0, math.inf)


def test_lane_choices_at_junctions_resume_from_the_number_of_earlier_choices():
    first = SeededChoice([5, 8, 0])
    ways = [first((10, 20, 30)) for _ in range(30)]
    assert set(ways) == {10, 20, 30}
    again = SeededChoice([5, 8, 0], n_chosen=12)
    assert [again((10, 20, 30)) for _ in range(18)] == ways[12:]
    assert again((7,)) == 7
    assert again.n_chosen == 30, "where there is one way, nothing is drawn"
