"""What a section of the report says, before it is Markdown or HTML: sentences and tables of plain text.

Text of a log may stand anywhere in it; only the renderers know how it is made harmless in their format.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias


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


def text_column(heading: str) -> Column:
    """Return the head of a column of words."""
    return Column(heading)


def columns(first: str, *numbers: str) -> tuple[Column, ...]:
    """Return a column of words and columns of numbers beside it."""
    return (Column(first), *(Column(heading, True) for heading in numbers))


def joined(words: Iterable[Inline]) -> Sentence:
    """Return the words with commas between them."""
    parts: list[Inline] = []
    for word in words:
        parts += [", ", word] if parts else [word]
    return tuple(parts)
