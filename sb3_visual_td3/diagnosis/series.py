"""Define series: the values of one logged tag over steps. Series are the only input of criteria and rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, wraps
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.tag_search import is_on_environment_steps

FloatArray = npt.NDArray[np.float64]
StepArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

Result = TypeVar("Result")

MAX_STEP = 2.0**63
"""Every step is below this number, because event files store steps as signed 64-bit integers."""


@dataclass(frozen=True, eq=False)
class Series:
    """Hold the points of one tag, sorted by step.

    :param name: the tag
    :param steps: ``(n,) int64``, in any order; the object sorts the points, and keeps the order of equal steps
    :param values: ``(n,) float64``; NaN and infinities are kept
    :raises ValueError: if steps and values differ in length or are not one-dimensional
    """

    name: str
    steps: StepArray
    values: FloatArray

    def __post_init__(self) -> None:
        steps = np.array(self.steps, dtype=np.int64)
        values = np.array(self.values, dtype=np.float64)
        if steps.ndim != 1 or steps.shape != values.shape:
            raise ValueError(
                f"{self.name}: got steps of shape {steps.shape} and values of shape {values.shape}; "
                "expected two one-dimensional arrays of the same length"
            )
        # A stable sort keeps the order of points at one step: the last one logged stays the last.
        order = np.argsort(steps, kind="stable")
        self._hold(steps[order], values[order])

    def _hold(self, steps: StepArray, values: FloatArray) -> None:
        # Read-only, because several rules share a series and none may change it for the others.
        steps.setflags(write=False)
        values.setflags(write=False)
        object.__setattr__(self, "steps", steps)
        object.__setattr__(self, "values", values)

    def _part(self, chosen: BoolArray | slice) -> Series:
        """Return some of the points, without checking or sorting them again."""
        part = object.__new__(Series)
        object.__setattr__(part, "name", self.name)
        part._hold(self.steps[chosen], self.values[chosen])
        return part

    def __len__(self) -> int:
        return int(self.steps.size)

    @cached_property
    def finite(self) -> Series:
        """Return the points that are neither NaN nor infinite."""
        return self.where(np.isfinite(self.values))

    def where(self, mask: BoolArray) -> Series:
        """Return the points that a ``(n,) bool`` mask selects."""
        return self if bool(mask.all()) else self._part(mask)

    def until(self, step: int) -> Series:
        """Return the points up to a step, that step included."""
        n_points = int(np.searchsorted(self.steps, step, side="right"))
        return self if n_points == len(self) else self._part(slice(n_points))

    @property
    def offsets(self) -> FloatArray:
        """Return the distance of each step from the first step, ``(n,) float64``.

        Small differences between steps above 2^53 stay exact.
        """
        begin = self.steps[:1].astype(np.uint64)
        return (self.steps.astype(np.uint64) - begin).astype(np.float64)

    def tail(self, fraction: float) -> Series:
        """Return the points of the last steps of the series.

        :param fraction: fraction of the distance from the first to the last step, in [0, 1]
        """
        if len(self) == 0:
            return self
        first, last = int(self.steps[0]), int(self.steps[-1])
        return self.where(self.steps >= max(first, last - int(fraction * (last - first))))

    def ends_before(self, step: int) -> bool:
        """Return whether the points end long before a step.

        The distance from the last point must exceed 5 % of ``step``, and twice the longest pause between two points.

        :param step: usually the last step of the run
        """
        finite = self.finite
        if len(finite) == 0:
            return False
        last = int(finite.steps[-1])
        # With a single point, there is no pause between points; the point's step then counts as the longest pause.
        pauses = np.diff(finite.offsets)
        longest = float(pauses.max(initial=0.0)) or max(float(last), 0.0)
        return step - last > max(2.0 * longest, 0.05 * step)

    def abs_max(self) -> float:
        """Return the largest finite magnitude; NaN if no value is finite."""
        values = np.abs(self.finite.values)
        return float(values.max()) if values.size else float("nan")

    def mean(self) -> float:
        """Return the mean of the finite values; NaN if no value is finite."""
        return self._of_scaled(np.mean)

    def std(self) -> float:
        """Return the population standard deviation of the finite values; NaN if no value is finite."""
        return self._of_scaled(np.std)

    def _of_scaled(self, statistic: Callable[[FloatArray], np.floating]) -> float:
        values = self.finite.values
        if values.size == 0:
            return float("nan")
        with np.errstate(over="ignore", invalid="ignore"):
            result = float(statistic(values))
            if np.isfinite(result):
                return result
            # Near the largest double the sum overflows although the mean would not: divide by the largest value first.
            largest = float(np.abs(values).max())
            return float(statistic(values / largest)) * largest

    def median(self) -> float:
        """Return the median of the finite values; NaN if no value is finite."""
        values = self.finite.values
        return float(np.median(values)) if values.size else float("nan")


@dataclass(frozen=True)
class SeriesSet:
    """Hold the series of one run, or of a window of it.

    :param series: tag to series; a tag without a point counts as not logged
    :param known_flags: 0/1 tags from other files such as run.json; used only for tags that the run did not log
    :param counts_environment_steps: whether the x-axis counts environment steps, if the run's files state its unit;
        None if only the names of the tags show the unit
    :param planned_steps: length of the run in environment steps according to its settings; None if unknown
    :param learning_starts: number of environment steps before the first update according to the settings; None if
        unknown
    """

    series: Mapping[str, Series] = field(default_factory=dict)
    known_flags: Mapping[str, bool] = field(default_factory=dict)
    counts_environment_steps: bool | None = None
    planned_steps: float | None = None
    learning_starts: float | None = None
    _results: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def of(cls, series: Iterable[Series]) -> SeriesSet:
        """Build a SeriesSet from single series; the name of each series becomes its tag."""
        return cls({s.name: s for s in series})

    def __contains__(self, name: object) -> bool:
        return name in self.series and len(self.series[str(name)]) > 0

    def __getitem__(self, name: str) -> Series:
        """Return the series of a tag; an empty series if the run did not log the tag."""
        return self.series.get(name) or Series(name, np.empty(0, np.int64), np.empty(0))

    def names(self) -> list[str]:
        """Return the tags that have at least one point, sorted."""
        return sorted(name for name in self.series if name in self)

    def flag(self, name: str) -> bool | None:
        """Return whether a 0/1 tag is 1; None if its value changes, or if it is not known.

        :param name: a tag whose values are 0 and 1
        """
        values = self[name].finite.values
        if values.size == 0:
            return self.known_flags.get(name)
        if (values == 1.0).all():
            return True
        return False if (values == 0.0).all() else None

    @property
    def n_steps(self) -> int | None:
        """Return the length of the run in environment steps; None if no tag shows it."""
        return self.length_from(self.series)

    def length_from(self, names: Iterable[str]) -> int | None:
        """Return the length of the run in environment steps, as the given tags show it.

        The length is the largest step of the tags whose names show that their x-axis counts environment steps, or the
        sum of the episode lengths if that is larger. Tags with an unknown x-axis are used only if no other tag
        shows the length.

        :param names: the tags to read
        :return: the length in environment steps; None if none of these tags shows it
        """
        logged = [name for name in names if name in self]
        known = [int(self[name].steps[-1]) for name in logged if is_on_environment_steps(name)]
        if tags.EPISODE_LENGTH in logged:
            lengths = self[tags.EPISODE_LENGTH].finite.values
            with np.errstate(over="ignore"):
                total = float(lengths[lengths > 0].sum())
            # Absurd lengths, such as 1e300, are not used as lengths of episodes.
            if total < MAX_STEP:
                known.append(int(total))
        if not known:
            known = [int(self[name].steps[-1]) for name in logged if name not in tags.TAGS]
        return max((length for length in known if length >= 0), default=None)


def once_per_run(function: Callable[[SeriesSet], Result]) -> Callable[[SeriesSet], Result]:
    """Decorate a function that takes the series of a run, so that its result is computed only once for each run.

    :param function: a function of the series alone; callers must not modify its result
    """
    key = f"{function.__module__}.{function.__qualname__}"

    @wraps(function)
    def remembering(data: SeriesSet) -> Result:
        if key not in data._results:
            data._results[key] = function(data)
        result: Result = data._results[key]
        return result

    return remembering


def aligned(first: Series, second: Series) -> tuple[Series, Series]:
    """Return the finite points of two series at the steps that both series have.

    If a series has several points at one step, the last of them is used.

    :param first: any series
    :param second: any other series
    :return: two series with the same steps; both are empty without a common step
    """
    a, b = _last_per_step(first.finite), _last_per_step(second.finite)
    _, in_a, in_b = np.intersect1d(a.steps, b.steps, assume_unique=True, return_indices=True)
    return (
        Series(a.name, a.steps[in_a], a.values[in_a]),
        Series(b.name, b.steps[in_b], b.values[in_b]),
    )


def _last_per_step(series: Series) -> Series:
    if len(series) == 0:
        return series
    # A point is kept if the next point has a different step. The last point of the series is always kept.
    return series.where(np.append(np.diff(series.steps) != 0, True))


def not_finite_from(series: Series) -> int | None:
    """Return the step from which a series, finite until then, holds only NaN and infinity; otherwise None.

    NaN between finite values means that there was nothing to log, for example because there was no evaluation. If a
    series has such gaps, NaN at its end means the same, and the result is None. NaN before the first finite value is
    ignored, because there may be nothing to log at first.
    """
    if len(series) == 0:
        return None
    is_finite = np.isfinite(series.values)
    # The order of points at the same step is not known, so any finite value at the last step counts.
    if is_finite[series.steps == series.steps[-1]].any():
        return None
    good = np.flatnonzero(is_finite)
    if good.size == 0:
        return int(series.steps[0])
    if good.size < good[-1] - good[0] + 1:
        return None
    return int(series.steps[good[-1] + 1])


def ended_not_finite(data: SeriesSet) -> int | None:
    """Return the step at which ExplosionAlertCallback ended the training because of a NaN or infinity.

    The NaN or infinity itself may be missing in the log, because the training can end before it is logged.

    :return: an environment step; None if the training did not end for this reason
    """
    alert = data[tags.alert_of_rule("non_finite")].finite
    if len(alert) == 0 or alert.values[-1] == 0.0:
        return None
    off = np.flatnonzero(alert.values == 0.0)
    first_on = int(off[-1]) + 1 if off.size else 0
    return int(alert.steps[first_on])
