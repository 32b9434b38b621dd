"""Names of tags, settings and folders are shown, and never interpreted as markup or control characters."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sb3_visual_td3.report.console import one_line
from sb3_visual_td3.report.document import escaped_in_json, visible, visible_line
from sb3_visual_td3.runs.manifest import RunManifest

from .growing_runs import append, points_of, scalars
from .synthetic_runs import Values, leaking, write_events
from .test_renderers import MARKUP, as_github_shows, outside_plotly

Report = Callable[..., int]

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029\ud800-\udfff]")
ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp.exe"
NAMES = ["../../x", "/tmp/absolute", "a\nb", ESCAPES, MARKUP, "..", "\\\\host\\share", "%2e%2e/x", "C:\\x"]


def nasty(tags: list[str]) -> Values:
    run = leaking()
    for tag in tags:
        run[tag] = (np.array([1, 2]), np.array([1.0, np.nan]))
    return run


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_hostile_names_write_no_other_file_and_are_escaped(
    report: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "deep" / "er" / "run"
    write_events(nasty(NAMES), folder)
    hyperparams = {name: {name: name} for name in NAMES}
    versions = {name: name for name in NAMES}
    manifest = RunManifest("../../algo", ESCAPES, hyperparams=hyperparams, versions=versions, event_dir="../../..")
    manifest.write(folder / "run.json")
    before = tree(tmp_path)
    assert report(folder, "--format", "md,html,json,csv", output=tmp_path / "out") == 1
    names = ("report.md", "report.html", "report.json", "report.csv", "series.csv")
    assert tree(tmp_path) - before == {"out", *(f"out/{name}" for name in names)}
    texts = {name: (tmp_path / "out" / name).read_text(encoding="utf-8") for name in names}
    texts["report.html"] = outside_plotly(texts["report.html"])
    for name, text in texts.items():
        assert not CONTROL.search(text), name
    assert "<script>alert" not in texts["report.html"]
    assert "alert(1)</script>" not in texts["report.html"]
    assert "<script" not in as_github_shows(texts["report.md"])
    found = json.loads(texts["report.json"])
    assert set(NAMES) <= set(found["metrics"])
    assert found["run"]["manifest"]["hyperparams"] == hyperparams
    captured = capsys.readouterr()
    assert not CONTROL.search(captured.out + captured.err)


@pytest.mark.parametrize("name", ["a\nb", ESCAPES.replace("/", ""), "<b>bold", "[x](y)", "x...", "\udcff\udcfe"])
def test_control_characters_and_markup_in_folder_names_are_escaped(
    report: Report, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "runs" / name
    append(folder / "events.tfevents", scalars(points_of(leaking())))
    (tmp_path / "runs" / "empty").mkdir()
    (tmp_path / "runs" / "empty" / f"{name}.tfevents").touch()
    assert report(tmp_path / "runs") == 1
    captured = capsys.readouterr()
    assert not CONTROL.search(captured.out + captured.err)
    assert len(captured.err.splitlines()) == 1
    for form in ("md", "html", "json"):
        text = (tmp_path / "out" / f"report.{form}").read_text(encoding="utf-8")
        assert not CONTROL.search(outside_plotly(text)), form
    assert "<b>bold" not in outside_plotly((tmp_path / "out" / "report.html").read_text())
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    assert found["runs"][0]["run"]["path"] == str(folder)


def test_a_path_with_dots_writes_into_the_requested_folder(report: Report, tmp_path: Path) -> None:
    write_events(leaking(), tmp_path / "runs" / "a" / "tb")
    RunManifest("visual_td3", "x", event_dir="../../../../etc").write(tmp_path / "runs" / "a" / "run.json")
    before = tree(tmp_path)
    assert report(tmp_path / "runs" / "b" / ".." / "a", output=None) == 2
    assert report(tmp_path / "runs" / "a" / "tb" / "..", "--format", "json", output=None) == 1
    assert tree(tmp_path) - before == {"runs/a/report.json"}


def test_a_link_in_the_output_folder_is_replaced_and_not_followed(report: Report, tmp_path: Path) -> None:
    write_events(leaking(), tmp_path / "run")
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.json").symlink_to(tmp_path / "precious")
    assert report(tmp_path / "run", "--format", "json") == 1
    assert (tmp_path / "precious").read_text() == "mine"
    assert not (tmp_path / "out" / "report.json").is_symlink()


def test_names_outside_ascii_do_not_fail_on_an_ascii_console(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write_events(nasty(["\U0001f697 ä"]), tmp_path / "rün")
    reader, writer = os.pipe()
    with os.fdopen(writer, "w", encoding="ascii") as stdout:
        monkeypatch.setattr("sys.stdout", stdout)
        assert report(tmp_path / "rün", "--format", "json") == 1
    assert "NO-GO  r?n" in os.fdopen(reader).read()


@given(text=st.text())
def test_visible_text_contains_no_control_characters(text: str) -> None:
    assert not CONTROL.search(visible(text))
    assert len(visible(text)) == len(text)
    line = visible_line(text, 20)
    assert len(line) <= 20
    assert "\n" not in line
    assert "\t" not in line


@given(value=st.recursive(st.text() | st.integers(), lambda inner: st.dictionaries(st.text(), inner, max_size=3)))
def test_escaping_keeps_the_meaning_of_json(value: object) -> None:
    plain = json.dumps(value, ensure_ascii=False, indent=1)
    assert json.loads(escaped_in_json(plain)) == value
    assert not CONTROL.search(escaped_in_json(plain))


def test_harmless_characters_stay() -> None:
    car = "\U0001f697\u200d\U0001f4a8 é 漢字 \N{NO-BREAK SPACE}"
    assert visible_line(car) == car


def test_a_multi_line_error_message_is_joined_into_one_line() -> None:
    assert one_line(ValueError("a\n  b")) == "a b"
    assert one_line(OSError(2, "No such file", "x")) == "x: No such file"
