"""Find the unit of a run's x-axis, and place all points of the run on this axis.

The unit is environment steps, episodes, epochs or updates. SB3, CleanRL and this package log over environment steps.
Other training code often logs over episodes or epochs. It may also mix units: a return per episode, and a loss per
update. One of these units is then the x-axis of the run, and the points of all other tags are placed on it.

``--until`` and the verdict over time use these positions, because they judge a run up to one step of its x-axis. An
event file holds its points in the order in which they were logged, so this order shows the position of each point.
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
"""A tag does not use the run's x-axis if, at the same moment, its step and the step of the run differ by more than this
factor. For example, a tag at episode 50 does not use an x-axis that is at environment step 10,000."""
IN_ORDER = 0.9
"""A file was written during training if the steps of at least this fraction of its records are in ascending order.
Other files were written afterwards, one tag after another."""
MAX_POINTS_ON_ONE_SIDE = 3
"""If all points of a tag come before (or all come after) the other points in the file, the tag was written separately,
and not during training. Up to this number of points may lie on one side by chance, so they do not show this."""


def axis_of(series: SeriesSet) -> str:
    """Return the unit of a run's x-axis, if the tags of the run show it.

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

    def positions_of(self, track: Track) -> FloatArray | None:
        """Return the step that the run had reached at each point of a tag; None if the file's order does not show it.

        The tag itself may be logged over another unit, such as episodes.

        :param track: the points of the tag
        """
        # Each point gets the step of the next record on the run's x-axis. The previous record may have a step that is
        # too early, because the run may have continued since then.
        after = np.searchsorted(self.records, track.order)
        is_on_one_side = bool((after == 0).all() or (after == self.records.size).all())
        # A few points may lie on one side by chance, and all points then lie on one side of these few.
        n_points = min(track.order.size, self.records.size)
        if not self.is_in_order or (is_on_one_side and n_points > MAX_POINTS_ON_ONE_SIDE):
            return None
        return self.reached[np.minimum(after, self.records.size - 1)].astype(np.float64)


def positions_on_axis(tracks: Mapping[str, Track]) -> dict[str, Series]:
    """Place points that were logged over another unit, such as episodes, on the run's x-axis.

    The x-axis of the run is environment steps if a known tag of SB3, CleanRL or this package is logged over them.
    Otherwise it is episodes, if a known tag is logged over episodes. Without known tags, it is the x-axis of the
    returns.

    The position of a point is the step that the run had reached when the point was logged. If the order of the file
    does not show this step, the points of the tag are spread over the run in proportion to their own steps.

    :param tracks: the points of one file, by tag
    :return: the positions of each tag that does not use the run's x-axis. For example, a tag over episodes has a series
        with the episodes as steps and the environment steps as values
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
    """Return a series whose values are its own steps.

    For a tag that uses the run's x-axis, this series has the form of the positions in :func:`positions_on_axis`.

    :param series: the points of the tag
    """
    return Series(series.name, series.steps, series.steps.astype(np.float64))


def span(series: Mapping[str, Series], others: Iterable[str]) -> tuple[int, int]:
    """Return the first and the last step of a run on its x-axis; (0, 0) if it has no point.

    :param series: the points of the run, by tag
    :param others: the tags that do not use the run's x-axis, such as tags over episodes; they are left out
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
