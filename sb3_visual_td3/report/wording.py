"""The sentences and table rows that every format of the report shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sb3_visual_td3.common import tags
from sb3_visual_td3.common.groups import ACTOR_CNN
from sb3_visual_td3.diagnosis.numerals import counted, number
from sb3_visual_td3.diagnosis.verdict import CriterionResult, Status, Verdict
from sb3_visual_td3.report.analysis import Analysis
from sb3_visual_td3.report.sections.availability import Metric

STATUS_MARK = {
    Status.PASS: "✓",
    Status.FAIL: "✗",
    Status.UNKNOWN: "?",
    Status.NOT_APPLICABLE: "-",
}
STATUS_WORD = {
    Status.PASS: "pass",
    Status.FAIL: "fail",
    Status.UNKNOWN: "unknown",
    Status.NOT_APPLICABLE: "not applicable",
}
FLAG_MARK = "▲"
"""The sign before text that a reader should see first."""

VERDICT_SENTENCE = {
    Verdict.GO: "Every blocking criterion holds. Nothing in this run speaks against a long one.",
    Verdict.NO_GO: "A long run like this one would be wasted.",
    Verdict.INSUFFICIENT: "The logged data do not suffice for a GO; no blocking criterion failed.",
}
_REMEDY_WITHOUT_CAUSE = {
    Verdict.GO: "Start the long run.",
    Verdict.NO_GO: "No known cause fits. Start with the failed criteria and the plots of their tags.",
    Verdict.INSUFFICIENT: (
        "Log what is missing and let the run continue until it can be judged: GradientNormCallback, "
        "ExplosionAlertCallback, DrivingMetricsCallback and DrivingEvalCallback write every tag that the report reads."
    ),
}


def reasons(analysis: Analysis) -> tuple[CriterionResult, ...]:
    """Return the criteria that decided the verdict: the failed ones, otherwise the unknown ones."""
    if analysis.verdict is Verdict.NO_GO:
        return analysis.blocking(Status.FAIL)
    if analysis.verdict is Verdict.INSUFFICIENT:
        return analysis.blocking(Status.UNKNOWN)
    return ()


def reason(result: CriterionResult) -> str:
    """Return what was measured for a criterion, beside its threshold, or why nothing could be measured."""
    if result.value is None:
        return f"{result.detail[:1].upper()}{result.detail[1:]}"
    against = "" if result.threshold is None else f" (threshold {number(result.threshold)})"
    return f"Found: {number(result.value)}{against}; {result.detail}"


def first_step_to_take(analysis: Analysis) -> str:
    """Return the first thing to do about a run."""
    if analysis.cause is not None:
        return analysis.cause.remedy
    return _REMEDY_WITHOUT_CAUSE[analysis.verdict]


def run_line(analysis: Analysis) -> str:
    """Describe a run in one line: its length, and the number of tags, points and files."""
    steps = analysis.series.n_steps
    # Episodes or epochs are no environment steps, and a reader would take them for that.
    length = "unknown length" if steps is None else f"{steps:,} {analysis.data.axis}"
    files = counted(len(analysis.data.files), "file")
    return f"{length} · {len(analysis.metrics)} tags · {analysis.data.n_points:,} points · {files}"


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
    """One run in a comparison of several.

    :param verdict: verdict on the run
    :param cells: one for each of :data:`HEADINGS`
    """

    verdict: Verdict
    cells: tuple[str, ...]


def comparison(analyses: Sequence[Analysis]) -> tuple[ComparisonRow, ...]:
    """Return one row for each run, in the order given."""
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
        number(_metric(analysis, tags.GRADIENT_NORM[ACTOR_CNN.name], "mean")),
        number(_metric(analysis, tags.Q1_VALUE, "last")),
        number(_metric(analysis, tags.EVAL_DISTANCE, "last")),
        number(critical.n_active if critical else None),
    )


def _metric(analysis: Analysis, tag: str, statistic: str) -> float | None:
    metric: Metric | None = analysis.metrics.get(tag)
    return None if metric is None else float(getattr(metric, statistic))
