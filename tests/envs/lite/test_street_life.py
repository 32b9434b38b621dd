"""Test traffic lights and pedestrians in LiteDriving-v0 and LiteRoutes-v0."""

import dataclasses
import itertools
import math

import gymnasium as gym
import networkx as nx
import numpy as np
import pytest

import sb3_visual_td3  # noqa: F401  registers the environments
from sb3_visual_td3.envs.drivers import PurePursuitDriver
from sb3_visual_td3.envs.lite import figure_painter
from sb3_visual_td3.envs.lite.car_painter import Lens
from sb3_visual_td3.envs.lite.figure_painter import Figures, Person, Post, paint_scene
from sb3_visual_td3.envs.lite.lite_env import LiteDrivingEnv, LiteRoutesEnv
from sb3_visual_td3.envs.road.collision import OrientedBox
from sb3_visual_td3.envs.road.lane_graph import LaneGraph
from sb3_visual_td3.envs.road.light_cycle import GREEN_S, RED_S, YELLOW_S
from sb3_visual_td3.envs.road.maps import load_map
from sb3_visual_td3.envs.road.opendrive_writing import to_opendrive
from sb3_visual_td3.envs.road.road_signs import RoadSigns
from sb3_visual_td3.envs.road.route_maps import load_route_map
from sb3_visual_td3.envs.road.route_path import build_path
from sb3_visual_td3.envs.road.route_planning import RoutePlace, RoutePlan, route_through
from sb3_visual_td3.envs.road.sign_reading import place_lights
from sb3_visual_td3.envs.road.street_life import LIGHTS_SEED, StreetLife
from tests.towns import needs_carla


class Blind(PurePursuitDriver):
    """Drive as if there were no traffic lights and no pedestrians."""

    def act(self, env):
        world = env._backend
        stop_ahead_m, world._street.stop_ahead_m = world._street.stop_ahead_m, lambda _: math.inf
        action = super().act(env)
        world._street.stop_ahead_m = stop_ahead_m
        return action


def drive(env, driver, seed, n_steps=5_000):
    """Return all infos of an episode."""
    env.reset(seed=seed)
    infos = []
    for _ in range(n_steps):
        _, _, terminated, truncated, info = env.step(driver.act(env.unwrapped))
        infos.append(info)
        if terminated or truncated:
            break
    return infos


def test_a_driver_who_stops_reaches_the_goal_and_waits_on_the_way():
    env = gym.make("LiteRoutes-v0", traffic_lights=True, n_walkers=6)
    n_waiting = 0
    for seed in range(4):
        infos = drive(env, PurePursuitDriver(), seed)
        assert infos[-1]["termination"] == "goal"
        assert infos[-1]["red_lights"] == 0
        n_waiting += sum(info["speed_mps"] < 0.1 for info in infos)
    assert n_waiting > 100, "it has waited for longer than the limit for idling"


def test_each_red_light_violation_is_counted_once_and_costs_five():
    env = gym.make("LiteRoutes-v0", traffic_lights=True)
    n_red = 0
    for seed in range(6):
        infos = drive(env, Blind(), seed)
        assert infos[-1]["termination"] == "goal"
        for before, after in itertools.pairwise(infos):
            assert after["red_lights"] - before["red_lights"] == after["red_light"]
            marks = len(after["lane_marks_crossed"])
            assert after["reward_terms"]["safety"] == pytest.approx(-5.0 * after["red_light"] - marks)
        assert sum(info["red_light"] for info in infos) == infos[-1]["red_lights"]
        n_red += infos[-1]["red_lights"]
    assert n_red >= 3


