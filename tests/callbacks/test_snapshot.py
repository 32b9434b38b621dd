"""Test that a script with SnapshotCallback continues when it is called again."""

import errno
import json
import os

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO, SAC, TD3
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import configure
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecNormalize

from sb3_visual_td3 import ExplosionAlertCallback, SnapshotCallback, VisualTD3
from sb3_visual_td3.callbacks import snapshot as snapshot_module
from sb3_visual_td3.callbacks.run_files import find_run_files
from sb3_visual_td3.runs import run_lock as run_lock_module
from sb3_visual_td3.runs.snapshot import SnapshotError
from sb3_visual_td3.runs.snapshot_store import SnapshotStore
from tests.image_env import ImageEnv
from tests.killed_runs import assert_same_scalars, episodes_in, scalars_of_run
from tests.training_state.small_envs import ForgetfulEnv, StatefulEnv, StatefulImageEnv

SMALL = {"buffer_size": 60, "learning_starts": 10, "batch_size": 4, "seed": 0, "device": "cpu"}


class Killed(BaseException):
    """Stands for a SIGKILL: training code does not catch this exception."""


class Kill(BaseCallback):
    def __init__(self, at):
        super().__init__()
        self.at = at

    def _on_step(self):
        if self.num_timesteps >= self.at:
            raise Killed
        return True


class Records(BaseCallback):
    """Adds to a mean that the logger keeps until the next dump."""

    def _on_step(self):
        self.logger.record_mean("own/reward", float(self.locals["rewards"].mean()))
        return True


def vector_td3(tb=None, **kwargs):
    return TD3("MlpPolicy", DummyVecEnv([StatefulEnv]), tensorboard_log=tb, **{**SMALL, **kwargs})


def vector_sac(tb=None):
    env = VecNormalize(make_vec_env(StatefulEnv, 2, seed=1))
    return SAC("MlpPolicy", env, tensorboard_log=tb, train_freq=3, gradient_steps=2, **SMALL)


def stacked_visual_td3(tb=None):
    env = VecFrameStack(VecNormalize(DummyVecEnv([StatefulImageEnv]), norm_obs=False), 3)
    kwargs = {"policy_kwargs": {"net_arch": [8], "trunk_dim": 4}, "n_steps": 3}
    return VisualTD3("CnnPolicy", env, tensorboard_log=tb, **SMALL, **kwargs)


def driving(tb=None, monitor_dir=None):
    kwargs = {"image_size": 48}
    env = make_vec_env("LiteDriving-v0", 1, seed=2, monitor_dir=monitor_dir, env_kwargs=kwargs)
    return VisualTD3("CnnPolicy", env, policy_kwargs={"net_arch": [8]}, tensorboard_log=tb, **SMALL)


def weights(model):
    return model.get_parameters()


def assert_equal(one, other):
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, th.Tensor):
        assert th.equal(one, other)
    else:
        assert one == other


@pytest.mark.parametrize("make", [vector_td3, vector_sac, stacked_visual_td3, driving])
def test_a_script_that_is_called_again_continues_where_it_was_killed(tmp_path, make):
    def script(folder, kill_at=None):
        model = make(tb=str(folder / "tb"))
        callbacks = [Kill(kill_at)] if kill_at else []
        snapshots = SnapshotCallback(save_freq=20, run_dir=folder, resume=True, verbose=0)
        model.learn(90, callback=[Records(), *callbacks, snapshots], log_interval=2)
        return model

    whole = script(tmp_path / "whole")
    for kill_at in (1, 33, 47, 81):
        with pytest.raises(Killed):
            script(tmp_path / "killed", kill_at)
    resumed = script(tmp_path / "killed")

    assert_equal(weights(whole), weights(resumed))
    assert whole.num_timesteps == resumed.num_timesteps >= 90
    assert_equal(whole.replay_buffer.rewards.tolist(), resumed.replay_buffer.rewards.tolist())
    assert len(list((tmp_path / "killed" / "tb").iterdir())) == 1, "one folder of event files"
    assert_same_scalars(tmp_path / "whole" / "tb", tmp_path / "killed" / "tb", at_least=3)


