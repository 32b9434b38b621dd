from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plotly.offline import get_plotlyjs

from sb3_visual_td3.cli import main
from sb3_visual_td3.common import tags
from sb3_visual_td3.report import analysis as analysis_module
from sb3_visual_td3.report import command
from sb3_visual_td3.runs.manifest import RunManifest

from .synthetic_runs import Values, dead_policy, foreign, healthy, leaking, with_nan, write_events

Report = Callable[..., int]


def written(tmp_path: Path, folder: str = "out") -> dict[str, object]:
    content: dict[str, object] = json.loads((tmp_path / folder / "report.json").read_text())
    return content


@pytest.mark.parametrize(("make", "code"), [(healthy, 0), (leaking, 1), (dead_policy, 1), (with_nan, 1), (foreign, 3)])
def test_the_exit_code_is_that_of_the_verdict(
    report: Report, tmp_path: Path, make: Callable[[], Values], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    write_events(make(), tmp_path / "run")
    assert report(tmp_path / "run") == code
    captured = capsys.readouterr()
    assert captured.out.startswith({0: "GO", 1: "NO-GO", 3: "INSUFFICIENT"}[code])
    assert captured.err == ""
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"report.md", "report.html", "report.json"}


def test_a_run_of_two_points_is_insufficient(report: Report, tmp_path: Path) -> None:
    run = {tag: (steps[:2], values[:2]) for tag, (steps, values) in healthy().items()}
    write_events(run, tmp_path / "run")
    assert report(tmp_path / "run") == 3


def test_fail_on_no_go_exits_with_0_for_insufficient_and_1_for_no_go(report: Report, tmp_path: Path) -> None:
    write_events(foreign(), tmp_path / "foreign")
    write_events(leaking(), tmp_path / "leak")
    assert report(tmp_path / "foreign", "--fail-on", "no-go") == 0
    assert report(tmp_path / "leak", "--fail-on", "no-go") == 1


def test_several_runs_give_the_worst_exit_code_and_one_json_object_per_run(report: Report, tmp_path: Path) -> None:
    write_events(healthy(), tmp_path / "runs" / "a")
    write_events(foreign(), tmp_path / "runs" / "b")
    assert report(tmp_path / "runs") == 3
    write_events(leaking(), tmp_path / "runs" / "c")
    assert report(tmp_path / "runs") == 1
    runs = written(tmp_path)["runs"]
    assert isinstance(runs, list)
    assert [(r["run"]["name"], r["verdict"]) for r in runs] == [
        ("runs/a", "GO"),
        ("runs/b", "INSUFFICIENT"),
        ("runs/c", "NO-GO"),
    ]
    (tmp_path / "runs" / "d").mkdir()
    (tmp_path / "runs" / "d" / "events.out.tfevents.0").touch()
    assert report(tmp_path / "runs") == 1
    assert "d" in str(written(tmp_path)["unreadable"])
    assert report(tmp_path / "runs", tmp_path / "runs" / "d") == 2


def test_a_run_given_twice_is_judged_once(report: Report, tmp_path: Path) -> None:
    write_events(healthy(), tmp_path / "run")
    assert report(tmp_path / "run", tmp_path / "run" / ".") == 0
    assert written(tmp_path)["verdict"] == "GO"


def make_nothing(path: Path) -> None:
    """Leave the path missing."""


def make_folder(path: Path) -> None:
    path.mkdir()


def make_empty_file(path: Path) -> None:
    path.mkdir()
    (path / "events.out.tfevents.0").touch()


def make_text_file(path: Path) -> None:
    path.write_text("step,value\n1,2\n" * 20)


