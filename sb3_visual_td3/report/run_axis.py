"""Find the unit of a run's x-axis, and the position on this axis of points that were logged over another unit.

The unit is environment steps, episodes, epochs or updates.

SB3, CleanRL and this package log over environment steps. Other training code often logs over episodes or epochs, or
mixes units: a return per episode and a loss per update. ``--until`` and the verdict over time cut a run at one step of
its x-axis. The place of a point in the event file shows whether a point with another unit lies before the cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.return_curve import counts_episodes
from sb3_visual_td3.diagnosis.series import FloatArray, Series, SeriesSet, StepArray, is_on_steps
from sb3_visual_td3.diagnosis.tag_search import find_returns, is_standard, words_of
from sb3_visual_td3.report.event_file import Track
from sb3_visual_td3.report.table_file import ENVIRONMENT_STEPS, STEPS

SAME_AXIS = 2.0
"""A tag has another unit than the run's x-axis if its step and the run's step at the same time differ by more than this
factor."""
IN_ORDER = 0.9
"""A file was written during training if the steps of at least this fraction of its records are in ascending order.
Other files were written afterwards, one tag after another."""
MAX_POINTS_BESIDE = 3
"""A tag was not logged during training if it has more points than this, and all of them lie before or all lie after the
points of the other tags in the file."""


def axis_of(series: SeriesSet) -> str:
    """Return the unit that the steps of a run count, if its tags show the unit.

    For training code other than SB3, CleanRL and this package, only the names of the tags and the spacing of the points
    show the unit.

    :param series: everything that the run logged
    :return: ``"environment steps"``, ``"episodes"``, ``"epochs"``, ``"updates"``, or ``"steps"`` if the unit is not
        known
    """
    names = series.names()
    # The signs are tried from the surest to the weakest: known names, then the spacing of returns, then words in other
    # names.
    if any(_is_on_environment_steps(name) for name in names):
        return ENVIRONMENT_STEPS
    if any(_is_on_episodes(name) for name in names):
        return "episodes"
    returns = [tag for tag in find_returns(names) if tag.source == "training"]
    if any(len(series[tag.name]) > 2 and counts_episodes(tag, series[tag.name]) for tag in returns):
        return "episodes"
    counted_by_one = [name for name in names if _counts_by_one(series[name])]
    if any("epoch" in words_of(name) for name in counted_by_one):
        return "epochs"
    # If a run logs only losses, with one point per step, its steps count updates.
    has_losses_only = bool(names) and all("loss" in words_of(name) for name in names)
    if has_losses_only and len(counted_by_one) == len(names):
        return "updates"
    return STEPS


class _Clock(NamedTuple):
    """Hold the step that a run had reached at each record of an event file.

    :ivar records: ``(n,) int64``, the numbers of the records, in ascending order
    :ivar reached: ``(n,) int64``, the largest step of the run up to each record
    :ivar is_in_order: whether the steps of the records increase, which shows that the file was written during training
    """

    records: StepArray
    reached: StepArray
    is_in_order: bool

    @classmethod
    def of(cls, tracks: Sequence[Track]) -> _Clock:
        """Read the steps of the run from the points of tags that have the same x-axis as the run.

        :param tracks: the points of these tags, at least one point for each tag
        """
        records = np.concatenate([track.order for track in tracks])
        in_order = np.argsort(records, kind="stable")
        steps = np.concatenate([track.steps for track in tracks])[in_order]
        # The largest step so far counts, because a point that is written late does not set the run back.
        reached = np.maximum.accumulate(steps)
        return cls(records[in_order], reached, float(np.mean(steps == reached)) >= IN_ORDER)

    def has_unit_of(self, track: Track) -> bool:
        """Return whether the steps of the run have the same unit as the steps of a tag.

        A tag may end long before the run. The two steps are therefore compared at the last record that both have
        reached: the last record of the tag or of the run, whichever comes first. The unit is the same if the two steps
        differ by at most the factor ``SAME_AXIS``.

        :param track: the points of the tag
        """
        end = min(int(self.records[-1]), int(track.order[-1]))
        n_before = int(np.searchsorted(self.records, end, side="right"))
        n_of_track = int(np.searchsorted(track.order, end, side="right"))
        if n_before == 0 or n_of_track == 0:
            # If one of the two begins after the other has ended, only their ends can be compared.
            there, here = int(self.reached[-1]), int(track.steps.max())
        else:
            there, here = int(self.reached[n_before - 1]), int(track.steps[:n_of_track].max(initial=0))
        return here <= SAME_AXIS * there and there <= SAME_AXIS * here

    def of_track(self, track: Track) -> FloatArray | None:
        """Return the step of the run's x-axis at which each point of a tag was logged; None if it is not known.

        The tag itself is logged over another unit, such as episodes. A point gets the step of the next record in the
        event file that has a step of the run's x-axis. The step of the record before it may be too early, because the
        run may have continued since then.

        :param track: the points of the tag
        """
        after = np.searchsorted(self.records, track.order)
        is_beside = bool((after == 0).all() or (after == self.records.size).all())
        if not self.is_in_order or (is_beside and min(track.order.size, self.records.size) > MAX_POINTS_BESIDE):
            return None
        return self.reached[np.minimum(after, self.records.size - 1)].astype(np.float64)


def positions_on_axis(tracks: Mapping[str, Track]) -> dict[str, Series]:
    """Compute where points that were logged over another unit, such as episodes, lie on the run's x-axis.

    The unit of the x-axis is environment steps if one of the tags is known to be logged over them. Without such a tag
    it is episodes, if a tag of ``common/tags.py`` is logged over them. Otherwise it is the unit of the returns.

    The position of a point is the step that the run had reached when the point was logged. If the order of the file
    does not show this step, the points of the tag are spread over the run in proportion to their own steps.

    :param tracks: the points of one file, by tag
    :return: the positions of each tag that is logged over another unit: a series with the tag's own steps, and with
        the steps of the run's x-axis as values
    """
    # In a resumed run, a tag may have lost all of its points.
    tracks = {name: track for name, track in tracks.items() if len(track.order)}
    on_axis = {name for name in tracks if _is_on_environment_steps(name)}
    if not on_axis:
        on_axis = {name for name in tracks if _is_on_episodes(name)}
    if not on_axis:
        on_axis = {tag.name for tag in find_returns(tracks)[:1]}
    if not on_axis:
        on_axis = set(tracks)
    others = {name: track for name, track in tracks.items() if name not in on_axis}
    if not others:
        return {}
    # This takes two passes. A first _Clock from the tags whose unit is known shows which other tags have the same unit.
    # A second _Clock from all tags with this unit has points at more records, so it places the remaining tags more
    # exactly.
    clock = _Clock.of([tracks[name] for name in sorted(on_axis)])
    on_other_axis = {name for name, track in others.items() if _is_on_episodes(name) or not clock.has_unit_of(track)}
    if not on_other_axis:
        return {}
    clock = _Clock.of([tracks[name] for name in sorted(tracks.keys() - on_other_axis)])
    found = {}
    for name in sorted(on_other_axis):
        track = tracks[name]
        steps = clock.of_track(track)
        if steps is None:
            steps = _in_proportion(track, int(clock.reached[0]), int(clock.reached[-1]))
        found[name] = Series(name, track.steps, steps)
    return found


def _in_proportion(track: Track, first: int, last: int) -> FloatArray:
    begin, end = int(track.steps.min()), int(track.steps.max())
    if begin == end:
        return np.full(track.steps.size, float(last))
    parts = (track.steps - begin) / (end - begin)
    return np.ceil(first + parts * (last - first))


def at_own_steps(series: Series) -> Series:
    """Return the positions of a tag that is logged over the run's x-axis, in the form of :func:`positions_on_axis`.

    The position of each point is its own step.

    :param series: the points of the tag
    :return: a series with the same steps, whose values are these steps
    """
    return Series(series.name, series.steps, series.steps.astype(np.float64))


def span(series: Mapping[str, Series], others: Iterable[str]) -> tuple[int, int]:
    """Return the first and the last step of a run on its x-axis; (0, 0) if it has no point.

    :param series: the points of the run, by tag
    :param others: the tags that are logged over another unit than the run's x-axis
    """
    left_out = set(others)
    of_axis = [each for name, each in series.items() if name not in left_out and len(each)]
    if not of_axis:
        return 0, 0
    return min(int(each.steps[0]) for each in of_axis), max(int(each.steps[-1]) for each in of_axis)


def _is_on_environment_steps(name: str) -> bool:
    return (is_on_steps(name) or is_standard(name)) and not _is_on_episodes(name)


def _is_on_episodes(name: str) -> bool:
    return name in tags.TAGS and tags.TAGS[name].x_axis == "episode"


def _counts_by_one(series: Series) -> bool:
    return len(series) > 2 and bool(np.median(np.diff(series.offsets)) == 1.0)
