"""Fixtures of this folder."""

import pytest

from sb3_visual_td3.envs.lite.lite_env import LiteDrivingEnv


@pytest.fixture
def env():
    made = LiteDrivingEnv(maps=["train_0"])
    yield made
    made.close()
