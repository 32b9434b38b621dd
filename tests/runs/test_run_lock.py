from __future__ import annotations

import errno
import fcntl
import os
import signal
from pathlib import Path

import pytest

from sb3_visual_td3.runs.run_lock import RunLock


def held_by_child(path: Path) -> int:
    """:return: the process id of a child that holds the lock until it is killed"""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            lock = RunLock(path)
            lock.acquire()
            os.write(writer, b"!")
            signal.pause()
        finally:
            os._exit(1)
    os.close(writer)
    got = os.read(reader, 1)
    os.close(reader)
    assert got == b"!"
    return child


def test_a_second_process_is_told_who_trains_the_run(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    child = held_by_child(path)
    try:
        with pytest.raises(ValueError, match=rf"run\.lock: this run is being trained by process {child}; wait"):
            RunLock(path).acquire()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    # Killed as hard as can be, it holds nothing.
    with RunLock(path) as lock:
        assert lock.is_held
        assert path.read_text() == f"{os.getpid()}\n"


def test_a_lock_is_free_again_after_release_or_an_error(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    lock = RunLock(path)
    lock.acquire()
    lock.acquire()
    lock.release()
    lock.release()
    assert not lock.is_held
    with pytest.raises(KeyError), RunLock(path):
        raise KeyError
    with RunLock(path):
        pass


def test_a_refused_lock_leaves_the_holders_number(tmp_path: Path) -> None:
    child = held_by_child(tmp_path / "lock")
    try:
        with pytest.raises(ValueError, match=f"is being trained by process {child}"):
            RunLock(tmp_path / "lock").acquire()
        assert (tmp_path / "lock").read_text() == f"{child}\n"
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_within_a_process_the_newer_one_gets_it(tmp_path: Path) -> None:
    """In a notebook the older one belongs to a training that was interrupted."""
    older, newer = RunLock(tmp_path / "lock"), RunLock(tmp_path / "lock")
    older.acquire()
    newer.acquire()
    assert newer.is_held
    assert not older.is_held
    older.release()
    child = os.fork()
    if child == 0:
        try:
            RunLock(tmp_path / "lock").acquire()
        except ValueError:
            os._exit(7)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    newer.release()


def test_a_forked_worker_that_outlives_its_parent_does_not_keep_the_run(tmp_path: Path) -> None:
    lock = RunLock(tmp_path / "lock")
    lock.acquire()
    reader, writer = os.pipe()
    worker = os.fork()
    if worker == 0:
        try:
            os.write(writer, b"1" if lock.is_held else b"0")
            signal.pause()
        finally:
            os._exit(1)
    try:
        assert os.read(reader, 1) == b"0"
        assert lock.is_held
        # What the kernel does when the parent dies.
        lock.release()
        with RunLock(tmp_path / "lock") as next_lock:
            assert next_lock.is_held
    finally:
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize("code", [errno.ENOTSUP, errno.ENOLCK])
def test_without_locks_the_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(handle: int, how: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with RunLock(tmp_path / "lock"), RunLock(tmp_path / "lock"):
        pass


def test_another_error_is_not_hidden_and_leaves_nothing_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: int, how: int) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(fcntl, "flock", refuse)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="broken"):
        RunLock(tmp_path / "lock").acquire()
    assert len(os.listdir("/proc/self/fd")) == before
