"""The known facts about the two recorded CARLA runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sb3_visual_td3.common import tags
from sb3_visual_td3.report.event_reader import read_run

from .synthetic_runs import REAL_RUNS, needs_real_runs

pytestmark = needs_real_runs
Report = Callable[..., int]


def test_the_first_carla_run_is_no_go_with_the_figures_of_its_file(report: Report, tmp_path: Path) -> None:
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


def test_the_sections_of_the_first_carla_run_have_the_figures_of_its_file(report: Report, tmp_path: Path) -> None:
    report(REAL_RUNS / "seed_5k", "--format", "json")
    run = json.loads((tmp_path / "out" / "report.json").read_text())["run"]

    assert sum(len(kind["logged"]) for kind in run["availability"]) == 39
    episode_level = run["availability"][0]
    assert [(one["n"], one["first_step"], one["last_step"]) for one in episode_level["logged"]] == [(413, 0, 412)] * 4

    critical, warning = (run["alert_history"][name] for name in ("critical", "warning"))
    assert (critical["n_points"], critical["n_active"], critical["first_step"]) == (22, 17, 3400)
    assert (warning["n_points"], warning["n_active"], warning["first_step"]) == (8, 3, 3100)
    assert warning["longest_stretch"] == {"first_step": 3100, "last_step": 3300, "until_step": 3300, "n_points": 3}

    episodes = run["episodes"]
    assert (episodes["n"], episodes["n_steps"], episodes["last"][-1]["end_step"]) == (413, 5000, 5000)
    assert episodes["mean_length"] == pytest.approx(12.1, abs=0.05)
    assert episodes["first"][0]["length"] == 50
    assert {episode["length"] for episode in episodes["last"]} == {2, 3}

    loss = run["growth"][tags.ACTOR_LOSS]
    assert (loss["rows"][0]["step"], loss["rows"][-1]["step"]) == (2600, 5000)
    assert loss["multiplier"] == pytest.approx(7_607_850.5 / 2.85215759)
    encoder = {row["step"]: row["value"] for row in run["growth"][tags.GRADIENT_NORM["actor_cnn"]]["rows"]}
    assert encoder[2600] == pytest.approx(64.4, abs=0.05)
    assert encoder[3000] == pytest.approx(4530, abs=0.5)
    assert encoder[5000] == 8_199_994.5
    assert run["critics"]["values"][0]["last"] == pytest.approx(81.27, abs=0.005)
    assert run["critics"]["bound_use"] == []
    assert run["rewards"]["terms"] == []


def test_ratios_of_the_norms_are_those_of_the_common_steps(report: Report, tmp_path: Path) -> None:
    report(REAL_RUNS / "seed_5k", "--format", "json")
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    groups = {group["group"]: group for group in found["run"]["norms"]["groups"]}
    ratios = {(r["numerator"], r["denominator"]): r for r in found["run"]["norms"]["ratios"]}
    assert groups["actor_cnn"]["mean"] == pytest.approx(1_826_337.33, abs=0.01)
    encoders = ratios["actor_cnn", "critic_cnn"]
    assert encoders["ratio_of_means"] == pytest.approx(groups["actor_cnn"]["mean"] / groups["critic_cnn"]["mean"])
    assert encoders["ratio_of_means"] == pytest.approx(1_826_337.33 / 5_897.0, rel=1e-5)

    # The same from the file itself, the slow way.
    (file,) = (REAL_RUNS / "seed_5k").iterdir()
    series = read_run(file, [file]).series
    above, below = (series[tags.GRADIENT_NORM[group]] for group in ("actor_cnn", "critic_cnn"))
    naive = [
        a / b
        for s, a in zip(above.steps, above.values, strict=True)
        for t, b in zip(below.steps, below.values, strict=True)
        if s == t
    ]
    assert encoders["mean"] == pytest.approx(sum(naive) / len(naive))
    assert encoders["max"] == pytest.approx(max(naive))
    heads = ratios["actor_cnn", "actor_mlp"]
    assert heads["n_zero"] == int((series[tags.GRADIENT_NORM["actor_mlp"]].values == 0).sum()) == 21


def test_the_report_of_the_first_carla_run_explains_the_cause_in_words(report: Report, tmp_path: Path) -> None:
    report(REAL_RUNS / "seed_5k", "--format", "md")
    text = (tmp_path / "out" / "report.md").read_text()
    assert "`alerts/gradient_explosion_critical` has 22 points, of which 17 are active and 5 are not." in text
    assert "`alerts/gradient_explosion_warning` has 8 points, of which 3 are active and 5 are not." in text
    assert "413 episodes over 5,000 steps. Their mean length is 12.11" in text
    assert "**▲ Collapsed**" in text
    assert "Unknown: no term was logged under `reward/`." in text
    assert f"knows {len(tags.TAGS)} tags that fit this kind of run. The run did not log {len(tags.TAGS) - 39}" in text


def test_the_report_says_that_the_clipped_runs_norms_are_after_clipping(report: Report, tmp_path: Path) -> None:
    report(REAL_RUNS / "clipped_5k", "--format", "json,md")
    run = json.loads((tmp_path / "out" / "report.json").read_text())["run"]
    assert run["norms"]["taken"] == "after, by its look"
    assert run["episodes"]["n"] == 417
    assert run["alert_history"]["critical"] == {
        "n_points": 25,
        "n_active": 0,
        "first_step": None,
        "last_step": None,
        "n_stretches": 0,
        "longest_stretch": None,
    }
    assert "were probably measured after clipping" in (tmp_path / "out" / "report.md").read_text()


def test_the_clipped_run_is_no_go_although_its_norms_are_small(report: Report, tmp_path: Path) -> None:
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
