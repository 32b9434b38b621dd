"""The checks that criteria are made of: pure functions over named series.

Too few points may fail a criterion, they never pass it; what a run did not log is unknown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sb3_visual_td3.common import tags as names
from sb3_visual_td3.diagnosis.findings import Diagnosis
from sb3_visual_td3.diagnosis.numerals import rounded
from sb3_visual_td3.diagnosis.q_support import UNSUPPORTED, actor_loss_support
from sb3_visual_td3.diagnosis.ranking import diagnose
from sb3_visual_td3.diagnosis.series import Series, SeriesSet, aligned
from sb3_visual_td3.diagnosis.trends import episode_length_ends, growth_factor, later_half_change
from sb3_visual_td3.diagnosis.verdict import Status

Tags = tuple[str, ...]
LAST_QUARTER = 0.25


class Measurement(NamedTuple):
    """What a check found."""

    status: Status
    value: float | None
    detail: str


CheckFunction = Callable[[SeriesSet, Tags, float, int], Measurement]


@dataclass(frozen=True)
class Check:
    """A check function and what it needs."""

    function: CheckFunction
    needs_threshold: bool = True
    n_tags: int = 1

    def __call__(self, data: SeriesSet, tags: Tags, threshold: float | None, min_points: int) -> Measurement:
        """Judge; the threshold is there where ``needs_threshold`` (the loader saw to it)."""
        return self.function(data, tags, 0.0 if threshold is None else threshold, min_points)


def _judged(holds: bool, value: float, n_points: int, min_points: int, detail: str) -> Measurement:
    if not holds:
        return Measurement(Status.FAIL, value, detail)
    if n_points < min_points:
        return Measurement(Status.UNKNOWN, value, f"{detail}; {n_points} points are too few to pass ({min_points})")
    return Measurement(Status.PASS, value, detail)


def _unknown(*missing: str) -> Measurement:
    return Measurement(Status.UNKNOWN, None, f"not logged: {', '.join(missing)}")


def _missing(data: SeriesSet, tags: Tags) -> list[str]:
    return [tag for tag in tags if len(data[tag].finite) == 0]


def mean_below(data: SeriesSet, tags: Tags, threshold: float, min_points: int) -> Measurement:
    """Pass where the mean is strictly below the threshold."""
    return _mean(data, tags, threshold, min_points, strict=True)


def mean_at_most(data: SeriesSet, tags: Tags, threshold: float, min_points: int) -> Measurement:
    """Pass where the mean is not above the threshold."""
    return _mean(data, tags, threshold, min_points, strict=False)


def _mean(data: SeriesSet, tags: Tags, threshold: float, min_points: int, *, strict: bool) -> Measurement:
    series = data[tags[0]].finite
    if len(series) == 0:
        return _unknown(tags[0])
    mean = series.mean()
    holds = mean < threshold if strict else mean <= threshold
    return _judged(holds, mean, len(series), min_points, f"mean over {len(series)} points")


def abs_max_at_most(data: SeriesSet, tags: Tags, threshold: float, min_points: int) -> Measurement:
    """Pass where no finite value of any tag is larger in magnitude; every tag must be logged to pass."""
    present = [data[tag].finite for tag in tags if len(data[tag].finite)]
    if not present:
        return _unknown(*tags)
    largest = max(present, key=Series.abs_max)
    value = largest.abs_max()
    missing = _missing(data, tags)
    if value <= threshold and missing:
        return _unknown(*missing)
    at = int(largest.steps[int(np.argmax(np.abs(largest.values)))])
    detail = f"largest magnitude in {largest.name} at {at:,}"
    return _judged(value <= threshold, value, min(map(len, present)), min_points, detail)


def mean_difference_below(data: SeriesSet, tags: Tags, threshold: float, min_points: int) -> Measurement:
    """Pass where the mean distance of two tags, at the steps that both have, is below the threshold."""
    missing = _missing(data, tags[:2])
    if missing:
        return _unknown(*missing)
    first, second = aligned(data[tags[0]], data[tags[1]])
    if len(first) == 0:
        return Measurement(Status.UNKNOWN, None, "the two tags have no step in common")
    value = float(np.abs(first.values - second.values).mean())
    return _judged(value < threshold, value, len(first), min_points, f"mean over {len(first)} common steps")


def activations_at_most(data: SeriesSet, tags: Tags, threshold: float, min_points: int) -> Measurement:
    """Pass where at most that many points are 1. Activations count, not points: a 0 says "no alert"."""
    series = data[tags[0]]
    if len(series) == 0:
        return _unknown(tags[0])
    active = series.where(series.values == 1.0)
    first = f", the first at {int(active.steps[0]):,}" if len(active) else ""
    detail = f"{len(active)} of {len(series)} points active{first}"
    return _judged(len(active) <= threshold, float(len(active)), len(series), min_points, detail)


def supported_by_q(data: SeriesSet, tags: Tags, threshold: float, min_points: int) -> Measurement:
    """Pass where the actor's loss ends below that many times the largest Q on replayed pairs."""
    support = actor_loss_support(data)
    if support is None:
        return _unknown(*_missing(data, tags))
    detail = f"the loss ends near {rounded(support.loss)}; {support.scale_in_words} is {rounded(support.q_scale)}"
    if support.estimated and support.ratio <= threshold:
        return Measurement(Status.UNKNOWN, None, f"{detail}; not logged: {', '.join(_missing(data, tags))}")
    return _judged(support.ratio <= threshold, support.ratio, len(data[tags[0]].finite), min_points, detail)


