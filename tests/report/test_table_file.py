"""Logs that are tables: SB3's progress.csv, monitor files and evaluations.npz, and CSV files of other programs."""

from __future__ import annotations

import io
import itertools
import zipfile
from pathlib import Path

import numpy as np
import pytest
from stable_baselines3.common.logger import CSVOutputFormat

from sb3_visual_td3.diagnosis.return_curve import judge_learning
from sb3_visual_td3.diagnosis.two_questions import environment_steps, too_early
from sb3_visual_td3.report import table_file
from sb3_visual_td3.report.discovery import find_runs
from sb3_visual_td3.report.event_reader import RunData, RunReader, UnreadableRunError, read_run, read_runs
from sb3_visual_td3.report.table_file import TableError, read_table
from sb3_visual_td3.report.tag_mapping import with_our_names

from .synthetic_runs import healthy, write_events

MONITOR = '#{"t_start": 100.0, "env_id": "x"}\nr,l,t\n'


def read(path: Path) -> RunData:
    (run,) = find_runs(path)
    return read_run(run.path, run.files)


def points(data: RunData, tag: str) -> list[tuple[int, float]]:
    return list(zip(data.series[tag].steps.tolist(), data.series[tag].values.tolist(), strict=True))


def evaluations(path: Path, **arrays: object) -> None:
    np.savez(path, **arrays)  # type: ignore[arg-type]


def test_progress_csv_is_read_under_the_names_of_event_files(tmp_path: Path) -> None:
    writer = CSVOutputFormat(str(tmp_path / "progress.csv"))
    writer.write({"time/total_timesteps": 100, "rollout/ep_rew_mean": -5.0}, {})
    # SB3 rewrites the heading when a new name comes, and earlier rows stay shorter.
    writer.write({"time/total_timesteps": 200, "rollout/ep_rew_mean": -3.0, "train/critic_loss": 0.5}, {})
    writer.close()
    data = read(tmp_path)
    assert points(data, "rollout/ep_rew_mean") == [(100, -5.0), (200, -3.0)]
    assert points(data, "train/critic_loss") == [(200, 0.5)]
    assert data.axis == "environment steps"


def test_monitor_files_give_the_means_that_sb3_would_log(tmp_path: Path) -> None:
    rows = "".join(f"{reward}.0,10,{reward}.5\n" for reward in range(150))
    (tmp_path / "monitor.csv").write_text(MONITOR + rows + "7.0,1")
    data = read(tmp_path)
    found = points(data, "rollout/ep_rew_mean")
    assert found[0] == (10, 0.0)
    assert found[2] == (30, 1.0)
    assert found[149] == (1500, np.mean(range(50, 150)))
    assert {value for _, value in points(data, "rollout/ep_len_mean")} == {10.0}


def test_rows_of_a_monitor_file_that_hold_no_episode_are_counted_in_a_note(tmp_path: Path) -> None:
    rows = "1.0,10,1.0\nnone,10,2.0\n\n3.0,0,3.0\n5.0\n3.0,10,4.0\n"
    (tmp_path / "monitor.csv").write_text(MONITOR + rows + "7.0,1")  # the last row is cut
    data = read(tmp_path)
    assert points(data, "rollout/ep_rew_mean") == [(10, 1.0), (20, 2.0)]
    (note,) = data.notes
    assert note == "monitor.csv: left out: 3 rows without a return or a length that is a number"
    (tmp_path / "monitor.csv").write_text(MONITOR + "1.0,10,1.0\n7.0,1")
    assert not read(tmp_path).notes


def test_monitors_of_parallel_environments_are_one_sequence_of_episodes(tmp_path: Path) -> None:
    (tmp_path / "0.monitor.csv").write_text(MONITOR + "1.0,10,1.0\n3.0,10,3.0\n")
    (tmp_path / "1.monitor.csv").write_text(MONITOR + "2.0,20,2.0\n")
    assert points(read(tmp_path), "rollout/ep_rew_mean") == [(10, 1.0), (30, 1.5), (40, 2.0)]


def test_sessions_appended_to_monitor_files_stay_one_after_the_other(tmp_path: Path) -> None:
    (tmp_path / "0.monitor.csv").write_text(MONITOR + "0.0,10,1.0\n0.0,10,3.0\n" + "4.0,10,1.0\n4.0,10,3.0\n")
    (tmp_path / "1.monitor.csv").write_text(MONITOR + "0.0,10,2.0\n0.0,10,4.0\n" + "4.0,10,2.0\n4.0,10,3.99\n")
    found = points(read(tmp_path), "rollout/ep_rew_mean")
    assert [value for _, value in found] == [0.0, 0.0, 0.0, 0.0, 0.8, 8 / 6, 12 / 7, 2.0]


