"""Compute the numbers about the critics: Q values, how much the critics disagree, and Q compared with its bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.checks import within_bound
from sb3_visual_td3.diagnosis.numerals import factor, number, of_or_none, percent, rounded, signed
from sb3_visual_td3.diagnosis.q_support import FLOOR, QSupport, actor_loss_support, q_scale_in_words
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

Q_TAGS = (tags.Q1_VALUE, tags.Q2_VALUE, tags.TARGET_Q_MEAN, tags.POLICY_Q_VALUE, tags.Q_GAP, tags.Q_BOUND)
LOSS_TAGS = (tags.CRITIC_LOSS, tags.CRITIC_1_LOSS, tags.CRITIC_2_LOSS)
BOUNDED_TAGS = (tags.Q1_VALUE, tags.Q2_VALUE, tags.POLICY_Q_VALUE)

_LARGEST = "the largest |Q| of both critics"
TWINS_SAY_NOTHING = (
    "Twins that agree may still overestimate: critics that learn from the same targets have the same errors."
)


@dataclass(frozen=True)
class Quantity:
    """Hold the statistics of one tag over its finite values; ``largest`` is the largest magnitude."""

    tag: str
    n: int
    first: float
    last: float
    mean: float
    std: float
    largest: float
    largest_step: int


class TwinRow(NamedTuple):
    """Hold the values of both critics at one step."""

    step: int
    q1: float
    q2: float


@dataclass(frozen=True)
class Twins:
    """Describe how much the Q values of the two critics differ, at the steps at which both were logged.

    :param n: number of these steps
    :param mean_distance: mean of |Q1 - Q2|
    :param max_distance: largest |Q1 - Q2|
    :param mean_difference: mean of Q1 - Q2, with its sign
    :param scale: the largest |Q|, at least 1
    """

    n: int
    mean_distance: float
    max_distance: float
    max_step: int
    mean_difference: float
    scale: float
    rows: tuple[TwinRow, ...]

    @property
    def part_of_scale(self) -> float:
        """Return the mean of |Q1 - Q2|, divided by the largest |Q| of both critics (at least 1)."""
        return self.mean_distance / self.scale


class BoundUse(NamedTuple):
    """Hold the largest ratio |Q| / bound of one tag; the rewards allow a ratio of at most 1."""

    tag: str
    part: float


@dataclass(frozen=True)
class Critics:
    """Hold the numbers about the critics.

    :param twins: how much the two critics differ; None if they were never logged at the same step
    :param gap: median of policy_q_value - q1_value over the last quarter; None if it was not logged
    :param support: comparison of the actor's loss with the largest |Q| of state-action pairs from the replay buffer. If
        no Q value was logged, the largest |Q| is estimated from the critic's loss. None if the actor's loss is missing,
        or if neither Q values nor the critic's loss were logged
    """

    values: tuple[Quantity, ...]
    losses: tuple[Quantity, ...]
    twins: Twins | None
    bound_use: tuple[BoundUse, ...]
    gap: float | None
    support: QSupport | None

    @property
    def largest_bound_use(self) -> BoundUse | None:
        """Return the largest ratio of a Q value to its bound, with the value's tag; None if no bound was logged."""
        return max(self.bound_use, key=lambda use: use.part, default=None)


def critics(data: SeriesSet) -> Critics:
    """Compute the numbers about the critics."""
    return Critics(
        values=_quantities(data, Q_TAGS),
        losses=_quantities(data, LOSS_TAGS),
        twins=_twins(data),
        bound_use=tuple(use for tag in BOUNDED_TAGS if (use := _bound_use(data, tag)) is not None),
        gap=of_or_none(data[tags.Q_GAP].finite.tail(0.25).median()),
        support=actor_loss_support(data),
    )


def _quantities(data: SeriesSet, names: tuple[str, ...]) -> tuple[Quantity, ...]:
    return tuple(_quantity(series) for tag in names if len(series := data[tag].finite))


def _quantity(series: Series) -> Quantity:
    magnitudes = np.abs(series.values)
    at = int(magnitudes.argmax())
    return Quantity(
        tag=series.name,
        n=len(series),
        first=float(series.values[0]),
        last=float(series.values[-1]),
        mean=float(series.values.mean()),
        std=float(series.values.std()),
        largest=float(magnitudes[at]),
        largest_step=int(series.steps[at]),
    )


def _twins(data: SeriesSet) -> Twins | None:
    q1, q2 = aligned(data[tags.Q1_VALUE], data[tags.Q2_VALUE])
    if len(q1) == 0:
        return None
    differences = q1.values - q2.values
    distances = np.abs(differences)
    at = int(distances.argmax())
    chosen = np.isin(q1.steps, representative(q1).steps)
    return Twins(
        n=len(q1),
        mean_distance=float(distances.mean()),
        max_distance=float(distances[at]),
        max_step=int(q1.steps[at]),
        mean_difference=float(differences.mean()),
        scale=max(FLOOR, q1.abs_max(), q2.abs_max()),
        rows=tuple(map(TwinRow, q1.steps[chosen].tolist(), q1.values[chosen].tolist(), q2.values[chosen].tolist())),
    )


