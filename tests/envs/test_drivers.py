from functools import cache

import numpy as np
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_visual_td3.callbacks.drives import full_brake_driver, random_driver
from sb3_visual_td3.envs.drivers import PurePursuitDriver
from sb3_visual_td3.envs.lite.lite_env import LiteDrivingEnv
from sb3_visual_td3.envs.road.maps import MAP_GROUPS
from tests.envs.episodes import drive_episode, hold

NAMES = [name for group in MAP_GROUPS.values() for name in group]
TARGET_MPS = 30 / 3.6
N_STEPS, STEP_S = 500, 0.1


def blind(driver_of, *arguments):
    """Return a function that takes an environment, ignores it, and returns an action of the driver."""
    driver = driver_of(DummyVecEnv([LiteDrivingEnv]), *arguments)
    return lambda _: driver(None, None)[0]


RANDOM, FULL_BRAKE = blind(random_driver, 0), blind(full_brake_driver)
FULL_THROTTLE, STRAIGHT_THROTTLE = hold(0.0, 1.0), hold(0.0, 0.7)  # with 0.7 the car reaches about 30 km/h


def completes(episode):
    """Return whether the car drove at least 90 % of the distance that the target speed gives in a full episode."""
    return episode.distance_m >= 0.9 * TARGET_MPS * N_STEPS * STEP_S


@cache
def mean_return_of_pure_pursuit():
    env = LiteDrivingEnv()
    return float(np.mean([drive_episode(env, PurePursuitDriver().act, seed).episode_return for seed in range(10)]))


def assert_completes(name, n_episodes):
    env = LiteDrivingEnv(maps=[name])
    episodes = [drive_episode(env, PurePursuitDriver().act, seed) for seed in range(n_episodes)]
    assert np.mean([completes(episode) for episode in episodes]) >= 0.99
    for episode in filter(completes, episodes):
        assert episode.mean_speed_mps == pytest.approx(TARGET_MPS, rel=0.1)
        assert episode.last_info["is_success"] is True


@pytest.mark.parametrize("name", NAMES)
def test_pure_pursuit_completes_its_episodes_on_every_map(name):
    assert_completes(name, 10)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_pure_pursuit_completes_fifty_episodes_on_every_map(name):
    assert_completes(name, 50)


@pytest.mark.parametrize("name", NAMES)
def test_pure_pursuit_keeps_its_lane_and_earns_nearly_the_maximum(name):
    episode = drive_episode(LiteDrivingEnv(maps=[name]), PurePursuitDriver().act, seed=0)
    assert episode.last_info["collisions"] == episode.last_info["lane_invasions"] == 0
    assert episode.max_abs_offset_m < 0.8
    assert episode.last_info["speed_mps"] == pytest.approx(TARGET_MPS, rel=0.01)
    assert 450.0 < episode.episode_return <= 500.0


@pytest.mark.parametrize("driver", [STRAIGHT_THROTTLE, FULL_THROTTLE, RANDOM, FULL_BRAKE])
def test_a_driver_that_ignores_what_it_sees_completes_nothing(driver):
    env = LiteDrivingEnv()
    episodes = [drive_episode(env, driver, seed) for seed in range(30)]
    assert np.mean([completes(episode) for episode in episodes]) < 0.1
    assert not any(episode.last_info["is_success"] and episode.n_steps == N_STEPS for episode in episodes)


@pytest.mark.parametrize("idle_ending", ["terminated", "truncated"])
@pytest.mark.parametrize("driver", [FULL_BRAKE, FULL_THROTTLE])
def test_neither_braking_nor_speeding_pays(driver, idle_ending):
    env = LiteDrivingEnv(idle_ending=idle_ending)
    returns = [drive_episode(env, driver, seed).episode_return for seed in range(30)]
    assert np.mean(returns) < 0.1 * mean_return_of_pure_pursuit()


def test_a_driver_that_only_brakes_earns_nothing_and_goes_nowhere():
    env = LiteDrivingEnv()
    episodes = [drive_episode(env, FULL_BRAKE, seed) for seed in range(20)]
    assert max(episode.episode_return for episode in episodes) < 1.0, "pure pursuit earns more than 450"
    assert max(episode.distance_m for episode in episodes) < 30.0
    assert {episode.last_info["termination"] for episode in episodes} == {"idle"}


def test_driving_too_fast_earns_less_than_the_target_speed():
    class Hasty(PurePursuitDriver):
        def act(self, env):
            steer, _ = super().act(env)
            return np.array([steer, 1.0], np.float32)

    env = LiteDrivingEnv(maps=["train_0"])
    as_asked = drive_episode(env, PurePursuitDriver().act, seed=0)
    too_fast = drive_episode(env, Hasty().act, seed=0)
    assert too_fast.episode_return < 0.8 * as_asked.episode_return
