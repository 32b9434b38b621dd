"""Save, load and remove the snapshots of a run, and recover after a killed process.

On disk::

    <folder>/step_000012000/snapshot.json   the state as JSON, and the digest of everything else
                            arrays.bin      the small arrays, one after another
                            model.zip       and whatever else the caller writes
    <folder>/objects/ab/abcdef...           the large arrays in chunks, which snapshots share

A folder with a final name always holds a complete snapshot, even if the process was killed: the chunks are written
first, then the record, and the folder gets its final name last.

``.new-`` marks a folder that is being written, ``.old-`` one that is being replaced, ``.gone-`` one that is being
removed. Only one process at a time may save (:class:`~sb3_visual_td3.runs.run_lock.RunLock`).
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.common.numbers import to_integer
from sb3_visual_td3.common.saved_state import AnyArray
from sb3_visual_td3.runs.durable_files import (
    FileDigest,
    bytes_of,
    digest_of,
    read_fully,
    sync_file,
    sync_folder,
    write_durably,
)
from sb3_visual_td3.runs.object_store import ChunkedArray, ObjectStore, chunk_bytes_for, cut
from sb3_visual_td3.runs.snapshot import (
    RECORD_NAME,
    SMALL_ARRAYS_NAME,
    ArrayRecord,
    Health,
    NamedArray,
    NoSnapshotError,
    Snapshot,
    SnapshotError,
    SnapshotRecord,
    SplitTree,
    is_file_name,
    join,
    kept_for_rollback,
    read_record,
    rewrite_record,
    split,
)

_NAME = re.compile(r"step_([0-9]{9,})")
_NEW, _OLD, _GONE = ".new-", ".old-", ".gone-"
_NUMBER = "~"
"""Character before the number in a temporary name such as ``.new-step_000012000~2``. A temporary name has a number if
an older folder of the same name cannot be removed."""


class FoundSnapshot(NamedTuple):
    """Describe a folder that has the name of a snapshot.

    If ``record`` is None, ``reason`` says why the snapshot cannot be used.
    """

    step: int
    path: Path
    record: SnapshotRecord | None
    reason: str


def folder_name(step: int) -> str:
    """Return the name of the folder of a snapshot, such as ``step_000012000``."""
    return f"step_{step:09d}"


def find_snapshots(folder: Path) -> list[FoundSnapshot]:
    """Find the snapshots in a folder by reading their records.

    :param folder: folder of all snapshots
    :return: the snapshots, ordered by step
    :raises SnapshotError: if the folder cannot be read
    """
    try:
        names = {path.name for path in folder.iterdir()}
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise SnapshotError(f"{folder} cannot be read ({error.strerror}): change its permissions") from error
    found = []
    for name in names:
        # A replaced snapshot counts as long as no new snapshot has taken its name.
        bare = name
        if name.startswith(_OLD):
            bare = name.removeprefix(_OLD).partition(_NUMBER)[0]
        match = _NAME.fullmatch(bare)
        step = int(match[1]) if match is not None else -1
        if bare == folder_name(step) and (name == bare or bare not in names):
            found.append(_inspect(step, folder / name))
    return sorted(found, key=lambda snapshot: snapshot.step)


def begin_folder(folder: Path, step: int) -> Path:
    """Clean up after a killed writer, and create the temporary folder of a new snapshot.

    :param folder: folder of all snapshots, created if necessary
    :param step: environment steps of the new snapshot
    :return: an empty folder for its files
    :raises OSError: if the operating system refuses
    """
    folder.mkdir(parents=True, exist_ok=True)
    sync_folder(folder.parent)
    tidy(folder)
    temporary = _free_name(folder / f"{_NEW}{folder_name(step)}")
    temporary.mkdir()
    return temporary


def publish(temporary: Path) -> Path:
    """Rename a complete snapshot's folder to its final name.

    An older snapshot of the same step is replaced. At every moment, one of the two can be found.

    :param temporary: folder from :func:`begin_folder`, synced
    :return: its new path
    :raises OSError: if the operating system refuses; :func:`tidy` then brings the older snapshot back
    """
    folder, name = temporary.parent, temporary.name.removeprefix(_NEW).partition(_NUMBER)[0]
    final = folder / name
    # A folder cannot be renamed onto a folder that has content, so the replaced snapshot is renamed first. Between the
    # two renames, find_snapshots() finds it under its ".old-" name.
    if final.exists():
        os.rename(final, _free_name(folder / f"{_OLD}{name}"))
    os.rename(temporary, final)
    sync_folder(folder)
    return final


def tidy(folder: Path) -> None:
    """Remove the temporary folders of a killed writer, and bring back a snapshot that it was about to replace.

    A folder that cannot be removed only causes a warning.

    :param folder: folder of all snapshots
    :raises OSError: if a replaced snapshot can be neither brought back nor removed
    """
    for path in [*folder.glob(f"{_NEW}step_*"), *folder.glob(f"{_GONE}step_*")]:
        _discard_or_leave(path)
    for path in list(folder.glob(f"{_OLD}step_*")):
        final = folder / path.name.removeprefix(_OLD).partition(_NUMBER)[0]
        if final.exists():
            remove(path)
        else:
            os.rename(path, final)


def tidy_if_possible(folder: Path) -> None:
    """Clean up the folder of snapshots after an error, and ignore further errors.

    :param folder: folder of all snapshots
    """
    with suppress(OSError):
        tidy(folder)


def remove(snapshot: Path) -> None:
    """Remove a snapshot.

    The folder is renamed first, so that a killed process does not leave half of a snapshot.

    :param snapshot: folder of the snapshot
    :raises OSError: if the operating system refuses
    """
    gone = _free_name(snapshot.with_name(f"{_GONE}{snapshot.name.removeprefix(_OLD).partition(_NUMBER)[0]}"))
    os.rename(snapshot, gone)
    _discard_or_leave(gone)


def _free_name(path: Path) -> Path:
    """Return the path itself if it does not exist yet, or the path with a number appended to its name."""
    if not os.path.lexists(path):
        return path
    names = (path.with_name(f"{path.name}{_NUMBER}{number}") for number in range(2, 1_000_000))
    return next(name for name in names if not os.path.lexists(name))


def _discard_or_leave(path: Path) -> None:
    try:
        _discard(path)
    except OSError as error:
        warnings.warn(f"{path} cannot be removed ({error}): remove it by hand", stacklevel=2)


def _discard(path: Path) -> None:
    # The user may have put a file or a link of this name into the folder.
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _inspect(step: int, path: Path) -> FoundSnapshot:
    try:
        if path.is_symlink():
            raise SnapshotError(
                "this is a symbolic link, possibly to a snapshot of another run: expected a folder. Remove the link"
            )
        record = read_record(path)
        if record.step != step:
            raise SnapshotError(
                f"snapshot.json belongs to step {record.step}; expected step {step} as in the folder's name"
            )
    except SnapshotError as error:
        return FoundSnapshot(step, path, None, f"{folder_name(step)}: {error}")
    return FoundSnapshot(step, path, record, "")


FileWriter = Callable[[Path], None]


class SavedSnapshot(NamedTuple):
    """Summarise a save: the bytes that it added to the disk, and the bytes of the whole snapshot."""

    path: Path
    step: int
    n_bytes_written: int
    n_bytes_total: int
    seconds: float


class ListedSnapshot(NamedTuple):
    """Describe a snapshot whose record was read and whose parts have not been checked."""

    step: int
    path: Path
    created: str
    health: Health | None = None


class SnapshotStore:
    """Save and load the snapshots in one folder.

    :param folder: folder of all snapshots, created by the first ``save``
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._objects = ObjectStore(self.folder / "objects")
        self._serials_of_damaged: set[int] = set()

    def save(
        self,
        step: int,
        state: Mapping[str, Any],
        files: Mapping[str, FileWriter],
        keep: int = 2,
        versions: Mapping[str, str] | None = None,
        health: Health | None = None,
    ) -> SavedSnapshot:
        """Save a state, then remove older snapshots.

        :param step: environment steps; a snapshot of the same step is replaced
        :param state: a tree as :class:`~sb3_visual_td3.common.types.HasState` describes it
        :param files: functions that write the files, by file name; each takes the path to write to
        :param keep: number of newest snapshots to keep, including this one;
            :func:`~sb3_visual_td3.runs.snapshot.kept_for_rollback` may keep more
        :param versions: versions by package name
        :param health: health of the training; None if it is not judged
        :raises ValueError: if an argument is wrong
        :raises SnapshotError: if the snapshot cannot be written; earlier snapshots stay
        """
        began = time.perf_counter()
        step, keep = to_integer("step", step, 0), to_integer("keep", keep, 1)
        _check_names(files)
        tree = split(state)
        try:
            self._objects.begin()
            temporary = begin_folder(self.folder, step)
            record, n_bytes_written = self._write(temporary, step, tree, files, versions or {}, health)
            # A damaged snapshot that was removed by hand may have had the same serial number.
            self._serials_of_damaged.discard(record.serial)
            path = publish(temporary)
        except BaseException as error:
            # BaseException, because Ctrl-C must not leave chunks without a record.
            self._take_back()
            if isinstance(error, OSError | SnapshotError):
                raise SnapshotError(self._failure_message(step, tree, error)) from error
            raise
        # The new snapshot is complete, so an error while removing old ones is only a warning.
        try:
            self._prune(keep)
        except (OSError, SnapshotError) as error:
            warnings.warn(
                f"{self.folder}: older snapshots could not be removed ({error}): remove them by hand", stacklevel=2
            )
        n_bytes_total = record.n_bytes + (path / RECORD_NAME).stat().st_size
        return SavedSnapshot(path, step, n_bytes_written, n_bytes_total, time.perf_counter() - began)

    def all(self) -> list[ListedSnapshot]:
        """Return all snapshots with a readable record, oldest first; their parts are not checked."""
        return [
            ListedSnapshot(found.step, found.path, found.record.created, found.record.health)
            for found in _oldest_first(find_snapshots(self.folder))
            if found.record is not None
        ]

    def newest(self, with_large_arrays: bool = True) -> Snapshot:
        """Load the newest undamaged snapshot, and check every byte of it.

        :param with_large_arrays: False does not check the large arrays, so they may be damaged
        :raises NoSnapshotError: if there are no snapshots
        :raises SnapshotError: if all snapshots are damaged
        """
        found = find_snapshots(self.folder)
        skipped: list[str] = []
        for candidate in reversed(_oldest_first(found)):
            try:
                snapshot = self._load(candidate, with_large_arrays)
            except SnapshotError as error:
                skipped.append(str(error))
                continue
            # Without a record it is unknown which snapshot was saved later, so the one with the larger step is taken.
            unknown = [other.reason for other in found if other.record is None and other.step > candidate.step]
            return replace(snapshot, skipped=unknown + skipped)
        if not found:
            raise NoSnapshotError(f"{self.folder}: there is no snapshot; expected a run with a SnapshotCallback")
        reasons = [other.reason for other in found if other.record is None] + skipped
        raise SnapshotError(f"{self.folder}: no usable snapshot: {'; '.join(reasons)}. Train the run again")

    def load(self, step: int) -> Snapshot:
        """Load the snapshot of a step, and check every byte of it.

        :param step: environment steps, as saved
        :raises NoSnapshotError: if there is no snapshot of this step
        :raises SnapshotError: if the snapshot is damaged
        """
        found = {candidate.step: candidate for candidate in find_snapshots(self.folder)}
        if step not in found:
            there = ", ".join(map(str, found)) or "none"
            raise NoSnapshotError(f"{self.folder}: there is no snapshot of step {step}; there are: {there}")
        try:
            return self._load(found[step])
        except SnapshotError as error:
            raise SnapshotError(f"{self.folder}: {error}") from error

    def newest_healthy(self, n_updates: int) -> Snapshot | None:
        """Load the newest healthy and undamaged snapshot, for a rollback; return None without such a snapshot.

        Its large arrays are not checked, because a rollback does not restore the replay buffer.

        :param n_updates: snapshots with more gradient updates than this are not considered
        """
        for candidate in reversed(_oldest_first(find_snapshots(self.folder))):
            health = _health_of(candidate)
            if health is not None and health.is_healthy and health.n_updates <= n_updates:
                with suppress(SnapshotError):
                    return self._load(candidate, with_large_arrays=False)
        return None

    def mark_unhealthy(self, n_updates: int) -> None:
        """Mark as unhealthy all snapshots that were taken after a problem began.

        :param n_updates: snapshots with more gradient updates than this are marked
        :raises OSError: if the operating system refuses
        """
        for found in find_snapshots(self.folder):
            health = _health_of(found)
            if found.record is None or health is None:
                continue
            if health.is_healthy and health.n_updates > n_updates:
                rewrite_record(found.path, replace(found.record, health=health._replace(is_healthy=False)))

    def _load(self, found: FoundSnapshot, with_large_arrays: bool = True) -> Snapshot:
        if found.record is None:
            raise SnapshotError(found.reason)
        try:
            return load_snapshot(found.path, found.record, self._objects, with_large_arrays)
        except SnapshotError as error:
            self._serials_of_damaged.add(found.record.serial)
            raise SnapshotError(f"{folder_name(found.step)}: {error}") from error

    def _write(
        self,
        temporary: Path,
        step: int,
        tree: SplitTree,
        files: Mapping[str, FileWriter],
        versions: Mapping[str, str],
        health: Health | None,
    ) -> tuple[SnapshotRecord, int]:
        # The chunks are written first and the record last, so everything that the record names is on the disk.
        arrays, small, n_bytes_written = self._put_arrays(tree.arrays)
        self._objects.sync()
        write_durably(temporary / SMALL_ARRAYS_NAME, _content(small))
        digests = {SMALL_ARRAYS_NAME: digest_of(temporary / SMALL_ARRAYS_NAME)}
        # The caller does not sync its files, such as model.zip; _written_by() does.
        digests.update({name: _written_by(write, temporary / name) for name, write in files.items()})
        serials = [found.record.serial for found in find_snapshots(self.folder) if found.record is not None]
        record_to_write = SnapshotRecord(
            step=step,
            serial=max(serials, default=0) + 1,
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            versions=dict(versions),
            state=tree.plain,
            arrays=tuple(arrays),
            files=digests,
            health=health,
        )
        content = memoryview(record_to_write.to_bytes())
        write_durably(temporary / RECORD_NAME, [content])
        sync_folder(temporary)
        n_bytes_written += sum(digest.n_bytes for digest in digests.values()) + len(content)
        return record_to_write, n_bytes_written

    def _put_arrays(self, named: Sequence[NamedArray]) -> tuple[list[ArrayRecord], list[NamedArray], int]:
        """Write the large arrays of a state to disk as chunks, and set the small arrays aside for one common file.

        :return: the records of all arrays, the small arrays, and the number of bytes written
        """
        arrays: list[ArrayRecord] = []
        small: list[NamedArray] = []
        n_bytes_small = n_bytes_written = 0
        for place, array in named:
            record = ArrayRecord(place, array.dtype.str, array.shape, None, chunk_bytes_for(array.nbytes), ())
            # Most arrays of a state, such as counters and states of random generators, are too small for files of their
            # own.
            if array.nbytes < record.chunk_bytes:
                record = record._replace(offset=n_bytes_small, chunk_bytes=0)
                small.append(NamedArray(place, array))
                n_bytes_small += array.nbytes
            else:
                stored = [self._objects.put(part) for part in cut(array, record.chunk_bytes)]
                record = record._replace(chunks=tuple(chunk.digest for chunk in stored))
                n_bytes_written += sum(chunk.n_bytes_written for chunk in stored)
            arrays.append(record)
        return arrays, small, n_bytes_written

    def _prune(self, keep: int) -> None:
        tidy(self.folder)
        found = find_snapshots(self.folder)
        # Damaged snapshots do not count towards "keep", so they do not replace good ones.
        known = _oldest_first(found)
        whole = [snapshot for snapshot in known if not self._is_damaged(snapshot)]
        kept = whole[-keep:]
        n_older = known.index(kept[0])
        for_rollback = [whole[place] for place in kept_for_rollback([_health_of(snapshot) for snapshot in whole])]
        for old in known[:n_older]:
            if old not in for_rollback:
                remove(old.path)
        # An unreadable snapshot is removed if its step is lower than those of all kept snapshots. Otherwise it may be
        # good: the error may be temporary, or a later version of this package may have written the snapshot. Its chunks
        # are unknown, so no chunk is removed while it exists.
        first_kept = min(snapshot.step for snapshot in kept)
        unknown = [other for other in found if other.record is None and (other.path / RECORD_NAME).exists()]
        for old in unknown:
            if old.step < first_kept:
                remove(old.path)
        if all(other.step < first_kept for other in unknown):
            self._objects.keep_only(_chunks_of([*for_rollback, *known[n_older:]]))

    def _is_damaged(self, found: FoundSnapshot) -> bool:
        return found.record is None or found.record.serial in self._serials_of_damaged

    def _take_back(self) -> None:
        # Without a list of the snapshots, nothing can be removed safely.
        with suppress(SnapshotError):
            tidy_if_possible(self.folder)
            self._objects.take_back(_chunks_of(find_snapshots(self.folder)))

    def _failure_message(self, step: int, tree: SplitTree, error: Exception) -> str:
        reason = str(error)
        last = "no earlier snapshot can be read"
        with suppress(OSError, SnapshotError):
            if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
                needed = sum(array.nbytes for _, array in tree.arrays)
                free = shutil.disk_usage(self.folder).free
                reason += f"; besides its files it needs up to {needed / 1e6:.1f} MB; {free / 1e6:.1f} MB are free"
            found = _oldest_first(find_snapshots(self.folder))
            good = [snapshot.step for snapshot in found if not self._is_damaged(snapshot)]
            last = "there is no earlier snapshot"
            if good:
                last = f"the last good snapshot is step {good[-1]}"
        return f"{self.folder / folder_name(step)}: the snapshot could not be written: {reason}; {last}"


