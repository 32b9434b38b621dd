import numpy as np
import pytest

from sb3_visual_td3.envs.lite.lite_env import LiteDrivingEnv
from sb3_visual_td3.envs.lite.maps import MAP_GROUPS

from .drivers import drive, full_brake, pure_pursuit

NAMES = [name for group in MAP_GROUPS.values() for name in group]


@pytest.mark.parametrize("name", NAMES)
def test_a_pure_pursuit_driver_keeps_its_lane_on_every_map(name):
    episode = drive(LiteDrivingEnv(maps=[name]), pure_pursuit, seed=0)
    assert episode.n_steps == 500
    assert episode.last_info["is_success"] is True
    assert episode.last_info["collisions"] == episode.last_info["lane_invasions"] == 0
    assert episode.max_abs_offset_m < 0.8
    assert episode.last_info["speed_mps"] == pytest.approx(30 / 3.6, rel=0.01)
    assert episode.mean_speed_mps > 0.95 * 30 / 3.6
    assert episode.last_info["distance_m"] > 395.0
    assert 450.0 < episode.episode_return <= 500.0


def test_a_driver_who_only_brakes_earns_nothing_and_goes_nowhere():
    env = LiteDrivingEnv()
    episodes = [drive(env, full_brake, seed) for seed in range(20)]
    assert max(episode.episode_return for episode in episodes) < 0.0
    assert max(episode.last_info["distance_m"] for episode in episodes) < 30.0
    assert {episode.last_info["termination"] for episode in episodes} == {"idle"}


def test_random_actions_get_nowhere_near_a_driver(record_property):
    env = LiteDrivingEnv()
    rng = np.random.default_rng(0)

    def random_driver(env, info):
        return rng.uniform(-1.0, 1.0, 2).astype(np.float32)

    episodes = [drive(env, random_driver, seed) for seed in range(20)]
    distance_m = float(np.mean([episode.last_info["distance_m"] for episode in episodes]))
    record_property("mean_distance_m", distance_m)
    assert 0.0 < distance_m < 40.0
    assert max(episode.episode_return for episode in episodes) < 0.2 * 450.0
    assert not any(episode.last_info["is_success"] for episode in episodes)


def test_driving_too_fast_earns_less_than_the_target_speed():
    # The driver holds 8.3 m/s in both: 39 % too fast in the one, as asked in the other.
    too_fast = drive(LiteDrivingEnv(maps=["train_0"], target_speed_mps=6.0), pure_pursuit, seed=0)
    as_asked = drive(LiteDrivingEnv(maps=["train_0"]), pure_pursuit, seed=0)
    assert too_fast.episode_return < 0.8 * as_asked.episode_return