def growth_below(data: SeriesSet, tags: Tags, threshold: float, min_points: int) -> Measurement:
    """Fail where the actor's loss grows over the later half and Q does not support it.

    Growth of a hundred over the whole run counts as well: a loss that has run away may slow down.
    Without Q values, growth alone is unknown: a healthy loss grows too.
    """
    loss = data[tags[0]].finite
    if len(loss) == 0:
        return _unknown(tags[0])
    later = loss.tail(0.5)
    growth, whole = growth_factor(later), growth_factor(loss)
    if not np.isfinite(growth):
        if loss.abs_max() == 0.0:
            return _judged(True, 1.0, len(loss), min_points, "the loss is 0 throughout")
        return Measurement(Status.UNKNOWN, None, f"{len(later)} points in the later half show no trend")
    detail = f"|loss| times {rounded(growth)} over the later half, {rounded(whole)} over the run"
    support = actor_loss_support(data)
    grows = growth >= threshold or whole >= 100.0
    supported = support is None or support.ratio <= UNSUPPORTED
    if grows and supported:
        if support is None or support.estimated:
            return Measurement(Status.UNKNOWN, growth, f"{detail}; no Q value to hold it against")
        detail += f"; of the order of Q ({rounded(support.ratio)} times), so no runaway"
    holds = supported or not grows
    return _judged(holds, growth, len(later), min(min_points, 3), detail)


def smooth(data: SeriesSet, tags: Tags, threshold: float, min_points: int) -> Measurement:
    """Pass where the later half has no jump above that part of the largest |Q|, and no such fall."""
    missing = _missing(data, tags)
    if missing:
        return _unknown(*missing)
    worst_jump, worst_fall, n_points = 0.0, 0.0, len(data[tags[0]].finite)
    for tag in tags:
        series = data[tag].finite
        scale = max(1.0, series.abs_max())
        jumps = np.abs(np.diff(series.tail(0.5).values))
        worst_jump = max(worst_jump, float(jumps.max()) / scale if jumps.size else 0.0)
        change = later_half_change(series)
        worst_fall = max(worst_fall, -change / scale if np.isfinite(change) else 0.0)
        n_points = min(n_points, len(series))
    detail = f"largest jump {worst_jump:.2g}, fall {max(worst_fall, 0.0):.2g} of the largest |Q|, over the later half"
    value = max(worst_jump, worst_fall)
    return _judged(value <= threshold, value, n_points, min_points, detail)


def episode_length_holds(data: SeriesSet, tags: Tags, threshold: float, min_points: int) -> Measurement:
    """Pass where the late median length is at least that part of the early one."""
    return _episode_lengths(data, tags[0], threshold, min_points, at_ceiling_passes=False)


def episode_length_rises(data: SeriesSet, tags: Tags, threshold: float, min_points: int) -> Measurement:
    """Pass where the late median length is above the early one, or already the longest seen."""
    return _episode_lengths(data, tags[0], threshold, min_points, at_ceiling_passes=True)


