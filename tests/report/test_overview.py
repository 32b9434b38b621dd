"""The table over many runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from .synthetic_runs import Values, healthy, leaking, write_events

Report = Callable[..., int]


def learned_then_fell(n: int = 200) -> Values:
    steps = np.arange(1, n + 1) * 1000
    rises = np.minimum(steps / 100_000, 1.0) * 100.0
    values = np.where(steps > 150_000, 20.0, rises) + np.random.default_rng(0).normal(0.0, 1.0, n)
    return {"rollout/ep_rew_mean": (steps, values)}


def test_several_runs_end_in_one_table_with_the_worst_first(
    report: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_events(healthy(), tmp_path / "runs" / "a")
    write_events(leaking(), tmp_path / "runs" / "b")
    write_events(learned_then_fell(), tmp_path / "runs" / "c")
    report(tmp_path / "runs", "--format", "json")
    lines = capsys.readouterr().out.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("verdict"))
    assert "GO  runs/a" in lines[0]
    order = [line.split()[1] for line in lines[at + 1 : at + 4]]
    assert order.index("runs/b") < order.index("runs/a")
    (fell,) = (line for line in lines[at:] if "runs/c" in line)
    assert " / 1" in fell or " / 9" in fell


def test_many_runs_are_a_table_alone(report: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(11):
        write_events(learned_then_fell(20), tmp_path / "runs" / f"r{number:02d}")
    report(tmp_path / "runs", "--format", "json")
    out = capsys.readouterr().out
    assert "Do first" not in out
    assert out.count("runs/r") == 11
