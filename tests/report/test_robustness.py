"""Test that the report gives the right answer or a one-line error for any content of a folder."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, types_pb2

from sb3_visual_td3.common import tags
from sb3_visual_td3.report import command, event_file
from sb3_visual_td3.report.event_reader import RunReader

from .growing_runs import append, event, frame, points_of, scalars
from .synthetic_runs import Values, dead_policy, healthy, leaking, write_events

Report = Callable[..., int]
NAME = "events.out.tfevents.1"


@pytest.fixture
def judge(report: Report) -> Report:
    """Return the ``report`` command with ``--format json``."""

    def call(*arguments: object) -> int:
        return report(*arguments, "--format", "json")

    return call


def written(tmp_path: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((tmp_path / "out" / "report.json").read_text())
    return content


def notes(tmp_path: Path) -> list[str]:
    return written(tmp_path)["run"]["notes"]  # type: ignore[index,no-any-return]


def moved(run: Values, by: int) -> Values:
    """Return a run with ``by`` added to its environment steps."""
    return {tag: (steps if tag == tags.EPISODE_LENGTH else steps + by, values) for tag, (steps, values) in run.items()}


@pytest.mark.parametrize(("make", "code"), [(healthy, 0), (leaking, 1), (dead_policy, 1)])
def test_steps_out_of_order_and_points_twice_change_no_verdict(
    judge: Report, tmp_path: Path, make: Callable[[], Values], code: int
) -> None:
    points = points_of(make())
    order = np.random.default_rng(0).permutation(len(points))
    append(tmp_path / "run" / NAME, scalars([points[i] for i in order]))
    assert judge(tmp_path / "run") == code
    first = written(tmp_path)["criteria"]
    append(tmp_path / "run" / NAME, scalars(points))
    twice = [p for p in points if p[0] != tags.EPISODE_LENGTH]
    append(tmp_path / "other" / NAME, scalars(sorted(points + twice, key=lambda p: p[1])))
    assert judge(tmp_path / "other") == code
    assert [c["status"] for c in written(tmp_path)["criteria"]] == [c["status"] for c in first]  # type: ignore[index,attr-defined]


@pytest.mark.parametrize("by", [2**53 + 1, 2**62])
@pytest.mark.parametrize(("make", "code"), [(healthy, 0), (leaking, 1), (dead_policy, 1)])
def test_steps_that_a_float64_cannot_represent_change_no_verdict(
    judge: Report, tmp_path: Path, make: Callable[[], Values], code: int, by: int
) -> None:
    append(tmp_path / "near" / NAME, scalars(points_of(make())))
    assert judge(tmp_path / "near") == code
    near = written(tmp_path)
    append(tmp_path / "far" / NAME, scalars(points_of(moved(make(), by), last=1 << 63)))
    assert judge(tmp_path / "far") == code
    far = written(tmp_path)
    assert far["run"]["n_steps"] == 5000 + by  # type: ignore[index]
    long = {"episode_length_improves", "learning"}  # both can fail only from 10,000 steps on
    for a, b in zip(near["criteria"], far["criteria"], strict=True):  # type: ignore[call-overload]
        assert a["id"] in long or (a["status"], a["value"]) == (b["status"], b["value"]), a["id"]


def test_a_run_with_negative_steps_is_judged_and_diagnosed(judge: Report, tmp_path: Path) -> None:
    append(tmp_path / "run" / NAME, scalars(points_of(moved(leaking(), -3000), after=-(10**6))))
    assert judge(tmp_path / "run") == 1
    found = written(tmp_path)
    assert found["metrics"][tags.ACTOR_LOSS]["first_step"] == -1900  # type: ignore[index]
    assert found["diagnoses"][0]["id"] == "feature_leak"  # type: ignore[index]
    append(tmp_path / "before" / NAME, scalars([("a", -5, 1.0), ("a", -3, 2.0)]))
    assert judge(tmp_path / "before") == 3
    assert written(tmp_path)["run"]["n_steps"] is None  # type: ignore[index]


def doubles(points: list[tuple[str, int, float]]) -> bytes:
    """Return records that hold points as 64-bit tensors, because ``simple_value`` has only 32 bits."""
    records = []
    for tag, step, value in points:
        tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_DOUBLE, double_val=[value])
        summary = summary_pb2.Summary(value=[summary_pb2.Summary.Value(tag=tag, tensor=tensor)])
        records.append(frame(event_pb2.Event(wall_time=1.0, step=step, summary=summary).SerializeToString()))
    return b"".join(records)


@pytest.mark.parametrize("scale", [1e308, -1e308, 5e-324, 1e-300])
def test_values_near_the_limits_of_float64_are_summarized_without_overflow(
    report: Report, tmp_path: Path, scale: float, capsys: pytest.CaptureFixture[str]
) -> None:
    run = healthy()
    steps, _ = run[tags.CRITIC_LOSS]
    run[tags.CRITIC_LOSS] = (steps, np.full(steps.size, scale))
    append(tmp_path / "run" / NAME, doubles(points_of(run)))
    expected = 1 if scale > 200 else 0
    assert report(tmp_path / "run") == expected
    captured = capsys.readouterr()
    assert captured.err == ""
    metric = written(tmp_path)["metrics"][tags.CRITIC_LOSS]  # type: ignore[index]
    assert metric["mean"] == pytest.approx(scale, rel=1e-9)
    assert (metric["min"], metric["max"]) == (scale, scale)


def test_a_clock_that_jumps_within_a_file_is_noted_and_changes_no_verdict(judge: Report, tmp_path: Path) -> None:
    points = points_of(leaking())
    third = len(points) // 3
    for i, part in enumerate((points[:third], points[third : 2 * third], points[2 * third :])):
        append(tmp_path / "run" / NAME, scalars(part, start_time=[1e9, 5.0, 2e9][i]))
    assert judge(tmp_path / "run") == 1
    assert any("the wall-clock time goes back by 999,999,99" in note for note in notes(tmp_path))
    assert written(tmp_path)["run"]["n_points"] == len(points)  # type: ignore[index]


def test_threads_that_write_a_second_apart_are_not_a_jump_of_the_clock(judge: Report, tmp_path: Path) -> None:
    append(tmp_path / "run" / NAME, event("a", 1, 1.0, 1000.0) + event("a", 2, 1.0, 999.0))
    judge(tmp_path / "run")
    assert notes(tmp_path) == []


def test_files_without_a_clear_order_keep_all_points(judge: Report, tmp_path: Path) -> None:
    """The clock was set back, so the order of the files is unknown, and they are judged as two runs."""
    append(tmp_path / "run" / "tfevents.1", scalars(points_of(leaking()), start_time=5000.0))
    append(tmp_path / "run" / "tfevents.2", event("x", 1, 1.0, 9000.0) + scalars(points_of(healthy()), 1000.0))
    assert judge(tmp_path / "run") == 1
    runs = written(tmp_path)["runs"]
    assert [run["verdict"] for run in runs] == ["GO", "NO-GO"]  # type: ignore[attr-defined]
    n_points = len(points_of(leaking())) + len(points_of(healthy())) + 1
    assert sum(run["run"]["n_points"] for run in runs) == n_points  # type: ignore[attr-defined]


@pytest.mark.parametrize("wall_time", [float("nan"), 0.0, float("inf"), -1.0])
def test_points_of_files_without_usable_wall_times_are_all_kept(tmp_path: Path, wall_time: float) -> None:
    files = [tmp_path / "tfevents.1", tmp_path / "tfevents.2"]
    for file in files:
        append(file, event("a", 1, 1.0, wall_time) + event("a", 2, 2.0, wall_time))
    reader = RunReader(tmp_path)
    reader.read_new(files)
    data = reader.data()
    assert data.series["a"].steps.tolist() == [1, 1, 2, 2]
    assert "2 points repeat steps of another file" in data.notes[0]


def test_images_histograms_and_texts_are_ignored(judge: Report, tmp_path: Path) -> None:
    text = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, string_val=[b"<b>hyperparameters</b>"])
    odd = [
        summary_pb2.Summary.Value(tag="picture", image=summary_pb2.Summary.Image(encoded_image_string=b"x" * 200_000)),
        summary_pb2.Summary.Value(tag="histogram", histo=summary_pb2.HistogramProto(bucket=[1.0] * 3000)),
        summary_pb2.Summary.Value(tag="text", tensor=text),
        summary_pb2.Summary.Value(tag="nothing"),
        summary_pb2.Summary.Value(tag="in between", simple_value=3.0),
    ]
    run = points_of(healthy())
    between = frame(event_pb2.Event(step=3, summary=summary_pb2.Summary(value=odd)).SerializeToString())
    others = [event_pb2.Event(file_version="brain.Event:2"), event_pb2.Event(graph_def=b"g" * 1000), event_pb2.Event()]
    begin = b"".join(frame(other.SerializeToString()) for other in others)
    append(tmp_path / "run" / NAME, begin + scalars(run[:50]) + between + scalars(run[50:], 2000.0))
    assert judge(tmp_path / "run") == 0
    metrics = written(tmp_path)["metrics"]
    assert "in between" in metrics  # type: ignore[operator]
    assert not {"picture", "histogram", "text", "nothing"} & set(metrics)  # type: ignore[call-overload]
    assert written(tmp_path)["run"]["n_points"] == len(run) + 1  # type: ignore[index]


def test_a_record_that_is_not_an_event_is_left_out_and_the_rest_is_read(judge: Report, tmp_path: Path) -> None:
    broken = event("abcd", 1, 1.0, 1.0)
    no_text = frame(broken[12:-4].replace(b"abcd", b"ab\xff\xfe"))
    append(tmp_path / "run" / NAME, no_text + frame(b"\xff\xff\xff") + scalars(points_of(healthy())))
    assert judge(tmp_path / "run") == 0
    assert notes(tmp_path) == [f"{NAME}: 2 records are not events, and were left out"]


def long_record(filling: bytes, n_bytes: int) -> bytes:
    """Return a record with a scalar, then ``filling``, and then another scalar."""
    scalar = summary_pb2.Summary.Value(tag="a", simple_value=2.5).SerializeToString()
    scalar = b"\x0a" + bytes([len(scalar)]) + scalar
    summary = scalar + filling + scalar.replace(b"a", b"b")
    head = event_pb2.Event(wall_time=5.0, step=-7).SerializeToString()
    length = bytearray()
    for shift in range(0, 35, 7):
        length.append(len(summary) >> shift & 0x7F | (0x80 if shift < 28 else 0))
    body = head + b"\x2a" + bytes(length) + summary
    assert len(body) > n_bytes
    return body


FILLINGS: dict[str, Callable[[int], bytes]] = {
    "a picture": lambda n: summary_pb2.Summary(
        value=[summary_pb2.Summary.Value(tag="p", image=summary_pb2.Summary.Image(encoded_image_string=bytes(n)))]
    ).SerializeToString(),
    "numbers": lambda n: summary_pb2.Summary(
        value=[summary_pb2.Summary.Value(tag="n", tensor=tensor_pb2.TensorProto(int64_val=[1] * n))]
    ).SerializeToString(),
    "empty values": lambda n: b"\x0a\x00" * (n // 2),
}


@pytest.mark.parametrize("filling", FILLINGS)
def test_a_long_record_is_read_like_a_short_one(tmp_path: Path, filling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read one record twice: with protobuf as a short record, and with the parser for long records."""
    body = long_record(FILLINGS[filling](100_000), 100_000)
    append(tmp_path / NAME, frame(body) + event("a", 1, 1.0, 9.0))
    found = []
    for n_bytes in (1 << 20, 4096):
        monkeypatch.setattr(event_file, "READ_BYTES", n_bytes)
        monkeypatch.setattr(event_file, "READ_BYTES", n_bytes)
        reader = RunReader(tmp_path)
        reader.read_new([tmp_path / NAME])
        series = reader.data().series
        found.append({tag: (s.steps.tolist(), s.values.tolist()) for tag, s in series.series.items()})
    assert found[0] == found[1] == {"a": ([-7, 1], [2.5, 1.0]), "b": ([-7], [2.5])}


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="no /proc here")
@pytest.mark.parametrize("filling", FILLINGS)
def test_a_long_record_takes_no_more_than_three_times_its_size(tmp_path: Path, filling: str) -> None:
    n_bytes = 12 << 20
    body = long_record(FILLINGS[filling](n_bytes), n_bytes)
    append(tmp_path / NAME, event("a", 1, 1.0, 1.0) + frame(body) + event("a", 2, 1.0, 9.0))
    del body

    def read_within_the_limit() -> int:
        in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (in_use + 3 * n_bytes, resource.RLIM_INFINITY))
        reader = RunReader(tmp_path)
        reader.read_new([tmp_path / NAME])
        return reader.data().n_points

    assert in_child(read_within_the_limit) == (2 if filling == "empty values" else 4)


