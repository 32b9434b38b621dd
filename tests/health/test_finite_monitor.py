"""FiniteMonitor finds a non-finite number in the update in which it appears."""

import math

import pytest
import torch as th
from sb3_contrib import TQC, CrossQ
from stable_baselines3 import DDPG, SAC, TD3

from sb3_visual_td3.common import tags
from sb3_visual_td3.common.types import NetworkUpdate
from sb3_visual_td3.health.finite_monitor import FiniteMonitor, NotFinite
from sb3_visual_td3.health.stock_watch import attach


def update(network, n_updates, loss):
    return NetworkUpdate(network, n_updates, {}, {"loss": th.tensor(loss)})


def test_the_first_non_finite_number_is_named_with_its_update():
    monitor = FiniteMonitor()
    assert monitor.first() is None
    for number, losses in enumerate([(1.0, 2.0), (math.inf, 3.0), (4.0, math.nan)], start=7):
        for network, loss in zip(("critic", "actor"), losses, strict=True):
            monitor.after_backward(update(network, number, loss))
    assert monitor.first() == NotFinite(tags.CRITIC_LOSS, math.inf, 8)
    assert monitor.first() is None, "it is told once"
    monitor.after_backward(update("actor", 10, -math.inf))
    assert monitor.first() == NotFinite(tags.ACTOR_LOSS, -math.inf, 10)


def weight(*shape, gradient=None):
    parameter = th.nn.Parameter(th.zeros(shape))
    parameter.grad = None if gradient is None else th.full(shape, gradient)
    return parameter


@pytest.mark.parametrize(
    ("weights", "found"),
    [
        ([weight(9, 9, gradient=math.nan), weight(9, gradient=1.0)], None),  # the biases stand for the rest
        ([weight(9, 9, gradient=1.0), weight(9, gradient=math.nan)], tags.GRADIENT_NORM["critic_cnn"]),
        ([weight(9, 9, gradient=1.0), weight(2, 2, gradient=math.inf)], tags.GRADIENT_NORM["critic_cnn"]),  # no biases
        ([weight(9, 9), weight(9)], None),  # nothing there
    ],
)
def test_gradients_are_checked_in_the_biases_or_else_in_the_smallest_weight(weights, found):
    monitor = FiniteMonitor()
    groups = {"critic_cnn": weights, "critic_mlp": [weight(3, gradient=1.0)]}
    monitor.after_backward(NetworkUpdate("critic", 5, groups, {"loss": th.tensor(1.0)}))
    first = monitor.first()
    assert (None if first is None else (first.tag, first.n_updates)) == (None if found is None else (found, 5))


def test_a_large_finite_loss_is_not_reported():
    monitor = FiniteMonitor()
    monitor.after_backward(update("critic", 1, 3e38))
    assert monitor.first() is None


@pytest.mark.parametrize("cls", [SAC, TD3, DDPG, TQC, CrossQ])
def test_a_stock_algorithms_gradients_are_checked_although_its_loss_is_not_available(cls):
    model = cls("MlpPolicy", "Pendulum-v1", learning_starts=20, batch_size=8, buffer_size=300, seed=0, device="cpu")
    monitor = FiniteMonitor()
    watch = attach(model, monitor)
    model.learn(40)
    assert monitor.first() is None
    assert watch.n_updates == 20
    with th.no_grad():
        next(model.critic.parameters()).fill_(math.nan)
    model.train(gradient_steps=1, batch_size=8)
    found = monitor.first()
    assert (found.tag, found.n_updates) == (tags.GRADIENT_NORM["critic_mlp"], 21)
    assert math.isnan(found.value)
