"""Compare the gradient norms of encoders and heads, and find out whether they were measured before clipping."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from sb3_visual_td3.common import tags
from sb3_visual_td3.common.groups import ACTOR_CNN, ACTOR_MLP, CRITIC_CNN, CRITIC_MLP, GROUP_NAMES
from sb3_visual_td3.diagnosis.findings import Diagnosis
from sb3_visual_td3.diagnosis.numerals import factor, number, of_or_none, percent, rounded
from sb3_visual_td3.diagnosis.rules import clipping_masks_divergence
from sb3_visual_td3.diagnosis.rules.vanishing_actor_gradient import head_has_vanished
from sb3_visual_td3.diagnosis.series import Series, SeriesSet, aligned
from sb3_visual_td3.report.document import (
    Code,
    Flag,
    Inline,
    Section,
    Sentence,
    Table,
    columns,
    number_columns,
    representative,
)

Taken = Literal["before", "optimizer", "after, by its look", "not said"]
"""States when the gradient norms were measured. report.json contains these texts:

- "before": before clipping
- "optimizer": as the optimizer sees the gradients. If the run clips gradients, this is after clipping
- "after, by its look": probably after clipping, because the curve is constant while the actor's loss diverges
- "not said": the log does not show it
"""

_TAKEN_IN_WORDS: dict[Taken, str] = {
    "before": (
        "The norms were measured before clipping. The log shows this: it has separate tags for the norms after "
        "clipping, or for the fraction of clipped updates."
    ),
    "optimizer": (
        "The norms were measured at the optimizer, after any clipping. A small norm may be a large norm that was "
        "clipped."
    ),
    "after, by its look": (
        "The norms were probably measured after clipping: the norm of the actor's encoder is constant while the "
        "actor's loss diverges. Such norms, and the alerts and criteria that read them, do not show whether the run is "
        "healthy."
    ),
    "not said": "The log does not show whether the norms were measured before or after clipping.",
}

PAIRS = ((ACTOR_CNN.name, CRITIC_CNN.name), (ACTOR_CNN.name, ACTOR_MLP.name), (CRITIC_CNN.name, CRITIC_MLP.name))


@dataclass(frozen=True)
class GroupNorm:
    """Hold the gradient norm of one group over the run, with None for what was not logged.

    :param clip_fraction: fraction of clipped updates over the last quarter of the steps
    :param update_ratio: median of step norm / weight norm
    """

    group: str
    n: int
    mean: float
    max: float
    max_step: int
    last: float
    mean_clipped: float | None
    clip_fraction: float | None
    update_ratio: float | None


class RatioRow(NamedTuple):
    """Hold the norms of two groups at one step, and their ratio; the ratio is None if the denominator is 0."""

    step: int
    numerator: float
    denominator: float
    ratio: float | None


@dataclass(frozen=True)
class NormRatio:
    """Hold the ratio of two groups' norms at their common steps.

    :param n: number of common steps
    :param n_zero: number of common steps with denominator 0, at which there is no ratio
    :param mean: mean of the ratios at single steps; None if every denominator is 0
    :param ratio_of_means: ratio of the mean norms; None if the denominator is 0
    """

    numerator: str
    denominator: str
    n: int
    n_zero: int
    mean: float | None
    median: float | None
    max: float | None
    max_step: int | None
    ratio_of_means: float | None
    rows: tuple[RatioRow, ...]


@dataclass(frozen=True)
class Norms:
    """Hold the numbers about the gradients.

    :param head_has_vanished: whether, at the end of the run, the actor's head gets no gradient although the critics
        still get one; None if the log has too few points
    """

    taken: Taken
    head_has_vanished: bool | None
    groups: tuple[GroupNorm, ...]
    ratios: tuple[NormRatio, ...]


def norms(data: SeriesSet, diagnoses: Sequence[Diagnosis] = ()) -> Norms:
    """Compute the norms of the groups that were logged, and their ratios.

    :param data: the series of the run
    :param diagnoses: diagnoses of the run; ``clipping_masks_divergence`` suggests that norms were measured after
        clipping
    """
    groups = tuple(
        _group(data, group, series) for group in GROUP_NAMES if len(series := data[tags.GRADIENT_NORM[group]].finite)
    )
    ratios = (_ratio(data, numerator, denominator) for numerator, denominator in PAIRS)
    found = tuple(ratio for ratio in ratios if ratio is not None)
    return Norms(_taken(data, diagnoses), head_has_vanished(data), groups, found)


def _taken(data: SeriesSet, diagnoses: Sequence[Diagnosis]) -> Taken:
    # If a log also has the clipped norms or the fraction of clipped updates, its norms were measured before clipping.
    if data.flag(tags.SEEN_BY_OPTIMIZER):
        return "optimizer"
    if any(tag in data for tag in (*tags.GRADIENT_NORM_CLIPPED.values(), *tags.CLIP_FRACTION.values())):
        return "before"
    if any(diagnosis.id == clipping_masks_divergence.ID for diagnosis in diagnoses):
        return "after, by its look"
    return "not said"


def _group(data: SeriesSet, group: str, series: Series) -> GroupNorm:
    at = int(np.argmax(series.values))
    return GroupNorm(
        group=group,
        n=len(series),
        mean=series.mean(),
        max=float(series.values[at]),
        max_step=int(series.steps[at]),
        last=float(series.values[-1]),
        mean_clipped=of_or_none(data[tags.GRADIENT_NORM_CLIPPED[group]].mean()),
        clip_fraction=of_or_none(data[tags.CLIP_FRACTION[group]].finite.tail(0.25).mean()),
        update_ratio=of_or_none(data[tags.UPDATE_RATIO[group]].median()),
    )


def _ratio(data: SeriesSet, numerator: str, denominator: str) -> NormRatio | None:
    above, below = aligned(data[tags.GRADIENT_NORM[numerator]], data[tags.GRADIENT_NORM[denominator]])
    if len(above) == 0:
        return None
    divides = below.values != 0
    ratios = above.values[divides] / below.values[divides]
    mean = median = largest = max_step = None
    if ratios.size:
        mean, median, largest = float(ratios.mean()), float(np.median(ratios)), float(ratios.max())
        max_step = int(above.steps[divides][ratios.argmax()])
    mean_below = below.mean()
    return NormRatio(
        numerator=numerator,
        denominator=denominator,
        n=len(above),
        n_zero=int((~divides).sum()),
        mean=mean,
        median=median,
        max=largest,
        max_step=max_step,
        ratio_of_means=above.mean() / mean_below if mean_below != 0 else None,
        rows=_ratio_rows(above, below),
    )


def _ratio_rows(above: Series, below: Series) -> tuple[RatioRow, ...]:
    chosen = np.isin(above.steps, representative(above).steps)
    steps, tops, bottoms = above.steps[chosen], above.values[chosen], below.values[chosen]
    return tuple(
        RatioRow(step, top, bottom, top / bottom if bottom != 0 else None)
        for step, top, bottom in zip(steps.tolist(), tops.tolist(), bottoms.tolist(), strict=True)
    )


def norms_section(found: Norms) -> Section | None:
    """Return the section on gradient norms; None if no norm was logged."""
    if not found.groups:
        return None
    sentences: list[Sentence] = [(_TAKEN_IN_WORDS[found.taken],), *map(_ratio_sentence, found.ratios)]
    tables = [_group_table(found)]
    if found.ratios:
        tables += [_ratio_table(found.ratios), *map(_ratio_rows_table, found.ratios[:1])]
    return Section("norms", "Gradient norms of the four groups", tuple(sentences), tuple(tables))


def _ratio_sentence(ratio: NormRatio) -> Sentence:
    names: Sentence = ("Norm of ", Code(ratio.numerator), " divided by norm of ", Code(ratio.denominator), ": ")
    if ratio.mean is None or ratio.max is None:
        return (*names, f"{ratio.denominator} is 0 at all {ratio.n} common steps, so there is no ratio.")
    said = f"{factor(ratio.mean)} on average, {factor(ratio.max)} at most (at step {number(ratio.max_step)})."
    if ratio.n_zero:
        said += (
            f" {ratio.denominator} is 0 at {ratio.n_zero} of {ratio.n} common steps; these steps are left out of the "
            "ratios."
        )
    return (*names, said)


def _group_table(found: Norms) -> Table:
    heads = ("Points", "Mean", "Max", "Max at", "Last", "Mean after clipping", "Clipped at the end", "Step / weights")
    rows = tuple(
        (
            Code(group.group),
            number(group.n),
            number(group.mean),
            number(group.max),
            number(group.max_step),
            _last(group, found),
            number(group.mean_clipped),
            percent(group.clip_fraction),
            number(group.update_ratio),
        )
        for group in found.groups
    )
    return Table(columns("Group", *heads), rows)


def _last(group: GroupNorm, found: Norms) -> Inline:
    last = number(group.last)
    if group.group == ACTOR_MLP.name and found.head_has_vanished:
        return Flag(f"{last}, no gradient")
    return last


def _ratio_table(ratios: Sequence[NormRatio]) -> Table:
    heads = ("Common steps", "Denominator 0", "Mean", "Median", "Max", "Max at", "Mean norm / mean norm")
    rows = tuple(
        (
            f"{ratio.numerator} / {ratio.denominator}",
            number(ratio.n),
            number(ratio.n_zero),
            factor(ratio.mean),
            factor(ratio.median),
            factor(ratio.max),
            number(ratio.max_step),
            factor(ratio.ratio_of_means),
        )
        for ratio in ratios
    )
    return Table(columns("Ratio", *heads), rows, ("Ratios at common steps",))


def _ratio_rows_table(ratio: NormRatio) -> Table:
    heads = ("Step", ratio.numerator, ratio.denominator, "Ratio")
    rows = tuple(
        (f"{row.step:,}", number(row.numerator), number(row.denominator), factor(row.ratio)) for row in ratio.rows
    )
    caption = (f"{ratio.numerator} and {ratio.denominator}, {rounded(len(rows))} of {ratio.n:,} common steps",)
    return Table(number_columns(*heads), rows, caption, folded=True)
