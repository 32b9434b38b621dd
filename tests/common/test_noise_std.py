"""Test the standard deviation that is read from the action noises of SB3 and of this package."""

import numpy as np
import pytest
from stable_baselines3.common.noise import (
    ActionNoise,
    NormalActionNoise,
    OrnsteinUhlenbeckActionNoise,
    VectorizedActionNoise,
)

from sb3_visual_td3.common.schedules import noise_std
from sb3_visual_td3.visual_td3.exploration import ScheduledActionNoise, set_sigma

ZERO = np.zeros(2)


class Unknown(ActionNoise):
    def __call__(self):
        return ZERO


@pytest.mark.parametrize(
    ("noise", "std"),
    [
        (None, None),
        (Unknown(), None),
        (NormalActionNoise(ZERO, np.array([0.1, 0.3])), 0.2),
        (OrnsteinUhlenbeckActionNoise(ZERO, np.array([0.2, 0.2])), 0.2),
        (ScheduledActionNoise(2, 0.2), 0.2),
        (VectorizedActionNoise(NormalActionNoise(ZERO, np.array([0.1, 0.3])), 3), 0.2),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_standard_deviation_is_the_mean_over_the_dimensions(noise, std):
    assert noise_std(noise) == (None if std is None else pytest.approx(std))


def test_the_standard_deviation_of_several_environments_follows_the_schedule():
    noise = VectorizedActionNoise(ScheduledActionNoise(2, 0.5), 3)
    set_sigma(noise, 0.1)
    assert noise_std(noise) == 0.1
