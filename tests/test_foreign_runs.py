"""Test the benchmark ``foreign_runs.py``, which judges public runs that were labelled by hand.

Most tests use artificial runs. Tests that judge the public runs are skipped if these runs are not on this machine.
"""

from __future__ import annotations

import csv
import sys
from collections import Counter
from pathlib import Path

import foreign_runs
import numpy as np
import pytest
from foreign_runs import (
    CHANGES,
    RUNS,
    Judged,
    confusion,
    judge_all,
    line_of,
    over_time_row,
    over_time_table,
    row_of,
    stress,
)
from torch.utils.tensorboard import SummaryWriter

from sb3_visual_td3.diagnosis.criteria import judge, load_criteria
from sb3_visual_td3.diagnosis.evidence import evidence_of
from sb3_visual_td3.diagnosis.series import Series, SeriesSet
from sb3_visual_td3.diagnosis.tag_search import find_returns
from sb3_visual_td3.diagnosis.two_questions import ask
from sb3_visual_td3.diagnosis.verdict import Verdict, decide
from sb3_visual_td3.report.over_time import Prefix, VerdictOverTime

LEARNED = 10.0 * (1.0 - np.exp(-np.linspace(0.0, 20.0, 200)))


def a_run(values: object, name: str = "ep_r") -> SeriesSet:
    values = np.asarray(values, dtype=float)
    noise = np.random.default_rng(0).normal(0.0, 1.0, values.size)
    return SeriesSet.of([Series(name, np.arange(1, values.size + 1) * 1_000, values + noise)])


@pytest.fixture(name="folder")
def a_folder_of_labelled_runs(tmp_path: Path) -> Path:
    """Three runs as people leave them: one that learns, one that does not, one without a scalar."""
    (tmp_path / "labels.tsv").write_text("run\tlabel\ngood\tH\nbad\tF\nempty\tU\n", encoding="utf-8")
    for run, values in (("good", LEARNED), ("bad", np.zeros(200))):
        with SummaryWriter(str(tmp_path / run)) as writer:
            for step, value in zip(range(0, 200_000, 1_000), a_run(values)["ep_r"].values, strict=True):
                writer.add_scalar("ep_r", value, step)
    with SummaryWriter(str(tmp_path / "empty")) as writer:
        writer.add_text("note", "nothing to see")
    return tmp_path


def test_labelled_runs_are_judged_and_the_results_hold_no_data_of_them(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results.csv"
    monkeypatch.setattr(sys, "argv", ["foreign_runs.py", "--runs", str(folder), "--output", str(results)])
    foreign_runs.main()
    with results.open(newline="", encoding="utf-8") as file:
        rows = {row["run"]: row for row in csv.DictReader(file)}
    assert {run: row["verdict"] for run, row in rows.items()} == {
        "good": "GO",
        "bad": "NO-GO",
        "empty": "unreadable",
    }
    assert rows["bad"]["state"] == "flat"
    printed = capsys.readouterr().out
    assert "| H | 1 | 0 | 0 | 0 |" in printed
    assert "| F | 0 | 1 | 0 | 0 |" in printed
    # The same with --over-time: each run has twenty verdicts, and the last is that of the table above.
    over = tmp_path / "over_time.csv"
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--over-time", "--output-over-time", str(over)])
    foreign_runs.main()
    with over.open(newline="", encoding="utf-8") as file:
        verdicts = {row["run"]: row["verdicts"] for row in csv.DictReader(file)}
    assert {run: (len(each), each[-1]) for run, each in verdicts.items()} == {"good": (20, "G"), "bad": (20, "N")}
    assert "| F | 1 | 20 | " in capsys.readouterr().out


def test_a_folder_without_labels_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["foreign_runs.py", "--runs", str(tmp_path)])
    with pytest.raises(SystemExit):
        foreign_runs.main()
    assert "labels.tsv" in capsys.readouterr().err


def test_the_line_of_a_run_shows_label_verdict_both_answers_and_their_reasons() -> None:
    line = line_of(Judged("good", "H", ask(a_run(LEARNED))))
    assert line.startswith("H good         GO           stable yes     learning yes ")
    assert "ep_r: from" in line
    loss = Series("train/critic_loss", np.arange(1, 201) * 1_000, np.full(200, np.nan))
    line = line_of(Judged("bad", "F", ask(SeriesSet.of([a_run(LEARNED)["ep_r"], loss]))))
    assert line.startswith("F bad          NO-GO        stable no      learning yes ")
    assert "train/critic_loss is not finite" in line
    assert row_of(Judged("empty", "U", None)) == {"run": "empty", "label": "U", "verdict": "unreadable"}


def test_runs_are_counted_by_label_and_verdict() -> None:
    table = confusion([Judged("a", "H", ask(a_run(LEARNED))), Judged("b", "U", None)])
    assert "| label | GO | NO-GO | INSUFFICIENT | unreadable |" in table
    assert "| U | 0 | 0 | 0 | 1 |" in table


