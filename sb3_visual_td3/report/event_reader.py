"""Combine the files of a run into one set of series, and separate several runs in one folder.

A folder may hold several files of one run. A folder or a file may also hold several runs. Notes in the report say which
points were left out.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sb3_visual_td3.common.tags import is_on_episodes, is_on_steps
from sb3_visual_td3.diagnosis.numerals import counted
from sb3_visual_td3.diagnosis.series import MAX_STEP, BoolArray, Series, SeriesSet
from sb3_visual_td3.diagnosis.tag_search import is_on_environment_steps
from sb3_visual_td3.report.event_file import EVENT_FILE_MARK, EventFile, OnBytes, Track
from sb3_visual_td3.report.monitor_file import MONITOR_END, read_monitors
from sb3_visual_td3.report.run_axis import SAME_AXIS, at_own_steps, axis_of, positions_on_axis, span
from sb3_visual_td3.report.table_file import (
    ENVIRONMENT_STEPS,
    EVALUATIONS,
    PROGRESS,
    STEPS,
    StepRange,
    TableFile,
    is_evaluation,
    is_sb3_table,
    is_table,
)

NEW_RUN_FRACTION = 0.05
"""If the steps go back into the first 5 % of the previous run, a new run begins. Otherwise the run was resumed."""
MAX_RESTARTS = 20
"""If the steps go back more often than this, the points of the file are judged as one run, ordered by step."""
MIN_POINTS_FOR_INTERVAL = 4
"""The usual interval between the points of a tag is computed only if the tag has at least this many points."""
_MAX_DECREASES = 200
"""A tag whose steps go back more often than this is not used to find restarts of the run."""
_MAX_NAMED = 3


class _Decrease(NamedTuple):
    """Describe a place in a file at which the step of a tag decreases from one point to the next.

    :ivar after: number of the record with the last point before the decrease
    :ivar up_to: number of the record with the first point after the decrease
    """

    after: int
    up_to: int
    tag: str


class InFile(NamedTuple):
    """Hold what one event file contains of one run: its points, and a note for each place where the steps go back."""

    tracks: Mapping[str, Track]
    notes: list[str]


def runs_in_file(tracks: Mapping[str, Track], name: str) -> list[InFile]:
    """Return the runs in a file, in the order of the file.

    If the steps of most tags go back to the start of the run, a new run begins. If they go back only a part of the way,
    such as from 1,000 to 800, the run was resumed: from step 800 on, the new points replace the old points.

    :param tracks: the points by tag
    :param name: name of the file, for the notes
    """
    decreases = sorted(one for tag, track in tracks.items() for one in _decreases(tag, track))
    if not decreases:
        return [InFile(tracks, [])]
    # At a restart, most tags go back. Single tags may also go back without a restart, such as an episode counter that
    # starts again.
    found, single_tags = _restarts(decreases, tracks)
    if len(found) > MAX_RESTARTS:
        note = (
            f"{name}: the steps go back {len(found):,} times, so several runs seem to write into this file at the same "
            "time. Their points are judged together, ordered by step. To have them judged separately, "
            "log each run to its own folder"
        )
        return [InFile(tracks, [note])]
    # Each restart, from the first to the last, removes some of the points that remain after the earlier restarts.
    runs: list[InFile] = []
    notes: list[str] = []
    for record in found:
        left, begins, is_new_run = _around_restart(tracks, record)
        n_before = sum(len(track.order) for track in tracks.values())
        if is_new_run:
            before = {tag: track.where(track.order < record) for tag, track in tracks.items()}
            runs.append(InFile(_with_points(before), notes))
            tracks = _with_points({tag: track.where(track.order >= record) for tag, track in tracks.items()})
            notes = [
                f"{name} holds {len(runs) + 1} runs, one after the other: its steps go back from {left:,} to "
                f"{begins:,}. This run is judged from step {begins:,} on, without the earlier points of the file"
            ]
        else:
            tracks = _with_points(
                {tag: _without_old_points(tag, track, record, begins) for tag, track in tracks.items()}
            )
            n_replaced = n_before - sum(len(track.order) for track in tracks.values())
            notes.append(
                f"{name}: the run was resumed from a checkpoint: its steps go back from {left:,} to {begins:,}. "
                f"{n_replaced:,} old points were left out, because the resumed run replaces them"
            )
    names = sorted(tag for tag in single_tags if tag in tracks and (np.diff(tracks[tag].steps) < 0).any())
    if names:
        more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
        notes.append(
            f"{name}: the steps of {', '.join(names[:_MAX_NAMED])}{more} go back while other tags continue. All points "
            "of these tags are kept, ordered by step"
        )
    return [*runs, InFile(tracks, notes)]


def _decreases(tag: str, track: Track) -> Iterator[_Decrease]:
    """Yield each place at which a tag's step decreases, if the tag then logs several earlier steps again.

    The steps 100, 200, 300, 200, 300, 400 have one such place: 200 and 300 are logged again. The steps 100, 300, 200,
    400 have no such place, because only one point is out of order.
    """
    steps = track.steps
    places = np.flatnonzero(np.diff(steps) < 0) + 1
    if not 0 < places.size <= _MAX_DECREASES:
        return
    begin = 0
    for at in places.tolist():
        before, after = steps[begin:at], steps[at:]
        # After a restart, at least two of the earlier steps lie at or after the new step: these steps are repeated. In
        # addition, one of two conditions holds. Either the new points up to the largest earlier step are at least half
        # as many as the repeated steps, or the resumed run has not yet passed the largest earlier step.
        top = before.max()
        n_repeated = np.unique(before[before >= steps[at]]).size
        n_again = int((after <= top).sum())
        is_covered_again = n_again >= max(2, n_repeated / 2)
        is_still_behind = bool(after.max() <= top) and n_repeated > 2
        if n_repeated >= 2 and (is_covered_again or is_still_behind):
            begin = at
            yield _Decrease(int(track.order[at - 1]), int(track.order[at]), tag)


def _restarts(decreases: list[_Decrease], tracks: Mapping[str, Track]) -> tuple[list[int], set[str]]:
    """Return the records at which a run was restarted, and the tags whose steps go back without a restart."""
    records: list[int] = []
    of_record: list[list[_Decrease]] = []
    # Tags are logged at different records, so one restart appears as decreases at slightly different records. Decreases
    # whose ranges of records overlap belong to the same restart.
    for decrease in sorted(decreases, key=lambda each: each.up_to):
        if records and decrease.after < records[-1]:
            of_record[-1].append(decrease)
        else:
            records.append(decrease.up_to)
            of_record.append([decrease])
    found: list[int] = []
    single_tags: set[str] = set()
    for record, group in zip(records, of_record, strict=True):
        # The majority of the tags with points before and after the restart decides, so a single unusual tag cannot
        # split a run.
        votes = _votes(tracks, record)
        if 2 * sum(votes) > len(votes):
            found.append(record)
        else:
            single_tags.update(decrease.tag for decrease in group)
    return found, single_tags


def _votes(tracks: Mapping[str, Track], record: int) -> list[bool]:
    """Return one vote of each tag on whether the run was restarted at a record.

    The vote is True if the tag's step decreases between its last point before the record and its first point at or
    after the record. A tag without one of these two points has no vote. Tags that count episodes vote only if no other
    tag has points before the record.
    """
    votes = {tag: track.goes_back_at(record) for tag, track in tracks.items()}
    known = {tag: vote for tag, vote in votes.items() if vote is not None}
    if any(not is_on_episodes(tag) and track.order[0] < record for tag, track in tracks.items()):
        return [vote for tag, vote in known.items() if not is_on_episodes(tag)]
    return list(known.values())


def _around_restart(tracks: Mapping[str, Track], record: int) -> tuple[int, int, bool]:
    """Return the last step before a restart, the first step after it, and whether a new run begins there."""
    both = {tag: track for tag, track in tracks.items() if track.goes_back_at(record) is not None}
    chosen = [track for tag, track in both.items() if not is_on_episodes(tag)] or list(both.values())
    before = np.concatenate([track.steps[track.order < record] for track in chosen])
    after = np.array([track.steps[np.searchsorted(track.order, record)] for track in chosen])
    # A new run starts within the first 5 % of the steps of the previous run; a checkpoint is rarely that early.
    first, left, begins = int(before.min()), int(before.max()), int(after.min())
    return left, begins, begins - first <= NEW_RUN_FRACTION * (left - first)


def _without_old_points(tag: str, track: Track, record: int, begins: int) -> Track:
    """Return the points of a tag without the old points that a resumed run replaces.

    :param record: number of the first record of the resumed run
    :param begins: step at which the run was resumed
    """
    is_later = track.order >= record
    cuts = []
    if is_later.any():
        cuts.append(int(track.steps[is_later][0]))
    # For a known tag on environment steps, the old points at or after the step ``begins`` are removed, even if the
    # first new point of the tag comes later. For any other tag, such as a tag on episodes, the old points at or after
    # its own first new point are removed.
    if is_on_steps(tag):
        cuts.append(begins)
    if not cuts:
        return track
    return track.where(is_later | (track.steps < min(cuts)))


def _with_points(tracks: Mapping[str, Track]) -> dict[str, Track]:
    return {tag: track for tag, track in tracks.items() if len(track.order)}


class UnreadableRunError(ValueError):
    """Report that a path holds nothing to judge. The message says why, in one line."""


@dataclass(frozen=True)
class RunData:
    """Hold the points of one run, from all of its files, and notes on how they were read.

    :param path: the requested folder or file
    :param series: all scalars, by tag
    :param files: the event files in the order of their wall-clock times, then the event files in subfolders, then the
        tables, such as progress.csv
    :param n_points: number of scalar points
    :param notes: remarks on the reader's decisions
    :param axis: unit of the run's x-axis, such as "episodes"; "steps" if unknown
    :param number: number of this run in its folder, from 1
    :param n_runs: number of runs in its folder
    :param positions: a series for each tag whose steps are not on the run's x-axis, for example because they have
        another unit. The steps of the series are the tag's steps, and its values are the positions on the run's x-axis
    """

    path: Path
    series: SeriesSet
    files: tuple[Path, ...]
    n_points: int
    notes: tuple[str, ...] = ()
    axis: str = ENVIRONMENT_STEPS
    number: int = 1
    n_runs: int = 1
    positions: Mapping[str, Series] = field(default_factory=dict)

    @property
    def span(self) -> tuple[int, int]:
        """Return the first and the last step of the run on its x-axis."""
        return span(self.series.series, self.positions)

    def until(self, step: int) -> RunData:
        """Return the part of the run up to a step.

        :param step: a step on the run's x-axis, included
        :return: the run up to the step; the run itself if it has no later point
        """
        kept: dict[str, Series] = {}
        positions: dict[str, Series] = {}
        for name, series in self.series.series.items():
            if name in self.positions:
                is_before = self.positions[name].values <= step
                part = series.where(is_before)
                positions[name] = self.positions[name].where(is_before)
            else:
                part = series.until(step)
            if len(part):
                kept[name] = part
        n_points = sum(map(len, kept.values()))
        if n_points == sum(map(len, self.series.series.values())):
            return self
        until, axis = replace(self.series, series=kept), self.axis
        # The axis may follow from the spacing of the points, so it is determined again from the points that are left.
        if axis == axis_of(self.series):
            axis = axis_of(until)
        return replace(self, series=until, n_points=n_points, axis=axis, positions=positions)


def read_run(path: Path, files: Sequence[Path], on_bytes: OnBytes | None = None) -> RunData:
    """Read the files of a folder once, and return the last run that they hold.

    Runs that were trained at the same time count as one run.

    :param path: the requested folder or file
    :param files: the files of the folder
    :param on_bytes: function called after each batch of records of an event file, with the number of bytes of the
        batch
    :raises UnreadableRunError: if the files hold no scalar
    :raises OSError: if a file cannot be read
    """
    reader = RunReader(path)
    reader.read_new(files, on_bytes)
    return reader.data()


def read_runs(path: Path, files: Sequence[Path], on_bytes: OnBytes | None = None) -> tuple[RunData, ...]:
    """Read the files of a folder once, and return every run that they hold, in the order in which the runs began.

    :param path: the requested folder or file
    :param files: the files of the folder
    :param on_bytes: function called after each batch of records of an event file, with the number of bytes of the
        batch
    :raises UnreadableRunError: if the files hold no scalar
    :raises OSError: if a file cannot be read
    """
    reader = RunReader(path)
    reader.read_new(files, on_bytes)
    return reader.runs()


class RunReader:
    """Read the files of one folder repeatedly. Between two reads, files may grow, shrink, appear or vanish.

    :param path: the requested folder or file
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files: dict[Path, EventFile] = {}
        self._tables: dict[Path, TableFile] = {}

    def read_new(self, files: Sequence[Path], on_bytes: OnBytes | None = None) -> bool:
        """Read the points that are new since the last call.

        :param files: the files that the run has now
        :param on_bytes: function called after each batch of records of an event file, with the number of bytes of the
            batch
        :return: whether the data have changed
        :raises OSError: if a file cannot be read
        """
        # A file that vanished changes the data if it contained points.
        is_changed = any(self._files[gone].points for gone in self._files.keys() - set(files))
        is_changed |= any(self._tables[gone].table.series for gone in self._tables.keys() - set(files))
        tables = [file for file in files if is_table(file) and EVENT_FILE_MARK not in file.name]
        self._files = {file: self._files.get(file) or EventFile(file) for file in files if file not in tables}
        self._tables = {file: self._tables.get(file) or TableFile(file) for file in tables}
        for file in self._files.values():
            is_changed |= file.read_new(on_bytes)
        for table in self._tables.values():
            is_changed |= table.read_new()
        return is_changed

    def data(self, is_growing: bool = False) -> RunData:
        """Return the last run that the files hold, with all points that have been read so far.

        Runs that were trained at the same time count as one run.

        :param is_growing: whether the files are still being written; an incomplete last record then gets no note
        :raises UnreadableRunError: if the files hold no scalar
        """
        return self._combined(is_growing, are_apart=False)[-1]

    def runs(self, is_growing: bool = False) -> tuple[RunData, ...]:
        """Return every run that the files hold, in the order of the wall-clock times at which the runs began.

        A file is later if its wall-clock times come after those of all previous runs. A later file starts a new run if
        its steps begin at the start of training again. Any other file starts a new run if its steps overlap with those
        of the previous run. A file that starts no new run continues the previous run.

        :param is_growing: whether the files are still being written; an incomplete last record then gets no note
        :raises UnreadableRunError: if the files hold no scalar
        """
        return self._combined(is_growing, are_apart=True)

    def _combined(self, is_growing: bool, *, are_apart: bool) -> tuple[RunData, ...]:
        # Files are sorted by the earliest wall-clock time in them, because their names may have another order. Files
        # with the same time are sorted by name. Files in subfolders come last, because they belong to the run and never
        # begin a new run.
        files = sorted(self._files.values(), key=lambda f: (self._is_below(f), f.first_wall_time, f.path.name))
        notes = [note for file in files for note in file.notes(is_growing)]
        notes += [note for table in self._tables.values() for note in table.notes(is_growing)]
        runs: list[_Run] = []
        below: dict[str, list[EventFile]] = {}
        for file in files:
            if self._is_below(file):
                below.setdefault(file.path.parent.relative_to(self.path).as_posix(), []).append(file)
            else:
                _add_file(runs, file, are_apart=are_apart)
        for inside, parts in below.items():
            _add_subfolder(runs, parts, inside)
        self._add_tables(runs)
        runs = [run for run in runs if run.series]
        if not runs:
            raise UnreadableRunError(_why_empty(self.path, len(files), len(self._tables), notes))
        every = tuple(file.path for file in files)
        if not are_apart:
            last = runs[-1]
            if len(runs) > 1 and last.files[0] != runs[-2].files[-1]:
                last.notes_at_end.append(
                    f"the folder seems to hold several runs: the steps start again in {last.files[0].name}. Only the "
                    "last run is judged. To have every run judged, log each to its own folder"
                )
            return (last.data(self.path, 1, 1, every, notes),)
        return tuple(
            run.data(self.path, number, len(runs), every, notes if number == len(runs) else [])
            for number, run in enumerate(runs, start=1)
        )

    def _is_below(self, file: EventFile) -> bool:
        return file.path.parent != self.path and self.path in file.path.parents

    def _add_tables(self, runs: list[_Run]) -> None:
        """Add tags that are only in tables, such as progress.csv, to the last run.

        Without event files, the tables form a run.
        """
        for *earlier, table in self._runs_in_tables():
            if not runs:
                runs += [*earlier, _Run(axis=table.axis)]
            run, name, series = runs[-1], table.files[0].name, table.series
            # Without this check, points at episodes would be judged as if they were at environment steps.
            if run.series and not self._is_same_axis(run, table):
                run.notes.append(
                    f"{name} was left out: its x-axis counts {table.axis_unit()}, but the x-axis of the other files "
                    f"counts {run.axis_unit()}"
                )
                continue
            is_of_sb3 = is_sb3_table(name)
            if is_evaluation(table.files[0].stem) and not is_of_sb3 and not self._files:
                series = {each.name: each for each in _of_evaluations(series.values(), run.series)}
            added = {tag: each for tag, each in series.items() if tag not in run.series}
            if not is_of_sb3 and not self._files:
                added |= run.continued(series)
            run.series |= added
            if added:
                if run.axis == STEPS and table.axis is not None:
                    run.axis = table.axis
                run.files += table.files
                run.notes += table.notes
            elif not is_of_sb3:
                run.notes.append(f"{name} was left out: other files of the run hold {_named(sorted(series))} too")

    def _is_same_axis(self, run: _Run, table: _Run) -> bool:
        """Return whether the x-axis of a table has the same unit as that of a run that has points."""
        # Files that do not state their unit have steps as in event files, so their tags show their units.
        if run.axis is None and table.axis is None:
            return True
        units = run.axis_unit(), table.axis_unit()
        if units[0] == units[1] or self._files or STEPS not in units:
            return units[0] == units[1]
        # A column with the plain name "step" may count anything. If one file counts much further, the units differ.
        ends = [span(each.series, ())[1] for each in (run, table)]
        return max(ends) <= SAME_AXIS * min(ends)

    def _runs_in_tables(self) -> Iterator[list[_Run]]:
        """Yield the runs that each table holds, in their order. All monitor files count as one table."""
        # progress.csv comes first, because it holds the same values as SB3's event files. A table of evaluations comes
        # last, because its columns may have the names of the training's columns.
        order = {PROGRESS: 0, EVALUATIONS: 1}
        tables = sorted(
            (table for table in self._tables.values() if table.table.series),
            key=lambda t: (order.get(t.path.name, 2), is_evaluation(t.path.stem), t.path.name),
        )
        monitors = [table.path for table in tables if table.path.name.endswith(MONITOR_END)]
        training = _of_training(monitors)
        together, monitor_notes = read_monitors(training) if len(training) > 1 else ({}, ())
        for file, table in ((each.path, each.table) for each in tables):
            if file in monitors and (file not in training or (together and file != training[0])):
                continue
            parts = [_Run(dict(table.series), [file], axis=table.axis)]
            if table.tracks:
                found = runs_in_file(table.tracks, file.name)
                parts = [_Run(_series_of(tracks), [file], notes, axis=table.axis) for tracks, notes in found]
            elif together and file in training:
                parts = [_Run(together, training, list(monitor_notes), axis=table.axis)]
            if file in training[:1]:
                left_out = [os.path.relpath(path, file.parent) for path in monitors if path not in training]
                parts[-1].notes += [
                    f"{name} was left out: its name says that its episodes are evaluations, so its steps are not steps "
                    "of the training"
                    for name in left_out
                ]
            yield parts


