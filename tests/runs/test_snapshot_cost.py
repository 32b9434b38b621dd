"""Test how much disk space and memory a snapshot needs, with the default chunk size."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sb3_visual_td3.common.saved_state import fill
from sb3_visual_td3.runs.snapshot_store import SnapshotStore


def n_bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.mark.parametrize("start", [0, 7_777_777, 39_000_000], ids=["first", "in between", "around the end"])
def test_five_percent_new_data_writes_less_than_ten_percent(tmp_path: Path, start: int) -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, 40_000_000, np.uint8)
    small = {str(index): rng.random(100) for index in range(60)}
    store = SnapshotStore(tmp_path)
    first = store.save(1, {"frames": frames, "small": small}, {})
    before = n_bytes_in(tmp_path)
    assert first.n_bytes_written == before
    places = (start + np.arange(2_000_000)) % len(frames)
    frames[places] = rng.integers(0, 256, len(places), np.uint8)
    second = store.save(2, {"frames": frames, "small": small}, {})
    assert second.n_bytes_written == n_bytes_in(tmp_path) - before
    assert second.n_bytes_written < 0.1 * first.n_bytes_written
    assert second.n_bytes_total > 40_000_000


def peak_bytes(work: Any) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_large_array_is_never_in_memory_twice(tmp_path: Path) -> None:
    frames = np.arange(25_000_000, dtype=np.int64).reshape(-1, 1000)[37:]
    store = SnapshotStore(tmp_path)
    assert peak_bytes(lambda: store.save(1, {"frames": frames}, {})) < 0.02 * frames.nbytes
    target = np.zeros_like(frames)
    # A new store reads the snapshot, because it has nothing cached.
    assert peak_bytes(lambda: fill(target, SnapshotStore(tmp_path).newest().state["frames"])) < 0.02 * frames.nbytes
    assert (target == frames).all()
    every_other = frames[::2, ::10]
    assert peak_bytes(lambda: store.save(2, {"frames": every_other}, {})) < 0.5 * every_other.nbytes
    assert (np.asarray(store.newest().state["frames"]) == every_other).all()
