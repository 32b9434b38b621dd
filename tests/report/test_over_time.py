"""``report --until``, and the verdict on a run as it stood at each twentieth of its steps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.series import Series, SeriesSet
from sb3_visual_td3.diagnosis.verdict import Verdict
from sb3_visual_td3.report.discovery import find_runs
from sb3_visual_td3.report.event_reader import RunData, read_run, read_runs
from sb3_visual_td3.report.over_time import N_PARTS, Prefix, VerdictOverTime, verdict_over_time
from sb3_visual_td3.runs.manifest import RunManifest

from .growing_runs import append, points_of, scalars
from .synthetic_runs import Values, complete, foreign, healthy, leaking, with_nan, write_events

Report = Callable[..., int]
PUBLIC_RUNS = Path(__file__).resolve().parents[3] / "shared" / "foreign"
N, G, U = Verdict.NO_GO, Verdict.GO, Verdict.INSUFFICIENT


def write(run: Values, folder: Path, *, last: int = 1 << 60) -> Path:
    """Write a run to one event file, with its points in the order in which a training writes them.

    :param last: points after this environment step are left out
    :return: ``folder``
    """
    append(folder / "events.out.tfevents.1", scalars(points_of(run, last=last)))
    return folder


def later_values_replaced(run: Values, step: int, by: float) -> Values:
    """Replace every value that is logged after a step."""
    replaced = {}
    for tag, (steps, values) in run.items():
        when = np.cumsum(values) if tag == tags.EPISODE_LENGTH else steps
        replaced[tag] = (steps, np.where(when > step, by, values))
    # What an episode was is known at its end, and its place in the file does not change with its length.
    if tags.EPISODE_LENGTH in run:
        replaced[tags.EPISODE_LENGTH] = run[tags.EPISODE_LENGTH]
    return replaced


def reports(tmp_path: Path) -> dict[str, str]:
    """Return the text of each report by file name; ``tmp_path`` is removed from the text."""
    out = tmp_path / "out"
    texts = {file.name: file.read_text(encoding="utf-8") for file in out.iterdir()}
    return {name: text.replace(str(tmp_path), "") for name, text in texts.items()}


def content(tmp_path: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    return found


# ---- --until


@pytest.mark.parametrize("make", [healthy, leaking, with_nan, foreign])
@pytest.mark.parametrize("step", [2000, 3500])
def test_points_after_the_until_step_do_not_affect_the_report(
    report: Report, tmp_path: Path, make: Callable[[], Values], step: int
) -> None:
    folder = tmp_path / "run"
    file = folder / "events.out.tfevents.1"
    write(make(), folder)
    code = report(folder, "--until", step)
    as_it_was = reports(tmp_path)
    for by in (np.nan, 1e9):
        file.unlink()
        write(later_values_replaced(make(), step, by), folder)
        assert report(folder, "--until", step) == code
        assert reports(tmp_path) == as_it_was
    file.unlink()
    write(make(), folder, last=step)
    assert report(folder, "--until", step) == code
    assert reports(tmp_path) == as_it_was
    # The report of the run that was cut off differs in nothing but the line about --until.
    assert report(folder) == code
    cut = content(tmp_path)
    assert cut["until"] is None
    assert cut | {"until": step} == json.loads(as_it_was["report.json"].replace('"/run"', f'"{folder}"'))


def test_a_run_is_go_with_until_set_before_its_first_nan(
    report: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(with_nan(), tmp_path / "run")
    assert report(tmp_path / "run") == 1
    capsys.readouterr()
    assert report(tmp_path / "run", "--until", "3900") == 0
    out = capsys.readouterr().out
    assert "Judged up to step 3,900 (--until)" in out
    assert "NaN" not in json.dumps(content(tmp_path))
    assert content(tmp_path)["until"] == 3900
    for name, text in reports(tmp_path).items():
        assert name == "report.json" or "up to step 3,900 (--until)" in text
    # At the step of the NaN itself it has failed.
    assert report(tmp_path / "run", "--until", "4e3") == 1


@pytest.mark.parametrize("given", ["soon", "-5", "1.5", "nan", "inf", ""])
def test_an_invalid_until_step_is_refused(report: Report, given: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        report("run", f"--until={given}")
    assert stopped.value.code == 2
    last_line = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"--until: got {given!r}; expected a step" in last_line


def test_a_step_before_the_first_point_is_refused(
    report: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(foreign(), tmp_path / "early")
    late = {tag: (steps + 100_000, values) for tag, (steps, values) in foreign().items()}
    write(late, tmp_path / "late")
    assert report(tmp_path / "early", "--until", 499) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--until 499: nothing was logged up to this step, the first point is at step 500" in line
    # Among several runs such a one is listed, and does not change the answer of the others.
    assert report(tmp_path, "--until", 5000) == report(tmp_path / "early", "--until", 5000) == 3
    assert report(tmp_path / "early", tmp_path / "late", "--until", 5000) == 2
    assert len(content(tmp_path)["unreadable"]) == 1  # type: ignore[arg-type]
    assert report(tmp_path / "early", tmp_path / "late", "--until", 1_000_000) == 3
    assert not content(tmp_path)["unreadable"]


def test_until_and_watch_exclude_each_other(report: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(tmp_path, "--until", 5, "--watch") == 2
    assert "--until 5 judges a run up to that step" in capsys.readouterr().err


def test_a_report_until_an_earlier_step_does_not_contain_how_the_run_ended(report: Report, tmp_path: Path) -> None:
    run = write(healthy(), tmp_path / "run")
    ended = {"end": "crashed", "ended": "2024-05-01T10:00:00+00:00", "end_reason": "EOFError"}
    RunManifest("VisualTD3", "LiteDriving-v0", started="2024-05-01T09:00:00+00:00", **ended).write(run / "run.json")
    report(run, "--until", 4900)
    manifest = content(tmp_path)["run"]["manifest"]  # type: ignore[index, call-overload]
    assert (manifest["end"], manifest["ended"], manifest["end_reason"]) == (None, None, None)
    assert manifest["started"] == "2024-05-01T09:00:00+00:00"
    assert "EOFError" not in "".join(reports(tmp_path).values())
    for until in (["--until", 5000], []):
        report(run, *until)
        assert content(tmp_path)["run"]["manifest"]["end"] == "crashed"  # type: ignore[index, call-overload]


def table_progress(folder: Path, n: int) -> None:
    rows = "".join(f"{100 * i},{i}.0,{i % 7}.0\n" for i in range(1, n + 1))
    (folder / "progress.csv").write_text("time/total_timesteps,rollout/ep_rew_mean,train/critic_loss\n" + rows)


def table_monitor(folder: Path, n: int) -> None:
    rows = "".join(f"{i}.0,100,{i}.5\n" for i in range(n))
    (folder / "monitor.csv").write_text('#{"t_start": 100.0, "env_id": "x"}\nr,l,t\n' + rows)


def table_evaluations(folder: Path, n: int) -> None:
    steps = 100 * np.arange(1, n + 1)
    results = np.arange(2.0 * n).reshape(n, 2)
    np.savez(folder / "evaluations.npz", timesteps=steps, results=results, ep_lengths=np.full((n, 2), 50))


def table_of_ones_own(folder: Path, n: int) -> None:
    rows = "".join(f"{100 * i},{i}.0\n" for i in range(1, n + 1))
    (folder / "export.csv").write_text("Step,episode_return\n" + rows)


@pytest.mark.parametrize("table", [table_progress, table_monitor, table_evaluations, table_of_ones_own])
def test_tables_are_judged_until_a_step_as_well(
    report: Report, tmp_path: Path, table: Callable[[Path, int], None]
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    table(folder, 80)
    code = report(folder, "--until", 3000)
    until = content(tmp_path)
    table(folder, 30)
    assert report(folder) == code
    assert content(tmp_path) | {"until": 3000} == until


# ---- Points of another axis


def test_until_keeps_only_the_episodes_that_ended_by_the_given_step(tmp_path: Path) -> None:
    run = complete()
    lengths = run[tags.EPISODE_LENGTH][1]
    data = read_run(write(run, tmp_path / "run"), (tmp_path / "run" / "events.out.tfevents.1",))
    assert data.span == (1000, 5000)
    for step in (1500, 3000, 4500):
        until = data.until(step).series
        n_ended = int((np.cumsum(lengths) <= step).sum())
        assert len(until[tags.EPISODE_LENGTH]) == n_ended
        assert int(until[tags.Q1_VALUE].steps[-1]) == step
    assert data.until(5000) is data
    assert data.until(10).n_points == 0


def test_until_an_episode_keeps_the_updates_logged_before_its_end(tmp_path: Path) -> None:
    points = []
    for episode in range(40):
        points += [("loss_q", 250 * episode + i, 1.0) for i in range(250)]
        points.append(("Episode/Reward", episode, float(episode)))
    append(tmp_path / "events.out.tfevents.1", scalars(points))
    (data,) = read_runs(tmp_path, (tmp_path / "events.out.tfevents.1",))
    assert (data.axis, data.span) == ("episodes", (0, 39))
    until = data.until(9).series
    assert (len(until["Episode/Reward"]), len(until["loss_q"])) == (10, 2500)


def test_until_cuts_updates_in_proportion_if_tags_were_written_one_after_another(tmp_path: Path) -> None:
    points = [("loss_q", i, 1.0) for i in range(10_001)]
    points += [("Episode/Reward", episode, float(episode)) for episode in range(41)]
    append(tmp_path / "events.out.tfevents.1", scalars(points))
    (data,) = read_runs(tmp_path, (tmp_path / "events.out.tfevents.1",))
    until = data.until(10).series
    assert (len(until["Episode/Reward"]), len(until["loss_q"])) == (11, 2501)


@pytest.mark.parametrize("ends_early", ["avg_reward", "critic loss"])
def test_a_tag_that_is_no_longer_logged_is_cut_at_its_own_steps(tmp_path: Path, ends_early: str) -> None:
    points = []
    for step in range(0, 100_001, 100):
        points += [(tag, step, 1.0) for tag in ("avg_reward", "critic loss") if step <= 20_000 or tag != ends_early]
    append(tmp_path / "events.out.tfevents.1", scalars(points))
    (data,) = read_runs(tmp_path, (tmp_path / "events.out.tfevents.1",))
    assert (dict(data.positions), data.span) == ({}, (0, 100_000))
    for step in (10_000, 50_000):
        until = data.until(step).series
        assert {int(until[name].steps[-1]) for name in until.names()} == {step, min(step, 20_000)}


def test_final_figures_are_included_only_if_until_reaches_the_end_of_the_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    append(folder / "events.out.tfevents.1", scalars([("avg_reward", step, 1.0) for step in range(0, 1001, 10)]))
    points = [("final_avg_return", 0, 9.0), ("avg_reward", 0, 1.0)]
    append(folder / "1764381572.38" / "events.out.tfevents.2", scalars(points, start_time=9000.0))
    files = (folder / "events.out.tfevents.1", folder / "1764381572.38" / "events.out.tfevents.2")
    (data,) = read_runs(folder, files)
    assert data.span == (0, 1000)
    assert data.until(990).series.names() == ["avg_reward"]
    assert data.until(1000).series.names() == ["avg_reward", "final_avg_return"]


def test_until_works_on_a_resumed_run_whose_files_overlap(tmp_path: Path) -> None:
    run = healthy()
    folder = write(run, tmp_path / "run", last=3000)
    # The second file repeats the steps from 2,600 on.
    append(folder / "events.out.tfevents.2", scalars(points_of(run, after=2600), start_time=5000.0))
    (data,) = read_runs(folder, tuple(sorted(folder.iterdir())))
    for step in (2000, 2600, 4000):
        until = data.until(step).series
        assert len(until[tags.EPISODE_LENGTH]) == int((np.cumsum(run[tags.EPISODE_LENGTH][1]) <= step).sum())
        assert until[tags.Q1_VALUE].steps.tolist() == list(range(1100, step + 1, 100))


@given(st.lists(st.integers(0, 50), min_size=1, max_size=30), st.integers(0, 60), st.integers(0, 60))
def test_until_applied_twice_equals_until_with_the_smaller_step(steps: list[int], first: int, second: int) -> None:
    series = Series("rollout/ep_rew_mean", np.array(steps), np.arange(float(len(steps))))
    episodes = Series(tags.EPISODE_LENGTH, np.arange(len(steps)), np.ones(len(steps)))
    placed = Series(tags.EPISODE_LENGTH, episodes.steps, np.sort(np.array(steps, dtype=float)))
    data = RunData(Path("run"), SeriesSet.of([series, episodes]), (), 2 * len(steps), positions={placed.name: placed})
    cut = data.until(first).until(second)
    once = data.until(min(first, second))
    assert cut.n_points == once.n_points == 2 * sum(step <= min(first, second) for step in steps)
    assert cut.series.names() == once.series.names()


# ---- The verdict over time


def over_time(*verdicts: Verdict | None) -> VerdictOverTime:
    return VerdictOverTime(tuple(Prefix(100 * i, verdict) for i, verdict in enumerate(verdicts, start=1)))


@pytest.mark.parametrize(
    ("verdicts", "no_go_from", "part_after"),
    [
        ([U, G, N, N], 300, 0.25),
        ([N, G, N, N], 300, 0.25),
        ([None, N, N, N], 200, 0.5),
        ([U, U, U, N], 400, 0.0),
        ([N, N, N, G], None, None),
        ([N, N, N, U], None, None),
    ],
)
def test_no_go_from_is_the_first_step_of_the_final_no_go_verdicts(
    verdicts: list[Verdict | None], no_go_from: int | None, part_after: float | None
) -> None:
    found = over_time(*verdicts)
    assert (found.no_go_from, found.part_after) == (no_go_from, part_after)


def test_the_changes_of_a_verdict_begin_with_the_first_one() -> None:
    found = over_time(None, U, U, G, N, N, G)
    assert [(change.until, change.verdict) for change in found.changes] == [(200, U), (400, G), (500, N), (700, G)]


def test_the_verdict_is_recomputed_only_at_twentieths_of_the_run_with_new_points() -> None:
    series = Series("eval/mean_reward", np.array([250, 500, 1000]), np.zeros(3))
    data = RunData(Path("run"), SeriesSet.of([series]), (), 3)
    seen: list[int] = []

    def judge(part: RunData) -> Verdict:
        seen.append(part.n_points)
        return N if part.n_points == 3 else U

    found = verdict_over_time(data, judge)
    assert found is not None
    assert seen == [1, 2, 3]
    assert [prefix.until for prefix in found.prefixes] == list(range(50, 1001, 50))
    assert [prefix.verdict for prefix in found.prefixes] == [*[None] * 4, *[U] * 15, N]
    assert (found.no_go_from, found.part_after) == (1000, 0.0)
    at_zero = RunData(Path("run"), SeriesSet.of([Series("a", np.array([0]), np.zeros(1))]), (), 1)
    assert verdict_over_time(at_zero, judge) is None


@pytest.mark.parametrize("make", [healthy, leaking, with_nan, foreign])
def test_each_verdict_over_time_equals_that_of_a_report_with_until(
    report: Report, tmp_path: Path, make: Callable[[], Values]
) -> None:
    write(make(), tmp_path / "run")
    code = report(tmp_path / "run", "--format", "json")
    found = content(tmp_path)
    told = found["verdict_over_time"]
    assert isinstance(told, dict)
    prefixes = told["prefixes"]
    assert len(prefixes) == N_PARTS
    assert prefixes[-1] == {"until": 5000, "verdict": found["verdict"]}
    codes = {"GO": 0, "NO-GO": 1, None: 2, "INSUFFICIENT": 3}
    assert codes[prefixes[-1]["verdict"]] == code
    for prefix in prefixes[1::4]:
        assert report(tmp_path / "run", "--format", "json", "--until", prefix["until"]) == codes[prefix["verdict"]]


def test_the_report_says_since_when_the_failure_could_be_seen(
    report: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(with_nan(), tmp_path / "run")
    report(tmp_path / "run")
    told = "GO from step 3,000, NO-GO from step 4,000. "
    told += "When the failure could first be seen, 20% of the run was still to come."
    assert told in capsys.readouterr().out
    assert told in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert told in page
    strip = page.split('<ol class="strip"')[1].split("</ol>")[0]
    assert strip.count("<li") == N_PARTS
    assert strip.count("✗") == 5
    over = content(tmp_path)["verdict_over_time"]
    assert isinstance(over, dict)
    assert (over["no_go_from"], over["part_after"]) == (4000, 0.2)


def test_the_verdict_over_time_is_omitted_for_many_runs(report: Report, tmp_path: Path) -> None:
    for i in range(11):
        write_events(foreign(), tmp_path / "runs" / f"run{i}")
    report(tmp_path / "runs")
    runs = content(tmp_path)["runs"]
    assert isinstance(runs, list)
    assert {run["verdict_over_time"] for run in runs} == {None}
    assert 'class="strip"' not in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


@pytest.mark.skipif(not PUBLIC_RUNS.is_dir(), reason="the labelled public runs are not here (../shared/foreign)")
@pytest.mark.parametrize("name", ["ppo_05", "sac_17", "td3_04", "sac_10"])
def test_the_last_verdict_over_time_of_a_public_run_is_its_verdict(report: Report, tmp_path: Path, name: str) -> None:
    (found,) = find_runs(PUBLIC_RUNS / name)
    report(found.path, "--format", "json")
    told = content(tmp_path)
    assert told["verdict_over_time"]["prefixes"][-1]["verdict"] == told["verdict"]  # type: ignore[index, call-overload]
