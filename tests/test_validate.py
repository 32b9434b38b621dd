"""Test complete runs of ``visual-td3 validate``."""

import json
import subprocess
import sys

import pytest


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
