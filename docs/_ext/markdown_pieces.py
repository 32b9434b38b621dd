"""Small pieces of Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_ROLE = re.compile(r":(?:\w+:)*\w+:`~?([^`]+)`")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """:return: a table; bars within its cells are escaped"""
    lines = [list(header), ["---"] * len(header), *map(list, rows)]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def code(text: object) -> str:
    """:return: the text in a code span, or nothing for nothing"""
    return f"`{text}`" if str(text) else ""


def from_docstring(text: str) -> str:
    """:return: reStructuredText as docstrings here have it, in Markdown: roles and double backquotes become code"""
    return re.sub(r"``([^`]+)``", r"`\1`", _ROLE.sub(_last_name, text))


def _last_name(match: re.Match[str]) -> str:
    return f"`{match[1].rpartition('.')[2]}`"
