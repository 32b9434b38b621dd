"""A run that is killed again and again, and resumed each time, is the run that was never killed."""

import random

import pytest

from sb3_visual_td3.cli import main
from tests.killed_runs import (
    assert_same_replay,
    assert_same_scalars,
    assert_same_weights,
    dies_in_the_midst_of_a_snapshot,
    ended,
    episodes_in,
    in_child,
    kill,
)

N_KILLS = 12

RUN = """
LiteDriving-v0:
  policy: CnnPolicy
  n_timesteps: 260
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
    - sb3_visual_td3.callbacks.snapshot.SnapshotCallback: {{save_freq: 25, verbose: 2}}
    - sb3_visual_td3.callbacks.driving_eval.DrivingEvalCallback:
        {{eval_freq: 110, n_eval_episodes: 1, eval_env_kwargs: {{maps: held_out, image_size: 48}}}}
"""


def _train(folder, extra):
    """What starts a run in that folder, as a user would."""
    arguments = ["train", "--env", "LiteDriving-v0", "-conf", str(folder.parent / "run.yml"), "-f", str(folder)]
    arguments += ["--seed", "3", "--save-replay-buffer", "--log-interval", "1", "--verbose", "0", "--num-threads", "1"]
    return lambda: main([*arguments, *extra])


def _killed_and_resumed(folder, start, log_path, rng):
    """Kill the run ``N_KILLS`` times, then let it finish. Return how often a process was killed in a snapshot."""
    run_dir = folder / "visual_td3" / "LiteDriving-v0_1"
    n_killed = 0
    while n_killed < N_KILLS:
        has_snapshot = any((run_dir / "snapshots").glob("step_*"))
        function = (lambda: main(["resume", str(run_dir)])) if has_snapshot else start
        if not has_snapshot and run_dir.exists():
            run_dir.rename(run_dir.with_name(f"killed_before_the_first_snapshot_{n_killed}"))
        if n_killed % 2:
            function = dies_in_the_midst_of_a_snapshot(function, rng.randint(3, 30))
        pid = in_child(function, log_path)
        status = ended(pid, within_s=60 if n_killed % 2 else rng.uniform(0.3, 2.0))
        if status == 0:
            break  # it came to its end before the chosen moment
        if status is None:
            kill(pid)
        else:
            assert status == 9, log_path.read_text()
        n_killed += 1
    pid = in_child(lambda: main(["resume", str(run_dir)]), log_path)
    assert ended(pid, within_s=120) == 0, log_path.read_text()
    return run_dir, n_killed


@pytest.mark.parametrize(
    ("n_envs", "extra"),
    [(1, []), (2, ["--vec-env", "subproc", "-params", "overlap:True"])],
    ids=["one env", "two processes, overlapped"],
)
def test_a_killed_run_continues_as_if_nothing_had_happened(tmp_path, n_envs, extra):
    (tmp_path / "run.yml").write_text(RUN.format(n_envs=n_envs))
    whole = tmp_path / "whole"
    pid = in_child(_train(whole, extra), tmp_path / "whole.log")
    assert ended(pid, within_s=120) == 0, (tmp_path / "whole.log").read_text()
    whole = whole / "visual_td3" / "LiteDriving-v0_1"

    folder = tmp_path / "killed"
    run_dir, n_killed = _killed_and_resumed(folder, _train(folder, extra), tmp_path / "killed.log", random.Random(5))

    assert n_killed >= 10
    assert_same_weights(whole / "LiteDriving-v0.zip", run_dir / "LiteDriving-v0.zip")
    assert_same_replay(whole / "replay_buffer.pkl", run_dir / "replay_buffer.pkl")
    assert_same_scalars(whole / "tb", run_dir / "tb")
    assert episodes_in(whole) == episodes_in(run_dir)
    assert (whole / "alerts.jsonl").read_text() == (run_dir / "alerts.jsonl").read_text()
