"""Test that VisualTD3 with the td3 preset equals Stable-Baselines3's TD3 bit for bit (one thread, CPU)."""

import pytest
import torch as th
from stable_baselines3 import TD3
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_visual_td3 import VisualTD3
from tests.image_env import ImageEnv, VectorImageEnv


def two_image_envs():
    return DummyVecEnv([ImageEnv] * 2)


CASES = {
    "vectors": ("MlpPolicy", lambda: "Pendulum-v1", {}),
    "vectors with n_steps 3": ("MlpPolicy", lambda: "Pendulum-v1", {"n_steps": 3}),
    "pixels": ("CnnPolicy", ImageEnv, {}),
    "pixels with n_steps 3": ("CnnPolicy", ImageEnv, {"n_steps": 3}),
    "pixels with SB3's own sharing": ("CnnPolicy", ImageEnv, {"policy_kwargs": {"share_features_extractor": True}}),
    "pixels and vectors": ("MultiInputPolicy", VectorImageEnv, {}),
    "pixels and vectors, all updates at the episode's end": (
        "MultiInputPolicy",
        VectorImageEnv,
        {"train_freq": (1, "episode"), "gradient_steps": -1},
    ),
    "two environments": ("CnnPolicy", two_image_envs, {"gradient_steps": -1}),
    "two environments with n_steps 3": ("CnnPolicy", two_image_envs, {"gradient_steps": -1, "n_steps": 3}),
    "four steps, then four updates": ("CnnPolicy", ImageEnv, {"train_freq": (4, "step"), "gradient_steps": -1}),
    "whole episodes": ("CnnPolicy", ImageEnv, {"train_freq": (1, "episode"), "gradient_steps": -1}),
    "a learning rate schedule": ("CnnPolicy", ImageEnv, {"learning_rate": lambda progress: 1e-3 * progress}),
}


class RecordingLogger(Logger):
    """Keep the name and the value of each recorded training metric."""

    def __init__(self):
        super().__init__(folder=None, output_formats=[])
        self.points = []

    def record(self, key, value, exclude=None):
        if key.startswith("train/"):
            self.points.append((key, value))


def trained(cls, policy, env, then=0, **kwargs):
    model = cls(policy, env, seed=3, buffer_size=200, learning_starts=20, batch_size=8, device="cpu", **kwargs)
    logger = RecordingLogger()
    model.set_logger(logger)
    model.learn(70)
    assert model._n_updates >= 50
    if then:
        model.learn(then, reset_num_timesteps=False)
    return model, logger.points


@pytest.mark.parametrize("case", CASES)
def test_fifty_updates_leave_the_same_weights_optimizer_state_and_losses(case):
    policy, env, kwargs = CASES[case]
    stock, stock_points = trained(TD3, policy, env(), **kwargs)
    ours, our_points = trained(VisualTD3, policy, env(), preset="td3", **kwargs)

    assert_the_same(stock, ours)
    assert our_points == stock_points


def assert_the_same(stock, ours):
    assert (ours._n_updates, ours.num_timesteps) == (stock._n_updates, stock.num_timesteps)
    stock_weights, our_weights = stock.policy.state_dict(), ours.policy.state_dict()
    assert list(stock_weights) == list(our_weights)
    for name, weights in stock_weights.items():
        assert th.equal(weights, our_weights[name]), name
    for network in ("actor", "critic"):
        assert_same_moments(getattr(stock, network).optimizer, getattr(ours, network).optimizer)


@pytest.mark.parametrize("kwargs", [{}, {"learning_rate": lambda progress: 1e-3 * progress}, {"n_steps": 3}])
def test_training_continued_without_resetting_timesteps_equals_that_of_sb3s_td3(kwargs):
    stock, stock_points = trained(TD3, "CnnPolicy", ImageEnv(), then=30, **kwargs)
    ours, our_points = trained(VisualTD3, "CnnPolicy", ImageEnv(), then=30, preset="td3", **kwargs)
    assert (ours.num_timesteps, ours._n_updates) == (100, 80)
    assert_the_same(stock, ours)
    assert our_points == stock_points


def assert_same_moments(stock, ours):
    stock_parameters = [p for group in stock.param_groups for p in group["params"]]
    our_parameters = [p for group in ours.param_groups for p in group["params"]]
    assert len(stock_parameters) == len(our_parameters)
    for a, b in zip(stock_parameters, our_parameters, strict=True):
        assert th.equal(a, b)
        for key, value in stock.state[a].items():
            assert th.equal(value, ours.state[b][key]), key


def test_clipped_gradients_leave_other_weights():
    """The comparison with TD3 must detect that clipped gradients change the weights."""
    stock, _ = trained(TD3, "CnnPolicy", ImageEnv())
    ours, _ = trained(VisualTD3, "CnnPolicy", ImageEnv(), preset="td3", max_grad_norm=1e-3)
    assert not all(th.equal(a, b) for a, b in zip(stock.policy.parameters(), ours.policy.parameters(), strict=True))


def test_the_stock_preset_draws_the_same_exploration():
    stock, _ = trained(TD3, "CnnPolicy", ImageEnv())
    ours, _ = trained(VisualTD3, "CnnPolicy", ImageEnv(), preset="td3")
    assert (stock.replay_buffer.actions == ours.replay_buffer.actions).all()
    assert ours.action_noise is None