def test_a_clock_that_was_corrected_does_not_begin_a_session_of_a_monitor_file(tmp_path: Path) -> None:
    (tmp_path / "0.monitor.csv").write_text(MONITOR + "0.0,10,100.0\n0.0,10,99.5\n0.0,10,101.0\n")
    (tmp_path / "1.monitor.csv").write_text(MONITOR + "0.0,10,100.5\n3.0,10,102.0\n")
    assert points(read(tmp_path), "rollout/ep_rew_mean")[-2:] == [(40, 0.0), (50, 0.6)]


def test_evaluations_are_read_with_their_successes(tmp_path: Path) -> None:
    evaluations(
        tmp_path / "evaluations.npz",
        timesteps=[1000, 2000],
        results=[[1.0, 3.0], [5.0, 7.0]],
        ep_lengths=[[10, 20], [30, 40]],
        successes=[[True, False], [True, True]],
    )
    data = read(tmp_path)
    assert points(data, "eval/mean_reward") == [(1000, 2.0), (2000, 6.0)]
    assert points(data, "eval/mean_ep_length") == [(1000, 15.0), (2000, 35.0)]
    assert points(data, "eval/success_rate") == [(1000, 0.5), (2000, 1.0)]


def test_an_object_array_is_refused_and_never_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "sprung",))  # type: ignore[return-value]

    evaluations(tmp_path / "evaluations.npz", timesteps=np.array([Trap()], dtype=object), results=np.zeros((1, 1)))
    with pytest.raises(UnreadableRunError, match=r"not an evaluations\.npz of plain numbers"):
        read(tmp_path)
    assert not (tmp_path / "sprung").exists()


def test_an_array_that_is_shorter_than_its_header_states_is_refused(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": (10**15,)})
    with zipfile.ZipFile(tmp_path / "evaluations.npz", "w") as archive:
        archive.writestr("timesteps.npy", stream.getvalue())
    with pytest.raises(TableError, match="the array 'timesteps' is shorter than its header states"):
        read_table(tmp_path / "evaluations.npz")


def test_a_table_beyond_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_file, "MAX_TABLE_BYTES", 1000)
    (tmp_path / "progress.csv").write_text("step,a\n" + "1,2\n" * 500)
    with pytest.raises(TableError, match="not a text file or is larger than"):
        read_table(tmp_path / "progress.csv")
    evaluations(tmp_path / "evaluations.npz", timesteps=np.arange(500), results=np.zeros((500, 1)))
    with pytest.raises(TableError, match="the array 'timesteps' is larger"):
        read_table(tmp_path / "evaluations.npz")


@pytest.mark.parametrize(
    ("name", "text", "tag", "axis"),
    [
        ("own.csv", "step,reward\n10,1.5\n20,\n30,2.5\n", "reward", "steps"),
        ("own.csv", "Episode,avg_reward\n10,1.5\n30,2.5\n", "avg_reward", "episodes"),
        (
            "wandb.csv",
            "Step,fox-1 - eval/return,fox-1 - eval/return__MIN\n10,1.5,1\n30,2.5,1\n",
            "eval/return",
            "steps",
        ),
        ("wandb.csv", "Step,CarRacing - td3 - eval/return\n10,1.5\n30,2.5\n", "eval/return", "steps"),
        (
            "progress.csv",
            "episode_reward_mean,timesteps_total,training_iteration\n1.5,10,1\n2.5,30,2\n",
            "episode_reward_mean",
            "environment steps",
        ),
        (
            "progress.csv",
            "env_runners/episode_return_mean,num_env_steps_sampled_lifetime,timesteps_total\n1.5,10,\n2.5,30,\n",
            "env_runners/episode_return_mean",
            "environment steps",
        ),
        ("own.csv", "step,ret,timestamp,timestamp\n10,1.5,1,2\n30,2.5,3,4\n", "ret", "steps"),
        ("mlflow.csv", "run_id,key,value,step,timestamp\nf,ret,1.5,10,1\nf,ret,2.5,30,2\n", "ret", "steps"),
        (
            "run-x-tag-rollout_ep_rew_mean.csv",
            "Wall time,Step,Value\n1,10,1.5\n2,30,2.5\n",
            "rollout/ep_rew_mean",
            None,
        ),
        ("own.csv", "step;reward\n10;1.5\n30;2.5\n", "reward", "steps"),
        ("own.csv", "step\treward\n10\t1.5\n30\t2.5\n", "reward", "steps"),
        ("own.csv", "\ufefftimesteps,reward\r\n10,1.5\r\n30,2.5\r\n", "reward", "environment steps"),
    ],
)
def test_csv_files_of_other_programs_are_read(tmp_path: Path, name: str, text: str, tag: str, axis: str | None) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    for path in (tmp_path, tmp_path / name):
        data = read(path)
        assert points(data, tag) == [(10, 1.5), (30, 2.5)]
        assert axis is None or data.axis == axis


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("notes.csv", "a,b\n1,2\n", "expected a step column"),
        ("own.csv", "step,a\n", "no column except the step column holds a number"),
        ("own.csv", "step;a\n1;2,5\n", "left out: 1 value in the column 'a', not a number; the first is '2,5'"),
        ("own.csv", "step,a,a\n1,2,3\n", "two columns with the name 'a': rename one of them"),
        ("two.csv", "Step,fox - r,owl - r\n1,2,3\n", "holds 2 runs"),
        ("monitor.csv", "a,b\n1,2\n", 'no columns "r" and "l"'),
        ("monitor.csv", MONITOR, "no finished episode"),
        ("progress.csv", "", "is empty"),
        ("evaluations.npz", "text", "is not an evaluations.npz"),
    ],
)
def test_the_error_for_a_file_that_is_no_log_names_the_file(tmp_path: Path, name: str, text: str, why: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UnreadableRunError, match=f"{name}.*{why}"):
        read(tmp_path / name)