def _episode_lengths(
    data: SeriesSet, tag: str, threshold: float, min_points: int, *, at_ceiling_passes: bool
) -> Measurement:
    lengths = data[tag].finite
    if len(lengths) == 0:
        return _unknown(tag)
    ends = episode_length_ends(lengths)
    if ends is None:
        return Measurement(Status.UNKNOWN, None, f"{len(lengths)} episodes are too few to compare early with late ones")
    ratio = ends.late / ends.early
    holds = ratio >= threshold
    if at_ceiling_passes:
        holds = ratio > threshold or ends.late >= 0.95 * lengths.abs_max()
    detail = f"median {rounded(ends.early)} steps early, {rounded(ends.late)} late, of {len(lengths)} episodes"
    return _judged(holds, ratio, len(lengths), min(min_points, 4), detail)


def all_finite(data: SeriesSet, tags: Tags, threshold: float, min_points: int) -> Measurement:
    """Pass where no tag has a NaN or an infinity: of those named, or of all that were measured where none is named."""
    chosen = tags or tuple(name for name in data.names() if name not in names.DERIVED)
    n_points = sum(len(data[tag]) for tag in chosen)
    if n_points == 0:
        return _unknown(*(tags or ("anything",)))
    missing = [tag for tag in tags if tag not in data]
    bad = [data[tag].where(~np.isfinite(data[tag].values)) for tag in chosen]
    bad = [series for series in bad if len(series)]
    n_bad = sum(map(len, bad))
    detail = f"{n_points:,} values in {len(chosen)} tags"
    if bad:
        first = min(bad, key=lambda series: int(series.steps[0]))
        detail = f"{n_bad} of {detail}; {first.name} at {int(first.steps[0]):,} is {first.values[0]}"
    if n_bad <= threshold and missing:
        return _unknown(*missing)
    return _judged(n_bad <= threshold, float(n_bad), n_points, min_points, detail)


def within_bound(data: SeriesSet, tags: Tags, threshold: float, min_points: int) -> Measurement:
    """Pass where no |Q| is larger than that many times the logged bound of its step.

    Where the bound is still 0 (no reward but 0 was seen) it says nothing of an untrained network. A value from
    before the first bound cannot be judged, and what cannot be judged does not pass.
    """
    bound = data[names.Q_BOUND].finite
    n_points = int((bound.values > 0).sum())
    if n_points == 0:
        return _unknown(names.Q_BOUND)
    value, detail, n_without = -1.0, "", 0
    for series in (data[tag].finite for tag in tags):
        at = np.searchsorted(bound.steps, series.steps, side="right") - 1
        n_without += int((at < 0).sum())
        limits = np.where(at >= 0, bound.values[np.maximum(at, 0)], 0.0)
        judged, limits = series.where(limits > 0), limits[limits > 0]
        if len(judged) == 0:
            continue
        ratios = np.abs(judged.values) / limits
        worst = int(np.argmax(ratios))
        if ratios[worst] > value:
            value = float(ratios[worst])
            detail = f"largest |Q| / bound: {judged.name} at {int(judged.steps[worst]):,}"
        n_points = min(n_points, len(judged))
    # The event file holds 32-bit floats: equality must survive the rounding.
    holds = value <= threshold * (1 + 1e-6)
    missing = _missing(data, tags)
    if value < 0 or (holds and missing):
        return _unknown(*(missing or tags))
    if holds and n_without:
        return Measurement(Status.UNKNOWN, value, f"{detail}; {n_without} values were logged before any bound")
    return _judged(holds, value, n_points, min_points, detail)


def tail_mean_below(data: SeriesSet, tags: Tags, threshold: float, min_points: int) -> Measurement:
    """Pass where the mean over the last quarter of the steps is below the threshold, for every tag."""
    present = [data[tag].finite for tag in tags if len(data[tag].finite)]
    if not present:
        return _unknown(*tags)
    worst = max(present, key=lambda series: series.tail(LAST_QUARTER).mean())
    value = worst.tail(LAST_QUARTER).mean()
    missing = _missing(data, tags)
    if value < threshold and missing:
        return _unknown(*missing)
    detail = f"mean of {worst.name} over the last quarter"
    return _judged(value < threshold, value, min(map(len, present)), min_points, detail)