def _of_training(monitors: Sequence[Path]) -> list[Path]:
    """Return the monitor files whose path does not name an evaluation; all files if each path names one."""
    if not monitors:
        return []
    # The name of the folder that holds all files says nothing about single files.
    base = Path(os.path.commonpath([path.parent for path in monitors]))
    training = [path for path in monitors if not is_evaluation(str(path.relative_to(base)))]
    return training or list(monitors)


def _of_evaluations(series: Iterable[Series], others: Mapping[str, Series]) -> Iterator[Series]:
    """Yield the columns of a table of evaluations; a name that another file of the run uses gets the prefix eval/."""
    for each in series:
        is_unclear = each.name in others and not is_evaluation(each.name)
        yield replace(each, name=f"eval/{each.name}") if is_unclear else each


@dataclass
class _Run:
    """Collect the points of one run while its files are combined.

    :param end: wall time of the last point in seconds
    :param axis: unit of the x-axis, if the run consists only of tables that state it, such as progress.csv; None for a
        run with event files
    :param final: tags with a single point in a subfolder, such as the final values of ``add_hparams``
    :param n_replaced: number of points that were left out, because a later file logs their steps again
    :param n_repeated: number of points whose steps occur in another file too. These points are kept, because it is not
        known which file is later.
    """

    series: dict[str, Series] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    notes_at_end: list[str] = field(default_factory=list)
    end: float = -math.inf
    axis: str | None = None
    positions: dict[str, Series] = field(default_factory=dict)
    final: set[str] = field(default_factory=set)
    n_replaced: int = 0
    n_repeated: int = 0

    def axis_unit(self) -> str:
        """Return the unit of the run's x-axis, such as "episodes"; "steps" if the unit is not known."""
        return self.axis or axis_of(SeriesSet(self.series))

    def replace_old_points(self, tag: str, is_kept: BoolArray) -> None:
        """Leave out the old points of a tag that a later file replaces.

        :param is_kept: ``(n,) bool``, False for each point that is left out
        """
        self.n_replaced += int((~is_kept).sum())
        kept = self.series.pop(tag).where(is_kept)
        positions = self.positions.pop(tag, None)
        if len(kept):
            self.series[tag] = kept
            if positions is not None:
                self.positions[tag] = positions.where(is_kept)

    def continued(self, new: Mapping[str, Series]) -> dict[str, Series]:
        """Join the series of the run with those of a table that continues it, or that it continues.

        :param new: the series of the table
        :return: the joined series. If only one of the two continues the other, its points count from its first step on
        """
        shared = [tag for tag in new if tag in self.series]
        if not shared:
            return {}
        replaced: Mapping[str, Series]
        old = {tag: self.series[tag] for tag in shared}
        here, there = (StepRange.of(np.concatenate([each[tag].steps for tag in shared])) for each in (old, new))
        if there.continues(here):
            kept = {tag: each.where(each.steps < there.first) for tag, each in old.items()}
            replaced, joined = old, {tag: _joined(kept[tag], new[tag]) for tag in shared}
        elif here.continues(there):
            kept = {tag: new[tag].where(new[tag].steps < here.first) for tag in shared}
            replaced, joined = new, {tag: _joined(kept[tag], old[tag]) for tag in shared}
        else:
            return {
                tag: _joined(each, new[tag])
                for tag, each in old.items()
                if not ((each.steps >= new[tag].steps[0]) & (each.steps <= new[tag].steps[-1])).any()
            }
        self.n_replaced += sum(len(replaced[tag]) - len(kept[tag]) for tag in shared)
        return joined

    def _all_positions(self) -> dict[str, Series]:
        """Return the value of ``RunData.positions``; the tags in ``self.final`` are at the run's last step."""
        _, last = span(self.series, self.positions.keys() | self.final)
        final = {name: self.series[name] for name in sorted(self.final)}
        at_end = {name: Series(name, each.steps, np.full(len(each), float(last))) for name, each in final.items()}
        return {**self.positions, **at_end}

    def data(self, path: Path, number: int, n_runs: int, every: tuple[Path, ...], notes: Sequence[str]) -> RunData:
        """Return the run in the form that the report reads.

        :param every: all event files of the folder, including files without points
        """
        lines = [*notes, *self.notes]
        if self.n_replaced:
            lines.append(
                f"{self.n_replaced:,} old points of an earlier file were left out, because a later file logs the same "
                "steps again"
            )
        if self.n_repeated:
            lines.append(
                f"{self.n_repeated:,} points repeat steps of another file. The wall-clock times do not show which file "
                "is later, so all points are kept"
            )
        lines += self.notes_at_end
        files = tuple(dict.fromkeys(self.files))
        if n_runs > 1:
            lines.append(
                f"the folder holds several runs, and each is judged separately: this is run {number} of {n_runs}, from "
                f"{_named([file.name for file in files])}. Give each run its own folder"
            )
        else:
            files = tuple(dict.fromkeys([*every, *files]))
        n_points = sum(map(len, self.series.values()))
        return RunData(
            path,
            SeriesSet(self.series, counts_environment_steps=True if self.axis == ENVIRONMENT_STEPS else None),
            files,
            n_points,
            tuple(lines),
            self.axis_unit(),
            number,
            n_runs,
            self._all_positions(),
        )