def test_tables_add_what_the_event_files_lack_and_replace_nothing(tmp_path: Path) -> None:
    write_events(healthy(), tmp_path / "tb" / "SAC_1")
    before = read(tmp_path)
    (tmp_path / "progress.csv").write_text("time/total_timesteps,train/critic_loss,train/ent_coef\n10,9,0.5\n")
    evaluations(tmp_path / "evaluations.npz", timesteps=[1000], results=[[1.0]])
    data = read(tmp_path)
    assert data.path.name == "SAC_1"
    assert points(data, "train/ent_coef") == [(10, 0.5)]
    assert points(data, "train/critic_loss") == points(before, "train/critic_loss")


def test_tables_among_several_runs_belong_to_the_nearest_one(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_events(healthy(), tmp_path / name / "tb")
        (tmp_path / name / "progress.csv").write_text(f"time/total_timesteps,train/{name}\n10,1\n")
    runs = find_runs(tmp_path)
    assert [run.path.relative_to(tmp_path).as_posix() for run in runs] == ["a/tb", "b/tb"]
    assert "train/b" in read_run(runs[1].path, runs[1].files).series


@pytest.mark.parametrize("lengths", [[40, 15, 90, 22, 61, 17], [200] * 6])
def test_the_lengths_of_episodes_are_not_the_x_axis(tmp_path: Path, lengths: list[int]) -> None:
    rows = "".join(f"{10 * n},{n}.5,{length}\n" for n, length in enumerate(lengths))
    (tmp_path / "own.csv").write_text("episode,reward,steps\n" + rows)
    data = read(tmp_path)
    assert points(data, "reward") == [(10 * n, n + 0.5) for n in range(6)]
    assert data.axis == "episodes"
    (note,) = data.notes
    assert "the x-axis is the column 'episode', because the column 'steps' does not rise from row to row" in note


def test_a_step_column_that_is_slightly_out_of_order_stays_the_x_axis(tmp_path: Path) -> None:
    # Parallel environments log the ends of their episodes a little late.
    steps = [1000 + 100 * n - 150 * (n % 3 == 0) for n in range(100)]
    (tmp_path / "own.csv").write_text("episode,r,steps\n" + "".join(f"{n},{s},{s}\n" for n, s in enumerate(steps)))
    data = read(tmp_path)
    assert data.series["r"].steps.tolist() == sorted(steps)
    assert not data.notes


def test_a_run_that_starts_again_in_the_same_csv_file_is_a_run_of_its_own(tmp_path: Path) -> None:
    rows = [f"{step},{value},1\n" for value in (1.0, 2.0) for step in range(100, 2001, 100)]
    (tmp_path / "own.csv").write_text("timesteps,r,episode\n" + "".join(rows))
    (found,) = find_runs(tmp_path)
    first, second = read_runs(found.path, found.files)
    assert points(first, "r") == [(step, 1.0) for step in range(100, 2001, 100)]
    assert points(second, "r") == [(step, 2.0) for step in range(100, 2001, 100)]
    assert second.axis == "environment steps"
    assert "own.csv holds 2 runs, one after the other: its steps go back from 2,000 to 100" in second.notes[0]
    assert points(read(tmp_path), "r") == points(second, "r")


def test_a_run_that_was_resumed_in_the_same_csv_file_loses_the_old_points(tmp_path: Path) -> None:
    old, new = range(100, 2001, 100), range(1500, 3001, 100)
    (tmp_path / "own.csv").write_text("step,r\n" + "".join(f"{s},1\n" for s in old) + "".join(f"{s},2\n" for s in new))
    data = read(tmp_path)
    assert points(data, "r") == [(s, 1.0) for s in range(100, 1500, 100)] + [(s, 2.0) for s in new]
    assert "the run was resumed from a checkpoint" in data.notes[0]


@pytest.mark.parametrize("order", [-1, 7])
def test_a_csv_file_whose_rows_have_no_order_is_one_run(tmp_path: Path, order: int) -> None:
    steps = [100 + 10 * (order * n % 31) for n in range(31)]
    (tmp_path / "own.csv").write_text("step,r\n" + "".join(f"{s},{s}\n" for s in steps))
    data = read(tmp_path)
    assert data.series["r"].steps.tolist() == sorted(steps)
    assert not data.notes


@pytest.mark.parametrize("tag", ["ep_reward", "episode_reward_mean", "rollout/ep_rew_mean"])
@pytest.mark.parametrize("n_steps", [1_500, 5_000])
def test_a_step_column_of_environment_steps_counts_whatever_the_return_is_called(
    tmp_path: Path, tag: str, n_steps: int
) -> None:
    """A run of less than 2,000 steps is too short for a GO, and one of less than 10,000 steps for a NO-GO."""
    returns = np.random.default_rng(0).normal(size=100) + (100.0 * np.arange(100) if n_steps < 2_000 else 0.0)
    rows = "".join(f"{(n + 1) * n_steps // 100},{value}\n" for n, value in enumerate(returns))
    (tmp_path / "log.csv").write_text(f"timesteps,{tag}\n{rows}")
    series = with_our_names(read(tmp_path)).series
    assert environment_steps(series) == n_steps
    assert (too_early(series) is not None) is (n_steps < 2_000)
    assert judge_learning(series).answer == ("yes" if n_steps < 2_000 else "unknown")


@pytest.mark.parametrize(
    ("steps", "first"), [(("0", "0.5", "1"), "0.5"), (("0.25", "0.5"), "0.25"), (("1.0", "2e3"), None)]
)
def test_a_note_names_the_first_step_that_is_not_a_whole_number(
    tmp_path: Path, steps: tuple[str, ...], first: str | None
) -> None:
    (tmp_path / "own.csv").write_text("epoch,r\n" + "".join(f"{step},1\n" for step in steps))
    data = read(tmp_path)
    assert data.series["r"].steps.tolist() == [int(float(step)) for step in steps]
    note = "own.csv: the steps in the column 'epoch' are not whole numbers, and were rounded towards 0; the first is"
    assert list(data.notes) == ([] if first is None else [f"{note} '{first}'"])


def test_a_table_that_grows_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "progress.csv"
    path.write_text("step,a\n1,2\n")
    reader = RunReader(tmp_path)
    assert reader.read_new([path])
    assert not reader.read_new([path])
    path.write_text("step,a\n1,2\n2,3\n")
    assert reader.read_new([path])
    assert reader.data().n_points == 2


TWO_ROWS = "10,1,2\n20,3,4\n"


@pytest.mark.parametrize(
    ("second", "heading", "expected"),
    [
        ("seed2.csv", "step,ep_return,reward,loss", ["seed1.csv", "seed2.csv"]),
        ("seed2.csv", "step,ep_return,entropy", ["seed1.csv", "seed2.csv"]),
        ("losses.csv", "step,loss,entropy", [""]),
        # A bare reward may be the reward of a step.
        ("steps.csv", "step,reward,loss", [""]),
        ("eval.csv", "step,ep_return,success", [""]),
        ("by_episode.csv", "episode,ep_return,loss", [""]),
        ("progress.csv", "step,ep_return,loss", [""]),
    ],
)
def test_csv_files_with_the_same_return_over_the_same_axis_are_different_runs(
    tmp_path: Path, second: str, heading: str, expected: list[str]
) -> None:
    (tmp_path / "seed1.csv").write_text(f"step,ep_return,reward,loss\n{TWO_ROWS}")
    (tmp_path / second).write_text(f"{heading}\n{TWO_ROWS}")
    assert [run.path for run in find_runs(tmp_path)] == [tmp_path / each for each in expected]
    (tmp_path / "run.json").write_text("{}")
    assert [run.path for run in find_runs(tmp_path)] == [tmp_path]


def test_tables_with_a_row_for_each_point_are_different_runs_if_they_hold_the_same_return(tmp_path: Path) -> None:
    for name, key in (("a.csv", "ep_return"), ("b.csv", "ep_return"), ("c.csv", "loss"), ("d.csv", "loss")):
        (tmp_path / name).write_text(f"key,value,step\n{key},1,10\n")
    runs = find_runs(tmp_path)
    assert [run.path.name for run in runs] == ["a.csv", "b.csv"]
    assert "match none of these runs: c.csv, d.csv" in runs[0].notes[1]


def test_exports_of_tensorboard_are_one_run_for_each_name_before_the_tag(tmp_path: Path) -> None:
    for run, tag in itertools.product("ab", ("loss", "rollout_ep_rew_mean")):
        (tmp_path / f"run-{run}-tag-{tag}.csv").write_text("Wall time,Step,Value\n1e9,10,1\n")
    runs = find_runs(tmp_path)
    assert [run.path.name for run in runs] == ["run-a-tag-loss.csv", "run-b-tag-loss.csv"]
    assert read_run(runs[1].path, runs[1].files).series.names() == ["loss", "rollout/ep_rew_mean"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("seed1 seed1_eval seed2 eval_seed2", "eval_seed2+seed2 seed1+seed1_eval"),
        ("train-1 test-1 train-2", "test-1+train-1 train-2"),
        ("seed1 seed2 eval", "eval seed1 seed2"),
        ("progress eval_log test_log", "eval_log+progress+test_log"),
        ("eval_1 eval_2", "eval_1 eval_2"),
    ],
)
def test_a_file_of_evaluations_belongs_to_the_run_with_the_same_name(tmp_path: Path, names: str, expected: str) -> None:
    for name in names.split():
        (tmp_path / f"{name}.csv").write_text(f"step,ep_return\n{TWO_ROWS}")
    found = ["+".join(sorted(file.stem for file in run.files)) for run in find_runs(tmp_path)]
    assert sorted(found) == expected.split()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_csv_files_whose_steps_follow_one_another_are_one_run(tmp_path: Path, encoding: str) -> None:
    for name, first in (("log_0", 10), ("log_10", 50), ("log_2", 30)):
        rows = "".join(f"{step},{step}.5,1\n" for step in (first, first + 10))
        (tmp_path / f"{name}.csv").write_text(f"step,ep_return,loss\n{rows}", encoding=encoding)
    data = read(tmp_path)
    assert points(data, "ep_return") == [(step, step + 0.5) for step in range(10, 61, 10)]
    assert len(data.files) == 3
    assert not data.notes
    (tmp_path / "log_2.csv").write_text("step,ep_return\n12,1\n30,2\n")
    assert len(find_runs(tmp_path)) == 3