def test_a_route_that_passes_a_stop_line_twice_counts_both_red_lights():
    graph = load_route_map("streets_0").graph
    segment = place_lights(graph, LIGHTS_SEED).signals[0].stops[0].segment
    beyond = graph.segments[graph.segments[segment].successors[0]].successors[0]
    before_m, beyond_m = (graph.segments[each].points_m for each in (segment, beyond))
    before, after = (
        RoutePlace(*points_m[len(points_m) // 2], graph.segments[each].headings_rad[0])
        for each, points_m in ((segment, before_m), (beyond, beyond_m))
    )
    path = build_path(graph, route_through(graph, [before, after, before, after], "a loop"))
    street = StreetLife(traffic_lights=True)
    street.enter(graph, path)
    # The light of this stop line is always red, and all others are green.
    for light in street._lights.colours:
        street.show(light, "red" if light == 0 else "green")
    nowhere = OrientedBox(1e6, 0.0, 0.0, 1.0, 1.0)
    lane = path.locate(*path.points_m[0], 0)
    passed_m = []
    for index, (x_m, y_m) in enumerate(path.points_m):
        n_red_lights, following = street.n_red_lights, path.locate(x_m, y_m, index)
        street.advance(0.0, lane, following, nowhere, 0.0)
        lane = following
        if street.n_red_lights > n_red_lights:
            passed_m.append((x_m, y_m))
    assert street.n_red_lights == 2
    assert math.dist(*passed_m) < 1.0, "both times at the same place"


def red_lights_on(segments, signs, scene):
    """Return how many red lights a vehicle counts on a route along these lanes if all lights are red."""
    graph = LaneGraph(scene.graph.segments, scene.graph.rise_m, signs)
    path = build_path(graph, RoutePlan(segments, 0.0, graph.segments[segments[-1]].length_m))
    street = StreetLife(traffic_lights=True)
    street.enter(graph, path)
    for light in street._lights.colours:
        street.show(light, "red")
    nowhere = OrientedBox(1e6, 0.0, 0.0, 1.0, 1.0)
    lane = path.locate(*path.points_m[0], 0)
    for index, (x_m, y_m) in enumerate(path.points_m[: round(path.length_m / path.spacing_m)]):
        following = path.locate(x_m, y_m, index)
        street.advance(0.0, lane, following, nowhere, 0.0)
        lane = following
    return street.n_red_lights


def test_an_arrow_counts_only_for_vehicles_that_follow_it_and_two_heads_count_once():
    scene = load_route_map("streets_0")
    segments = scene.graph.segments
    light = place_lights(scene.graph, LIGHTS_SEED).signals[0]
    (stop,) = light.stops
    ways = [way.segments[0] for way in scene.graph.junction_ways(stop.segment)]
    assert len(ways) > 1
    other = light._replace(id="other", stops=(stop._replace(along_m=stop.along_m - 3.0),))
    for taken in ways:
        route = (stop.segment, taken, segments[taken].successors[0])
        assert red_lights_on(route, RoadSigns((light,)), scene) == 1
        assert red_lights_on(route, RoadSigns((light, other)), scene) == 1, "two heads of one light"
        for way in ways:
            arrow = light._replace(stops=(stop._replace(ways=(way,)),))
            assert red_lights_on(route, RoadSigns((arrow,)), scene) == (way == taken)


def test_a_light_that_holds_up_one_way_counts_once_per_passage_by_this_way():
    scene = load_route_map("streets_0")
    segments = scene.graph.segments
    light = place_lights(scene.graph, LIGHTS_SEED).signals[0]
    (stop,) = light.stops
    first, second = (way.segments[0] for way in scene.graph.junction_ways(stop.segment)[:2])
    back = nx.shortest_path(scene.graph.digraph, segments[first].successors[0], stop.segment, weight="weight")
    route = (stop.segment, first, *back, second, segments[second].successors[0])
    assert red_lights_on(route, RoadSigns((light,)), scene) == 2
    for way in (first, second):
        arrow = light._replace(stops=(stop._replace(ways=(way,)),))
        assert red_lights_on(route, RoadSigns((arrow,)), scene) == 1


def test_a_stop_line_at_the_beginning_of_a_lap_is_one_stop():
    env = reset(LiteDrivingEnv(maps=["junction_0"], traffic_lights=True))
    track, street = env._backend._track, env._backend._street
    n_stops = len(street._stops)
    assert n_stops > 0
    for stop in street._stops:
        first = round(stop.along_m / track.spacing_m)
        turned = dataclasses.replace(track, points_m=np.roll(track.points_m, -first, axis=0))
        other = StreetLife(traffic_lights=True)
        other.enter(street._graph, turned)
        assert len(other._stops) == n_stops


def test_each_junction_is_four_seconds_ahead_of_the_one_before():
    env = reset(LiteRoutesEnv(maps=["streets_0"], traffic_lights=True))
    begins_s = {"green": 0.0, "yellow": GREEN_S, "red": GREEN_S + YELLOW_S}
    cycles = env.get_state()["world"]["street"]["lights"]["cycles"]
    # Time since the present stage has turned green; each stage takes 15 s.
    times_s = np.array([begins_s[colour] + elapsed_s for _, colour, elapsed_s in cycles])
    assert len(times_s) > 2
    ahead_s = np.diff(times_s) % (GREEN_S + YELLOW_S + RED_S)
    np.testing.assert_allclose(ahead_s, 4.0)


def test_a_blind_driver_hits_a_pedestrian():
    env = gym.make("LiteRoutes-v0", n_walkers=30)
    endings = []
    for seed in range(10):
        infos = drive(env, Blind(), seed)
        endings.append((infos[-1]["termination"], infos[-1].get("collision")))
        assert "red_light" not in infos[-1]
        if infos[-1]["termination"] == "collision":
            assert infos[-1]["collisions"] == 1
            assert infos[-1]["reward_terms"]["safety"] <= -20.0, "the accident and the pedestrian"
    assert ("collision", "walker") in endings
    assert set(endings) <= {("collision", "walker"), ("goal", None)}


def test_standing_without_a_reason_is_idling_and_waiting_is_not():
    env = LiteRoutesEnv(traffic_lights=True)
    stopping = np.array([0.0, -1.0], np.float32)
    driver = PurePursuitDriver()
    waited, idled = False, False
    for seed in range(12):
        env.reset(seed=seed)
        for _ in range(400):
            _, _, terminated, truncated, info = env.step(driver.act(env))
            if terminated or truncated or (info["speed_mps"] < 0.1 and env.vehicle.stop_ahead_m < 10.0):
                break
        if terminated or truncated:
            continue
        n_steps = 0
        while env.vehicle.stop_ahead_m < 10.0 and n_steps < 60:
            _, _, terminated, truncated, info = env.step(stopping)
            n_steps += 1
            assert not truncated
            assert not terminated
        waited = waited or n_steps == 60
        for _ in range(700):
            if env.vehicle.stop_ahead_m > 20.0:
                _, _, terminated, truncated, info = env.step(stopping)
                if truncated:
                    idled = idled or info["termination"] == "idle"
                    break
            else:
                env.step(stopping)
        if waited and idled:
            break
    assert waited, "60 steps at a red light, 10 more than the limit for idling"
    assert idled, "after the light has turned green, standing still ends the episode"


@pytest.mark.parametrize("kind", Figures._fields)
def test_lights_stop_lines_and_pedestrians_each_appear_in_the_camera_observation(kind, monkeypatch):
    env = LiteRoutesEnv(grayscale=False, traffic_lights=True, n_walkers=10)
    world = env._backend
    n_different = 0
    for seed in range(6):
        observation, _ = env.reset(seed=seed)
        figures = world._figures()
        assert figures.posts
        assert figures.stop_bars
        assert len(figures.people) == 10
        shown = world.camera_frame()
        np.testing.assert_array_equal(observation["camera"][-3:], shown)
        without = figures._replace(**{kind: ()})
        with monkeypatch.context() as patch:
            patch.setattr(world, "_figures", lambda without=without: without)
            n_different += bool((shown != world.camera_frame()).any())
    assert n_different >= 3


def test_lamps_are_seen_from_the_front_only_and_shine():
    lens = LiteDrivingEnv(grayscale=False)._backend._view._camera.lens
    pictures = {}
    for name, post in (
        ("red", Post(15.0, -2.0, 0.0, "red")),
        ("green", Post(15.0, -2.0, 0.0, "green")),
        ("back red", Post(15.0, -2.0, np.pi, "red")),
        ("back green", Post(15.0, -2.0, np.pi, "green")),
    ):
        frame = np.full((84, 84, 3), 100, np.uint8)
        paint_scene(frame, [], [], Figures([post]), (0.0, 0.0, 0.0), lens)
        pictures[name] = frame
    np.testing.assert_array_equal(pictures["back red"], pictures["back green"])
    assert pictures["red"][..., 0].max() > 200
    assert pictures["green"][..., 0].max() < 150
    assert pictures["green"][..., 1].max() > 190


@pytest.mark.parametrize("side", [24, 84, 400])
def test_skipping_stop_lines_out_of_view_does_not_change_the_picture(side, monkeypatch):
    """The painter skips a stop line that is out of view, which must not change any pixel."""
    lens = Lens(side, side, 2.0, 1.5)
    rng = np.random.default_rng(side)
    n_seen = 0
    for _ in range(400):
        middle, across = rng.uniform(-30.0, 30.0, 2), rng.normal(0.0, 1.5, 2)
        figures = Figures(stop_bars=[np.array([middle + across, middle - across])])
        pose = (0.0, 0.0, rng.uniform(-3.0, 3.0))
        pictures = []
        for is_tested in (True, False):
            picture = np.zeros((side, side, 3), np.uint8)
            with monkeypatch.context() as patch:
                if not is_tested:
                    patch.setattr(figure_painter._Painter, "_is_out_of_view", lambda *_: False)
                paint_scene(picture, [], [], figures, pose, lens)
            pictures.append(picture)
        np.testing.assert_array_equal(*pictures)
        n_seen += bool(pictures[1].any())
    assert 50 < n_seen < 300


def test_the_nearer_thing_covers_the_farther_one():
    lens = LiteDrivingEnv(grayscale=False)._backend._view._camera.lens
    car = OrientedBox(12.0, 0.0, 0.0, 4.4, 1.8)

    def drawn(*people):
        frame = np.full((84, 84, 3), 100, np.uint8)
        paint_scene(frame, [car], [2], Figures(people=people), (0.0, 0.0, 0.0), lens)
        return frame

    # Only the head of a person behind the car is visible, above the roof.
    behind, before = (drawn(Person(distance_m, 0.0)) != drawn() for distance_m in (20.0, 8.0))
    assert behind[43:].sum() == 0
    assert before[43:].sum() > 50


def test_a_state_continues_bit_for_bit():
    kwargs = {"traffic_lights": True, "n_walkers": 8, "observation": "camera+state+command"}
    one, two = LiteRoutesEnv(**kwargs), LiteRoutesEnv(**kwargs)
    driver = PurePursuitDriver()
    one.reset(seed=3)
    for _ in range(150):
        one.step(driver.act(one))
    two.set_state(one.get_state())
    for _ in range(150):
        action = driver.act(one)
        first, second = one.step(action), two.step(action)
        for name in first[0]:
            np.testing.assert_array_equal(first[0][name], second[0][name])
        assert first[1:] == second[1:]
    with pytest.raises(ValueError, match=r"saved with traffic lights .* traffic_lights=False"):
        LiteRoutesEnv(observation="camera+state+command").set_state(one.get_state())
    with pytest.raises(ValueError, match=r"saved without traffic lights .* traffic_lights=True"):
        two.set_state(LiteRoutesEnv.get_state(reset(LiteRoutesEnv(observation="camera+state+command"))))


@pytest.mark.carla
@needs_carla
@pytest.mark.parametrize("route", ["loop", "random"])
def test_a_map_file_has_only_its_own_lights(tmp_path, route):
    network_map = load_map("streets_0")
    lanes = load_route_map("streets_0").graph
    signs = place_lights(lanes, LIGHTS_SEED)
    texts = {"with.xodr": to_opendrive(network_map, signs, lanes.segments), "without.xodr": to_opendrive(network_map)}
    n_lights = []
    for name, text in texts.items():
        file = tmp_path / name
        file.write_text(text)
        env = reset(LiteDrivingEnv(maps=[str(file)], route=route, traffic_lights=True))
        n_lights.append(len(env._backend._street.posted_lights()))
    assert n_lights == [len(signs.signals), 0]


def reset(env):
    env.reset(seed=0)
    return env


def test_the_same_seed_gives_the_same_episode():
    traces = []
    for _ in range(2):
        env = LiteDrivingEnv(maps=["junction_0"], traffic_lights=True, n_walkers=3, n_cars=4)
        infos = drive(env, PurePursuitDriver(), 5, 300)
        traces.append([(info["distance_m"], info["reward_terms"]["safety"], info["red_lights"]) for info in infos])
    assert traces[0] == traces[1]


def test_other_cars_stop_at_red_lights_on_the_loop_route():
    env = LiteDrivingEnv(maps=["junction_0"], traffic_lights=True, n_cars=6)
    env.reset(seed=1)
    world = env._backend
    street, traffic = world._street, world._traffic
    n_stopped = 0
    for _ in range(600):
        before = [(car.lane, car.along_m) for car in traffic.cars]
        closed = {index for index, lateral_m in street.obstacles() if lateral_m == 0.0}
        world._advance_traffic(2)
        street.advance(0.1, world._lane, world._lane, OrientedBox(1e6, 0.0, 0.0, 1.0, 1.0), 0.0)
        for (lane, along_m), car in zip(before, traffic.cars, strict=True):
            for index in closed:
                stop_m = traffic._lines[0].along_at(index)
                if lane == 0:
                    # A car that can still brake before a closed stop line does not pass the line.
                    passed = along_m < stop_m - 8.0 and car.along_m > stop_m
                    assert not passed
                    n_stopped += car.speed_mps < 0.1 and 0.0 < stop_m - car.along_m < 12.0
    assert n_stopped > 20


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"n_walkers": 51}, "n_walkers=51"),
        ({"n_walkers": -1}, "n_walkers=-1"),
        ({"traffic_lights": 2}, "traffic_lights=2"),
    ],
)
def test_wrong_arguments_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        LiteDrivingEnv(**kwargs)
