"""Saving an environment in the middle of an episode and restoring it."""

import hashlib
import json
import pickle

import numpy as np
import pytest

from sb3_visual_td3.envs.lite.lite_env import LiteDrivingEnv

VARIANTS = [
    {},
    {"n_cars": 10, "weather": "random", "noise_std": 4.0, "blur": 0.6},
    {"observation": "camera+state", "grayscale": False, "image_size": 32, "n_cars": 3, "weather": "rain"},
]


def action_at(step):
    return np.array([0.4 * np.sin(0.3 * step), 0.5 + 0.4 * np.cos(0.05 * step)], np.float32)


def bytes_of(observation):
    parts = observation.values() if isinstance(observation, dict) else [observation]
    return b"".join(part.tobytes() for part in parts)


def trace(env, first, last):
    """Yield all that the environment returns from step ``first`` until before step ``last``, resets included."""
    for step in range(first, last):
        observation, reward, terminated, truncated, info = env.step(action_at(step))
        yield bytes_of(observation), repr((reward, terminated, truncated, info))
        if terminated or truncated:
            observation, info = env.reset()
            yield bytes_of(observation), repr(info)


@pytest.mark.parametrize("kwargs", VARIANTS, ids=str)
@pytest.mark.parametrize("n_before", [0, 13, 70])
def test_a_restored_environment_continues_byte_for_byte(kwargs, n_before):
    env = LiteDrivingEnv(**kwargs)
    env.reset(seed=11)
    list(trace(env, 0, n_before))
    state = pickle.loads(pickle.dumps(env.get_state()))
    expected = list(trace(env, n_before, n_before + 150))
    other = LiteDrivingEnv(**kwargs)
    other.set_state(state)
    assert list(trace(other, n_before, n_before + 150)) == expected
    env.set_state(state)
    assert list(trace(env, n_before, n_before + 150)) == expected, "the same environment goes back, too"


def test_set_state_returns_the_observation_of_that_moment():
    env = LiteDrivingEnv(observation="camera+state")
    env.reset(seed=1)
    for step in range(5):
        observation = env.step(action_at(step))[0]
    again = LiteDrivingEnv(observation="camera+state").set_state(env.get_state())
    assert bytes_of(again) == bytes_of(observation)


def test_a_state_is_plain_data_and_keeps_its_own_copy():
    env = LiteDrivingEnv(n_cars=4)
    env.reset(seed=1)
    state = env.get_state()
    frames = state.pop("frames")
    text = json.dumps(state)
    assert frames.dtype == np.uint8
    kept = frames.copy()
    list(trace(env, 0, 20))
    assert json.dumps(state) == text, "what the environment does later does not reach it"
    np.testing.assert_array_equal(frames, kept)
    env.set_state({**json.loads(text), "frames": frames})
    assert json.dumps({k: v for k, v in env.get_state().items() if k != "frames"}) == text


@pytest.mark.parametrize(
    "change", [{"format": 99}, {"frames": np.zeros((1, 84, 84), np.uint8)}, {"frames": np.zeros((4, 64, 64), np.uint8)}]
)
def test_a_state_of_another_format_or_shape_is_refused(change):
    env = LiteDrivingEnv()
    env.reset(seed=0)
    with pytest.raises(ValueError, match="make the env with the settings of the saved env"):
        env.set_state({**env.get_state(), **change})


def test_a_state_with_other_traffic_is_refused():
    env = LiteDrivingEnv(n_cars=2)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="saved with n_cars=2, but this env has n_cars=0"):
        LiteDrivingEnv().set_state(env.get_state())


@pytest.mark.parametrize(("n_steps", "kwargs"), [(10_000, {}), (2_000, {"n_cars": 4, "weather": "random"})], ids=str)
def test_ten_thousand_steps_replayed_from_a_seed_are_the_same_bytes(n_steps, kwargs):
    digests = []
    for _ in range(2):
        env, digest = LiteDrivingEnv(**kwargs), hashlib.sha256()
        env.reset(seed=7)
        for frame, rest in trace(env, 0, n_steps):
            digest.update(frame)
            digest.update(rest.encode())
        digests.append(digest.hexdigest())
    assert digests[0] == digests[1]
