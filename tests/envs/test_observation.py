import math

import gymnasium as gym
import numpy as np
import pytest

from sb3_visual_td3.envs.lite.lite_env import LiteDrivingEnv
from sb3_visual_td3.envs.observation import to_vehicle_frame, vehicle_state_vector

from .test_task import STEADY

AHEAD = np.array([0.0, 0.5], np.float32)


def test_vehicle_state_vector_equals_hand_computed_values():
    # The car looks along +y: what lies at larger y is ahead, what lies at smaller x to its left.
    state = STEADY._replace(
        x_m=10.0, y_m=20.0, yaw_rad=math.pi / 2, speed_mps=7.5, lateral_offset_m=-0.7, heading_error_rad=math.pi / 8
    )
    waypoints = [(10.0, 25.0), (9.0, 30.0), (10.0, 35.0), (12.0, 40.0)]
    expected = [0.5, -0.2, 0.25, 0.25, 0.0, 0.5, 0.05, 0.75, 0.0, 1.0, -0.1]
    np.testing.assert_allclose(vehicle_state_vector(state, waypoints), expected, atol=1e-6)


def test_the_vector_stays_within_its_limits():
    state = STEADY._replace(speed_mps=90.0, lateral_offset_m=-99.0)
    vector = vehicle_state_vector(state, [(500.0, -500.0)] * 4)
    assert vector.dtype == np.float32
    assert (vector[:5] == [2.0, -2.0, 0.0, 2.0, -2.0]).all()


def test_a_wrong_number_of_waypoints_is_refused():
    with pytest.raises(ValueError, match="has 2 points: expected 4"):
        vehicle_state_vector(STEADY, [(0.0, 0.0)] * 2)


def test_waypoints_lie_on_the_lane_at_their_distance():
    env = LiteDrivingEnv(maps=["train_0"])
    env.reset(seed=1)
    for ahead, place in zip((5.0, 10.0, 20.0), env.waypoints_m((5.0, 10.0, 20.0)), strict=True):
        forward, left = to_vehicle_frame(env.vehicle, *place)
        assert 0.85 * ahead - 0.5 < math.hypot(forward, left) < ahead + 1.0
        assert forward > abs(left)


def test_the_camera_of_the_dictionary_is_that_of_the_plain_observation():
    plain, both = LiteDrivingEnv(), LiteDrivingEnv(observation="camera+state")
    assert both.observation_space["camera"] == plain.observation_space
    assert both.observation_space["state"] == gym.spaces.Box(-2.0, 2.0, (11,), np.float32)
    observations = [env.reset(seed=3)[0] for env in (plain, both)]
    for _ in range(20):
        np.testing.assert_array_equal(observations[0], observations[1]["camera"])
        assert both.observation_space.contains(observations[1])
        assert observations[1]["state"][0] == pytest.approx(both.vehicle.speed_mps / 15.0)
        assert np.abs(observations[1]["state"]).max() <= 1.1
        observations = [env.step(AHEAD)[0] for env in (plain, both)]


def test_rgb_frames_are_stacked_with_the_oldest_frame_first():
    env = LiteDrivingEnv(grayscale=False, frame_stack=2, image_size=64)
    before, _ = env.reset(seed=0)
    assert before.shape == env.observation_space.shape == (6, 64, 64)
    assert env.frame_stack == 2
    after = env.step(AHEAD)[0]
    np.testing.assert_array_equal(after[:3], before[3:])
    red, _, blue = after[3:, :10].astype(int)
    assert (blue > red).all(), "the sky is blue"
    land = before[:3, 34:38].astype(int)
    assert (land[1] > land[2] + 10).any(), "the land is green"


def test_grayscale_changes_neither_rewards_nor_infos():
    grey, colour = LiteDrivingEnv(), LiteDrivingEnv(grayscale=False)
    assert grey.reset(seed=5)[1] == colour.reset(seed=5)[1]
    assert grey.step(AHEAD)[1:] == colour.step(AHEAD)[1:]
