"""What a run writes stays in its own folder, whatever links lie there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sb3_visual_td3.callbacks.run_files import copy_up_to, cut_to_lengths
from sb3_visual_td3.runs.durable_files import break_hard_links, refuse_links
from sb3_visual_td3.runs.object_store import ObjectStore
from sb3_visual_td3.runs.run_lock import RunLock
from sb3_visual_td3.runs.snapshot import SnapshotError
from sb3_visual_td3.runs.snapshot_store import SnapshotStore


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    path = tmp_path / "outside"
    path.write_text("some other work")
    return path


@pytest.mark.parametrize("make", [Path.symlink_to, Path.hardlink_to])
def test_a_lock_that_is_a_link_is_refused_and_its_target_stays(tmp_path: Path, outside: Path, make: object) -> None:
    lock = tmp_path / "lock"
    make(lock, outside)  # type: ignore[operator]
    with pytest.raises(ValueError, match="link"):
        RunLock(lock).acquire()
    assert outside.read_text() == "some other work"


def test_a_file_that_is_not_a_lock_is_refused_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("more than a process id has of characters")
    with pytest.raises(ValueError, match="is not a lock file"):
        RunLock(path).acquire()
    assert path.read_text() == "more than a process id has of characters"


def test_a_log_that_is_a_link_is_not_cut(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log").symlink_to(outside)
    with pytest.raises(ValueError, match="cannot be written"):
        cut_to_lengths(tmp_path / "run", {"log": 3})
    assert outside.read_text() == "some other work"


def test_a_log_in_a_folder_that_is_a_link_is_not_cut(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "log").write_text("other")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tb").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="tb is a link"):
        cut_to_lengths(tmp_path / "run", {"tb/log": 3})
    assert (tmp_path / "elsewhere" / "log").read_text() == "other"


def test_cutting_a_hard_linked_log_leaves_the_other_name_unchanged(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "run").mkdir()
    os.link(outside, tmp_path / "run" / "log")
    cut_to_lengths(tmp_path / "run", {"log": 4})
    assert (tmp_path / "run" / "log").read_text() == "some"
    assert outside.read_text() == "some other work"
    assert os.listdir(tmp_path / "run") == ["log"]


def test_hard_linked_files_are_replaced_by_copies(tmp_path: Path, outside: Path) -> None:
    run = tmp_path / "run"
    (run / "snapshots").mkdir(parents=True)
    for name in ("model.zip", "snapshots/chunk"):
        os.link(outside, run / name)
    break_hard_links(run, run / "snapshots")
    assert (run / "model.zip").read_text() == "some other work"
    assert (run / "model.zip").stat().st_nlink == 1
    assert outside.stat().st_nlink == 2, "chunks are never written to"


@pytest.mark.parametrize("name", ["objects", "objects/ab"])
def test_a_store_that_is_a_link_is_not_written_to(tmp_path: Path, name: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    link = tmp_path / name
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(elsewhere)
    with pytest.raises(SnapshotError, match="is a link"):
        ObjectStore(tmp_path / "objects").begin()


def test_a_linked_snapshot_does_not_belong_to_the_run(tmp_path: Path) -> None:
    SnapshotStore(tmp_path / "other").save(20, {"a": 1}, {})
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "step_000000020").symlink_to(tmp_path / "other" / "step_000000020")
    assert SnapshotStore(tmp_path / "run").all() == []
    with pytest.raises(SnapshotError, match="this is a symbolic link"):
        SnapshotStore(tmp_path / "run").newest()


def test_links_and_pipes_are_found_in_every_subfolder(tmp_path: Path, outside: Path) -> None:
    deep = tmp_path / "run" / "a" / "b"
    deep.mkdir(parents=True)
    (deep / "file").write_text("x")
    refuse_links(tmp_path / "run")
    os.mkfifo(deep / "pipe")
    with pytest.raises(ValueError, match="pipe is neither a file nor a folder"):
        refuse_links(tmp_path / "run")
    (deep / "pipe").unlink()
    (deep / "broken").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="broken is a link to"):
        refuse_links(tmp_path / "run")
    link = tmp_path / "named by the user"
    link.symlink_to(tmp_path)
    (deep / "broken").unlink()
    refuse_links(link / "run")


def test_files_are_copied_as_they_were(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "run").mkdir()
    copy_up_to(tmp_path, {"outside": 8}, tmp_path / "run")
    assert (tmp_path / "run" / "outside").read_text() == "some oth"
    assert outside.read_text() == "some other work"
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match="truncated while it was copied"):
        copy_up_to(tmp_path, {"outside": 80}, tmp_path / "other")
