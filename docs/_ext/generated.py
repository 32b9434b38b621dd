"""Sphinx extension that replaces ``<!-- generated: NAME -->`` in a page by text generated from the package.

A code host such as GitHub shows the pages without the generated text. Lines that begin with ``>`` directly below the
comment say where to find that text. The extension removes these lines.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from command_help import command_sections
from criteria_table import criteria_table, criteria_tags
from diagnosis_sections import diagnosis_index, diagnosis_sections
from doctor_table import doctor_table
from logged_names import logged_names
from repository import DOCS, read, relinked
from settings_table import settings_table

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_MARK = re.compile(r"^<!-- generated: (?P<name>[a-z-]+) -->(\n> .*)*$", re.MULTILINE)


def _changelog() -> str:
    return relinked(read("CHANGELOG.md").partition("\n")[2], "", DOCS)


def _contributing() -> str:
    return relinked(read("CONTRIBUTING.md").partition("\n")[2], "", DOCS)


def _benchmarks() -> str:
    return relinked(read("benchmarks/README.md").partition("\n")[2], "benchmarks", DOCS)


GENERATORS: Mapping[str, Callable[[], str]] = {
    "benchmarks": _benchmarks,
    "changelog": _changelog,
    "commands": command_sections,
    "contributing": _contributing,
    "criteria": criteria_table,
    "criteria-tags": criteria_tags,
    "diagnoses": diagnosis_sections,
    "diagnosis-index": diagnosis_index,
    "doctor": doctor_table,
    "logged-names": logged_names,
    "settings": settings_table,
}
"""The function that generates each text, by the name that a page uses."""


def filled_in(text: str) -> str:
    """Replace the comments of a page, and the quoted lines directly below them, by the generated texts.

    :param text: the page, in Markdown
    :return: the page with the generated texts
    :raises KeyError: if a comment names an unknown text
    """
    return _MARK.sub(lambda match: GENERATORS[match["name"]](), text)


def _on_source_read(_app: Sphinx, docname: str, source: list[str]) -> None:
    folder = posixpath.join(DOCS, posixpath.dirname(docname))
    source[0] = filled_in(relinked(source[0], folder, folder))


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the extension to Sphinx.

    :param app: the Sphinx application
    :return: the metadata of the extension
    """
    app.connect("source-read", _on_source_read)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
