"""The data behind a report as CSV: report.csv, a row per tag, and series.csv, a row per point."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import astuple, fields

from sb3_visual_td3.common import tags
from sb3_visual_td3.report.analysis import Analysis, Metric

_STARTS_A_FORMULA = ("=", "+", "-", "@")


def report_csv(analyses: Sequence[Analysis]) -> str:
    """Return one row for each tag of each run, with its statistics."""
    statistics = [f.name for f in fields(Metric)]
    rows = (
        (
            inert(analysis.name),
            analysis.verdict.value,
            inert(tag),
            tags.TAGS[tag].unit if tag in tags.TAGS else "",
            tags.TAGS[tag].x_axis if tag in tags.TAGS else "",
            *astuple(metric),
        )
        for analysis in analyses
        for tag, metric in analysis.metrics.items()
    )
    return _csv(["run", "verdict", "tag", "unit", "x_axis", *statistics], rows)


def series_csv(analyses: Sequence[Analysis]) -> str:
    """Return one row for each point of each run, under our names, by tag and step."""
    rows = (
        (inert(analysis.name), inert(tag), step, value)
        for analysis in analyses
        for tag in analysis.series.names()
        for step, value in zip(analysis.series[tag].steps.tolist(), analysis.series[tag].values.tolist(), strict=True)
    )
    return _csv(["run", "tag", "step", "value"], rows)


def inert(text: str) -> str:
    """Return text that no spreadsheet takes for a formula: one that would start one gets an apostrophe in front.

    Source: OWASP, CSV injection, https://owasp.org/www-community/attacks/CSV_Injection
    """
    # A control character in front is skipped by some; full-width signs count as the plain ones elsewhere.
    visible = unicodedata.normalize("NFKC", text).lstrip("".join(map(chr, range(33))))
    return f"'{text}" if visible.startswith(_STARTS_A_FORMULA) or text[:1] in ("\t", "\r", "\n") else text


def _csv(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    stream = io.StringIO(newline="")
    # Text is quoted: where a spreadsheet splits at semicolons, one within a name must not begin a new cell.
    writer = csv.writer(stream, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    writer.writerow(headings)
    writer.writerows(rows)
    return stream.getvalue()
