"""Tests that a resumed run changes no existing file outside its own folder, and reports a lost file in one line."""

import json
import os
import shutil

import pytest

from sb3_visual_td3.cli import main
from tests.killed_runs import assert_same_scalars
from tests.zoo.hostile_runs import contents, killed_run, rewritten


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    return killed_run(tmp_path_factory.mktemp("killed"))


@pytest.fixture(scope="module")
def killed_with_tb(tmp_path_factory):
    """A run whose event files are in another folder, ``tb`` beside ``logs``."""
    folder = tmp_path_factory.mktemp("with_tb")
    return killed_run(folder, "-tb", str(folder / "tb"))


def one_line(capsys):
    error = capsys.readouterr().err
    assert error.startswith("visual-td3 resume: "), error
    assert error.count("\n") == 1, error
    return error


def event_files(folder):
    return sorted(folder.rglob("events.out.tfevents.*"))


def events_of(run_dir):
    return run_dir / json.loads((run_dir / "run.json").read_text())["event_dir"]


# What a hostile run says about its files.


@pytest.mark.parametrize("where", ["../victim/tb", "snapshots/../../victim/tb"])
def test_event_files_of_another_run_are_left_alone(killed, tmp_path, where):
    victim = tmp_path / "victim" / "tb"
    shutil.copytree(killed / "tb" / "VisualTD3_1", victim)
    before = contents(tmp_path / "victim")
    names = {path.name: 10 for path in event_files(victim)}
    run_dir = rewritten(killed, tmp_path, lambda state: state["files"].update(event_dir=where, event_files=names))
    assert main(["resume", str(run_dir)]) == 0
    assert contents(tmp_path / "victim") == before
    assert events_of(run_dir).is_relative_to(run_dir)


def test_an_absolute_event_folder_is_rejected(killed, tmp_path, capsys):
    victim = tmp_path / "victim"
    shutil.copytree(killed / "tb" / "VisualTD3_1", victim)
    before = contents(victim)
    run_dir = rewritten(killed, tmp_path, lambda state: state["files"].update(event_dir=str(victim)))
    assert main(["resume", str(run_dir)]) == 2
    assert "expected a path relative to" in one_line(capsys)
    assert contents(victim) == before


@pytest.mark.parametrize("name", ["{victim}/monitor.csv", "../victim/monitor.csv", "tb/../../victim/monitor.csv"])
def test_a_text_file_outside_the_run_is_rejected(killed, tmp_path, capsys, name):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "monitor.csv").write_text("another's")
    name = name.format(victim=victim)

    def change(state):
        texts = state["files"]["texts"]
        texts[name] = next(iter(texts.values()))

    run_dir = rewritten(killed, tmp_path, change)
    assert main(["resume", str(run_dir)]) == 2
    assert "is not a log of this run" in one_line(capsys)
    assert contents(victim) == {"monitor.csv": b"another's"}
    assert main(["resume", str(run_dir), "--without-logs"]) == 0
    assert contents(victim) == {"monitor.csv": b"another's"}


LINKS = [
    "snapshots",
    "snapshots/lock",
    "snapshots/objects",
    "snapshots/step_000000020",
    "snapshots/step_000000020/snapshot.json",
    "tb",
    "tb/VisualTD3_1",
    "0.monitor.csv",
    "LiteDriving-v0",
    "LiteDriving-v0.zip",
    "run.json",
]


@pytest.mark.parametrize("name", [*LINKS, "an event file"])
def test_a_link_is_not_followed(killed, tmp_path, capsys, name):
    """The link points to the right file, which is outside the run."""
    run_dir = rewritten(killed, tmp_path, lambda state: None)
    path = event_files(run_dir)[0] if name == "an event file" else run_dir / name
    outside = tmp_path / "outside"
    if path.exists():
        shutil.move(path, outside)
    else:
        outside.write_text("another's")
    path.symlink_to(outside)
    before = contents(tmp_path)
    assert main(["resume", str(run_dir)]) == 2
    assert "is a link to" in one_line(capsys)
    assert contents(tmp_path) == before


