"""Combine the event files of a run into one set of series.

A folder may hold several files of one run (each process that continues a run starts another), and one file may hold
several runs (a writer that appends to an old file starts at step 0 again). Sorted by step alone, they would be judged
as one run. This module finds out which points belong to the run, and notes what it left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.numerals import counted
from sb3_visual_td3.diagnosis.series import Series, SeriesSet
from sb3_visual_td3.report.event_file import EventFile, OnBytes, Track

NEW_RUN_FRACTION = 0.05
"""Where steps go back to the first 5 % of the run before, a new run begins; a resumed run continues at a later step."""
MAX_RESTARTS = 20
"""If the steps go back more often, several programs write into one file, and its points are only sorted by step."""
_MAX_DROPS = 200
"""A tag whose steps go back more often was not written in order, and shows no restart."""
_MAX_NAMED = 3


class _Drop(NamedTuple):
    """A place where the steps of one tag go back.

    :ivar after: the last record before, as far as this tag shows
    :ivar up_to: the first record with smaller steps
    :ivar tag: the logged name
    """

    after: int
    up_to: int
    tag: str


def last_run(tracks: Mapping[str, Track], name: str) -> tuple[Mapping[str, Track], list[str]]:
    """Return the points of the last run in a file, and notes on what else the file holds.

    Where the steps of most tags go back to the start, a new run begins, and all points before it are left out. Where
    they go back less far, the run was resumed, and its later points replace earlier ones with the same or a later step.
    Where only some tags go back, all points are kept.

    :param tracks: the points of the file, by tag
    :param name: name of the file, for the notes
    """
    drops = sorted(drop for tag, track in tracks.items() for drop in _drops(tag, track))
    if not drops:
        return tracks, []
    # Restarts at which most tags agree, and tags that go back on their own, such as an episode counter that starts
    # again.
    found, lone = _restarts(drops, tracks)
    if len(found) > MAX_RESTARTS:
        return tracks, [
            f"{name}: the steps go back {len(found):,} times, so several runs seem to write into this file at the same "
            "time. Their points are judged together, ordered by step: give each run its own folder"
        ]
    # From the first restart to the last, each one shortens what the earlier ones have left.
    n_new, notes = 0, []
    for record in found:
        left, begins, is_new_run = _how_far(tracks, record)
        n_before = sum(len(track.order) for track in tracks.values())
        if is_new_run:
            n_new += 1
            tracks = {tag: track.where(track.order >= record) for tag, track in tracks.items()}
            tracks = {tag: track for tag, track in tracks.items() if len(track.order)}
            # Notes on the runs before no longer matter: their points are gone.
            notes = [
                f"{name} holds {n_new + 1} runs, one after the other: its steps go back from {left:,} to {begins:,}. "
                f"Only the last run is judged, from step {begins:,} on; everything before it was left out"
            ]
        else:
            tracks = {tag: _resumed(tag, track, record, begins) for tag, track in tracks.items()}
            n_replaced = n_before - sum(len(track.order) for track in tracks.values())
            notes.append(
                f"{name}: the run was resumed, its steps go back from {left:,} to {begins:,}; {n_replaced:,} earlier "
                "points from there on were left out"
            )
    lone_tags = sorted(tag for tag in lone if tag in tracks and (np.diff(tracks[tag].steps) < 0).any())
    if lone_tags:
        more = f" and {len(lone_tags) - _MAX_NAMED} more" if len(lone_tags) > _MAX_NAMED else ""
        notes.append(
            f"{name}: the steps of {', '.join(lone_tags[:_MAX_NAMED])}{more} go back while other tags continue; all "
            "their points are kept, ordered by step"
        )
    return tracks, notes


def _drops(tag: str, track: Track) -> Iterator[_Drop]:
    """Yield the places where a tag covers the same steps again; single points that came late do not count."""
    steps = track.steps
    places = np.flatnonzero(np.diff(steps) < 0) + 1
    if not 0 < places.size <= _MAX_DROPS:
        return
    begin = 0
    for at in places.tolist():
        before, after = steps[begin:at], steps[at:]
        # Of a restart, the points after it repeat at least two steps, and then either cover half as many again, or all
        # lie behind the largest step so far (a resumed run that has not caught up yet).
        top = before.max()
        n_repeated = np.unique(before[before >= steps[at]]).size
        n_again = int((after <= top).sum())
        is_covered_again = n_again >= max(2, n_repeated / 2)
        is_still_behind = bool(after.max() <= top) and n_repeated > 2
        if n_repeated >= 2 and (is_covered_again or is_still_behind):
            begin = at
            yield _Drop(int(track.order[at - 1]), int(track.order[at]), tag)


def _restarts(drops: list[_Drop], tracks: Mapping[str, Track]) -> tuple[list[int], set[str]]:
    """Return the records at which most tags go back, and the tags that go back on their own."""
    records: list[int] = []
    of_record: list[list[_Drop]] = []
    # Tags are logged at different records, so one restart shows as drops at slightly different places: those whose gaps
    # overlap belong together.
    for drop in sorted(drops, key=lambda each: each.up_to):
        if records and drop.after < records[-1]:
            of_record[-1].append(drop)
        else:
            records.append(drop.up_to)
            of_record.append([drop])
    found: list[int] = []
    lone: set[str] = set()
    for record, group in zip(records, of_record, strict=True):
        # A majority of the tags that have points on both sides decides, so that one odd tag cannot cut a run in two.
        votes = _votes(tracks, record)
        if 2 * sum(votes) > len(votes):
            found.append(record)
        else:
            lone.update(drop.tag for drop in group)
    return found, lone


def _votes(tracks: Mapping[str, Track], record: int) -> list[bool]:
    """Return for each tag with points on both sides of a record whether it goes back there.

    If some tags count steps, they alone decide: a run that continues may count its episodes from 0 again.
    """
    votes = {tag: track.goes_back_at(record) for tag, track in tracks.items()}
    known = {tag: vote for tag, vote in votes.items() if vote is not None}
    if any(_may_count_steps(tag) and track.order[0] < record for tag, track in tracks.items()):
        return [vote for tag, vote in known.items() if _may_count_steps(tag)]
    return list(known.values())


def _may_count_steps(tag: str) -> bool:
    return tag not in tags.TAGS or tags.TAGS[tag].x_axis == "step"


def _how_far(tracks: Mapping[str, Track], record: int) -> tuple[int, int, bool]:
    """Return the step reached before a record, the first step from it on, and whether a new run begins there."""
    both = {tag: track for tag, track in tracks.items() if track.goes_back_at(record) is not None}
    chosen = [track for tag, track in both.items() if _may_count_steps(tag)] or list(both.values())
    before = np.concatenate([track.steps[track.order < record] for track in chosen])
    after = np.array([track.steps[np.searchsorted(track.order, record)] for track in chosen])
    # A new run starts within the first 5 % of the steps of the run before; a checkpoint is rarely that early.
    first, left, begins = int(before.min()), int(before.max()), int(after.min())
    return left, begins, begins - first <= NEW_RUN_FRACTION * (left - first)


def _resumed(tag: str, track: Track, record: int, begins: int) -> Track:
    """Return a tag without its earlier points from the step on at which the run was resumed."""
    is_later = track.order >= record
    cuts = []
    if is_later.any():
        cuts.append(int(track.steps[is_later][0]))
    # A known tag on environment steps is cut where the run was resumed, even if its own first point comes later. A tag
    # with another x-axis, such as the episode, is cut at its own first point only.
    if tag in tags.TAGS and _may_count_steps(tag):
        cuts.append(begins)
    if not cuts:
        return track
    return track.where(is_later | (track.steps < min(cuts)))


class UnreadableRunError(ValueError):
    """A path holds nothing to judge; the message says why in one line."""


@dataclass(frozen=True)
class RunData:
    """The content of the event files of one run.

    :param path: the folder or the file that was requested
    :param series: all scalars, by tag
    :param files: the event files, in the order of their clocks
    :param n_points: number of scalar points that were kept
    :param notes: remarks on what the reader left out or had to decide
    """

    path: Path
    series: SeriesSet
    files: tuple[Path, ...]
    n_points: int
    notes: tuple[str, ...] = ()


def read_run(path: Path, files: Sequence[Path], on_bytes: OnBytes | None = None) -> RunData:
    """Read the event files of one run once.

    :param path: the folder or the file that was requested
    :param files: the run's event files
    :param on_bytes: called with the number of bytes of each part, for a progress bar
    :raises UnreadableRunError: if the files do not hold a single scalar
    :raises OSError: if a file cannot be read
    """
    reader = RunReader(path)
    reader.read_new(files, on_bytes)
    return reader.data()


class RunReader:
    """Reads the event files of one run again and again, while they grow, are truncated, appear or vanish.

    :param path: the folder or the file that was requested
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files: dict[Path, EventFile] = {}

    def read_new(self, files: Sequence[Path], on_bytes: OnBytes | None = None) -> bool:
        """Read what is new since the last call.

        :param files: the event files that the run has now
        :param on_bytes: called with the number of bytes of each part, for a progress bar
        :return: whether the data have changed
        :raises OSError: if a file cannot be read
        """
        # A file that vanished changes the data if it held points.
        is_changed = any(self._files[gone].points for gone in self._files.keys() - set(files))
        self._files = {file: self._files.get(file) or EventFile(file) for file in files}
        for file in self._files.values():
            is_changed |= file.read_new(on_bytes)
        return is_changed

    def data(self, is_growing: bool = False) -> RunData:
        """Return the run so far.

        A later file of a resumed run repeats the steps from its checkpoint on: for each tag, its points replace those
        of the earlier file from the first repeated step on. Files whose clocks overlap are merged by step. If one file
        holds several runs, the last one counts.

        :param is_growing: whether the run still writes; a last record that is only half there is then not noted
        :raises UnreadableRunError: if the files do not hold a single scalar
        """
        # By clock, because names need not sort by time; the name decides between files with the same clock.
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
    """The record of how the files of a run were combined.

    :param n_replaced: points of an earlier file that a later file repeats
    :param n_repeated: points that repeat steps of another file, if the clocks do not show which file is the later one
    :param restarts: notes on files that hold more than one run, or a run that was resumed
    :param begun_again: names of later files that start at the first step again
    :param overlapping: names of files that cover the same steps as others of the same time
    """

    n_replaced: int = 0
    n_repeated: int = 0
    restarts: list[str] = field(default_factory=list)
    begun_again: list[str] = field(default_factory=list)
    overlapping: list[str] = field(default_factory=list)

    def notes(self) -> list[str]:
        """Return notes on what was done, and on what the folder seems to hold."""
        notes = []
        if self.n_replaced:
            notes.append(
                f"{self.n_replaced:,} points of an earlier file were replaced by a later file that repeats their steps"
            )
        if self.n_repeated:
            notes.append(
                f"{self.n_repeated:,} points repeat steps of another file, and the clocks do not show which file is "
                "the later one: all are kept"
            )
        if self.begun_again:
            notes.append(
                f"several runs seem to lie in one folder: the steps start again in {_named(self.begun_again)}. The "
                "last run is judged, together with the tags that only earlier runs logged: give each run its own folder"
            )
        if self.overlapping:
            notes.append(
                f"several runs seem to lie in one folder: {_named(self.overlapping)} covers the same steps as other "
                "files of the same time. They are judged together: give each run its own folder"
            )
        return notes


