"""Summarise many runs in one table: verdict, first cause, best step, and the last and the best return."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sb3_visual_td3.common import tags
from sb3_visual_td3.common.groups import ACTOR_CNN
from sb3_visual_td3.diagnosis.numerals import number
from sb3_visual_td3.diagnosis.verdict import Status, Verdict
from sb3_visual_td3.report.analysis import Analysis
from sb3_visual_td3.report.next_step import curve_unit

WORST_FIRST = (Verdict.NO_GO, Verdict.INSUFFICIENT, Verdict.GO)
MAX_NAME = 60
"""The console's table shows at most this many characters of a name. The beginning of a longer name is cut off."""
HEADINGS = ("verdict", "run", "likely cause", "steps", "best step", "return: last / best")
"""Headings of the table in the console."""
COMPARED = (
    "Run",
    "Verdict",
    "Likely cause",
    "Blocking: fail / unknown",
    "Steps",
    "Best step",
    "Return: last / best",
    "Actor loss, last",
    "actor_cnn norm, mean",
    "Q1, last",
    "Metres driven, last",
    "Critical alerts",
)
"""Headings of the table that compares several runs, in report.html and report.md."""
N_ALWAYS = 5
"""Number of leading columns that the table always has. Any other column is left out if it is empty for every run."""
ABSENT = "-"


class BestPolicy(NamedTuple):
    """Compare the best policy of a run with its last policy, by the return curve.

    :ivar step: step of the best level
    :ivar last: level of the return over the last tenth of the points
    :ivar best: best level of the return
    :ivar unit: unit of ``step``, such as "step" or "episode"
    """

    step: int
    last: float
    best: float
    unit: str = "step"

    def when(self) -> str:
        """Return the step of the best policy as text, preceded by its unit if this is not a step."""
        return number(self.step) if self.unit == "step" else f"{self.unit} {number(self.step)}"

    def in_words(self) -> str:
        """Return the last and the best level of the return as text, such as "90 / 120"."""
        return f"{number(self.last)} / {number(self.best)}"


def best_policy(analysis: Analysis) -> BestPolicy | None:
    """Find the step of a run's best policy, and compare the returns of the best and the last policy.

    :param analysis: the run
    :return: the comparison; None if the run logged too few returns
    """
    curve = analysis.curve
    if curve is None or curve.peak_step is None:
        return None
    return BestPolicy(curve.peak_step, curve.late, curve.peak, curve_unit(analysis, curve))


def worst_first(analyses: Sequence[Analysis]) -> list[Analysis]:
    """Return the runs in the order of the comparison table: by verdict, then by cause, then by name."""
    return sorted(
        analyses,
        key=lambda each: (WORST_FIRST.index(each.verdict), "" if each.cause is None else each.cause.id, each.name),
    )


def overview_lines(analyses: Sequence[Analysis]) -> list[str]:
    """Return the table that compares several runs, as lines for the console.

    :param analyses: two runs or more
    """
    rows = [HEADINGS, *map(_row, worst_first(analyses))]
    widths = [max(len(row[at]) for row in rows) for at in range(len(HEADINGS))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _row(analysis: Analysis) -> tuple[str, ...]:
    policy = best_policy(analysis)
    name = analysis.name
    if len(name) > MAX_NAME:
        name = f"…{name[1 - MAX_NAME :]}"
    return (
        analysis.verdict.value,
        name,
        ABSENT if analysis.cause is None else analysis.cause.id,
        number(analysis.series.n_steps),
        ABSENT if policy is None else policy.when(),
        ABSENT if policy is None else policy.in_words(),
    )


class ComparedRun(NamedTuple):
    """Hold one row of the table that compares several runs, in report.html and report.md.

    :ivar place: index of the run in the report, from 0
    :ivar cells: one per heading
    """

    place: int
    cells: tuple[str, ...]


class Comparison(NamedTuple):
    """Hold the table that compares several runs in report.html and report.md: one row for each run, worst run first."""

    headings: tuple[str, ...]
    runs: tuple[ComparedRun, ...]


def comparison(analyses: Sequence[Analysis]) -> Comparison:
    """Return the table that compares runs, one row for each, without the columns that are empty for every run.

    :param analyses: the runs in the order of the report
    """
    # Each row of the page links to its run in the report, where the runs are in the order of the command line.
    places = {id(analysis): place for place, analysis in enumerate(analyses)}
    rows = [(places[id(analysis)], _cells(analysis)) for analysis in worst_first(analyses)]
    shown = [at for at in range(len(COMPARED)) if at < N_ALWAYS or any(cells[at] != ABSENT for _, cells in rows)]
    headings = tuple(COMPARED[at] for at in shown)
    runs = []
    for place, cells in rows:
        runs.append(ComparedRun(place, tuple(cells[at] for at in shown)))
    return Comparison(headings, tuple(runs))


def _cells(analysis: Analysis) -> tuple[str, ...]:
    policy = best_policy(analysis)
    critical = analysis.alerts.get("critical")
    n_fail, n_unknown = (len(analysis.blocking(status)) for status in (Status.FAIL, Status.UNKNOWN))
    return (
        analysis.name,
        analysis.verdict.value,
        analysis.cause.id if analysis.cause else ABSENT,
        f"{n_fail} / {n_unknown}",
        number(analysis.series.n_steps),
        ABSENT if policy is None else policy.when(),
        ABSENT if policy is None else policy.in_words(),
        number(_metric(analysis, tags.ACTOR_LOSS, "last")),
        number(_metric(analysis, tags.GRADIENT_NORM[ACTOR_CNN.name], "mean")),
        number(_metric(analysis, tags.Q1_VALUE, "last")),
        number(_metric(analysis, tags.EVAL_DISTANCE, "last")),
        number(critical.n_active if critical else None),
    )


def _metric(analysis: Analysis, tag: str, statistic: str) -> float | None:
    metric = analysis.metrics.get(tag)
    return None if metric is None else float(getattr(metric, statistic))
