"""One table over many runs: verdict, first cause, best step, and the last policy compared with the best one.

A folder of a project often holds dozens of runs. The table lists the runs that need attention first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sb3_visual_td3.diagnosis.numerals import number
from sb3_visual_td3.diagnosis.verdict import Verdict
from sb3_visual_td3.report.analysis import Analysis

WORST_FIRST = (Verdict.NO_GO, Verdict.INSUFFICIENT, Verdict.GO)
MAX_NAME = 60
"""Characters of a name that the table in the console shows; its end is kept, because names often begin alike."""
HEADINGS = ("verdict", "run", "likely cause", "steps", "best step", "return: last / best")


class BestPolicy(NamedTuple):
    """The best policy of a run and the last one, as the return curve shows them.

    :ivar step: step near which the best level was reached
    :ivar last: level of the last tenth
    :ivar best: best level
    """

    step: int
    last: float
    best: float

    def in_words(self) -> str:
        """Return the last level beside the best one."""
        return f"{number(self.last)} / {number(self.best)}"


def best_policy(analysis: Analysis) -> BestPolicy | None:
    """Return the best policy of a run; None if no return was logged, or too few points."""
    curve = analysis.curve
    if curve is None or curve.peak_step is None:
        return None
    return BestPolicy(curve.peak_step, curve.late, curve.peak)


def worst_first(analyses: Sequence[Analysis]) -> list[Analysis]:
    """Return the runs in the order of the table: by verdict, then by cause, then by name."""
    return sorted(
        analyses,
        key=lambda each: (WORST_FIRST.index(each.verdict), "" if each.cause is None else each.cause.id, each.name),
    )


def overview_lines(analyses: Sequence[Analysis]) -> list[str]:
    """Return the table as lines for the console.

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
        "-" if analysis.cause is None else analysis.cause.id,
        number(analysis.series.n_steps),
        "-" if policy is None else number(policy.step),
        "-" if policy is None else policy.in_words(),
    )
