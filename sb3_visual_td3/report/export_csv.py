"""The data behind a report as CSV: report.csv, a row per tag, and series.csv, a row per point."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, fields

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.series import Series
from sb3_visual_td3.report.analysis import Analysis
from sb3_visual_td3.report.metric import Metric

_STARTS_A_FORMULA = re.compile("(^|[;,|\t\r\n])([\\x00-\\x20]*)(?=[=+@\\-\uff1d\uff0b\uff20\uff0d])")
"""At the start, or after what a spreadsheet may take for a separator; full-width signs count as the plain ones."""


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
        (run, name, step, value)
        for analysis in analyses
        for run, name, series in _named_series(analysis)
        for step, value in zip(series.steps.tolist(), series.values.tolist(), strict=True)
    )
    return _csv(["run", "tag", "step", "value"], rows)


def _named_series(analysis: Analysis) -> Iterator[tuple[str, str, Series]]:
    run = inert(analysis.name)
    for tag in analysis.series.names():
        yield run, inert(tag), analysis.series[tag]


def inert(text: str) -> str:
    """Return text that no spreadsheet takes for a formula: an apostrophe goes before what would start one.

    Source: OWASP, CSV injection, https://owasp.org/www-community/attacks/CSV_Injection
    """
    return _STARTS_A_FORMULA.sub(r"\1'\2", text)


def _csv(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    writer.writerow(headings)
    writer.writerows(rows)
    return stream.getvalue()