def test_a_csv_file_that_begins_in_the_later_part_of_another_continues_it(tmp_path: Path) -> None:
    def write(name: str, steps: range, value: int) -> None:
        rows = "".join(f"{step},{value},{value}\n" for step in steps)
        (tmp_path / f"{name}.csv").write_text(f"step,ep_return,loss\n{rows}")

    write("a_2", range(10, 100, 10), 1)
    write("a_1", range(80, 150, 10), 2)
    data = read(tmp_path)
    assert points(data, "loss") == [(step, 1.0 if step < 80 else 2.0) for step in range(10, 150, 10)]
    assert data.notes == (
        "4 old points of an earlier file were left out, because a later file logs the same steps again",
    )
    # It is another run if it ends earlier, begins in the first half, or has points at its first intervals only.
    for steps in (range(80, 90, 10), range(40, 150, 10), range(80, 900, 80)):
        write("a_1", steps, 2)
        assert [run.path.name for run in find_runs(tmp_path)] == ["a_1.csv", "a_2.csv"]


PARTS_OF_ONE_RUN = [
    {"train": "critic_loss", "episodes": "length", "q": None},
    {"log": "loss", "log_smoothed": "entropy"},
    {"a": "loss", "b": "entropy"},
    {"a": "loss", "coarse": "entropy"},
    {"a": "loss", "between": "entropy"},
]


