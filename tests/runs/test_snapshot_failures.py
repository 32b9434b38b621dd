"""Test the saving of a snapshot with a kill or an error at each system call."""

from __future__ import annotations

import errno
import os
import random
import resource
import shutil
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sb3_visual_td3.runs import object_store
from sb3_visual_td3.runs.snapshot import SnapshotError
from sb3_visual_td3.runs.snapshot_store import SnapshotStore
from tests.runs.state_trees import is_same

CALLS = ("open", "write", "fsync", "rename", "replace", "unlink", "mkdir", "rmdir")


@pytest.fixture(autouse=True)
def small_and_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "CHUNK_BYTES", 64)
    # A kill loses no data that the kernel has, so these tests need no real fsync. ``os.fsync`` still counts as a call.
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def state_of(step: int) -> dict[str, Any]:
    frames = np.arange(48, dtype=np.int32)
    frames[:20] = step
    return {"step": step, "frames": frames, "weights": np.full(3, step / 7)}


def write_model(path: Path) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.write(handle, b"model")
    os.close(handle)


def save(folder: Path, step: int, keep: int = 2) -> None:
    SnapshotStore(folder).save(step, state_of(step), {"model.zip": write_model}, keep=keep)


def is_good(folder: Path, step: int) -> bool:
    return is_same(SnapshotStore(folder).load(step).state, state_of(step))


@contextmanager
def at_call(number: int, happens: Callable[[], Any]) -> Iterator[list[int]]:
    """Count the system calls that change files, and run ``happens`` before the ``number``-th of them."""
    n_calls = [0]

    def wrapped(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def act(*args: Any, **kwargs: Any) -> Any:
            if name == "open" and not args[1] & (os.O_WRONLY | os.O_RDWR):
                return call(*args, **kwargs)
            n_calls[0] += 1
            if n_calls[0] == number:
                happens()
            return call(*args, **kwargs)

        return act

    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, wrapped(name, getattr(os, name)))
        yield n_calls


