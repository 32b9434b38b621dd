from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sb3_visual_td3.common import tags
from sb3_visual_td3.report.writing import inert, report_csv, series_csv

from .synthetic_runs import REAL_RUNS, healthy, needs_real_runs, with_nan, write_events
from .test_renderers import analysed

Report = Callable[..., int]


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


def test_every_point_of_every_tag_comes_back_exactly() -> None:
    run = with_nan()
    run["x/inf"] = (np.array([1, 2]), np.array([np.inf, -np.inf]))
    found: dict[str, list[tuple[int, float]]] = {}
    for row in rows(series_csv([analysed(run)])):
        assert row["run"] == "run"
        found.setdefault(row["tag"], []).append((int(row["step"]), float(row["value"])))
    assert found.keys() == run.keys()
    for tag, (steps, values) in run.items():
        assert [step for step, _ in found[tag]] == steps.tolist()
        np.testing.assert_array_equal([value for _, value in found[tag]], values)


def test_a_row_per_tag_has_the_statistics_of_the_json(report: Report, tmp_path: Path) -> None:
    write_events(healthy(), tmp_path / "run")
    assert report(tmp_path / "run", "--format", "json,csv") == 0
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"report.json", "report.csv", "series.csv"}
    metrics = json.loads((tmp_path / "out" / "report.json").read_text())["metrics"]
    table = {row["tag"]: row for row in rows((tmp_path / "out" / "report.csv").read_text())}
    assert table.keys() == metrics.keys()
    for tag, metric in metrics.items():
        assert {name: float(table[tag][name]) for name in metric} == metric
        assert (table[tag]["verdict"], table[tag]["unit"]) == ("GO", tags.TAGS[tag].unit)
    assert table[tags.EPISODE_LENGTH]["x_axis"] == "episode"
    n_rows = len(rows((tmp_path / "out" / "series.csv").read_text()))
    assert n_rows == sum(metric["n"] for metric in metrics.values())


def test_csv_is_written_only_on_request(report: Report, tmp_path: Path) -> None:
    write_events(healthy(), tmp_path / "run")
    report(tmp_path / "run")
    assert not list((tmp_path / "out").glob("*.csv"))


def test_several_runs_have_distinct_names(report: Report, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_events(healthy(), tmp_path / "runs" / name)
    report(tmp_path / "runs", "--format", "csv")
    for name in ("report.csv", "series.csv"):
        assert {row["run"] for row in rows((tmp_path / "out" / name).read_text())} == {"runs/a", "runs/b"}


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "\x00=1", "＝1", "＋1", "－1", "＠x"],  # noqa: RUF001
)
def test_formulas_become_text_for_spreadsheets(text: str) -> None:
    run = {text: (np.array([1]), np.array([-1.5]))}
    for table in (report_csv([analysed(run, name=text)]), series_csv([analysed(run, name=text)])):
        (row,) = csv.DictReader(table.splitlines(keepends=True))
        assert row["tag"] == row["run"] == f"'{text}".replace("\0", "\N{SYMBOL FOR NULL}")
    assert inert(text)[0] == "'"


@pytest.mark.parametrize("text", ["train/q1_value", "a=b", "x-1", "1", "", "ä", "'=1"])
def test_names_that_are_not_formulas_stay_unchanged(text: str) -> None:
    assert inert(text) == text


@pytest.mark.parametrize("separator", [";", ",", "\t", "|", "\n"])
def test_a_tag_with_separators_stays_one_cell_and_no_split_part_is_a_formula(separator: str) -> None:
    run = {f'a{separator}=cmd"c"': (np.array([1]), np.array([-1.5]))}
    text = series_csv([analysed(run)])
    (row,) = csv.DictReader(text.splitlines(keepends=True))
    assert row == {"run": "run", "tag": f'a{separator}\'=cmd"c"', "step": "1", "value": "-1.5"}
    assert not any(cell.lstrip('"').startswith("=") for cell in text.split(separator))


def test_numbers_are_not_rounded_and_nan_is_kept() -> None:
    run = {"a": (np.array([1, 2]), np.array([0.1 + 0.2, np.nan]))}
    first, second = rows(series_csv([analysed(run)]))
    assert first["value"] == "0.30000000000000004"
    assert math.isnan(float(second["value"]))


@needs_real_runs
def test_the_csv_of_the_first_carla_run_has_its_39_tags_and_every_point(report: Report, tmp_path: Path) -> None:
    report(REAL_RUNS / "seed_5k", "--format", "csv")
    assert len(rows((tmp_path / "out" / "report.csv").read_text())) == 39
    points = rows((tmp_path / "out" / "series.csv").read_text())
    assert len(points) == 2488
    norms = [float(p["value"]) for p in points if p["tag"] == tags.GRADIENT_NORM["actor_cnn"]]
    assert (len(norms), max(norms)) == (25, 8_199_994.5)