@pytest.mark.parametrize("parts", PARTS_OF_ONE_RUN)
def test_csv_files_with_the_same_curve_or_the_name_of_a_part_are_one_run(
    tmp_path: Path, parts: dict[str, str | None]
) -> None:
    for name, tag in parts.items():
        steps = {"coarse": range(50, 500, 50), "between": range(55, 500, 50)}.get(name, range(10, 500, 10))
        # The return is that of the last episode, whose step is a multiple of 10.
        returns = [float(step // 10) for step in steps]
        if name == "log_smoothed":
            returns = [value / 2 for value in returns]
        cells = [
            f"{step},1" if tag is None else f"{step},1,{value}" for step, value in zip(steps, returns, strict=True)
        ]
        heading = "step,q1_value" if tag is None else f"step,{tag},episode_return"
        (tmp_path / f"{name}.csv").write_text("\n".join([heading, *cells, ""]))
    (run,) = find_runs(tmp_path)
    assert not run.notes
    names = read_run(run.path, run.files).series.names()
    assert set(names) == {"episode_return", *(tag or "q1_value" for tag in parts.values())}


def test_seeds_without_shared_steps_or_with_the_same_constant_return_are_different_runs(tmp_path: Path) -> None:
    for first, value in ((10, 1.0), (15, 2.0)):
        rows = "".join(f"{step},{step * value}\n" for step in range(first, 500, 10))
        (tmp_path / f"seed{first}.csv").write_text(f"step,ep_return\n{rows}")
    assert len(find_runs(tmp_path)) == 2
    for first in (10, 15):
        rows = "".join(f"{step},-200,{step + first}\n" for step in range(10, 500, 10))
        (tmp_path / f"seed{first}.csv").write_text(f"step,ep_return,loss\n{rows}")
    runs = find_runs(tmp_path)
    assert [run.path.name for run in runs] == ["seed10.csv", "seed15.csv"]
    (note,) = runs[0].notes
    assert note.endswith("these CSV files have different returns: seed10.csv, seed15.csv")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("train losses train2", "losses+train train2"),
        ("seed1_train seed1_eval seed1_loss seed2_train", "seed1_eval+seed1_loss+seed1_train seed2_train"),
        ("seed1 seed1_gradients_loss seed2 loss_seed2", "loss_seed2+seed2 seed1+seed1_gradients_loss"),
        ("seed1 seed2 losses", "seed1 seed2"),
        ("seed1 seed2 losses progress", "losses+progress seed1 seed2"),
        ("baseline test_a", "baseline test_a"),
        ("baseline eval_a", "baseline+eval_a"),
        ("baseline test", "baseline+test"),
        ("results mean_rewards evaluations", "evaluations+mean_rewards+results"),
        ("baseline evaluations", "baseline+evaluations"),
        ("ä ö", "ä ö"),
        ("lr=1e+3 lr=1e-3", "lr=1e+3 lr=1e-3"),
    ],
)
def test_csv_files_without_a_return_belong_to_the_run_with_the_same_name(
    tmp_path: Path, names: str, expected: str
) -> None:
    for number, name in enumerate(names.split()):
        tag = "critic_loss" if "loss" in name else "ep_return"
        rows = "".join(f"{step},{number * step}\n" for step in range(10, 100, 10))
        (tmp_path / f"{name}.csv").write_text(f"step,{tag}\n{rows}")
    runs = find_runs(tmp_path)
    assert sorted("+".join(sorted(file.stem for file in run.files)) for run in runs) == expected.split()
    assert all(run.path == tmp_path or ("eval" not in run.path.name and "loss" not in run.path.name) for run in runs)
    left_out = [note for run in runs for note in run.notes if note.startswith("left out")]
    assert bool(left_out) is (expected == "seed1 seed2")
    named = [note for run in runs for note in run.notes if note.endswith("of the names: eval_a.csv")]
    assert bool(named) is (expected == "baseline+eval_a")


