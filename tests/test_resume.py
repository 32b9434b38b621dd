"""A run that is killed several times, and resumed each time, equals a run that was never killed."""

import random
import signal
import time
from functools import partial

import pytest

from sb3_visual_td3.cli import main
from tests.killed_runs import (
    assert_same_replay,
    assert_same_scalars,
    assert_same_weights,
    at_every_line,
    dies_after,
    dies_in_the_midst_of_a_snapshot,
    ended,
    episodes_in,
    in_child,
)

SAVE_FREQ = 20

RUN = """
LiteDriving-v0:
  policy: CnnPolicy
  n_timesteps: {n_timesteps}
  n_envs: {n_envs}
  normalize: {{norm_obs: false, norm_reward: true}}
  buffer_size: 150
  learning_starts: 40
  batch_size: 4
  n_steps: 3
  policy_kwargs: {{net_arch: [16], trunk_dim: 8}}
  env_kwargs: {{n_cars: 2, image_size: 48}}
  callback:
    - sb3_visual_td3.callbacks.run_recorder.RunRecorderCallback
    - sb3_visual_td3.callbacks.gradient_norm.GradientNormCallback: {{log_freq: 30, sample_freq: 3}}
    - sb3_visual_td3.callbacks.explosion_alert.ExplosionAlertCallback: {{warning: 0.01, critical: 1.0, check_freq: 30}}
    - sb3_visual_td3.callbacks.driving_metrics.DrivingMetricsCallback: {{log_freq: 30}}
    - sb3_visual_td3.callbacks.snapshot.SnapshotCallback: {{save_freq: {save_freq}, verbose: 2}}
    - sb3_visual_td3.callbacks.driving_eval.DrivingEvalCallback:
        {{eval_freq: 110, n_eval_episodes: 1, eval_env_kwargs: {{maps: held_out, image_size: 48}}}}
"""


def _train(folder, extra):
    """Return a function that starts a run with the log folder ``folder``."""
    arguments = ["train", "--env", "LiteDriving-v0", "-conf", str(folder.parent / "run.yml"), "-f", str(folder)]
    arguments += ["--seed", "3", "--save-replay-buffer", "--log-interval", "1", "--verbose", "0", "--num-threads", "1"]
    return lambda: main([*arguments, *extra])


def _run_dir(folder):
    return folder / "visual_td3" / "LiteDriving-v0_1"


def _whole_run(folder, extra):
    """Train without a kill. Return the run's folder, and the mean CPU time between two snapshots in seconds."""
    log_path, times_path = folder.with_suffix(".log"), folder.with_suffix(".times")

    def note_the_time():
        with times_path.open("a") as times:
            times.write(f"{time.process_time()}\n")

    pid = in_child(at_every_line("snapshot of step", note_the_time, _train(folder, extra)), log_path)
    assert ended(pid, within_s=900) == 0, log_path.read_text()
    times = [float(line) for line in times_path.read_text().splitlines()]
    return _run_dir(folder), (times[-1] - times[0]) / (len(times) - 1)


def _kill_once(function, log_path, rng, interval_s):
    """Start or resume a run, kill it during a snapshot or at a random time, and return its exit status."""
    log_path.unlink(missing_ok=True)
    if rng.random() < 0.5:
        killed = dies_in_the_midst_of_a_snapshot(function, rng.randint(1, 16))
    else:
        killed = dies_after("snapshot of step|resumed at step", rng.uniform(0.0, 2.0 * interval_s), function)
    return ended(in_child(killed, log_path), within_s=900)


@pytest.mark.parametrize(
    ("n_envs", "extra", "n_kills"),
    [
        pytest.param(1, [], 6, id="one env"),
        pytest.param(1, [], 12, id="one env, a dozen kills", marks=pytest.mark.slow),
        pytest.param(
            2,
            ["--vec-env", "subproc", "-params", "overlap:True"],
            12,
            id="two processes, overlapped",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_killed_run_continues_as_if_nothing_had_happened(tmp_path, n_envs, extra, n_kills):
    n_timesteps = n_kills * 3 // 2 * SAVE_FREQ
    (tmp_path / "run.yml").write_text(RUN.format(n_envs=n_envs, n_timesteps=n_timesteps, save_freq=SAVE_FREQ))
    whole, interval_s = _whole_run(tmp_path / "whole", extra)

    rng, log_path, n_killed, n_begun = random.Random(5), tmp_path / "killed.log", 0, 0
    run_dir = tmp_path / "nothing yet"
    while n_killed < n_kills:
        if any((run_dir / "snapshots").glob("step_*")):
            status = _kill_once(partial(main, ["resume", str(run_dir)]), log_path, rng, interval_s)
        else:  # without a snapshot, the training starts again
            n_begun += 1
            folder = tmp_path / f"killed_{n_begun}"
            run_dir = _run_dir(folder)
            status = _kill_once(_train(folder, extra), log_path, rng, interval_s)
        if status == 0:
            break
        assert status in {signal.SIGKILL, signal.SIGPROF}, log_path.read_text()
        n_killed += 1
    assert n_killed >= n_kills * 5 // 6, f"only {n_killed} kills: the run ended too early"
    pid = in_child(lambda: main(["resume", str(run_dir)]), log_path)
    assert ended(pid, within_s=900) == 0, log_path.read_text()

    assert_same_weights(whole / "LiteDriving-v0.zip", run_dir / "LiteDriving-v0.zip")
    assert_same_replay(whole / "replay_buffer.pkl", run_dir / "replay_buffer.pkl")
    assert_same_scalars(whole / "tb", run_dir / "tb")
    assert episodes_in(whole) == episodes_in(run_dir)
    assert (whole / "alerts.jsonl").read_text() == (run_dir / "alerts.jsonl").read_text()
