"""Files of settings, YAML and JSON, as plain values: nothing in them is ever run, however it is tagged.

rl-zoo writes its config.yml with Python tags that call for PyYAML's unsafe loader. Two of them are harmless as data,
an OrderedDict and a tuple; every other one is refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from sb3_visual_td3.common.literals import PlainLoader

MAX_BYTES = 1_000_000
MAX_VALUES = 10_000
"""Of one file, each use of a YAML alias counted: a few lines can stand for billions of values."""
MAX_DEPTH = 16
LARGEST_INTEGER = 10**18


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a file that holds one mapping, JSON where its name ends so, else YAML.

    :return: plain values: None, booleans, numbers, text, lists, and mappings of these.
    :raises ValueError: if it is none, is tagged to run code, or is too large or too deep; the message is one line
        that names the file.
    :raises OSError: if it cannot be read.
    """
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path}: {path.stat().st_size:,} bytes are too many for settings ({MAX_BYTES:,})")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text file ({error.reason})") from error
    return parse_mapping(text, str(path), is_json=path.suffix.lower() == ".json")


def parse_mapping(text: str, name: str, *, is_json: bool = False) -> dict[str, Any]:
    """Return the mapping that a text holds; see :func:`read_mapping`.

    :param name: of the file, for errors.
    :raises ValueError: as there.
    """
    try:
        content = json.loads(text) if is_json else yaml.load(text, Loader=PlainLoader)
    except yaml.constructor.ConstructorError as error:
        raise ValueError(f"{name}: refused: {_one_line(error)}. Only plain values are read") from error
    except (ValueError, TypeError, yaml.YAMLError) as error:
        kind = "JSON" if is_json else "YAML"
        raise ValueError(f"{name}: not valid {kind}: {_one_line(error)}") from error
    except RecursionError as error:
        raise ValueError(f"{name}: nested too deeply") from error
    if not isinstance(content, dict):
        raise ValueError(f"{name}: expected a mapping of names to values, got {type(content).__name__}")
    return plain_mapping(content, name)


def plain_mapping(content: Mapping[Any, Any], name: str) -> dict[str, Any]:
    """Return a mapping with nothing in it but plain values, few enough and not too deep.

    :param name: of the file, for errors.
    :raises ValueError: where there are too many, or they lie too deep.
    """
    plain: dict[str, Any] = _Plain(name).value(content)
    return plain


class _Plain:
    """Turns loaded content into plain values, counting what it sees."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.n_values = 0

    def value(self, value: Any, depth: int = 0) -> Any:
        self.n_values += 1
        if self.n_values > MAX_VALUES or depth > MAX_DEPTH:
            raise ValueError(
                f"{self.name}: more than {MAX_VALUES:,} values, or nested deeper than {MAX_DEPTH}: no settings"
            )
        if isinstance(value, Mapping):
            return {str(self.value(key, depth)): self.value(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple | set):
            return [self.value(item, depth + 1) for item in value]
        if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
            return math.inf if value > 0 else -math.inf  # Python refuses to write out very long numbers
        return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
