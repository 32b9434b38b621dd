from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, types_pb2
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from sb3_visual_td3.common import tags
from sb3_visual_td3.report.discovery import find_runs
from sb3_visual_td3.report.event_reader import RunData, UnreadableRunError, read_run

from .synthetic_runs import Values, healthy, with_nan, write_events


def read(path: Path) -> RunData:
    (run,) = find_runs(path)
    return read_run(run.path, run.files)


def line(tag: str, steps: list[int], values: list[float]) -> Values:
    return {tag: (np.array(steps), np.array(values))}


def test_every_point_comes_back_in_single_precision(tmp_path: Path) -> None:
    run = healthy()
    write_events(run, tmp_path)
    data = read(tmp_path)
    assert data.series.names() == sorted(run)
    for tag, (steps, values) in run.items():
        np.testing.assert_array_equal(data.series[tag].steps, steps)
        np.testing.assert_array_equal(data.series[tag].values, values.astype(np.float32))
    assert data.n_points == sum(steps.size for steps, _ in run.values())
    assert data.notes == ()


def test_twenty_thousand_points_of_one_tag_are_all_kept(tmp_path: Path) -> None:
    steps = np.arange(20_000)
    write_events({"a": (steps, np.sqrt(steps))}, tmp_path)
    assert len(read(tmp_path).series["a"]) == 20_000


def test_nan_and_infinity_are_kept(tmp_path: Path) -> None:
    write_events(with_nan(), tmp_path)
    write_events(line("b", [1, 2], [np.inf, -np.inf]), tmp_path / "other")
    assert np.isnan(read(tmp_path / "other").series["b"].values).sum() == 0
    assert not np.isfinite(read(tmp_path / "other").series["b"].values).any()
    (first, _) = find_runs(tmp_path)
    assert np.isnan(read_run(first.path, first.files).series[tags.CRITIC_LOSS].values).sum() == 11


def test_a_resumed_runs_later_file_replaces_the_steps_it_repeats(tmp_path: Path) -> None:
    write_events(line("a", [1, 2, 3, 4], [1, 2, 3, 4]), tmp_path, "events.out.tfevents.1", start_time=100)
    write_events(line("a", [3, 4, 5], [30, 40, 50]), tmp_path, "events.out.tfevents.2", start_time=200)
    data = read(tmp_path)
    assert data.series["a"].steps.tolist() == [1, 2, 3, 4, 5]
    assert data.series["a"].values.tolist() == [1, 2, 30, 40, 50]
    assert "2 old points of an earlier file were left out" in data.notes[0]


def test_a_resumed_run_is_ordered_by_its_clock_and_not_by_file_name(tmp_path: Path) -> None:
    write_events(line("a", [1, 2], [1, 2]), tmp_path, "z.tfevents", start_time=100)
    write_events(line("a", [2, 3], [20, 30]), tmp_path, "a.tfevents", start_time=200)
    assert read(tmp_path).series["a"].values.tolist() == [1, 20, 30]


def test_a_resumed_run_that_counts_episodes_from_zero_again_keeps_its_first_part(tmp_path: Path) -> None:
    for session in (0, 1):
        steps = 1_000 * session + 10 * np.arange(1, 101)
        run: Values = {tag: (steps, np.full(100, float(session))) for tag in ("Loss/actor", "Loss/critic")}
        run["Episode/Reward"] = (np.arange(20), np.full(20, float(session)))
        write_events(run, tmp_path, f"events.out.tfevents.{session}", start_time=5_000 * (session + 1))
    data = read(tmp_path)
    assert data.series["Loss/actor"].steps.tolist() == list(range(10, 2_001, 10))
    assert data.series["Episode/Reward"].steps.tolist() == list(range(40))
    assert data.series["Episode/Reward"].values.tolist() == [0.0] * 20 + [1.0] * 20
    # The x-axis of this run counts episodes, so the losses of the second part lie at the episodes 20 to 39.
    assert data.span == (0, 39)
    assert data.positions["Loss/actor"].values[100:].tolist() >= [20.0] * 100
    (note,) = data.notes
    assert "Episode/Reward count from the start again, although the run continues" in note


