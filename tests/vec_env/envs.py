"""Small environments that another process can create."""

import os
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sb3_visual_td3.envs import register_envs


def make_drive():
    """Register and create LiteDriving-v0."""
    from stable_baselines3.common.monitor import Monitor  # imports torch, which the other environments do not need

    register_envs()
    return Monitor(gym.make("LiteDriving-v0"))


class SpaceEnv(gym.Env):
    """Observations and actions have the same space; the seed determines observations and rewards."""

    def __init__(self, space, render_mode="rgb_array", n_steps=4):
        self.observation_space = self.action_space = space
        self.render_mode = render_mode
        self.n_steps = n_steps
        self.steps_made = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.steps_made = 0
        return self.observation_space.sample(), {"seed": seed, "options": options}

    def step(self, action):
        self.steps_made += 1
        over = self.steps_made >= self.n_steps
        return self.observation_space.sample(), float(self.np_random.random()), over, over, {"log": np.zeros(2)}

    def render(self):
        return np.full((4, 4, 3), self.steps_made, dtype=np.uint8)

    def ones(self, n_rows=1, n_columns=1):
        return np.ones((n_rows, n_columns))

    def add_to(self, array):
        array += 1  # writes into the caller's array
        return array


def wait_for_files(paths):
    """Wait until all of these files exist."""
    while not all(path.exists() for path in paths):
        time.sleep(0.005)


class CountEnv(gym.Env):
    """Observes the number of steps in the episode and the process id; the reward is the action.

    ``step`` writes to the action array, so this array must be writable. A step takes ``slow_s`` seconds, and does not
    end before the file ``ends_with`` exists. With the ``mood`` "wrong" a step raises an error, and with "dying" it ends
    the process.
    """

    def __init__(self, n_steps=1_000, truncates=False):
        self.observation_space = spaces.Box(0.0, np.inf, (2,), np.float64)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.n_steps = n_steps
        self.truncates = truncates
        self.slow_s = 0.0
        self.ends_with: str | None = None
        self.mood = "good"
        self.n = 0
        self.seeds = []

    def reset(self, *, seed=None, options=None):
        self.n = 0
        self.seeds.append(seed)
        return self._observation(), {"seed": seed, "options": options}

    def step(self, action):
        action *= 1.0
        if self.mood == "dying":
            os._exit(1)
        if self.mood == "wrong":
            raise ValueError("the gearbox is gone")
        time.sleep(self.slow_s)
        if self.ends_with is not None:
            wait_for_files([Path(self.ends_with)])
        self.n += 1
        over = self.n >= self.n_steps
        return self._observation(), float(action[0]), over and not self.truncates, over and self.truncates, {}

    def _observation(self):
        return np.array([self.n, os.getpid()], dtype=np.float64)

    def die(self):
        os._exit(1)


class MeetingEnv(CountEnv):
    """Each step waits until all ``n_envs`` environments have begun this step."""

    def __init__(self, folder, index, n_envs):
        super().__init__()
        self.folder, self.index, self.n_envs = Path(folder), index, n_envs

    def step(self, action):
        (self.folder / f"{self.n}_{self.index}").touch()
        wait_for_files([self.folder / f"{self.n}_{index}" for index in range(self.n_envs)])
        return super().step(action)


class BrokenEnv(gym.Env):
    def __init__(self):
        raise ValueError("there is no such town")


class DiesOnResetEnv(CountEnv):
    """Ends its process in the first reset, which creates the file ``sign``; resets succeed if this file exists."""

    def __init__(self, sign):
        super().__init__()
        self.sign = Path(sign)

    def reset(self, *, seed=None, options=None):
        if not self.sign.exists():
            self.sign.touch()
            os._exit(1)
        return super().reset(seed=seed, options=options)
