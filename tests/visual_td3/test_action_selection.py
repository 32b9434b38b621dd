"""Tests that ``predict`` returns the same action as Stable-Baselines3, without unnecessary work."""

import numpy as np
import pytest
import torch as th
from stable_baselines3 import TD3
from torch import nn

from sb3_visual_td3 import VisualTD3
from tests.image_env import ImageEnv, VectorImageEnv


@pytest.fixture
def module_visits(monkeypatch):
    """Record every call of ``nn.Module.train`` as ``(module, mode)``, in order."""
    visits = []
    train = nn.Module.train

    def noted(self, mode=True):
        visits.append((self, mode))
        return train(self, mode)

    monkeypatch.setattr(nn.Module, "train", noted)
    return visits


@pytest.mark.parametrize(("policy", "env"), [("CnnPolicy", ImageEnv), ("MultiInputPolicy", VectorImageEnv)])
def test_the_actions_equal_those_of_stock_td3_bit_for_bit(policy, env):
    settings = {"buffer_size": 10, "device": "cpu", "seed": 5}
    stock, ours = TD3(policy, env(), **settings), VisualTD3(policy, env(), preset="td3", **settings)
    for _ in range(3):
        observation = env.observation_space.sample()
        np.testing.assert_array_equal(stock.predict(observation)[0], ours.predict(observation)[0])


def test_the_networks_switch_to_evaluation_mode_once_and_not_for_every_action(make_model, module_visits):
    model = make_model()
    model.policy.set_training_mode(True)
    observation = ImageEnv.observation_space.sample()
    module_visits.clear()
    model.predict(observation)
    assert (model.actor, False) in module_visits
    assert (model.critic, False) in module_visits
    module_visits.clear()
    model.predict(observation)
    assert module_visits == []


@pytest.mark.parametrize("network", ["actor", "critic"])
def test_a_single_network_in_training_mode_is_switched_back(make_model, network):
    """In training mode, batch normalisation would update its statistics with the observations of ``predict``."""
    model = make_model()
    observation = ImageEnv.observation_space.sample()
    model.predict(observation)
    getattr(model, network).train()
    model.predict(observation)
    assert not any(module.training for module in (*model.actor.modules(), *model.critic.modules()))


def test_the_pixels_reach_torch_without_a_copy(make_model):
    observation = np.zeros((1, 4, 36, 36), np.uint8)
    tensor, is_vectorized = make_model().policy.obs_to_tensor(observation)
    assert is_vectorized
    observation[0, 0, 0, 0] = 7
    assert tensor[0, 0, 0, 0] == 7
    assert tensor.dtype == th.uint8
