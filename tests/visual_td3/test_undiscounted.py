"""Test that undiscounted returns (gamma=1) have no bound, because none follows from the rewards."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_visual_td3 import ExplosionAlertCallback, GradientNormCallback, VisualTD3
from sb3_visual_td3.visual_td3.losses import TargetRange
from tests.image_env import ImageEnv


def rewards_of(*values):
    return th.tensor(values, dtype=th.float32).reshape(-1, 1)


class ConstantRewardEnv(ImageEnv):
    def __init__(self, reward):
        super().__init__()
        self.reward = reward

    def step(self, action):
        assert np.isfinite(action).all()
        observation, _, terminated, truncated, info = super().step(action)
        return observation, self.reward, terminated, truncated, info


@pytest.mark.parametrize("discounts", [1.0, th.ones(2, 1), np.nextafter(1.0, 2.0)])
@pytest.mark.parametrize("reward", [0.0, -1.0, 3e38])
def test_targets_of_undiscounted_returns_are_not_clamped(discounts, reward):
    targets = rewards_of(-1e6, 1e6)
    allowed = TargetRange(True)
    assert allowed.clamp(targets, rewards_of(reward, reward), discounts).tolist() == targets.tolist()
    assert allowed.get_state() == {"lower": 0.0, "upper": 0.0}, "what is learned later with a discount has a range"


def test_one_undiscounted_sample_among_others_leaves_the_batch_without_a_range():
    allowed = TargetRange(True)
    discounts = th.tensor([[0.5], [1.0]])
    assert allowed.clamp(rewards_of(9.0, 9.0), rewards_of(1.0, 0.0), discounts).tolist() == [[9.0], [9.0]]
    assert allowed.clamp(rewards_of(9.0), rewards_of(1.0), th.tensor([[0.5]])).tolist() == [[2.0]]


def test_a_range_that_float32_cannot_hold_stays_finite():
    allowed = TargetRange(True)
    assert allowed.clamp(rewards_of(1e38), rewards_of(1e38), 0.9999).tolist() == rewards_of(1e38).tolist()
    assert np.isfinite(list(allowed.get_state().values())).all()


def test_a_nan_among_the_rewards_does_not_spoil_the_range():
    allowed = TargetRange(True)
    allowed.clamp(rewards_of(1.0, np.nan), rewards_of(1.0, np.nan), 0.5)
    assert allowed.clamp(rewards_of(9.0), rewards_of(1.0), 0.5).tolist() == [[2.0]]


@pytest.mark.parametrize(
    ("gamma", "reward", "kwargs"),
    [
        (1.0, 0.0, {}),
        (1.0, 0.0, {"n_steps": 3}),
        (1.0, -1.0, {"target_q_clamp": 5.0}),
        (1.0 - 1e-9, 1.0, {"n_steps": 3}),
        (0.99, 0.0, {}),
    ],
)
def test_undiscounted_and_nearly_undiscounted_returns_train_without_an_alarm(gamma, reward, kwargs):
    model = VisualTD3(
        "CnnPolicy",
        ConstantRewardEnv(reward),
        gamma=gamma,
        buffer_size=100,
        learning_starts=8,
        batch_size=8,
        device="cpu",
        seed=0,
        **kwargs,
    )
    alerts = ExplosionAlertCallback(check_freq=5, sample_freq=1, verbose=0)
    found = []
    alerts._announce = found.append
    model.learn(30, callback=[GradientNormCallback(log_freq=10, sample_freq=1), alerts])
    assert model.num_timesteps == 30
    assert [alert for alert in found if alert.rule == "non_finite"] == []
    assert all(bool(th.isfinite(weight).all()) for weight in model.policy.parameters())


class LargeRewardEnv(gym.Env):
    """Return finite but very large rewards."""

    observation_space = spaces.Box(-1, 1, (3,), np.float32)
    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 1e15, False, False, {}


def test_a_very_large_bound_is_no_alarm():
    model = VisualTD3("MlpPolicy", LargeRewardEnv(), gamma=1 - 1e-6, learning_starts=5, batch_size=4, device="cpu")
    alerts = ExplosionAlertCallback(check_freq=5, sample_freq=1, verbose=0)
    found = []
    alerts._announce = found.append
    model.learn(20, callback=alerts)
    assert "non_finite" not in {alert.rule for alert in found}
