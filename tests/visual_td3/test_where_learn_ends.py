"""Test that repeated learn() calls store no false transition, and that no n-step return crosses two calls."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import TD3
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback, StopTrainingOnMaxEpisodes
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from sb3_visual_td3 import FrameReplayBuffer, VisualTD3
from sb3_visual_td3.buffers.n_step_dict_replay_buffer import NStepDictReplayBuffer

LENGTH = 6


class CountingEnv(gym.Env):
    """Number the observations, so that a test can see whether a transition has two consecutive observations."""

    observation_space = spaces.Box(0, 255, (1, 36, 36), np.uint8)
    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, first=0):
        self.number = first

    def _next(self):
        self.number += 1
        return np.full((1, 36, 36), self.number, np.uint8)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._next(), {}

    def step(self, action):
        self.t += 1
        return self._next(), 1.0, self.t >= LENGTH, False, {}


class CountingDictEnv(CountingEnv):
    observation_space = spaces.Dict({"camera": CountingEnv.observation_space, "state": spaces.Box(0, 255, (1,))})

    def _next(self):
        camera = super()._next()
        return {"camera": camera, "state": np.array([self.number], np.float32)}


class StopAt(BaseCallback):
    """Stop training after ``n_calls`` steps."""

    def __init__(self, n_calls):
        super().__init__()
        self.stop_at = n_calls

    def _on_step(self):
        return self.n_calls < self.stop_at


class BreakAt(StopAt):
    def _on_step(self):
        if self.n_calls == self.stop_at:
            raise KeyboardInterrupt
        return True


def make(env=CountingEnv, n_envs=1, **kwargs):
    policy = "MultiInputPolicy" if env is CountingDictEnv else "CnnPolicy"
    venv = DummyVecEnv([lambda i=i: env(100 * i) for i in range(n_envs)])
    settings = {"buffer_size": 60 * n_envs, "learning_starts": 10**6, "seed": 0, "device": "cpu", **kwargs}
    return VisualTD3(policy, venv, **settings)


def stored(model):
    """Return per environment a list of (number in the observation, number in the next observation, done)."""
    buffer, n = model.replay_buffer, model.replay_buffer.size()
    before, after = buffer.observations, buffer.next_observations
    if isinstance(before, dict):
        before, after = before["camera"], after["camera"]
    before, after = (np.asarray(part[:n])[..., 0, 0, 0].astype(int) for part in (before, after))
    return [
        list(
            zip(
                before[:, env].tolist(),
                after[:, env].tolist(),
                buffer.dones[:n, env].astype(bool).tolist(),
                strict=True,
            )
        )
        for env in range(buffer.n_envs)
    ]


BUFFERS = {
    "frames": {},
    "n-step frames": {"n_steps": 3},
    "stock": {"replay_buffer_class": ReplayBuffer},
    "stock n-step": {"replay_buffer_class": NStepReplayBuffer, "replay_buffer_kwargs": {"n_steps": 3}},
    "dict": {"env": CountingDictEnv},
    "stock dict": {"env": CountingDictEnv, "replay_buffer_class": DictReplayBuffer},
    "n-step dict": {"env": CountingDictEnv, "replay_buffer_class": NStepDictReplayBuffer},
}


@pytest.mark.parametrize("buffer", BUFFERS)
@pytest.mark.parametrize("n_envs", [1, 2])
def test_every_step_of_several_learn_calls_is_stored_once(buffer, n_envs):
    model = make(n_envs=n_envs, **BUFFERS[buffer])
    for callback in (StopTrainingOnMaxEpisodes(1), StopAt(2), None, StopAt(3), StopTrainingOnMaxEpisodes(1)):
        model.learn(4 if callback is None else 1000, callback=callback, reset_num_timesteps=False)
    assert model.replay_buffer.size() * n_envs == model.num_timesteps
    for transitions in stored(model):
        assert all(after == before + 1 for before, after, _ in transitions)
        assert [done for *_, done in transitions] == [(i + 1) % LENGTH == 0 for i in range(len(transitions))]
    assert model._episode_num == n_envs * (model.replay_buffer.size() // LENGTH)


@pytest.mark.parametrize("buffer", [name for name in BUFFERS if "n-step" in name])
@pytest.mark.parametrize("how", ["learn again", "set_env", "set_env, another number", "interrupted"])
def test_no_return_crosses_from_one_learn_call_into_the_next(buffer, how):
    """The last n-step return before a new learn() must have n = 1, so its discount gamma ** n must be gamma."""
    model = make(**BUFFERS[buffer])
    model.learn(1000, callback=StopAt(4))
    if how == "set_env":
        model.set_env(CountingEnv(50) if "dict" not in buffer else CountingDictEnv(50))
    if how == "set_env, another number":
        model.set_env(DummyVecEnv([CountingEnv if "dict" not in buffer else CountingDictEnv] * 2))
    if how == "interrupted":
        with pytest.raises(KeyboardInterrupt):
            model.learn(1000, callback=BreakAt(3), reset_num_timesteps=False)
    rows = model.replay_buffer.size()
    model.learn(3 * model.n_envs, reset_num_timesteps=how == "learn again")
    assert all(after == before + 1 for env in stored(model) for before, after, _ in env)
    last = rows - 1  # the last transition before the last learn()
    discounts = model.replay_buffer._get_samples(np.full(20, last)).discounts
    assert discounts.flatten().tolist() == [pytest.approx(0.99)] * 20


def test_training_does_not_continue_from_an_interrupted_step():
    model = make()
    with pytest.raises(KeyboardInterrupt):
        model.learn(1000, callback=BreakAt(3))
    model.learn(10, reset_num_timesteps=False)
    assert all(after == before + 1 for before, after, _ in stored(model)[0])


def test_a_step_with_a_nan_reward_is_not_stored_in_the_replay_buffer():
    class BadReward(CountingEnv):
        def step(self, action):
            observation, _, *rest = super().step(action)
            return observation, float("nan") if self.t == 3 else 1.0, *rest

    model = make(BadReward)
    model.learn(1000, callback=StopAt(3))
    assert model.replay_buffer.size() == 2
    model.learn(2, reset_num_timesteps=False)
    assert np.isfinite(model.replay_buffer.rewards[:4]).all()
    assert all(after == before + 1 for before, after, _ in stored(model)[0])


def test_overlapped_training_stores_its_last_step_too():
    venv = SubprocVecEnv([CountingEnv], start_method="fork")
    model = VisualTD3("CnnPolicy", venv, buffer_size=60, learning_starts=10**6, device="cpu", overlap=True)
    for _ in range(3):
        model.learn(1000, callback=StopTrainingOnMaxEpisodes(1), reset_num_timesteps=False)
    venv.close()
    assert isinstance(model.replay_buffer, FrameReplayBuffer)
    assert [done for *_, done in stored(model)[0]] == ([False] * 5 + [True]) * 3
    assert all(after == before + 1 for before, after, _ in stored(model)[0])


def test_under_the_td3_preset_the_last_step_is_dropped_as_in_stable_baselines3():
    """The td3 preset must equal Stable-Baselines3 bit for bit, including its faults."""
    models = [make(preset="td3"), TD3("CnnPolicy", CountingEnv(), buffer_size=60, learning_starts=10**6, device="cpu")]
    for model in models:
        for _ in range(2):
            model.learn(1000, callback=StopTrainingOnMaxEpisodes(1), reset_num_timesteps=False)
    assert stored(models[0]) == stored(models[1])
    assert models[0].replay_buffer.dones.sum() == 0