def in_child(work: Callable[[], int]) -> int:
    """Call ``work`` in a forked process, and return its result, or 99 if it fails."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            code = work()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_record_beyond_the_limit_is_left_out_with_a_note_and_the_rest_is_read(judge: Report, tmp_path: Path) -> None:
    """The reader skips the records of 65 MB and 5 TB in a sparse file."""
    file = tmp_path / "run" / NAME
    append(file, scalars(points_of(healthy())[:50]))
    for n_bytes in (65 << 20, 5 << 40):
        header = n_bytes.to_bytes(8, "little")
        append(file, header + event_file.masked_crc32c(header).to_bytes(4, "little"))
        os.truncate(file, file.stat().st_size + n_bytes + 4)
    append(file, scalars(points_of(healthy())[50:], 2000.0))
    assert judge(tmp_path / "run") == 0
    assert notes(tmp_path) == [f"{NAME}: 2 records of more than 64 MB were left out"]
    with file.open("r+b") as stream:
        stream.truncate(file.stat().st_size - (3 << 40))
    assert judge(tmp_path / "run") == 3
    assert any("cut off" in note for note in notes(tmp_path))


@pytest.mark.slow
def test_ten_thousand_tags_give_short_console_output_and_a_page_below_20_mb(
    report: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    points = points_of(healthy()) + [(f"layer/{i}/weights", 5000, float(i)) for i in range(10_000)]
    append(tmp_path / "run" / NAME, scalars(points))
    assert report(tmp_path / "run") == 0
    assert len(written(tmp_path)["metrics"]) > 10_000  # type: ignore[arg-type]
    assert len(capsys.readouterr().out.splitlines()) < 20
    assert (tmp_path / "out" / "report.html").stat().st_size < 20e6


STRANGE_TAGS = [
    "a\nb",
    "a\x1b[31mred",
    "\x00",
    "\U0001f697\u200d\U0001f4a8",
    "x" * 50_000,
    " ",
    "",
    "a\u202eb",
    "../../up",
]


@pytest.mark.parametrize("tag", STRANGE_TAGS, ids=range(len(STRANGE_TAGS)))
def test_a_strange_tag_is_judged_like_another_and_shown_in_one_line(
    report: Report, tmp_path: Path, tag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = points_of(healthy())
    append(tmp_path / "run" / NAME, scalars([*run, (tag, 1, 1.0)]))
    assert report(tmp_path / "run") == 0
    assert tag in written(tmp_path)["metrics"]  # type: ignore[operator]
    capsys.readouterr()
    append(tmp_path / "run" / NAME, event(tag, 2, float("nan"), 9999.0))
    assert report(tmp_path / "run") == 1
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 1000
    assert len(lines) < 20
    assert "\x1b" not in "".join(lines)


def test_two_runs_with_one_name_are_named_by_their_paths(judge: Report, tmp_path: Path) -> None:
    for parent, make in (("a", healthy), ("b", leaking)):
        write_events(make(), tmp_path / parent / "run_1")
    assert judge(tmp_path / "a" / "run_1", tmp_path / "b" / "run_1") == 1
    names = [run["run"]["name"] for run in written(tmp_path)["runs"]]  # type: ignore[attr-defined]
    assert len(set(names)) == 2
    assert all(name.endswith("run_1") for name in names)


def test_circular_symlinks_are_skipped_in_a_run_and_refused_as_an_argument(
    judge: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_events(healthy(), tmp_path / "run")
    (tmp_path / "run" / "again").symlink_to("..")
    (tmp_path / "run" / "self").symlink_to("self")
    assert judge(tmp_path / "run") == 0
    assert judge(tmp_path / "run" / "self") == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_links_to_folders_are_followed_once(judge: Report, tmp_path: Path) -> None:
    write_events(healthy(), tmp_path / "runs" / "z")
    write_events(leaking(), tmp_path / "scratch" / "b" / "tb")
    (tmp_path / "scratch" / "b" / "back").symlink_to(tmp_path / "runs")
    for link, target in (("latest", "z"), ("b", "../scratch/b"), ("b_too", "../scratch/b"), ("all", "../")):
        (tmp_path / "runs" / link).symlink_to(target)
    assert judge(tmp_path / "runs") == 1
    assert [run["run"]["name"] for run in written(tmp_path)["runs"]] == ["runs/b/tb", "runs/z"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("link", ["run/expert", "run/videos/expert"])
def test_a_link_in_a_run_is_not_followed(judge: Report, tmp_path: Path, link: str) -> None:
    """The link may lead to another run, and a stranger's run must not add files from elsewhere to the report."""
    write_events(healthy(), tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "progress.csv").write_text("time/total_timesteps,train/secret\n10,1\n")
    (tmp_path / link).parent.mkdir(exist_ok=True)
    (tmp_path / link).symlink_to(tmp_path / "elsewhere")
    assert judge(tmp_path / "run") == 0
    assert "train/secret" not in written(tmp_path)["metrics"]  # type: ignore[operator]


