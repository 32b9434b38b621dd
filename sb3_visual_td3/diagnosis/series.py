"""Named, stepped values: the only thing that a criterion or a rule reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sb3_visual_td3.common import tags

FloatArray = npt.NDArray[np.float64]
StepArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

MAX_STEP = 2.0**63
"""Event files count steps in signed 64 bits."""


@dataclass(frozen=True, eq=False)
class Series:
    """The points of one tag, ordered by step.

    :param name: the tag.
    :param steps: ``(n,) int64``, not decreasing.
    :param values: ``(n,) float64``; NaN and infinities are kept.
    :raises ValueError: if the two differ in length or are not one-dimensional.
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
                "expected two one-dimensional arrays of one length"
            )
        order = np.argsort(steps, kind="stable")
        steps, values = steps[order], values[order]
        steps.setflags(write=False)
        values.setflags(write=False)
        object.__setattr__(self, "steps", steps)
        object.__setattr__(self, "values", values)

    def __len__(self) -> int:
        return int(self.steps.size)

    @property
    def finite(self) -> Series:
        """The points whose value is neither NaN nor infinite."""
        return self.where(np.isfinite(self.values))

    def where(self, mask: BoolArray) -> Series:
        """Return the points that ``mask`` selects."""
        return self if bool(mask.all()) else Series(self.name, self.steps[mask], self.values[mask])

    @property
    def offsets(self) -> FloatArray:
        """Return how far each point lies behind the first: ``(n,) float64``.

        Doubles hold whole numbers up to 2^53 only; differences of larger steps are exact here where they are small.
        """
        begin = self.steps[:1].astype(np.uint64)
        return (self.steps.astype(np.uint64) - begin).astype(np.float64)

    def tail(self, fraction: float) -> Series:
        """Return the points in the last ``fraction`` of the steps that the series spans."""
        if len(self) == 0:
            return self
        first, last = int(self.steps[0]), int(self.steps[-1])
        return self.where(self.steps >= max(first, last - int(fraction * (last - first))))

    def up_to(self, step: int) -> Series:
        """Return the points at or before ``step``."""
        return self.where(self.steps <= step)

    def ends_before(self, step: int) -> bool:
        """Return whether the points break off long before a step.

        By more than a twentieth of it, and than twice the longest pause that the points made before.
        """
        finite = self.finite
        if len(finite) == 0:
            return False
        last = int(finite.steps[-1])
        pauses = np.diff(finite.offsets)
        longest = float(pauses.max(initial=0.0)) or max(float(last), 0.0)
        return step - last > max(2.0 * longest, 0.05 * step)

    def abs_max(self) -> float:
        """Return the largest finite magnitude; NaN where there is none."""
        values = np.abs(self.finite.values)
        return float(values.max()) if values.size else float("nan")

    def mean(self) -> float:
        """Return the mean of the finite values; NaN where there is none."""
        return self._of_scaled(np.mean)

    def std(self) -> float:
        """Return the standard deviation of the finite values, as of a whole population; NaN where there is none."""
        return self._of_scaled(np.std)

    def _of_scaled(self, statistic: Callable[[FloatArray], np.floating]) -> float:
        values = self.finite.values
        if values.size == 0:
            return float("nan")
        with np.errstate(over="ignore", invalid="ignore"):
            result = float(statistic(values))
            if np.isfinite(result):
                return result
            # Near the largest double a sum overflows where its mean does not.
            largest = float(np.abs(values).max())
            return float(statistic(values / largest)) * largest

    def median(self) -> float:
        """Return the median of the finite values; NaN where there is none."""
        values = self.finite.values
        return float(np.median(values)) if values.size else float("nan")


@dataclass(frozen=True)
class SeriesSet:
    """The series of one run, or of a window of it.

    :param series: by tag; a tag without a point is the same as an absent one.
    :param known_flags: what is known of 0/1 tags from elsewhere, such as run.json; it counts where nothing was logged.
    """

    series: Mapping[str, Series] = field(default_factory=dict)
    known_flags: Mapping[str, bool] = field(default_factory=dict)

    @classmethod
    def of(cls, series: Iterable[Series]) -> SeriesSet:
        """Build a set from single series."""
        return cls({s.name: s for s in series})

    def __contains__(self, name: object) -> bool:
        return name in self.series and len(self.series[str(name)]) > 0

    def __getitem__(self, name: str) -> Series:
        """Return the series of a tag; an empty one where the run did not log it."""
        return self.series.get(name) or Series(name, np.empty(0, np.int64), np.empty(0))

    def names(self) -> list[str]:
        """Return the tags that have at least one point, sorted."""
        return sorted(name for name in self.series if name in self)

    def flag(self, name: str) -> bool | None:
        """Return whether a 0/1 tag is 1; None where it is not always the same; where it is not logged, what is told.

        A flag excuses (a shared encoder, scaled rewards): one that contradicts itself excuses nothing.
        """
        values = self[name].finite.values
        if values.size == 0:
            return self.known_flags.get(name)
        if (values == 1.0).all():
            return True
        return False if (values == 0.0).all() else None

    @property
    def n_steps(self) -> int | None:
        """Length of the run in environment steps; None where no tag tells."""
        return self.length_from(self.series)

    def length_from(self, names: Iterable[str]) -> int | None:
        """Return the length of the run in environment steps, as far as these tags tell.

        The table's tags with that x-axis tell, and so does the sum of the episode lengths (their own
        x-axis is the episode). Tags outside the table count only where the table's say nothing.
        """
        logged = [name for name in names if name in self]
        known = [int(self[name].steps[-1]) for name in logged if is_on_steps(name)]
        if tags.EPISODE_LENGTH in logged:
            lengths = self[tags.EPISODE_LENGTH].finite.values
            with np.errstate(over="ignore"):
                total = float(lengths[lengths > 0].sum())
            if total < MAX_STEP:
                known.append(int(total))
        if not known:
            known = [int(self[name].steps[-1]) for name in logged if name not in tags.TAGS]
        return max((length for length in known if length >= 0), default=None)


def is_on_steps(name: str) -> bool:
    """Return whether a tag stands in the table with environment steps as its x-axis."""
    return name in tags.TAGS and tags.TAGS[name].x_axis == "step"


def aligned(first: Series, second: Series) -> tuple[Series, Series]:
    """Return the finite points of two series at the steps that both have (the last point of each step)."""
    a, b = _last_per_step(first.finite), _last_per_step(second.finite)
    _, in_a, in_b = np.intersect1d(a.steps, b.steps, assume_unique=True, return_indices=True)
    return (
        Series(a.name, a.steps[in_a], a.values[in_a]),
        Series(b.name, b.steps[in_b], b.values[in_b]),
    )


def _last_per_step(series: Series) -> Series:
    if len(series) == 0:
        return series
    return series.where(np.append(np.diff(series.steps) != 0, True))