@pytest.mark.parametrize(
    ("step_column", "last_step", "expected"),
    [("step", 100, True), ("Step", 60, True), ("_step", 40, False), ("episode", 100, False), ("epoch", 100, False)],
)
def test_a_plain_step_column_fits_any_other_file_that_counts_as_far(
    tmp_path: Path, step_column: str, last_step: int, expected: bool
) -> None:
    rows = "".join(f"1e9,{step},1\n" for step in range(10, 101, 10))
    (tmp_path / "run-a-tag-rollout_ep_rew_mean.csv").write_text(f"Wall time,Step,Value\n{rows}")
    for name in ("a", "zz"):
        (tmp_path / f"{name}.csv").write_text(f"{step_column},{name}\n10,1\n{last_step},2\n")
    data = read(tmp_path)
    if expected:
        assert set(data.series.names()) == {"rollout/ep_rew_mean", "a", "zz"}
        assert not data.notes
    else:
        assert any("was left out: its x-axis counts" in note for note in data.notes)
    (tmp_path / "run-a-tag-rollout_ep_rew_mean.csv").unlink()
    (tmp_path / "progress.csv").write_text("time/total_timesteps,train/loss\n100,1\n")
    data = read(tmp_path)
    assert set(data.series.names()) == ({"train/loss", "a", "zz"} if expected else {"train/loss"})
    assert data.axis == "environment steps"