@pytest.mark.parametrize("make", [vector_td3, stacked_visual_td3])
def test_taking_snapshots_does_not_change_the_training(tmp_path, make):
    plain = make()
    plain.learn(60)
    watched = make()
    watched.learn(60, callback=SnapshotCallback(save_freq=7, run_dir=tmp_path))
    assert_equal(weights(plain), weights(watched))
    assert len(list((tmp_path / "snapshots").glob("step_*"))) == 2


def test_the_model_in_a_snapshot_loads(tmp_path):
    model = stacked_visual_td3()
    model.learn(40, callback=SnapshotCallback(save_freq=40, run_dir=tmp_path, keep=1))
    snapshot = SnapshotStore(tmp_path / "snapshots").newest()
    assert VisualTD3.load(snapshot.file("model.zip")).num_timesteps == snapshot.step


def test_a_schedule_and_an_evaluation_continue(tmp_path):
    """The environment of SB3's EvalCallback continues as well."""

    def script(folder, kill_at=None):
        model = vector_td3(str(folder / "tb"), learning_rate=LinearSchedule(1e-3, 1e-4, 1.0))
        evaluation = EvalCallback(make_vec_env(StatefulEnv, 1, seed=9), eval_freq=25, log_path=folder, verbose=0)
        callbacks = [Kill(kill_at)] if kill_at else []
        model.learn(100, callback=[evaluation, *callbacks, SnapshotCallback(10, folder, resume=True, verbose=0)])

    script(tmp_path / "whole")
    with pytest.raises(Killed):
        script(tmp_path / "killed", 66)
    script(tmp_path / "killed")
    one, other = (np.load(tmp_path / name / "evaluations.npz") for name in ("whole", "killed"))
    assert one["timesteps"].tolist() == [25, 50, 75, 100]
    for name in one.files:
        np.testing.assert_array_equal(one[name], other[name])


def test_an_environment_without_a_state_begins_a_new_episode_with_a_message(tmp_path, capsys):
    def script(kill_at=None):
        model = VisualTD3("CnnPolicy", ImageEnv(), n_steps=3, policy_kwargs={"net_arch": [8]}, **SMALL)
        callbacks = [Kill(kill_at)] if kill_at else []
        model.learn(60, callback=[*callbacks, SnapshotCallback(20, tmp_path, resume=True)])
        return model

    with pytest.raises(Killed):
        script(45)
    model = script()
    said = capsys.readouterr().out
    assert "resumed at step 40 of 60" in said
    assert "ImageEnv has no get_state()/set_state(): a new episode begins" in said
    assert model.replay_buffer.segment_ends[39, 0], "no return runs on from the old episode into the new one"


def test_sb3s_buffer_marks_a_timeout_where_a_resumed_run_begins_a_new_episode(tmp_path, capsys):
    def script(kill_at=None):
        model = TD3("MlpPolicy", DummyVecEnv([ForgetfulEnv]), n_steps=3, **SMALL)
        callbacks = [Kill(kill_at)] if kill_at else []
        model.learn(40, callback=[*callbacks, SnapshotCallback(20, tmp_path, resume=True)])
        return model

    with pytest.raises(Killed):
        script(25)
    buffer = script().replay_buffer
    assert "ForgetfulEnv has no get_state()/set_state()" in capsys.readouterr().out
    assert not buffer.timeouts[18, 0]
    assert buffer.timeouts[19, 0]


@pytest.mark.parametrize("make", [vector_td3, vector_sac, stacked_visual_td3])
def test_a_finished_script_that_is_called_again_has_its_model_and_trains_nothing(tmp_path, capsys, make):
    def script():
        model = make(tb=str(tmp_path / "tb"))
        steps = Records()
        callbacks = [steps, SnapshotCallback(save_freq=20, run_dir=tmp_path, resume=True)]
        model.learn(50, callback=callbacks, log_interval=2)
        return model, steps

    whole, _ = script()
    logged = scalars_of_run(tmp_path / "tb")
    capsys.readouterr()
    again, steps = script()
    said = capsys.readouterr().out
    assert f"{tmp_path} is finished: all" in said
    assert "nothing left to train" in said
    assert_equal(weights(whole), weights(again))
    assert again.num_timesteps == whole.num_timesteps
    assert again.replay_buffer.size() == whole.replay_buffer.size()
    assert steps.locals.get("actions") is None, "no step was made"
    assert scalars_of_run(tmp_path / "tb") == logged


