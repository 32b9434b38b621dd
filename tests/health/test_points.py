"""Single points beside the means of a window."""

import pytest
import torch as th

from sb3_visual_td3.common import tags
from sb3_visual_td3.common.types import NetworkUpdate
from sb3_visual_td3.health.gradient_monitor import GradientMonitor


def test_the_mean_of_the_points_is_what_is_read(make_model):
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


def test_the_extremes_of_a_point_are_those_of_every_update_since_the_point_before():
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


def test_without_being_asked_nothing_is_kept(make_model):
    model, monitor = make_model(), GradientMonitor(sample_freq=1)
    model.observers.append(monitor)
    model.learn(30)
    assert monitor.read_points() == {}
