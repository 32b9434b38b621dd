"""Recommended changes as a diff of an rl-zoo hyperparameter file: what follows a + is ready to be pasted."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from sb3_visual_td3.report.hyperparams_found import Layer, RunSettings
from sb3_visual_td3.report.recommendation import Change

_PLAIN_TEXT = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_WORDS_OF_YAML = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}


def zoo_diff(changes: Sequence[Change], settings: RunSettings) -> tuple[str, ...]:
    """Return the lines of the diff; none where there is nothing to change.

    A line with - is one of the run's own settings. Where it has none, its value is not known or comes from a default.
    """
    if not changes:
        return ()
    lines = ["--- as it was run", "+++ recommended"]
    parents = dict.fromkeys(change.key.partition(".")[0] for change in changes)
    for parent in parents:
        nested = [change for change in changes if change.key.startswith(f"{parent}.")]
        lines += _group(parent, nested, settings) if nested else _line(next(c for c in changes if c.key == parent))
    return tuple(lines)


def _line(change: Change, key: str = "", indent: str = "") -> list[str]:
    lines = []
    if change.own_name is not None:
        own = key or change.own_name
        lines.append(f"-{indent}{own}: {as_yaml(change.own_value)}")
    return [*lines, f"+{indent}{key or change.key}: {as_yaml(change.new)}  # {change.reason}"]


def _group(parent: str, changes: Sequence[Change], settings: RunSettings) -> list[str]:
    file = next((layer for layer in settings.file_layers if _mentions(layer, parent)), None)
    own_lines = [line for c in changes for line in _line(c, c.key.removeprefix(f"{parent}."), "  ")]
    if file is None:
        return [f"+{parent}:", *own_lines]
    code = file.code.get(parent)
    if code is None:
        return [f" {parent}:", *own_lines]
    own = file.value_or_group(parent)
    if not isinstance(own, Mapping):
        added = (f"{c.key.removeprefix(f'{parent}.')}={c.new!r}  # {c.reason}" for c in changes)
        return [f" {parent}: {as_yaml(code)}", *(f"+# {parent} is Python code; add to it {each}" for each in added)]
    replaced = {change.key.removeprefix(f"{parent}.") for change in changes}
    kept = [f"+  {as_yaml(k)}: {as_yaml(v)}" for k, v in _nested(own).items() if k not in replaced]
    added_lines = [line for line in own_lines if line.startswith("+")]
    return [f"-{parent}: {as_yaml(code)}", f"+{parent}:", *kept, *added_lines]


def _mentions(layer: Layer, parent: str) -> bool:
    return parent in layer.code or layer.value_or_group(parent) is not None


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return the mapping of mappings that dotted names stand for."""
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *parents, last = name.split(".")
        into = nested
        for parent in parents:
            into = into.setdefault(parent, {})
        into[last] = value
    return nested


def as_yaml(value: Any) -> str:
    """Return a value in one line of YAML 1.1 that PyYAML reads back as the same; text of a file stays text."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{as_yaml(str(key))}: {as_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(as_yaml, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, int):
        return str(value)
    return _text(str(value))


def _float(value: float) -> str:
    if not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        return repr(value)
    digits = next(n for n in range(17) if float(f"{value:.{n}e}") == value)
    mantissa, _, exponent = f"{value:.{max(digits, 1)}e}".partition("e")
    return f"{mantissa}e{int(exponent):+d}"  # YAML 1.1 wants the point and the sign


def _text(text: str) -> str:
    if _PLAIN_TEXT.fullmatch(text) and text.lower() not in _WORDS_OF_YAML:
        return text
    return "".join(map(_escaped, json.dumps(text, ensure_ascii=False)))


def _escaped(character: str) -> str:
    """Return what YAML reads as the character, and Markdown and HTML as nothing of theirs."""
    code = ord(character)
    if character in "<>&`" or not 0x20 <= code < 0x7F:
        return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
    return character
