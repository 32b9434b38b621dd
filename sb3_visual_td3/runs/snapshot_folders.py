"""The folders of snapshots: which are whole, how one takes its place at once, what a killed writer leaves.

A snapshot is made in ``.new-step_000012000`` and takes its name with one rename. The one that
it replaces steps aside to ``.old-step_000012000`` for that moment, and counts while the name is free. ``.gone-...`` is
being removed.
"""

from __future__ import annotations

import os
import re
import shutil
import warnings
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from sb3_visual_td3.runs.durable_files import sync_folder
from sb3_visual_td3.runs.snapshot import read_record
from sb3_visual_td3.runs.snapshot_error import SnapshotError
from sb3_visual_td3.runs.snapshot_record import SnapshotRecord

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
