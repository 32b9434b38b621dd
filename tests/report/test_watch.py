"""Test what ``report --watch`` prints while a run trains, and how the watch ends."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from sb3_visual_td3.common import tags
from sb3_visual_td3.report import command, event_file
from sb3_visual_td3.report.watch import watch
from sb3_visual_td3.runs.manifest import RunEnd, RunManifest

from .growing_runs import append, event, hear_ctrl_c, points_of, scalars
from .synthetic_runs import Values, healthy, leaking, with_nan, write_events

ROOT = Path(__file__).resolve().parents[2]
Report = Callable[..., int]
Watched = Callable[..., int]


@pytest.fixture
def watched(report: Report, monkeypatch: pytest.MonkeyPatch) -> Watched:
    """Return a function that runs ``report --watch``.

    Each pause calls the next function of ``happens``. After the last one, a pause raises KeyboardInterrupt.
    """

    def call(*arguments: object, happens: Iterable[Callable[[], object]] = (), output: object = "out") -> int:
        events = iter(happens)

        def wait(_seconds: float) -> None:
            action = next(events, None)
            if action is None:
                raise KeyboardInterrupt
            action()

        monkeypatch.setattr(command, "watch", partial(watch, wait=wait))
        return report(*arguments, "--watch", "--format", "json", output=output)

    return call


def changes(out: str) -> list[str]:
    """Return the lines that report a change, without the time."""
    return [line[10:] for line in out.splitlines() if " -> " in line and line[2:3] == ":"]


def finish(folder: Path, finished: str | None = "2026-01-01T00:00:00+00:00") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    RunManifest("visual_td3", "LiteDriving-v0", event_dir=".", finished=finished).write(folder / "run.json")


def test_each_change_prints_one_line_and_updates_the_reports(
    watched: Watched, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, file = with_nan(), tmp_path / "run" / "events.out.tfevents.1"
    verdicts = []

    def go_on(after: int, last: int) -> None:
        append(file, scalars(points_of(run, after, last), start_time=1000.0 + last))

    def look_up() -> None:
        verdicts.append(json.loads((tmp_path / "out" / "report.json").read_text())["verdict"])

    go_on(-1, 1300)
    code = watched(tmp_path / "run", happens=[look_up, lambda: go_on(1300, 3900), look_up, lambda: go_on(3900, 9999)])
    lines = changes(capsys.readouterr().out)
    assert code == 1
    assert [line.split(": ")[0:2] for line in lines] == [
        ["run  step 1,300", "no verdict -> INSUFFICIENT"],
        ["run  step 3,900", "INSUFFICIENT -> GO"],
        ["run  step 5,009", "GO -> NO-GO (non_finite)"],
    ]
    assert "Every logged value is finite. Found: 11" in lines[2]
    look_up()
    assert verdicts == ["INSUFFICIENT", "GO", "NO-GO"]


def test_without_news_nothing_is_printed_or_judged(
    watched: Watched, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_events(healthy(), tmp_path / "run")
    judged = []
    judge = command.analyse
    monkeypatch.setattr(command, "analyse", lambda *a, **k: judged.append(1) or judge(*a, **k))
    assert watched(tmp_path / "run", happens=[lambda: None] * 5) == 0
    assert len(judged) == 1
    captured = capsys.readouterr()
    assert len(changes(captured.out)) == 1
    assert captured.err == ""


def test_only_new_bytes_are_read(watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_events(healthy(), tmp_path / "run")
    size = file.stat().st_size
    offsets = []
    read = event_file.read_records

    def spied(path: Path, offset: int, n_whole: int) -> object:
        offsets.append(offset)
        return read(path, offset, n_whole)

    monkeypatch.setattr(event_file, "read_records", spied)
    watched(tmp_path / "run", happens=[lambda: append(file, event("a", 1, 1.0, 2000.0)), lambda: None])
    assert offsets == [0, size, size + len(event("a", 1, 1.0, 2000.0))]


def test_the_watch_waits_for_a_folder_and_a_file_and_says_so(
    watched: Watched, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, file = tmp_path / "run", tmp_path / "run" / "events.out.tfevents.1"
    steps: list[Callable[[], object]] = [
        run.mkdir,
        lambda: None,
        lambda: append(file, b""),
        lambda: append(file, scalars(points_of(healthy()))),
    ]
    assert watched(run, happens=steps) == 0
    captured = capsys.readouterr()
    assert len(changes(captured.out)) == 1
    assert [line.split(": ", 2)[1] for line in captured.err.splitlines()] == ["waiting", "waiting"]
    assert "no such file or folder" in captured.err
    assert "no event file here" in captured.err


def test_ctrl_c_before_anything_was_logged_gives_no_report_and_exit_code_2(watched: Watched, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert watched(tmp_path / "run", happens=[lambda: None]) == 2
    assert not (tmp_path / "out").exists()


def test_a_half_written_record_is_not_there_yet(
    watched: Watched, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = scalars(points_of(healthy()))
    last = event("late/tag", 5000, 7.0, 3000.0)
    file = tmp_path / "run" / "events.out.tfevents.1"
    append(file, content + last[:5])
    seen = []

    def metrics() -> dict[str, object]:
        found: dict[str, object] = json.loads((tmp_path / "out" / "report.json").read_text())
        seen.append(("late/tag" in found["metrics"], found["run"]["notes"]))  # type: ignore[operator,index]
        return found

    happens = [metrics, lambda: append(file, last[5:30]), metrics, lambda: append(file, last[30:])]
    assert watched(tmp_path / "run", happens=happens) == 0
    metrics()
    assert seen == [(False, []), (False, []), (True, [])]
    assert "Note" not in capsys.readouterr().out


def test_a_file_that_was_cut_back_is_read_again(watched: Watched, tmp_path: Path) -> None:
    file = tmp_path / "run" / "events.out.tfevents.1"
    run = healthy()
    early = scalars(points_of(run, last=3000))
    append(file, early)
    append(file, scalars(points_of(with_nan(), after=3000), start_time=2000.0))

    def resume() -> None:
        with file.open("r+b") as stream:
            stream.truncate(len(early))
        append(file, scalars(points_of(run, after=3000), start_time=3000.0))

    assert watched(tmp_path / "run", happens=[resume]) == 0
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    assert found["metrics"][tags.CRITIC_LOSS]["n"] == 40
    assert found["run"]["n_points"] == len(points_of(run))


def test_new_files_and_new_runs_appear_and_the_worst_verdict_is_the_exit_code(
    watched: Watched, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = healthy()
    append(tmp_path / "runs" / "a" / "tfevents.1", scalars(points_of(run, last=3000)))

    def resume() -> None:
        append(tmp_path / "runs" / "a" / "tfevents.2", scalars(points_of(run, after=2900), start_time=9000.0))

    def second() -> None:
        write_events(leaking(), tmp_path / "runs" / "b")

    assert watched(tmp_path / "runs", happens=[resume, second]) == 1
    names = [line.split("  ")[0].split(": ")[0] for line in changes(capsys.readouterr().out)]
    assert names == ["runs", "runs/b"]
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [(r["verdict"], len(r["run"]["files"])) for r in content["runs"]] == [("GO", 2), ("NO-GO", 1)]


@pytest.mark.parametrize("end", ["crashed", "interrupted"])
def test_a_crashed_or_interrupted_run_is_watched_until_it_is_resumed_and_finishes(
    watched: Watched, tmp_path: Path, capsys: pytest.CaptureFixture[str], end: RunEnd
) -> None:
    write_events(healthy(), tmp_path / "run")
    reported: list[list[str]] = []

    def says(**how: str | None) -> None:
        RunManifest("visual_td3", "LiteDriving-v0", event_dir=".", **how).write(tmp_path / "run" / "run.json")

    def look_up() -> None:
        reported.append(json.loads((tmp_path / "out" / "report.json").read_text())["run"]["notes"])

    ended, resumed = "2026-01-01T00:00:00+00:00", "2026-01-01T01:00:00+00:00"
    watched(
        tmp_path / "run",
        happens=[
            lambda: says(end=end, ended=ended, end_reason="EOFError: by its worker"),
            look_up,
            says,
            lambda: says(end="finished", ended=resumed, finished=resumed),
            lambda: None,
            lambda: pytest.fail("it did not end by itself"),
        ],
    )
    said = [line[10:] for line in capsys.readouterr().out.splitlines() if line[2:3] == ":"]
    assert (
        f"run: {end} at {ended}: EOFError: by its worker. It can be resumed, so the watch continues; Ctrl-C ends it"
        in said
    )
    assert "run: the run was resumed" in said
    assert f"run: finished at {resumed}" in said
    assert any(f"{end} at {ended}: EOFError" in note for note in reported[0])


def test_a_run_that_a_callback_stopped_is_over(
    watched: Watched, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_events(healthy(), tmp_path / "run")
    stopped = RunManifest("visual_td3", "LiteDriving-v0", event_dir=".", end="stopped", end_reason="by a callback")
    stopped.write(tmp_path / "run" / "run.json")
    watched(tmp_path / "run", happens=[lambda: None, lambda: pytest.fail("it did not end by itself")])
    assert "run: stopped: by a callback" in capsys.readouterr().out


def test_the_watch_ends_when_every_run_has_finished(
    watched: Watched, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        write_events(healthy(), tmp_path / "runs" / name)
        finish(tmp_path / "runs" / name, None)
    late = [lambda: finish(tmp_path / "runs" / "a"), lambda: finish(tmp_path / "runs" / "b"), lambda: None]
    never = [lambda: pytest.fail("it went on")] * 3
    assert watched(tmp_path / "runs", "--interval", "600", happens=[*late, *never]) == 0
    out = capsys.readouterr().out
    assert out.count("GO  runs/") == 2
    assert "Reports:" in out


def test_points_logged_after_run_json_says_finished_are_still_read(watched: Watched, tmp_path: Path) -> None:
    run = healthy()
    file = tmp_path / "run" / "tfevents.1"
    append(file, scalars(points_of(run, last=4900)))
    finish(tmp_path / "run")
    evaluation = scalars(points_of(run, after=4900), start_time=5000.0)
    happens = [lambda: append(file, evaluation + b"half"), lambda: None]
    assert watched(tmp_path / "run", "--interval", "600", happens=happens) == 0
    found = json.loads((tmp_path / "out" / "report.json").read_text())["run"]
    assert found["n_points"] == len(points_of(run))
    # The run is finished, so the half record now counts as a cut-off file.
    assert "cut off" in found["notes"][0]


def test_a_run_that_finished_long_ago_is_reported_at_once(watched: Watched, tmp_path: Path) -> None:
    file = write_events(healthy(), tmp_path / "run")
    os.utime(file, (1000.0, 1000.0))
    finish(tmp_path / "run")
    assert watched(tmp_path / "run", happens=[lambda: pytest.fail("it waited")]) == 0


def test_a_run_that_vanishes_is_reported(watched: Watched, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_events(leaking(), tmp_path / "runs" / "a")
    write_events(healthy(), tmp_path / "runs" / "b")
    assert watched(tmp_path / "runs", happens=[file.unlink]) == 0
    captured = capsys.readouterr()
    assert changes(captured.out)[-1] == "a: NO-GO (feature_leak) -> no verdict: its event files are gone"


def test_a_run_whose_files_become_another_run_keeps_its_verdict(
    watched: Watched, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = np.arange(1000, 50_001, 1000)
    noise = np.random.default_rng(0).normal(0.0, 3.0, steps.size)

    def write(name: str, returns: np.ndarray) -> None:
        rows = "".join(f"{step},{value}\n" for step, value in zip(steps, returns, strict=True))
        (tmp_path / "w" / name).write_text(f"timesteps,episode_reward\n{rows}")

    (tmp_path / "w").mkdir()
    write("seed1.csv", np.minimum(steps, 25_000) / 250 + noise)
    (tmp_path / "log.py").write_text("import os\nprint(os.environ['VISUAL_TD3_RUN'], file=open('fired', 'a'))\n")
    happens = [lambda: write("seed2.csv", noise), (tmp_path / "w" / "seed1.csv").unlink]
    watched(tmp_path / "w", "--on-change", f"{sys.executable} log.py", happens=happens)
    names = [line.split("  ")[0].split(": ")[0] for line in changes(capsys.readouterr().out)]
    assert names == ["w", "w/seed2.csv", "seed1.csv"]
    assert Path("fired").read_text().split() == ["w", "w/seed2.csv"]


def test_a_run_that_appears_later_is_named_in_the_notes_of_the_others(
    watched: Watched, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(name: str, factor: int) -> None:
        rows = "".join(f"{step},{factor * step}\n" for step in range(1000, 50_001, 1000))
        (tmp_path / "w" / f"{name}.csv").write_text(
            f"timesteps,{'loss' if name == 'losses' else 'episode_reward'}\n{rows}"
        )

    (tmp_path / "w").mkdir()
    write("train", 1)
    write("losses", 1)
    watched(tmp_path / "w", happens=[lambda: write("train2", 2), lambda: write("train3", 3)])
    out = capsys.readouterr().out
    assert len(changes(out)) == 3
    assert out.count("have different returns: train.csv, train2.csv, train3.csv") == 3


def test_an_unreadable_path_is_reported_once_with_exit_2(
    watched: Watched, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_events(healthy(), tmp_path / "run")
    (tmp_path / "run" / "tfevents.9").symlink_to("tfevents.9")
    assert watched(tmp_path / "run", happens=[lambda: None, lambda: None]) == 2
    assert capsys.readouterr().err.count("symbolic links") == 1


def test_a_folder_that_cannot_be_searched_is_named_once_and_does_not_delay_the_end(
    watched: Watched, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_events(healthy(), tmp_path / "runs" / "a")
    finish(tmp_path / "runs" / "a")
    (tmp_path / "runs" / "/".join("d" * 70)).mkdir(parents=True)
    happens = [lambda: None, lambda: None, lambda: pytest.fail("it did not end by itself")]
    assert watched(tmp_path / "runs", tmp_path / "runs" / "a", tmp_path / "runs", happens=happens) == 0
    problem = "its folders are nested too deeply"
    assert capsys.readouterr().err.count(problem) == 1
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert problem in report["unreadable"][0]
    assert [run["run"]["name"] for run in report["runs"]] == ["runs"]


def test_a_run_that_the_tags_file_does_not_fit_stays_in_the_report_and_gives_exit_code_2(
    watched: Watched, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, mapping = healthy(), tmp_path / "tags.yml"
    mapping.write_text(f"mine: {tags.Q1_VALUE}\n")
    file = tmp_path / "runs" / "good" / "tfevents.1"
    append(file, scalars(points_of(run, last=4000)))
    write_events({**run, "mine": run[tags.Q1_VALUE]}, tmp_path / "runs" / "clash")
    go_on = scalars(points_of(run, after=4000), start_time=5000.0)
    happens = [lambda: None, lambda: append(file, go_on)]
    assert watched(tmp_path / "runs", "--tags", mapping, happens=happens) == 2
    assert capsys.readouterr().err.count("the run logged train/q1_value itself") == 1
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    assert len(found["unreadable"]) == 1
    assert [run["run"]["n_points"] for run in found["runs"]] == [len(points_of(run))]


def test_a_run_that_can_no_longer_be_judged_loses_its_verdict(
    watched: Watched, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, mapping = healthy(), tmp_path / "tags.yml"
    mapping.write_text(f"mine: {tags.Q1_VALUE}\n")
    file = write_events(run, tmp_path / "run")
    clash = event("mine", 5000, 1.0, 2000.0)
    assert watched(tmp_path / "run", "--tags", mapping, happens=[lambda: append(file, clash)]) == 2
    assert "GO -> no verdict: " in capsys.readouterr().out


def test_a_path_that_never_appears_gives_exit_code_2(watched: Watched, tmp_path: Path) -> None:
    write_events(healthy(), tmp_path / "run")
    assert watched(tmp_path / "run", tmp_path / "nowhere", happens=[lambda: None]) == 2


def test_runs_are_renamed_when_a_second_run_appears(watched: Watched, tmp_path: Path) -> None:
    write_events(healthy(), tmp_path / "runs" / "a")
    watched(tmp_path / "runs", happens=[lambda: write_events(healthy(1), tmp_path / "runs" / "b")])
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [run["run"]["name"] for run in content["runs"]] == ["runs/a", "runs/b"]


def test_fail_on_no_go_applies_to_a_watch(watched: Watched, tmp_path: Path) -> None:
    few: Values = {tags.ACTOR_LOSS: (np.array([1, 2]), np.array([1.0, 2.0]))}
    write_events(few, tmp_path / "run")
    assert watched(tmp_path / "run") == 3
    assert watched(tmp_path / "run", "--fail-on", "no-go") == 0


def test_the_pause_is_at_least_as_long_as_the_check_before_it(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_events(healthy(), tmp_path / "run")
    paused = []

    def wait(seconds: float) -> None:
        paused.append(seconds)
        raise KeyboardInterrupt

    clock = iter([100.0, 107.0, 200.0, 201.0])
    monkeypatch.setattr("sb3_visual_td3.report.watch.time.monotonic", lambda: next(clock))
    monkeypatch.setattr(command, "watch", partial(watch, wait=wait))
    for _ in range(2):
        report(tmp_path / "run", "--watch", "--interval", "2")
    assert paused == [7.0, 2.0]


@pytest.mark.parametrize("interval", ["0", "-1", "nan", "inf", "soon"])
def test_an_invalid_interval_is_refused(report: Report, tmp_path: Path, interval: str) -> None:
    with pytest.raises(SystemExit) as refused:
        report(tmp_path, "--watch", "--interval", interval)
    assert refused.value.code == 2


def test_an_interval_without_a_watch_is_refused(
    report: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(tmp_path, "--interval", "3") == 2
    assert "--watch" in capsys.readouterr().err


def test_ctrl_c_ends_a_watch_process_without_a_traceback(tmp_path: Path) -> None:
    """A thread writes a run, another process watches the run, and SIGINT ends that process."""
    run, file = with_nan(), tmp_path / "run" / "events.out.tfevents.1"
    file.parent.mkdir()
    arguments = ["report", str(file.parent), "--watch", "--interval", "0.05", "--format", "json", "--output", "out"]
    process = subprocess.Popen(
        [sys.executable, "-m", "sb3_visual_td3", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_ctrl_c,  # noqa: PLW1509  no threads yet
    )
    try:
        assert process.stderr is not None
        assert process.stdout is not None
        assert "waiting" in process.stderr.readline()
        content = scalars(points_of(run))

        def write() -> None:
            for at in range(0, len(content), 4001):
                append(file, content[at : at + 4001])

        writer = threading.Thread(target=write)
        writer.start()
        lines = iter(process.stdout.readline, "")
        last = next(line for line in lines if "-> NO-GO (non_finite)" in line)
        writer.join()
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=300)
    finally:
        process.kill()
    assert "step" in last
    assert process.returncode == 1
    assert rest.startswith("NO-GO  run") or "\nNO-GO  run" in rest
    assert "Traceback" not in errors


def test_a_change_runs_the_command_with_the_verdict_in_its_environment(watched: Watched, tmp_path: Path) -> None:
    write_events(healthy(), tmp_path / "it's; touch $HOME")
    code = "import os, sys; open(sys.argv[1], 'a').write(str({k: v for k, v in os.environ.items() if 'TD3_' in k}))"
    told = tmp_path / "told"
    path = tmp_path / "it's; touch $HOME"
    command_line = f"{sys.executable} -c {json.dumps(code)} {told}"
    assert watched(path, "--on-change", command_line, happens=[lambda: None]) == 0
    text = told.read_text()
    assert "'VISUAL_TD3_VERDICT': 'GO'" in text
    assert "'VISUAL_TD3_BEFORE': 'no verdict'" in text
    assert "touch $HOME" in text
    assert text.count("VISUAL_TD3_VERDICT") == 1


@pytest.mark.parametrize(
    ("command_line", "why"),
    [("/no/such/program", "No such file"), (f"{sys.executable} -c 'exit(7)'", "ended with exit code 7")],
)
def test_a_command_that_fails_is_reported_and_does_not_end_the_watch(
    watched: Watched, tmp_path: Path, command_line: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_events(healthy(), tmp_path / "run")
    assert watched(tmp_path / "run", "--on-change", command_line) == 0
    assert why in capsys.readouterr().err


def test_on_change_needs_watch_and_a_program(
    report: Report, watched: Watched, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(tmp_path, "--on-change", "true") == 2
    assert "add --watch" in capsys.readouterr().err
    assert watched(tmp_path, "--on-change", "'true") == 2
    assert "expected a program and its arguments" in capsys.readouterr().err


def test_a_program_that_takes_too_long_is_ended_with_the_programs_that_it_started(
    watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_events(healthy(), tmp_path / "run")
    # The pipe is open as long as the child lives. If nothing ends the child, it says so.
    read, write = os.pipe()
    os.set_inheritable(write, True)
    child = f'import os, time; time.sleep(30); os.write({write}, b"alive")'
    popen = partial(subprocess.Popen, close_fds=False)
    monkeypatch.setattr("sb3_visual_td3.report.watch.subprocess.Popen", popen)
    monkeypatch.setattr("sb3_visual_td3.report.watch.ON_CHANGE_TIMEOUT_S", 2.0)
    script = tmp_path / "hook.sh"
    script.write_text(f"#!/bin/sh\n{sys.executable} -c '{child}'\ntrue\n")
    script.chmod(0o755)
    assert watched(tmp_path / "run", "--on-change", str(script)) == 0
    os.close(write)
    with os.fdopen(read, "rb") as end:
        assert end.read() == b""
    assert "timed out after 2.0 seconds" in capsys.readouterr().err


def test_reports_that_could_not_be_written_are_written_at_a_later_check(
    watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, file = healthy(), tmp_path / "run" / "tfevents.1"
    write, is_full = command.write_reports, [False, True, True, False]

    def write_unless_full(folders: object, contents: object) -> object:
        if is_full.pop(0):
            raise OSError(errno.EDQUOT, "Disk quota exceeded", "report.json")
        return write(folders, contents)  # type: ignore[arg-type]

    monkeypatch.setattr(command, "write_reports", write_unless_full)
    append(file, scalars(points_of(run, last=4000)))
    go_on = scalars(points_of(run, after=4000), start_time=5000.0)
    assert watched(tmp_path / "run", happens=[lambda: append(file, go_on), lambda: None, lambda: None]) == 0
    assert is_full == []
    assert json.loads((tmp_path / "out" / "report.json").read_text())["run"]["n_points"] == len(points_of(run))
    assert capsys.readouterr().err.count("could not be written: report.json: Disk quota exceeded") == 1


def test_reports_that_cannot_be_written_at_the_first_check_end_the_watch(
    watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EACCES, "Permission denied", "out")

    monkeypatch.setattr(command, "write_reports", refuse)
    write_events(healthy(), tmp_path / "run")
    assert watched(tmp_path / "run", happens=[lambda: pytest.fail("it went on")]) == 2
