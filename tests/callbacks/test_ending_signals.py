"""Test that signals end a training with a snapshot, and that the signal handlers are restored."""

import os
import signal
import threading
import time

import pytest
from stable_baselines3 import TD3
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from sb3_visual_td3 import RunRecorderCallback, SnapshotCallback
from sb3_visual_td3.callbacks import ending_signals
from sb3_visual_td3.callbacks.ending_signals import TrainingInterrupted, checked_signals
from sb3_visual_td3.runs.manifest import RunManifest
from sb3_visual_td3.runs.snapshot_store import SnapshotStore
from tests.killed_runs import ended, in_child, says
from tests.training_state.small_envs import StatefulEnv

SETTINGS = {"buffer_size": 60, "learning_starts": 10, "batch_size": 4, "seed": 0, "device": "cpu"}
SIGNALS = ["SIGTERM", "SIGUSR1"]


def td3(env=None, **kwargs):
    return TD3("MlpPolicy", env or DummyVecEnv([StatefulEnv]), policy_kwargs={"net_arch": [4]}, **SETTINGS, **kwargs)


class At(BaseCallback):
    """Calls ``action`` at one step."""

    def __init__(self, step, action):
        super().__init__()
        self.step, self.action = step, action

    def _on_step(self):
        if self.num_timesteps == self.step:
            self.action()
        return True


def send(number):
    return lambda: os.kill(os.getpid(), number)


def handlers():
    return [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM)]


