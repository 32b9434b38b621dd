"""The snapshots of a run: their folders, which ones to keep, and the newest good one.

A snapshot is made in ``.new-step_000012000`` and takes its name with one rename. The one that
it replaces steps aside to ``.old-step_000012000`` for that moment, and counts while the name is free. ``.gone-...`` is
being removed.

On disk::

    <folder>/step_000012000/snapshot.json   the state as plain data, and the digest of everything
                            arrays.bin      the small arrays, one after another
                            model.zip       and whatever else the caller writes
    <folder>/objects/ab/abcdef...           large arrays in chunks, which snapshots share

A chunk is durable before the record that names it, the record before the folder has its name, and that before
anything older is removed. One process at a time saves (:class:`~sb3_visual_td3.runs.run_lock.RunLock`).
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

from sb3_visual_td3.runs.durable_files import FileDigest, digest_of, sync_file, sync_folder, write_durably
from sb3_visual_td3.runs.object_store import ObjectStore, chunk_bytes_for, cut
from sb3_visual_td3.runs.snapshot import (
    RECORD_NAME,
    SMALL_ARRAYS_NAME,
    ArrayRecord,
    Health,
    Snapshot,
    SnapshotRecord,
    is_file_name,
    load_snapshot,
    read_record,
    rewrite_record,
    to_spare,
)
from sb3_visual_td3.runs.snapshot_error import NoSnapshotError, SnapshotError
from sb3_visual_td3.runs.state_tree import NamedArray, SplitTree, split

_NAME = re.compile(r"step_([0-9]{9,})")
_NEW, _OLD, _GONE = ".new-", ".old-", ".gone-"
_NUMBER = "~"
"""Stands before a number at the end of such a name, where the name itself is taken by what cannot be removed."""


class FoundSnapshot(NamedTuple):
    """A folder that should be a snapshot: with its record, or the reason why there is none."""

    step: int
    path: Path
    record: SnapshotRecord | None
    reason: str


def folder_name(step: int) -> str:
    """:return: of a snapshot"""
    return f"step_{step:09d}"


def find_snapshots(folder: Path) -> list[FoundSnapshot]:
    """:param folder: of all snapshots

    :return: what is there, by step; only the records are read
    :raises SnapshotError: if the folder cannot be read
    """
    try:
        names = {path.name for path in folder.iterdir()}
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise SnapshotError(f"{folder} cannot be read ({error.strerror})") from error
    found = []
    for name in names:
        bare = name.removeprefix(_OLD).partition(_NUMBER)[0] if name.startswith(_OLD) else name
        match = _NAME.fullmatch(bare)
        step = int(match[1]) if match is not None else -1
        if bare == folder_name(step) and (name == bare or bare not in names):
            found.append(_look_at(step, folder / name))
    return sorted(found, key=lambda snapshot: snapshot.step)


def begin_folder(folder: Path, step: int) -> Path:
    """Finish or undo what a killed writer had begun, and begin a snapshot.

    :param folder: of all snapshots, which is made if need be
    :param step: of the new one
    :return: an empty folder for its files
    :raises OSError: as the operating system says
    """
    folder.mkdir(parents=True, exist_ok=True)
    sync_folder(folder.parent)
    tidy(folder)
    begun = _free_name(folder / f"{_NEW}{folder_name(step)}")
    begun.mkdir()
    return begun


def publish(begun: Path) -> Path:
    """Give a finished folder its name: at no moment is there neither it nor the one it replaces.

    :param begun: from :func:`begin_folder`, synced
    :return: its path from now on
    :raises OSError: as the operating system says; :func:`tidy` brings the replaced one back then
    """
    folder, name = begun.parent, begun.name.removeprefix(_NEW).partition(_NUMBER)[0]
    final = folder / name
    if final.exists():
        os.rename(final, _free_name(folder / f"{_OLD}{name}"))
    os.rename(begun, final)
    sync_folder(folder)
    return final


def tidy(folder: Path) -> None:
    """Remove what a killed writer left, and bring back what it had put aside.

    What cannot be removed is left and told: it may belong to another user, or a network file system holds it open. It
    must not keep later snapshots from being taken.

    :param folder: of all snapshots
    :raises OSError: if what was put aside can neither be brought back nor removed
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
    """Do the same after an error, whose cause matters more than one met here; the next save tries again."""
    with suppress(OSError):
        tidy(folder)


def remove(snapshot: Path) -> None:
    """Remove a snapshot: it is gone at once, its bytes a little later.

    :param snapshot: its folder
    :raises OSError: as the operating system says
    """
    gone = _free_name(snapshot.with_name(f"{_GONE}{snapshot.name.removeprefix(_OLD).partition(_NUMBER)[0]}"))
    os.rename(snapshot, gone)
    _discard_or_leave(gone)


def _free_name(path: Path) -> Path:
    """:return: the path, numbered where something stands there that could not be removed"""
    names = (path.with_name(f"{path.name}{_NUMBER}{number}") for number in range(2, 1_000_000))
    return path if not os.path.lexists(path) else next(name for name in names if not os.path.lexists(name))


