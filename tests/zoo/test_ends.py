"""Test that run.json and the exit code show in which way a run ended.

A run that is not finished is resumed, and its results must then equal those of a run without an interruption.
"""

import errno
import json
import os
import shutil
import signal
import sys
import traceback

import pytest
import yaml

from sb3_visual_td3.cli import main
from sb3_visual_td3.runs.manifest import RunManifest
from sb3_visual_td3.zoo import plugin
from tests.killed_runs import assert_same_scalars, ended, episodes_in, in_child, weights_in
from tests.zoo import ending_callbacks
from tests.zoo.ending_callbacks import EndsAt

BLOCK = {
    "policy": "CnnPolicy",
    "n_timesteps": 60,
    "normalize": {"norm_obs": False, "norm_reward": True},
    "buffer_size": 50,
    "learning_starts": 40,
    "batch_size": 4,
    "env_kwargs": {"image_size": 48},
    "policy_kwargs": {"net_arch": [8], "trunk_dim": 4},
    "callback": [
        "sb3_visual_td3.callbacks.run_recorder.RunRecorderCallback",
        {"sb3_visual_td3.callbacks.gradient_norm.GradientNormCallback": {"log_freq": 10}},
        "tests.zoo.ending_callbacks.EndsAt",
        {"sb3_visual_td3.callbacks.snapshot.SnapshotCallback": {"save_freq": 20}},
    ],
}
MODEL = "LiteDriving-v0.zip"


def train(folder, *extra, **changed):
    folder.mkdir(exist_ok=True)
    (folder / "run.yml").write_text(yaml.safe_dump({"LiteDriving-v0": {**BLOCK, **changed}}))
    arguments = ["train", "--env", "LiteDriving-v0", "-conf", str(folder / "run.yml"), "-f", str(folder / "logs")]
    arguments += ["--seed", "1", "--verbose", "0", "--eval-freq", "-1", "--num-threads", "1"]
    return main([*arguments, *extra])


def run_dir_in(folder):
    return folder / "logs" / "visual_td3" / "LiteDriving-v0_1"


def resume(run_dir, *extra):
    return main(["resume", str(run_dir), "--allow", "tests", *extra])


def run_json(run_dir):
    return json.loads((run_dir / "run.json").read_text())


@pytest.fixture(autouse=True)
def no_action_is_left():
    yield
    EndsAt.action = None


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the RUN_DIR of a run that was not interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    assert train(folder) == 0
    return run_dir_in(folder)


def assert_is(whole, run_dir):
    first, second = weights_in(whole / MODEL), weights_in(run_dir / MODEL)
    assert all((tensor == second[name]).all() for name, tensor in first.items())
    assert_same_scalars(whole / "tb", run_dir / "tb")
    assert episodes_in(whole) == episodes_in(run_dir)
    assert (run_dir / "LiteDriving-v0" / "vecnormalize.pkl").is_file()
    assert run_json(run_dir)["end"] == "finished"


def test_a_complete_run_is_recorded_as_finished(whole, capsys):
    run = run_json(whole)
    assert run["end"] == "finished"
    assert run["finished"] == run["ended"]
    assert run["end_reason"] is None
    assert resume(whole) == 0
    assert "there is nothing to resume" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("action", "code", "end", "reason"),
    [
        (ending_callbacks.ctrl_c, 130, "interrupted", "by Ctrl-C"),
        (ending_callbacks.terminate, 75, "interrupted", "by SIGTERM"),
        (ending_callbacks.be_preempted, 75, "interrupted", "by SIGUSR1"),
        (ending_callbacks.stop, 0, "stopped", "by a callback, at step 45 of 60"),
    ],
)
def test_an_early_end_is_recorded_and_the_resumed_run_reaches_the_same_end(
    whole, tmp_path, capsys, action, code, end, reason
):
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM)]
    EndsAt.action, EndsAt.step = action, 45
    assert train(tmp_path) == code
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM)] == handlers
    run_dir = run_dir_in(tmp_path)
    run = run_json(run_dir)
    assert (run["end"], run["end_reason"], run["finished"]) == (end, reason, None)
    printed = capsys.readouterr().err.splitlines()
    if code:
        how = f"'visual-td3 resume {run_dir} --allow tests' continues from step {45 if code == 75 else 40}"
        assert printed[-1].startswith(f"{reason.removeprefix('by ')}: the training ende" if code == 130 else "SIG")
        assert f"at step 45 with exit code {code}. {how}" in printed[-1]
    else:
        assert printed == []
    assert resume(run_dir) == 0
    at = 45 if code == 75 else 40
    assert f"resumed at step {at} of 60" in capsys.readouterr().out
    assert_is(whole, run_dir)