def test_tables_behind_a_link_are_a_run_of_their_own(judge: Report, tmp_path: Path) -> None:
    write_events(healthy(), tmp_path / "runs" / "a")
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch" / "progress.csv").write_text("time/total_timesteps,train/loss\n10,1\n")
    (tmp_path / "runs" / "b").symlink_to("../scratch")
    judge(tmp_path / "runs")
    assert {run["run"]["name"] for run in written(tmp_path)["runs"]} == {"runs/a", "runs/b"}  # type: ignore[attr-defined]


def test_a_folder_that_holds_only_links_to_runs_is_judged(judge: Report, tmp_path: Path) -> None:
    write_events(healthy(), tmp_path / "scratch" / "run")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "link").symlink_to("../scratch/run")
    assert judge(tmp_path / "a") == 0
    assert judge(tmp_path / "a", tmp_path / "b") == 0


def test_a_broken_link_to_an_event_file_gives_one_line_and_exit_code_2(
    judge: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that cannot be read might be NO-GO, so its folder must not pass."""
    write_events(healthy(), tmp_path / "run")
    (tmp_path / "run" / "tfevents.2").symlink_to("gone")
    assert judge(tmp_path / "run") == 2
    assert capsys.readouterr().err.splitlines() == [
        f"visual-td3 report: {tmp_path / 'run' / 'tfevents.2'}: No such file or directory"
    ]


def test_named_pipes_and_folders_named_like_event_files_do_not_block_a_report(judge: Report, tmp_path: Path) -> None:
    write_events(healthy(), tmp_path / "run")
    os.mkfifo(tmp_path / "run" / "tfevents.pipe")
    assert judge(tmp_path / "run") == 0
    assert notes(tmp_path) == ["tfevents.pipe: the file was left out, because it is not a regular file"]
    (tmp_path / "run" / "tfevents.folder").mkdir()
    assert judge(tmp_path / "run") == 0
    os.mkfifo(tmp_path / "alone.tfevents")
    assert judge(tmp_path / "alone.tfevents") == 2


@pytest.mark.parametrize("flag", ["--criteria", "--tags", "--hyperparams"])
@pytest.mark.parametrize("kind", ["fifo", "device", "folder"])
def test_an_argument_that_is_not_a_regular_file_gives_one_line_and_exit_code_2(
    judge: Report, tmp_path: Path, flag: str, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_events(healthy(), tmp_path / "run")
    given = tmp_path / "given.yml"
    {"fifo": os.mkfifo, "device": lambda path: path.symlink_to("/dev/zero"), "folder": Path.mkdir}[kind](given)
    assert judge(tmp_path / "run", flag, given) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "given.yml: " in line


def test_optional_files_that_are_not_regular_files_are_noted_and_the_run_is_judged(
    judge: Report, tmp_path: Path
) -> None:
    write_events(healthy(), tmp_path / "Env_1" / "tb")
    (tmp_path / "Env_1" / "Env").mkdir()
    (tmp_path / "Env_1" / "Env" / "args.yml").write_text("algo: td3")
    for optional in (tmp_path / "Env_1" / "tb" / "run.json", tmp_path / "Env_1" / "Env" / "config.yml"):
        os.mkfifo(optional)
    assert judge(tmp_path / "Env_1" / "tb") == 0
    assert [note.split(":")[0] for note in notes(tmp_path)] == [
        "run.json was ignored",
        "the settings in rl-zoo's config.yml were ignored",
    ]
    assert all("a FIFO" in note for note in notes(tmp_path))


@pytest.mark.parametrize("where", ["run/tb", "run"])
@pytest.mark.parametrize("content", ["{", "[" * 100_000, '{"format_version": 1, "algo": 3, "env_id": "e"}', "\0"])
def test_a_damaged_run_json_is_noted_if_it_may_belong_to_the_run(
    judge: Report, tmp_path: Path, where: str, content: str
) -> None:
    write_events(healthy(), tmp_path / "run" / "tb")
    (tmp_path / where / "run.json").write_text(content)
    assert judge(tmp_path / "run" / "tb") == 0
    (note,) = notes(tmp_path)
    assert note.startswith(f"run.json was ignored: {tmp_path / where / 'run.json'}: ")


def test_the_run_json_of_another_program_gets_no_note(judge: Report, tmp_path: Path) -> None:
    write_events(healthy(), tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text('{"experiment": {"name": "sacred"}, "status": "COMPLETED"}')
    assert judge(tmp_path / "run") == 0
    assert not notes(tmp_path)


@pytest.mark.parametrize("event_dir", ["x" * 5000, "loop/x", "..", "../" * 3000])
def test_a_run_json_with_an_invalid_event_dir_is_ignored(judge: Report, tmp_path: Path, event_dir: str) -> None:
    write_events(healthy(), tmp_path / "run" / "tb")
    (tmp_path / "run" / "loop").symlink_to("loop")
    manifest = {"format_version": 1, "algo": "a", "env_id": "b", "event_dir": event_dir}
    (tmp_path / "run" / "run.json").write_text(json.dumps(manifest))
    assert judge(tmp_path / "run" / "tb") == 0
    assert written(tmp_path)["run"]["manifest"] is None


def test_folders_that_are_nested_too_deeply_give_one_line_and_other_runs_are_judged(
    judge: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_events(healthy(), tmp_path / "runs" / "a")
    assert judge(tmp_path / "runs") == 0
    capsys.readouterr()
    deep = tmp_path / "runs"
    for _ in range(70):
        deep /= "d"
        os.mkdir(deep)
    assert judge(tmp_path / "runs") == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("/d/d: its folders are nested too deeply; name a folder inside it")
    assert line.count("/d") == 64
    assert judge(tmp_path / "runs" / "d") == 2


def _refusing(look: Callable[[object], object]) -> Callable[[object], object]:
    def refuse(path: object) -> object:
        if str(path).endswith("b"):
            raise PermissionError(13, "Permission denied", str(path))
        return look(path)

    return refuse


def test_an_unreadable_folder_does_not_count_as_a_folder_without_runs_and_other_runs_are_judged(
    judge: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_events(healthy(), tmp_path / "runs" / "a")
    (tmp_path / "runs" / "b").mkdir()
    monkeypatch.setattr(os, "scandir", _refusing(os.scandir))
    problem = f"{tmp_path / 'runs' / 'b'}: Permission denied"
    for place, exit_code in (("runs", 0), ("runs/b", 2)):
        assert judge(tmp_path / place) == exit_code
        assert capsys.readouterr().err.splitlines() == [f"visual-td3 report: {problem}"]
    assert problem in (tmp_path / "out" / "report.json").read_text()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads what is forbidden")
def test_a_folder_without_read_permission_is_named(
    judge: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_events(healthy(), tmp_path / "runs" / "a")
    (tmp_path / "runs" / "b").mkdir(mode=0)
    assert judge(tmp_path / "runs") == 0
    assert "Permission denied" in capsys.readouterr().err


def test_a_folder_at_the_path_of_a_report_file_gives_exit_code_2(
    report: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_events(healthy(), tmp_path / "run")
    (tmp_path / "out" / "report.md" / "full").mkdir(parents=True)
    assert report(tmp_path / "run") == 2
    assert "report.md" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.md"]


STEPS = st.integers(-(2**63), 2**63 - 1) | st.integers(0, 10_000) | st.sampled_from([0, -1, 2**53, 2**63 - 1, -(2**63)])
NUMBERS = st.floats(allow_nan=True, allow_infinity=True) | st.sampled_from([0.0, 1.0, -0.0, 5e-324, 1.7e308, -1.7e308])
NAMES = st.sampled_from([*tags.TAGS, "rollout/ep_rew_mean"]) | st.text(max_size=8)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    points=st.lists(st.tuples(NAMES, STEPS, NUMBERS), max_size=60),
    cut=st.floats(0, 1) | st.none(),
    data=st.data(),
)
def test_arbitrary_logged_points_never_cause_an_internal_error(
    tmp_path_factory: pytest.TempPathFactory,
    points: list[tuple[str, int, float]],
    cut: float | None,
    data: st.DataObject,
) -> None:
    folder = tmp_path_factory.mktemp("run")
    content = doubles(points)
    append(folder / NAME, content[: len(content) if cut is None else int(cut * len(content))])
    parser = command.argparse.ArgumentParser()
    command.add_arguments(parser)
    code = command.run(parser.parse_args([str(folder), "--output", str(folder / "out"), "--format", "md,json,csv"]))
    assert code in {1, 2, 3}
    if code != 2:
        text = (folder / "out" / "report.json").read_text()
        json.loads(text, parse_constant=lambda c: pytest.fail(f"{c} in the JSON"))