def _discard_or_leave(path: Path) -> None:
    try:
        _discard(path)
    except OSError as error:
        warnings.warn(f"{path} cannot be removed ({error}): it is left there, remove it by hand", stacklevel=2)


def _discard(path: Path) -> None:
    # What a user put there under such a name may be a file or a link.
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _look_at(step: int, path: Path) -> FoundSnapshot:
    try:
        if path.is_symlink():
            raise SnapshotError("it is a link: another run's snapshot may stand behind it")
        record = read_record(path)
        if record.step != step:
            raise SnapshotError(f"snapshot.json is of step {record.step}")
    except SnapshotError as error:
        return FoundSnapshot(step, path, None, f"{folder_name(step)}: {error}")
    return FoundSnapshot(step, path, record, "")


FileWriter = Callable[[Path], None]


class SavedSnapshot(NamedTuple):
    """What a save did: ``n_bytes_written`` are new on disk, ``n_bytes_total`` is what the snapshot consists of."""

    path: Path
    step: int
    n_bytes_written: int
    n_bytes_total: int
    seconds: float


class ListedSnapshot(NamedTuple):
    """A snapshot that is there; nobody has checked its parts."""

    step: int
    path: Path
    created: str
    health: Health | None = None


class SnapshotStore:
    """The snapshots in one folder.

    :param folder: made by the first ``save``
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
        """Put a state aside, then remove what is no longer needed.

        :param step: environment steps; a snapshot of the same step is replaced
        :param state: a tree as :class:`~sb3_visual_td3.common.types.HasState` describes it
        :param files: name to what writes that file at the path it is called with
        :param keep: how many snapshots stay, this one included, beside those of ``snapshot_health.to_spare``
        :param versions: package name to version, to be told by ``Snapshot.versions``
        :param health: of the training; None where nobody judges
        :return: what was written
        :raises ValueError: if the arguments are wrong, before anything is written; the message names the place
        :raises SnapshotError: if it cannot be written; what was begun is removed and earlier snapshots stay as they are
        """
        began, step = time.perf_counter(), int(step)
        _check_arguments(step, files, keep)
        tree = split(state)
        try:
            self._objects.begin()
            begun = begin_folder(self.folder, step)
            record, n_bytes_written = self._write(begun, step, tree, files, versions or {}, health)
            path = publish(begun)
        except BaseException as error:
            self._take_back()
            if isinstance(error, OSError | SnapshotError):
                raise SnapshotError(self._what_failed(step, tree, error)) from error
            raise
        try:
            self._prune(keep)
        except (OSError, SnapshotError) as error:
            warnings.warn(f"{self.folder}: older snapshots could not be removed ({error})", stacklevel=2)
        n_bytes_total = record.n_bytes + (path / RECORD_NAME).stat().st_size
        return SavedSnapshot(path, step, n_bytes_written, n_bytes_total, time.perf_counter() - began)

    def all(self) -> list[ListedSnapshot]:
        """:return: what is there, oldest first, unchecked; what can be no snapshot is left out"""
        return [
            ListedSnapshot(found.step, found.path, found.record.created, found.record.health)
            for found in _oldest_first(find_snapshots(self.folder))
            if found.record is not None
        ]

    def newest(self) -> Snapshot:
        """Load the one saved last among those that are good; every byte of it is checked.

        :return: that snapshot; ``skipped`` says what was wrong with newer ones
        :raises NoSnapshotError: if there is none
        :raises SnapshotError: if none is good; the message says why
        """
        found = find_snapshots(self.folder)
        skipped: list[str] = []
        for candidate in reversed(_oldest_first(found)):
            try:
                snapshot = self._load(candidate)
            except SnapshotError as error:
                skipped.append(str(error))
                continue
            # Without a record nobody knows which was saved later; a greater step is the best guess.
            unknown = [other.reason for other in found if other.record is None and other.step > candidate.step]
            return replace(snapshot, skipped=unknown + skipped)
        if not found:
            raise NoSnapshotError(f"{self.folder}: there is no snapshot")
        reasons = [other.reason for other in found if other.record is None] + skipped
        raise SnapshotError(f"{self.folder}: no snapshot is good: {'; '.join(reasons)}")

    def load(self, step: int) -> Snapshot:
        """Load one; every byte of it is checked.

        :param step: as saved
        :return: that snapshot
        :raises NoSnapshotError: if there is none of this step
        :raises SnapshotError: if it is damaged
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
        """Load the one saved last among those that are healthy, but for its large arrays, which are not checked.

        :param n_updates: gradient updates that it has made at most
        :return: that snapshot; None if there is none, or none that is good
        """
        for candidate in reversed(_oldest_first(find_snapshots(self.folder))):
            health = _health_of(candidate)
            if health is not None and health.is_healthy and health.n_updates <= n_updates:
                with suppress(SnapshotError):
                    return self._load(candidate, with_large_arrays=False)
        return None

    def mark_unhealthy(self, n_updates: int) -> None:
        """Note of snapshots that were taken for healthy that they are not.

        :param n_updates: those that have made more gradient updates
        :raises OSError: as the operating system says; those that it has not come to stay as they are
        """
        for found in find_snapshots(self.folder):
            health = _health_of(found)
            if found.record is not None and health is not None and health.is_healthy and health.n_updates > n_updates:
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
        begun: Path,
        step: int,
        tree: SplitTree,
        files: Mapping[str, FileWriter],
        versions: Mapping[str, str],
        health: Health | None,
    ) -> tuple[SnapshotRecord, int]:
        arrays, small, n_bytes_written = self._put_arrays(tree.arrays)
        self._objects.sync()
        write_durably(begun / SMALL_ARRAYS_NAME, _content(small))
        digests = {SMALL_ARRAYS_NAME: digest_of(begun / SMALL_ARRAYS_NAME)}
        digests.update({name: _written_by(write, begun / name) for name, write in files.items()})
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
        write_durably(begun / RECORD_NAME, [content])
        sync_folder(begun)
        n_bytes_written += sum(digest.n_bytes for digest in digests.values()) + len(content)
        return record_to_write, n_bytes_written

    def _put_arrays(self, named: Sequence[NamedArray]) -> tuple[list[ArrayRecord], list[NamedArray], int]:
        """:return: where each array is, those that are not in chunks, and how many bytes were written"""
        arrays: list[ArrayRecord] = []
        small: list[NamedArray] = []
        n_bytes_small = n_bytes_written = 0
        for place, array in named:
            record = ArrayRecord(place, array.dtype.str, array.shape, None, chunk_bytes_for(array.nbytes), ())
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
        known = _oldest_first(found)
        whole = [snapshot for snapshot in known if not self._is_damaged(snapshot)]
        kept = whole[-keep:]
        n_older = known.index(kept[0])
        spared = [whole[place] for place in to_spare([_health_of(snapshot) for snapshot in whole])]
        for old in known[:n_older]:
            if old not in spared:
                remove(old.path)
        # What cannot be read goes when it would have gone by its step. A newer one may be good after all (it may only
        # be locked away, or belong to a newer version), and nobody knows which chunks it needs: all stay.
        first_kept = min(snapshot.step for snapshot in kept)
        unknown = [other for other in found if other.record is None and (other.path / RECORD_NAME).exists()]
        for old in unknown:
            if old.step < first_kept:
                remove(old.path)
        if all(other.step < first_kept for other in unknown):
            self._objects.keep_only(_chunks_of([*spared, *known[n_older:]]))

    def _is_damaged(self, found: FoundSnapshot) -> bool:
        return found.record is None or found.record.serial in self._serials_of_damaged

    def _take_back(self) -> None:
        # Without a list of what is there nothing can be removed.
        with suppress(SnapshotError):
            tidy_if_possible(self.folder)
            self._objects.take_back(_chunks_of(find_snapshots(self.folder)))

    def _what_failed(self, step: int, tree: SplitTree, error: Exception) -> str:
        reason = str(error)
        last = "no earlier snapshot can be read"
        with suppress(OSError, SnapshotError):
            if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
                needed = sum(array.nbytes for _, array in tree.arrays)
                free = shutil.disk_usage(self.folder).free
                reason += f"; it needs up to {needed / 1e6:.1f} MB beside its files, {free / 1e6:.1f} MB are free"
            found = _oldest_first(find_snapshots(self.folder))
            good = [snapshot.step for snapshot in found if not self._is_damaged(snapshot)]
            last = f"the last good snapshot is step {good[-1]}" if good else "there is no earlier snapshot"
        return f"{self.folder / folder_name(step)}: the snapshot could not be written: {reason}; {last}"