def _bound_use(data: SeriesSet, tag: str) -> BoundUse | None:
    # With a threshold of 0, the check of the criterion within_bound measures the largest |Q| / bound.
    part = within_bound(data, (tag,), 0.0, 1).value
    return None if part is None else BoundUse(tag, part)


def critics_section(found: Critics) -> Section | None:
    """Return the section on the critics; None if neither a Q value nor a loss of the critics was logged."""
    if not found.values and not found.losses:
        return None
    sentences = [*_twins_sentence(found), *_bound_sentence(found), *_gap_sentence(found), *_support_sentence(found)]
    tables = [_quantity_table(found)]
    if found.twins is not None and found.twins.n > 1:
        tables.append(_twins_table(found.twins))
    return Section("critics", "Q values and the twin critics", tuple(sentences), tuple(tables))


def _twins_sentence(found: Critics) -> list[Sentence]:
    twins = found.twins
    if twins is None:
        return [("It is not known whether the critics agree, because Q1 and Q2 were never logged at the same step.",)]
    said = (
        f"Mean |Q1 - Q2| is {number(twins.mean_distance)} over {twins.n:,} common steps. This is "
        f"{percent(twins.part_of_scale)} of {q_scale_in_words(twins.scale, _LARGEST)}. The largest difference is "
        f"{number(twins.max_distance)}, at step {twins.max_step:,}. {TWINS_SAY_NOTHING}"
    )
    return [(said,)]


def _bound_sentence(found: Critics) -> list[Sentence]:
    # The bound max|R| / (1 - discount) is loose: exceeding it proves an error, staying within it proves nothing.
    use = found.largest_bound_use
    if use is None:
        return [
            (
                "It is not known whether Q lies beyond what the rewards allow: ",
                Code(tags.Q_BOUND),
                " was not logged (GradientNormCallback writes it).",
            )
        ]
    if use.part > 1.0 + 1e-6:
        said = f" reaches {factor(use.part)} its bound. The rewards allow no |Q| above it, so the critic overestimates."
        return [(Flag(use.tag), said)]
    said = (
        f" reaches at most {percent(use.part)} of its bound. The rewards allow no |Q| above the bound. A |Q| below the "
        "bound may still be too large."
    )
    return [(Code(use.tag), said)]


def _gap_sentence(found: Critics) -> list[Sentence]:
    if found.gap is None:
        return []
    higher = "lower" if found.gap < 0 else "higher"
    said = (
        f" ends at {signed(found.gap)} (median of the last quarter). The critic rates the policy's own actions this "
        f"much {higher} than replayed actions."
    )
    if found.twins is not None:
        scale = found.twins.scale
        said += f" This is {percent(abs(found.gap) / scale)} of {q_scale_in_words(scale, _LARGEST)}."
    return [(Code(tags.Q_GAP), said)]


def _support_sentence(found: Critics) -> list[Sentence]:
    support = found.support
    if support is None:
        return []
    said = (
        f" ends near {rounded(support.loss)}. Its magnitude is {rounded(support.ratio)} times {support.scale_in_words}."
    )
    if support.first_unsupported_step is not None:
        said += (
            f" At step {support.first_unsupported_step:,}, the loss became too large for these Q values. The actor is "
            "trained on the Q values of its own actions. They can grow while the Q values on replayed pairs stay small."
        )
    return [(Code(tags.ACTOR_LOSS), said)]


def _quantity_table(found: Critics) -> Table:
    use = dict(found.bound_use)
    rows = tuple(
        (
            Code(one.tag),
            number(one.n),
            number(one.first),
            number(one.last),
            number(one.mean),
            number(one.std),
            number(one.largest),
            number(one.largest_step),
            _use(use.get(one.tag)),
        )
        for one in (*found.values, *found.losses)
    )
    heads = ("Points", "First", "Last", "Mean", "Std", "Largest |x|", "Largest at", "Of its bound, at most")
    return Table(columns("Tag", *heads), rows)


def _use(part: float | None) -> Inline:
    return Flag(percent(part)) if part is not None and part > 1.0 + 1e-6 else percent(part)


def _twins_table(twins: Twins) -> Table:
    rows = tuple(
        (
            f"{row.step:,}",
            number(row.q1),
            number(row.q2),
            number(min(row.q1, row.q2)),
            signed(row.q1 - row.q2),
        )
        for row in twins.rows
    )
    heads = ("Step", "Q1", "Q2", "Smaller of the two", "Q1 - Q2")
    caption = (f"The twin critics, {len(rows)} of {twins.n:,} common steps",)
    return Table(number_columns(*heads), rows, caption, folded=True)