def test_points_of_an_abandoned_branch_are_left_out_before_the_resumed_run_logs_their_tag(tmp_path: Path) -> None:
    before = {tag: (np.arange(10, 910, 10), np.ones(90)) for tag in (tags.ACTOR_LOSS, "rollout/ep_rew_mean")}
    before |= {
        tags.EVAL_REWARD: (np.array([300, 600, 900]), np.array([1.0, 2.0, -500.0])),
        "test/own": (np.array([900]), np.array([1.0])),
    }
    after = {tag: (np.arange(700, 890, 10), np.ones(19)) for tag in (tags.ACTOR_LOSS, "rollout/ep_rew_mean")}
    write_events(before, tmp_path, "events.out.tfevents.1", start_time=100)
    write_events(after, tmp_path, "events.out.tfevents.2", start_time=5_000)
    data = read(tmp_path)
    assert data.series[tags.EVAL_REWARD].steps.tolist() == [300, 600]
    assert data.series.n_steps == 880
    # The unit of this tag is not known.
    assert len(data.series["test/own"]) == 1


def test_a_later_file_of_evaluations_alone_does_not_shorten_the_training(tmp_path: Path) -> None:
    losses = (tags.ACTOR_LOSS, tags.CRITIC_LOSS, tags.Q1_VALUE)
    before = {tag: (np.arange(10, 910, 10), np.ones(90)) for tag in losses}
    before[tags.EVAL_REWARD] = (np.array([300, 600, 900]), np.ones(3))
    write_events(before, tmp_path, "events.out.tfevents.1", start_time=100)
    write_events(line(tags.EVAL_REWARD, [600, 900], [2, 2]), tmp_path, "events.out.tfevents.2", start_time=5_000)
    data = read(tmp_path)
    assert data.series[tags.EVAL_REWARD].values.tolist() == [1.0, 2.0, 2.0]
    assert data.series[tags.ACTOR_LOSS].steps.tolist() == list(range(10, 910, 10))


def test_files_written_at_the_same_time_are_merged_and_lose_nothing(tmp_path: Path) -> None:
    write_events(line("a", [1, 3, 5], [1, 3, 5]), tmp_path, "one.tfevents", start_time=100)
    write_events(line("a", [2, 4], [2, 4]), tmp_path, "two.tfevents", start_time=100)
    assert read(tmp_path).series["a"].values.tolist() == [1, 2, 3, 4, 5]


def test_steps_out_of_order_are_sorted_and_equal_steps_stay_in_order(tmp_path: Path) -> None:
    writer = EventFileWriter(str(tmp_path))
    for step, value in [(3, 1.0), (1, 2.0), (3, 3.0), (2, 4.0)]:
        summary = summary_pb2.Summary(value=[summary_pb2.Summary.Value(tag="a", simple_value=value)])
        writer.add_event(event_pb2.Event(wall_time=1.0, step=step, summary=summary))
    writer.close()
    series = read(tmp_path).series["a"]
    assert (series.steps.tolist(), series.values.tolist()) == ([1, 2, 3, 3], [2.0, 4.0, 1.0, 3.0])


def test_scalars_stored_as_tensors_are_read_and_texts_are_not(tmp_path: Path) -> None:
    writer = EventFileWriter(str(tmp_path))
    tensors = {
        "float": tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, float_val=[1.5]),
        "content": tensor_pb2.TensorProto(dtype=types_pb2.DT_DOUBLE, tensor_content=np.float64(2.5).tobytes()),
        "text": tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, string_val=[b"hello"]),
        "vector": tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, float_val=[1, 2]),
    }
    for tag, tensor in tensors.items():
        summary = summary_pb2.Summary(value=[summary_pb2.Summary.Value(tag=tag, tensor=tensor)])
        writer.add_event(event_pb2.Event(wall_time=1.0, step=1, summary=summary))
    writer.close()
    series = read(tmp_path).series
    assert {name: float(series[name].values[0]) for name in series.names()} == {"float": 1.5, "content": 2.5}


