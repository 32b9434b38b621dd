"""Test which replay buffer and which number of stacked frames a model chooses."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecFrameStack, VecNormalize

from sb3_visual_td3 import FrameReplayBuffer, VisualTD3
from sb3_visual_td3.buffers.frame_replay_buffer import holds_frames
from tests.image_env import ImageEnv, VectorImageEnv


class OneFrameEnv(ImageEnv):
    observation_space = spaces.Box(0, 255, (1, 36, 36), np.uint8)


class ColourEnv(ImageEnv):
    """Return images with the channels last, as cameras do."""

    observation_space = spaces.Box(0, 255, (36, 36, 3), np.uint8)


class SayingEnv(ImageEnv):
    """Provide the number of stacked frames in the attribute ``frame_stack``."""

    def __init__(self, frame_stack=4):
        super().__init__()
        self.frame_stack = frame_stack


def normalize(env):
    return VecNormalize(env, norm_obs=False)


def frame_stack_of(model):
    return model.describe()["replay_buffer_kwargs.frame_stack"]


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        (lambda: gym.make("LiteDriving-v0"), 4),
        (SayingEnv, 4),
        (lambda: SayingEnv(np.int64(2)), 2),
        (lambda: DummyVecEnv([SayingEnv] * 2), 4),
        (lambda: VecFrameStack(DummyVecEnv([OneFrameEnv]), 3), 3),
        (lambda: normalize(VecFrameStack(DummyVecEnv([OneFrameEnv]), 4)), 4),
        (lambda: VecFrameStack(normalize(DummyVecEnv([OneFrameEnv])), 4), 4),
        (lambda: VecFrameStack(DummyVecEnv([ColourEnv]), 4), 4),
        (lambda: VecFrameStack(DummyVecEnv([SayingEnv]), 2), 2),
    ],
)
def test_the_depth_of_stacks_is_found(make_model, env, expected):
    model = make_model("CnnPolicy", env())
    assert type(model.replay_buffer) is FrameReplayBuffer
    assert frame_stack_of(model) == (expected, "environment")


@pytest.mark.parametrize(
    "env",
    [
        ImageEnv,
        lambda: SayingEnv(3),
        lambda: SayingEnv(0),
        lambda: SayingEnv("four"),
        lambda: SayingEnv([4]),
        lambda: DummyVecEnv([lambda: SayingEnv(2), lambda: SayingEnv(4)]),
    ],
)
def test_an_unknown_depth_is_1(make_model, env):
    """The model does not guess the stack's depth from the channels, and ignores an invalid ``frame_stack``."""
    assert frame_stack_of(make_model("CnnPolicy", env())) == (1, "unknown")


def test_a_given_depth_takes_precedence(make_model, tmp_path):
    given = {"frame_stack": 2}
    model = make_model("CnnPolicy", SayingEnv(4), replay_buffer_kwargs=given)
    assert frame_stack_of(model) == (2, "argument")
    assert model.replay_buffer.frame_stack == 2
    assert given == {"frame_stack": 2}
    model.save(tmp_path / "model")
    assert frame_stack_of(VisualTD3.load(tmp_path / "model", device="cpu")) == (2, "argument")


def test_a_given_buffer_class_gets_the_found_depth_and_n_steps(make_model):
    model = make_model("CnnPolicy", SayingEnv(4), preset="td3", replay_buffer_class=FrameReplayBuffer, n_steps=3)
    assert (model.replay_buffer.frame_stack, model.replay_buffer.n_steps) == (4, 3)


def test_the_vehicles_state_is_not_stored_as_a_stack(make_model):
    model = make_model("MultiInputPolicy", gym.make("LiteDriving-v0", observation="camera+state"))
    model.learn(30)
    buffer = model.replay_buffer
    assert frame_stack_of(model).value == 4
    stacks = {key: getattr(store, "frame_stack", None) for key, store in buffer._stores.items()}
    assert sorted(stacks.values(), key=str) == [4, None]


@pytest.mark.parametrize("env", [SayingEnv, ImageEnv])
def test_the_frame_stack_is_read_from_a_simulator_in_another_process(make_model, env):
    venv = SubprocVecEnv([env], start_method="fork")
    model = make_model("CnnPolicy", venv)
    assert frame_stack_of(model).value == (4 if env is SayingEnv else 1)
    model.learn(22)
    venv.close()


@pytest.mark.parametrize(
    ("policy", "env", "stock_class"),
    [("CnnPolicy", ImageEnv, ReplayBuffer), ("MultiInputPolicy", VectorImageEnv, DictReplayBuffer)],
)
def test_the_buffer_changes_no_weight(make_model, policy, env, stock_class):
    ours = make_model(policy, env(), buffer_size=30).learn(40)
    stock = make_model(policy, env(), buffer_size=30, replay_buffer_class=stock_class).learn(40)
    assert type(ours.replay_buffer) is FrameReplayBuffer
    for a, b in zip(ours.policy.state_dict().values(), stock.policy.state_dict().values(), strict=True):
        assert th.equal(a, b)


def test_the_td3_preset_and_other_observations_keep_stable_baselines3s_buffer(make_model):
    assert type(make_model(preset="td3").replay_buffer) is ReplayBuffer
    assert type(make_model("MlpPolicy", "Pendulum-v1").replay_buffer) is ReplayBuffer
    assert holds_frames(ImageEnv.observation_space)
    assert not holds_frames(spaces.Box(0, 1, (4, 36, 36), np.float32))
    assert not holds_frames(ColourEnv.observation_space)


@pytest.mark.parametrize("custom", [{"buffer_size": 1}, {}])
def test_a_model_of_several_environments_is_loaded_to_be_watched(make_model, tmp_path, custom):
    make_model("CnnPolicy", DummyVecEnv([SayingEnv] * 2), n_steps=3).save(tmp_path / "model")
    loaded = VisualTD3.load(tmp_path / "model", device="cpu", **custom)
    assert (loaded.env, loaded.buffer_size) == (None, custom.get("buffer_size", 300))
    assert (loaded.replay_buffer.frame_stack, loaded.replay_buffer.n_steps) == (4, 3)
    assert loaded.replay_buffer._stores["observation"].frames._blocks == []
    assert loaded.describe()["replay_buffer_class"] == ("FrameReplayBuffer", "visual")
    assert frame_stack_of(loaded) == (4, "saved model")
    loaded.predict(np.zeros((4, 36, 36), np.uint8))
    watched = VisualTD3.load(tmp_path / "model", env=DummyVecEnv([SayingEnv] * 2), device="cpu", **custom)
    assert watched.learn(44).num_timesteps == 44
    assert frame_stack_of(watched) == (4, "environment")


def test_with_optimize_memory_usage_an_unfinished_episode_is_not_done(make_model):
    """Stock TD3 would mark this transition as done when the second ``learn()`` begins."""
    model = make_model("CnnPolicy", SayingEnv(), optimize_memory_usage=True)
    model.learn(30)
    assert not model.replay_buffer.dones[29, 0]
    model.learn(10)
    assert not model.replay_buffer.dones[29, 0]
    assert model.replay_buffer.segment_ends[29, 0]
    with pytest.raises(ValueError, match="handle_timeout_termination"):
        make_model("CnnPolicy", SayingEnv(), optimize_memory_usage=True, preset="td3")


def test_a_buffer_too_large_for_the_machine_is_an_error_before_any_update(make_model):
    model = make_model("CnnPolicy", SayingEnv(), buffer_size=10**12)
    with pytest.raises(MemoryError, match="smaller buffer_size"):
        model.learn(100)
    assert (model.num_timesteps, model._n_updates) == (1, 0)