def test_ctrl_c_in_a_run_without_snapshots_names_no_command(tmp_path, capsys):
    EndsAt.action, EndsAt.step = ending_callbacks.ctrl_c, 45
    assert train(tmp_path, callback="tests.zoo.ending_callbacks.EndsAt") == 130
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "Ctrl-C: the training ended at step 45 with exit code 130"


def test_a_crash_is_recorded_and_the_resumed_run_reaches_the_same_end(whole, tmp_path, capsys):
    EndsAt.action, EndsAt.step = ending_callbacks.crash, 45
    with pytest.raises(RuntimeError, match="the simulator is gone") as crashed:
        train(tmp_path)
    run_dir = run_dir_in(tmp_path)
    how = f"'visual-td3 resume {run_dir} --allow tests' continues from step 40"
    if sys.version_info >= (3, 11):
        assert "".join(traceback.format_exception(crashed.value)).splitlines()[-1] == how
    else:
        assert how in capsys.readouterr().err
    run = run_json(run_dir)
    assert (run["end"], run["end_reason"]) == ("crashed", "RuntimeError: the simulator is gone")
    assert run["finished"] is None
    assert not (run_dir / MODEL).exists()
    assert resume(run_dir) == 0
    assert_is(whole, run_dir)


def test_a_dead_worker_process_is_recorded_as_a_crash(tmp_path):
    EndsAt.action, EndsAt.step = ending_callbacks.worker_dies, 45
    with pytest.raises((EOFError, OSError)):
        train(tmp_path, "--vec-env", "subproc")
    run = run_json(run_dir_in(tmp_path))
    assert run["end"] == "crashed"
    assert run["end_reason"].startswith("a worker process of the environments has died")


def test_a_script_that_ends_with_an_exception_records_it_at_exit(tmp_path):
    """Stable-Baselines3 does not tell its callbacks about an exception."""

    def script():
        import atexit
        import sys

        from sb3_visual_td3 import RunRecorderCallback, VisualTD3
        from tests.image_env import ImageEnv

        EndsAt.action, EndsAt.step = ending_callbacks.crash, 3
        try:
            model = VisualTD3("CnnPolicy", ImageEnv(), buffer_size=50, device="cpu", policy_kwargs={"net_arch": [4]})
            model.learn(10, callback=[RunRecorderCallback(tmp_path), EndsAt()])
        except RuntimeError as error:
            sys.last_value = error  # as the interpreter does with an uncaught exception
        atexit._run_exitfuncs()

    assert ended(in_child(script, tmp_path / "log"), within_s=300) == 0, (tmp_path / "log").read_text()
    manifest = RunManifest.read(tmp_path / "run.json")
    assert (manifest.end, manifest.end_reason) == ("crashed", "RuntimeError: the simulator is gone")
    assert manifest.finished is None


class Killed(BaseException):
    """Imitate a SIGKILL with an error that ``except Exception`` does not catch."""