def test_nested_folders_are_runs_of_their_own(tmp_path: Path) -> None:
    for name in ("b/tb", "a", "b"):
        write_events(line("x", [1], [1]), tmp_path / name)
    assert [run.path.relative_to(tmp_path).as_posix() for run in find_runs(tmp_path)] == ["a", "b", "b/tb"]


def test_hidden_files_and_folders_below_the_path_are_left_out(tmp_path: Path) -> None:
    file = write_events(line("x", [1, 2], [1, 2]), tmp_path / "run")
    (tmp_path / "run" / f".{file.name}.Xa3bQ1").write_bytes(file.read_bytes()[:-9])
    (tmp_path / "run" / ".progress.csv").write_text("step,a\n1,2\n")
    for name in (".~tmp~", "__MACOSX"):
        write_events(line("x", [1], [1]), tmp_path / name)
    (run,) = find_runs(tmp_path)
    assert run.files == (file,)
    (hidden,) = find_runs(tmp_path / ".~tmp~")
    assert len(hidden.files) == 1
    (named,) = find_runs(tmp_path / "run" / ".progress.csv")
    assert named.files == (tmp_path / "run" / ".progress.csv",)


def test_a_file_cut_in_the_middle_is_read_up_to_its_last_whole_record(tmp_path: Path) -> None:
    file = write_events(line("a", list(range(100)), [float(i) for i in range(100)]), tmp_path)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    data = read(tmp_path)
    n = len(data.series["a"])
    assert 40 < n < 60
    assert data.series["a"].values.tolist() == list(range(n))
    assert "cut off" in data.notes[0]
    assert "only the records before it are judged" in data.notes[0]


def test_a_flipped_bit_ends_the_reading_with_a_note(tmp_path: Path) -> None:
    file = write_events(line("a", list(range(100)), [1.0] * 100), tmp_path)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    data = read(tmp_path)
    assert 40 < len(data.series["a"]) < 60
    assert "damaged" in data.notes[0]


def test_an_empty_file_beside_a_good_one_gives_a_note(tmp_path: Path) -> None:
    write_events(line("a", [1], [1]), tmp_path)
    (tmp_path / "events.out.tfevents.9").touch()
    assert "empty (0 bytes)" in read(tmp_path).notes[0]


@pytest.mark.parametrize("content", [b"", b"not an event file at all", b"\0" * 64])
def test_a_file_without_a_record_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.tfevents").write_bytes(content)
    with pytest.raises(UnreadableRunError, match="nothing to judge") as refused:
        read(tmp_path)
    assert "\n" not in str(refused.value)


def test_a_file_without_a_scalar_is_refused(tmp_path: Path) -> None:
    EventFileWriter(str(tmp_path)).close()
    with pytest.raises(UnreadableRunError, match="hold no scalar"):
        read(tmp_path)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(cut=st.floats(0, 1), flip=st.none() | st.tuples(st.floats(0, 0.9999), st.integers(1, 255)))
def test_a_damaged_file_gives_a_prefix_of_its_points_or_a_one_line_error(
    tmp_path_factory: pytest.TempPathFactory, cut: float, flip: tuple[float, int] | None
) -> None:
    folder = tmp_path_factory.mktemp("run")
    steps = list(range(40))
    file = write_events(line("a", steps, [float(s) for s in steps]), folder)
    content = bytearray(file.read_bytes())
    if flip is not None:
        content[int(flip[0] * len(content))] ^= flip[1]
    file.write_bytes(content[: int(cut * len(content))])
    try:
        data = read(folder)
    except UnreadableRunError as error:
        message = str(error)
        values = []
    else:
        message = " ".join(data.notes)
        values = data.series["a"].values.tolist()
    assert "\n" not in message
    assert values == steps[: len(values)]
