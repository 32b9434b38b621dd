"""Test that the actor's loss explodes if the critic reads the actor's features."""

import pytest
from faulty_trainings import LeakyTD3

from sb3_visual_td3 import VisualTD3
from sb3_visual_td3.common import tags
from sb3_visual_td3.health.gradient_monitor import GradientMonitor
from tests.image_env import ImageEnv

N_UPDATES = 500


def norms_over_training(cls, **kwargs):
    """Return the gradient norm of the actor's encoder in the first and last 100 updates, and the last actor loss."""
    settings = {"buffer_size": 1_200, "learning_starts": 100, "batch_size": 8, "device": "cpu", "preset": "td3"}
    model = cls("CnnPolicy", ImageEnv(reward_scale=10.0), seed=0, learning_rate=1e-4, **settings, **kwargs)
    model.learn(100)
    monitor = GradientMonitor(sample_freq=1)
    model.observers.append(monitor)
    windows = []
    for _ in range(N_UPDATES // 100):
        model.learn(100, reset_num_timesteps=False)
        windows.append(monitor.read())
    norm = tags.GRADIENT_NORM["actor_cnn"]
    return windows[0][norm], windows[-1][norm], windows[-1][tags.ACTOR_LOSS]


@pytest.mark.slow
@pytest.mark.parametrize("max_grad_norm", [None, 1.0])
def test_a_critic_on_the_actors_features_explodes_and_one_on_its_own_does_not(max_grad_norm):
    first, last, loss = norms_over_training(LeakyTD3, max_grad_norm=max_grad_norm)
    assert last > 100 * first
    first_right, last_right, loss_right = norms_over_training(VisualTD3, max_grad_norm=max_grad_norm)
    assert last_right < 10 * first_right
    assert abs(loss) > 10 * abs(loss_right)
