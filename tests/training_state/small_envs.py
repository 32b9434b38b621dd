"""Small environments that can be saved in the middle of an episode."""

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class StatefulEnv(gym.Env):
    """Observations are random, and the reward depends on all earlier actions of the episode."""

    observation_space = spaces.Box(-1, 1, (3,), np.float32)
    action_space = spaces.Box(-1, 1, (2,), np.float32)
    render_mode = None
    episode_length = 9

    def _observation(self):
        return self.np_random.uniform(-1, 1, 3).astype(np.float32)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.n_steps, self.position = 0, (0.0, float(self.np_random.normal()))
        return self._observation(), {}

    def step(self, action):
        self.n_steps += 1
        self.position = tuple(0.9 * x + float(a) for x, a in zip(self.position, action, strict=True))
        reward = self.position[0] - abs(self.position[1])
        done = self.n_steps >= self.episode_length
        return self._observation(), reward, done and self.n_steps % 2 == 0, done, {"is_success": reward > 0}

    def get_state(self):
        return {
            "random": self.np_random.bit_generator.state,
            "n_steps": self.n_steps,
            "position": self.position,  # is restored as a list
        }

    def set_state(self, state):
        self.np_random.bit_generator.state = state["random"]
        self.n_steps = state["n_steps"]
        self.position = tuple(state["position"])


class StatefulImageEnv(StatefulEnv):
    """Observations are images ``(height, width, channels)``; VecTransposeImage moves the channels to the front."""

    observation_space = spaces.Box(0, 255, (36, 36, 1), np.uint8)

    def _observation(self):
        return self.np_random.integers(0, 256, self.observation_space.shape, dtype=np.uint8)


class ColourImageEnv(StatefulImageEnv):
    """Images have three channels, so VecTransposeImage changes their layout in memory."""

    observation_space = spaces.Box(0, 255, (36, 36, 3), np.uint8)


class DictEnv(StatefulEnv):
    """Observations are an image and a vector."""

    observation_space = spaces.Dict(
        {"camera": StatefulImageEnv.observation_space, "state": StatefulEnv.observation_space}
    )

    def _observation(self):
        camera = self.np_random.integers(0, 256, (36, 36, 1), dtype=np.uint8)
        return {"camera": camera, "state": self.np_random.uniform(-1, 1, 3).astype(np.float32)}


class ForgetfulEnv(StatefulEnv):
    """This environment has no ``get_state`` and no ``set_state``."""

    def __getattribute__(self, name):
        if name in {"get_state", "set_state"}:
            raise AttributeError(name)
        return super().__getattribute__(name)


class Momentum(gym.Wrapper):
    """This wrapper saves its own state and that of the wrapped environment."""

    def reset(self, **kwargs):
        self.last = 0.0
        return super().reset(**kwargs)

    def step(self, action):
        observation, reward, *rest = super().step(action)
        self.last = 0.5 * self.last + float(reward)
        return observation, self.last, *rest

    def get_state(self):
        return {"last": self.last, "inner": self.env.get_wrapper_attr("get_state")()}

    def set_state(self, state):
        self.last = state["last"]
        self.env.get_wrapper_attr("set_state")(state["inner"])


class DiscreteEnv(StatefulEnv):
    action_space = spaces.Discrete(3)

    def step(self, action):
        return super().step(np.array([action - 1.0, 0.3 * action]))
