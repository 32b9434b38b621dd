"""Test the infractions and the driving score on routes with cars, pedestrians and traffic lights."""

import math

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.env_util import make_vec_env

import sb3_visual_td3  # noqa: F401  registers the environments
from sb3_visual_td3.callbacks.drives import drive_episodes
from sb3_visual_td3.envs.drivers import PurePursuitDriver
from sb3_visual_td3.envs.lite.lite_env import LiteRoutesEnv
from sb3_visual_td3.envs.road.collision import OrientedBox, boxes_overlap
from sb3_visual_td3.envs.road.lane_graph import NO_JUNCTION
from tests.towns import TOWNS, needs_carla, needs_towns

BUSY = {"n_cars": 8, "n_walkers": 4, "traffic_lights": True}


class Blind(PurePursuitDriver):
    """Drive as if there were no traffic lights, no pedestrians and no cars."""

    def act(self, env):
        state = env.vehicle._replace(stop_ahead_m=math.inf, vehicle_ahead_m=math.inf)
        return super().act(Blinkered(env, state))


class Blinkered:
    """Give a driver the settings and waypoints of ``env``, but ``state`` as the state of the ego vehicle."""

    def __init__(self, env, state):
        self.vehicle, self.settings, self.waypoints_m = state, env.settings, env.waypoints_m


class Recorder(gym.Wrapper):
    """Keep the infos of all episodes."""

    episodes = []  # noqa: RUF012  a class attribute, because make_vec_env wraps the instance

    def reset(self, **kwargs):
        observation, info = self.env.reset(**kwargs)
        Recorder.episodes.append([info])
        return observation, info

    def step(self, action):
        result = self.env.step(action)
        Recorder.episodes[-1].append(result[-1])
        return result


def record(drivers, n_steps, **kwargs):
    """Drive whole episodes with each driver in turn, until there are at least ``n_steps`` infos.

    :return: for each episode, its infos and its result as ``visual-td3 evaluate`` computes it
    """
    Recorder.episodes = []
    env = make_vec_env("LiteRoutes-v0", 1, env_kwargs=kwargs, wrapper_class=Recorder)
    world = env.envs[0].unwrapped
    found = []
    while sum(len(infos) for infos, _ in found) < n_steps:
        seed = len(found)
        driver = drivers[seed % len(drivers)]
        Recorder.episodes.clear()
        (drive,) = drive_episodes(lambda *_, driver=driver: driver.act(world)[None], env, seed)
        found.append((Recorder.episodes[0], drive))
    env.close()
    return found


def score_by_hand(infos):
    """Return the driving score of leaderboard 2.1: 100 * route completion / (1 + sum of penalties)."""
    penalty = 0.0
    for info in infos[1:]:
        penalty += 0.4 * info["red_light"]
        if info["termination"] == "collision" and info["collision"] == "vehicle":
            penalty += 0.7
        if info["termination"] == "collision" and info["collision"] == "walker":
            penalty += 1.0
        if info["termination"] == "off_road":
            penalty += 0.6
    return 100.0 * infos[-1]["route_completion"] / (1.0 + penalty)


def assert_counted_once(infos):
    """Check that each infraction is in the info of the step in which it happened, and in no other info."""
    assert [info["termination"] for info in infos[:-1]] == [""] * (len(infos) - 1)
    assert infos[-1]["termination"] != ""
    assert sum(info["red_light"] for info in infos[1:]) == infos[-1]["red_lights"]
    assert sum(len(info["lane_marks_crossed"]) for info in infos[1:]) == infos[-1]["lane_invasions"]
    assert [info["collisions"] for info in infos[:-1]] == [0] * (len(infos) - 1)
    is_accident = infos[-1]["termination"] in {"collision", "off_road"}
    assert infos[-1]["collisions"] == int(is_accident)
    assert all("collision" not in info for info in infos[:-1])
    assert ("collision" in infos[-1]) == (infos[-1]["termination"] == "collision")


def check_score_and_counts(episodes):
    for infos, drive in episodes:
        assert_counted_once(infos)
        assert drive.driving_score == pytest.approx(score_by_hand(infos), rel=1e-12)
        kind = infos[-1].get("collision", "")
        counts = (drive.red_light, drive.collision_vehicle, drive.collision_walker)
        assert counts == (infos[-1]["red_lights"], kind == "vehicle", kind == "walker")


def test_infractions_count_once_and_the_score_equals_the_formula_by_hand():
    busy = {**BUSY, "n_cars": 20, "n_walkers": 20, "route_length_m": (200.0, 300.0)}
    episodes = record([Blind()], 600, maps=["streets_0"], **busy)
    check_score_and_counts(episodes)
    assert sum(drive.red_light for _, drive in episodes) >= 1
    assert sum(drive.collision_vehicle for _, drive in episodes) >= 1
    assert sum(drive.collision_walker for _, drive in episodes) >= 1


@pytest.mark.slow
@pytest.mark.carla
@needs_carla
@needs_towns
def test_a_careful_driver_reaches_every_goal_with_score_100_in_busy_town01():
    town = str(TOWNS / "Town01.xodr")
    episodes = record([PurePursuitDriver(), Blind()], 10_000, maps=[town], **BUSY)
    check_score_and_counts(episodes)
    careful = episodes[::2]
    assert [infos[-1]["termination"] for infos, _ in careful] == ["goal"] * len(careful)
    assert [drive.driving_score for _, drive in careful] == [100.0] * len(careful)
    assert sum(drive.red_light for _, drive in episodes[1::2]) >= 2


