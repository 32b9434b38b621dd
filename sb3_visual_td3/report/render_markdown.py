"""Render report.md, short enough for the text of a pull request."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from enum import IntEnum

from sb3_visual_td3.diagnosis.findings import Evidence
from sb3_visual_td3.diagnosis.numerals import number
from sb3_visual_td3.diagnosis.verdict import Verdict, worst_verdict
from sb3_visual_td3.report.analysis import Analysis
from sb3_visual_td3.report.document import Code, Flag, Inline, Section, Sentence, Table
from sb3_visual_td3.report.hyperparam_comparison import (
    comparison_table,
    hyperparam_rows,
    other_setting_rows,
    reference_sources,
)
from sb3_visual_td3.report.next_step import next_step
from sb3_visual_td3.report.overview import comparison
from sb3_visual_td3.report.recommendation import zoo_diff
from sb3_visual_td3.report.sections.availability import logged_section, missing_section
from sb3_visual_td3.report.wording import (
    FLAG_MARK,
    STATUS_MARK,
    STATUS_WORD,
    answers_line,
    how_to_relax,
    near_misses,
    over_time_line,
    reason,
    reasons,
    run_line,
    until_line,
    verdict_sentence,
)

MAX_CHARACTERS = 65_536
"""Largest number of characters that GitHub allows in a pull request or a comment. A longer report gets less detail."""


class _Detail(IntEnum):
    """Define how much detail a report shows. Each level shows more than the level before."""

    SHORT = 0
    """The report has only the verdict, its reasons, and what to do first."""
    OPEN = 1
    """The report has all sections, without the tables that ``ALL`` shows as collapsed ``<details>``."""
    ALL = 2
    """The report has all sections, and the collapsed tables too."""


def render_markdown(analyses: Sequence[Analysis], unreadable: Sequence[str] = ()) -> str:
    """Return the text of report.md, with as much detail as fits into a comment on GitHub.

    :param analyses: one run, or several, which are also compared
    :param unreadable: one line per unreadable run
    """
    # Take the most detail that fits; the shortest form is returned whatever its length is.
    for detail in reversed(_Detail):
        text = _render(analyses, unreadable, detail)
        if len(text) <= MAX_CHARACTERS:
            break
    return text


def _render(analyses: Sequence[Analysis], unreadable: Sequence[str], detail: _Detail) -> str:
    lines: list[str] = []
    if len(analyses) != 1:
        lines += [f"# {worst_verdict(a.verdict for a in analyses).value}: {len(analyses)} runs", ""]
        compared = comparison(analyses)
        lines += _table(compared.headings, (run.cells for run in compared.runs))
    for analysis in analyses:
        lines += _run(analysis, detail)
    if unreadable:
        lines += ["## Could not be read", "", *(f"- {_safe(line)}" for line in unreadable), ""]
    if detail is not _Detail.ALL:
        lines += [
            f"To stay within {MAX_CHARACTERS:,} characters, this text leaves out details; report.html has them.",
            "",
        ]
    return "\n".join(lines).rstrip() + "\n"


def _run(analysis: Analysis, detail: _Detail) -> list[str]:
    until = until_line(analysis)
    over_time = over_time_line(analysis)
    lines = [
        f"# {analysis.verdict.value}: {_safe(analysis.name)}",
        "",
        *([] if until is None else [until, ""]),
        verdict_sentence(analysis),
        "",
        _safe(answers_line(analysis)),
        "",
        f"{run_line(analysis)}.",
        "",
        *_why(analysis),
        "## What to do first",
        "",
        *_next_step(analysis),
        *([] if over_time is None else [f"Over time: {over_time}", ""]),
        *[line for near in near_misses(analysis) for line in (f"Near a limit: {_safe(near)}", "")],
    ]
    if detail is _Detail.SHORT:
        return lines
    lines += _diagnoses(analysis)
    lines += _criteria(analysis)
    for section in analysis.sections.as_document():
        lines += _section(section, detail)
    availability = analysis.sections.availability
    lines += _section(logged_section(availability, analysis.metrics), detail)
    lines += _settings(analysis)
    hyperparams = hyperparam_rows(analysis.manifest)
    if hyperparams:
        lines += ["## Hyperparameters (run.json)", "", *_table(("Name", "Value"), hyperparams)]
    missing = missing_section(availability)
    if missing is not None:
        lines += _section(missing, detail)
    if analysis.notes:
        lines += ["## Notes", "", *(f"- {_safe(note)}" for note in analysis.notes), ""]
    return lines


def _next_step(analysis: Analysis) -> list[str]:
    step = next_step(analysis)
    lines = [step.text, ""]
    for snippet in step.snippets:
        lines += [snippet.caption, "", f"```{snippet.language}", *snippet.text.splitlines(), "```", ""]
    return lines


def _why(analysis: Analysis) -> list[str]:
    lines = [f"- {_safe(r.title)}. **{_safe(reason(r))}**" for r in reasons(analysis)]
    if not lines:
        return []
    what = "Required, and not met" if analysis.verdict is Verdict.NO_GO else "Required, and not answered by the data"
    relax = how_to_relax(analysis)
    if relax is not None:
        lines += ["", _safe(relax)]
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
            *(f"- {_evidence(evidence)}" for evidence in diagnosis.evidence),
            "",
        ]
        # The remedy of the cause already stands above, under "What to do first".
        if diagnosis is not analysis.cause:
            lines += [diagnosis.remedy, ""]
    if not lines:
        lines = ["No rule found a known cause.", ""]
    return ["## Diagnosis", "", *lines]


def _evidence(evidence: Evidence) -> str:
    where = "" if evidence.step is None else f"at {evidence.step:,} "
    return f"{_inline(Code(evidence.tag))} {where}is {number(evidence.value)}: {_safe(evidence.note)}"


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


def _settings(analysis: Analysis) -> list[str]:
    """Return the sections on settings: recommended changes, comparison with reference settings, and other settings."""
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


def _section(section: Section, detail: _Detail) -> list[str]:
    lines = [f"## {section.title}", ""]
    mark = "- " if len(section.sentences) > 1 else ""
    lines += [f"{mark}{_sentence(sentence)}" for sentence in section.sentences]
    if section.sentences:
        lines.append("")
    for table in section.tables:
        if detail is _Detail.ALL or not table.folded:
            lines += _section_table(table)
    return lines


def _section_table(table: Table) -> list[str]:
    lines = ["| " + " | ".join(_safe(column.heading) for column in table.columns) + " |"]
    # A colon to the right of the dashes aligns a column to the right.
    lines.append("|" + "|".join(" ---: " if column.is_number else " --- " for column in table.columns) + "|")
    lines += ["| " + " | ".join(_inline(cell, in_table=True) for cell in row) + " |" for row in table.rows]
    lines.append("")
    if table.folded:
        # Markdown within an HTML element is not rendered on its first line, so the caption is plain escaped text.
        caption = html.escape("".join(part if isinstance(part, str) else part.text for part in table.caption))
        return ["<details>", f"<summary>{' '.join(caption.split())}</summary>", "", *lines, "</details>", ""]
    if table.caption:
        return [_sentence(table.caption), "", *lines]
    return lines


def _sentence(sentence: Sentence) -> str:
    return "".join(map(_inline, sentence))


def _inline(part: Inline, *, in_table: bool = False) -> str:
    if isinstance(part, Code):
        return f"`{_in_code(part.text, in_table=in_table)}`"
    if isinstance(part, Flag):
        return f"**{FLAG_MARK} {_safe(part.text)}**"
    return _safe(part)


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(headings) + " |", "|" + " --- |" * len(headings)]
    lines += ["| " + " | ".join(_safe(cell) for cell in row) + " |" for row in rows]
    return [*lines, ""]


_ENTITY = re.compile(r"&(?=#?[A-Za-z0-9]+;)")
_MARKUP = re.compile(
    r"[\\|`\[*~]"
    r"|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])"  # an underscore inside a word, as in ep_rew_mean, is no markup
)


def _safe(text: str) -> str:
    """Escape text of a log, so it can neither end a table cell nor start markup; spaces at both ends stay."""
    begin, end = text[: len(text) - len(text.lstrip())], text[len(text.rstrip()) :]
    # Line breaks become spaces, because a line break ends a table row.
    text = _MARKUP.sub(r"\\\g<0>", " ".join(text.split()))
    text = _ENTITY.sub("&amp;", text).replace("<", "&lt;")
    return f"{' ' if begin and text else ''}{text}{' ' if end else ''}"


def _in_code(text: str, *, in_table: bool) -> str:
    """Return text of a log for a code span, in which Markdown has no escapes."""
    text = " ".join(text.replace("`", "").split())
    if in_table:
        # Markdown splits a table row into cells before it reads code spans, so a bar is escaped even in code. The
        # backslashes before a bar are doubled, because a single one would cancel this escape.
        text = re.sub(r"(\\*)\|", r"\1\1\\|", text)
    return text
