"""n-step returns with Dict observations, which Stable-Baselines3 refuses."""

import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer
from stable_baselines3.common.vec_env import DummyVecEnv

import sb3_visual_td3  # noqa: F401 - registers LiteDriving-v0
from sb3_visual_td3 import FrameReplayBuffer, VisualTD3
from sb3_visual_td3.buffers.n_step_dict_replay_buffer import NStepDictReplayBuffer
from tests.image_env import ImageEnv, VectorImageEnv


@pytest.fixture
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


@pytest.mark.parametrize(("preset", "cls"), [("td3", NStepDictReplayBuffer), ("visual", FrameReplayBuffer)])
def test_n_steps_reach_the_buffer_of_dict_observations(make_model, no_warnings, preset, cls):
    own = {"handle_timeout_termination": False}
    model = make_model(
        "MultiInputPolicy", VectorImageEnv(), n_steps=3, gamma=0.9, preset=preset, replay_buffer_kwargs=own
    )
    assert type(model.replay_buffer) is cls
    assert (model.replay_buffer.n_steps, model.replay_buffer.gamma) == (3, 0.9)
    assert not model.replay_buffer.handle_timeout_termination
    assert own == {"handle_timeout_termination": False}
    model.learn(40)
    assert {round(d, 3) for d in model._sample(64).discounts.flatten().tolist()} >= {0.9, 0.729}


@pytest.mark.parametrize(
    ("policy", "env", "kwargs", "expected"),
    [
        ("CnnPolicy", ImageEnv, {}, ("FrameReplayBuffer", "visual")),
        ("CnnPolicy", ImageEnv, {"n_steps": 3}, ("FrameReplayBuffer", "visual")),
        ("CnnPolicy", ImageEnv, {"preset": "td3"}, ("ReplayBuffer", "td3")),
        ("CnnPolicy", ImageEnv, {"preset": "td3", "n_steps": 3}, ("NStepReplayBuffer", "n_steps")),
        (
            "CnnPolicy",
            ImageEnv,
            {"preset": "td3", "replay_buffer_class": FrameReplayBuffer},
            ("FrameReplayBuffer", "argument"),
        ),
        ("CnnPolicy", ImageEnv, {"replay_buffer_class": NStepReplayBuffer}, ("NStepReplayBuffer", "argument")),
        ("MultiInputPolicy", VectorImageEnv, {"n_steps": 2}, ("FrameReplayBuffer", "visual")),
        ("MultiInputPolicy", VectorImageEnv, {"preset": "td3"}, ("DictReplayBuffer", "td3")),
        (
            "MultiInputPolicy",
            VectorImageEnv,
            {"preset": "td3", "n_steps": 2},
            ("NStepDictReplayBuffer", "n_steps"),
        ),
    ],
)
def test_describe_names_the_buffer_and_why_it_was_chosen(make_model, policy, env, kwargs, expected):
    assert make_model(policy, env(), **kwargs).describe()["replay_buffer_class"] == expected


def test_a_buffer_class_of_your_own_is_left_alone(make_model):
    class OwnBuffer(DictReplayBuffer):
        pass

    with pytest.warns(UserWarning, match="OwnBuffer"):
        model = make_model("MultiInputPolicy", VectorImageEnv(), n_steps=3, replay_buffer_class=OwnBuffer)
    assert type(model.replay_buffer) is OwnBuffer
    model.learn(30)
    assert model._n_updates == 10


@pytest.mark.parametrize(("policy", "env"), [("CnnPolicy", ImageEnv), ("MultiInputPolicy", VectorImageEnv)])
def test_a_saved_model_and_its_buffer_continue_with_n_steps(make_model, tmp_path, no_warnings, policy, env):
    model = make_model(policy, env(), n_steps=3, gamma=0.9)
    model.learn(40)
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "buffer")
    loaded = VisualTD3.load(tmp_path / "model", env=env(), device="cpu")
    assert type(loaded.replay_buffer) is type(model.replay_buffer)
    assert (loaded.replay_buffer.n_steps, loaded.replay_buffer.gamma) == (3, 0.9)
    assert loaded.replay_buffer.pos == 0
    loaded.load_replay_buffer(tmp_path / "buffer")
    assert loaded.replay_buffer.pos == 40
    assert loaded.describe()["replay_buffer_class"] == model.describe()["replay_buffer_class"]
    for one in (model, loaded):
        one.set_env(env())
        one.set_random_seed(7)
        # The target range is the same object's copy: both learn on alike, bit for bit.
        one.learn(10, reset_num_timesteps=False)
    for a, b in zip(model.policy.state_dict().values(), loaded.policy.state_dict().values(), strict=True):
        assert th.equal(a, b)


def test_windows_of_several_environments_end_with_their_own_episodes(make_model):
    model = make_model("MultiInputPolicy", DummyVecEnv([VectorImageEnv] * 2), n_steps=3, gradient_steps=-1)
    model.learn(60)
    assert model.replay_buffer.n_envs == 2
    assert model._n_updates == 40
    assert all(th.isfinite(p).all() for p in model.policy.parameters())


def test_a_model_on_camera_and_state_observations_trains_with_n_step_returns(no_warnings):
    env = gym.make("LiteDriving-v0", observation="camera+state")
    settings = {"buffer_size": 200, "learning_starts": 40, "batch_size": 4, "seed": 0, "device": "cpu"}
    model = VisualTD3("MultiInputPolicy", env, n_steps=3, **settings)
    assert model.describe()["preset"].value == "visual"
    before = {name: [p.detach().clone() for p in group] for name, group in model.groups.items()}
    model.learn(50)
    assert type(model.replay_buffer) is FrameReplayBuffer
    assert model._n_updates == 10
    assert set(before) == {"actor_mlp", "critic_cnn", "critic_mlp"}
    for name, group in model.groups.items():
        assert any(not th.equal(p, q) for p, q in zip(group, before[name], strict=True)), name
    action, _ = model.predict(env.reset(seed=1)[0])
    assert np.isfinite(action).all()
