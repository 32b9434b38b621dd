"""Text of a log or of a folder's name, made harmless to whoever looks at it: no terminal obeys it."""

from __future__ import annotations

import re

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
