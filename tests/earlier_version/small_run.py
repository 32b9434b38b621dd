"""Train tiny networks in a small environment, so that the saved files are small enough for the repository."""

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from sb3_visual_td3 import SnapshotCallback, VisualTD3

N_STEPS = 40
SNAPSHOT_EVERY = 20


class StripesEnv(gym.Env):
    """Show stripes that move by one pixel if ``action[0]`` is positive."""

    observation_space = spaces.Box(0, 255, (1, 36, 36), np.uint8)
    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def _image(self):
        columns = (np.arange(36) + self.phase) % 6 < 3
        return np.broadcast_to(columns * 200, (1, 36, 36)).astype(np.uint8)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.phase, self.n = int(self.np_random.integers(6)), 0
        return self._image(), {}

    def step(self, action):
        self.phase, self.n = self.phase + int(action[0] > 0), self.n + 1
        return self._image(), float(action[1]), False, self.n >= 8, {}

    def get_state(self):
        return {"phase": self.phase, "n": self.n, "random": self.np_random.bit_generator.state}

    def set_state(self, state):
        self.phase, self.n = state["phase"], state["n"]
        self.np_random.bit_generator.state = state["random"]
        return self._image()


class TinyEncoder(BaseFeaturesExtractor):
    """One convolution with a few hundred weights."""

    def __init__(self, observation_space, normalized_image=False):
        super().__init__(observation_space, features_dim=16)
        self.layers = nn.Sequential(nn.Conv2d(1, 4, 8, 4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 16))

    def forward(self, observations):
        return self.layers(observations)


def make_model(scale_rewards=None):
    return VisualTD3(
        "CnnPolicy",
        StripesEnv(),
        buffer_size=64,
        learning_starts=10,
        batch_size=4,
        n_steps=3,
        learning_rate="lin_1e-3",
        actor_lr=1e-4,
        precision="fp32",
        scale_rewards=scale_rewards,
        seed=0,
        device="cpu",
        policy_kwargs={"features_extractor_class": TinyEncoder, "net_arch": [8], "trunk_dim": 8},
    )


def train(run_dir, scale_rewards=None, save_freq=SNAPSHOT_EVERY):
    """Train with snapshots; if ``run_dir`` has a snapshot, continue from it."""
    th.set_num_threads(1)
    model = make_model(scale_rewards)
    model.learn(N_STEPS, callback=SnapshotCallback(save_freq, run_dir=run_dir, resume=True, keep=1, verbose=0))
    return model