def _check_arguments(step: int, files: Mapping[str, FileWriter], keep: int) -> None:
    if step < 0 or keep < 1:
        raise ValueError(f"step is {step} and keep is {keep}: expected step >= 0 and keep >= 1")
    for name in files:
        if not is_file_name(name) or name == SMALL_ARRAYS_NAME:
            raise ValueError(
                f"files has the name {name!r}: expected one of letters, digits, '_', '.', '-' and spaces, "
                f"without a folder, other than {RECORD_NAME} and {SMALL_ARRAYS_NAME}"
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
        # torch says RuntimeError where the disk is full.
        raise SnapshotError(f"{path.name}: {type(error).__name__}: {error}") from error
    if not path.is_file():
        raise SnapshotError(f"{path.name}: what was to write it wrote no file of this name")
    sync_file(path)
    return digest_of(path)


def _oldest_first(found: Sequence[FoundSnapshot]) -> list[FoundSnapshot]:
    known = [(snapshot.record.serial, snapshot) for snapshot in found if snapshot.record is not None]
    return [snapshot for _, snapshot in sorted(known, key=lambda pair: pair[0])]


def _health_of(found: FoundSnapshot) -> Health | None:
    return None if found.record is None else found.record.health


def _chunks_of(found: Sequence[FoundSnapshot]) -> set[str]:
    return {chunk for snapshot in found if snapshot.record is not None for chunk in snapshot.record.chunks}
