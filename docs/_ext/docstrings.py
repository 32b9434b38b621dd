"""What docstrings and comments say, by the name that they speak of."""

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
    """:return: what ``:param name:`` says in a docstring, as Markdown on one line, by name"""
    text = inspect.getdoc(documented) or ""
    return {match["name"]: from_docstring(" ".join(match["text"].split())) for match in _PARAM.finditer(text)}


def paragraphs(module: ModuleType) -> tuple[list[str], list[str]]:
    """:return: the paragraphs of a module's docstring as Markdown, those that name a source apart"""
    found = [from_docstring(part) for part in (inspect.getdoc(module) or "").split("\n\n")]
    sources = [part.removeprefix("Source:").strip() for part in found if part.startswith("Source:")]
    sources = [source[:1].upper() + source[1:] for source in sources]
    return [part for part in found if not part.startswith("Source:")], sources


def constants(module: ModuleType) -> dict[str, tuple[float, str]]:
    """:return: the numbers that a module names in capitals, and what the string below each says of it"""
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
    """Read the comments beside the keywords of a call: at the end of their lines, or on lines of their own above.

    :param module: that holds the call
    :param call: name of what is called
    :param first_keyword: of the call that is meant, among others of that name
    :return: by keyword; one that no comment speaks of is absent
    """
    source = inspect.getsource(module)
    lines = source.splitlines()
    calls = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call) and ast.unparse(n.func) == call]
    (meant,) = [n for n in calls if n.keywords and n.keywords[0].arg == first_keyword]
    comments = {}
    for keyword in meant.keywords:
        begin, end = keyword.value.lineno - 1, keyword.value.end_lineno or keyword.value.lineno
        above = []
        while lines[begin - 1].lstrip().startswith("#"):
            begin -= 1
            above.append(lines[begin])
        told = [line.partition("#")[2].strip() for line in [*reversed(above), lines[end - 1]] if "#" in line]
        if keyword.arg and told:
            comments[keyword.arg] = " ".join(told)
    return comments
