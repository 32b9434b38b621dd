"""Values in hyperparameter files, Python literals and YAML, read without running any of it."""

from __future__ import annotations

import ast
from typing import Any

import yaml

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


class PlainLoader(yaml.SafeLoader):
    """PyYAML's safe loader, which also knows how rl-zoo writes an OrderedDict and a tuple."""

    def flatten_mapping(self, node: Any) -> None:
        """Refuse merge keys: a few lines of them can stand for more than a machine holds."""
        if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
            raise yaml.constructor.ConstructorError(
                None, None, "merge keys (<<): write the values out instead", node.start_mark
            )
        super().flatten_mapping(node)


def _ordered_dict(loader: PlainLoader, node: Any) -> dict[Any, Any]:
    try:
        (pairs,) = loader.construct_sequence(node, deep=True)
        return dict(pairs)
    except (TypeError, ValueError) as error:
        raise yaml.constructor.ConstructorError(
            None, None, "expected an OrderedDict as a list of pairs", node.start_mark
        ) from error


def _tuple(loader: PlainLoader, node: Any) -> tuple[Any, ...]:
    return tuple(loader.construct_sequence(node, deep=True))


PlainLoader.add_constructor("tag:yaml.org,2002:python/object/apply:collections.OrderedDict", _ordered_dict)
PlainLoader.add_constructor("tag:yaml.org,2002:python/tuple", _tuple)