def test_columns_of_an_evaluation_file_do_not_replace_those_of_the_training(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("step,reward,loss,eval_return\n10,1,2,0\n20,3,4,5\n")
    (tmp_path / "eval.csv").write_text("step,reward,success,eval_return\n20,5,1,5\n")
    data = read(tmp_path)
    assert points(data, "reward") == [(10, 1.0), (20, 3.0)]
    assert points(data, "eval/reward") == [(20, 5.0)]
    assert points(data, "success") == [(20, 1.0)]
    assert points(data, "eval_return") == [(10, 0.0), (20, 5.0)]
    assert len(data.series.names()) == 5


def test_a_note_names_a_csv_file_without_a_tag_of_its_own(tmp_path: Path) -> None:
    write_events({"reward": (np.array([10]), np.array([1.0]))}, tmp_path)
    (tmp_path / "test_1.csv").write_text("step,reward\n10,2\n")
    data = read(tmp_path)
    assert points(data, "reward") == [(10, 1.0)]
    assert data.notes == ("test_1.csv was left out: other files of the run hold reward too",)


def test_a_monitor_file_that_is_emptied_while_it_is_read_is_left_out(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.monitor.csv" for number in range(3)]
    for path in paths:
        path.write_text(MONITOR + "1.0,10,1.0\n3.0,10,3.0\n")
    reader = RunReader(tmp_path)
    reader.read_new(paths)
    paths[1].write_text(MONITOR)  # the training starts again
    assert len(points(reader.data(is_growing=True), "rollout/ep_rew_mean")) == 4
    for path in paths:
        path.write_text(MONITOR)
    reader.data(is_growing=True)


@pytest.mark.parametrize("evaluation", ["eval.monitor.csv", "eval/monitor.csv"])
def test_monitor_files_of_evaluations_are_left_out(tmp_path: Path, evaluation: str) -> None:
    run = tmp_path / "test_1"
    (run / evaluation).parent.mkdir(parents=True, exist_ok=True)
    (run / evaluation).write_text(MONITOR + "5.0,10,1.0\n")
    (run / "monitor.csv").write_text(MONITOR + "1.0,10,1.0\n3.0,10,3.0\n")
    data = read(run)
    assert points(data, "rollout/ep_rew_mean") == [(10, 1.0), (20, 2.0)]
    (note,) = data.notes
    assert note.startswith(f"{evaluation} was left out: its name says that its episodes are evaluations")
    (run / "monitor.csv").unlink()
    assert points(read(run), "rollout/ep_rew_mean") == [(10, 5.0)]


@pytest.mark.parametrize(
    ("names", "second_begins", "has_note"),
    [
        (("part1.monitor.csv", "part2.monitor.csv"), 200.0, True),
        (("part2.monitor.csv", "part1.monitor.csv"), 200.0, True),
        (("env1.monitor.csv", "env2.monitor.csv"), 101.0, False),
        (("0.monitor.csv", "1.monitor.csv"), 200.0, False),
    ],
)
def test_a_note_names_monitor_files_with_separate_times_unless_sb3_numbered_them(
    tmp_path: Path, names: tuple[str, str], second_begins: float, has_note: bool
) -> None:
    (tmp_path / names[0]).write_text(MONITOR + "1.0,10,1.0\n3.0,10,3.0\n")
    (tmp_path / names[1]).write_text(MONITOR.replace("100.0", str(second_begins)) + "8.0,30,4.0\n")
    data = read(tmp_path)
    assert points(data, "rollout/ep_rew_mean") == [(10, 1.0), (20, 2.0), (50, 4.0)]
    assert {file.name for file in data.files} == set(names)
    if has_note:
        (note,) = data.notes
        assert note.startswith(f"{', '.join(names)} were read as one run that was continued; if they are different")
    else:
        assert not data.notes


@pytest.mark.parametrize(
    ("heading", "row", "expected"),
    [
        ("run,tag,step,value", "a,rollout/ep_rew_mean,{step},1", "steps"),
        ("Wall time,Step,Value", "1e9,{step},1", "environment steps"),
        ("key,value,step", "rollout/ep_rew_mean,1,{step}", "steps"),
        ("_step,rollout/ep_rew_mean", "{step},1", "steps"),
    ],
)
def test_names_show_the_unit_of_steps_that_tensorboard_exported(
    tmp_path: Path, heading: str, row: str, expected: str
) -> None:
    """Other tables with a column "step", such as series.csv, may come from a log whose steps had another unit."""
    rows = "".join(row.format(step=150 * n) + "\n" for n in range(1, 11))
    (tmp_path / "run-a-tag-rollout_ep_rew_mean.csv").write_text(f"{heading}\n{rows}")
    data = with_our_names(read(tmp_path))
    assert data.axis == expected
    assert (too_early(data.series) is not None) is (expected == "environment steps")


def test_exports_of_tensorboard_belong_to_one_run_whatever_their_names_show(tmp_path: Path) -> None:
    for tag in ("rollout_ep_rew_mean", "loss", "Episode_Return"):
        rows = "".join(f"1e9,{n},1\n" for n in range(1, 11))
        (tmp_path / f"run-a-tag-{tag}.csv").write_text(f"Wall time,Step,Value\n{rows}")
    data = read(tmp_path)
    assert data.series.names() == ["Episode/Return", "loss", "rollout/ep_rew_mean"]
    assert not data.notes


@pytest.mark.parametrize(
    ("heading", "rows", "cut"),
    [
        ("r,time/total_timesteps,loss", ["1,500,0.5", "2,1000,0.5"], "3,10"),
        ("r,time/total_timesteps,loss", ["1,500,0.5", "2,1000,0.5"], "3"),
        ("r,time/total_timesteps", ["1,500", "2,1000"], "3,15"),
        ("key,value,step", ["r,1,500", "r,2,1000"], "r,3"),
        ("r,time/total_timesteps,loss,entropy", ["1,500,0.5", "2,1000,0.5"], "3,10"),
    ],
)
def test_a_last_row_that_is_cut_is_left_out(tmp_path: Path, heading: str, rows: list[str], cut: str) -> None:
    path = tmp_path / "progress.csv"
    path.write_text("\n".join([heading, *rows, cut]))
    reader = RunReader(tmp_path)
    reader.read_new([path])
    (data,) = reader.runs()
    assert points(data, "r") == [(500, 1.0), (1000, 2.0)]
    assert data.notes == ("progress.csv: the last row is cut and was left out",)
    assert not reader.data(is_growing=True).notes


@pytest.mark.parametrize("last", ["1500,3,0", "1500,3,"])
def test_of_a_last_row_that_is_cut_only_the_last_value_is_left_out(tmp_path: Path, last: str) -> None:
    (tmp_path / "own.csv").write_text(f"step,r,loss,entropy\n500,1,2,1\n1000,2,1,1\n{last}")
    data = read(tmp_path)
    assert points(data, "r") == [(500, 1.0), (1000, 2.0), (1500, 3.0)]
    assert points(data, "loss") == [(500, 2.0), (1000, 1.0)]
    assert data.notes == ("own.csv: the last row is cut, and its last value was left out",)


def test_a_message_says_that_the_only_row_is_cut(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("step,r,loss\n1000,5")
    with pytest.raises(UnreadableRunError, match="its only row with numbers is cut"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("before", "last", "is_cut"),
    [(100_000, "99000", False), (100_000, "10", True), (99_500, "10", True), (99_500, "9", True), (9, "8", False),
     (1000, "0", False), (99_999, "1", True), (1000, "100", True), (1000, "900.5", False)],
)  # fmt: skip
def test_a_last_step_that_is_smaller_is_cut_only_if_more_digits_could_follow(
    tmp_path: Path, before: int, last: str, is_cut: bool
) -> None:
    (tmp_path / "own.csv").write_text(f"r,step\n1,{before}\n2,{last}")
    assert len(points(read(tmp_path), "r")) == (1 if is_cut else 2)


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_whole_last_row_counts_with_and_without_a_newline(tmp_path: Path, end: str) -> None:
    (tmp_path / "own.csv").write_text(f"step,r{end or chr(10)}500,1{end or chr(10)}1000,2{end}", newline="")
    assert points(read(tmp_path), "r") == [(500, 1.0), (1000, 2.0)]
    (tmp_path / "own.csv").write_text(f"r,step\r1,500\r2,1000{end}", newline="")
    assert points(read(tmp_path), "r") == [(500, 1.0), (1000, 2.0)]


@pytest.mark.parametrize("row", ["{},{}.5", '{},{}.5,"two\nlines"'])
def test_a_last_row_without_a_newline_is_not_cut_if_it_is_like_the_row_before(tmp_path: Path, row: str) -> None:
    rows = [row.format(step, step) for step in (500, 1000)]
    (tmp_path / "own.csv").write_text("\n".join(["step,r,comment,seed", *rows]))
    data = read(tmp_path)
    assert points(data, "r") == [(500, 500.5), (1000, 1000.5)]
    assert not data.notes


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
def test_a_table_in_utf_16_is_read(tmp_path: Path, encoding: str) -> None:
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    (tmp_path / "own.csv").write_text(f"{mark}step,reward\n10,1.5\n30,2.5\n", encoding=encoding)
    for path in (tmp_path, tmp_path / "own.csv"):
        assert points(read(path), "reward") == [(10, 1.5), (30, 2.5)]


@pytest.mark.parametrize(
    ("text", "note"),
    [
        (
            'step,a\n500,1\n"1,000",2\n"1,500",3\n',
            "2 values in the column 'step', not a number; the first is '1,000'",
        ),
        ("step,a\n500,1\n1000,x\n1500,\n2000,null\n", "1 value in the column 'a', not a number; the first is 'x'"),
        ("key,value,step\na,1,500\na,x,1000\n", "1 value in the column 'value', not a number; the first is 'x'"),
        ("step,a,text\n500,1,ok\n\n1000,2,ok\n", None),
    ],
)
def test_rows_that_are_left_out_are_counted_in_a_note(tmp_path: Path, text: str, note: str | None) -> None:
    (tmp_path / "own.csv").write_text(text)
    assert list(read(tmp_path).notes) == ([] if note is None else [f"own.csv: left out: {note}"])
