from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_visual_td3.callbacks.run_files import cut_to_lengths, file_lengths


def append(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as stream:
        stream.write(text)


def contents_of(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_files_are_cut_to_their_recorded_lengths_and_later_files_are_removed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    events = run / "tb" / "events.1"
    alerts, progress, not_yet = run / "alerts.jsonl", run / "tb" / "progress.csv", run / "eval.csv"
    append(alerts, "one\n")
    append(progress, "a,b\n")
    append(events, "record")
    files = [alerts, progress, not_yet, events]
    before = contents_of(tmp_path)
    known = file_lengths(run, files)
    assert known == {"alerts.jsonl": 4, "tb/events.1": 6, "tb/progress.csv": 4}
    for path in [*files, run / "tb" / "events.2", run / "model.zip"]:
        append(path, "more")
    may_remove = [*files, run / "tb" / "events.2", run / "never_created.csv"]
    cut_to_lengths(run, known, may_remove)
    assert contents_of(tmp_path) == {**before, "run/model.zip": "more"}


@settings(max_examples=50)
@given(st.dictionaries(st.sampled_from("abcd"), st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1))
def test_everything_that_was_appended_is_cut_off(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, tuple[int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("run")
    for name, (n_before, _) in files.items():
        if n_before:
            append(folder / name, "x" * n_before)
    before = contents_of(folder)
    everything = [folder / name for name in files]
    known = file_lengths(folder, everything)
    for name, (_, n_appended) in files.items():
        append(folder / name, "y" * n_appended)
    cut_to_lengths(folder, known, everything)
    assert contents_of(folder) == before


def test_a_run_can_be_moved(tmp_path: Path) -> None:
    append(tmp_path / "a" / "tb" / "events", "record")
    known = file_lengths(tmp_path / "a", [tmp_path / "a" / "tb" / "events"])
    append(tmp_path / "a" / "tb" / "events", "more")
    (tmp_path / "a").rename(tmp_path / "b")
    cut_to_lengths(tmp_path / "b", known)
    assert contents_of(tmp_path) == {"b/tb/events": "record"}


def test_relative_paths_start_at_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    append(Path("run/alerts.jsonl"), "one")
    assert file_lengths(Path("run"), [Path("run/alerts.jsonl")]) == {"alerts.jsonl": 3}
    assert file_lengths(tmp_path / "run", [Path("run/../run/alerts.jsonl")]) == {"alerts.jsonl": 3}


def cut_short(path: Path) -> None:
    path.write_text("o")


def replaced_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (cut_short, "b.csv has 1 bytes, but its recorded length is 3: it was truncated or replaced"),
        (Path.unlink, "b.csv is missing; it had 3 bytes"),
        (replaced_by_folder, "b.csv is missing; it had 3 bytes"),
    ],
)
def test_nothing_is_cut_if_one_file_is_damaged(tmp_path: Path, damage: object, reason: str) -> None:
    files = [tmp_path / name for name in ("a.csv", "b.csv", "c.csv")]
    for path in files:
        append(path, "one")
    known = file_lengths(tmp_path, files)
    append(files[0], "more")
    append(tmp_path / "later.csv", "more")
    damage(files[1])  # type: ignore[operator]
    before = contents_of(tmp_path)
    with pytest.raises(ValueError, match=reason):
        cut_to_lengths(tmp_path, known, [tmp_path / "later.csv"])
    assert contents_of(tmp_path) == before


def test_a_file_that_cannot_be_written_is_named_and_nothing_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [tmp_path / name for name in ("a.csv", "b.csv")]
    for path in files:
        append(path, "one")
    known = file_lengths(tmp_path, files)
    append(files[0], "more")
    real = os.open

    def refuse(path: Path, *arguments: int) -> int:
        if path == files[1]:
            raise PermissionError(13, "Permission denied")
        return real(path, *arguments)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ValueError, match=r"b.csv cannot be written \(Permission denied\)"):
        cut_to_lengths(tmp_path, known)
    monkeypatch.undo()
    assert contents_of(tmp_path) == {"a.csv": "onemore", "b.csv": "one"}


@pytest.mark.parametrize("name", ["../other/x", "/etc/passwd", "a/../../other/x", "{other}/x", "x\0y", "../run2/x"])
def test_a_name_outside_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    append(tmp_path / "run" / "a", "one")
    append(tmp_path / "other" / "x", "another")
    append(tmp_path / "run2" / "x", "another")
    before = contents_of(tmp_path)
    with pytest.raises(ValueError, match="is not a file of this run"):
        cut_to_lengths(tmp_path / "run", {"a": 1, name.format(other=tmp_path / "other"): 0})
    with pytest.raises(ValueError, match="is not a file of this run"):
        cut_to_lengths(tmp_path / "run", {"a": 1}, [tmp_path / "other" / "x"])
    with pytest.raises(ValueError, match="is not a file of this run"):
        file_lengths(tmp_path / "run", [tmp_path / "other" / "x"])
    assert contents_of(tmp_path) == before


@pytest.mark.parametrize("length", [-1, 1.5, True, "3", None])
def test_a_length_that_is_not_a_number_of_bytes_is_refused(tmp_path: Path, length: int) -> None:
    append(tmp_path / "a", "one")
    with pytest.raises(ValueError, match="the snapshot gives 'a' the length"):
        cut_to_lengths(tmp_path, {"a": length})
    assert contents_of(tmp_path) == {"a": "one"}


def test_a_file_is_synced_to_disk_when_its_length_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append(tmp_path / "a", "one")
    synced = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.readlink(f"/proc/self/fd/{handle}")))
    assert file_lengths(tmp_path, [tmp_path / "a"]) == {"a": 3}
    assert synced == [str(tmp_path / "a")]
