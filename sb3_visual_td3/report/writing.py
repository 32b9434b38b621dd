"""Write the files of a report, each completely or not at all, and render the CSV files."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, fields
from pathlib import Path

from sb3_visual_td3.common import tags
from sb3_visual_td3.common.input_files import read_mapping
from sb3_visual_td3.diagnosis.series import Series
from sb3_visual_td3.report.analysis import Analysis
from sb3_visual_td3.report.document import escaped_in_json, visible
from sb3_visual_td3.report.sections.availability import Metric
from sb3_visual_td3.runs.durable_files import write_atomically
from sb3_visual_td3.runs.manifest import FILE_NAME, is_of_this_package

_STARTS_A_FORMULA = re.compile("(^|[;,|\t\r\n])([\\x00-\\x20]*)(?=[=+@\\-\uff1d\uff0b\uff20\uff0d])")
"""Matches the place before a character that can start a formula in a spreadsheet: ``=``, ``+``, ``-``, ``@`` or the
full-width form of one of them. The character must stand at the start of a text or after a possible separator. Spaces
and control characters may stand before it."""


def report_csv(analyses: Sequence[Analysis]) -> str:
    """Return report.csv: one row for each tag of each run, with its statistics."""
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
    """Return series.csv: one row for each point of each run, sorted by tag (named as in common/tags.py) and step."""
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
    """Escape text for a CSV cell, so that no spreadsheet evaluates the text as a formula.

    An apostrophe is put before each character that could start a formula, such as a ``=`` at the start of the text. An
    event file from another person may have a formula as the name of a tag.

    Source: OWASP, CSV injection, https://owasp.org/www-community/attacks/CSV_Injection

    :param text: text of a cell
    """
    # Python 3.10's csv module can neither write nor read a NUL.
    return _STARTS_A_FORMULA.sub(r"\1'\2", text).replace("\0", "\N{SYMBOL FOR NULL}")


def _csv(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    writer.writerow(headings)
    writer.writerows(rows)
    return stream.getvalue()


def output_folders(output: Path | None, paths: Sequence[Path]) -> tuple[Path, ...]:
    """Return the folders for the reports, in the order in which to try them.

    Without --output, the current folder is returned. If only one path was requested and it holds a run.json of this
    package, also a damaged one, it comes before the current folder. Any other folder may belong to another program.

    :param output: the folder of --output, or None
    :param paths: the paths that were requested
    """
    if output is not None:
        return (output,)
    if len(paths) != 1:
        return (Path(),)
    try:
        is_own = is_of_this_package(read_mapping(paths[0] / FILE_NAME))
    except OSError:
        is_own = False
    except ValueError:
        is_own = True
    return (paths[0], Path()) if is_own else (Path(),)


def write_reports(folders: Sequence[Path], contents: dict[str, str]) -> tuple[Path, ...]:
    """Write all files into the first folder that can be written to.

    :param folders: folders to try, in order
    :param contents: the text of each file, by its name
    :return: the paths of the files
    :raises OSError: the error of the last folder, if no folder can be written to
    """
    error: OSError | None = None
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return tuple(_write(folder / name, text) for name, text in contents.items())
        except OSError as refused:
            error = refused
    assert error is not None
    raise error


def _write(path: Path, text: str) -> Path:
    if path.suffix == ".json":
        text = escaped_in_json(text)
    elif path.suffix not in {".html", ".js"}:
        # A page contains plotly's source, which must stay as it is; its renderer escapes the text of the log.
        text = visible(text)
    write_atomically(path, text)
    return path
