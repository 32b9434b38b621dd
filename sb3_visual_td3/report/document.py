"""Define the building blocks of a report: sections, tables, and text without control characters.

Sections may contain untrusted names from a log, which each renderer escapes for its format.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np

from sb3_visual_td3.diagnosis.series import Series, StepArray

_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # terminals interpret these; tab and newline stay
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # these change the direction of the text that follows
    "\u2028\u2029"  # these end a line
    "\ud800-\udfff]"  # halves of a character: bytes of a file name that are not UTF-8
)
_LINE_ENDS = re.compile(r"[\t\n]")


def visible(text: str) -> str:
    """Return a text in which U+FFFD replaces each control character except tab and newline."""
    return _OBEYED.sub("\N{REPLACEMENT CHARACTER}", text)


def visible_line(text: str, n_characters: int = 1000) -> str:
    """Return a text as one line of limited length, without control characters.

    :param text: any text
    :param n_characters: the largest length; a longer line ends with an ellipsis
    """
    line = _LINE_ENDS.sub("\N{REPLACEMENT CHARACTER}", visible(text))
    return line if len(line) <= n_characters else f"{line[: n_characters - 1]}…"


def escaped_in_json(text: str) -> str:
    """Escape the control characters of a JSON text without changing its meaning.

    :param text: output of ``json.dumps``, where non-ASCII characters appear within strings only
    """
    return _OBEYED.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


class Code(NamedTuple):
    """Mark a name that is shown as code."""

    text: str


class Flag(NamedTuple):
    """Mark text that a reader should see first. Renderers add a sign to it, because colour is not enough."""

    text: str


Inline: TypeAlias = "str | Code | Flag"
Sentence: TypeAlias = "tuple[Inline, ...]"


class Column(NamedTuple):
    """Describe a column by its heading and alignment; numbers are aligned to the right."""

    heading: str
    is_number: bool = False


@dataclass(frozen=True)
class Table:
    """Hold the rows of a table under their headings.

    :param rows: one cell per column
    :param folded: whether a reader has to open the table; folded tables are left out first if space is short
    :raises ValueError: if a row does not have one cell per column
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[Inline, ...], ...]
    caption: Sentence = ()
    folded: bool = False

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"a row has {len(row)} cells: {row}; expected {len(self.columns)} cells")


@dataclass(frozen=True)
class Section:
    """Hold one part of the report.

    :param id: an anchor to link to, in lower case with hyphens
    :param title: the heading
    :param sentences: text before the tables
    """

    id: str
    title: str
    sentences: tuple[Sentence, ...] = ()
    tables: tuple[Table, ...] = ()


def columns(first: str, *numbers: str) -> tuple[Column, ...]:
    """Describe the columns of a table: a first column of text, followed by columns of numbers."""
    return (Column(first), *number_columns(*numbers))


def number_columns(*headings: str) -> tuple[Column, ...]:
    """Describe columns of numbers: one column for each heading."""
    return tuple(Column(heading, is_number=True) for heading in headings)


def joined(words: Iterable[Inline]) -> Sentence:
    """Return names or other parts of a sentence with commas between them."""
    parts: list[Inline] = []
    for word in words:
        parts += [", ", word] if parts else [word]
    return tuple(parts)


MAX_ROWS = 12
"""Number of rows of a table that shows a long series."""


def representative(series: Series, n_rows: int = MAX_ROWS) -> Series:
    """Return about a dozen evenly spaced points of a series, with its first, last and largest point.

    :param series: at least one point, all of them finite
    :param n_rows: number of points, not counting the point of the largest magnitude
    """
    # A reader often looks for the point of the largest magnitude, and even spacing would miss it.
    chosen = np.union1d(evenly(len(series), n_rows), [int(np.argmax(np.abs(series.values)))])
    return Series(series.name, series.steps[chosen], series.values[chosen])


def evenly(n: int, n_rows: int = MAX_ROWS) -> StepArray:
    """Return at most ``n_rows`` evenly spaced indices of ``n`` rows, with the first and the last index."""
    return np.unique(np.linspace(0, n - 1, min(n_rows, n)).round().astype(np.int64))


def value_at(series: Series, step: int) -> float | None:
    """Return the last value at a step; None if the series has no point there."""
    at = int(np.searchsorted(series.steps, step, side="right")) - 1
    return float(series.values[at]) if at >= 0 and series.steps[at] == step else None
