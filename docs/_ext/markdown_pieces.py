"""Format tables, code and docstrings as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_ROLE = re.compile(r":(?:\w+:)*\w+:`~?([^`]+)`")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; vertical bars in its cells are escaped."""
    lines = [list(header), ["---"] * len(header), *map(list, rows)]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def code(text: object) -> str:
    """Return the text as inline code, or an empty string for an empty text."""
    return f"`{text}`" if str(text) else ""


def from_docstring(text: str) -> str:
    """Convert the reStructuredText of a docstring to Markdown: roles and double backquotes become inline code."""
    return re.sub(r"``([^`]+)``", r"`\1`", _ROLE.sub(_last_name, text))


def _last_name(match: re.Match[str]) -> str:
    return f"`{match[1].rpartition('.')[2]}`"
