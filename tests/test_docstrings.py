"""All docstrings are written in one dialect: Stable-Baselines3's ``:param name:``, ``:return:``, ``:raises X:``.

ruff checks that the first line is a sentence in the imperative (D401, D415). This file covers the rest.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(
    file for folder in ("sb3_visual_td3", "benchmarks", "docs/_ext") for file in (ROOT / folder).rglob("*.py")
)
OTHER_DIALECTS = re.compile(
    r"^\s*(Args|Arguments|Parameters|Returns|Raises|Yields|Attributes):\s*$|@param|^\s*-{4,}$", re.M
)


def documented() -> Iterator[tuple[str, ast.AST, str]]:
    """Yield the place, the node and the docstring of everything that has one."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, kinds) and (text := ast.get_docstring(node)):
                yield f"{file.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}", node, text


def parameters_of(node: ast.AST) -> set[str]:
    """Return the names of a function's parameters, or those of a class's ``__init__`` and fields."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        given = node.args
        every = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
        return {argument.arg for argument in every if argument is not None}
    names: set[str] = set()
    for part in getattr(node, "body", []):
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
            names.add(part.target.id)  # the field of a dataclass or a NamedTuple
        if isinstance(part, ast.FunctionDef) and part.name in ("__init__", "__new__", "__call__"):
            names |= parameters_of(part)
    return names


def test_no_docstring_starts_with_a_param_field_or_uses_google_or_numpy_style() -> None:
    wrong = [place for place, _, text in documented() if text.startswith(":") or OTHER_DIALECTS.search(text)]
    assert wrong == []


def test_every_documented_parameter_exists() -> None:
    wrong = []
    for place, node, text in documented():
        named = set(re.findall(r"^:param (?:\w+ )?(\w+):", text, re.MULTILINE))
        if isinstance(node, ast.ClassDef) and node.bases and not parameters_of(node):
            continue  # the parameters are those of a base class
        wrong += [
            f"{place} {name}" for name in sorted(named - parameters_of(node)) if "kwargs" not in parameters_of(node)
        ]
    assert wrong == []