def tail_mean_above(data: SeriesSet, tags: Tags, threshold: float, min_points: int) -> Measurement:
    """Pass where the mean over the last quarter of the steps is above the threshold."""
    series = data[tags[0]].finite
    if len(series) == 0:
        return _unknown(tags[0])
    value = series.tail(LAST_QUARTER).mean()
    return _judged(value > threshold, value, len(series), min_points, "mean over the last quarter")


def last_above_baselines(data: SeriesSet, tags: Tags, _threshold: float, min_points: int) -> Measurement:
    """Pass where the last value of the first tag is above the last values of all the others."""
    policy = data[tags[0]].finite
    if len(policy) == 0:
        return _unknown(tags[0])
    value = float(policy.values[-1])
    baselines = {tag: float(data[tag].finite.values[-1]) for tag in tags[1:] if len(data[tag].finite)}
    detail = f"the last, at {int(policy.steps[-1]):,}"
    if baselines:
        detail += ", against " + ", ".join(f"{rounded(v)} ({tag})" for tag, v in baselines.items())
    holds = all(value > baseline for baseline in baselines.values())
    missing = _missing(data, tags[1:])
    if holds and missing:
        return Measurement(Status.UNKNOWN, value, f"{detail}; not logged: {', '.join(missing)}")
    return _judged(holds, value, len(policy), min_points, detail)


def gap_within(data: SeriesSet, tags: Tags, threshold: float, min_points: int) -> Measurement:
    """Pass where the median |gap| of the last quarter is at most that part of the largest |Q|."""
    missing = _missing(data, tags[:2])
    if missing:
        return _unknown(*missing)
    gap = data[tags[0]].finite
    scale = max(1.0, data[tags[1]].abs_max())
    value = float(np.median(np.abs(gap.tail(LAST_QUARTER).values))) / scale
    return _judged(
        value <= threshold,
        value,
        len(gap),
        min_points,
        f"median of the last quarter over the largest |Q| (1 at least), {rounded(scale)}",
    )


CHECKS: dict[str, Check] = {
    "mean_below": Check(mean_below),
    "mean_at_most": Check(mean_at_most),
    "abs_max_at_most": Check(abs_max_at_most),
    "mean_difference_below": Check(mean_difference_below, n_tags=2),
    "activations_at_most": Check(activations_at_most),
    "supported_by_q": Check(supported_by_q, n_tags=2),
    "growth_below": Check(growth_below, n_tags=2),
    "smooth": Check(smooth),
    "episode_length_holds": Check(episode_length_holds),
    "episode_length_rises": Check(episode_length_rises),
    "all_finite": Check(all_finite, n_tags=0),
    "within_bound": Check(within_bound),
    "tail_mean_below": Check(tail_mean_below),
    "tail_mean_above": Check(tail_mean_above),
    "last_above_baselines": Check(last_above_baselines, needs_threshold=False, n_tags=2),
    "gap_within": Check(gap_within, n_tags=2),
}


def no_sure_cause(data: SeriesSet, tags: Tags, threshold: float, min_points: int) -> Measurement:
    """Pass where no rule names a cause with that confidence, and the tags that the rules read are logged.

    A cause counts where the tag that speaks for it is one of those: what may be absent, such as the length of
    episodes, must not decide by being there, and has criteria of its own.
    """
    causes = [found for found in diagnose(data) if found.role == "cause" and found.evidence[0].tag in tags]
    surest = max(causes, key=lambda found: found.confidence, default=None)
    value = 0.0 if surest is None else surest.confidence
    told = "no cause found" if surest is None else _in_words(surest)
    if value >= threshold:
        return Measurement(Status.FAIL, value, told)
    too_few = [tag for tag in tags if len(data[tag].finite) < min_points]
    if too_few:
        return Measurement(Status.UNKNOWN, None, f"{told}; not logged, or too few points: {', '.join(too_few)}")
    return Measurement(Status.PASS, value, told)


def _in_words(found: Diagnosis) -> str:
    speaks = found.evidence[0]
    return f"{found.id} ({found.confidence:.0%}): {speaks.tag} {speaks.note}"
