"""Check the series of a run: every criterion names one of these pure functions as its ``kind``.

A few points are enough to fail a criterion, but a pass usually needs at least ``min_points`` points. A tag that was not
logged usually makes the criterion unknown. Leaving tags out of the log must not turn NO-GO into GO.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sb3_visual_td3.common import tags as names
from sb3_visual_td3.diagnosis.numerals import counted, rounded
from sb3_visual_td3.diagnosis.q_support import FLOOR, UNSUPPORTED, actor_loss_support, q_scale_in_words
from sb3_visual_td3.diagnosis.ranking import diagnose
from sb3_visual_td3.diagnosis.series import Series, SeriesSet, aligned, ended_not_finite
from sb3_visual_td3.diagnosis.trends import episode_length_ends, growth_factor, later_half_change
from sb3_visual_td3.diagnosis.two_questions import ask, too_early
from sb3_visual_td3.diagnosis.verdict import Side, Status

Tags = tuple[str, ...]
LAST_QUARTER = 0.25


class Measurement(NamedTuple):
    """Hold the result of a check.

    :ivar status: pass, fail or unknown
    :ivar value: the number that was compared with the limit; None if nothing could be measured
    :ivar detail: the measured numbers, in words
    :ivar limit: the limit, if it is a number that the run logged; None if it is the threshold of the criterion
    """

    status: Status
    value: float | None
    detail: str
    limit: float | None = None


CheckFunction = Callable[[SeriesSet, Tags, float, int], Measurement]


@dataclass(frozen=True)
class Check:
    """Hold a check function and what a criterion must define for it.

    :param function: the check, called with the series and with the tags, threshold and ``min_points`` of a criterion
    :param side: side of the limit on which the measured value passes; None if the value alone does not decide
    :param ignores: those of the keys ``threshold``, ``tags`` and ``min_points`` that the check does not read. If the
        check reads ``threshold``, the criterion must define a threshold
    :param n_tags: the fewest tags that the criterion must name
    """

    function: CheckFunction
    side: Side | None
    ignores: frozenset[str] = frozenset()
    n_tags: int = 1

    def __call__(self, data: SeriesSet, tags: Tags, threshold: float | None, min_points: int) -> Measurement:
        """Run the check on the series of a run.

        :param data: the series of a run
        :param tags: the logged names that the criterion reads
        :param threshold: limit for the measurement; None if the check needs no threshold
        :param min_points: the fewest points with which the criterion may pass
        """
        return self.function(data, tags, 0.0 if threshold is None else threshold, min_points)


def _judged(holds: bool, value: float, n_points: int, min_points: int, detail: str) -> Measurement:
    """Return a pass or a failure as a measurement; with too few points, a pass becomes unknown."""
    if not holds:
        return Measurement(Status.FAIL, value, detail)
    if n_points < min_points:
        return Measurement(Status.UNKNOWN, value, f"{detail}; too few points to pass: {n_points} of {min_points}")
    return Measurement(Status.PASS, value, detail)


def _unknown(*missing: str) -> Measurement:
    return Measurement(Status.UNKNOWN, None, f"not logged: {', '.join(missing)}")


def _missing(data: SeriesSet, tags: Tags) -> list[str]:
    return [tag for tag in tags if len(data[tag].finite) == 0]


def mean_below(data: SeriesSet, tags: Tags, threshold: float, min_points: int) -> Measurement:
    """Pass if the mean of the tag is strictly below the threshold."""
    return _mean(data, tags, threshold, min_points, strict=True)


def mean_at_most(data: SeriesSet, tags: Tags, threshold: float, min_points: int) -> Measurement:
    """Pass if the mean of the tag is at most the threshold."""
    return _mean(data, tags, threshold, min_points, strict=False)


def _mean(data: SeriesSet, tags: Tags, threshold: float, min_points: int, *, strict: bool) -> Measurement:
    series = data[tags[0]].finite
    if len(series) == 0:
        return _unknown(tags[0])
    mean = series.mean()
    holds = mean < threshold if strict else mean <= threshold
    return _judged(holds, mean, len(series), min_points, f"mean over {counted(len(series), 'point')}")


def abs_max_at_most(data: SeriesSet, tags: Tags, threshold: float, min_points: int) -> Measurement:
    """Pass if no finite value of any tag is larger in magnitude than the threshold; all tags must be logged."""
    present = [data[tag].finite for tag in tags if len(data[tag].finite)]
    if not present:
        return _unknown(*tags)
    # If a tag is missing, a value beyond the threshold still fails. But values within the threshold prove nothing,
    # because the missing tag might be beyond it.
    largest = max(present, key=Series.abs_max)
    value = largest.abs_max()
    missing = _missing(data, tags)
    if value <= threshold and missing:
        return _unknown(*missing)
    at = int(largest.steps[int(np.argmax(np.abs(largest.values)))])
    detail = f"largest magnitude in {largest.name} at {at:,}"
    return _judged(value <= threshold, value, min(map(len, present)), min_points, detail)


def mean_difference_below(data: SeriesSet, tags: Tags, threshold: float, min_points: int) -> Measurement:
    """Pass if the mean distance between two tags at their common steps is below the threshold."""
    missing = _missing(data, tags[:2])
    if missing:
        return _unknown(*missing)
    first, second = aligned(data[tags[0]], data[tags[1]])
    if len(first) == 0:
        return Measurement(Status.UNKNOWN, None, "the two tags have no step in common")
    value = float(np.abs(first.values - second.values).mean())
    return _judged(value < threshold, value, len(first), min_points, f"mean over {len(first)} common steps")


def activations_at_most(data: SeriesSet, tags: Tags, threshold: float, min_points: int) -> Measurement:
    """Pass if the number of points at which an alert was active (value 1) is at most ``threshold``."""
    series = data[tags[0]]
    if len(series) == 0:
        return _unknown(tags[0])
    active = series.where(series.values == 1.0)
    first = f", the first at {int(active.steps[0]):,}" if len(active) else ""
    detail = f"{len(active)} of {len(series)} points active{first}"
    return _judged(len(active) <= threshold, float(len(active)), len(series), min_points, detail)


def supported_by_q(data: SeriesSet, tags: Tags, threshold: float, min_points: int) -> Measurement:
    """Pass if the actor's last |loss| is at most ``threshold`` times the largest |Q| of replayed state-action pairs.

    If no Q value was logged, an upper limit of |Q| is estimated from the critic's loss. If |loss| exceeds ``threshold``
    times this limit, the check fails. Otherwise the result is unknown, because the true |Q| may be far below the limit.
    """
    support = actor_loss_support(data)
    if support is None:
        return _unknown(*_missing(data, tags))
    detail = f"the loss ends near {rounded(support.loss)}; it is compared with {support.scale_in_words}"
    # A scale that is estimated from the critic's loss is an upper limit. A loss beyond this limit fails; a loss within
    # it proves nothing.
    if support.estimated and support.ratio <= threshold:
        return Measurement(Status.UNKNOWN, None, f"{detail}; not logged: {', '.join(_missing(data, tags))}")
    return _judged(support.ratio <= threshold, support.ratio, len(data[tags[0]].finite), min_points, detail)


def growth_below(data: SeriesSet, tags: Tags, threshold: float, min_points: int) -> Measurement:
    """Fail if the actor's loss has grown by a large factor and is far larger than the Q values.

    The growth is large if |loss| grows at least by the factor ``threshold`` over the later half of the run, or by the
    factor 100 over the whole run. The loss is far larger than the Q values if |loss| divided by the largest |Q|
    exceeds the constant ``UNSUPPORTED``. If no Q value was logged, a growing loss cannot pass.
    """
    loss = data[tags[0]].finite
    if len(loss) == 0:
        return _unknown(tags[0])
    # The later half, because every healthy loss grows at the start: from 0 to minus the value of the first policy.
    later = loss.tail(0.5)
    growth, whole = growth_factor(later), growth_factor(loss)
    if not np.isfinite(growth):
        # A loss of 0 has no logarithm, so it has no growth factor. It is not a failure.
        if loss.abs_max() == 0.0:
            return _judged(True, 1.0, len(loss), min_points, "the loss is 0 throughout")
        return Measurement(Status.UNKNOWN, None, f"too few points in the later half to show a trend: {len(later)}")
    detail = f"|loss| changed by a factor of {rounded(growth)} over the later half, {rounded(whole)} over the run"
    support = actor_loss_support(data)
    grows = growth >= threshold or whole >= 100.0
    supported = support is None or support.ratio <= UNSUPPORTED
    if grows and supported:
        if support is None or support.estimated:
            return Measurement(Status.UNKNOWN, growth, f"{detail}; no Q value was logged to compare it with")
        detail += f"; it is {rounded(support.ratio)} times the size of Q, so it does not diverge"
    holds = supported or not grows
    return _judged(holds, growth, len(later), min(min_points, 3), detail)


def smooth(data: SeriesSet, tags: Tags, threshold: float, min_points: int) -> Measurement:
    """Pass if Q makes no large jump and no large fall in the later half of the run.

    A jump is the difference between two neighbouring points. A fall is the decrease of the trend. Large means more than
    ``threshold`` times the scale. The scale is the largest |Q| of the run, but at least 1.
    """
    missing = _missing(data, tags)
    if missing:
        return _unknown(*missing)
    worst_jump, worst_fall, n_points = 0.0, 0.0, len(data[tags[0]].finite)
    for tag in tags:
        series = data[tag].finite
        scale = max(1.0, series.abs_max())
        jumps = np.abs(np.diff(series.tail(0.5).values))
        if jumps.size:
            worst_jump = max(worst_jump, float(jumps.max()) / scale)
        change = later_half_change(series)
        if np.isfinite(change):
            worst_fall = max(worst_fall, -change / scale)
        n_points = min(n_points, len(series))
    detail = f"largest jump {worst_jump:.2g}, fall {max(worst_fall, 0.0):.2g} of the largest |Q|, over the later half"
    value = max(worst_jump, worst_fall)
    return _judged(value <= threshold, value, n_points, min_points, detail)


def episode_length_holds(data: SeriesSet, tags: Tags, threshold: float, min_points: int) -> Measurement:
    """Pass if late episodes are at least ``threshold`` times as long as early episodes (medians)."""
    return _episode_lengths(data, tags[0], threshold, min_points, at_ceiling_passes=False)


def episode_length_rises(data: SeriesSet, tags: Tags, threshold: float, min_points: int) -> Measurement:
    """Pass if episodes get longer, or if late episodes are about as long as the longest episode.

    Episodes get longer if late episodes are more than ``threshold`` times as long as early episodes (medians).
    """
    return _episode_lengths(data, tags[0], threshold, min_points, at_ceiling_passes=True)


def _episode_lengths(
    data: SeriesSet, tag: str, threshold: float, min_points: int, *, at_ceiling_passes: bool
) -> Measurement:
    lengths = data[tag].finite
    if len(lengths) == 0:
        return _unknown(tag)
    ends = episode_length_ends(lengths)
    if ends is None:
        return Measurement(Status.UNKNOWN, None, f"too few episodes to compare early with late ones: {len(lengths)}")
    ratio = ends.late / ends.early
    holds = ratio >= threshold
    # Episodes that always reach their time limit cannot grow, so a length within 5 % of the longest episode passes.
    if at_ceiling_passes:
        holds = ratio > threshold or ends.late >= 0.95 * lengths.abs_max()
    detail = (
        f"median length: {rounded(ends.early)} steps in early episodes, {rounded(ends.late)} in late episodes "
        f"({len(lengths)} episodes in all)"
    )
    return _judged(holds, ratio, len(lengths), min(min_points, 4), detail)


def all_finite(data: SeriesSet, tags: Tags, threshold: float, min_points: int) -> Measurement:
    """Pass if no value of the named tags is NaN or infinite.

    If ``tags`` is empty, all logged tags are checked, except derived tags (``DERIVED`` in ``common/tags.py``) and
    ``explained_variance``. The check then also fails if ExplosionAlertCallback ended the training because of a
    non-finite value.
    """
    # Derived tags, such as the bound of undiscounted returns, may be infinite by definition.
    # SB3 writes explained_variance as NaN wherever all returns of a rollout are equal.
    measured = (name for name in data.names() if name not in names.DERIVED)
    chosen = tags or tuple(name for name in measured if not name.endswith("explained_variance"))
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
    ended = ended_not_finite(data)
    if ended is not None and not tags:
        n_bad += 1
        detail = f"{detail}; ExplosionAlertCallback ended the training at {ended:,}: a number was not finite"
    if n_bad <= threshold and missing:
        return _unknown(*missing)
    return _judged(n_bad <= threshold, float(n_bad), n_points, min_points, detail)


def within_bound(data: SeriesSet, tags: Tags, threshold: float, min_points: int) -> Measurement:
    """Pass if every |Q| is at most ``threshold`` times its bound.

    The bound of a Q value is the last bound that was logged at or before the step of the Q value. As long as all
    rewards are 0, this bound is 0, and Q values are left out. If Q values were logged before the first bound, the
    criterion cannot pass.
    """
    bound = data[names.Q_BOUND].finite
    n_points = int((bound.values > 0).sum())
    if n_points == 0:
        return _unknown(names.Q_BOUND)
    value, detail, n_without = -1.0, "", 0
    for series in (data[tag].finite for tag in tags):
        # For each value the index of the latest bound at or before its step, -1 before the first bound.
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
    # Event files hold 32-bit floats: a value that equals its bound must pass after the rounding.
    holds = value <= threshold * (1 + 1e-6)
    missing = _missing(data, tags)
    if value < 0 or (holds and missing):
        return _unknown(*(missing or tags))
    if holds and n_without:
        return Measurement(Status.UNKNOWN, value, f"{detail}; {n_without} values were logged before the first bound")
    return _judged(holds, value, n_points, min_points, detail)


def tail_mean_below(data: SeriesSet, tags: Tags, threshold: float, min_points: int) -> Measurement:
    """Pass if the mean over the last quarter of the steps is below the threshold, for every tag."""
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
    """Pass if the mean over the last quarter of the steps is above the threshold."""
    series = data[tags[0]].finite
    if len(series) == 0:
        return _unknown(tags[0])
    value = series.tail(LAST_QUARTER).mean()
    return _judged(value > threshold, value, len(series), min_points, "mean over the last quarter")


def last_above_baselines(data: SeriesSet, tags: Tags, _threshold: float, min_points: int) -> Measurement:
    """Pass if the last value of the first tag is above the last values of all other tags."""
    # A long run would continue from the policy of the last evaluation.
    policy = data[tags[0]].finite
    if len(policy) == 0:
        return _unknown(tags[0])
    value = float(policy.values[-1])
    baselines = {tag: float(data[tag].finite.values[-1]) for tag in tags[1:] if len(data[tag].finite)}
    detail = f"the last, at {int(policy.steps[-1]):,}"
    if baselines:
        detail += ", against " + ", ".join(f"{rounded(v)} ({tag})" for tag, v in baselines.items())
    limit = max(baselines.values(), default=None)
    holds = limit is None or value > limit
    missing = _missing(data, tags[1:])
    if holds and missing:
        return Measurement(Status.UNKNOWN, value, f"{detail}; not logged: {', '.join(missing)}")
    return _judged(holds, value, len(policy), min_points, detail)._replace(limit=limit)


def gap_within(data: SeriesSet, tags: Tags, threshold: float, min_points: int) -> Measurement:
    """Pass if a gap between Q values stays small, compared with the largest |Q|.

    The median of |gap| over the last quarter must be at most ``threshold`` times the scale. The scale is the largest
    |Q|, but at least 1. The first tag holds the gap, and the second tag holds the Q values.
    """
    missing = _missing(data, tags[:2])
    if missing:
        return _unknown(*missing)
    # The median of |gap|, not |median|: a gap that swings between both signs must not cancel.
    gap = data[tags[0]].finite
    scale = max(FLOOR, data[tags[1]].abs_max())
    value = float(np.median(np.abs(gap.tail(LAST_QUARTER).values))) / scale
    return _judged(
        value <= threshold,
        value,
        len(gap),
        min_points,
        f"median of the last quarter, divided by {q_scale_in_words(scale, 'the largest |Q|')}",
    )


def no_sure_cause(data: SeriesSet, tags: Tags, threshold: float, min_points: int) -> Measurement:
    """Pass if no rule finds a cause with a confidence of ``threshold`` or more, and all of ``tags`` are logged.

    A cause counts only if the tag of its strongest evidence is one of ``tags``. Without this restriction, a run could
    fail merely because it logged more tags.
    """
    # A consequence does not count, because its cause counts. A blind spot does not count either, because it only
    # explains why a problem is not visible.
    causes = [found for found in diagnose(data) if found.role == "cause" and found.evidence[0].tag in tags]
    surest = max(causes, key=lambda found: found.confidence, default=None)
    if surest is None:
        value, detail = 0.0, "no cause found"
    else:
        value = surest.confidence
        strongest = surest.evidence[0]
        detail = f"{surest.id} ({surest.confidence:.0%}): {strongest.tag} {strongest.note}"
    if value >= threshold:
        return Measurement(Status.FAIL, value, detail)
    too_few = [tag for tag in tags if len(data[tag].finite) < min_points]
    if too_few:
        return Measurement(Status.UNKNOWN, None, f"{detail}; not logged, or too few points: {', '.join(too_few)}")
    return Measurement(Status.PASS, value, detail)


def own_scale(data: SeriesSet, _tags: Tags, _threshold: float, _min_points: int) -> Measurement:
    """Pass if the checks in ``own_scale.py`` find no instability."""
    stability = ask(data).stability
    words = "; ".join(sign.words for sign in stability.signs)
    made = ", ".join(stability.checks)
    if stability.answer == "no" and any(sign.id == "non_finite" for sign in stability.signs):
        return Measurement(Status.FAIL, None, words)
    early = too_early(data)
    if early is not None:
        return Measurement(Status.UNKNOWN, None, "; ".join(filter(None, (early, words))))
    if stability.answer == "no":
        return Measurement(Status.FAIL, None, words)
    # A single weak sign does not fail the run: where GradientNormCallback ran, its more exact criteria decide.
    is_watched = any(name.startswith("gradients/") for name in data.names())
    if stability.answer == "yes" or (stability.checks and is_watched):
        weak = f"only weak signs: {words}" if words else f"no sign of an instability in {made or 'what was logged'}"
        return Measurement(Status.PASS, None, weak)
    if not stability.checks:
        words = "neither losses nor Q values are logged under a known name"
    else:
        words = f"signs of an instability, but none is clear: {words}"
    return Measurement(Status.UNKNOWN, None, words)


def learning(data: SeriesSet, _tags: Tags, _threshold: float, _min_points: int) -> Measurement:
    """Pass if the returns rise, or the evaluations are clearly better than the evaluations of untrained policies."""
    found = ask(data).learning
    words = "; ".join(found.reasons)
    early = too_early(data)
    if early is not None:
        return Measurement(Status.UNKNOWN, None, f"{early}; {words}")
    return Measurement(_STATUS_OF[found.answer], None, words)


_STATUS_OF = {"yes": Status.PASS, "no": Status.FAIL, "unknown": Status.UNKNOWN}


_READ_BY_MOST = frozenset(["threshold", "tags", "min_points"])

CHECKS: dict[str, Check] = {
    "mean_below": Check(mean_below, "below"),
    "mean_at_most": Check(mean_at_most, "below"),
    "abs_max_at_most": Check(abs_max_at_most, "below"),
    "mean_difference_below": Check(mean_difference_below, "below", n_tags=2),
    "activations_at_most": Check(activations_at_most, "below"),
    "supported_by_q": Check(supported_by_q, "below", n_tags=2),
    "growth_below": Check(growth_below, "below", n_tags=2),
    "smooth": Check(smooth, "below"),
    "episode_length_holds": Check(episode_length_holds, "above"),
    # Episodes that last as long as they can also pass, whatever the value.
    "episode_length_rises": Check(episode_length_rises, None),
    "all_finite": Check(all_finite, "below", n_tags=0),
    "within_bound": Check(within_bound, "below"),
    "tail_mean_below": Check(tail_mean_below, "below"),
    "tail_mean_above": Check(tail_mean_above, "above"),
    "last_above_baselines": Check(last_above_baselines, "above", ignores=frozenset(["threshold"]), n_tags=2),
    "gap_within": Check(gap_within, "below", n_tags=2),
    "no_sure_cause": Check(no_sure_cause, "below"),
    "own_scale": Check(own_scale, None, ignores=_READ_BY_MOST, n_tags=0),
    "learning": Check(learning, None, ignores=_READ_BY_MOST, n_tags=0),
}
"""Maps each ``kind`` of criteria.yml to its check."""
