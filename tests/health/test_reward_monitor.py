import math

import numpy as np

from sb3_visual_td3.common import tags
from sb3_visual_td3.health.reward_monitor import RewardMonitor


def test_points_are_the_extremes_of_ten_steps_of_all_environments():
    monitor = RewardMonitor(sample_freq=10)
    rewards = np.random.default_rng(0).normal(size=(25, 3))
    for step, reward in enumerate(rewards):
        monitor.see(reward, n_updates=step)
    points = monitor.read_points()
    assert points[tags.REWARD_MIN] == [(9, rewards[:10].min()), (19, rewards[10:20].min())]
    assert points[tags.REWARD_MAX] == [(9, rewards[:10].max()), (19, rewards[10:20].max())]
    assert monitor.read_points() == {tags.REWARD_MIN: [], tags.REWARD_MAX: []}


def test_nan_is_reported_at_once_although_comparisons_ignore_it():
    monitor = RewardMonitor()
    monitor.see(np.array([1.0]), 5)
    monitor.see(np.array([np.nan]), 6)
    points = monitor.read_points()
    (n, low), (_, high) = (points[tag][0] for tag in (tags.REWARD_MIN, tags.REWARD_MAX))
    assert n == 6
    assert math.isnan(low)
    assert math.isnan(high)


def test_an_array_that_is_reused_does_not_change_recorded_rewards():
    monitor, rewards = RewardMonitor(sample_freq=2), np.array([7.0])
    monitor.see(rewards, 0)
    rewards[0] = 1.0
    monitor.see(rewards, 1)
    assert monitor.read_points()[tags.REWARD_MAX] == [(1, 7.0)]