def test_a_red_light_counts_in_the_step_in_which_the_centre_passes_its_line():
    env = LiteRoutesEnv(maps=["streets_0"], traffic_lights=True)
    n_red = 0
    for seed in range(4):
        env.reset(seed=seed)
        world = env._backend
        is_over = False
        while not is_over:
            before_m, colours = world._lane.along_m, dict(world._street._lights.colours)
            _, _, terminated, truncated, info = env.step(Blind().act(env))
            is_over = terminated or truncated
            passed = [stop for stop in world._street._stops if before_m < stop.along_m <= world._lane.along_m]
            assert info["red_light"] == sum(colours[stop.light] == "red" for stop in passed)
            n_red += info["red_light"]
    assert n_red >= 2


def test_a_collision_with_a_car_ends_the_episode_as_an_accident():
    env = LiteRoutesEnv(maps=["streets_0"], n_cars=20)
    for seed in range(20):
        env.reset(seed=seed)
        world, body = env._backend, env._backend.body
        is_over = False
        while not is_over:
            _, _, terminated, truncated, info = env.step(Blind().act(env))
            is_over = terminated or truncated
            vehicle = OrientedBox(*env.vehicle[:3], body.length_m, body.width_m)
            is_touching = any(boxes_overlap(vehicle, car) for car in world.cars)
            assert is_touching == (info["termination"] == "collision")
        if info["termination"] == "collision":
            break
    assert (terminated, info["collision"], info["collisions"]) == (True, "vehicle", 1)
    assert info["reward_terms"]["safety"] == -10.0, "the cost of an accident; a pedestrian would cost more"
    assert "red_light" not in info


def test_cars_are_seen_and_the_vehicle_waits_behind_them_for_longer_than_the_limit_for_idling():
    env = LiteRoutesEnv(maps=["streets_0"], n_cars=20, traffic_lights=True, route_length_m=(100.0, 200.0))
    driver = PurePursuitDriver()
    n_behind, n_seen = 0, 0
    env.reset(seed=6)
    is_over = False
    while not is_over:
        _, _, terminated, truncated, info = env.step(driver.act(env))
        is_over = terminated or truncated
        state = env.vehicle
        n_behind += state.speed_mps < 0.5 and state.vehicle_ahead_m < 10.0
        if state.vehicle_ahead_m < 12.0 and n_seen < 5:
            world = env._backend
            boxes, world._traffic.boxes = world._traffic.boxes, []
            without = world.camera_frame()
            world._traffic.boxes = boxes
            n_seen += bool((without != world.camera_frame()).any())
    assert info["termination"] == "goal"
    assert n_behind > 50
    assert n_seen == 5


def test_cars_stop_at_red_lights_on_routes():
    env = LiteRoutesEnv(maps=["streets_0"], n_cars=12, traffic_lights=True)
    env.reset(seed=1)
    world = env._backend
    graph, traffic, street = world._traffic._map.graph, world._traffic, world._street
    n_entered, n_stopped = 0, 0
    still = np.array([0.0, -1.0], np.float32)
    for _ in range(700):
        before = [(car.path[0], car.speed_mps, street.is_closed(car.path[0], car.path)) for car in traffic.cars]
        env.step(still)
        for car, (segment, speed_mps, is_red) in zip(traffic.cars, before, strict=True):
            if car.path[0] != segment and graph.segments[car.path[0]].junction != NO_JUNCTION:
                n_entered += 1
                # A car may enter at red only if it was too fast to stop when the light changed.
                assert not is_red or speed_mps > 2.0
            n_stopped += is_red and speed_mps < 0.1
    assert n_entered > 10
    assert n_stopped > 100


def test_the_same_seed_gives_the_same_episode_and_a_saved_one_continues_bit_for_bit():
    kwargs = {"maps": ["streets_0"], "observation": "camera+state+command", **BUSY}
    one, two, three = (LiteRoutesEnv(**kwargs) for _ in range(3))
    driver = PurePursuitDriver()
    for env in (one, two):
        env.reset(seed=7)
    for _ in range(200):
        action = driver.act(one)
        first, second = one.step(action), two.step(action)
        assert first[1:] == second[1:]
    np.testing.assert_array_equal(first[0]["camera"], second[0]["camera"])
    three.set_state(one.get_state())
    assert three.vehicle == one.vehicle
    for _ in range(200):
        action = driver.act(one)
        first, second = one.step(action), three.step(action)
        assert first[1:] == second[1:]
        np.testing.assert_array_equal(first[0]["camera"], second[0]["camera"])
    with pytest.raises(ValueError, match="saved with n_cars=8, but this env has n_cars=0"):
        LiteRoutesEnv(**{**kwargs, "n_cars": 0}).set_state(one.get_state())
    with pytest.raises(ValueError, match="saved with n_cars=0, but this env has n_cars=8"):
        one.set_state(reset(LiteRoutesEnv(**{**kwargs, "n_cars": 0})).get_state())


def reset(env):
    env.reset(seed=0)
    return env
