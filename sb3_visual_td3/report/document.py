"""The pieces that a report is made of: sections, tables and text that no terminal obeys.

Text of a log may stand anywhere in it; only the renderers know how it is made harmless in their format.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np

from sb3_visual_td3.diagnosis.series import Series, StepArray

_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # terminals obey these; tab and newline are left
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # these turn the direction of what follows
    "\u2028\u2029"  # these end a line
    "\ud800-\udfff]"  # halves of a character: bytes of a name that are no UTF-8
)
_LINE_ENDS = re.compile(r"[\t\n]")


def visible(text: str) -> str:
    """Return the text with a replacement character for each control character but tab and newline."""
    return _OBEYED.sub("\N{REPLACEMENT CHARACTER}", text)


def visible_line(text: str, n_characters: int = 1000) -> str:
    """Return the text as one line that is not endless."""
    line = _LINE_ENDS.sub("\N{REPLACEMENT CHARACTER}", visible(text))
    return line if len(line) <= n_characters else f"{line[: n_characters - 1]}…"


def escaped_in_json(text: str) -> str:
    """Return JSON in which control characters stand as escapes: it says the same.

    :param text: of json.dumps: what is no ASCII stands within strings alone.
    """
    return _OBEYED.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


class Code(NamedTuple):
    """A name, shown as it is spelled."""

    text: str


class Flag(NamedTuple):
    """What should be seen first. A sign tells it, never a colour alone."""

    text: str


Inline: TypeAlias = "str | Code | Flag"
Sentence: TypeAlias = "tuple[Inline, ...]"


class Column(NamedTuple):
    """The head of a column; numbers stand to the right."""

    heading: str
    is_number: bool = False


@dataclass(frozen=True)
class Table:
    """Rows under headings.

    :param folded: detail that a reader opens; the first thing to go where there is little room.
    :raises ValueError: if a row has another number of cells than there are columns.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[Inline, ...], ...]
    caption: Sentence = ()
    folded: bool = False

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"{len(row)} cells under {len(self.columns)} columns: {row}")


@dataclass(frozen=True)
class Section:
    """One part of the report.

    :param id: lower case and hyphens: a place to link to.
    """

    id: str
    title: str
    sentences: tuple[Sentence, ...] = ()
    tables: tuple[Table, ...] = ()


def columns(first: str, *numbers: str) -> tuple[Column, ...]:
    """Return a column of words and columns of numbers beside it."""
    return (Column(first), *(Column(heading, True) for heading in numbers))


def joined(words: Iterable[Inline]) -> Sentence:
    """Return the words with commas between them."""
    parts: list[Inline] = []
    for word in words:
        parts += [", ", word] if parts else [word]
    return tuple(parts)


MAX_ROWS = 12


def representative(series: Series, n_rows: int = MAX_ROWS) -> Series:
    """Return about a dozen points, evenly chosen: both ends, and the largest magnitude.

    :param series: finite, not empty.
    """
    chosen = np.union1d(evenly(len(series), n_rows), [int(np.argmax(np.abs(series.values)))])
    return Series(series.name, series.steps[chosen], series.values[chosen])


def evenly(n: int, n_rows: int = MAX_ROWS) -> StepArray:
    """Return the indices of at most ``n_rows`` of ``n`` rows, evenly chosen, both ends among them."""
    return np.unique(np.linspace(0, n - 1, min(n_rows, n)).round().astype(np.int64))


def value_at(series: Series, step: int) -> float | None:
    """Return the last value at a step; None where the series has none there."""
    at = int(np.searchsorted(series.steps, step, side="right")) - 1
    return float(series.values[at]) if at >= 0 and series.steps[at] == step else None
