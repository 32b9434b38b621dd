"""From event files to series: all points, all files of a run, whatever state they are in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sb3_visual_td3.diagnosis.series import Series, SeriesSet
from sb3_visual_td3.report.event_file import EventFile, OnBytes
from sb3_visual_td3.report.restarts import Track


class UnreadableRunError(ValueError):
    """There is nothing to judge here; the message is one line that says why."""


@dataclass(frozen=True)
class RunData:
    """Everything that the event files of one run say.

    :param path: the folder or the file that was asked for.
    :param n_points: scalar points kept.
    :param notes: what the reader had to leave out or to decide, in words.
    """

    path: Path
    series: SeriesSet
    files: tuple[Path, ...]
    n_points: int
    notes: tuple[str, ...] = ()


def read_run(path: Path, files: Sequence[Path], on_bytes: OnBytes | None = None) -> RunData:
    """Read the event files of one run, once.

    :param files: the run's event files.
    :raises UnreadableRunError: if they hold not a single scalar.
    :raises OSError: if one cannot be read.
    """
    reader = RunReader(path)
    reader.read_new(files, on_bytes)
    return reader.data()


class RunReader:
    """The event files of one run, which may grow, be cut back, come and go.

    :param path: the folder or the file that was asked for.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files: dict[Path, EventFile] = {}

    def read_new(self, files: Sequence[Path], on_bytes: OnBytes | None = None) -> bool:
        """Read what is new.

        :param files: the run's event files now.
        :return: whether the data are others than before.
        :raises OSError: if one cannot be read.
        """
        is_changed = any(self._files[gone].points for gone in self._files.keys() - set(files))
        self._files = {file: self._files.get(file) or EventFile(file) for file in files}
        for file in self._files.values():
            is_changed |= file.read_new(on_bytes)
        return is_changed

    def data(self, is_growing: bool = False) -> RunData:
        """Return the run so far.

        A later file of a resumed run repeats the steps from its checkpoint on: per tag, its points replace the
        earlier file's points from the first repeated step. Files whose clocks overlap are merged by step. Of several
        runs that were written into one file one after the other, the last is returned.

        :param is_growing: a half-written last record is not there yet, and nothing to note.
        :raises UnreadableRunError: if the files hold not a single scalar.
        """
        files = sorted(self._files.values(), key=lambda file: (file.first_wall_time, file.path.name))
        notes = [note for file in files for note in file.notes(is_growing)]
        merged, how = _merged(files)
        notes += how.restarts
        if not merged:
            raise UnreadableRunError(_why_empty(self.path, len(files), notes))
        notes += how.notes()
        n_points = sum(map(len, merged.values()))
        return RunData(self.path, SeriesSet(merged), tuple(file.path for file in files), n_points, tuple(notes))


@dataclass
class _Merging:
    """How the files of a run became one.

    :param n_replaced: points of an earlier file that a later one repeats.
    :param n_repeated: points that repeat steps of another file, where the clocks do not tell which is the later one.
    :param restarts: notes on files that hold more than one run, or one that was resumed.
    :param begun_again: names of later files that begin at the first step again.
    :param overlapping: names of files that cover the same steps as others of the same time.
    """

    n_replaced: int = 0
    n_repeated: int = 0
    restarts: list[str] = field(default_factory=list)
    begun_again: list[str] = field(default_factory=list)
    overlapping: list[str] = field(default_factory=list)

    def notes(self) -> list[str]:
        """Return what was done, and what the folder seems to hold, in words."""
        notes = []
        if self.n_replaced:
            notes.append(
                f"{self.n_replaced:,} points of an earlier file were replaced by a later file that repeats their steps"
            )
        if self.n_repeated:
            notes.append(
                f"{self.n_repeated:,} points repeat steps of another file, and the clocks do not tell which file is "
                "the later one: all are kept"
            )
        if self.begun_again:
            notes.append(
                f"several runs seem to lie in one folder: the steps begin again in {_named(self.begun_again)}. The "
                "last run is judged, with what only earlier ones logged: give each run a folder of its own"
            )
        if self.overlapping:
            notes.append(
                f"several runs seem to lie in one folder: {_named(self.overlapping)} covers the same steps as other "
                "files of the same time. They are judged together: give each run a folder of its own"
            )
        return notes


def _merged(files: Sequence[EventFile]) -> tuple[dict[str, Series], _Merging]:
    """Return the series of all files, and what was done to make them."""
    merged: dict[str, Series] = {}
    how = _Merging()
    end = -math.inf
    for file in files:
        # A clock that says nothing (NaN, or always the same) does not make a file the later one.
        is_later = file.clock_is_known and file.first_wall_time > end
        tracks, notes = file.last_run()
        how.restarts += notes
        n_shared, n_begun_again, n_overlapping = 0, 0, 0
        for tag, track in tracks.items():
            new = _series(tag, track)
            old = merged.get(tag)
            if old is not None:
                n_shared += 1
                n_begun_again += bool(new.steps[0] <= old.steps[0] < old.steps[-1])
                n_overlapping += bool(new.steps[0] < old.steps[-1] and old.steps[0] < new.steps[-1])
            if old is not None and is_later:
                kept = old.where(old.steps < new.steps[0])
                how.n_replaced += len(old) - len(kept)
                old = kept
            elif old is not None:
                how.n_repeated += int(np.isin(new.steps, old.steps).sum())
            merged[tag] = new if old is None else _joined(old, new)
        if is_later and 2 * n_begun_again > n_shared:
            how.begun_again.append(file.path.name)
        elif not is_later and 2 * n_overlapping > n_shared:
            how.overlapping.append(file.path.name)
        end = max(end, file.last_wall_time)
    return merged, how


def _named(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _series(tag: str, track: Track) -> Series:
    return Series(tag, track.steps, track.values)


def _joined(old: Series, new: Series) -> Series:
    return Series(old.name, np.concatenate([old.steps, new.steps]), np.concatenate([old.values, new.values]))


def _why_empty(path: Path, n_files: int, notes: Sequence[str]) -> str:
    reason = "; ".join(notes) if notes else "the event files hold no scalar"
    return f"{path}: nothing to judge in {n_files} event file{'s' if n_files != 1 else ''}: {reason}"
