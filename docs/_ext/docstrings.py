"""Read descriptions of parameters, constants and keywords from docstrings and comments."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from markdown_pieces import from_docstring

_PARAM = re.compile(r"^:param (?P<name>\w+): (?P<text>.*?)(?=^\S|\n\n|\Z)", re.MULTILINE | re.DOTALL)


def parameters(documented: object) -> dict[str, str]:
    """Return the text of each ``:param name:`` of a docstring by name, as one line of Markdown."""
    text = inspect.getdoc(documented) or ""
    return {match["name"]: from_docstring(" ".join(match["text"].split())) for match in _PARAM.finditer(text)}


def paragraphs(module: ModuleType) -> tuple[list[str], list[str]]:
    """Split the docstring of a module into paragraphs of Markdown.

    :param module: the module
    :return: the paragraphs that do not begin with "Source:", and the paragraphs that do, without this word
    """
    found = [from_docstring(part) for part in (inspect.getdoc(module) or "").split("\n\n")]
    sources = [part.removeprefix("Source:").strip() for part in found if part.startswith("Source:")]
    sources = [source[:1].upper() + source[1:] for source in sources]
    return [part for part in found if not part.startswith("Source:")], sources


def constants(module: ModuleType) -> dict[str, tuple[float, str]]:
    """Return the numeric constants of a module by name, each with its value and the docstring below it."""
    body = ast.parse(inspect.getsource(module)).body
    found: dict[str, tuple[float, str]] = {}
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            value: Any = getattr(module, name)
            if name.isupper() and isinstance(value, int | float) and not isinstance(value, bool):
                found[name] = (value, from_docstring(_text_of(after)))
    return found


def _text_of(node: ast.stmt | None) -> str:
    is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    return " ".join(node.value.value.split()) if is_text else ""  # type: ignore[union-attr]


def keyword_comments(module: ModuleType, call: str, first_keyword: str) -> Mapping[str, str]:
    """Read the comments next to the keywords of a call, at the end of the line or on the lines above it.

    :param module: the module that contains the call
    :param call: the name of the called object
    :param first_keyword: the first keyword of the call; it selects one of several calls of the same name
    :return: the comment of each keyword that has one
    """
    source = inspect.getsource(module)
    lines = source.splitlines()
    calls = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call) and ast.unparse(n.func) == call]
    (selected,) = [n for n in calls if n.keywords and n.keywords[0].arg == first_keyword]
    comments = {}
    for keyword in selected.keywords:
        begin, end = keyword.value.lineno - 1, keyword.value.end_lineno or keyword.value.lineno
        above = []
        while lines[begin - 1].lstrip().startswith("#"):
            begin -= 1
            above.append(lines[begin])
        texts = [line.partition("#")[2].strip() for line in [*reversed(above), lines[end - 1]] if "#" in line]
        if keyword.arg and texts:
            comments[keyword.arg] = " ".join(texts)
    return comments