def in_child(work: Callable[[], Any]) -> int:
    """Call ``work`` in a forked process, and return the exit code of the process."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def n_calls_of(work: Callable[[], Any]) -> int:
    with at_call(0, die) as n_calls:
        work()
    return n_calls[0]


def contents_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def assert_no_rest(folder: Path, like: Path, steps: list[int]) -> None:
    """Save the snapshots ``steps`` in ``like``, and check that ``folder`` has the same files."""
    for step in steps:
        save(like, step, keep=len(steps))
    assert contents_of(folder) == contents_of(like)
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("step", [3, 2], ids=["a new step", "a step again"])
def test_a_kill_before_any_system_call_keeps_the_last_complete_snapshot(tmp_path: Path, step: int) -> None:
    def prepared(name: str) -> Path:
        folder = tmp_path / name
        save(folder, 1)
        save(folder, 2)
        return folder

    folder = prepared("counted")
    n_calls = n_calls_of(lambda: save(folder, step))
    assert n_calls > 20
    found = []
    for number in range(1, n_calls + 1):
        folder = prepared(f"killed at {number}")

        def work(number: int = number, folder: Path = folder) -> None:
            with at_call(number, die):
                save(folder, step)

        assert in_child(work) == -signal.SIGKILL
        newest = SnapshotStore(folder).newest()
        assert newest.skipped == []
        assert is_same(newest.state, state_of(newest.step))
        assert newest.step in {2, step}
        # A snapshot leaves the list before the first of its files is removed.
        assert all(is_good(folder, listed.step) for listed in SnapshotStore(folder).all())
        found.append(newest.step)
        save(folder, 4)
        assert is_good(folder, 4)
        assert_no_rest(folder, tmp_path / f"like {number}", [newest.step, 4])
        shutil.rmtree(folder)
    assert found == sorted(found)
    assert set(found) == {2, step}


@pytest.mark.parametrize("step", [3, 2], ids=["a new step", "a step again"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_an_error_in_any_system_call_loses_nothing_and_leaves_nothing(tmp_path: Path, step: int, code: int) -> None:
    def refuse() -> None:
        raise OSError(code, os.strerror(code))

    counted = tmp_path / "counted"
    save(counted, 1)
    save(counted, 2)
    n_calls = n_calls_of(lambda: save(counted, step))
    n_refused = n_warned = 0
    for number in range(1, n_calls + 1):
        folder = tmp_path / f"refused at {number}"
        save(folder, 1)
        save(folder, 2)
        before = contents_of(folder)
        with at_call(number, refuse), warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            try:
                save(folder, step)
                refused = None
            except SnapshotError as error:
                refused = error
        if refused is None:
            # An error after the snapshot has its final name only gives a warning. An error in the creation of a
            # folder that exists has no effect.
            n_warned += len(warned)
            assert is_good(folder, step)
            told = ("older snapshots could not be removed", "remove it by hand")
            assert all(any(words in str(warning.message) for words in told) for warning in warned)
        else:
            n_refused += 1
            assert isinstance(refused.__cause__, OSError)
            assert str(refused).startswith(f"{folder}/step_00000000{step}: the snapshot could not be written: ")
            last = SnapshotStore(folder).all()[-1].step
            assert str(refused).endswith(f"; the last good snapshot is step {last}")
            assert ("besides its files it needs up to 0.0 MB" in str(refused)) == (code == errno.ENOSPC)
            assert is_good(folder, 1)
            assert is_good(folder, 2)
            # The new snapshot exists only if the very last sync fails. It is then complete.
            assert contents_of(folder) == before if last == 2 else is_good(folder, 3)
            assert not [*folder.glob(".*"), *folder.glob("objects/.*")]
        save(folder, 4)
        assert is_good(folder, 4)
        kept = [listed.step for listed in SnapshotStore(folder).all()]
        assert_no_rest(folder, tmp_path / f"like {number}", kept)
    assert n_refused > 20
    assert n_warned > 3


def test_everything_is_durable_before_something_refers_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    rename = os.rename
    monkeypatch.setattr(os, "fsync", lambda handle: calls.append(os.readlink(f"/proc/self/fd/{handle}")))
    monkeypatch.setattr(os, "rename", lambda a, b: calls.append(f"rename to {b}") or rename(a, b))
    save(tmp_path, 1)
    (begun,) = {call.rpartition("/")[0] for call in calls if call.endswith("snapshot.json")}
    last_object = max(index for index, call in enumerate(calls) if call.startswith(f"{tmp_path}/objects"))
    after_objects = calls[last_object:]
    assert after_objects == [
        f"{tmp_path}/objects",
        f"{begun}/arrays.bin",
        f"{begun}/model.zip",
        f"{begun}/snapshot.json",
        begun,
        f"rename to {tmp_path}/step_000000001",
        str(tmp_path),
    ]


def test_a_partly_written_file_is_refused(tmp_path: Path) -> None:
    """A real limit on the file size accepts a part of a write and refuses the rest."""
    save(tmp_path, 1)
    before = contents_of(tmp_path)
    large = {"weights": np.zeros((40, 2), np.int64)[:, 0], "note": "x" * 10_000}

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        with pytest.raises(SnapshotError, match=r"File too large; the last good snapshot is step 1$"):
            SnapshotStore(tmp_path).save(2, large, {"model.zip": write_model})

    assert in_child(work) == 0
    assert contents_of(tmp_path) == before
    assert is_good(tmp_path, 1)
    SnapshotStore(tmp_path).save(2, large, {"model.zip": write_model})
    assert SnapshotStore(tmp_path).load(2).state["note"] == large["note"]


def test_a_failed_first_save_says_that_there_is_no_snapshot(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SnapshotError, match=r"Not a directory.*; there is no earlier snapshot$"):
        save(tmp_path / "file" / "snapshots", 1)


def torch_on_a_full_disk(path: Path) -> None:
    path.touch()
    raise RuntimeError("PytorchStreamWriter failed writing file data/0")


@pytest.mark.parametrize(
    ("writer", "message"),
    [
        (torch_on_a_full_disk, "model.zip: RuntimeError: PytorchStreamWriter failed"),
        (lambda path: None, "model.zip: the function that should write this file did not create it"),
    ],
)
def test_a_file_that_its_writer_could_not_write_is_named(
    tmp_path: Path, writer: Callable[[Path], None], message: str
) -> None:
    save(tmp_path, 1)
    before = contents_of(tmp_path)
    with pytest.raises(SnapshotError, match=message):
        SnapshotStore(tmp_path).save(2, state_of(2), {"model.zip": writer})
    assert contents_of(tmp_path) == before


def test_an_interrupted_save_leaves_nothing_and_stays_an_interrupt(tmp_path: Path) -> None:
    save(tmp_path, 1)
    before = contents_of(tmp_path)

    def interrupt(path: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SnapshotStore(tmp_path).save(2, state_of(2), {"model.zip": interrupt})
    assert contents_of(tmp_path) == before


def test_a_kill_at_a_random_moment_keeps_a_complete_snapshot(tmp_path: Path) -> None:
    randomness = random.Random(1)
    n_complete = 0
    for _ in range(20):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                for step in range(n_complete + 1, 10**6):
                    save(tmp_path, step)
                    os.write(writer, step.to_bytes(8, "big"))
            finally:
                os._exit(1)
        os.close(writer)
        # Wait for 0 to 3 complete saves, also on a busy machine. The pause then ends at any moment of a later save.
        told = b"".join(os.read(reader, 8) for _ in range(randomness.randrange(4)))
        time.sleep(0.05 * randomness.random())
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        told += os.read(reader, 1 << 16)
        os.close(reader)
        n_complete = int.from_bytes(told[-8:], "big") if told else n_complete
        if n_complete or SnapshotStore(tmp_path).all():
            newest = SnapshotStore(tmp_path).newest()
            assert newest.skipped == []
            assert newest.step in {n_complete, n_complete + 1}
            assert is_same(newest.state, state_of(newest.step))
            assert newest.file("model.zip").read_text() == "model"
            n_complete = newest.step
    assert n_complete > 20


@pytest.mark.parametrize(
    "left", [".gone-step_000000001", ".new-step_000000003", ".gone-step_000000099", "objects/.new-*"]
)
def test_an_undeletable_folder_does_not_prevent_later_snapshots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    """For example, another user owns the folder, or a network file system holds it open."""
    save(tmp_path, 1, keep=1)
    save(tmp_path, 2, keep=1)
    stuck = [tmp_path / left]
    if left.startswith("objects"):
        chunks = [path.name for path in (tmp_path / "objects").rglob("*") if path.is_file()]
        stuck = [tmp_path / "objects" / f".new-{name}" for name in chunks]
        (tmp_path / "objects" / chunks[0][:2] / chunks[0]).unlink()  # so that the store writes this chunk again
    for path in stuck:
        if left.startswith("objects"):
            path.write_bytes(b"begun")
        else:
            path.mkdir()
            (path / "model.zip").write_bytes(b"begun")
    really_remove, really_unlink = shutil.rmtree, Path.unlink

    def remove(path: Path, *arguments: Any, **kwargs: Any) -> None:
        if path in stuck:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        really_remove(path, *arguments, **kwargs)

    def unlink(path: Path, *arguments: Any, **kwargs: Any) -> None:
        if path in stuck:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        really_unlink(path, *arguments, **kwargs)

    monkeypatch.setattr(shutil, "rmtree", remove)
    monkeypatch.setattr(Path, "unlink", unlink)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for step in (1, 3, 4, 1, 5):
            save(tmp_path, step, keep=1)
            assert is_good(tmp_path, step)
    assert [found.step for found in SnapshotStore(tmp_path).all()] == [5]
    assert all(path.exists() for path in stuck)
    if not left.startswith("objects"):
        assert any("remove it by hand" in str(each.message) for each in told)