def steps_in(folder):
    return [found.step for found in SnapshotStore(folder / "snapshots").all()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_the_training_with_a_snapshot_and_the_exit_code_75(tmp_path, capsys, number):
    before = handlers()
    callbacks = [RunRecorderCallback(tmp_path), At(33, send(number)), SnapshotCallback(20, tmp_path, signals=SIGNALS)]
    with pytest.raises(SystemExit) as ended_with:
        td3().learn(60, callback=callbacks)
    assert ended_with.value.code == 75
    assert handlers() == before
    assert steps_in(tmp_path) == [20, 33]
    manifest = RunManifest.read(tmp_path / "run.json")
    assert (manifest.end, manifest.end_reason) == ("interrupted", f"by {signal.Signals(number).name}")
    assert "When it is resumed, it continues from step 33" in capsys.readouterr().err
    resumed = td3()
    resumed.learn(60, callback=SnapshotCallback(20, tmp_path, resume=True))
    whole = td3()
    whole.learn(60)
    assert str(whole.get_parameters()) == str(resumed.get_parameters())


def test_a_signal_ends_the_training_with_code_75_even_if_the_step_cannot_be_saved(tmp_path, capsys):
    model = td3()

    def report_success_by_a_set():
        model.ep_success_buffer.append({1})
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as ended_with:
        model.learn(60, callback=[At(33, report_success_by_a_set), SnapshotCallback(20, tmp_path, signals=SIGNALS)])
    assert ended_with.value.code == 75
    said = capsys.readouterr().err
    assert "snapshot: step 33 was not saved" in said
    assert "ep_success_buffer" in said
    assert "When it is resumed, it continues from step 20" in said


def test_a_signal_ends_training_only_after_the_current_rollout(tmp_path):
    callbacks = [At(33, send(signal.SIGTERM)), SnapshotCallback(20, tmp_path, signals=SIGNALS)]
    with pytest.raises(TrainingInterrupted):
        td3(train_freq=(8, "step")).learn(60, callback=callbacks)
    assert steps_in(tmp_path)[-1] == 40


def test_a_rollout_that_takes_too_long_ends_without_a_new_snapshot(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ending_signals, "GRACE_S", 0.05)
    before = handlers()

    def evaluate_for_long():
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(60)

    callbacks = [At(33, evaluate_for_long), SnapshotCallback(20, tmp_path, signals=SIGNALS)]
    with pytest.raises(TrainingInterrupted):
        td3().learn(60, callback=callbacks)
    assert handlers() == before
    assert steps_in(tmp_path) == [0, 20]
    assert "When it is resumed, it continues from step 20" in capsys.readouterr().err


def test_a_second_signal_ends_the_process_at_once(tmp_path):
    def train():
        def wait():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(600)

        td3().learn(60, callback=[At(33, wait), SnapshotCallback(20, tmp_path, signals=SIGNALS)])

    status = ended(in_child(train, tmp_path / "log"), within_s=300)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM
    assert steps_in(tmp_path) == [0, 20]


def test_no_signal_is_handled_by_default_or_in_another_thread(tmp_path):
    before, during = handlers(), []
    look = At(5, lambda: during.append(handlers()))
    td3().learn(10, callback=[look, SnapshotCallback(20, tmp_path / "one")])
    thread = threading.Thread(
        target=lambda: td3().learn(10, callback=[look, SnapshotCallback(20, tmp_path / "two", signals=SIGNALS)])
    )
    thread.start()
    thread.join()
    assert during == [before, before]
    td3().learn(10, callback=[look, SnapshotCallback(20, tmp_path / "three", signals=SIGNALS)])
    assert during[2] != before
    assert handlers() == before


def test_a_signal_after_an_exception_calls_the_previously_installed_handler(tmp_path):
    """After an exception, our handler is still installed and has to pass the signal to the earlier handler."""

    def fail():
        raise RuntimeError("left")

    heard = []
    own = signal.signal(signal.SIGUSR1, lambda *_: heard.append("own"))
    try:
        with pytest.raises(RuntimeError, match="left"):
            td3().learn(20, callback=[At(5, fail), SnapshotCallback(20, tmp_path, signals=["USR1"])])
        os.kill(os.getpid(), signal.SIGUSR1)
        assert heard == ["own"]
    finally:
        signal.signal(signal.SIGUSR1, own)


def test_workers_survive_a_signal_to_all_processes_until_the_snapshot(tmp_path):
    """Slurm sends signals to all processes of a job step."""

    def train():
        os.setsid()
        env = SubprocVecEnv([StatefulEnv] * 2)
        group = At(34, lambda: os.killpg(os.getpgid(0), signal.SIGTERM))
        td3(env).learn(60, callback=[group, SnapshotCallback(20, tmp_path, signals=SIGNALS)])

    log_path = tmp_path / "log"
    pid = in_child(lambda: _code_of(train), log_path)
    status = ended(pid, within_s=300)
    assert status is not None
    assert os.waitstatus_to_exitcode(status) == 75, log_path.read_text()
    snapshot = SnapshotStore(tmp_path / "snapshots").newest()
    assert snapshot.step == 34
    assert snapshot.state["training"]["env"]["why_not_exact"] is None, "workers were there to say where they were"


def test_no_snapshot_is_taken_after_workers_have_died(tmp_path):
    """Such a snapshot would be the newest one, and the run could not be resumed from it."""

    def train():
        env = SubprocVecEnv([StatefulEnv] * 2)

        def be_killed():
            for process in env.processes:
                process.kill()
                process.join()
            os.kill(os.getpid(), signal.SIGTERM)

        td3(env).learn(60, callback=[At(34, be_killed), SnapshotCallback(20, tmp_path, signals=SIGNALS)])

    log_path = tmp_path / "log"
    status = ended(in_child(lambda: _code_of(train), log_path), within_s=300)
    assert os.waitstatus_to_exitcode(status) == 75, log_path.read_text()
    assert steps_in(tmp_path) == [0, 20]
    assert "step 34 was not saved" in log_path.read_text()


def test_workers_that_ignore_signals_do_not_keep_a_script_from_ending(tmp_path):
    """At exit, multiprocessing sends SIGTERM to the remaining workers and waits for them."""

    def train():
        import atexit

        def fail():
            raise RuntimeError("left")

        env = SubprocVecEnv([StatefulEnv])
        try:
            td3(env).learn(60, callback=[At(5, fail), SnapshotCallback(20, tmp_path, signals=SIGNALS)])
        except RuntimeError:
            print("left", flush=True)
        atexit._run_exitfuncs()

    log_path = tmp_path / "log"
    pid = in_child(train, log_path)
    assert says(log_path, "left", pid)
    assert ended(pid, within_s=300) == 0, log_path.read_text()


def _code_of(function):
    try:
        return function()
    except SystemExit as error:
        return error.code


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["SIGKILL"], "'SIGKILL', which cannot end a training run with a snapshot"),
        (["SIGNOTHING"], "'SIGNOTHING': expected names of signals"),
        (["SIG_IGN"], "'SIG_IGN': expected names of signals"),
        ("SIGTERM", r"expected a list of names"),
    ],
)
def test_an_unsuitable_signal_is_refused(names, message):
    with pytest.raises(ValueError, match=message):
        SnapshotCallback(signals=names)


def test_signal_names_may_omit_sig_and_be_lower_case():
    assert checked_signals(["usr1", "TERM", "SIGTERM", "SIGINT"]) == ("SIGUSR1", "SIGTERM", "SIGINT")