def test_a_training_that_a_callback_stopped_has_no_snapshot_of_its_end(tmp_path):
    """The last transition is not stored, and the earlier snapshot can be resumed."""

    class Stop(BaseCallback):
        def _on_step(self):
            return self.num_timesteps < 33

    vector_td3().learn(50, callback=[Stop(), SnapshotCallback(20, tmp_path)])
    assert [found.step for found in SnapshotStore(tmp_path / "snapshots").all()] == [0, 20]


def test_a_callback_list_can_be_used_again_after_an_exception(tmp_path, capsys):
    kill = Kill(30)
    callbacks = CallbackList([kill, SnapshotCallback(20, tmp_path)])
    with pytest.raises(Killed):
        vector_td3().learn(50, callback=callbacks)
    kill.at = 1_000
    callbacks.callbacks[1].resume = True
    vector_td3().learn(50, callback=callbacks)
    assert "resumed at step 20 of 50" in capsys.readouterr().out
    assert "on_training_end" not in vars(callbacks)
    assert SnapshotStore(tmp_path / "snapshots").newest().step == 50


def test_a_second_run_after_an_exception_does_not_touch_the_snapshots_of_the_first(tmp_path):
    kill = Kill(30)
    callbacks = [kill, SnapshotCallback(20, tmp_path)]
    with pytest.raises(Killed):
        vector_td3().learn(50, callback=callbacks)
    kill.at = 1_000
    with pytest.raises(ValueError, match="holds snapshots of another run, up to step 20"):
        vector_td3(seed=1).learn(50, callback=callbacks)
    assert [found.step for found in SnapshotStore(tmp_path / "snapshots").all()] == [0, 20]


def test_a_second_run_after_an_exception_has_a_folder_of_its_own(tmp_path):
    kill = Kill(30)
    callbacks = [kill, SnapshotCallback(20)]
    with pytest.raises(Killed):
        vector_td3(str(tmp_path)).learn(50, callback=callbacks)
    kill.at = 1_000
    vector_td3(str(tmp_path), seed=1).learn(50, callback=callbacks)
    steps = {n: [found.step for found in SnapshotStore(tmp_path / n / "snapshots").all()] for n in ("TD3_1", "TD3_2")}
    assert steps == {"TD3_1": [0, 20], "TD3_2": [40, 50]}


def test_a_list_of_callbacks_can_be_used_for_a_second_run(tmp_path):
    model = vector_td3(str(tmp_path / "tb"))
    alerts = ExplosionAlertCallback(verbose=0, check_freq=1_000)
    callbacks = [Kill(1_000), alerts, SnapshotCallback(20, tmp_path / "first")]
    model.learn(25, callback=callbacks)
    callbacks[0].at, callbacks[-1].run_dir = 10, tmp_path / "second"
    with pytest.raises(Killed):
        model.learn(25, callback=callbacks)
    # The callbacks of the earlier trainings are no callbacks of this one.
    callbacks[-1].release()
    callbacks[-1].run_dir = tmp_path / "third"
    model.learn(25, callback=callbacks[-1])
    assert SnapshotStore(tmp_path / "third" / "snapshots").newest().step == 25


def test_a_run_whose_path_contains_a_link_continues(tmp_path):
    """The folder of the log has another path than the run's, because one of them contains the link."""
    (tmp_path / "some" / "real" / "disk").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "some" / "real" / "disk")
    run_dir = tmp_path / "link" / "run"

    def script(kill_at=None):
        model = vector_td3()
        model.set_logger(configure(str(tmp_path / "some" / "real" / "disk" / "run"), ["csv", "tensorboard"]))
        (run_dir / "alerts.jsonl").touch()
        callbacks = [Kill(kill_at)] if kill_at else []
        model.learn(50, callback=[*callbacks, SnapshotCallback(20, run_dir, resume=True)], log_interval=1)

    with pytest.raises(Killed):
        script(45)
    texts = SnapshotStore(run_dir / "snapshots").newest().state["files"]["texts"]
    assert set(texts) == {"alerts.jsonl", "progress.csv"}
    script()
    assert (run_dir / "until_000000040.progress.csv").is_file()


