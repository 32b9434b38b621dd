import sys

import gymnasium as gym
import pytest

import sb3_visual_td3  # noqa: F401  registers the environments

EMULATOR = f"{sys.executable} -m sb3_visual_td3.envs.carla_emulator --port {{port}}"


@pytest.fixture
def emulator():
    """Run an emulator on its own port."""
    from sb3_visual_td3.envs.carla_emulator.process import EmulatorProcess

    with EmulatorProcess("train_0") as process:
        yield process


@pytest.fixture
def make_env(emulator):
    """Return a function that creates CarlaDriving-v0 on the emulator and closes it after the test."""
    made = []

    def make(**kwargs):
        env = gym.make("CarlaDriving-v0", **{"port": emulator.port, "timeout_s": 60.0, **kwargs})
        made.append(env)
        return env

    yield make
    for env in made:
        env.close()