@pytest.mark.parametrize("at", ["replay_buffer.pkl", "vecnormalize.pkl", MODEL, "run.json"])
def test_resume_saves_a_run_that_was_killed_during_its_final_save(whole, tmp_path, monkeypatch, capsys, at):
    really_replace = os.replace

    def replace(begun, path):
        if str(path).endswith(at) and is_ending[0]:
            raise Killed
        really_replace(begun, path)

    is_ending = [False]
    really_save = plugin.VisualExperimentManager._save_each

    def save_each(self, model):
        is_ending[0] = True
        really_save(self, model)

    monkeypatch.setattr(plugin.VisualExperimentManager, "_save_each", save_each)
    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(Killed):
        train(tmp_path, "--save-replay-buffer")
    monkeypatch.undo()
    run_dir = run_dir_in(tmp_path)
    assert run_json(run_dir)["finished"] is None
    if at == MODEL:
        capsys.readouterr()
        assert main(["evaluate", str(run_dir)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"visual-td3 resume {run_dir}" in line
    assert resume(run_dir) == 0
    assert "is finished: all 60 steps were made, so there is nothing left to train" in capsys.readouterr().out
    assert_is(whole, run_dir)
    assert (run_dir / "replay_buffer.pkl").is_file()


@pytest.mark.parametrize("n_bytes", [0, 1_000])
def test_resume_saves_a_run_of_an_earlier_version_whose_model_is_truncated(whole, tmp_path, capsys, n_bytes):
    """Earlier versions recorded a run as finished before they saved its model."""
    run_dir = shutil.copytree(whole, run_dir_in(tmp_path))
    (run_dir / MODEL).write_bytes((whole / MODEL).read_bytes()[:n_bytes])
    assert main(["evaluate", str(run_dir)]) == 2
    assert f"visual-td3 resume {run_dir}" in capsys.readouterr().err
    assert resume(run_dir) == 0
    assert_is(whole, run_dir)


def test_a_failed_final_save_gives_a_one_line_error_and_a_resumable_run(whole, tmp_path, monkeypatch, capsys):
    def save(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(plugin.VisualExperimentManager, "_save_each", save)
    assert train(tmp_path) == 74
    monkeypatch.undo()
    run_dir = run_dir_in(tmp_path)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("visual-td3 train")]
    assert "No space left on device" in line
    assert f"visual-td3 resume {run_dir}" in line
    assert run_json(run_dir)["end"] == "crashed"
    assert resume(run_dir) == 0
    assert_is(whole, run_dir)


@pytest.mark.parametrize("left", ["all but the snapshots", "the experiment alone", "a snapshot that was begun"])
def test_a_run_that_was_killed_before_its_first_snapshot_starts_again(whole, tmp_path, capsys, left):
    EndsAt.action, EndsAt.step = ending_callbacks.crash, 1
    with pytest.raises(RuntimeError):
        train(tmp_path)
    run_dir = run_dir_in(tmp_path)
    shutil.rmtree(run_dir / "snapshots" / "step_000000000")
    if left == "the experiment alone":
        for path in run_dir.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != "experiment.json":
                path.unlink()
    if left == "a snapshot that was begun":
        (run_dir / "snapshots" / ".new-step_000000000").mkdir()
        (run_dir / "snapshots" / ".new-step_000000000" / "model.zip").write_bytes(b"PK")
    assert resume(run_dir) == 0
    assert "was killed before its first snapshot: it starts again" in capsys.readouterr().out
    assert_is(whole, run_dir)
    assert len(list(run_dir.parent.iterdir())) == 1, "no other RUN_DIR"


def test_logs_of_a_run_that_has_lost_its_snapshots_are_kept(whole, tmp_path, capsys):
    run_dir = shutil.copytree(whole, run_dir_in(tmp_path))
    for folder in (run_dir / "snapshots").glob("step_*"):
        shutil.rmtree(folder)
    (run_dir / MODEL).unlink()
    (run_dir / "0.monitor.csv").write_text("#{}\nr,l,t\n1,2,3\n")
    assert resume(run_dir) == 0
    assert "its previous logs are now in" in capsys.readouterr().out
    assert (run_dir / "earlier_1" / "0.monitor.csv").read_text().endswith("1,2,3\n")
    assert len(list((run_dir / "earlier_1" / "tb").rglob("events*"))) == 1
    assert_is(whole, run_dir)


def test_counts_that_yaml_reads_as_text_are_accepted(tmp_path):
    assert train(tmp_path, n_timesteps="4e1", n_envs="1e0") == 0
    settings = yaml.unsafe_load((run_dir_in(tmp_path) / "LiteDriving-v0" / "config.yml").read_text())
    assert (settings["n_timesteps"], settings["n_envs"]) == (40, 1)
    assert run_json(run_dir_in(tmp_path))["end"] == "finished"


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 0, -5, 10.5, True, "many"])
@pytest.mark.parametrize("key", ["n_timesteps", "n_envs"])
def test_an_invalid_n_timesteps_or_n_envs_gives_a_one_line_error_before_training(tmp_path, capsys, key, value):
    assert train(tmp_path, **{key: value}) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{key} is {value!r}; expected an integer >= 1" in line
    assert not (tmp_path / "logs").exists()
