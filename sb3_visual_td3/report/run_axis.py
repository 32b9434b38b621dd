"""Find the unit of a run's x-axis, and find the position of every point on this axis.

A run may log its losses over environment steps, and its returns over episode numbers. If the run is at environment
step 10,000 when it logs the return of episode 50, then the position of this return is 10,000. ``--until`` needs the
positions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from sb3_visual_td3.common.tags import is_on_episodes
from sb3_visual_td3.diagnosis.return_curve import counts_episodes
from sb3_visual_td3.diagnosis.series import FloatArray, Series, SeriesSet, StepArray
from sb3_visual_td3.diagnosis.tag_search import find_returns, is_on_environment_steps, words_of
from sb3_visual_td3.report.event_file import Track
from sb3_visual_td3.report.table_file import ENVIRONMENT_STEPS, STEPS

SAME_AXIS = 2.0
"""A tag has another x-axis than the run if, at the same moment, their steps differ by more than this factor."""
IN_ORDER = 0.9
"""A file counts as written during training if at least this fraction of its points are in order: the step of such a
point is at least as large as all steps before it. In any other file, the order of the points does not show when they
were logged."""
MAX_POINTS_ON_ONE_SIDE = 3
"""In a file, all points of a tag may lie before the first point with the run's x-axis, or all after the last. The order
of the points is then used only if the tag or the run's x-axis has at most this many points, because only a few points
may lie on one side by chance."""


def axis_of(series: SeriesSet) -> str:
    """Return the unit of a run's x-axis.

    Known tags show the unit. In a run without known tags, the unit is guessed from the intervals between points and
    from the words in the tags.

    :param series: everything that the run logged
    :return: ``"environment steps"``, ``"episodes"``, ``"epochs"`` or ``"updates"``; ``"steps"`` if no unit can be
        guessed
    """
    names = series.names()
    # The most certain sign comes first: known names, then the intervals between the points of a return, then words in
    # other names.
    if any(is_on_environment_steps(name) for name in names):
        return ENVIRONMENT_STEPS
    if any(is_on_episodes(name) for name in names):
        return "episodes"
    returns = [tag for tag in find_returns(names) if tag.source == "training"]
    if any(len(series[tag.name]) > 2 and counts_episodes(tag, series) for tag in returns):
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
    """Hold the step that a run had reached at each record (entry) of an event file.

    :ivar records: ``(n,) int64``, numbers of the records, ascending
    :ivar reached: ``(n,) int64``, largest step of the run up to each record
    :ivar is_in_order: whether nearly all steps increase, as in a file that was written during training
    """

    records: StepArray
    reached: StepArray
    is_in_order: bool

    @classmethod
    def of(cls, tracks: Sequence[Track]) -> _Clock:
        """Read the steps that the run had reached at each record of the file.

        :param tracks: the tags that use the run's x-axis, each with at least one point
        """
        records = np.concatenate([track.order for track in tracks])
        in_order = np.argsort(records, kind="stable")
        steps = np.concatenate([track.steps for track in tracks])[in_order]
        # A point that is written late has a smaller step, although the run has not gone back. Therefore the largest
        # step so far counts.
        reached = np.maximum.accumulate(steps)
        return cls(records[in_order], reached, float(np.mean(steps == reached)) >= IN_ORDER)

    def has_unit_of(self, track: Track) -> bool:
        """Return whether a tag counts its steps in the same unit as the run.

        The unit is the same if the largest steps of the tag and the run differ by at most the factor ``SAME_AXIS``.
        Points after the tag's last point in the file, or after the run's last point, are left out.
        """
        end = min(int(self.records[-1]), int(track.order[-1]))
        n_before = int(np.searchsorted(self.records, end, side="right"))
        n_of_track = int(np.searchsorted(track.order, end, side="right"))
        if n_before == 0 or n_of_track == 0:
            # All points of the tag come before or after all points of the run, so only the largest steps are compared.
            there, here = int(self.reached[-1]), int(track.steps.max())
        else:
            there, here = int(self.reached[n_before - 1]), int(track.steps[:n_of_track].max(initial=0))
        return here <= SAME_AXIS * there and there <= SAME_AXIS * here

    def positions_of(self, track: Track) -> FloatArray | None:
        """Return the position of each point of a tag on the run's x-axis.

        :param track: the points of the tag
        :return: ``(n,) float64``; None if the order of the points in the file cannot be used to find the positions
        """
        # Each point gets the step of the next record that uses the run's x-axis. The step of the previous record may be
        # too early, because the run may have continued since then.
        after = np.searchsorted(self.records, track.order)
        is_on_one_side = bool((after == 0).all() or (after == self.records.size).all())
        # A few points may lie on one side by chance. This holds for few points of the tag, and also for few points of
        # the run.
        n_points = min(track.order.size, self.records.size)
        if not self.is_in_order or (is_on_one_side and n_points > MAX_POINTS_ON_ONE_SIDE):
            return None
        return self.reached[np.minimum(after, self.records.size - 1)].astype(np.float64)


def positions_on_axis(tracks: Mapping[str, Track]) -> dict[str, Series]:
    """Find positions on the run's x-axis for the points of all tags whose steps have another unit.

    The position of a point is the step that the run had reached when the point was logged. If the order of the points
    in the file cannot be used to find this step, the points are spread over the run in proportion to their own steps.

    :param tracks: the points of one file, by tag; each tag has at least one point
    :return: a series for each tag with another unit: its steps are the tag's own steps, its values are the positions
    """
    on_axis = {name for name in tracks if is_on_environment_steps(name)}
    if not on_axis:
        on_axis = {name for name in tracks if is_on_episodes(name)}
    if not on_axis:
        on_axis = {tag.name for tag in find_returns(tracks)[:1]}
    if not on_axis:
        on_axis = set(tracks)
    others = {name: track for name, track in tracks.items() if name not in on_axis}
    if not others:
        return {}
    # The first _Clock holds only the tags whose unit is known. It shows which other tags have the same unit. The second
    # _Clock holds all tags with this unit. It has points at more records, so the positions of the remaining tags are
    # more exact.
    clock = _Clock.of([tracks[name] for name in sorted(on_axis)])
    on_other_axis = {name for name, track in others.items() if is_on_episodes(name) or not clock.has_unit_of(track)}
    if not on_other_axis:
        return {}
    clock = _Clock.of([tracks[name] for name in sorted(tracks.keys() - on_other_axis)])
    found = {}
    for name in sorted(on_other_axis):
        track = tracks[name]
        steps = clock.positions_of(track)
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
    """Return each point's own step as its position, for a tag that uses the run's x-axis.

    :param series: the points of the tag
    :return: the positions in the form that :func:`positions_on_axis` returns
    """
    return Series(series.name, series.steps, series.steps.astype(np.float64))


def span(series: Mapping[str, Series], others: Iterable[str]) -> tuple[int, int]:
    """Return the first and the last step of a run on its x-axis; (0, 0) if it has no point.

    :param series: the points by tag
    :param others: tags with another x-axis, which are left out
    """
    left_out = set(others)
    of_axis = [each for name, each in series.items() if name not in left_out and len(each)]
    if not of_axis:
        return 0, 0
    return min(int(each.steps[0]) for each in of_axis), max(int(each.steps[-1]) for each in of_axis)


def _counts_by_one(series: Series) -> bool:
    return len(series) > 2 and bool(np.median(np.diff(series.offsets)) == 1.0)
