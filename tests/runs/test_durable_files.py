"""A file that is written atomically is complete, even if several processes write to it at the same time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sb3_visual_td3.runs.durable_files import atomic_write, write_atomically


def test_two_processes_may_write_to_one_file_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.json"
    fsync = os.fsync

    def other_process_writes(handle: int) -> None:
        monkeypatch.setattr(os, "fsync", fsync)
        write_atomically(path, "other")
        assert path.read_text() == "other"
        fsync(handle)

    monkeypatch.setattr(os, "fsync", other_process_writes)
    write_atomically(path, "mine")
    assert path.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [path]


def test_the_next_writer_removes_the_large_file_that_a_killed_writer_left(tmp_path: Path) -> None:
    path = tmp_path / "model.zip"
    with atomic_write(path) as temporary:
        temporary.write_bytes(b"old")
    temporary.write_bytes(b"left behind")
    with atomic_write(path) as temporary:
        assert not temporary.exists()
        temporary.write_bytes(b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]
