"""Models for callbacks to look at."""

import gymnasium as gym
import pytest
from stable_baselines3.common.monitor import Monitor


@pytest.fixture
def lite_model(make_model, tmp_path):
    """Return a model that makes no gradient update, on LiteDriving-v0 with episodes of 30 steps."""
    env = Monitor(gym.make("LiteDriving-v0", max_episode_steps=30))
    return make_model(env=env, learning_starts=10_000, tensorboard_log=str(tmp_path / "tb"))
