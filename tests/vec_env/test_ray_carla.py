"""Tests that each actor starts its own CARLA emulator, and that the emulator ends with the actor."""

import os
import signal
import time
from functools import partial

import gymnasium as gym
import numpy as np
import pytest

from sb3_visual_td3 import VisualTD3
from tests.envs.carla.conftest import EMULATOR

pytestmark = [pytest.mark.ray, pytest.mark.carla]
pytest.importorskip("carla", reason="carla's client is not installed")


def make_drive(port):
    from sb3_visual_td3.envs import register_envs

    register_envs()
    return gym.make("CarlaDriving-v0", command=EMULATOR, port=port, maps=["train_0"], timeout_s=60.0)


def emulators(port):
    """Return the command lines of the emulators on the ports ``port`` to ``port + 99``."""
    psutil = pytest.importorskip("psutil")
    words = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    found = [line for line in words if "sb3_visual_td3.envs.carla_emulator" in line and "watchdog.py" not in str(line)]
    return [line for line in found if line[-1].isdecimal() and port <= int(line[-1]) < port + 100]


def test_a_dead_actors_simulator_ends_and_the_next_actor_starts_its_own(make_vec):
    port = 23_400
    env = make_vec([partial(make_drive, port)] * 2)
    model = VisualTD3("CnnPolicy", env, buffer_size=400, learning_starts=20, batch_size=8, train_freq=4, seed=0)

    def kill_one(*_):
        if model.num_timesteps == 40:
            addresses = env.get_attr("server_address")
            assert len(set(addresses)) == 2
            assert len(emulators(port)) == 2
            os.kill(env.places[1][1], signal.SIGKILL)
        return True

    model.learn(80, callback=kill_one)
    assert env.n_rebuilds == 1
    assert len(emulators(port)) == 2
    assert model.replay_buffer.pos == 40
    assert (np.abs(model.replay_buffer.rewards[:40]) > 0).all()
    env.close()
    end = time.monotonic() + 300
    while emulators(port) and time.monotonic() < end:
        time.sleep(0.2)
    assert emulators(port) == []
