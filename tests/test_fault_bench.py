"""Test ``benchmarks/fault_bench.py``: how it counts right answers, and a complete run with one fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fault_bench as bench
import pytest

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.rules import RULES


def test_every_fault_expects_a_known_diagnosis_and_at_least_18_are_covered() -> None:
    answers = {training.diagnosis for training in bench.FAULTS.values()}
    assert answers <= RULES.keys()
    also = {other for training in bench.FAULTS.values() for other in training.also}
    assert also <= RULES.keys()
    assert len(answers | also) >= 18
    assert not any(training.diagnosis for training in bench.HEALTHY.values())
    assert len({training.env for training in bench.HEALTHY.values()}) >= 2
    assert sum(len(training.seeds) for training in bench.HEALTHY.values()) >= 20


def test_the_carla_run_logged_thirty_nine_names() -> None:
    assert len(bench.SEED_NAMES) == 39
    assert tags.TAGS.keys() >= bench.SEED_NAMES


def row(first: str | None, *others: str, verdict: str = "NO-GO", **keywords: Any) -> dict[str, Any]:
    found = [[name, "cause", 0.9, 100] for name in (first, *others) if name]
    return {
        "verdict": verdict,
        "first": first,
        "found": found,
        "first_with_seed_names": first,
        "is_better_than_random": True,
        "saturation": 0.0,
        "critical_alerts": [],
        **keywords,
    }


def test_a_fault_counts_as_right_if_its_diagnosis_is_first() -> None:
    assert bench.is_right("leak", row("feature_leak"))
    assert not bench.is_right("leak", row("gradient_explosion", "feature_leak"))
    assert not bench.is_right("leak", row(None))
    assert not bench.is_right("leak, clipped", row("feature_leak"))
    assert bench.is_right("leak, clipped", row("feature_leak", "clipping_masks_divergence"))


def test_a_healthy_run_counts_as_right_if_it_is_not_no_go() -> None:
    name = next(iter(bench.HEALTHY))
    assert not bench.is_right(name, row(None))
    assert bench.is_right(name, row(None, verdict="INSUFFICIENT"))
    assert bench.is_examined(name, row(None))
    assert not bench.is_examined(name, row(None, saturation=0.6))
    assert not bench.is_examined(name, row(None, is_better_than_random=False))
    assert not bench.is_examined("leak", {"error": "a traceback"})


def test_the_table_counts_right_answers_for_the_given_seeds_and_lists_alerts() -> None:
    name = next(iter(bench.HEALTHY))
    results = {
        bench.key("leak", 3): row("feature_leak"),
        bench.key("leak", 4): row("reward_scale"),
        bench.key("leak", 0): row("reward_scale"),
        bench.key(name, 3): row(None, verdict="GO", critical_alerts=["reward_scale"]),
    }
    table = bench.table(results, [3, 4, 5])
    assert "| 1 of 2 | feature_leak x1, reward_scale x1 |" in table
    assert "faults: 1 of 2 right (50%)" in table
    assert "healthy: 1 of 1 right (100%)" in table
    assert table.endswith("while they trained: reward_scale")


@pytest.mark.slow
def test_a_fault_is_trained_and_judged(tmp_path: Path) -> None:
    name, result = bench.run(("detached encoder", 0, tmp_path, False))
    assert name == "detached encoder / seed 0"
    assert bench.is_right("detached encoder", result)
    assert result["seconds"] > 0
    assert list(tmp_path.rglob(bench.TRAINED)) != []
    again = bench.run(("detached encoder", 0, tmp_path, True))[1]
    assert again == {key: value for key, value in result.items() if key != "seconds"}