def _merged(files: Sequence[EventFile]) -> tuple[dict[str, Series], _Merging]:
    """Return the series of all files, and what was done to combine them.

    :param files: the files, in the order of their clocks
    """
    merged: dict[str, Series] = {}
    how = _Merging()
    end = -math.inf
    for file in files:
        # A file is the later one if its clock starts after the clocks of all earlier files have ended. A clock that is
        # missing or constant does not make a file the later one.
        is_later = file.clock_is_known and file.first_wall_time > end
        tracks: Mapping[str, Track] = file.tracks()
        if file.steps_go_back:
            tracks, notes = last_run(tracks, file.path.name)
            how.restarts += notes
        n_shared, n_begun_again, n_overlapping = 0, 0, 0
        for tag, track in tracks.items():
            new = Series(tag, track.steps, track.values)
            old = merged.get(tag)
            if old is not None:
                # Whether the new file starts at or before the old one, and whether their steps overlap at all.
                n_shared += 1
                n_begun_again += bool(new.steps[0] <= old.steps[0] < old.steps[-1])
                n_overlapping += bool(new.steps[0] < old.steps[-1] and old.steps[0] < new.steps[-1])
                if is_later:
                    kept = old.where(old.steps < new.steps[0])
                    how.n_replaced += len(old) - len(kept)
                    old = kept
                else:
                    how.n_repeated += int(np.isin(new.steps, old.steps).sum())
                new = _joined(old, new)
            merged[tag] = new
        if is_later and 2 * n_begun_again > n_shared:
            how.begun_again.append(file.path.name)
        elif not is_later and 2 * n_overlapping > n_shared:
            how.overlapping.append(file.path.name)
        end = max(end, file.last_wall_time)
    return merged, how


def _named(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _joined(old: Series, new: Series) -> Series:
    return Series(old.name, np.concatenate([old.steps, new.steps]), np.concatenate([old.values, new.values]))


def _why_empty(path: Path, n_files: int, notes: Sequence[str]) -> str:
    reason = "; ".join(notes) if notes else "the event files hold no scalar"
    return f"{path}: nothing to judge in {counted(n_files, 'event file')}: {reason}"
