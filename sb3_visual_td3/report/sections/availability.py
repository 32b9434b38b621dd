"""List the logged tags by kind with their statistics, and the known tags that were not logged."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sb3_visual_td3.common import tags
from sb3_visual_td3.common.tags import TAGS, Tag
from sb3_visual_td3.diagnosis.criteria import callbacks_that_fit
from sb3_visual_td3.diagnosis.numerals import number, step_range
from sb3_visual_td3.diagnosis.series import Series, SeriesSet
from sb3_visual_td3.diagnosis.tag_search import find_returns
from sb3_visual_td3.diagnosis.verdict import CriterionResult, Status
from sb3_visual_td3.report.document import Code, Column, Section, Sentence, Table, columns, joined

OTHER = "other"


def _starts(prefix: str) -> Callable[[str], bool]:
    return lambda tag: tag.startswith(prefix)


KINDS: dict[str, tuple[str, Callable[[str], bool]]] = {
    "episode": ("Episode level", tags.is_on_episodes),
    "update": ("Update level: losses and Q values", _starts("train/")),
    "norms": ("Gradients", _starts("gradients/")),
    "alerts": ("Alerts", _starts("alerts/")),
    "agent": ("Agent", _starts("agent/")),
    "reward": ("Reward terms", _starts("reward/")),
    "progress": ("Progress", _starts("progress/")),
    "eval": ("Evaluation", _starts("eval/")),
    OTHER: ("Other names", lambda _: True),
}
"""Title and test of each kind, by id. A tag belongs to the first kind whose test it passes."""


def kind_of(tag: str) -> str:
    """Return the kind under which the report lists a tag, as an id such as ``"norms"`` or ``"alerts"``."""
    return next(kind for kind, (_, holds) in KINDS.items() if holds(tag))


@dataclass(frozen=True)
class Logged:
    """Describe one tag that was logged."""

    tag: str
    n: int
    first_step: int
    last_step: int


@dataclass(frozen=True)
class Missing:
    """Describe one known tag that the run did not log; ``needed_by`` holds the criteria that are unknown without it."""

    tag: str
    meaning: str
    owner: str
    needed_by: tuple[str, ...]


@dataclass(frozen=True)
class Kind:
    """Hold the logged and the missing tags of one kind; ``id`` is a key of :data:`KINDS`, such as "norms"."""

    id: str
    title: str
    logged: tuple[Logged, ...]
    missing: tuple[Missing, ...]

    @property
    def n_points(self) -> int:
        """Return the number of points of all tags of this kind."""
        return sum(one.n for one in self.logged)


@dataclass(frozen=True)
class Availability:
    """Hold the logged and the missing tags of a run by kind, without the empty kinds."""

    kinds: tuple[Kind, ...]


def availability(data: SeriesSet, criteria: Sequence[CriterionResult] = ()) -> Availability:
    """Group the logged tags by kind, and also the known tags that were not logged.

    :param data: the series of the run
    :param criteria: results of the criteria, which name the tags they lack
    """
    logged: dict[str, list[Logged]] = {kind: [] for kind in KINDS}
    missing: dict[str, list[Missing]] = {kind: [] for kind in KINDS}
    returns = {found.name for found in find_returns(data.names())}
    for tag in data.names():
        series = data[tag]
        kind = kind_of(tag)
        if kind == "reward" and tag in returns:  # other code may log returns under this prefix, such as reward/eval
            kind = OTHER
        logged[kind].append(Logged(tag, len(series), int(series.steps[0]), int(series.steps[-1])))
    # Tags that cannot exist in such a run, such as critics' gradients in a PPO run, do not count as missing.
    fits = callbacks_that_fit(data)
    for tag, row in TAGS.items():
        if tag not in data and row.owner in fits:
            missing[kind_of(tag)].append(_missing(row, criteria))
    kinds = (Kind(kind, title, tuple(logged[kind]), tuple(missing[kind])) for kind, (title, _) in KINDS.items())
    return Availability(tuple(kind for kind in kinds if kind.logged or kind.missing))


def _missing(row: Tag, criteria: Sequence[CriterionResult]) -> Missing:
    # A criterion lists its tags. Its detail may mention another tag that the criterion reads, such as the bound of Q.
    unknown = (r for r in criteria if r.status is Status.UNKNOWN or r.needs_callback is not None)
    needed_by = tuple(r.id for r in unknown if row.name in r.tags or row.name in re.split(r"[\s,;]+", r.detail))
    return Missing(row.name, row.meaning, row.owner, needed_by)


def logged_section(found: Availability, metrics: Mapping[str, Metric]) -> Section:
    """Return the section on logged tags: a summary by kind, and the statistics of each tag.

    :param found: the tags by kind
    :param metrics: the statistics of each tag
    """
    summary = tuple(
        (
            kind.title,
            number(len(kind.logged)),
            number(len(kind.missing)),
            number(kind.n_points),
            _range(kind),
        )
        for kind in found.kinds
    )
    table = Table(columns("Kind", "Tags logged", "Known tags missing", "Points", "From, to"), summary)
    details = (_statistics(kind, metrics) for kind in found.kinds if kind.logged)
    return Section("metrics", "Metrics", (), (table, *details))


def _unit(kind: Kind) -> str:
    return "episode" if kind.id == "episode" else ""


def _range(kind: Kind) -> str:
    if not kind.logged:
        return "-"
    first, last = min(one.first_step for one in kind.logged), max(one.last_step for one in kind.logged)
    return step_range(first, last, _unit(kind))


def _statistics(kind: Kind, metrics: Mapping[str, Metric]) -> Table:
    rows = []
    for one in kind.logged:
        m = metrics[one.tag]
        figures = (number(m.n), number(m.first), number(m.last), number(m.mean), number(m.std))
        unit = TAGS[one.tag].unit if one.tag in TAGS else ""
        where = step_range(m.first_step, m.last_step, _unit(kind))
        rows.append((Code(one.tag), unit, *figures, number(m.min), number(m.max), where))
    heads = ("Points", "First", "Last", "Mean", "Std", "Min", "Max", "From, to")
    heading = (Column("Tag"), *columns("Unit", *heads))
    return Table(heading, tuple(rows), (f"{kind.title}: {len(rows)} logged",), folded=True)


def missing_section(found: Availability) -> Section | None:
    """Return the section on known tags that were not logged; None if all were logged."""
    kinds = [kind for kind in found.kinds if kind.missing]
    if not kinds:
        return None
    n_missing = sum(len(kind.missing) for kind in kinds)
    needed = [Code(one.tag) for kind in kinds for one in kind.missing if one.needed_by]
    n_known = n_missing + sum(one.tag in tags.TAGS for kind in found.kinds for one in kind.logged)
    sentences: list[Sentence] = [
        (f"The report knows {n_known} tags that fit this kind of run. The run did not log {n_missing} of them.",)
    ]
    if needed:
        sentences.append(("Criteria are unknown without ", *joined(needed), "."))
    rows = tuple(
        (Code(one.tag), one.meaning, ", ".join(one.needed_by) or "-", one.owner)
        for kind in kinds
        for one in kind.missing
    )
    heading = tuple(map(Column, ("Tag", "What it shows", "Criteria unknown without it", "Written by")))
    table = Table(heading, rows, ("All names that were not logged",), folded=True)
    return Section("missing", "Not logged", tuple(sentences), (table,))


@dataclass(frozen=True)
class Metric:
    """Hold the statistics of one tag; mean, std, min and max leave out values that are not finite."""

    n: int
    first: float
    last: float
    mean: float
    std: float
    min: float
    max: float
    first_step: int
    last_step: int

    @classmethod
    def of(cls, series: Series) -> Metric:
        """Compute the statistics of a series that is not empty, with the population standard deviation."""
        finite = series.finite.values
        if finite.size == 0:
            finite = np.array([np.nan])
        return cls(
            n=len(series),
            first=float(series.values[0]),
            last=float(series.values[-1]),
            mean=series.mean(),
            std=series.std(),
            min=float(finite.min()),
            max=float(finite.max()),
            first_step=int(series.steps[0]),
            last_step=int(series.steps[-1]),
        )