def test_a_snapshot_that_names_a_log_by_its_real_path_is_resumed(tmp_path):
    """Version 0.3.0 wrote such names if the run's path contained a link."""
    (tmp_path / "some" / "real" / "disk").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "some" / "real" / "disk")
    run_dir = tmp_path / "link" / "run"
    run_dir.mkdir()
    (run_dir / "alerts.jsonl").write_text("before\nsince\n")
    name = os.path.relpath(run_dir.resolve() / "alerts.jsonl", run_dir)
    assert name.startswith("..")
    state = {"event_dir": None, "event_files": {}, "texts": {name: np.frombuffer(b"before\n", np.uint8)}}
    find_run_files(run_dir, state, None).cut_back(configure(None, []), 20)
    assert (run_dir / "alerts.jsonl").read_text() == "before\n"


def test_a_snapshot_records_package_versions_and_a_resumed_run_reports_changes(tmp_path, monkeypatch, capsys):
    with pytest.raises(Killed):
        vector_td3().learn(50, callback=[Kill(45), SnapshotCallback(20, tmp_path)])
    versions = SnapshotStore(tmp_path / "snapshots").newest().versions
    assert versions["torch"] == th.__version__.split("+")[0] or versions["torch"] == th.__version__
    assert {"numpy", "stable-baselines3", "gymnasium"} <= versions.keys()
    monkeypatch.setattr(snapshot_module, "package_versions", lambda: {**versions, "torch": "0.1"})
    vector_td3().learn(50, callback=SnapshotCallback(20, tmp_path, resume=True))
    said = capsys.readouterr().out
    assert f"packages have changed since the snapshot (torch {versions['torch']} -> 0.1)" in said


def test_a_resumed_snapshot_is_not_saved_again(tmp_path):
    with pytest.raises(Killed):
        vector_td3().learn(50, callback=[Kill(43), SnapshotCallback(20, tmp_path)])
    folder = tmp_path / "snapshots" / "step_000000040"
    before = folder.stat().st_ino
    with pytest.raises(Killed):
        vector_td3().learn(50, callback=[Kill(45), SnapshotCallback(20, tmp_path, resume=True)])
    assert folder.stat().st_ino == before


@pytest.mark.slow
def test_files_that_the_script_overwrites_are_kept_beside_the_new_ones(tmp_path, capsys):
    """Before training starts, make_vec_env() overwrites Monitor's file and configure() overwrites the CSV log."""

    def script(folder, kill_at=None):
        model = driving(monitor_dir=str(folder))
        model.set_logger(configure(str(folder), ["csv", "tensorboard"]))
        callbacks = [Kill(kill_at)] if kill_at else []
        model.learn(300, callback=[*callbacks, SnapshotCallback(60, folder, resume=True)], log_interval=1)

    script(tmp_path / "whole")
    with pytest.raises(Killed):
        script(tmp_path / "killed", 190)
    script(tmp_path / "killed")
    assert len(episodes_in(tmp_path / "whole")) >= 4
    assert sorted(episodes_in(tmp_path / "whole")) == sorted(episodes_in(tmp_path / "killed"))
    assert "0.monitor.csv was overwritten" in capsys.readouterr().out
    assert (tmp_path / "killed" / "until_000000180.progress.csv").is_file()
    assert_same_scalars(tmp_path / "whole", tmp_path / "killed", at_least=5)


def test_the_newest_good_snapshot_is_resumed_if_the_last_is_damaged(tmp_path, capsys):
    with pytest.raises(Killed):
        vector_td3().learn(50, callback=[Kill(45), SnapshotCallback(20, tmp_path)])
    model_path = tmp_path / "snapshots" / "step_000000040" / "model.zip"
    model_path.write_bytes(model_path.read_bytes()[:-100])
    resumed = vector_td3()
    resumed.learn(50, callback=SnapshotCallback(20, tmp_path, resume=True))
    said = capsys.readouterr().out
    assert "skipped step_000000040: model.zip is damaged" in said
    assert "resumed at step 20 of 50" in said
    whole = vector_td3()
    whole.learn(50)
    assert_equal(weights(whole), weights(resumed))