def test_a_named_pipe_does_not_block_resume(killed, tmp_path, capsys):
    run_dir = rewritten(killed, tmp_path, lambda state: None)
    (run_dir / "run.json").unlink()
    os.mkfifo(run_dir / "run.json")
    assert main(["resume", str(run_dir)]) == 2
    assert "run.json is neither a file nor a folder" in one_line(capsys)


def test_resuming_a_hard_linked_copy_does_not_change_the_run(killed, tmp_path):
    """``cp -al`` makes hard links."""
    run_dir = rewritten(killed, tmp_path, lambda state: None)
    before = contents(run_dir)
    copy = shutil.copytree(run_dir, tmp_path / "copy", copy_function=os.link)
    (copy / "snapshots" / "lock").unlink()
    assert main(["resume", str(copy)]) == 0
    assert contents(run_dir) == before


# Event files that -tb has put elsewhere.


def test_a_run_and_its_copy_are_both_resumed_and_keep_their_events(killed_with_tb, tmp_path):
    tb = killed_with_tb.parents[2] / "tb"
    before = contents(tb)
    first, second = killed_with_tb.with_name("first"), killed_with_tb.with_name("second")
    for copy in (first, second):
        shutil.copytree(killed_with_tb, copy)
        assert main(["resume", str(copy)]) == 0
        assert contents(tb) == before
    assert events_of(first) == first / "tb" / "VisualTD3_1"
    assert_same_scalars(first / "tb", second / "tb", at_least=5)
    # They continue as any run does.
    (second / "LiteDriving-v0.zip").unlink()
    assert main(["resume", str(second)]) == 0
    assert_same_scalars(first / "tb", second / "tb", at_least=5)


def test_a_run_that_was_moved_continues_with_the_given_event_folder(killed_with_tb, killed, tmp_path, capsys):
    tb, moved = killed_with_tb.parents[2] / "tb", tmp_path / "a" / "b" / "moved"
    before = contents(tb)
    shutil.copytree(killed_with_tb, moved)
    assert main(["resume", str(moved)]) == 2
    assert "name their folder with --tensorboard-log DIR. Use --without-logs to continue without" in one_line(capsys)
    assert main(["resume", str(moved), "--tensorboard-log", str(tb)]) == 0
    assert {name: content for name, content in contents(tb).items() if name in before} == before
    assert events_of(moved).resolve() == (tb / "LiteDriving-v0" / "VisualTD3_2").resolve()
    whole = rewritten(killed, tmp_path, lambda state: None)
    assert main(["resume", str(whole)]) == 0
    assert_same_scalars(whole / "tb", events_of(moved), at_least=5)


# What is lost.


def cut(path):
    path.write_bytes(path.read_bytes()[:5])


@pytest.mark.parametrize("damage", [os.unlink, cut], ids=["missing", "cut"])
def test_a_lost_event_file_gives_a_one_line_error_unless_without_logs_is_given(killed, tmp_path, capsys, damage):
    run_dir = rewritten(killed, tmp_path, lambda state: None)
    damage(event_files(run_dir)[0])
    before = contents(run_dir)
    assert main(["resume", str(run_dir)]) == 2
    assert "Use --without-logs to continue without the lost files" in one_line(capsys)
    assert {name: each for name, each in contents(run_dir).items() if name in before} == before
    assert main(["resume", str(run_dir), "--without-logs"]) == 0
    assert "The run continues without the lost files" in capsys.readouterr().out
    assert (run_dir / "LiteDriving-v0.zip").is_file()


def test_an_unwritable_event_file_gives_a_one_line_error(killed, tmp_path, capsys, monkeypatch):
    run_dir = rewritten(killed, tmp_path, lambda state: None)
    name, really_open = event_files(run_dir)[0].name, os.open

    def refuse(path, flags, *rest, **kwargs):
        if flags & os.O_RDWR and str(path).endswith(name):
            raise PermissionError(13, "Permission denied", str(path))
        return really_open(path, flags, *rest, **kwargs)

    monkeypatch.setattr(os, "open", refuse)
    assert main(["resume", str(run_dir)]) == 2
    assert "cannot be written (Permission denied)" in one_line(capsys)
    assert main(["resume", str(run_dir), "--without-logs"]) == 0
    assert "the file stays as it is" in capsys.readouterr().out