def _add_file(runs: list[_Run], file: EventFile, *, are_apart: bool) -> None:
    """Add the points of one event file to the run that they belong to.

    A file that continues a run is merged tag by tag. If the file's wall-clock times are later than those of all runs,
    the new points of a tag replace the old points at and after the first new step. Otherwise, all points are kept.

    :param are_apart: whether runs that were trained at the same time are kept separate
    """
    tracks: Mapping[str, Track] = file.tracks()
    if not tracks:
        return
    parts = [InFile(tracks, [])]
    if file.steps_go_back:
        parts = runs_in_file(tracks, file.path.name)
    for number, (part, notes) in enumerate(parts):
        new = _series_of(part)
        # A file is later than the runs so far if its first wall-clock time comes after their last wall-clock time. A
        # file with missing or constant wall-clock times does not count as later.
        is_later = file.clock_is_known and all(file.first_wall_time > run.end for run in runs)
        is_another = number > 0 or (bool(runs) and _is_another_run(runs[-1].series, new, is_later=is_later))
        is_beside = is_another and number == 0 and not is_later
        if not runs or (is_another and (are_apart or not is_beside)):
            positions = positions_on_axis(part)
            runs.append(_Run(new, [file.path], notes, end=file.last_wall_time, positions=positions))
            continue
        run = runs[-1]
        if is_beside:
            run.notes_at_end.append(
                f"the folder seems to hold several runs: {file.path.name} covers the same steps as other files at the "
                "same time. They are judged together. To have them judged separately, log each run to its own folder"
            )
        run.files.append(file.path)
        run.notes += notes
        run.end = max(run.end, file.last_wall_time)
        added = _continued(run, part, file.path.name) if is_later else part
        positions = positions_on_axis(added)
        for tag, series in _series_of(added).items():
            old = run.series.get(tag)
            if old is None:
                run.series[tag] = series
                if tag in positions:
                    run.positions[tag] = positions[tag]
                continue
            if not is_later:
                run.n_repeated += int(np.isin(series.steps, old.steps).sum())
            run.series[tag] = _joined(old, series)
            if tag in positions or tag in run.positions:
                before = run.positions.get(tag) or at_own_steps(old)
                after = positions.get(tag) or at_own_steps(series)
                run.positions[tag] = _joined(before, after)


