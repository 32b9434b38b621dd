"""Test that healthy snapshots are kept for a rollback, and that a kill in ``mark_unhealthy`` damages no snapshot."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sb3_visual_td3.runs.snapshot import Health, SnapshotError, health_label, kept_for_rollback
from sb3_visual_td3.runs.snapshot_store import SnapshotStore
from tests.runs.test_snapshot_failures import at_call, die, in_child, n_calls_of, small_and_fast, state_of, write_model
from tests.runs.test_snapshot_store import own_chunk, rewrite_record

__all__ = ["small_and_fast"]  # a fixture that every test here uses

DOUBT = 210
"""An alert within this many updates after a snapshot may mark the snapshot as unhealthy."""


def healths(*marks: tuple[str, int]) -> list[Health | None]:
    return [None if word == "?" else Health(word == "+", n_updates, DOUBT) for word, n_updates in marks]


def good(*n_updates: int) -> list[Health | None]:
    return healths(*(("+", n) for n in n_updates))


@pytest.mark.parametrize(
    ("there", "spared"),
    [
        ([], set()),
        (healths(("?", 0), ("?", 100)), set()),  # not judged
        (good(0), {0}),
        (good(0, 100), {0}),  # no snapshot is confirmed yet, so the first is kept
        (good(0, 0, 0, 50), {2}),  # before the first update, equal snapshots: the last is kept
        (good(0, 209), {0}),
        (good(0, 210), {0, 1}),  # the first is confirmed, and the newest is the next
        (good(0, 100, 210), {0, 1}),
        (good(0, 1000, 2000, 3000), {2, 3}),
        (good(0, 1000, 2900, 3000), {1, 2}),
        (healths(("+", 0), ("+", 100), ("-", 200)), {0, 1}),  # also the newest healthy one, although not confirmed
        (healths(("+", 0), ("+", 1000), ("-", 2000), ("-", 3000)), {1}),
        (healths(("+", 0), ("-", 100), ("+", 150)), {0}),
        (healths(("+", 0), ("+", 1000), ("-", 1100), ("+", 1150)), {0, 1}),
        (healths(("-", 0), ("-", 100)), set()),
        (healths(("+", 0), ("+", 100), ("?", 0)), {1}),  # the last one was not judged
    ],
)
def test_newest_confirmed_and_next_healthy_snapshots_are_kept(there: list[Health | None], spared: set[int]) -> None:
    assert kept_for_rollback(there) == spared


@given(st.integers(1, 400), st.integers(1, 3), st.lists(st.booleans(), min_size=1, max_size=60))
def test_a_healthy_snapshot_is_always_available(interval: int, keep: int, is_healthy: list[bool]) -> None:
    """Snapshots are taken at regular intervals, and an alert marks those of the last ``DOUBT`` updates as unhealthy."""
    kept: list[Health] = []
    for number, healthy in enumerate(is_healthy):
        now = number * interval
        if not healthy:
            kept = [h._replace(is_healthy=h.is_healthy and h.n_updates <= max(now - DOUBT, 0)) for h in kept]
        kept.append(Health(healthy or number == 0, now, DOUBT))
        spared = kept_for_rollback(kept)
        kept = [h for place, h in enumerate(kept) if place in spared or place >= len(kept) - keep]
        assert any(h.is_healthy for h in kept)
        assert len(kept) <= keep + 3
    # After a long time without an alert, the newest snapshot that no alert can mark any more is not old.
    for number in range(len(is_healthy), len(is_healthy) + 4 * (DOUBT // interval + 2)):
        kept.append(Health(True, number * interval, DOUBT))
        spared = kept_for_rollback(kept)
        kept = [h for place, h in enumerate(kept) if place in spared or place >= len(kept) - keep]
    now = kept[-1].n_updates
    assert max(h.n_updates for h in kept if h.n_updates <= now - DOUBT) >= now - 2 * (DOUBT + interval)


def save(folder: Path, step: int, health: Health | None, keep: int = 2) -> None:
    SnapshotStore(folder).save(step, state_of(step), {"model.zip": write_model}, keep=keep, health=health)


def marks_in(folder: Path) -> dict[int, str]:
    return {listed.step: health_label(listed.health) for listed in SnapshotStore(folder).all()}


def test_keep_1_never_deletes_the_newest_healthy_snapshot(tmp_path: Path) -> None:
    for step in (0, 1000, 2000):
        save(tmp_path, step, Health(True, step, DOUBT), keep=1)
    for step in (3000, 4000, 5000):
        save(tmp_path, step, Health(False, step, DOUBT), keep=1)
        assert marks_in(tmp_path) == {2000: "healthy", step: "unhealthy"}
        assert SnapshotStore(tmp_path).load(2000).health == Health(True, 2000, DOUBT), "with all its chunks"
    save(tmp_path, 6000, Health(True, 6000, DOUBT), keep=1)
    save(tmp_path, 7000, Health(True, 7000, DOUBT), keep=1)
    assert marks_in(tmp_path) == {6000: "healthy", 7000: "healthy"}
    assert len([path for path in (tmp_path / "objects").rglob("*") if path.is_file()]) > 0


def test_without_health_only_the_newest_snapshot_is_kept_with_keep_1(tmp_path: Path) -> None:
    for step in range(5):
        save(tmp_path, step, None, keep=1)
        assert marks_in(tmp_path) == {step: "not judged"}


def test_newest_healthy_skips_damaged_snapshots_and_those_after_the_given_update(tmp_path: Path) -> None:
    for step, is_healthy in [(1, True), (2, True), (3, True), (4, False)]:
        save(tmp_path, step, Health(is_healthy, 10 * step, DOUBT), keep=9)
    save(tmp_path, 5, None, keep=9)
    store = SnapshotStore(tmp_path)

    def found(n_updates: int) -> int | None:
        snapshot = store.newest_healthy(n_updates)
        return None if snapshot is None else snapshot.step

    assert [found(n) for n in (100, 30, 29, 20, 10, 9)] == [3, 3, 2, 2, 1, None]
    own_chunk(tmp_path / "step_000000003").unlink()
    assert found(100) == 3, "what is only in large arrays is not needed to go back"
    (tmp_path / "step_000000003" / "model.zip").write_bytes(b"other")
    assert found(100) == 2


def test_marks_are_durable_and_change_nothing_else(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step, Health(True, 10 * step, DOUBT), keep=9)
    save(tmp_path, 4, None, keep=9)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    SnapshotStore(tmp_path).mark_unhealthy(19)
    assert marks_in(tmp_path) == {1: "healthy", 2: "unhealthy", 3: "unhealthy", 4: "not judged"}
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert after.keys() == before.keys()
    changed = {path.relative_to(tmp_path).as_posix() for path in after if after[path] != before[path]}
    assert changed == {"step_000000002/snapshot.json", "step_000000003/snapshot.json"}
    assert SnapshotStore(tmp_path).load(3).state["step"] == 3, "the record's digest fits"


def test_a_kill_or_error_while_marking_damages_no_snapshot(tmp_path: Path) -> None:
    def prepared(name: str) -> Path:
        for step in (1, 2):
            save(tmp_path / name, step, Health(True, step, DOUBT))
        return tmp_path / name

    counted = prepared("counted")
    n_calls = n_calls_of(lambda: SnapshotStore(counted).mark_unhealthy(0))
    assert n_calls >= 8
    for number in range(1, n_calls + 1):
        folder = prepared(f"killed at {number}")

        def work(number: int = number, folder: Path = folder) -> None:
            with at_call(number, die):
                SnapshotStore(folder).mark_unhealthy(0)

        assert in_child(work) == -signal.SIGKILL
        assert [SnapshotStore(folder).load(step).state["step"] for step in (1, 2)] == [1, 2]
        SnapshotStore(folder).mark_unhealthy(0)
        assert marks_in(folder) == {1: "unhealthy", 2: "unhealthy"}

        def refuse() -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        folder = prepared(f"refused at {number}")
        with at_call(number, refuse), pytest.raises(OSError, match="No space left"):
            SnapshotStore(folder).mark_unhealthy(0)
        assert [SnapshotStore(folder).load(step).state["step"] for step in (1, 2)] == [1, 2]


def test_a_record_without_health_is_read(tmp_path: Path) -> None:
    save(tmp_path, 1, None)
    rewrite_record(tmp_path / "step_000000001", lambda content: content.pop("health"))
    store = SnapshotStore(tmp_path)
    assert store.newest().health is None
    assert store.newest_healthy(10**9) is None
    store.mark_unhealthy(-1)
    assert marks_in(tmp_path) == {1: "not judged"}


@pytest.mark.parametrize(
    "health",
    [
        {"is_healthy": 1, "n_updates": 5, "n_in_doubt": 5},
        {"is_healthy": True, "n_updates": -5, "n_in_doubt": 5},
        {"is_healthy": True, "n_updates": 5.0, "n_in_doubt": 5},
        {"is_healthy": True, "n_updates": 5},
        {"is_healthy": True, "n_updates": 5, "n_in_doubt": 5, "more": 1},
        [True, 5, 5],
    ],
)
def test_a_record_with_an_invalid_health_is_refused(tmp_path: Path, health: object) -> None:
    save(tmp_path, 1, Health(True, 5, 5))
    rewrite_record(tmp_path / "step_000000001", lambda content: content.update(health=health))
    with pytest.raises(SnapshotError, match="has content that this version of sb3_visual_td3 cannot read"):
        SnapshotStore(tmp_path).load(1)
