from __future__ import annotations

import errno
import fcntl
import os
import signal
from pathlib import Path

import pytest

from sb3_visual_td3.runs.run_lock import RunLock


def held_by_child(path: Path) -> int:
    """Return the process id of a child that holds the lock until it is killed."""
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


def is_locked(path: Path) -> bool:
    """Return whether a lock file is locked, by asking the kernel."""
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def test_a_second_process_is_refused_and_learns_which_process_trains_the_run(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    child = held_by_child(path)
    try:
        with pytest.raises(ValueError, match=rf"run\.lock: this run is being trained by process {child}; wait"):
            RunLock(path).acquire()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    # A process that is killed by SIGKILL gives the lock up.
    with RunLock(path):
        assert is_locked(path)
        assert path.read_text() == f"{os.getpid()}\n"


def test_a_lock_is_free_again_after_release_or_an_error(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    lock = RunLock(path)
    lock.acquire()
    lock.acquire()
    lock.release()
    lock.release()
    assert not is_locked(path)
    with pytest.raises(KeyError), RunLock(path):
        raise KeyError
    with RunLock(path):
        pass


def test_a_refused_process_leaves_the_process_id_of_the_holder(tmp_path: Path) -> None:
    child = held_by_child(tmp_path / "lock")
    try:
        with pytest.raises(ValueError, match=f"is being trained by process {child}"):
            RunLock(tmp_path / "lock").acquire()
        assert (tmp_path / "lock").read_text() == f"{child}\n"
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_within_a_process_the_newer_lock_object_gets_the_lock(tmp_path: Path) -> None:
    """In a notebook, the older object belongs to a training that was interrupted."""
    older, newer = RunLock(tmp_path / "lock"), RunLock(tmp_path / "lock")
    older.acquire()
    newer.acquire()
    older.release()  # without effect: it has lost the lock
    assert is_locked(tmp_path / "lock")
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
            os.write(writer, b"!")
            signal.pause()
        finally:
            os._exit(1)
    try:
        assert os.read(reader, 1) == b"!"
        assert is_locked(lock.path)
        # This is what the kernel does when the parent dies. The worker, which is alive, must not hold the lock then.
        lock.release()
        assert not is_locked(lock.path)
        with RunLock(tmp_path / "lock"):
            assert is_locked(lock.path)
    finally:
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize("code", [errno.ENOTSUP, errno.ENOLCK])
def test_a_run_starts_if_flock_is_not_supported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(handle: int, how: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with RunLock(tmp_path / "lock"), RunLock(tmp_path / "lock"):
        pass


def test_an_io_error_of_flock_is_raised_and_no_file_stays_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: int, how: int) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(fcntl, "flock", refuse)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="broken"):
        RunLock(tmp_path / "lock").acquire()
    assert len(os.listdir("/proc/self/fd")) == before