def _series_of(tracks: Mapping[str, Track]) -> dict[str, Series]:
    return {tag: Series(tag, track.steps, track.values) for tag, track in tracks.items()}


def _is_another_run(old: Mapping[str, Series], new: Mapping[str, Series], *, is_later: bool) -> bool:
    """Return whether a file starts a new run, and does not continue the previous run.

    A file with later wall-clock times (``is_later``) starts a new run if its steps begin at the start of training
    again. Any other file starts a new run if its steps overlap with those of the previous run.
    """
    shared = [tag for tag in new if tag in old]
    # If some tags count steps, only these tags decide, because a run that continues may count its episodes from 0
    # again.
    shared = [tag for tag in shared if not is_on_episodes(tag)] or shared
    if not shared:
        return False
    votes = 0
    for tag in shared:
        if is_later:
            votes += _starts_again(old[tag], new[tag])
        else:
            first, last = int(old[tag].steps[0]), int(old[tag].steps[-1])
            votes += int(new[tag].steps[0]) < last and first < int(new[tag].steps[-1])
    return 2 * votes > len(shared)


def _starts_again(old: Series, new: Series) -> bool:
    """Return whether a tag's steps begin at the start of training (a new run), and not at a checkpoint (a resumed run).

    :param old: the tag's points in the last run before this file
    :param new: the tag's points in this file
    """
    first, last, begins = int(old.steps[0]), int(old.steps[-1]), int(new.steps[0])
    if begins > last:
        return False
    if begins - first <= NEW_RUN_FRACTION * (last - first):
        return True
    # In a short run, the interval between two points may be longer than the first 5 % of the run. A new run logs its
    # first point about one interval after step 0. A resumed run logs its first point about one interval after its
    # checkpoint.
    if len(new) < MIN_POINTS_FOR_INTERVAL:
        return False
    return begins <= 1.5 * float(np.median(np.diff(new.offsets)))