@pytest.mark.parametrize("make", [make_nothing, make_folder, make_empty_file, make_text_file])
def test_unreadable_input_gives_one_line_on_stderr_and_exit_code_2(
    report: Report, tmp_path: Path, make: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "run")
    assert report(tmp_path / "run") == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert "run" in captured.err
    assert "Traceback" not in captured.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda *_: {}["broken rule"], "KeyError: 'broken rule'"),
        (lambda *_: np.zeros(2) + np.zeros(3), "ValueError: operands could not be broadcast"),
    ],
    ids=["KeyError", "ValueError of an operation"],
)
def test_an_internal_error_shows_its_traceback_and_ends_with_exit_4(
    fault: Callable[..., object],
    message: str,
    report: Report,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_events(healthy(), tmp_path / "run")
    monkeypatch.setattr(analysis_module, "diagnose", fault)
    assert report(tmp_path / "run") == 4
    printed = capsys.readouterr().err
    assert message in printed
    assert "please report this" in printed.splitlines()[-1]


def test_debug_shows_the_traceback_of_unreadable_input(
    report: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_events(healthy(), tmp_path / "run")
    monkeypatch.setenv("VISUAL_TD3_DEBUG", "1")
    monkeypatch.chdir(tmp_path)
    Path("criteria.yml").write_text("{")
    assert main(["report", "run", "--criteria", "criteria.yml"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_the_verdict_does_not_depend_on_run_json(report: Report, tmp_path: Path) -> None:
    write_events(leaking(), tmp_path / "with" / "tb")
    write_events(leaking(), tmp_path / "without")
    RunManifest("visual_td3", "LiteDriving-v0", 1, 5000, {"gamma": 0.99}, event_dir="tb").write(
        tmp_path / "with" / "run.json"
    )
    report(tmp_path / "with", output="a")
    report(tmp_path / "without", output="b")
    first, second = written(tmp_path, "a"), written(tmp_path, "b")
    for part in ("verdict", "criteria", "diagnoses", "alerts", "metrics"):
        assert first[part] == second[part]
    assert first["run"]["manifest"]["hyperparams"] == {"gamma": 0.99}  # type: ignore[index]
    assert second["run"]["manifest"] is None  # type: ignore[index]
    assert "gamma" in (tmp_path / "a" / "report.md").read_text()


def test_an_unsupported_run_json_gives_a_note_and_no_failure(report: Report, tmp_path: Path) -> None:
    write_events(healthy(), tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text('{"format_version": 99}')
    assert report(tmp_path / "run") == 0
    assert "format_version is 99" in str(written(tmp_path)["run"])


def test_reports_are_written_into_the_run_folder_only_if_it_has_run_json(report: Report, tmp_path: Path) -> None:
    write_events(healthy(), tmp_path / "run" / "tb")
    report(tmp_path / "run", output=None)
    assert (tmp_path / "report.json").exists()
    assert not list((tmp_path / "run").glob("report.*"))
    RunManifest("visual_td3", "LiteDriving-v0").write(tmp_path / "run" / "run.json")
    report(tmp_path / "run", output=None)
    assert len(list((tmp_path / "run").glob("report.*"))) == 3


@pytest.mark.parametrize("content", ['{"format_version": 1, "al', '{"format_version": 99}', '{"algo": 1}'])
def test_a_damaged_or_newer_run_json_does_not_move_the_reports(report: Report, tmp_path: Path, content: str) -> None:
    write_events(healthy(), tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text(content)
    report(tmp_path / "run", output=None)
    assert len(list((tmp_path / "run").glob("report.*"))) == 3


def test_no_report_is_written_into_a_folder_with_the_run_json_of_another_program(
    report: Report, tmp_path: Path
) -> None:
    write_events(healthy(), tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text('{"artifacts": [], "command": "main", "status": "COMPLETED"}')
    report(tmp_path / "run", output=None)
    assert (tmp_path / "report.json").exists()
    assert not list((tmp_path / "run").glob("report.*"))


def test_an_output_path_that_is_a_file_gives_exit_code_2(
    report: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_events(healthy(), tmp_path / "run")
    (tmp_path / "taken").touch()
    assert report(tmp_path / "run", output="taken") == 2
    captured = capsys.readouterr()
    assert "--output taken: this is a file" in captured.err
    assert captured.out == ""


def test_the_verdict_is_printed_even_if_the_reports_cannot_be_written(
    report: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_events(healthy(), tmp_path / "run")
    (tmp_path / "taken").touch()
    assert report(tmp_path / "run", output="taken/out") == 2
    captured = capsys.readouterr()
    assert captured.out.startswith("GO  run")
    assert "taken" in captured.err


def test_plotly_is_in_the_page_or_once_beside_it(
    report: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_events(healthy(), tmp_path / "run")
    report(tmp_path / "run")
    assert " MB, 4.8 MB of it plotly.js; --plotlyjs directory writes it beside the page)" in capsys.readouterr().out
    out = tmp_path / "out"
    assert not (out / "plotly.min.js").exists()
    assert (out / "report.html").stat().st_size > 4_000_000
    assert "--plotlyjs directory, visual-td3 report keeps plotly.js in a file" in (out / "report.html").read_text()
    report(tmp_path / "run", "--plotlyjs", "directory")
    assert "--plotlyjs" not in capsys.readouterr().out
    assert (out / "report.html").stat().st_size < 1_500_000
    assert "--plotlyjs" not in (out / "report.html").read_text()
    assert (out / "plotly.min.js").read_text() == get_plotlyjs()


def test_only_the_requested_formats_are_written_and_unknown_formats_are_refused(report: Report, tmp_path: Path) -> None:
    write_events(healthy(), tmp_path / "run")
    report(tmp_path / "run", "--format", "md,json")
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"report.md", "report.json"}
    with pytest.raises(SystemExit) as refused:
        report(tmp_path / "run", "--format", "pdf")
    assert refused.value.code == 2


def test_own_criteria_change_the_verdict_and_a_wrong_key_is_named(
    report: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_events(healthy(), tmp_path / "run")
    mine = tmp_path / "mine.yml"
    mine.write_text("format_version: 1\ncriteria: {critic_loss_mean: {threshold: 1}}\n")
    assert report(tmp_path / "run", "--criteria", mine) == 1
    mine.write_text("format_version: 1\ncriteria: {critic_loss_mean: {treshold: 1}}\n")
    assert report(tmp_path / "run", "--criteria", mine) == 2
    error = capsys.readouterr().err
    assert "'treshold'" in error
    assert "mine.yml" in error
    assert report(tmp_path / "run", "--criteria", tmp_path / "absent.yml") == 2
    assert "absent.yml: No such file" in capsys.readouterr().err


def test_control_characters_do_not_reach_the_terminal(
    report: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_events(healthy(), tmp_path / "a\x1b[31mred")
    report(tmp_path / "a\x1b[31mred")
    assert "\x1b" not in capsys.readouterr().out


def test_neither_torch_nor_tensorflow_is_imported(tmp_path: Path) -> None:
    write_events(leaking(), tmp_path / "run")
    code = (
        "import argparse, sys\n"
        "from sb3_visual_td3.report import command\n"
        "parser = argparse.ArgumentParser(); command.add_arguments(parser)\n"
        f"code = command.run(parser.parse_args([{str(tmp_path / 'run')!r}, '--output', {str(tmp_path / 'out')!r}]))\n"
        "heavy = {'torch', 'tensorflow', 'stable_baselines3', 'pandas'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 10 + code)\n"
    )
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 11, done.stderr


FINITE_OR_NOT = st.floats(width=32, allow_nan=True, allow_infinity=True)


@pytest.mark.slow
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    st.dictionaries(
        st.sampled_from([*tags.TAGS, "rollout/ep_rew_mean", "x<script>"]),
        st.lists(st.tuples(st.integers(0, 20_000), FINITE_OR_NOT), min_size=1, max_size=12),
        min_size=1,
        max_size=25,
    )
)
def test_arbitrary_values_never_cause_an_internal_error(
    tmp_path_factory: pytest.TempPathFactory, points: dict[str, list[tuple[int, float]]]
) -> None:
    folder = tmp_path_factory.mktemp("run")
    run = {t: (np.array([s for s, _ in p]), np.array([v for _, v in p])) for t, p in points.items()}
    write_events(run, folder)
    parser = command.argparse.ArgumentParser()
    command.add_arguments(parser)
    code = command.run(parser.parse_args([str(folder), "--output", str(folder / "out")]))
    assert code in {1, 3}
    json.loads((folder / "out" / "report.json").read_text(), parse_constant=lambda c: pytest.fail(f"{c} in the JSON"))
