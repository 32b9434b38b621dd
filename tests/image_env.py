"""Provide small environments with random images and a reward that depends on the action."""

import gymnasium as gym
import numpy as np
from gymnasium import spaces

SIZE = 36


class ImageEnv(gym.Env):
    observation_space = spaces.Box(0, 255, (4, SIZE, SIZE), np.uint8)
    action_space = spaces.Box(-1, 1, (2,), np.float32)
    render_mode = None

    def __init__(self, reward_scale=1.0, episode_length=25):
        self.reward_scale = reward_scale
        self.episode_length = episode_length

    def _image(self):
        return self.np_random.integers(0, 256, self.observation_space.shape, dtype=np.uint8)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.n_steps = 0
        return self._image(), {}

    def step(self, action):
        self.n_steps += 1
        reward = self.reward_scale * float(action.sum())
        return self._image(), reward, self.n_steps % 17 == 0, self.n_steps >= self.episode_length, {}


class VectorImageEnv(ImageEnv):
    """Observe a Dict of a random image and a random vector."""

    observation_space = spaces.Dict(
        {"camera": ImageEnv.observation_space, "state": spaces.Box(-1, 1, (3,), np.float32)}
    )

    def _image(self):
        camera = self.np_random.integers(0, 256, (4, SIZE, SIZE), dtype=np.uint8)
        return {"camera": camera, "state": self.np_random.uniform(-1, 1, 3).astype(np.float32)}
