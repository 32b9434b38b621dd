"""The table over many runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sb3_visual_td3.report.overview import comparison, overview_lines
from sb3_visual_td3.report.render_html import render_html
from sb3_visual_td3.report.render_markdown import render_markdown

from .synthetic_runs import Values, complete, foreign, healthy, leaking, write_events
from .test_renderers import analysed

Report = Callable[..., int]


def learned_then_fell(n: int = 200) -> Values:
    steps = np.arange(1, n + 1) * 1000
    rises = np.minimum(steps / 100_000, 1.0) * 100.0
    values = np.where(steps > 150_000, 20.0, rises) + np.random.default_rng(0).normal(0.0, 1.0, n)
    return {"rollout/ep_rew_mean": (steps, values)}


def test_the_console_table_of_several_runs_lists_the_worst_first(
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


def test_many_runs_are_printed_as_a_table_without_advice(
    report: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(11):
        write_events(learned_then_fell(20), tmp_path / "runs" / f"r{number:02d}")
    report(tmp_path / "runs", "--format", "json")
    out = capsys.readouterr().out
    assert "Do first" not in out
    assert out.count("runs/r") == 11


def test_page_and_markdown_have_the_order_of_the_console_and_link_to_their_runs() -> None:
    runs = {"a": healthy(), "b": leaking(), "c": foreign(), "d": learned_then_fell()}
    analyses = [analysed(run, name) for name, run in runs.items()]
    in_console = [line.split()[1] for line in overview_lines(analyses)[1:]]
    assert in_console[0] in {"b", "d"}
    assert in_console[-1] == "a"
    markdown = render_markdown(analyses)
    begin = markdown.index("| Run |")
    rows = markdown[begin:].split("\n\n")[0].splitlines()[2:]
    assert [row.split("|")[1].strip() for row in rows] == in_console
    page = render_html(analyses)
    table = page.split('<table class="compared">')[1].split("</table>")[0]
    for name, place in zip(runs, range(4), strict=True):
        assert f'<a href="#run-{place}">{name}</a>' in table
    assert [part.split("<")[0] for part in table.split('<a href="#run-')[1:]] == [
        f'{list(runs).index(name)}">{name}' for name in in_console
    ]
    found = comparison(analyses)
    (fell,) = (run for run in found.runs if run.place == 3)
    cells = dict(zip(found.headings, fell.cells, strict=True))
    assert cells["Best step"] != "-"
    assert " / " in cells["Return: last / best"]


def test_a_column_without_anything_in_it_is_left_out() -> None:
    found = comparison([analysed(foreign(), "a"), analysed(learned_then_fell(), "b")])
    assert found.headings[:5] == ("Run", "Verdict", "Likely cause", "Blocking: fail / unknown", "Steps")
    assert "Metres driven, last" not in found.headings
    assert "Actor loss, last" in found.headings
    assert {len(run.cells) for run in found.runs} == {len(found.headings)}


def test_the_best_episode_is_not_called_a_step() -> None:
    found = comparison([analysed(complete(), "a"), analysed(learned_then_fell(), "b")])
    cells = {run.place: dict(zip(found.headings, run.cells, strict=True)) for run in found.runs}
    assert cells[0]["Best step"].startswith("episode ")
    assert cells[1]["Best step"].replace(",", "").isdigit()