def test_the_steps_after_a_failure_was_seen_are_counted_by_label() -> None:
    no_go, go = Verdict.NO_GO, Verdict.GO
    verdicts = {"a": [None, go, no_go, no_go], "b": [no_go, no_go, no_go, no_go], "c": [go, no_go, go, go]}
    rows = []
    for run, each in verdicts.items():
        found = VerdictOverTime(tuple(Prefix(10 * i, verdict) for i, verdict in enumerate(each, start=1)))
        rows.append(over_time_row(Judged(run, "H" if run == "c" else "F", None), found))
    assert [row["verdicts"] for row in rows] == ["-GNN", "NNNN", "GNGG"]
    table = over_time_table(rows)
    # Of a, a quarter of the steps came after step 30 of 40; of b, three quarters after step 10.
    assert "| F | 2 | 8 | 6 | 2 | 2 | 50% |" in table
    assert "| H | 1 | 4 | 1 | 1 | 0 | 0% |" in table


def test_scaled_rewards_scale_returns_and_losses_and_leave_the_rest() -> None:
    data = SeriesSet.of([Series(name, np.arange(3), np.ones(3)) for name in ("ep_r", "train/critic_loss", "time/fps")])
    changed = CHANGES["rewards times 100"](data, np.random.default_rng(0))
    values = {name: changed[name].values[0] for name in data.names()}
    assert values == {"ep_r": 100.0, "train/critic_loss": 10_000.0, "time/fps": 1.0}


def test_a_run_that_is_cut_ends_earlier_and_a_thinned_one_has_fewer_points() -> None:
    data = a_run(LEARNED)
    assert CHANGES["cut at 90 %"](data, np.random.default_rng(0))["ep_r"].steps[-1] <= 180_100
    assert 70 < len(CHANGES["half of the points"](data, np.random.default_rng(0))["ep_r"]) < 130


def test_the_table_of_changes_has_a_line_for_each_change() -> None:
    data = a_run(LEARNED)
    table = stress([(Judged("good", "H", ask(data)), data)])
    assert len(table.splitlines()) == 2 + len(CHANGES)
    assert "| rewards times 100 | 1 | 0 | 0 | 0 | 0 | 0 |" in table


@pytest.mark.skipif(not RUNS.is_dir(), reason="the labelled runs are not part of the repository")
def test_the_labelled_runs_get_the_right_verdicts() -> None:
    counts = Counter((judged.label, judged.verdict) for judged, _ in foreign_runs.judge_all(RUNS))
    assert counts["H", "GO"] >= 17
    assert counts["H", "NO-GO"] == 0
    assert counts["F", "NO-GO"] >= 10
    assert counts["F", "GO"] == 0
    assert counts["S", "GO"] == 0
    assert counts["U", "unreadable"] == 1


# ---- Removing points

REMOVALS = 12


def removed(data: SeriesSet, rng: np.random.Generator) -> SeriesSet:
    """Remove random points from a run.

    Single points are removed from the returns or from all series. From the returns, a contiguous part may be removed
    instead: at the beginning, at the end, or anywhere.
    """
    series = dict(data.series)
    how = rng.choice(["single", "stretch", "begin", "end", "single ones of everything"])
    chosen = list(series)
    if "everything" not in how:
        chosen = [tag.name for tag in find_returns(data.names()) if rng.random() < 0.8]
    part = rng.uniform(0.03, 0.97)
    for name in chosen:
        n = len(series[name])
        if how.startswith("single"):
            kept = rng.random(n) < part
        else:
            width = int(0.9 * part * n)
            first = {"begin": 0, "end": n - width}.get(how, int(rng.integers(0, n - width + 1)))
            kept = (np.arange(n) < first) | (np.arange(n) >= first + width)
        series[name] = series[name].where(kept)
    return SeriesSet(series)


@pytest.mark.skipif(not RUNS.is_dir(), reason="needs the labelled runs, which are not in this repository")
def test_points_taken_from_a_failed_run_never_make_it_go() -> None:
    n_judged = 0
    for judged, data in judge_all(RUNS):
        if data is None or judged.label != "F" or judged.verdict != "NO-GO":
            continue
        for seed in range(REMOVALS):
            answers = ask(removed(data.series, np.random.default_rng(seed)))
            n_judged += 1
            assert answers.verdict is not Verdict.GO, f"{judged.run}, seed {seed}: {answers.learning.reasons}"
    assert n_judged > 5 * REMOVALS


@pytest.mark.skipif(not RUNS.is_dir(), reason="needs the labelled runs, which are not in this repository")
def test_a_tag_taken_from_a_failed_run_makes_it_go_only_with_less_evidence() -> None:
    criteria = load_criteria()
    for judged, data in judge_all(RUNS):
        if data is None or judged.label != "F" or judged.verdict != "NO-GO" or judged.answers is None:
            continue
        evidence = evidence_of(data.series, judged.criteria, judged.answers)
        for tag in data.series.names():
            kept = {name: series for name, series in data.series.series.items() if name != tag}
            without = SeriesSet(kept)
            results = judge(criteria, without)
            if decide(results) is Verdict.GO:
                thinner = evidence_of(without, results, ask(without))
                assert thinner.is_below(evidence.level), f"{judged.run} without {tag}"
