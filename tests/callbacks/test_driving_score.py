"""Test the driving score of leaderboard 2.1 and the infractions in the environments' ``info``."""

import math
from typing import get_args

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.env_util import make_vec_env

from sb3_visual_td3.callbacks.drives import drive_episodes, mean_of
from sb3_visual_td3.callbacks.driving_score import (
    INFRACTIONS,
    driving_score,
    infraction_penalty,
    infractions_of_step,
)
from sb3_visual_td3.envs.drivers import PurePursuitDriver
from sb3_visual_td3.envs.task import Termination


def test_the_score_equals_hand_computed_values_of_the_leaderboard_2_1_formula():
    # Two vehicles, a walker, the layout and a red light: 2 * 0.7 + 1.0 + 0.6 + 0.4 = 3.4.
    infractions = ["collision_vehicle", "collision_walker", "collision_vehicle", "collision_layout", "red_light"]
    assert infraction_penalty(infractions) == pytest.approx(1 / 4.4)
    assert driving_score(0.66, infractions) == pytest.approx(15.0)
    assert driving_score(1.0, []) == 100.0
    assert driving_score(0.5, ["red_light"]) == pytest.approx(50.0 / 1.4)


def test_what_ends_a_route_lowers_only_its_completion():
    assert driving_score(0.4, ["off_route", "timeout", "blocked", "lane_invasion"]) == pytest.approx(40.0)


@pytest.mark.parametrize("completion", [-0.1, 1.01, math.nan])
def test_completion_is_a_fraction(completion):
    with pytest.raises(ValueError, match=r"expected a fraction in \[0, 1\]"):
        driving_score(completion, [])


@pytest.mark.parametrize(
    ("info", "is_last", "expected"),
    [
        ({"termination": "", "lane_marks_crossed": []}, False, []),
        ({"termination": "", "lane_marks_crossed": ["solid", "broken"]}, False, ["lane_invasion", "lane_invasion"]),
        ({"termination": "", "red_light": 1, "red_lights": 3}, False, ["red_light"]),
        ({"termination": "", "red_light": 2, "red_lights": 3}, False, ["red_light", "red_light"]),
        ({"termination": "collision"}, True, ["collision_vehicle"]),
        ({"termination": "collision", "collision": "walker"}, True, ["collision_walker"]),
        ({"termination": "collision", "collision": "layout"}, True, ["collision_layout"]),
        ({"termination": "off_road"}, True, ["collision_layout"]),
        ({"termination": "off_route"}, True, ["off_route"]),
        ({"termination": "wrong_way"}, True, ["off_route"]),
        ({"termination": "idle"}, True, ["blocked"]),
        ({"termination": "timeout"}, True, ["timeout"]),
        ({"termination": ""}, True, ["timeout"]),
        ({"termination": "goal"}, True, []),
    ],
)
def test_the_info_of_a_step_gives_the_expected_infractions(info, is_last, expected):
    assert infractions_of_step(info, is_last) == expected


def test_only_a_route_with_a_goal_has_a_driving_score():
    """Only a route to a goal has a driving score; a closed course such as LiteDriving-v0 has none.

    Pure pursuit completes the route and scores 100. A driver that always steers right leaves the road. Its score is the
    completed percentage of the route, lowered by the penalty for leaving the road.
    """
    env = make_vec_env("LiteRoutes-v0", 1, env_kwargs={"maps": ["streets_0"], "observation": "camera"})
    world = env.envs[0].unwrapped
    driver = PurePursuitDriver()
    (good,) = drive_episodes(lambda *_: driver.act(world)[None], env, seed=1, options=[{"route": 3}])
    assert (good.route_completion, good.driving_score, good.success_rate) == (1.0, 100.0, 1.0)
    steer_right = np.array([[1.0, 0.5]], np.float32)
    (bad,) = drive_episodes(lambda *_: steer_right, env, seed=1, options=[{"route": 3}])
    assert bad.route_length_m == good.route_length_m, "the options choose the route"
    counts = {name: getattr(bad, name) for name in INFRACTIONS if name != "lane_invasion"}
    assert sum(counts.values()) == 1.0
    penalty = 1.6 if counts["collision_layout"] else 1.0
    assert bad.driving_score == pytest.approx(100.0 * bad.route_completion / penalty)
    assert mean_of([good, bad]).driving_score == pytest.approx(0.5 * (good.driving_score + bad.driving_score))
    env.close()

    closed = make_vec_env("LiteDriving-v0", 1)
    (drive,) = drive_episodes(lambda *_: steer_right, closed, seed=1)
    assert math.isnan(drive.driving_score)
    assert math.isnan(drive.red_light)
    closed.close()


def test_every_ending_of_the_task_is_an_infraction_or_the_goal():
    for ending in get_args(Termination):
        expected = 0 if ending == "goal" else 1
        assert len(infractions_of_step({"termination": ending}, is_last=True)) == expected, ending


def test_every_red_light_of_a_drive_is_counted_once():
    """Pure pursuit steers, but the vehicle never brakes, so it runs red lights.

    The infractions of the steps must add up to the counters in the ``info`` of the last step. The expected score is
    computed by hand from these counters.
    """
    env = gym.make("LiteRoutes-v0", maps=["streets_0"], route_turns=(0, 0), traffic_lights=True, observation="camera")
    driver = PurePursuitDriver()
    n_lights = 0
    for number in range(8):
        env.reset(seed=number, options={"route": number})
        found, is_over = [], False
        while not is_over:
            steer = driver.act(env.unwrapped)[0]
            _, _, terminated, truncated, info = env.step(np.array([steer, 0.5], np.float32))
            is_over = terminated or truncated
            found += infractions_of_step(info, is_over)
        assert info["termination"] == "goal"
        assert found.count("red_light") == info["red_lights"]
        assert found.count("lane_invasion") == info["lane_invasions"]
        assert driving_score(info["route_completion"], found) == pytest.approx(100 / (1 + 0.4 * info["red_lights"]))
        n_lights += info["red_lights"]
    assert n_lights > 0
    env.close()
