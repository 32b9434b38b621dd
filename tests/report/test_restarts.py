"""Event files whose steps go back: another run in the same file, a resumed run, or points that came late."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pytest
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from sb3_visual_td3.cli import main
from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.series import Series, SeriesSet
from sb3_visual_td3.report.discovery import find_runs
from sb3_visual_td3.report.event_reader import RunData, RunReader, read_run, read_runs
from sb3_visual_td3.report.run_axis import axis_of

Record = tuple[int, Mapping[str, float]]


def write(folder: Path, records: Iterable[Record], start_time: float = 100.0) -> Path:
    """Write records in this order into one new event file."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = EventFileWriter(str(folder), filename_suffix=f".{len(list(folder.iterdir()))}")
    for index, (step, values) in enumerate(records):
        summary = summary_pb2.Summary(
            value=[summary_pb2.Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        )
        writer.add_event(event_pb2.Event(wall_time=start_time + index, step=step, summary=summary))
    writer.close()
    return folder


def read(path: Path) -> RunData:
    (run,) = find_runs(path)
    return read_run(run.path, run.files)


def read_all(path: Path) -> tuple[RunData, ...]:
    (run,) = find_runs(path)
    return read_runs(run.path, run.files)


def run(first: int, last: int, every: int, value: float, *names: str) -> list[Record]:
    return [(step, dict.fromkeys(names or ("a", "b"), value)) for step in range(first, last + 1, every)]


def points(data: RunData, tag: str) -> list[tuple[int, float]]:
    return list(zip(data.series[tag].steps.tolist(), data.series[tag].values.tolist(), strict=True))


def test_only_the_last_of_two_runs_in_one_file_is_judged(tmp_path: Path) -> None:
    write(tmp_path, run(0, 1000, 50, 1.0) + run(0, 600, 50, 2.0))
    data = read(tmp_path)
    assert points(data, "a") == [(step, 2.0) for step in range(0, 601, 50)]
    assert data.n_points == 2 * 13
    (note,) = data.notes
    assert "holds 2 runs, one after the other: its steps go back from 1,000 to 0" in note
    assert "This run is judged from step 0 on" in note
    first, second = read_all(tmp_path)
    assert points(first, "a") == [(step, 1.0) for step in range(0, 1001, 50)]
    assert points(second, "a") == points(data, "a")
    assert (first.number, second.number, second.n_runs) == (1, 2, 2)


def test_an_explosion_in_an_earlier_run_does_not_affect_the_later_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = (tags.CRITIC_LOSS, tags.Q1_VALUE)
    exploding = [
        (step, {tags.ACTOR_LOSS: -(10.0 ** (step / 200)), **dict.fromkeys(names, 1.0), "only/before": 1.0})
        for step in range(0, 2000, 50)
    ]
    calm = [(step, {tags.ACTOR_LOSS: -1.0, **dict.fromkeys(names, 1.0)}) for step in range(0, 2000, 50)]
    write(tmp_path / "both", exploding + calm)
    write(tmp_path / "alone", calm)
    found = {}
    for name in ("both", "alone"):
        output = tmp_path / f"{name}_report"
        main(["report", str(tmp_path / name), "--output", str(output)])
        found[name] = json.loads((output / "report.json").read_text())
    said = capsys.readouterr().out
    both, alone = found["both"]["runs"][1], found["alone"]
    assert found["both"]["runs"][0]["metrics"][tags.ACTOR_LOSS]["last"] < -1e9
    assert "both (run 2 of 2)" in said
    for key in ("verdict", "criteria", "diagnoses", "alerts", "metrics"):
        assert both[key] == alone[key]
    (note,) = (each for each in both["run"]["notes"] if "holds 2 runs" in each)
    assert f"Note: {note}" in said
    for form in ("md", "html"):
        assert "holds 2 runs" in (tmp_path / "both_report" / f"report.{form}").read_text()


@pytest.mark.parametrize("begins", [[0, 0, 0], [203, 250, 187], [0, 20, 0]])
def test_of_three_runs_the_last_is_judged_wherever_its_first_point_lies(tmp_path: Path, begins: list[int]) -> None:
    records = [record for n, first in enumerate(begins) for record in run(first, 3000, 100, float(n))]
    write(tmp_path, records)
    data = read(tmp_path)
    assert {value for _, value in points(data, "a")} == {2.0}
    assert "holds 3 runs" in data.notes[0]


def test_a_new_run_in_the_same_file_is_judged_from_its_first_point(tmp_path: Path) -> None:
    write(tmp_path, [*run(0, 1000, 50, 1.0), (0, {"a": 2.0})])
    data = read(tmp_path)
    assert data.series.names() == ["a"]
    assert points(data, "a") == [(0, 2.0)]


def test_a_file_that_grows_by_a_new_run_is_judged_from_there(tmp_path: Path) -> None:
    source = write(tmp_path / "whole", run(0, 1000, 50, 1.0) + run(0, 300, 50, 2.0))
    (file,) = source.iterdir()
    content = file.read_bytes()
    growing = tmp_path / "growing" / file.name
    growing.parent.mkdir()
    growing.write_bytes(content[: len(content) // 2])
    reader = RunReader(growing.parent)
    reader.read_new([growing])
    assert reader.data(is_growing=True).notes == ()
    growing.write_bytes(content)
    assert reader.read_new([growing])
    data = reader.data()
    assert [value for _, value in points(data, "a")] == [2.0] * 7
    assert "holds 2 runs" in data.notes[0]


def test_a_resumed_run_keeps_earlier_points_and_prefers_later_values(tmp_path: Path) -> None:
    write(tmp_path, run(0, 1000, 50, 1.0) + run(800, 1200, 50, 2.0))
    data = read(tmp_path)
    assert points(data, "a") == [(s, 1.0) for s in range(0, 800, 50)] + [(s, 2.0) for s in range(800, 1201, 50)]
    (note,) = data.notes
    assert "the run was resumed from a checkpoint: its steps go back from 1,000 to 800. 10 old points" in note


def test_tags_logged_only_in_the_discarded_part_of_a_resumed_run_are_left_out(tmp_path: Path) -> None:
    before = [*run(0, 1000, 50, 1.0, tags.ACTOR_LOSS, tags.Q1_VALUE), (1000, {"eval/mean_reward": 9.0})]
    write(tmp_path, before + run(800, 900, 50, 2.0, tags.ACTOR_LOSS, tags.Q1_VALUE))
    data = read(tmp_path)
    assert "eval/mean_reward" not in data.series
    assert points(data, tags.ACTOR_LOSS)[-3:] == [(800, 2.0), (850, 2.0), (900, 2.0)]


def test_a_tag_that_a_resume_left_out_may_come_back_in_the_next_file(tmp_path: Path) -> None:
    before = [*run(0, 1000, 50, 1.0, tags.ACTOR_LOSS, tags.Q1_VALUE), (1000, {"eval/mean_reward": 9.0})]
    write(tmp_path, before + run(800, 900, 50, 2.0, tags.ACTOR_LOSS, tags.Q1_VALUE))
    write(tmp_path, [(950, {tags.ACTOR_LOSS: 3.0}), (1000, {"eval/mean_reward": 8.0})], 5_000.0)
    data = read(tmp_path)
    assert points(data, "eval/mean_reward") == [(1000, 8.0)]
    assert points(data, tags.ACTOR_LOSS)[-2:] == [(900, 2.0), (950, 3.0)]


def test_a_new_run_and_its_resume_are_each_noted(tmp_path: Path) -> None:
    write(tmp_path, run(0, 1000, 50, 1.0) + run(0, 500, 50, 2.0) + run(400, 700, 50, 3.0))
    data = read(tmp_path)
    assert points(data, "a") == [(s, 2.0) for s in range(0, 400, 50)] + [(s, 3.0) for s in range(400, 701, 50)]
    assert ["holds 2 runs" in data.notes[0], "was resumed" in data.notes[1]] == [True, True]


def test_points_of_a_single_tag_whose_steps_go_back_are_kept_with_a_note(tmp_path: Path) -> None:
    records = run(0, 500, 50, 1.0, "a", "b", "c") + run(0, 500, 50, 2.0, "c") + run(550, 900, 50, 1.0, "a", "b")
    write(tmp_path, records)
    data = read(tmp_path)
    assert len(data.series["a"]) == 19
    assert len(data.series["c"]) == 22
    (note,) = data.notes
    assert "the steps of c go back while other tags continue" in note


def test_episodes_counted_from_zero_again_are_not_a_new_run(tmp_path: Path) -> None:
    episodes = [(n, {tags.EPISODE_REWARD: 1.0, tags.EPISODE_LENGTH: 5.0}) for n in range(20)]
    write(tmp_path, [*run(0, 500, 50, 1.0, "a"), *episodes, *run(550, 900, 50, 1.0, "a"), *episodes])
    data = read(tmp_path)
    assert len(data.series["a"]) == 19
    assert len(data.series[tags.EPISODE_REWARD]) == 40
    assert "train/episode_length, train/episode_reward go back while other tags continue" in data.notes[0]


def test_episodes_of_two_runs_are_distinguished_without_other_tags(tmp_path: Path) -> None:
    write(tmp_path, [(n, {tags.EPISODE_REWARD: value}) for value in (1.0, 2.0) for n in range(20)])
    data = read(tmp_path)
    assert points(data, tags.EPISODE_REWARD) == [(n, 2.0) for n in range(20)]


@pytest.mark.parametrize("steps", [[1, 2, 4, 3, 5], [3, 1, 3, 2], [10, 20, 40, 50, 30, 60, 80, 70]])
def test_single_late_points_are_sorted_and_kept(tmp_path: Path, steps: list[int]) -> None:
    write(tmp_path, [(step, {"a": float(step)}) for step in steps])
    data = read(tmp_path)
    assert data.series["a"].steps.tolist() == sorted(steps)
    assert data.notes == ()


def test_two_writers_at_the_same_time_lose_no_point_and_are_noted(tmp_path: Path) -> None:
    ahead, behind = run(500, 5000, 10, 1.0, "a"), run(0, 4500, 10, 2.0, "a")
    blocks = [block for n in range(0, len(ahead), 10) for block in (ahead[n : n + 10], behind[n : n + 10])]
    write(tmp_path, [record for block in blocks for record in block])
    data = read(tmp_path)
    assert len(data.series["a"]) == len(ahead) + len(behind)
    assert "several runs seem to write into this file at the same time" in data.notes[0]


@pytest.mark.parametrize("start_time", [5_000.0, 110.0])
def test_files_that_cover_the_same_steps_are_several_runs(tmp_path: Path, start_time: float) -> None:
    write(tmp_path, run(0, 1000, 50, 1.0))
    write(tmp_path, run(0, 800, 40, 2.0), start_time)
    first, second = read_all(tmp_path)
    assert points(first, "a") == [(step, 1.0) for step in range(0, 1001, 50)]
    assert points(second, "b") == [(step, 2.0) for step in range(0, 801, 40)]
    assert "this is run 2 of 2" in second.notes[-1]


def test_side_by_side_runs_stay_together_while_they_are_watched(tmp_path: Path) -> None:
    write(tmp_path, run(0, 1000, 50, 1.0))
    write(tmp_path, run(0, 800, 40, 2.0), 110.0)
    data = read(tmp_path)
    assert len(data.series["a"]) == 21 + 21
    assert any("covers the same steps as other files at the same time" in note for note in data.notes)


def test_tags_of_an_earlier_run_are_not_judged_with_a_later_one(tmp_path: Path) -> None:
    write(tmp_path, run(0, 1000, 50, 1.0, "a", "only/before"))
    write(tmp_path, run(0, 1000, 50, 2.0, "a"), 5_000.0)
    assert [data.series.names() for data in read_all(tmp_path)] == [["a", "only/before"], ["a"]]
    assert read(tmp_path).series.names() == ["a"]


def test_a_short_run_is_separated_from_a_later_run_with_another_logging_interval(tmp_path: Path) -> None:
    write(tmp_path, run(500, 1500, 500, 1.0))
    write(tmp_path, run(700, 7000, 700, 2.0), 5_000.0)
    assert [data.n_points for data in read_all(tmp_path)] == [6, 20]


def test_five_files_of_a_run_that_continues_are_one_run(tmp_path: Path) -> None:
    for number in range(5):
        write(tmp_path, run(1000 * number + 100, 1000 * number + 1200, 100, 1.0), 5_000.0 * (number + 1))
    (data,) = read_all(tmp_path)
    assert data.series["a"].steps.tolist() == list(range(100, 5201, 100))


def test_a_file_that_continues_another_belongs_to_the_same_run(tmp_path: Path) -> None:
    write(tmp_path, run(0, 1000, 50, 1.0))
    write(tmp_path, run(800, 1500, 50, 2.0), 5_000.0)
    (note,) = read(tmp_path).notes
    assert "old points of an earlier file were left out" in note


def test_scalars_of_sub_folders_belong_to_their_run(tmp_path: Path) -> None:
    write(tmp_path / "run", run(0, 1000, 50, 1.0))
    # What SummaryWriter.add_scalars("loss/all", {"critic": ..., "actor": ...}) leaves.
    for name in ("critic", "actor"):
        write(tmp_path / "run" / f"loss_all_{name}", run(0, 500, 50, 2.0, "loss/all"))
    write(tmp_path / "run" / "other", run(0, 500, 50, 3.0, "loss/all"))
    found = find_runs(tmp_path)
    assert [each.path.name for each in found] == ["run", "other"]
    data = read_run(found[0].path, found[0].files)
    assert data.series.names() == ["a", "b", "loss/all/actor", "loss/all/critic"]


def test_scalars_of_sub_folders_continue_with_their_run(tmp_path: Path) -> None:
    write(tmp_path, run(0, 1000, 50, 1.0))
    write(tmp_path / "loss_critic", run(0, 1000, 50, 1.0, "loss"))
    write(tmp_path, run(800, 2000, 50, 2.0), 5_000.0)
    write(tmp_path / "loss_critic", run(800, 2000, 50, 2.0, "loss"), 5_000.0)
    data = read(tmp_path)
    assert points(data, "loss/critic") == points(data, "a")
    assert data.series["loss/critic"].steps.tolist() == list(range(0, 2001, 50))
    assert sum(file.parent.name == "loss_critic" for file in data.files) == 2


def test_a_folder_of_hyperparameters_belongs_to_its_run(tmp_path: Path) -> None:
    write(tmp_path / "run", run(0, 1000, 50, 1.0))
    stub = tmp_path / "run" / "1764381572.38"
    stub.mkdir()
    writer = EventFileWriter(str(stub))
    value = summary_pb2.Summary.Value(tag="_hparams_/experiment")
    value.metadata.plugin_data.plugin_name = "hparams"
    writer.add_event(event_pb2.Event(wall_time=1.0, summary=summary_pb2.Summary(value=[value])))
    final = [summary_pb2.Summary.Value(tag=tag, simple_value=9.0) for tag in ("a", "best")]
    writer.add_event(event_pb2.Event(wall_time=1.0, summary=summary_pb2.Summary(value=final)))
    writer.close()
    (found,) = find_runs(tmp_path)
    data = read_run(found.path, found.files)
    assert points(data, "best") == [(0, 9.0)]
    assert len(data.series["a"]) == 21


@pytest.mark.parametrize(
    ("tag", "steps", "axis"),
    [
        ("rollout/ep_rew_mean", range(100, 1000, 100), "environment steps"),
        ("train/episode_reward", range(10), "episodes"),
        ("Episode/Reward", range(10), "episodes"),
        ("epoch_return", range(10), "episodes"),
        ("accuracy/epoch", range(10), "epochs"),
        ("critic_loss", range(10), "updates"),
        ("speed", range(10), "steps"),
        ("avg_reward", [150, 410, 790, 1200, 1650], "steps"),
    ],
)
def test_the_axis_is_named_as_the_tags_show_it(tag: str, steps: Iterable[int], axis: str) -> None:
    at = np.array(list(steps))
    assert axis_of(SeriesSet.of([Series(tag, at, np.ones(at.size))])) == axis