def _check_names(files: Iterable[str]) -> None:
    for name in files:
        if not is_file_name(name) or name == SMALL_ARRAYS_NAME:
            raise ValueError(
                f"'files' contains the file name {name!r}: expected letters, digits, '_', '.', '-' and spaces, "
                "and no '.', '-' or space at the beginning. "
                f"The names {RECORD_NAME} and {SMALL_ARRAYS_NAME} are reserved"
            )


def _content(arrays: Sequence[NamedArray]) -> Iterator[memoryview]:
    for _, array in arrays:
        yield from cut(array, chunk_bytes_for(array.nbytes))


def _written_by(write: FileWriter, path: Path) -> FileDigest:
    try:
        write(path)
    except OSError:
        raise
    except Exception as error:
        # torch raises a RuntimeError if the disk is full.
        raise SnapshotError(f"{path.name}: {type(error).__name__}: {error}") from error
    if not path.is_file():
        raise SnapshotError(f"{path.name}: the function that should write this file did not create it")
    sync_file(path)
    return digest_of(path)


def _oldest_first(found: Sequence[FoundSnapshot]) -> list[FoundSnapshot]:
    known = [(snapshot.record.serial, snapshot) for snapshot in found if snapshot.record is not None]
    return [snapshot for _, snapshot in sorted(known, key=lambda pair: pair[0])]


