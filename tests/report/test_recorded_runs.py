"""The two recorded runs: what is known to be true of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sb3_visual_td3.common import tags

from .synthetic_runs import REAL_RUNS, needs_real_runs

pytestmark = needs_real_runs
Report = Callable[..., int]


def test_the_first_run_is_no_go_with_the_figures_of_its_file(report: Report, tmp_path: Path) -> None:
    assert report(REAL_RUNS / "seed_5k", "--format", "json") == 1
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    assert found["verdict"] == "NO-GO"
    assert found["alerts"]["critical"] == 17
    assert found["alerts"]["warning"] == 3
    assert found["run"]["alert_points"] == {"critical": 22, "warning": 8}
    assert found["run"]["alert_first_steps"] == {"critical": 3400, "warning": 3100}
    norm = found["metrics"][tags.GRADIENT_NORM["actor_cnn"]]
    assert norm["mean"] == pytest.approx(1_826_337.33, abs=0.01)
    assert norm["max"] == 8_199_994.5
    assert len(found["metrics"]) == 39
    assert found["metrics"][tags.EPISODE_LENGTH]["n"] == 413
    assert found["run"]["n_steps"] == 5000
    assert [d["id"] for d in found["diagnoses"]] == [
        "feature_leak",
        "gradient_explosion",
        "episode_collapse",
        "vanishing_actor_gradient",
    ]
    statuses = {c["id"]: c["status"] for c in found["criteria"]}
    assert {i for i, status in statuses.items() if status == "fail"} == {
        "actor_cnn_norm_mean",
        "actor_cnn_norm_no_go",
        "actor_loss_stable",
        "actor_loss_no_exponential_growth",
        "no_critical_alerts",
        "no_critical_alerts_no_go",
        "episode_length_not_decreasing",
        "no_sure_cause",
    }
    assert statuses["episode_length_improves"] == "not_applicable"
    assert statuses["policy_drives"] == "unknown"


def test_the_clipped_run_is_no_go_though_its_norms_are_small(report: Report, tmp_path: Path) -> None:
    assert report(REAL_RUNS / "clipped_5k", "--format", "json") == 1
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [d["id"] for d in found["diagnoses"][:2]] == ["feature_leak", "clipping_masks_divergence"]
    assert (found["alerts"]["critical"], found["alerts"]["warning"]) == (0, 0)
    statuses = {c["id"]: c["status"] for c in found["criteria"]}
    assert statuses["actor_cnn_norm_mean"] == "pass"
    assert statuses["actor_loss_stable"] == "fail"
    assert statuses["actor_loss_no_exponential_growth"] == "fail"


def test_both_runs_together_are_a_comparison_with_the_worst_verdict(report: Report, tmp_path: Path) -> None:
    assert report(REAL_RUNS) == 1
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    assert found["verdict"] == "NO-GO"
    assert [run["run"]["name"] for run in found["runs"]] == ["data/clipped_5k", "data/seed_5k"]


def test_a_single_event_file_is_judged_like_its_folder(report: Report, tmp_path: Path) -> None:
    (file,) = (REAL_RUNS / "seed_5k").iterdir()
    report(REAL_RUNS / "seed_5k", "--format", "json", output="folder")
    report(file, "--format", "json", output="file")
    folder, alone = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("folder", "file"))
    for part in ("verdict", "criteria", "diagnoses", "alerts", "metrics"):
        assert folder[part] == alone[part]
