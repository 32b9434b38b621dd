"""Find the unit that the steps of a run count, and the place of points with another unit on that axis.

SB3, CleanRL and this package log over environment steps. Other training code often logs over episodes or epochs, or
mixes units: a return per episode and a loss per update. ``--until`` and the verdict over time cut a run at one step of
its axis. A point of another axis is then cut by the place at which it was written into the event file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.return_curve import counts_episodes
from sb3_visual_td3.diagnosis.series import FloatArray, Series, SeriesSet, is_on_steps
from sb3_visual_td3.diagnosis.tag_search import find_returns, is_standard, words_of
from sb3_visual_td3.report.event_file import Track
from sb3_visual_td3.report.table_file import ENVIRONMENT_STEPS, STEPS

SAME_AXIS = 2.0
"""A tag whose last step is further than this factor from that of the run has another unit, or ends early. In both cases
its points are cut by their place in the file."""
IN_ORDER = 0.9
"""The part of the records that must not lie behind an earlier one, for a file that was written while training. Others
were written afterwards, one tag after another."""
MIN_POINTS_BESIDE = 3
"""More points than this of one tag, all before or all after those of the others, were not written while training."""


def axis_of(series: SeriesSet) -> str:
    """Return the unit that the steps of a run count, as far as its tags show it.

    For other training code, only the names and the spacing of points show the unit.

    :param series: everything that the run logged
    :return: ``"environment steps"``, ``"episodes"``, ``"epochs"``, ``"updates"``, or ``"steps"`` where nothing shows it
    """
    names = series.names()
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
    if names and all("loss" in words_of(name) for name in counted_by_one) and len(counted_by_one) == len(names):
        return "updates"
    return STEPS


def on_other_axes(last_steps: Mapping[str, int]) -> frozenset[str]:
    """Return the tags whose steps have another unit than the run's axis.

    The axis is that of the environment steps, where a known name has one; otherwise that of the episodes of our own
    tags, and otherwise that of the best return.

    :param last_steps: the last step of each tag
    """
    on_axis = {name for name in last_steps if _is_on_environment_steps(name)}
    on_axis = on_axis or {name for name in last_steps if _is_on_episodes(name)}
    on_axis = on_axis or {tag.name for tag in find_returns(last_steps)[:1]} or set(last_steps)
    end = max((last_steps[name] for name in on_axis), default=0)
    others = {name for name in last_steps if name not in on_axis}
    return frozenset(name for name in others if _is_on_episodes(name) or not _is_near(last_steps[name], end))


def _is_near(step: int, end: int) -> bool:
    return end <= SAME_AXIS * step and step <= SAME_AXIS * end


def steps_when_written(tracks: Mapping[str, Track]) -> dict[str, Series]:
    """Return where the points of other axes lie on the axis of the run, by their place in the file.

    A point gets the step of the record that follows it, because it may have happened after the step before it.

    :param tracks: the points of one file, by tag
    :return: for each tag with another axis a series whose values are steps of the run's axis; a tag is left out if the
        file was not written while training
    """
    # A resumed run may have left a tag without a point.
    tracks = {name: track for name, track in tracks.items() if len(track.order)}
    others = on_other_axes({name: int(track.steps.max()) for name, track in tracks.items()})
    of_axis = [track for name, track in tracks.items() if name not in others]
    if not others or not of_axis:
        return {}
    records = np.concatenate([track.order for track in of_axis])
    in_order = np.argsort(records, kind="stable")
    records = records[in_order]
    steps = np.concatenate([track.steps for track in of_axis])[in_order]
    # The largest step so far: a late point does not move the time back.
    reached = np.maximum.accumulate(steps)
    if float(np.mean(steps == reached)) < IN_ORDER:
        return {}
    found = {}
    for name in sorted(others):
        track = tracks[name]
        after = np.searchsorted(records, track.order)
        is_beside = bool((after == 0).all() or (after == records.size).all())
        if is_beside and min(len(track.order), records.size) > MIN_POINTS_BESIDE:
            continue
        found[name] = Series(name, track.steps, reached[np.minimum(after, records.size - 1)].astype(np.float64))
    return found


def on_axis_of_run(series: Mapping[str, Series], when_written: Mapping[str, Series]) -> dict[str, Series]:
    """Return where the points of other axes lie on the axis of a run.

    Points whose place in a file is not known are spread evenly over the run.

    :param series: the points of the run, by tag
    :param when_written: the result of :func:`steps_when_written` for its files
    :return: for each tag with another axis a series whose values are steps of the run's axis
    """
    others = on_other_axes({name: int(each.steps[-1]) for name, each in series.items() if len(each)})
    placed = {name: each for name, each in when_written.items() if name in series}
    first, last = span(series, others | placed.keys())
    for name in sorted(others - placed.keys()):
        offsets = series[name].offsets
        parts: FloatArray = np.ones(offsets.size)
        if offsets[-1] > 0:
            parts = offsets / offsets[-1]
        placed[name] = Series(name, series[name].steps, np.ceil(first + parts * (last - first)))
    return placed


def at_own_steps(series: Series) -> Series:
    """Return the points of a tag that is on the run's axis, as :func:`steps_when_written` returns the others."""
    return Series(series.name, series.steps, series.steps.astype(np.float64))


def span(series: Mapping[str, Series], others: Iterable[str]) -> tuple[int, int]:
    """Return the first and the last step on the axis of a run; (0, 0) without a point.

    :param series: the points of the run, by tag
    :param others: the tags with another unit
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
