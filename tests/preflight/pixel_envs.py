"""Provide three healthy image environments for tests of ``doctor``, and wrappers that add faults."""

import time

import gymnasium as gym
import numpy as np
from gymnasium import spaces

SIZE = 36
N_DIMENSIONS = 2


class Dot(gym.Env):
    """Two actions move a dot, and the reward grows as the dot approaches the middle of the picture.

    An episode is truncated after 40 steps.
    """

    observation_space = spaces.Box(0, 255, (SIZE, SIZE, 1), np.uint8)
    action_space = spaces.Box(-1.0, 1.0, (N_DIMENSIONS,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.np_random.uniform(4, SIZE - 4, 2)
        self.n_steps = 0
        return self.picture(), {}

    def picture(self):
        picture = np.full((SIZE, SIZE, 1), 30, np.uint8)
        row, column = self.place.astype(int)
        picture[row - 2 : row + 3, column - 2 : column + 3] = 220
        return picture

    def step(self, action):
        self.place = np.clip(self.place + 2 * np.asarray(action), 3, SIZE - 4)
        self.n_steps += 1
        distance = float(np.abs(self.place - SIZE / 2).sum()) / SIZE
        return self.picture(), 1.0 - distance, False, self.n_steps >= 40, {}


class RoadInColour(Dot):
    """Show the dot of ``Dot`` in colour on a noisy background; an episode terminates if the dot reaches the edge."""

    observation_space = spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8)

    def picture(self):
        noise = self.np_random.integers(0, 40, (SIZE, SIZE, 3)).astype(np.uint8)
        return np.maximum(np.repeat(super().picture(), 3, axis=2), noise)

    def step(self, action):
        picture, reward, _, truncated, info = super().step(action)
        at_edge = bool(((self.place <= 3) | (self.place >= SIZE - 4)).any())
        return picture, reward, at_edge, truncated, info


class CameraAndState(Dot):
    """Observe a Dict of the picture and the place of the dot."""

    observation_space = spaces.Dict(
        {
            "camera": spaces.Box(0, 255, (SIZE, SIZE, 1), np.uint8),
            "place": spaces.Box(-1.0, 1.0, (2,), np.float32),
        }
    )

    def observation(self, picture):
        return {"camera": picture, "place": (self.place / SIZE * 2 - 1).astype(np.float32)}

    def reset(self, *, seed=None, options=None):
        picture, info = super().reset(seed=seed)
        return self.observation(picture), info

    def step(self, action):
        picture, *rest = super().step(action)
        return (self.observation(picture), *rest)


class FloatDot(Dot):
    """Return float pixels, although the dtype of the space is uint8."""

    def picture(self):
        return super().picture().astype(np.float64)


class Rounded(gym.ObservationWrapper):
    """Correct the dtype of ``FloatDot``."""

    def observation(self, observation):
        return observation.astype(np.uint8)


class OldDot(Dot):
    """Have the interface of gym before 0.26: ``reset()`` returns no info, and ``step()`` one ``done``."""

    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0]

    def step(self, action):
        picture, reward, _, truncated, info = super().step(action)
        return picture, reward, truncated, info


class Translated(gym.Wrapper):
    """Translate the interface of ``OldDot``."""

    def reset(self, **kwargs):
        return self.env.reset(**kwargs), {}

    def step(self, action):
        picture, reward, done, info = self.env.step(action)
        return picture, reward, False, done, info


class Black(gym.ObservationWrapper):
    def observation(self, observation):
        return np.zeros_like(observation)


class White(gym.ObservationWrapper):
    def observation(self, observation):
        return np.full_like(observation, 255)


class Frozen(gym.Wrapper):
    """Return the first picture in every step."""

    def reset(self, **kwargs):
        observation, info = self.env.reset(**kwargs)
        if not hasattr(self, "first"):
            self.first = observation
        return self.first, info

    def step(self, action):
        _, *rest = self.env.step(action)
        return (self.first, *rest)


class Scaled(gym.ObservationWrapper):
    """Scale the pixels to the range 0 to 1, and round them to uint8."""

    def observation(self, observation):
        return (observation / 255.0 + 0.5).astype(np.uint8)


class Floats(gym.ObservationWrapper):
    """Return float pixels, although the dtype of the space is uint8."""

    def observation(self, observation):
        return observation.astype(np.float32) / 255.0


class NotFinite(gym.ObservationWrapper):
    def __init__(self, env):
        super().__init__(env)
        self.observation_space = spaces.Box(0.0, 1.0, (SIZE, SIZE, 1), np.float32)

    def observation(self, observation):
        scaled = observation.astype(np.float32) / 255.0
        scaled[0, 0, 0] = np.nan
        return scaled


class Stacked(gym.Wrapper):
    """Stack the last four frames along the channels."""

    newest_first = False

    def __init__(self, env):
        super().__init__(env)
        self.observation_space = spaces.Box(0, 255, (SIZE, SIZE, 4), np.uint8)

    def stack(self):
        frames = self.frames[::-1] if self.newest_first else self.frames
        return np.concatenate(frames, axis=2)

    def reset(self, **kwargs):
        frame, info = self.env.reset(**kwargs)
        self.frames = [frame] * 4
        return self.stack(), info

    def step(self, action):
        frame, *rest = self.env.step(action)
        self.frames = [*self.frames[1:], frame]
        return (self.stack(), *rest)


class StackedNewestFirst(Stacked):
    newest_first = True


class WithoutSecondAction(gym.ActionWrapper):
    def action(self, action):
        return np.array([action[0], 0.0], np.float32)


class WithoutActions(gym.ActionWrapper):
    def action(self, action):
        return np.zeros_like(action)


class SeedIgnored(gym.Wrapper):
    def reset(self, *, seed=None, options=None):
        return self.env.reset(seed=np.random.randint(2**31))


class OneStart(gym.Wrapper):
    def reset(self, *, seed=None, options=None):
        return self.env.reset(seed=5)


class TimeLimitTerminates(gym.Wrapper):
    def step(self, action):
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, reward, terminated or truncated, False, info


class Endless(gym.Wrapper):
    def step(self, action):
        observation, reward, _, _, info = self.env.step(action)
        return observation, reward, False, False, info


class EndsAtOnce(gym.Wrapper):
    def step(self, action):
        observation, reward, _, _, info = self.env.step(action)
        return observation, reward, True, False, info


class Rewarded(gym.RewardWrapper):
    def __init__(self, env, change):
        super().__init__(env)
        self.change = change

    def reward(self, reward):
        return self.change(reward)


class Sparse(gym.Wrapper):
    """Give a reward of 1 in every 120th step, and 0 in the others."""

    count = 0

    def step(self, action):
        observation, _, *rest = self.env.step(action)
        self.count += 1
        return (observation, float(self.count % 120 == 0), *rest)


class Slow(gym.Wrapper):
    def step(self, action):
        time.sleep(0.1)
        return self.env.step(action)


class FailingSimulator(gym.Wrapper):
    """Report a failure of the simulator in every fifth step, with the info keys of CarlaDriving-v0."""

    count = 0

    def step(self, action):
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.count += 1
        if self.count % 5 == 0:
            info = {**info, "invalid_transition": True, "simulator_failure": "no image within 10 s"}
        return observation, reward, terminated, truncated, info
