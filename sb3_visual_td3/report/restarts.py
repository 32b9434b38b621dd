"""Tells apart what was written into one event file one after the other: a new run, or a run that was resumed.

A writer that appends to a file of an earlier run begins at step 0 again. Sorted by step, the two would be judged as
one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.series import BoolArray, FloatArray, StepArray

NEW_RUN_FRACTION = 0.05
"""A new run begins within this part of the steps of the run before it; a resumed run goes on later."""
MAX_RESTARTS = 20
"""Steps that go back more often come from several writers at the same time, and are only put in order."""
_MAX_DROPS = 200
"""A tag whose steps go back more often was not written in order at all."""
_MAX_NAMED = 3


@dataclass(frozen=True)
class Track:
    """The points of one tag in the order in which the file holds them.

    :param order: ``(n,) int64``, the number of the record of each point, increasing.
    :param steps: ``(n,) int64``, in any order.
    :param values: ``(n,) float64``.
    """

    order: StepArray
    steps: StepArray
    values: FloatArray

    def where(self, mask: BoolArray) -> Track:
        """Return the points that ``mask`` selects."""
        return Track(self.order[mask], self.steps[mask], self.values[mask])

    def goes_back_at(self, record: int) -> bool | None:
        """Return whether the first point from a record on has a smaller step than the one before it; None at an end."""
        at = int(np.searchsorted(self.order, record))
        if at in {0, len(self.order)}:
            return None
        return bool(self.steps[at] < self.steps[at - 1])


class _Drop(NamedTuple):
    """A place where the steps of one tag go back: the writer began again after one record and up to another."""

    after: int
    up_to: int
    tag: str


def last_run(tracks: Mapping[str, Track], name: str) -> tuple[Mapping[str, Track], list[str]]:
    """Return the points of the last run in a file, and notes on what else the file holds.

    Where the steps of most tags go back to the beginning, a new run begins, and all points before it are left out.
    Where they go back less far, the run was resumed, and its later points replace those with the same or a later step.
    Where only some tags go back, all points are kept.

    :param tracks: by tag.
    :param name: what to call the file in a note.
    """
    drops = sorted(drop for tag, track in tracks.items() for drop in _drops(tag, track))
    if not drops:
        return tracks, []
    found, lone = _restarts(drops, tracks)
    if len(found) > MAX_RESTARTS:
        return tracks, [
            f"{name}: the steps go back {len(found):,} times, so several runs seem to write into this file at the same "
            "time. Their points are judged together, ordered by step: give each run a folder of its own"
        ]
    n_new, notes = 0, []
    for record in found:
        left, begins, is_new_run = _how_far(tracks, record)
        n_before = sum(len(track.order) for track in tracks.values())
        if is_new_run:
            n_new += 1
            tracks = {tag: track.where(track.order >= record) for tag, track in tracks.items()}
            tracks = {tag: track for tag, track in tracks.items() if len(track.order)}
            notes = [
                f"{name} holds {n_new + 1} runs, one after the other: its steps go back from {left:,} to {begins:,}. "
                f"The last run alone is judged, from step {begins:,} on; what was written before it is left out"
            ]
        else:
            tracks = {tag: _resumed(tag, track, record, begins) for tag, track in tracks.items()}
            n_replaced = n_before - sum(len(track.order) for track in tracks.values())
            notes.append(
                f"{name}: the run was resumed, its steps go back from {left:,} to {begins:,}; {n_replaced:,} earlier "
                "points from there on were left out"
            )
    lone_tags = sorted(tag for tag in lone if tag in tracks and (np.diff(tracks[tag].steps) < 0).any())
    return tracks, [*notes, *_note_on(lone_tags, name)]


def _note_on(lone_tags: list[str], name: str) -> list[str]:
    if not lone_tags:
        return []
    more = f" and {len(lone_tags) - _MAX_NAMED} more" if len(lone_tags) > _MAX_NAMED else ""
    return [
        f"{name}: the steps of {', '.join(lone_tags[:_MAX_NAMED])}{more} go back while other tags go on; all their "
        "points are kept, ordered by step"
    ]


def _drops(tag: str, track: Track) -> Iterator[_Drop]:
    """Yield the places where a tag covers the same steps again, not those where single points came late."""
    steps = track.steps
    places = np.flatnonzero(np.diff(steps) < 0) + 1
    if not 0 < places.size <= _MAX_DROPS:
        return
    begin = 0
    for at in places.tolist():
        before, after = steps[begin:at], steps[at:]
        top = before.max()
        n_repeated = np.unique(before[before >= steps[at]]).size
        n_again = int((after <= top).sum())
        is_covered_again = n_again >= max(2, n_repeated / 2)
        is_still_behind = bool(after.max() <= top) and n_repeated > 2
        if n_repeated >= 2 and (is_covered_again or is_still_behind):
            begin = at
            yield _Drop(int(track.order[at - 1]), int(track.order[at]), tag)


def _restarts(drops: list[_Drop], tracks: Mapping[str, Track]) -> tuple[list[int], set[str]]:
    """Return the records at which most tags go back, and the tags that go back elsewhere."""
    records: list[int] = []
    of_record: list[list[_Drop]] = []
    for drop in sorted(drops, key=lambda each: each.up_to):
        if records and drop.after < records[-1]:
            of_record[-1].append(drop)
        else:
            records.append(drop.up_to)
            of_record.append([drop])
    found: list[int] = []
    lone: set[str] = set()
    for record, group in zip(records, of_record, strict=True):
        votes = _votes(tracks, record)
        if 2 * sum(votes) > len(votes):
            found.append(record)
        else:
            lone.update(drop.tag for drop in group)
    return found, lone


def _votes(tracks: Mapping[str, Track], record: int) -> list[bool]:
    """Return of each tag with points on both sides of a record whether it goes back there.

    Tags that count steps decide where there are some: episodes may be counted from 0 again by a run that goes on.
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
    first, left, begins = int(before.min()), int(before.max()), int(after.min())
    return left, begins, begins - first <= NEW_RUN_FRACTION * (left - first)


def _resumed(tag: str, track: Track, record: int, begins: int) -> Track:
    """Return a tag without the earlier points from the step on at which the run was resumed."""
    is_later = track.order >= record
    cut: int | None = int(track.steps[is_later][0]) if is_later.any() else None
    if tag in tags.TAGS and _may_count_steps(tag):
        cut = begins if cut is None else min(cut, begins)
    return track if cut is None else track.where(is_later | (track.steps < cut))
