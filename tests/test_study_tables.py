"""The studies' arms and tables: arms differ only as intended, and the README shows the present results."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import explosion_study
import explosion_table
import learning_study
import learning_table
import pytest
from explosion_arms import ARMS as EXPLOSION_ARMS
from first_checklist import checklist, of_study
from learning_arms import ARMS as LEARNING_ARMS
from learning_arms import WORLDS, arguments_of

from sb3_visual_td3 import VisualTD3

ROOT = Path(__file__).resolve().parents[1]
EXPLOSIONS = json.loads(explosion_study.RESULTS.read_text())
DRIVES = json.loads(learning_study.RESULTS.read_text())
PAGES = {
    name: (ROOT / name).read_text(encoding="utf-8")
    for name in ("README.md", "docs/why.md", "docs/results.md", "benchmarks/README.md")
}


def test_all_arms_have_the_same_batch_size_update_rate_and_learning_starts() -> None:
    for arm in LEARNING_ARMS.values():
        arguments = arguments_of(arm)
        assert (arguments["batch_size"], arguments["train_freq"], arguments["gradient_steps"]) == (128, 2, 1)
        assert arguments["learning_starts"] == 1_000


def test_an_ablation_changes_one_setting_of_the_preset() -> None:
    preset = arguments_of(LEARNING_ARMS["gamma 0.99"])
    for name in learning_study.GROUPS["ablations"]:
        changed = {
            key for key, value in arguments_of(LEARNING_ARMS[name]).items() if preset.get(key, "preset's") != value
        }
        assert len(changed) == 1, name


def test_every_arm_of_the_explosion_study_differs_from_the_others() -> None:
    seen = [
        (arm.algorithm, str(sorted(arm.settings.items())), arm.normalize_reward, arm.env)
        for arm in EXPLOSION_ARMS.values()
    ]
    assert len({str(arm) for arm in seen}) == len(EXPLOSION_ARMS) == 22
    leaks = [arm.algorithm is not VisualTD3 for name, arm in EXPLOSION_ARMS.items() if "leak" in name]
    assert all(leaks)
    assert len(leaks) == 11


def test_no_result_is_left_out_of_a_table() -> None:
    assert {name.rsplit(", seed ", 1)[0] for name in EXPLOSIONS} == EXPLOSION_ARMS.keys()
    places = {f"{world}, {arm}" for world in WORLDS for arm in LEARNING_ARMS}
    assert {name.rsplit(", seed ", 1)[0] for name in DRIVES} <= places


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_study_has_three_seeds_of_every_arm(seed: int) -> None:
    arms = [arm for arm in EXPLOSION_ARMS if seed < 2 or "CarRacing" not in arm]
    assert [arm for arm in arms if explosion_study.key(arm, seed) not in EXPLOSIONS] == []


@pytest.mark.parametrize(
    ("page", "table"),
    [
        ("docs/why.md", lambda: explosion_table.brief(EXPLOSIONS)),
        ("README.md", lambda: learning_table.brief(DRIVES)),
        ("docs/results.md", lambda: learning_table.brief(DRIVES)),
        ("benchmarks/README.md", lambda: explosion_table.table(EXPLOSIONS)),
        ("benchmarks/README.md", lambda: learning_table.table(DRIVES, "empty road", LEARNING_ARMS)),
        ("benchmarks/README.md", lambda: learning_table.table(DRIVES, "traffic", LEARNING_ARMS)),
    ],
    ids=["explosions, brief", "drives, brief", "drives, page", "explosions", "empty road", "traffic"],
)
def test_a_page_shows_what_the_results_say(page: str, table: Callable[[], str]) -> None:
    assert [line for line in table().splitlines() if line not in PAGES[page]] == []


def row(seed_value: float, verdict: str = "GO") -> dict[str, Any]:
    summary = {"mean": seed_value, "max": 10 * seed_value, "last": 0.0}
    return {
        "verdict": verdict,
        "first": None,
        "norms": {"actor_cnn": summary, "actor_mlp": summary, "critic_cnn": summary},
        "actor_loss": -seed_value,
        "saturation": 0.5,
        "distance_m": None,
    }


def test_an_arms_line_holds_medians_and_counts_verdicts() -> None:
    arm = "leak, no clip, cnn 1e-5, raw"
    results = {
        f"{arm}, seed {n}": row(value, verdict)
        for n, (value, verdict) in enumerate([(1.0, "GO"), (3.0, "NO-GO"), (2e6, "NO-GO")])
    }
    line = explosion_table.table(results).splitlines()[-1]
    assert line == f"| {arm} | 3 | NO-GO x2, GO x1 | none x3 | -3 | 3 / 30 | 3 | 3 / 30 | 0.5 | - |"
    assert of_study(results, arm, "norms", "actor_cnn", "max") == 30.0


def test_the_interquartile_mean_leaves_the_ends_out() -> None:
    rliable = pytest.importorskip("rliable")
    assert rliable
    point, low, high = learning_table.interquartile_mean([0.0, 1.0, 2.0, 3.0, 100.0, 4.0, 5.0, 6.0])
    assert point == pytest.approx((2.0 + 3.0 + 4.0 + 5.0) / 4)
    assert low <= point <= high
    assert learning_table.interquartile_mean([1.0, 3.0]) == 2.0


def test_the_checklist_shows_every_task_and_excludes_our_own_criteria() -> None:
    metric = {"mean": 1.0, "min": -1.0, "max": 2.0, "last": 0.25}
    names = ["gradients/critic_cnn_norm", "gradients/critic_cnn_clip_fraction", "train/reward_min", "train/reward_max"]
    names += ["agent/buffer_utilization", "agent/total_iterations", "reward/progress", "reward/smoothness"]
    hyperparams = {"max_grad_norm": 10.0, "critic_cnn_lr": "lin_2e-4", "buffer_size": 20_000, "learning_starts": 1_000}
    report = {
        "verdict": "GO",
        "metrics": dict.fromkeys(names, metric),
        "run": {"n_steps": 5_000, "n_points": 7, "manifest": {"hyperparams": hyperparams}},
        "criteria": [
            {
                "title": "|Q1 - Q2|",
                "status": "pass",
                "value": 0.5,
                "threshold": 5.0,
                "source": "first CARLA run, GO list",
            },
            {"title": "ours", "status": "pass", "value": 0.5, "threshold": 5.0, "source": "ours"},
        ],
    }
    text = checklist(report, EXPLOSIONS)
    assert text.count("\n") == 2 + 9 + 3
    assert "| Rebalance reward components | of the magnitudes of all terms' means, progress has 50%" in text
    assert r"| GO list | \|Q1 - Q2\| | pass: 0.5 (threshold 5) |" in text
    assert "ours" not in text
