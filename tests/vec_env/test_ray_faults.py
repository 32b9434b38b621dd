"""Test what the learner receives when an environment dies, hangs or is late, and that the others continue."""

import logging
import os
import signal
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from stable_baselines3 import TD3
from stable_baselines3.common.vec_env import VecFrameStack

from sb3_visual_td3 import VisualTD3
from sb3_visual_td3.buffers.valid_transitions import ValidReplayBuffer
from sb3_visual_td3.vec_env.ray_vec_env import _all_done
from tests.vec_env.envs import CountEnv, DiesOnResetEnv, make_drive

pytestmark = pytest.mark.ray
ZERO = np.zeros((2, 1), np.float32)
IN_TIME_S = 300.0
"""A deadline that no healthy environment misses, however busy the machine is."""


def kill(env, index):
    os.kill(env.places[index][1], signal.SIGKILL)


def assert_died(answer, index, n_before):
    """Assert that only environment ``index`` died, after ``n_before`` steps, and that its episode was truncated."""
    observations, rewards, dones, infos = answer
    assert observations[index][0] == 0
    assert rewards[index] == 0.0
    assert dones.tolist() == [each == index for each in range(2)]
    info = infos[index]
    assert info["invalid_transition"]
    assert info["TimeLimit.truncated"]
    assert "Actor" in info["simulator_failure"]
    assert "\n" not in info["simulator_failure"]
    assert info["terminal_observation"][0] == n_before
    assert info["terminal_observation"].flags.writeable
    assert "invalid_transition" not in infos[1 - index]


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("moment", ["between steps", "within a step"])
def test_a_dead_environment_is_restarted_and_its_episode_truncated(moment, direct, make_vec, caplog):
    env = make_vec([CountEnv, CountEnv], direct=direct)
    env.seed(3)
    env.reset()
    env.set_attr("slow_s", 0.001)
    for _ in range(4):
        env.step(ZERO)
    pids = [pid for _, pid in env.places]
    with caplog.at_level(logging.WARNING, "sb3_visual_td3"):
        if moment == "between steps":
            kill(env, 1)
        else:
            env.env_method("__setattr__", "mood", "dying", indices=1)
        answer = env.step(ZERO + 0.5)
    assert_died(answer, 1, 4)
    assert answer[0][0][0] == 5
    assert answer[1][0] == 0.5
    assert caplog.text.count("restarting environment 1: ") == 1
    assert env.n_rebuilds == 1
    assert env.get_attr("slow_s") == [0.001] * 2  # as set before
    new_pids = [pid for _, pid in env.places]
    assert new_pids[0] == pids[0]
    assert new_pids[1] != pids[1]
    observations, rewards, dones, infos = env.step(ZERO + 0.5)
    assert observations[:, 0].tolist() == [6, 1]
    assert rewards.tolist() == [0.5, 0.5]
    assert not dones.any()
    assert not any("invalid_transition" in info for info in infos)


def test_a_restarted_environment_does_not_repeat_its_first_episodes(make_vec):
    env = make_vec([CountEnv])
    env.seed(3)
    env.reset()
    seeds = [3]
    for _ in range(2):
        kill(env, 0)
        env.step(ZERO[:1])
        seeds += env.get_attr("seeds")[0]
    assert len(set(seeds)) == 3
    assert None not in seeds


def test_a_call_to_a_dead_environment_is_answered_by_the_new_one(make_vec):
    env = make_vec([CountEnv, CountEnv])
    env.reset()
    env.step(ZERO)
    kill(env, 0)
    assert env.get_attr("n") == [0, 1]
    assert_died(env.step(ZERO), 0, 1)


def test_an_environment_that_dies_while_it_is_reset_is_reset_with_the_same_seed(make_vec, tmp_path):
    env = make_vec([partial(DiesOnResetEnv, str(tmp_path / "sign")), CountEnv])
    env.seed(11)
    assert env.reset()[:, 0].tolist() == [0, 0]
    assert env.get_attr("seeds") == [[11], [12]]
    assert env.n_rebuilds == 1
    assert not env.step(ZERO)[2].any()


def test_an_environment_that_always_dies_raises(make_vec, monkeypatch):
    monkeypatch.setattr("sb3_visual_td3.vec_env.env_slot.MAX_DEATHS_IN_A_ROW", 1)
    env = make_vec([CountEnv])
    env.reset()
    env.set_attr("mood", "dying")  # so is the next one's
    env.step(ZERO[:1])
    with pytest.raises(RuntimeError, match="environment 0 died 2 times in a row"):
        env.step(ZERO[:1])


def test_an_environment_that_hangs_is_restarted(make_vec):
    env = make_vec([CountEnv, CountEnv])
    env.reset()
    env.step(ZERO)
    env.env_method("__setattr__", "slow_s", 1_000.0, indices=0)
    hanging = env.places[0][1]
    begin = time.monotonic()
    # A new process takes longer than this on a busy machine: only the wait for this step is short.
    env.step_async(ZERO)
    env._slots[0]._gives_up_at = begin + 2.0
    _, _, dones, infos = env.step_wait()
    assert time.monotonic() - begin >= 2.0
    assert dones.tolist() == [True, False]
    assert infos[0]["simulator_failure"] == "no answer in patience_s=900 s"
    while Path(f"/proc/{hanging}").exists() and "State:\tZ" not in Path(f"/proc/{hanging}/status").read_text():
        assert time.monotonic() - begin < 300.0
        time.sleep(0.1)