def test_a_full_disk_neither_stops_the_training_nor_damages_a_snapshot(tmp_path, monkeypatch, capsys):
    really_write, is_full = os.write, [False]

    def write(handle, data):
        if is_full[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return really_write(handle, data)

    class FullBetween(BaseCallback):
        def _on_step(self):
            is_full[0] = 30 <= self.num_timesteps < 60
            return True

    monkeypatch.setattr(os, "write", write)
    model = vector_td3()
    model.learn(90, callback=[FullBetween(), SnapshotCallback(20, tmp_path)])
    monkeypatch.undo()

    assert model.num_timesteps == 90
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("snapshot: ")]
    assert len(lines) == 1
    assert "No space left on device" in lines[0]
    assert "the last good snapshot is step 20" in lines[0]
    assert "training continues" in lines[0]
    assert [found.step for found in SnapshotStore(tmp_path / "snapshots").all()] == [80, 90]
    resumed = vector_td3()
    resumed.learn(90, callback=SnapshotCallback(20, tmp_path, resume=True, verbose=0))
    assert_equal(weights(model), weights(resumed))


def test_a_disk_that_is_full_from_the_start_is_an_error_before_the_first_step(tmp_path, monkeypatch):
    def write(handle, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", write)
    model = vector_td3()
    with pytest.raises(SnapshotError, match="No space left on device"):
        model.learn(30, callback=SnapshotCallback(10, tmp_path))
    assert model.num_timesteps == 0


class SuccessEnv(StatefulEnv):
    """Reports the success of an episode by any value."""

    def __init__(self, success):
        self.success = success

    def step(self, action):
        return *super().step(action)[:4], {"is_success": self.success}


def learn_with_success(folder, success):
    model = TD3("MlpPolicy", DummyVecEnv([lambda: SuccessEnv(success)]), **SMALL)
    return model.learn(30, callback=SnapshotCallback(10, folder))


def test_a_value_that_cannot_be_saved_and_appears_later_does_not_end_the_training(tmp_path, capsys):
    model = learn_with_success(tmp_path, {1, 2})
    assert model.num_timesteps == 30
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("snapshot: ")]
    assert lines
    assert all("cannot be saved: ep_success_buffer[0]" in line and "training continues" in line for line in lines)
    assert [found.step for found in SnapshotStore(tmp_path / "snapshots").all()] == [0]


def test_success_may_be_a_tensor(tmp_path, capsys):
    learn_with_success(tmp_path, th.tensor(True))
    assert capsys.readouterr().err == ""
    snapshot = SnapshotStore(tmp_path / "snapshots").newest()
    assert snapshot.step == 30
    # Episodes end at the steps 9, 18 and 27.
    assert snapshot.state["training"]["model"]["ep_success_buffer"] == [True] * 3


class WideEnv(StatefulEnv):
    observation_space = spaces.Box(-1, 1, (5,), np.float32)

    def _observation(self):
        return np.zeros(5, np.float32)


def _learn_again(folder, model, total=50, **kwargs):
    model.learn(total, callback=SnapshotCallback(20, folder, resume=True, **kwargs))


@pytest.mark.parametrize(
    ("again", "message"),
    [
        (lambda: TD3("MlpPolicy", DummyVecEnv([WideEnv]), **SMALL), r"observation_space: the snapshot has Box\(3,"),
        (lambda: vector_td3(learning_rate=3e-4), r"learning_rate was 0.001 in the snapshot, is 0.0003"),
        (lambda: vector_td3(policy_kwargs={"net_arch": [8]}), "policy_kwargs"),
        (lambda: vector_td3(buffer_size=61), "buffer_size was 60 in the snapshot, is 61"),
        (lambda: SAC("MlpPolicy", DummyVecEnv([StatefulEnv]), **SMALL), "algorithm was"),
    ],
)
def test_other_settings_are_refused_and_nothing_is_lost(tmp_path, again, message):
    vector_td3(str(tmp_path / "tb")).learn(50, callback=SnapshotCallback(20, tmp_path))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=message):
        _learn_again(tmp_path, again())
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    _learn_again(tmp_path, vector_td3())


def test_another_number_of_steps_is_refused(tmp_path):
    vector_td3().learn(50, callback=SnapshotCallback(20, tmp_path))
    with pytest.raises(ValueError, match="was started with 50 steps, but this call has 80"):
        _learn_again(tmp_path, vector_td3(), total=80)


