"""What a rule hands back: a named cause with its evidence."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Protocol

from sb3_visual_td3.diagnosis.series import Series, SeriesSet

Role = Literal["cause", "blind_spot", "consequence"]
"""A blind spot is why a monitor saw nothing; a consequence follows from a cause that was found as well."""


@dataclass(frozen=True)
class Evidence:
    """One point that speaks for a diagnosis.

    :param step: on the tag's own x-axis; None where the whole run speaks.
    :param note: what the value says, in words.
    """

    tag: str
    step: int | None
    value: float
    note: str

    @classmethod
    def last_of(cls, series: Series, note: str) -> Evidence:
        """Take the last point of a series that is not empty."""
        return cls(series.name, int(series.steps[-1]), float(series.values[-1]), note)

    @classmethod
    def largest_of(cls, series: Series, note: str) -> Evidence:
        """Take the largest point of a series that is not empty."""
        at = int(series.values.argmax())
        return cls(series.name, int(series.steps[at]), float(series.values[at]), note)


@dataclass(frozen=True)
class Diagnosis:
    """A named cause (or consequence) that the series speak for.

    :param confidence: in [0, 1].
    :param first_step: environment step at which it first showed; None where the data do not tell.
    :param explained_by: ids of diagnoses of which this one is a mere consequence where they are found.
    :param value: the figure that the rule compared; NaN where it weighed several.
    :param threshold: what it compared that figure with; NaN likewise.
    """

    id: str
    title: str
    confidence: float
    evidence: tuple[Evidence, ...]
    remedy: str
    first_step: int | None
    role: Role = "cause"
    explained_by: tuple[str, ...] = ()
    consequence_of: str | None = None
    value: float = float("nan")
    threshold: float = float("nan")

    def as_consequence_of(self, cause: Diagnosis) -> Diagnosis:
        """Return this diagnosis as a consequence of ``cause``."""
        remedy = f"A consequence of {cause.id}: remedy that first. If it stays afterwards: {self.remedy}"
        return replace(self, role="consequence", consequence_of=cause.id, remedy=remedy)


class Rule(Protocol):
    """One cause: a pure function over the series of a run or of a window of it."""

    def __call__(self, data: SeriesSet) -> Diagnosis | None:
        """Return the diagnosis, or None where nothing speaks for it."""


def bounded(confidence: float) -> float:
    """Return the confidence, kept off certainty."""
    return round(min(max(confidence, 0.0), 0.98), 3)