@pytest.mark.parametrize("direct", [True, False])
def test_the_learner_waits_for_stragglers_until_the_deadline_only(direct, make_vec, tmp_path):
    env = make_vec([CountEnv, CountEnv], direct=direct, deadline_s=IN_TIME_S)
    env.reset()
    env.step(ZERO)
    env.set_attr("ends_with", str(tmp_path / "now"), indices=0)
    env._deadline_s = 0.5
    for n_late in range(1, 4):
        # A learner that waited for the straggler would wait for ever.
        observations, rewards, dones, infos = env.step(ZERO + 0.5)
        assert not dones.any()
        assert "invalid_transition" not in infos[1]
        assert observations[1][0] == 1 + n_late
        assert infos[0]["invalid_transition"]
        assert infos[0]["is_late"]
        assert observations[0][0] == 1  # the last one again
        assert rewards[0] == 0.0
    (tmp_path / "now").touch()
    env.set_attr("ends_with", None, indices=0)  # waits until the late step is made
    env._deadline_s = IN_TIME_S
    observations, rewards, _, infos = env.step(ZERO)
    assert observations[0][0] == 2
    assert infos[0]["invalid_transition"]  # it was made with an action of three steps ago
    assert rewards[0] == 0.5
    observations, _, _, infos = env.step(ZERO)
    assert observations[0][0] == 3
    assert "invalid_transition" not in infos[0]
    assert env.n_late_steps == 3


def test_with_a_deadline_the_others_continue_while_one_is_restarted(make_vec):
    env = make_vec([CountEnv, CountEnv], deadline_s=IN_TIME_S)
    env.reset()
    for _ in range(3):
        env.step(ZERO)
    kill(env, 0)
    env._deadline_s = 0.05  # many of these pass while a process starts
    n_others, last = 0, None
    begin = time.monotonic()
    while time.monotonic() - begin < 300.0:  # a busy machine takes its time to start a process
        last = env.step(ZERO)
        assert "invalid_transition" not in last[3][1]
        if last[2][0]:
            break
        n_others += 1
        assert last[3][0].get("invalid_transition") or last[0][0][0] <= 3
        time.sleep(0.01)
    assert n_others > 3
    assert_died(last, 0, 3)
    assert last[0][1][0] == 3 + n_others + 1


def test_the_learner_waits_for_at_least_one_answer(make_vec):
    env = make_vec([CountEnv, CountEnv], deadline_s=0.05)
    env.reset()
    env.set_attr("slow_s", 0.5)
    _, _, _, infos = env.step(ZERO)
    assert sum("invalid_transition" not in info for info in infos) >= 1


@pytest.mark.parametrize("overlap", [False, True])
def test_training_continues_and_no_invalid_step_is_stored(overlap, make_vec):
    env = make_vec([make_drive, make_drive])
    model = VisualTD3(
        "CnnPolicy", env, buffer_size=400, learning_starts=20, batch_size=8, train_freq=4, seed=0, overlap=overlap
    )

    def kill_one(*_):
        if model.num_timesteps == 40:
            kill(env, 1)
        return True

    model.learn(96, callback=kill_one)
    assert env.n_rebuilds == 1
    assert model.num_timesteps == 96
    rewards = model.replay_buffer.rewards[: model.replay_buffer.pos]
    assert len(rewards) == 48
    assert (rewards != 0.0).all()  # no step of this world is worth exactly nothing


@pytest.mark.parametrize("buffer_class", [None, ValidReplayBuffer])
def test_a_late_answer_is_never_stored_with_another_action(buffer_class, make_vec):
    env = make_vec([CountEnv, CountEnv], deadline_s=0.03)
    settings = {"buffer_size": 600, "learning_starts": 1_000, "seed": 0, "replay_buffer_class": buffer_class}
    model = (VisualTD3 if buffer_class is None else TD3)("MlpPolicy", env, **settings)
    slow = iter([0.0, 0.1] * 100)

    def dawdle(*_):
        if model.num_timesteps % 20 == 0:
            env.env_method("__setattr__", "slow_s", next(slow), indices=0)
        return True

    model.learn(200, callback=dawdle)
    buffer = model.replay_buffer
    assert env.n_late_steps > 10
    assert buffer.pos == 100  # in each, one of the two was valid
    actions, rewards = buffer.actions[: buffer.pos, :, 0], buffer.rewards[: buffer.pos]
    assert np.array_equal(actions.astype(np.float32), rewards.astype(np.float32))  # CountEnv's reward is its action


def test_every_answer_is_fetched_even_if_one_is_an_error():
    called = []

    def call(index):
        called.append(index)
        if index in {1, 2}:
            raise ValueError(f"of {index}")
        return index

    with pytest.raises(ValueError, match="of 1"):
        _all_done([partial(call, index) for index in range(4)])
    assert called == [0, 1, 2, 3]
    assert _all_done([partial(call, 0), partial(call, 3)]) == [0, 3]


def test_after_a_restart_vec_frame_stack_holds_no_frames_of_the_dead_environment(make_vec):
    env = VecFrameStack(make_vec([CountEnv, CountEnv]), n_stack=2)
    env.reset()
    for _ in range(3):
        env.step(ZERO)
    kill(env.venv, 1)
    observations, _, _, infos = env.step(ZERO)
    assert observations[1][0] == 0.0
    assert observations[1][2] == 0.0
    assert infos[1]["terminal_observation"][[0, 2]].tolist() == [3.0, 3.0]
