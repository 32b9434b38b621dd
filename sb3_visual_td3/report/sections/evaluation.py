"""What the evaluations found: the policy without noise, beside drivers that know nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.numerals import number
from sb3_visual_td3.diagnosis.series import SeriesSet
from sb3_visual_td3.report.document import Column, Section, Table
from sb3_visual_td3.report.numbers import percent
from sb3_visual_td3.report.sections.points import evenly, value_at

_TAGS = (
    tags.EVAL_REWARD,
    tags.EVAL_SUCCESS_RATE,
    tags.EVAL_LENGTH,
    tags.EVAL_COLLISIONS,
    tags.EVAL_LANE_INVASIONS,
    tags.EVAL_DISTANCE,
    tags.EVAL_RANDOM_DISTANCE,
    tags.EVAL_BRAKE_DISTANCE,
)


class EvaluationRow(NamedTuple):
    """One evaluation; None for what was not logged of it."""

    step: int
    reward: float | None
    success_rate: float | None
    length: float | None
    collisions: float | None
    lane_invasions: float | None
    distance_m: float | None
    random_m: float | None
    full_brake_m: float | None


@dataclass(frozen=True)
class Evaluations:
    """The evaluations of a run, a dozen at most, the last among them."""

    n: int
    rows: tuple[EvaluationRow, ...]


def evaluations(data: SeriesSet) -> Evaluations:
    """Collect the evaluations, by step."""
    series = [data[tag].finite for tag in _TAGS]
    steps = np.unique(np.concatenate([s.steps for s in series]))
    if steps.size == 0:
        return Evaluations(0, ())
    chosen = steps[evenly(steps.size)]
    return Evaluations(
        int(steps.size), tuple(EvaluationRow(step, *(value_at(s, step) for s in series)) for step in chosen.tolist())
    )


def tell_evaluations(found: Evaluations) -> Section | None:
    """Return the section; None where the policy was never evaluated."""
    if not found.rows:
        return None
    heads = ("Step", "Reward", "Success", "Length", "Collisions", "Lane marks", "Metres", "Random, m", "Full brake, m")
    rows = tuple(
        (f"{row.step:,}", number(row.reward), percent(row.success_rate), *map(number, row[3:])) for row in found.rows
    )
    lead = f"{found.n:,} evaluation{'s' if found.n != 1 else ''}" + (
        f", {len(rows)} of them here." if found.n > len(rows) else "."
    )
    return Section("evaluation", "Evaluations", ((lead,),), (Table(tuple(Column(h, True) for h in heads), rows),))
