"""A state as plain JSON and arrays beside it, and the state again from both: data, never code.

A JSON object with one key that starts with ``$`` is a mark: ``{"$array": 3}`` stands for the fourth array, ``$int`` for
an integer beyond 64 bits, ``$float`` for the bits of a nan or an infinity. A dict of the state that has such a key
itself is written as ``{"$dict": {...}}`` and read to the letter: no state can be mistaken for a mark.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.common.saved_state import AnyArray

MAX_DEPTH = 100
"""Deeper is a dict or list that holds itself, or soon more than a JSON reader takes."""
ARRAY_KINDS = "biuf"
"""numpy's letters for bool, int, unsigned int and float."""
_MARK = "$"
_ALLOWED = (
    "a state holds None, booleans, numbers, strings, numpy arrays of numbers, and lists and dicts (with string keys) "
    "of these; keep what it is made from instead"
)

Path = tuple[str, ...]


class NamedArray(NamedTuple):
    """An array and where it is in the tree, like ``replay_buffer.actions``."""

    path: str
    array: NDArray[Any]


class SplitTree(NamedTuple):
    """A tree taken apart: ``plain`` goes into JSON as it is, without nan or infinity in it."""

    plain: dict[str, Any]
    arrays: list[NamedArray]


def split(state: Mapping[str, Any]) -> SplitTree:
    """Take a tree apart; arrays are not copied.

    :param state: as :class:`~sb3_visual_td3.common.types.HasState` returns it; tuples become lists, numpy's scalars
        Python's numbers
    :return: its two parts
    :raises ValueError: if there is something else in it; the message names its place
    """
    if not isinstance(state, Mapping):
        raise ValueError(f"the state is a {type(state).__name__}: expected a dict with string keys")
    arrays: list[NamedArray] = []
    return SplitTree(_plain_dict(state, (), arrays), arrays)


def join(plain: Any, arrays: Sequence[AnyArray]) -> Any:
    """Put a tree together.

    :param plain: as ``split`` made it and JSON brought it back
    :param arrays: in ``split``'s order
    :return: the tree
    :raises ValueError: if ``plain`` has a mark that ``split`` never makes
    """
    if isinstance(plain, list):
        return [join(value, arrays) for value in plain]
    if not isinstance(plain, dict):
        return plain
    if not any(key.startswith(_MARK) for key in plain):
        return {key: join(value, arrays) for key, value in plain.items()}
    if len(plain) == 1:
        ((mark, content),) = plain.items()
        if mark == "$array" and type(content) is int and 0 <= content < len(arrays):
            return arrays[content]
        if mark == "$dict" and isinstance(content, dict):
            return {key: join(value, arrays) for key, value in content.items()}
        if mark in _FROM_TEXT and isinstance(content, str):
            return _FROM_TEXT[mark](content)
    raise ValueError(f"a mark with the keys {', '.join(plain)} is unknown")


def _plain(value: Any, path: Path, arrays: list[NamedArray]) -> Any:
    if len(path) > MAX_DEPTH:
        raise ValueError(f"{'.'.join(path[:5])}... is nested more than {MAX_DEPTH} deep: does it hold itself?")
    if isinstance(value, np.ndarray):
        return _marked_array(value, path, arrays)
    if isinstance(value, Mapping):
        return _plain_dict(value, path, arrays)
    if isinstance(value, list | tuple):
        return [_plain(part, (*path, str(index)), arrays) for index, part in enumerate(value)]
    return _plain_scalar(value, path)


def _plain_scalar(value: Any, path: Path) -> Any:
    if isinstance(value, np.generic) and value.dtype.kind in ARRAY_KINDS and value.dtype.itemsize <= 8:
        value = value.item()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        # Other readers of JSON, and Python itself beyond 4300 digits, lose or refuse long decimals.
        return int(value) if -(2**63) <= value < 2**63 else {"$int": hex(value)}
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"$float": struct.pack(">d", value).hex()}
    if isinstance(value, str):
        return str.__str__(value)
    name = getattr(value, "__name__", "")
    raise ValueError(f"{'.'.join(path)} is a {type(value).__name__}{name and ' '}{name}: {_ALLOWED}")


def _plain_dict(value: Mapping[Any, Any], path: Path, arrays: list[NamedArray]) -> dict[str, Any]:
    for key in value:
        if not isinstance(key, str):
            place = ".".join(path) or "the state"
            raise ValueError(f"{place} has the key {key!r} ({type(key).__name__}): {_ALLOWED}")
    plain = {str.__str__(key): _plain(part, (*path, key), arrays) for key, part in value.items()}
    return {"$dict": plain} if any(key.startswith(_MARK) for key in plain) else plain


def _marked_array(value: NDArray[Any], path: Path, arrays: list[NamedArray]) -> dict[str, int]:
    if value.dtype.kind not in ARRAY_KINDS or isinstance(value, np.ma.MaskedArray):
        kind = "a masked array" if isinstance(value, np.ma.MaskedArray) else f"an array of {value.dtype}"
        raise ValueError(f"{'.'.join(path)} is {kind}: {_ALLOWED}")
    arrays.append(NamedArray(".".join(path), np.asarray(value)))
    return {"$array": len(arrays) - 1}


def _float_from_bits(bits: str) -> float:
    try:
        number: float = struct.unpack(">d", bytes.fromhex(bits))[0]
    except struct.error as error:
        raise ValueError(f"{bits!r} are no bits of a float") from error
    return number


def _int_from_hex(digits: str) -> int:
    return int(digits, 16)


_FROM_TEXT: dict[str, Callable[[str], Any]] = {"$int": _int_from_hex, "$float": _float_from_bits}
