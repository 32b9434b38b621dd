"""report.md: the analysis as it fits into a pull request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.numerals import number
from sb3_visual_td3.diagnosis.verdict import Verdict, worst_verdict
from sb3_visual_td3.report.analysis import Analysis
from sb3_visual_td3.report.compare import HEADINGS, comparison
from sb3_visual_td3.report.hyperparam_comparison import comparison_table, reference_sources
from sb3_visual_td3.report.hyperparams import hyperparam_rows, other_setting_rows
from sb3_visual_td3.report.wording import (
    STATUS_MARK,
    STATUS_WORD,
    VERDICT_SENTENCE,
    first_step_to_take,
    reason,
    reasons,
    run_line,
)
from sb3_visual_td3.report.zoo_diff import zoo_diff


def render_markdown(analyses: Sequence[Analysis], unreadable: Sequence[str] = ()) -> str:
    """Return the text of report.md."""
    lines: list[str] = []
    if len(analyses) != 1:
        lines += [f"# {worst_verdict(a.verdict for a in analyses).value}: {len(analyses)} runs", ""]
        lines += _table(HEADINGS, (row.cells for row in comparison(analyses)))
    for analysis in analyses:
        lines += _run(analysis)
    if unreadable:
        lines += ["## Could not be read", "", *(f"- {_safe(line)}" for line in unreadable), ""]
    return "\n".join(lines).rstrip() + "\n"


def _run(analysis: Analysis) -> list[str]:
    return [
        f"# {analysis.verdict.value}: {_safe(analysis.name)}",
        "",
        VERDICT_SENTENCE[analysis.verdict],
        "",
        f"{run_line(analysis)}.",
        "",
        *_why(analysis),
        "## What to do first",
        "",
        first_step_to_take(analysis),
        "",
        *_diagnoses(analysis),
        *_criteria(analysis),
        *_alerts(analysis),
        *_metrics(analysis),
        *_settings(analysis),
        *_rest(analysis),
    ]


def _why(analysis: Analysis) -> list[str]:
    lines = [f"- {_safe(r.title)}. **{_safe(reason(r))}**" for r in reasons(analysis)]
    if not lines:
        return []
    what = "Required, and not met" if analysis.verdict is Verdict.NO_GO else "Required, and not answered by the data"
    return ["## Why", "", f"{what}:", "", *lines, ""]


def _diagnoses(analysis: Analysis) -> list[str]:
    lines: list[str] = []
    for diagnosis in analysis.diagnoses:
        since = "" if diagnosis.first_step is None else f", from step {diagnosis.first_step:,}"
        lines += [
            f"### {diagnosis.title}",
            "",
            f"`{diagnosis.id}` · {diagnosis.role.replace('_', ' ')} · confidence {diagnosis.confidence:.0%}{since}",
            "",
            *(
                f"- `{_safe(e.tag)}` {'' if e.step is None else f'at {e.step:,} '}is {number(e.value)}: {_safe(e.note)}"
                for e in diagnosis.evidence
            ),
            "",
        ]
        if diagnosis is not analysis.cause:
            lines += [diagnosis.remedy, ""]
    return ["## Diagnosis", "", *lines] if lines else ["## Diagnosis", "", "No rule found a known cause.", ""]


def _criteria(analysis: Analysis) -> list[str]:
    rows = (
        (
            f"{STATUS_MARK[r.status]} {STATUS_WORD[r.status]}",
            r.title,
            "yes" if r.blocking else "no",
            number(r.value),
            number(r.threshold),
            r.detail,
            r.source,
        )
        for r in analysis.criteria
    )
    headings = ("Status", "What must hold", "Blocking", "Value", "Threshold", "Measured", "Source")
    return ["## Criteria", "", *_table(headings, rows)]


def _alerts(analysis: Analysis) -> list[str]:
    if not analysis.alerts:
        return []
    rows = (
        (name, number(alert.n_active), number(alert.n_points), number(alert.first_step))
        for name, alert in analysis.alerts.items()
    )
    return ["## Alerts", "", *_table(("Alert", "Active", "Points logged", "First active at"), rows)]


def _metrics(analysis: Analysis) -> list[str]:
    rows = (
        (
            f"`{tag.replace('`', '')}`",
            tags.TAGS[tag].unit if tag in tags.TAGS else "",
            number(m.n),
            number(m.first),
            number(m.last),
            number(m.mean),
            number(m.std),
            number(m.min),
            number(m.max),
            f"{m.first_step:,} to {m.last_step:,}",
        )
        for tag, m in analysis.metrics.items()
    )
    headings = ("Tag", "Unit", "Points", "First", "Last", "Mean", "Std", "Min", "Max", "Steps")
    return ["## Metrics", "", *_table(headings, rows)]


def _settings(analysis: Analysis) -> list[str]:
    """What the run was made with: recommended changes, against well-known settings, and from which file."""
    lines: list[str] = []
    if analysis.recommendation.code or analysis.recommendation.changes:
        lines += ["## Recommended changes", ""]
        lines += [line for code in analysis.recommendation.code.values() for line in (_safe(code), "")]
    diff = zoo_diff(analysis.recommendation.changes, analysis.settings)
    if diff:
        lines += ["```diff", *diff, "```", ""]
    if analysis.hyperparams:
        headings, rows = comparison_table(analysis.hyperparams)
        lines += ["## Hyperparameters against well-known ones", "", *_table(headings, rows), reference_sources(), ""]
    others = other_setting_rows(analysis.settings)
    if others:
        lines += ["## Hyperparameters (other files)", "", *_table(("Name", "Value", "Source"), others)]
    return lines


def _rest(analysis: Analysis) -> list[str]:
    lines: list[str] = []
    hyperparams = hyperparam_rows(analysis.manifest)
    if hyperparams:
        lines += ["## Hyperparameters (run.json)", "", *_table(("Name", "Value"), hyperparams)]
    if analysis.missing:
        names = ", ".join(f"`{tag}`" for tag in analysis.missing)
        lines += ["## Not logged", "", f"{len(analysis.missing)} of {len(tags.TAGS)} names: {names}", ""]
    if analysis.notes:
        lines += ["## Notes", "", *(f"- {_safe(note)}" for note in analysis.notes), ""]
    return lines


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(headings) + " |", "|" + " --- |" * len(headings)]
    lines += ["| " + " | ".join(_safe(cell) for cell in row) + " |" for row in rows]
    return [*lines, ""]


def _safe(text: str) -> str:
    """Return text of a log as text: no table cell ends early, no markup starts."""
    text = " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")
    return text.replace("<", "&lt;").replace("[", "\\[")
