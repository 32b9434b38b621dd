"""A million points: all are judged, in a short time, and the page has a limited size."""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from sb3_visual_td3.common import tags

from .growing_runs import append, event_body, points_of
from .synthetic_runs import Values, healthy, leaking

Report = Callable[..., int]
BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "report_speed.py"


@pytest.fixture(scope="module")
def report_speed() -> ModuleType:
    spec = importlib.util.spec_from_file_location("report_speed", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_benchmarks_event_files_are_valid(report_speed: ModuleType, tmp_path: Path, report: Report) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (tmp_path / "run").mkdir()
    n_points = report_speed.write_events(tmp_path / "run" / "events.out.tfevents.1", 100_000)
    events = EventAccumulator(str(tmp_path / "run"), size_guidance={"scalars": 0}).Reload()
    theirs = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert sum(map(len, theirs.values())) == n_points == report_speed.BATCH
    report(tmp_path / "run", "--format", "csv")
    rows = (tmp_path / "out" / "series.csv").read_text().splitlines()
    assert len(rows) == n_points + 1
    report(tmp_path / "run", "--format", "json")
    metrics = json.loads((tmp_path / "out" / "report.json").read_text())["metrics"]
    assert {tag: m["n"] for tag, m in metrics.items()} == {tag: len(points) for tag, points in theirs.items()}
    last = {tag: points[-1] for tag, points in theirs.items()}
    assert {tag: (m["last_step"], m["last"]) for tag, m in metrics.items()} == last


@pytest.mark.slow
@pytest.mark.parametrize(("make", "code"), [(healthy, 0), (leaking, 1)])
def test_a_million_points_are_judged_like_a_thousand(
    report: Report, report_speed: ModuleType, tmp_path: Path, make: Callable[[], Values], code: int
) -> None:
    """Each series over training steps has 40,000 points, and an alert is active at every second point."""
    run = make()
    n = 40_000
    dense = {}
    for tag, (steps, values) in run.items():
        if tags.TAGS[tag].x_axis == "step" and not tag.startswith("eval/"):
            at = np.linspace(steps[0], steps[-1], n)
            dense[tag] = (np.round(at * 100).astype(int), np.interp(at, steps, values))
        else:
            dense[tag] = (steps * 100 if tags.TAGS[tag].x_axis == "step" else steps, values)
    blinking = np.arange(n) % 2
    dense[tags.ALERT_WARNING] = (dense[tags.ACTOR_LOSS][0], blinking.astype(float))
    points = points_of(dense)
    assert len(points) > 1_000_000
    bodies = [event_body(*point, 1000.0 + i * 1e-3) for i, point in enumerate(points)]
    for begin in range(0, len(bodies), report_speed.BATCH):
        append(tmp_path / "run" / "tfevents.1", report_speed.framed(bodies[begin : begin + report_speed.BATCH]))
    began = time.process_time()
    assert report(tmp_path / "run") == code
    # The report takes about ten seconds of CPU time. Other programs on the machine do not increase the CPU time.
    assert time.process_time() - began <= 60.0
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    assert found["run"]["n_points"] == len(points)
    assert found["alerts"]["warning"] == n // 2
    assert (tmp_path / "out" / "report.html").stat().st_size < 12e6
    assert (tmp_path / "out" / "report.md").stat().st_size < 1e6
