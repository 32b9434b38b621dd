"""Several runs side by side: what differs, in one row each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.numerals import number
from sb3_visual_td3.diagnosis.verdict import Status, Verdict
from sb3_visual_td3.report.analysis import Analysis
from sb3_visual_td3.report.metric import Metric

HEADINGS = (
    "Run",
    "Verdict",
    "Likely cause",
    "Blocking: fail / unknown",
    "Steps",
    "Actor loss, last",
    "actor_cnn norm, mean",
    "Q1, last",
    "Metres driven, last",
    "Critical alerts",
)


@dataclass(frozen=True)
class ComparisonRow:
    """One run of a comparison.

    :param cells: under :data:`HEADINGS`.
    """

    verdict: Verdict
    cells: tuple[str, ...]


def comparison(analyses: Sequence[Analysis]) -> tuple[ComparisonRow, ...]:
    """Return one row per run, in the order given."""
    return tuple(ComparisonRow(analysis.verdict, _cells(analysis)) for analysis in analyses)


def _cells(analysis: Analysis) -> tuple[str, ...]:
    critical = analysis.alerts.get("critical")
    n_fail, n_unknown = (len(analysis.blocking(status)) for status in (Status.FAIL, Status.UNKNOWN))
    return (
        analysis.name,
        analysis.verdict.value,
        analysis.cause.id if analysis.cause else "-",
        f"{n_fail} / {n_unknown}",
        number(analysis.series.n_steps),
        number(_metric(analysis, tags.ACTOR_LOSS, "last")),
        number(_metric(analysis, tags.GRADIENT_NORM["actor_cnn"], "mean")),
        number(_metric(analysis, tags.Q1_VALUE, "last")),
        number(_metric(analysis, tags.EVAL_DISTANCE, "last")),
        number(critical.n_active if critical else None),
    )


def _metric(analysis: Analysis, tag: str, statistic: str) -> float | None:
    metric: Metric | None = analysis.metrics.get(tag)
    return None if metric is None else float(getattr(metric, statistic))