def _health_of(found: FoundSnapshot) -> Health | None:
    if found.record is None:
        return None
    return found.record.health


def _chunks_of(found: Sequence[FoundSnapshot]) -> set[str]:
    return {chunk for snapshot in found if snapshot.record is not None for chunk in snapshot.record.chunks}


def load_snapshot(
    folder: Path, record: SnapshotRecord, objects: ObjectStore, with_large_arrays: bool = True
) -> Snapshot:
    """Load a snapshot and check its files; the large arrays stay on the disk.

    :param folder: folder of the snapshot
    :param record: record of the snapshot
    :param objects: the store of its chunks
    :param with_large_arrays: whether to check the large arrays too
    :raises SnapshotError: if a part is missing, damaged or cannot be read
    """
    _check_files(folder, record)
    if with_large_arrays:
        _check_chunks(record, objects)
    try:
        arrays = [_array(array, folder, objects) for array in record.arrays]
        state = join(record.state, arrays)
    except OSError as error:
        raise SnapshotError(f"{SMALL_ARRAYS_NAME} cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise SnapshotError(
            f"{RECORD_NAME} has content that this version of sb3_visual_td3 cannot read ({error}): install the version "
            "that wrote this snapshot"
        ) from error
    return Snapshot(
        path=folder,
        step=record.step,
        created=record.created,
        versions=record.versions,
        state=state,
        file_names=tuple(name for name in record.files if name != SMALL_ARRAYS_NAME),
        health=record.health,
    )


