"""Test the values of GradientMonitor: of single updates (``read_points``) and over many updates (``read``)."""

import pytest
import torch as th

from sb3_visual_td3.common import tags
from sb3_visual_td3.common.types import NetworkUpdate
from sb3_visual_td3.health.gradient_monitor import GradientMonitor


def test_read_returns_the_mean_of_the_points(make_model):
    model, monitor = make_model(), GradientMonitor(sample_freq=10, keep_points=True)
    model.observers.append(monitor)
    model.learn(61)
    points, read = monitor.read_points(), monitor.read()
    assert [n for n, _ in points[tags.CRITIC_LOSS]] == [1, 11, 21, 31, 41]
    for tag in (tags.CRITIC_LOSS, tags.ACTOR_LOSS, tags.Q1_VALUE, tags.GRADIENT_NORM["critic_cnn"]):
        values = [value for _, value in points[tag]]
        assert sum(values) / len(values) == pytest.approx(read[tag]), tag
    assert min(v for _, v in points[tags.REWARD_MIN]) >= read[tags.REWARD_MIN]
    assert points[tags.Q_BOUND][-1][1] <= read[tags.Q_BOUND]
    assert tags.Q_GAP in points
    assert monitor.read_points() == {}


def test_the_extremes_of_a_point_cover_every_update_since_the_previous_point():
    weight = th.nn.Parameter(th.ones(1))
    weight.grad = th.ones(1)
    monitor = GradientMonitor(sample_freq=10, keep_points=True)
    for n in range(1, 22):
        rewards = th.full((2, 1), 1000.0 if n == 5 else 1.0)
        values = {"rewards": rewards, "discounts": th.tensor(0.5)}
        update = NetworkUpdate("critic", n, {"critic_mlp": [weight]}, values)
        monitor.after_backward(update)
        monitor.after_clipping(update)
        monitor.after_step(update)
    points = monitor.read_points()
    assert points[tags.REWARD_MAX] == [(1, 1.0), (11, 1000.0), (21, 1.0)]
    assert points[tags.Q_BOUND] == [(1, 2.0), (11, 2000.0), (21, 2000.0)]


class EveryUpdate:
    """Keep the rewards and discounts of every critic update."""

    def __init__(self):
        self.rewards, self.discounts = [], []

    def after_backward(self, update):
        if update.network == "critic":
            self.rewards.append(update.values["rewards"].clone())
            self.discounts.append(update.values["discounts"].clone())

    def after_clipping(self, update):
        pass

    after_step = after_clipping


@pytest.mark.parametrize("n_steps", [1, 3])
def test_reward_extremes_and_the_q_bound_cover_updates_between_measurements(make_model, n_steps):
    """The smallest and the largest reward cover all updates, also those between two measured updates.

    With ``n_steps=1`` all samples have the same discount, and with ``n_steps=3`` each sample has its own.
    """
    model, every = make_model(n_steps=n_steps, scale_rewards=False, policy_kwargs={"net_arch": [8]}), EveryUpdate()
    monitors = [GradientMonitor(sample_freq) for sample_freq in (1, 7, 1_000)]
    model.observers += [*monitors, every]
    bounds = {1: [], 7: [], 1_000: []}
    for _ in range(3):
        every.rewards, every.discounts = [], []
        model.learn(125, reset_num_timesteps=False)
        rewards = th.cat(every.rewards)
        assert len(every.rewards) > 100, "more batches than the monitor collects"
        bound = max(float((r.abs() / (1 - d)).max()) for r, d in zip(every.rewards, every.discounts, strict=True))
        for monitor in monitors:
            read, since_start = monitor.read(), bounds[monitor.sample_freq]
            if not read:
                assert monitor.sample_freq == 1_000
                continue
            since_start.append(bound)
            extremes = (read[tags.REWARD_MIN], read[tags.REWARD_MAX])
            assert extremes == (float(rewards.min()), float(rewards.max())), monitor.sample_freq
            assert read[tags.Q_BOUND] == pytest.approx(max(since_start), rel=1e-12), monitor.sample_freq


def test_a_nan_reward_is_both_extremes():
    weight = th.nn.Parameter(th.ones(1))
    weight.grad = th.ones(1)
    monitor = GradientMonitor(sample_freq=5, keep_points=True)
    for n in range(1, 7):
        rewards = th.tensor([[1.0], [float("nan") if n == 3 else 2.0]])
        update = NetworkUpdate("critic", n, {"critic_mlp": [weight]}, {"rewards": rewards, "discounts": th.tensor(0.5)})
        monitor.after_backward(update)
        monitor.after_clipping(update)
        monitor.after_step(update)
    points = monitor.read_points()
    assert [n for n, _ in points[tags.REWARD_MIN]] == [1, 6]
    for tag in (tags.REWARD_MIN, tags.REWARD_MAX, tags.Q_BOUND):
        assert th.tensor(points[tag][1][1]).isnan(), tag


def test_points_are_kept_only_on_request(make_model):
    model, monitor = make_model(), GradientMonitor(sample_freq=1)
    model.observers.append(monitor)
    model.learn(30)
    assert monitor.read_points() == {}
