"""Python literals in hyperparameter files, read without running them."""

from __future__ import annotations

import ast
from typing import Any

MAX_CHARACTERS = 10_000
"""Longer text is no setting, and Python's parser is not made for hostile input of any length."""


def python_literal(code: str) -> Any:
    """Say what a literal, or ``dict(a=1)`` with such values, stands for; nothing is run.

    :param code: as rl-zoo's files hold it, such as ``"dict(net_arch=[400, 300])"``
    :return: numbers, strings, lists, tuples and mappings of these
    :raises ValueError: if it is anything else
    """
    if len(code) > MAX_CHARACTERS:
        raise ValueError(f"{len(code):,} characters are too many for a literal ({MAX_CHARACTERS:,})")
    try:
        return _value(ast.parse(code.strip(), mode="eval").body)
    except (SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(f"not a literal: {error}") from error


def _value(node: ast.expr) -> Any:
    if not isinstance(node, ast.Call):
        return ast.literal_eval(node)
    if not isinstance(node.func, ast.Name) or node.func.id != "dict" or node.args:
        raise ValueError(f"not a literal: {ast.unparse(node)}")
    if not all(keyword.arg for keyword in node.keywords):
        raise ValueError(f"not a literal: ** in {ast.unparse(node)}")
    return {str(keyword.arg): _value(keyword.value) for keyword in node.keywords}