@pytest.mark.parametrize(
    "content", ["{" * 3_000, '{"a":' * 100_000, "[]", "\xff", "{}"], ids=["cut", "deep", "list", "not text", "empty"]
)
def test_an_invalid_run_json_gives_a_one_line_error(killed, tmp_path, capsys, content):
    run_dir = rewritten(killed, tmp_path, lambda state: None)
    (run_dir / "run.json").write_bytes(content.encode("latin-1"))
    assert main(["resume", str(run_dir)]) == 2
    assert "run.json" in one_line(capsys)


def put(*path, value):
    """Return a function that changes the value at ``path`` in the state of a snapshot."""

    def change(state):
        for key in path[:-1]:
            state = state[key]
        state[path[-1]] = value

    return change


def take(*path):
    """Return a function that removes the value at ``path`` from the state of a snapshot."""

    def change(state):
        for key in path[:-1]:
            state = state[key]
        del state[path[-1]]

    return change


COUNTERS = ("training", "model", "counters")
WRONG = {
    "no experiment": take("experiment"),
    "no training": take("training"),
    "training is a list": put("training", value=[]),
    "files is text": put("files", value="x"),
    "event_dir is a number": put("files", "event_dir", value=3),
    "a length is text": lambda state: state["files"]["event_files"].update(
        dict.fromkeys(state["files"]["event_files"], "3")
    ),
    "texts is a list": put("files", "texts", value=[]),
    "no settings": take("training", "settings"),
    "a setting is another": put("training", "settings", "gamma", value={"a": [1]}),
    "no environment": take("training", "env"),
    "environments is a number": put("training", "env", "environments", value=3),
    "a layer too many": lambda state: state["training"]["env"]["layers"].append({}),
    "a layer is text": lambda state: state["training"]["env"]["layers"].__setitem__(0, "x"),
    "no model": take("training", "model"),
    "a counter is text": put(*COUNTERS, "num_timesteps", value="many"),
    "a counter is negative": put(*COUNTERS, "_n_updates", value=-3),
    "a counter is a list": put(*COUNTERS, "_episode_num", value=[1]),
    "the total is text": put(*COUNTERS, "_total_timesteps", value="x"),
    "no counters": put("training", "model", "counters", value=None),
    "the observation is none": put("training", "model", "last_obs", value=None),
    "the observation is of another shape": put(
        "training", "model", "last_obs", value={"array": {"$array": 0}, "strides": [1]}
    ),
    "episodes are numbers": put("training", "model", "ep_info_buffer", value=[3]),
    "an episode has no reward": put("training", "model", "ep_info_buffer", value=[{"l": 3}]),
    "replay is a list": put("training", "replay", value=[1]),
    "logger is text": put("training", "logger", value="x"),
    "a logged value is a list": put("training", "logger", "values", value={"a": [1]}),
    "callbacks are a number": put("training", "callbacks", "callbacks", value=7),
    "a callback has no class": lambda state: state["training"]["callbacks"]["callbacks"][0].pop("class"),
    "n_calls is text": lambda state: state["training"]["callbacks"]["callbacks"][0].update(n_calls="x"),
    "random is empty": put("training", "random", value={}),
    "a random state is short": put("training", "random", "torch", value=[1, 2]),
    "n_threads is a list": put("training", "n_threads", value=[]),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_snapshot_state_with_missing_or_wrong_values_gives_a_one_line_error(killed, tmp_path, capsys, name):
    run_dir = rewritten(killed, tmp_path, WRONG[name])
    assert main(["resume", str(run_dir)]) == 2
    assert len(one_line(capsys)) < 700
    assert not (run_dir / "LiteDriving-v0.zip").exists()
