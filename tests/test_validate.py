"""Test complete runs of ``visual-td3 validate``."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sb3_visual_td3.cli import VERDICTS, main
from sb3_visual_td3.zoo import train


@pytest.mark.slow
@pytest.mark.minutes(5)
def test_a_default_run_learns_to_drive_and_is_a_go(tmp_path):
    command = [sys.executable, "-m", "sb3_visual_td3", "validate"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=3_600)
    assert result.returncode == 0, result.stdout[-3_000:] + result.stderr[-3_000:]
    (run_dir,) = (tmp_path / "logs" / "visual_td3").iterdir()
    assert {"report.md", "report.html", "report.json"} <= {file.name for file in run_dir.iterdir()}
    report = json.loads((run_dir / "report.json").read_text())
    assert report["verdict"] == "GO"
    metrics = report["metrics"]
    assert metrics["agent/total_iterations"]["last"] >= 1_500
    assert json.loads((run_dir / "run.json").read_text())["hyperparams"]["batch_size"] >= 128
    assert metrics["agent/action_saturation"]["last"] < 0.5
    baselines = [metrics[f"eval/{driver}_distance_m"]["last"] for driver in ("random", "full_brake")]
    assert metrics["eval/mean_distance_m"]["last"] > max(baselines)


@pytest.mark.slow
@pytest.mark.minutes(1)
def test_a_dead_policy_is_no_go_and_is_named_as_the_cause(tmp_path):
    """On images, stock TD3 with its default learning rate saturates the actor within a few hundred updates."""
    (tmp_path / "stock.yml").write_text(STOCK)
    command = [sys.executable, "-m", "sb3_visual_td3", "validate", "--conf-file", "stock.yml"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=3_600)
    assert result.returncode == 1, result.stdout[-3_000:] + result.stderr[-3_000:]
    (run_dir,) = (tmp_path / "logs" / "visual_td3").iterdir()
    report = json.loads((run_dir / "report.json").read_text())
    assert report["diagnoses"][0]["id"] == "actor_saturation"
    failed = {criterion["id"] for criterion in report["criteria"] if criterion["status"] == "fail"}
    assert "policy_is_alive" in failed


STOCK = """
LiteDriving-v0:
  policy: CnnPolicy
  preset: td3
  env_kwargs: {image_size: 48}
  n_timesteps: 2100
  train_freq: 4
  learning_rate: 1.0e-3
  learning_starts: 300
  batch_size: 32
  buffer_size: 2000
  normalize: {norm_obs: false, norm_reward: true}
  noise_type: normal
  noise_std: 0.1
  callback:
    - sb3_visual_td3.callbacks.run_recorder.RunRecorderCallback
    - sb3_visual_td3.callbacks.gradient_norm.GradientNormCallback
    - sb3_visual_td3.callbacks.explosion_alert.ExplosionAlertCallback
    - sb3_visual_td3.callbacks.driving_metrics.DrivingMetricsCallback
    - sb3_visual_td3.callbacks.driving_eval.DrivingEvalCallback:
        {eval_freq: 1000, eval_env_kwargs: {maps: held_out, image_size: 48}}
"""


LONG = """
LiteDriving-v0:
  policy: CnnPolicy
  env_kwargs: {image_size: 48}
  policy_kwargs: {net_arch: [8], trunk_dim: 4}
  n_timesteps: 300
  learning_starts: 100
  batch_size: 4
  buffer_size: 300
  callback:
    - sb3_visual_td3.callbacks.run_recorder.RunRecorderCallback
    - sb3_visual_td3.callbacks.driving_eval.DrivingEvalCallback:
        {eval_env: LiteDriving-v0, eval_freq: 100, n_eval_episodes: 1, eval_env_kwargs: {max_episode_steps: 5}}
    - sb3_visual_td3.callbacks.snapshot.SnapshotCallback: {save_freq: 20}
"""
"""A block for a run that is longer than the runs of the tests below."""


@pytest.mark.parametrize(
    ("flags", "learning_starts", "evaluated_at"),
    [
        (["-n", "50"], 10, [10, 20, 30, 40, 50]),
        (["-n", "50", "--eval-freq", "25"], 10, [25, 50]),
        (["-n", "50", "--hyperparams", "learning_starts:20"], 20, [10, 20, 30, 40, 50]),
        (["--hyperparams", "n_timesteps:110"], 100, [22, 44, 66, 88, 110]),
    ],
)
def test_a_short_run_trains_and_evaluates_early_unless_a_flag_says_otherwise(
    tmp_path, monkeypatch, capsys, flags, learning_starts, evaluated_at
):
    monkeypatch.chdir(tmp_path)
    Path("long.yml").write_text(LONG)
    assert main(["validate", "--conf-file", "long.yml", *flags]) in VERDICTS
    (run_dir,) = Path("logs/visual_td3").iterdir()
    printed = capsys.readouterr().out
    assert json.loads((run_dir / "run.json").read_text())["hyperparams"]["learning_starts"] == learning_starts
    assert ("learning_starts is 10 instead of 100" in printed) == (learning_starts == 10)
    assert list(np.load(run_dir / "evaluations.npz")["timesteps"]) == evaluated_at
    # A run that is resumed from a snapshot has the same settings.
    experiment = json.loads((run_dir / "experiment.json").read_text())
    assert experiment["hyperparams"]["learning_starts"] == learning_starts
    assert experiment["eval_freq"] == evaluated_at[0]


def test_without_a_hyperparameter_file_a_run_has_5000_steps_and_the_given_environment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = []

    def refuse(arguments, options, result):
        given.extend(arguments)
        raise ValueError("a mistake of the user")

    monkeypatch.setattr(train, "train", refuse)
    assert main(["validate", "--env", "CarlaDriving-v0", "--env-kwargs", "port:2010", "n_cars:3"]) == 2
    assert given[given.index("--n-timesteps") + 1] == "5000"
    assert given[given.index("--env-kwargs") + 1 :] == ["port:2010", "n_cars:3"]


def test_a_run_without_an_evaluation_in_the_file_is_evaluated_five_times(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = "{policy: MlpPolicy, n_timesteps: 60, learning_starts: 20, batch_size: 4, buffer_size: 60}"
    Path("mine.yml").write_text(f"Pendulum-v1: {settings}\n")
    assert main(["validate", "--algo", "sac", "--env", "Pendulum-v1", "--conf-file", "mine.yml"]) in VERDICTS
    (run_dir,) = Path("logs/sac").iterdir()
    assert list(np.load(run_dir / "evaluations.npz")["timesteps"]) == [12, 24, 36, 48, 60]
