"""Models that learn from a FrameReplayBuffer: the weights are those that Stable-Baselines3's buffers give."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3 import TD3
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecNormalize

from sb3_visual_td3 import FrameReplayBuffer, VisualTD3
from sb3_visual_td3.buffers.n_step_dict_replay_buffer import NStepDictReplayBuffer
from tests.buffers.naive_frame_buffer import n_frames_held
from tests.image_env import ImageEnv, VectorImageEnv


class StackedImageEnv(ImageEnv):
    """Stack four frames in each observation; each step adds one new frame."""

    def reset(self, seed=None, options=None):
        obs, info = super().reset(seed=seed)
        self.obs = np.repeat(obs[-1:], 4, axis=0)
        return self.obs, info

    def step(self, action):
        obs, *rest = super().step(action)
        self.obs = np.concatenate([self.obs[1:], obs[-1:]])
        return self.obs, *rest


class StackedVectorImageEnv(VectorImageEnv):
    """Combine a stack of four frames with a vector."""

    def reset(self, seed=None, options=None):
        obs, info = super().reset(seed=seed)
        self.camera = np.repeat(obs["camera"][-1:], 4, axis=0)
        return {**obs, "camera": self.camera}, info

    def step(self, action):
        obs, *rest = super().step(action)
        self.camera = np.concatenate([self.camera[1:], obs["camera"][-1:]])
        return {**obs, "camera": self.camera}, *rest


def trained(env, replay_buffer_class, replay_buffer_kwargs, policy="CnnPolicy", n_steps=1, cls=VisualTD3, **kwargs):
    settings = {"buffer_size": 50, "learning_starts": 50, "batch_size": 8, "seed": 0, "device": "cpu", "gamma": 0.9}
    kwargs = {"optimize_memory_usage": False, **settings, **kwargs}
    if n_steps > 1:
        replay_buffer_kwargs = {**replay_buffer_kwargs, "n_steps": n_steps, "gamma": 0.9}
    model = cls(
        policy, env, replay_buffer_class=replay_buffer_class, replay_buffer_kwargs=replay_buffer_kwargs, **kwargs
    )
    return model.learn(70)


def assert_same_weights(one, other):
    for a, b in zip(one.policy.state_dict().values(), other.policy.state_dict().values(), strict=True):
        assert th.equal(a, b)


@pytest.mark.parametrize("n_steps", [1, 3])
@pytest.mark.parametrize("preset", ["td3", "visual"])
def test_the_weights_equal_those_of_stable_baselines3s_buffer(preset, n_steps):
    stock_class = NStepReplayBuffer if n_steps > 1 else ReplayBuffer
    stock = trained(StackedImageEnv(), stock_class, {}, n_steps=n_steps, preset=preset)
    ours = trained(StackedImageEnv(), FrameReplayBuffer, {"frame_stack": 4}, n_steps=n_steps, preset=preset)
    assert type(ours.replay_buffer) is FrameReplayBuffer
    assert n_frames_held(ours.replay_buffer._stores["observation"].frames) <= 50 + 8
    assert stock._n_updates == ours._n_updates == 20
    assert_same_weights(stock, ours)


@pytest.mark.parametrize("n_steps", [1, 3])
def test_the_weights_equal_those_of_a_dict_replay_buffer_for_dict_observations(n_steps):
    stock_class = NStepDictReplayBuffer if n_steps > 1 else DictReplayBuffer
    settings = {"policy": "MultiInputPolicy", "n_steps": n_steps, "preset": "visual"}
    stock = trained(StackedVectorImageEnv(), stock_class, {}, **settings)
    ours = trained(StackedVectorImageEnv(), FrameReplayBuffer, {"frame_stack": 4}, **settings)
    assert_same_weights(stock, ours)


@pytest.mark.parametrize("frame_stack", [1, 4])
def test_stock_td3_learns_from_a_frame_replay_buffer(frame_stack):
    stock = trained(StackedImageEnv(), ReplayBuffer, {}, cls=TD3)
    ours = trained(StackedImageEnv(), FrameReplayBuffer, {"frame_stack": frame_stack}, cls=TD3)
    assert_same_weights(stock, ours)


def test_the_weights_equal_those_of_sb3s_buffer_with_vec_normalize_and_vec_frame_stack():
    class OneFrameEnv(ImageEnv):
        observation_space = gym.spaces.Box(0, 255, (1, 36, 36), np.uint8)

    def env():
        return VecNormalize(VecFrameStack(DummyVecEnv([OneFrameEnv] * 2), 4), norm_obs=False)

    stock = trained(env(), ReplayBuffer, {})
    ours = trained(env(), FrameReplayBuffer, {"frame_stack": 4})
    assert_same_weights(stock, ours)
    np.testing.assert_array_equal(stock.replay_buffer.observations, ours.replay_buffer.observations)
    # Zeros before the first frame of an episode are one black frame for all.
    assert n_frames_held(ours.replay_buffer._stores["observation"].frames) <= 50 + 2 * 8


def test_vectors_and_rewards_are_normalised_when_they_are_sampled():
    def env():
        return VecNormalize(DummyVecEnv([StackedVectorImageEnv]), norm_obs_keys=["state"])

    stock = trained(env(), DictReplayBuffer, {}, policy="MultiInputPolicy")
    ours = trained(env(), FrameReplayBuffer, {"frame_stack": 4}, policy="MultiInputPolicy")
    assert_same_weights(stock, ours)


def test_a_second_call_of_learn_starts_a_new_segment_of_transitions():
    model = trained(StackedImageEnv(), FrameReplayBuffer, {"frame_stack": 4}, n_steps=3, buffer_size=300)
    assert not model.replay_buffer.dones[69, 0]
    model.learn(30)
    buffer = model.replay_buffer
    assert buffer.segment_ends[69, 0]
    assert not buffer.dones[69, 0]
    assert (buffer.segment_ends[:99, 0] | buffer.dones[:99, 0]).tolist() == [
        not np.array_equal(buffer.observations[row + 1, 0], buffer.next_observations[row, 0]) for row in range(99)
    ]


def test_a_model_continues_with_a_loaded_buffer(tmp_path):
    model = trained(StackedImageEnv(), FrameReplayBuffer, {"frame_stack": 4}, n_steps=3)
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "buffer")
    loaded = VisualTD3.load(tmp_path / "model", env=StackedImageEnv(), device="cpu")
    assert loaded.replay_buffer.size() == 0
    loaded.load_replay_buffer(tmp_path / "buffer")
    for one in (model, loaded):
        one.set_env(StackedImageEnv())
        one.set_random_seed(7)
        one.learn(20, reset_num_timesteps=False)
    assert_same_weights(model, loaded)