def test_a_new_run_refuses_a_folder_with_another_runs_snapshots_and_keeps_them(tmp_path):
    vector_td3().learn(50, callback=SnapshotCallback(20, tmp_path))
    snapshots = files_in(tmp_path / "snapshots")
    with pytest.raises(ValueError, match=r"snapshots of another run, up to step 50.*resume=True"):
        vector_td3(seed=1).learn(70, callback=SnapshotCallback(20, tmp_path))
    assert not [lock for lock in run_lock_module._held if lock.path.is_relative_to(tmp_path)]
    assert any("step_000000050" in path.parts for path in snapshots)
    assert files_in(tmp_path / "snapshots") == snapshots


def files_in(folder):
    """Return the content of every file in a folder and its subfolders."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_foreign_snapshot_is_refused(tmp_path):
    vector_td3().learn(50, callback=SnapshotCallback(20, tmp_path, keep=1))
    record = tmp_path / "snapshots" / "step_000000050" / "snapshot.json"
    record.write_text(json.dumps({"format": "something else"}))
    with pytest.raises(SnapshotError, match=r"no usable snapshot: step_000000050: snapshot\.json"):
        _learn_again(tmp_path, vector_td3())


def test_a_notebook_can_continue_after_an_interrupt(tmp_path):
    """The first callback still exists, and so does its lock."""
    first = SnapshotCallback(20, tmp_path)
    with pytest.raises(Killed):
        vector_td3().learn(50, callback=[Kill(30), first])
    _learn_again(tmp_path, vector_td3(), verbose=0)
    assert first is not None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: vector_td3(learning_rate=lambda remaining: 1e-3), "learning_rate is a function"),
        (lambda: PPO("MlpPolicy", DummyVecEnv([StatefulEnv]), device="cpu"), "PPO cannot be saved by SnapshotCallback"),
        (lambda: vector_td3(replay_buffer_class=_OwnBuffer), "cannot save _OwnBuffer"),
    ],
)
def test_a_model_that_cannot_be_saved_is_an_error_before_training(tmp_path, make, message):
    model = make()
    with pytest.raises(ValueError, match=message):
        model.learn(30, callback=SnapshotCallback(10, tmp_path))
    assert model.num_timesteps == 0


class _OwnBuffer(ReplayBuffer):
    """Keeps data that no other code knows about."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.priorities = np.zeros(3)


def test_the_snapshot_callback_must_be_the_last(tmp_path):
    with pytest.raises(ValueError, match="SnapshotCallback is followed by Kill: put SnapshotCallback last"):
        vector_td3().learn(30, callback=[SnapshotCallback(10, tmp_path), Kill(20)])


def test_a_message_names_a_callback_without_get_state_and_set_state(tmp_path, capsys):
    vector_td3().learn(30, callback=[Kill(99), SnapshotCallback(10, tmp_path)])
    assert "Kill has no get_state() and set_state()" in capsys.readouterr().out


def test_a_message_names_an_action_noise_whose_state_is_not_plain_data(tmp_path, capsys):
    class WithTensor(NormalActionNoise):
        weights = None

    noise = WithTensor(np.zeros(1), np.ones(1))
    noise.weights = th.zeros(1)
    vector_td3(action_noise=noise).learn(30, callback=SnapshotCallback(10, tmp_path))
    assert "WithTensor has no get_state() and set_state()" in capsys.readouterr().out


@pytest.mark.parametrize("kwargs", [{"save_freq": 0}, {"keep": 0}, {"resume": True}])
def test_bad_arguments_are_refused(kwargs):
    with pytest.raises(ValueError, match=r"expected an integer|has no run_dir"):
        SnapshotCallback(**kwargs)


def test_without_a_folder_there_is_an_error():
    with pytest.raises(ValueError, match="no folder to write to"):
        vector_td3().learn(30, callback=SnapshotCallback(10))


def test_the_progress_bar_starts_at_the_resumed_step(tmp_path):
    model = vector_td3()
    model.learn(50, callback=SnapshotCallback(20, tmp_path), progress_bar=True)
    again = vector_td3()
    callback = SnapshotCallback(20, tmp_path, resume=True, verbose=0)
    again.learn(50, callback=callback, progress_bar=True)
    assert_equal(weights(model), weights(again))
