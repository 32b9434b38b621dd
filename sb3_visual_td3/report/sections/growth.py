"""Show the growth of losses and gradient norms: about a dozen points of each, with the factors between them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.numerals import factor, number, of_or_none, signed
from sb3_visual_td3.diagnosis.series import Series, SeriesSet
from sb3_visual_td3.diagnosis.trends import theil_sen_slope
from sb3_visual_td3.report.document import (
    Code,
    Column,
    Section,
    Sentence,
    Table,
    columns,
    number_columns,
    representative,
)

PER_STEPS = 1000

TIMELINE_TAGS = (
    tags.ACTOR_LOSS,
    *tags.GRADIENT_NORM.values(),
    tags.CRITIC_LOSS,
    tags.Q1_VALUE,
)


class GrowthRow(NamedTuple):
    """Hold one row of the growth table: a point of the series, compared with the previous row and the first row.

    :ivar change: change since the previous row; None in the first row
    :ivar multiplier: magnitude divided by that of the previous row; None after a value of 0
    :ivar cumulative: magnitude divided by that of the first row; None if the first value is 0
    """

    step: int
    value: float
    change: float | None
    multiplier: float | None
    cumulative: float | None


@dataclass(frozen=True)
class Timeline:
    """Hold some points of one tag over the run, and the factors by which the magnitude of its values grows.

    :param rows: about a dozen of the points
    :param largest: the largest magnitude
    :param multiplier: last magnitude divided by the first; None if the first is 0
    :param later_half: factor over the later half of the steps, from a robust slope of log|x|; None for too few points
    :param per_1000_steps: factor in 1,000 steps, from the slope over the run; None if the points cover fewer steps
    :param doubling_steps: steps in which the magnitude doubles; None if it does not double within the run
    """

    tag: str
    n_points: int
    rows: tuple[GrowthRow, ...]
    largest: float
    multiplier: float | None
    later_half: float | None
    per_1000_steps: float | None
    doubling_steps: float | None

    @property
    def first(self) -> GrowthRow:
        """Return the first finite point."""
        return self.rows[0]

    @property
    def last(self) -> GrowthRow:
        """Return the last finite point."""
        return self.rows[-1]


@dataclass(frozen=True)
class Growth:
    """Hold a :class:`Timeline` for each loss, gradient norm and Q value that the run logged."""

    timelines: tuple[Timeline, ...]

    def of(self, tag: str) -> Timeline | None:
        """Return the growth of a tag; None if it was not logged."""
        return next((timeline for timeline in self.timelines if timeline.tag == tag), None)


def growth(data: SeriesSet) -> Growth:
    """Compute the growth of losses, gradient norms and Q values over the run."""
    found = (timeline(data[tag]) for tag in TIMELINE_TAGS)
    return Growth(tuple(one for one in found if one is not None))


def timeline(series: Series) -> Timeline | None:
    """Compute the growth of one series; None if it has no finite value."""
    finite = series.finite
    if len(finite) == 0:
        return None
    rows = _rows(representative(finite))
    later_half, per_1000, doubling = _rates(finite)
    return Timeline(
        tag=series.name,
        n_points=len(finite),
        rows=rows,
        largest=finite.abs_max(),
        multiplier=rows[-1].cumulative,
        later_half=later_half,
        per_1000_steps=per_1000,
        doubling_steps=doubling,
    )


def _rows(series: Series) -> tuple[GrowthRow, ...]:
    steps, values = series.steps.tolist(), series.values.tolist()
    rows = [GrowthRow(steps[0], values[0], None, None, _ratio(values[0], values[0]))]
    for i in range(1, len(values)):
        change, before = values[i] - values[i - 1], values[i - 1]
        rows.append(GrowthRow(steps[i], values[i], change, _ratio(values[i], before), _ratio(values[i], values[0])))
    return tuple(rows)


def _ratio(value: float, reference: float) -> float | None:
    return None if reference == 0 else abs(value / reference)


def _rates(series: Series) -> tuple[float | None, float | None, float | None]:
    """Return the growth factors over the later half and per 1,000 steps, and the doubling time in steps.

    Values of 0 are left out. Each result is None if there are too few points for it.
    """
    # Both slopes leave out the values of 0, so the two numbers are comparable.
    later, whole = (part.where(part.values != 0) for part in (series.tail(0.5), series))
    later_slope, slope = log_slope(later), log_slope(whole)
    later_half = None if later_slope is None else _factor(later_slope * _span(later))
    if slope is None:
        return later_half, None, None
    per_1000 = _factor(slope * PER_STEPS) if _span(whole) >= PER_STEPS else None
    # |x| grows as exp(slope * step), so it doubles in log(2) / slope steps.
    doubling = math.log(2) / slope if slope * _span(whole) >= math.log(2) else None
    return later_half, per_1000, doubling


def log_slope(series: Series) -> float | None:
    """Return the robust slope of log|x| per step; None with fewer than two distinct steps.

    :param series: the points, all of them finite and none of them 0
    """
    return of_or_none(theil_sen_slope(series.steps.astype(np.float64), np.log(np.abs(series.values))))


def _span(series: Series) -> float:
    return float(series.steps[-1] - series.steps[0])


def _factor(exponent: float) -> float:
    # math.exp() raises an OverflowError above about 709.78, so the exponent is limited.
    return math.exp(min(max(exponent, -700.0), 700.0))


def growth_section(found: Growth) -> Section | None:
    """Return the section on growth; None if neither losses nor norms nor Q values were logged."""
    if not found.timelines:
        return None
    method: Sentence = (
        'All factors compare magnitudes. The columns "Per 1,000 steps", "Later half" and "Doubles every" come from a '
        "robust slope (Theil-Sen) of log|x|. A single outlier hardly changes this slope. Values of 0 are left out.",
    )
    lead = [_in_one_sentence(one) for tag in (tags.ACTOR_LOSS, tags.Q1_VALUE) if (one := found.of(tag)) is not None]
    tables = [_overview(found), *(_timeline_table(one) for one in found.timelines if one.n_points > 1)]
    return Section("growth", "Losses and gradients over time", (*lead, method), tuple(tables))


def _in_one_sentence(one: Timeline) -> Sentence:
    first, last = one.first, one.last
    said = f" went from {number(first.value)} at step {first.step:,} to {number(last.value)} at step {last.step:,}."
    if one.multiplier is not None:
        said += f" Its last magnitude is {factor(one.multiplier)} the first."
    if one.doubling_steps is not None:
        doubling = number(round(one.doubling_steps))
        said += f" By a robust slope over all points, the magnitude doubled every {doubling} steps."
    return (Code(one.tag), said)


def _overview(found: Growth) -> Table:
    heads = ("Points", "First", "Last", "Largest |x|", "Last / first", "Per 1,000 steps", "Later half")
    rows = tuple(
        (
            Code(one.tag),
            number(one.n_points),
            number(one.first.value),
            number(one.last.value),
            number(one.largest),
            factor(one.multiplier),
            factor(one.per_1000_steps),
            factor(one.later_half),
            "-" if one.doubling_steps is None else f"{number(round(one.doubling_steps))} steps",
        )
        for one in found.timelines
    )
    return Table((*columns("Tag", *heads), Column("Doubles every", is_number=True)), rows)


def _timeline_table(one: Timeline) -> Table:
    rows = tuple(
        (f"{row.step:,}", number(row.value), signed(row.change), factor(row.multiplier), factor(row.cumulative))
        for row in one.rows
    )
    heads = ("Step", "Value", "Change", "Times row above", "Times first row")
    caption: Sentence = (Code(one.tag), f": {len(rows)} of {one.n_points:,} points")
    return Table(number_columns(*heads), rows, caption, folded=one.tag != tags.ACTOR_LOSS)