def _continued(run: _Run, tracks: Mapping[str, Track], name: str) -> dict[str, Track]:
    """Leave out the old points of a run that a later file replaces, and return the points of this file.

    The steps of a tag may start again although the run continues, for example the episode numbers of a resumed run.
    Such a tag keeps its old points, and the steps of its returned points continue after them.

    :param tracks: the points of the later file, by tag
    :param name: name of the later file, for the notes
    """
    new = _series_of(tracks)
    begins = {tag: int(new[tag].steps[0]) for tag in new if tag in run.series}
    at_checkpoint = {tag for tag in begins if not _starts_again(run.series[tag], new[tag])}
    resumed_at = min((begins[tag] for tag in at_checkpoint), default=0)
    restarted: dict[str, int] = {}
    for tag in begins.keys() - at_checkpoint:
        n_before = int(run.series[tag].steps[-1]) + 1 - begins[tag]
        # A tag that was first logged late in the run seems to start again, too. It begins near the checkpoint.
        is_far_back = 0 <= 2 * begins[tag] < resumed_at
        if is_far_back and not is_on_steps(tag) and int(new[tag].steps[-1]) + n_before < MAX_STEP:
            restarted[tag] = n_before
    cut_at = _checkpoint_of(run.series, begins, at_checkpoint)
    for tag, old in list(run.series.items()):
        cuts = [begins[tag]] if tag in begins else []
        if cut_at is not None and is_on_environment_steps(tag):
            cuts.append(cut_at)
        if cuts and tag not in restarted:
            run.replace_old_points(tag, old.steps < min(cuts))
    if restarted:
        more = f" and {len(restarted) - _MAX_NAMED} more" if len(restarted) > _MAX_NAMED else ""
        run.notes.append(
            f"{name}: {', '.join(sorted(restarted)[:_MAX_NAMED])}{more} count from the start again, although the run "
            "continues. Their new points are placed after the old points"
        )
    return {tag: replace(track, steps=track.steps + restarted.get(tag, 0)) for tag, track in tracks.items()}


