"""From event files to series: all points, all files of a run, whatever state they are in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sb3_visual_td3.diagnosis.series import Series, SeriesSet
from sb3_visual_td3.report.event_file import EventFile, OnBytes, Points


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
        earlier file's points from the first repeated step. Files whose clocks overlap are merged by step.

        :param is_growing: a half-written last record is not there yet, and nothing to note.
        :raises UnreadableRunError: if the files hold not a single scalar.
        """
        files = sorted(self._files.values(), key=lambda file: (file.first_wall_time, file.path.name))
        notes = [note for file in files for note in file.notes(is_growing)]
        merged, n_replaced, n_repeated = _merged(files)
        if not merged:
            raise UnreadableRunError(_why_empty(self.path, len(files), notes))
        if n_replaced:
            notes.append(
                f"{n_replaced:,} points of an earlier file were replaced by a later file that repeats their steps"
            )
        if n_repeated:
            notes.append(
                f"{n_repeated:,} points repeat steps of another file, and the clocks do not tell which file is the "
                "later one: all are kept"
            )
        n_points = sum(map(len, merged.values()))
        return RunData(self.path, SeriesSet(merged), tuple(file.path for file in files), n_points, tuple(notes))


def _merged(files: Sequence[EventFile]) -> tuple[dict[str, Series], int, int]:
    """Return the series of all files, how many points were replaced, and how many repeat others' steps."""
    merged: dict[str, Series] = {}
    n_replaced, n_repeated = 0, 0
    end = -math.inf
    for file in files:
        # A clock that says nothing (NaN, or always the same) does not make a file the later one.
        is_later = file.clock_is_known and file.first_wall_time > end
        for tag, points in file.points.items():
            new = _series(tag, points)
            old = merged.get(tag)
            if old is not None and is_later:
                kept = old.where(old.steps < new.steps[0])
                n_replaced += len(old) - len(kept)
                old = kept
            elif old is not None:
                n_repeated += int(np.isin(new.steps, old.steps).sum())
            merged[tag] = new if old is None else _joined(old, new)
        end = max(end, file.last_wall_time)
    return merged, n_replaced, n_repeated


def _series(tag: str, points: Points) -> Series:
    return Series(tag, np.array(points.steps, dtype=np.int64), np.array(points.values, dtype=np.float64))


def _joined(old: Series, new: Series) -> Series:
    return Series(old.name, np.concatenate([old.steps, new.steps]), np.concatenate([old.values, new.values]))


def _why_empty(path: Path, n_files: int, notes: Sequence[str]) -> str:
    reason = "; ".join(notes) if notes else "the event files hold no scalar"
    return f"{path}: nothing to judge in {n_files} event file{'s' if n_files != 1 else ''}: {reason}"
