"""DrivingMetricsCallback on LiteDriving-v0 and on an environment of the user's own."""

import numpy as np
import pytest
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor

from sb3_visual_td3 import DrivingMetricsCallback
from sb3_visual_td3.common import tags
from tests.callbacks.event_files import scalars_in
from tests.image_env import ImageEnv


def test_episodes_are_counted_and_the_reward_is_the_sum_of_its_terms(lite_model, tmp_path):
    lite_model.learn(100, callback=DrivingMetricsCallback(log_freq=10))
    scalars = scalars_in(tmp_path)
    lengths = scalars[tags.EPISODE_LENGTH]
    assert [episode for episode, _ in lengths] == list(range(len(lengths)))
    assert 90 - 30 < sum(length for _, length in lengths) <= 100
    assert [step for step, _ in scalars[tags.PROGRESS_SPEED]] == list(range(10, 101, 10))
    # Means over ten steps each, so ten times their sum is all the reward there was.
    total = 10 * sum(value for term in tags.REWARD_TERMS for _, value in scalars[tags.REWARD_TERM[term]])
    rewards = lite_model.replay_buffer.rewards[:100]
    assert total == pytest.approx(rewards.sum(), rel=1e-4)
    assert set(scalars[tags.PROGRESS_BUFFER_SIZE]) >= {(100, 99.0)}


class LastInfos(BaseCallback):
    """Keeps what info says when an episode ends."""

    def __init__(self):
        super().__init__()
        self.infos = []

    def _on_step(self):
        self.infos += [info for info in self.locals["infos"] if "episode" in info]
        return True


def test_each_episode_logs_the_info_of_its_last_step(lite_model, tmp_path):
    last = LastInfos()
    lite_model.learn(100, callback=[DrivingMetricsCallback(), last])
    scalars = scalars_in(tmp_path)
    assert len(last.infos) >= 3
    for tag, key in {
        tags.EPISODE_COLLISIONS: "collisions",
        tags.EPISODE_LANE_INVASIONS: "lane_invasions",
        tags.EPISODE_ROUTE_COMPLETION: "route_completion",
        tags.EPISODE_SUCCESS: "is_success",
    }.items():
        expected = [(episode, pytest.approx(float(info[key]))) for episode, info in enumerate(last.infos)]
        assert scalars[tag] == expected, tag
    assert all(0 < part < 1 for _, part in scalars[tags.EPISODE_ROUTE_COMPLETION])


class TermsEnv(ImageEnv):
    """Add reward terms of a user's environment to ``info``.

    The term "safety" has the name of a built-in term, and the term "bonus" is in five steps only. After 60 steps,
    ``info`` holds no reward terms.
    """

    n_total = 0

    def step(self, action):
        observation, _, terminated, truncated, info = super().step(action)
        terms = {"comfort": -0.5, "my own (m)": 2.0, "safety": 0.25}
        self.n_total += 1
        if 20 < self.n_total <= 25:
            terms["bonus"] = np.float32(8.0)
        if self.n_total > 60:
            return observation, 0.0, terminated, truncated, info
        return observation, sum(terms.values()), terminated, truncated, {**info, "reward_terms": terms}


def test_reward_terms_of_a_users_environment_are_logged_under_their_names(make_model, tmp_path):
    model = make_model(env=Monitor(TermsEnv()), learning_starts=10_000, tensorboard_log=str(tmp_path))
    model.learn(80, callback=DrivingMetricsCallback(log_freq=20))
    scalars = scalars_in(tmp_path)
    terms = {tag: points for tag, points in scalars.items() if tag.startswith("reward/")}
    assert terms == {
        "reward/comfort": [(20, -0.5), (40, -0.5), (60, -0.5)],
        "reward/my own (m)": [(20, 2.0), (40, 2.0), (60, 2.0)],
        "reward/safety": [(20, 0.25), (40, 0.25), (60, 0.25)],
        "reward/bonus": [(40, 2.0), (60, 0.0)],
    }
    assert tags.EPISODE_REWARD in scalars
    for untold in (tags.EPISODE_ROUTE_COMPLETION, tags.EPISODE_SUCCESS, tags.EPISODE_COLLISIONS, tags.PROGRESS_SPEED):
        assert untold not in scalars
