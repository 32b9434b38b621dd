"""What is saved while a training runs is whole, and a full disk does not end the training."""

import errno
import os

import numpy as np
import pytest
from stable_baselines3 import TD3
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_visual_td3.callbacks.event_writer import EventWriter
from sb3_visual_td3.callbacks.saving import (
    AtomicEvalCallback,
    RetryingFile,
    Saver,
    first_waiting,
    make_event_files_retry,
    with_atomic_files,
    with_retrying_monitor,
)
from sb3_visual_td3.common import tags
from sb3_visual_td3.training_state.callback_state import callbacks_state
from tests.killed_runs import scalars_of_run
from tests.training_state.small_envs import StatefulEnv


def td3(env=None):
    settings = {"buffer_size": 60, "learning_starts": 10, "batch_size": 4, "seed": 0, "device": "cpu"}
    return TD3("MlpPolicy", env or DummyVecEnv([StatefulEnv]), policy_kwargs={"net_arch": [4]}, **settings)


@pytest.fixture
def disk(monkeypatch):
    """Return a disk that can be full: it accepts half of the next write, and then nothing."""
    really_write, room = os.write, [None]

    def write(handle, data):
        if handle > 2 and room[0] is not None:
            part = bytes(data)[: room[0]]
            room[0] = 0
            if not part:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return really_write(handle, part)
        return really_write(handle, data)

    monkeypatch.setattr(os, "write", write)
    return room


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_file_that_cannot_be_written_is_reported_once_and_the_old_one_stays(tmp_path, capsys):
    saver, path = Saver(), tmp_path / "best_model.zip"

    def cut(begun):
        begun.write_bytes(b"PK")
        full()

    assert saver.save(path, lambda begun: begun.write_bytes(b"old"))
    assert not saver.save(path, cut)
    assert not saver.save(path, cut)
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["best_model.zip"]
    (line,) = capsys.readouterr().err.splitlines()
    assert "best_model.zip could not be written: [Errno 28] No space left on device; training continues" in line


def test_log_lines_that_a_full_disk_refuses_are_written_later(tmp_path, disk, capsys):
    file = RetryingFile(str(tmp_path / "log"), "the log")
    file.write(b"one ")
    disk[0] = 2
    file.write(b"two ")
    file.write("three ")
    assert (tmp_path / "log").read_bytes() == b"one tw"
    assert first_waiting() is file
    disk[0] = None
    assert first_waiting() is None
    file.write(b"four")
    file.close()
    assert (tmp_path / "log").read_text() == "one two three four"
    (line,) = capsys.readouterr().err.splitlines()
    assert "the log" in line
    assert "No space left on device" in line


def test_event_files_are_complete_after_the_disk_was_full(tmp_path, disk):
    logger = configure(str(tmp_path), ["tensorboard"])
    writer = EventWriter(logger)
    assert len(make_event_files_retry(logger)) == 1
    for step in range(6):
        disk[0] = 5 if 2 <= step < 4 else None
        writer.write({tags.EVAL_REWARD: float(step)}, step)
        logger.record("own", step)
        logger.dump(step)
    logger.close()
    assert scalars_of_run(tmp_path)[tags.EVAL_REWARD] == [(step, float(step)) for step in range(6)]
    assert scalars_of_run(tmp_path)["own"] == [(step, float(step)) for step in range(6)]


def test_the_monitor_file_is_complete_after_the_disk_was_full(tmp_path, disk):
    def episodes(env, fills):
        env.reset(seed=0)
        for step in range(40):
            disk[0] = 3 if fills and 10 < step < 30 else None
            _, _, terminated, truncated, _ = env.step(env.action_space.sample() * 0)
            if terminated or truncated:
                env.reset(seed=step)
        disk[0] = None
        env.close()

    episodes(Monitor(StatefulEnv(), str(tmp_path / "plain")), fills=False)
    episodes(with_retrying_monitor(Monitor(StatefulEnv(), str(tmp_path / "patient"))), fills=True)
    one, other = ((tmp_path / f"{name}.monitor.csv").read_text().splitlines() for name in ("plain", "patient"))
    assert len(one) == len(other) > 4
    assert [line.split(",")[:2] for line in one[1:]] == [line.split(",")[:2] for line in other[1:]]


class Records(BaseCallback):
    def _on_step(self):
        return True


def evaluation(folder):
    env = make_vec_env(StatefulEnv, 1, seed=9)
    return EvalCallback(env, Records(), Records(), 2, 10, str(folder), str(folder), verbose=0)


def test_an_evaluation_writes_the_same_files_as_stable_baselines3(tmp_path):
    plain, ours = evaluation(tmp_path / "plain"), with_atomic_files(evaluation(tmp_path / "whole"))
    assert type(ours) is AtomicEvalCallback
    assert ours.callback_on_new_best.parent is ours
    for callback in (plain, ours):
        td3().learn(40, callback=callback)
    one, other = (np.load(tmp_path / name / "evaluations.npz") for name in ("plain", "whole"))
    assert one.files == other.files
    for name in one.files:
        np.testing.assert_array_equal(one[name], other[name])
    assert (tmp_path / "plain" / "best_model.zip").exists()
    assert (tmp_path / "whole" / "best_model.zip").exists()
    assert plain.callback_on_new_best.n_calls == ours.callback_on_new_best.n_calls >= 1
    assert plain.callback.n_calls == ours.callback.n_calls == 4
    assert callbacks_state(plain) == callbacks_state(ours), "a snapshot of one class resumes the other"


@pytest.mark.parametrize("make", [evaluation, lambda folder: CheckpointCallback(10, str(folder), "rl")])
def test_a_full_disk_neither_ends_the_training_nor_damages_a_file(tmp_path, monkeypatch, capsys, make):
    really_sync, n_steps = os.fsync, [0]

    class Counts(BaseCallback):
        def _on_step(self):
            n_steps[0] += 1
            return True

    monkeypatch.setattr(os, "fsync", lambda handle: full() if 15 < n_steps[0] < 35 else really_sync(handle))
    td3().learn(40, callback=[Counts(), with_atomic_files(make(tmp_path))])
    assert n_steps[0] == 40
    said = capsys.readouterr().err.splitlines()
    assert len(said) == len(set(said))
    assert all("No space left on device; training continues" in line for line in said)
    assert len(said) >= 1
    for path in tmp_path.glob("*.zip"):
        TD3.load(path, device="cpu")
    assert not list(tmp_path.glob(".*"))
    if make is evaluation:
        assert np.load(tmp_path / "evaluations.npz")["timesteps"].tolist() == [10, 20, 30, 40]


def test_a_users_subclass_of_checkpoint_callback_is_not_replaced():
    class Own(CheckpointCallback):
        pass

    own = Own(10, "nowhere")
    assert with_atomic_files(own) is own
