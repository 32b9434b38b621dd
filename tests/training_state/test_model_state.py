"""Tests that the counters and statistics of a model are restored."""

import time
from collections import deque

import numpy as np
from stable_baselines3 import TD3

from sb3_visual_td3.training_state.model_state import model_state, set_model_state
from tests.training_state.small_envs import StatefulEnv
from tests.training_state.snapshots import through_json


class WithMore(TD3):
    """Adds one state variable to TD3."""

    n_owed = 0

    def get_state(self):
        return {"n_owed": self.n_owed}

    def set_state(self, state):
        self.n_owed = state["n_owed"]


def learning(**kwargs):
    """Return a model that has begun to learn."""
    model = WithMore("MlpPolicy", StatefulEnv(), buffer_size=10, **kwargs)
    model._setup_learn(100)
    return model


def test_counters_and_statistics_continue():
    model, other = learning(), learning()
    for number, name in enumerate(("num_timesteps", "_total_timesteps", "_num_timesteps_at_start", "_n_updates")):
        setattr(model, name, number + 1)
    model._episode_num, model._current_progress_remaining, model.n_owed = 5, 0.25, 6
    model.start_time -= 1_000_000_000_000
    set_model_state(other, through_json(model_state(model)))
    for name in ("_total_timesteps", "_num_timesteps_at_start", "_n_updates", "_episode_num", "n_owed"):
        assert getattr(other, name) == getattr(model, name)
    assert (other.num_timesteps, other._current_progress_remaining) == (1, 0.25)
    assert 1000 <= (time.time_ns() - other.start_time) / 1e9 < 1010


def test_the_latest_episodes_keep_their_count_and_their_dtypes():
    model, other = learning(stats_window_size=3), learning(stats_window_size=3)
    # VecMonitor's rewards are float32, and their mean differs from the mean of Python's floats.
    rewards = [np.float32(0.1), np.float32(0.7), np.float32(0.3)]
    model.ep_info_buffer.extend({"r": reward, "l": np.int32(4), "t": 1.0, "more": object()} for reward in rewards)
    model.ep_success_buffer.extend([True, np.bool_(False)])
    set_model_state(other, through_json(model_state(model)))
    assert [info["r"] for info in other.ep_info_buffer] == rewards
    assert {type(info["r"]) for info in other.ep_info_buffer} == {np.float32}
    assert set(other.ep_info_buffer[0]) == {"r", "l", "t"}
    other.ep_info_buffer.append({"r": 1.0})
    assert len(other.ep_info_buffer) == 3
    assert other.ep_success_buffer == deque([True, False])
    assert other.ep_success_buffer.maxlen == 3


def test_counters_of_another_algorithm_are_left_out():
    model = learning()
    state = through_json(model_state(model))
    state["counters"]["exploration_rate"] = 0.5
    set_model_state(model, state)
    assert not hasattr(model, "exploration_rate")