def _check_files(folder: Path, record: SnapshotRecord) -> None:
    for name, expected in record.files.items():
        try:
            found = digest_of(folder / name)
        except FileNotFoundError:
            raise SnapshotError(f"{name} is missing, so this snapshot cannot be loaded") from None
        except OSError as error:
            raise SnapshotError(f"{name} cannot be read ({error.strerror})") from error
        if found.n_bytes != expected.n_bytes:
            raise SnapshotError(
                f"{name} is damaged (it has {found.n_bytes} bytes, not {expected.n_bytes}), so this snapshot cannot "
                "be loaded"
            )
        if found != expected:
            raise SnapshotError(
                f"{name} is damaged (its SHA-256 differs from the recorded one), so this snapshot cannot be loaded"
            )


def _check_chunks(record: SnapshotRecord, objects: ObjectStore) -> None:
    # One buffer serves all chunks, so a replay buffer of several GB is checked with little memory.
    chunks = record.chunks
    buffer = memoryview(bytearray(max(chunks.values(), default=0)))
    for digest, n_bytes in chunks.items():
        objects.read_into(digest, buffer[:n_bytes])


def _array(array: ArrayRecord, folder: Path, objects: ObjectStore) -> AnyArray:
    dtype = np.dtype(array.dtype)
    if array.offset is None:
        return ChunkedArray(array.shape, dtype, array.chunk_bytes, array.chunks, objects)
    read: NDArray[Any] = np.empty(array.shape, dtype)
    if not read_fully(folder / SMALL_ARRAYS_NAME, bytes_of(read), array.offset):
        raise SnapshotError(f"{SMALL_ARRAYS_NAME} is damaged (it ends in the middle of the array {array.path})")
    return read