def _checkpoint_of(old: Mapping[str, Series], begins: Mapping[str, int], at_checkpoint: set[str]) -> int | None:
    """Return the first environment step of a resumed run; None if the later file does not show it clearly.

    From this step on, the caller drops the old points of all tags on environment steps. This includes tags that the
    later file does not hold yet.

    :param begins: first step in the later file, for each tag that the run has too
    :param at_checkpoint: the tags of ``begins`` that do not count from the start again
    """
    known = {tag for tag in old if is_on_environment_steps(tag)}
    firsts = [begins[tag] for tag in known & at_checkpoint]
    # A file with only a few of the tags may be a later evaluation of the same policies.
    if not firsts or 2 * len(known & begins.keys()) < len(known):
        return None
    # If the first steps differ by more than this factor, some of these tags are not on environment steps: other
    # programs may use the same names with another unit.
    return min(firsts) if max(firsts) <= SAME_AXIS * min(firsts) else None


def _add_subfolder(runs: list[_Run], files: Sequence[EventFile], inside: str) -> None:
    """Add the event files in a subfolder to the last run; PyTorch's ``add_scalars`` writes such files.

    A tag that the run already has is not replaced.

    :param files: the event files of the subfolder, in the order of their wall-clock times
    :param inside: path of the subfolder in the run's folder
    """
    # If the run was resumed, each session has a file in the subfolder.
    parts: list[_Run] = []
    for file in files:
        _add_file(parts, file, are_apart=False)
    if not parts:
        return
    if not runs:
        runs.append(_Run())
    run, part = runs[-1], parts[-1]
    run.notes += part.notes
    run.notes_at_end += part.notes_at_end
    run.n_replaced += part.n_replaced
    run.n_repeated += part.n_repeated
    for tag, series in part.series.items():
        name = tag
        # add_scalars("loss", {"critic": 1.0}) writes the tag "loss" into the folder "loss_critic".
        prefix = f"{tag.replace('/', '_')}_"
        if inside.startswith(prefix):
            name = f"{tag}/{inside.removeprefix(prefix)}"
        if name not in run.series:
            run.series[name] = replace(series, name=name)
            run.files += part.files
            if len(series) == 1:
                run.final.add(name)


def _named(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _joined(old: Series, new: Series) -> Series:
    return Series(old.name, np.concatenate([old.steps, new.steps]), np.concatenate([old.values, new.values]))


def _why_empty(path: Path, n_event_files: int, n_tables: int, notes: Sequence[str]) -> str:
    reason = "; ".join(notes) if notes else "the event files hold no scalar"
    if path.is_file() and "tfevents" not in path.name and not n_tables:
        expected = "an event file, progress.csv, monitor.csv, evaluations.npz, or a CSV file with a step column"
        return f"{path}: {reason}; expected {expected}"
    held = []
    if n_event_files:
        held.append(counted(n_event_files, "event file"))
    if n_tables:
        held.append(counted(n_tables, "table"))
    return f"{path}: nothing to judge in {' and '.join(held)}: {reason}"
