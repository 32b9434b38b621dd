"""Other people's values as plain data, and back; class paths."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from sb3_visual_td3.common.saved_state import StoredArray


def class_path(cls: type) -> str:
    """:return: where the class is found: ``package.module.Class``"""
    return f"{cls.__module__}.{cls.__qualname__}"


INF = float("inf")


def map_leaves(value: Any, convert: Callable[[Any, str], Any], name: str = "") -> Any:
    """Rebuild nested mappings, lists and tuples as dicts and lists in which every leaf is converted.

    :param value: a mapping with keys that ``str`` turns into text, a list, a tuple, or a leaf
    :param convert: takes a leaf and its place, such as ``policy_kwargs.net_arch[0]``, and returns what replaces it
    :param name: the place of the value itself
    :return: the dict, the list or the converted leaf
    """
    if isinstance(value, Mapping):
        return {str(key): map_leaves(item, convert, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [map_leaves(item, convert, f"{name}[{index}]") for index, item in enumerate(value)]
    return convert(value, name)


def as_plain(value: Any, name: str) -> Any:
    """Turn a value into a state: None, booleans, numbers, strings, arrays, and lists and dicts of these.

    NumPy's scalars become arrays without dimensions, since arithmetic tells them from Python's numbers. Arrays are
    copied.

    :param value: what somebody's code hands over; tuples become lists
    :param name: what it is called, for the error
    :return: the state
    :raises ValueError: if there is something else in it, or a key that is no string
    """
    if value is None or type(value) in {bool, int, float, str} or isinstance(value, StoredArray):
        return value
    if isinstance(value, np.generic | np.ndarray) and not value.dtype.hasobject:
        return str(value) if isinstance(value, np.str_) else np.array(value)
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise ValueError(f"{name} has the key {key!r}: expected strings, which is all that plain data may have")
        return {str(key): as_plain(each, f"{name}.{key}") for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [as_plain(each, f"{name}[{index}]") for index, each in enumerate(value)]
    raise ValueError(
        f"{name} is a {type(value).__name__}: expected plain data (None, booleans, numbers, strings, NumPy arrays, "
        "lists and dicts of these)"
    )


def as_given(state: Any) -> Any:
    """Undo :func:`as_plain`, but for tuples, which stay lists.

    :param state: a state, as it came back from where it was put aside
    :return: the value; its arrays are copies of its own
    """
    if isinstance(state, Mapping):
        return {key: as_given(each) for key, each in state.items()}
    if isinstance(state, list | tuple):
        return [as_given(each) for each in state]
    if isinstance(state, StoredArray):
        state = np.asarray(state)
    if isinstance(state, np.ndarray):
        return state.copy() if state.ndim else state[()]
    return state


def plain_part(values: Mapping[str, Any]) -> dict[str, Any]:
    """:return: those of the values that are plain data; the others are left out"""
    kept = {}
    for name, value in values.items():
        try:
            kept[name] = as_plain(value, name)
        except ValueError:
            continue
    return kept


def is_number(value: Any) -> bool:
    """:return: whether a value of a state is a finite number, of Python or NumPy; a boolean is not"""
    is_some = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    return is_some and bool(abs(value) < INF)


def require_alike(here: Any, there: Any, name: str) -> None:
    """Refuse a part of a state that cannot take the place of what is here.

    :param here: arrays, in lists and dicts
    :param there: of the state
    :param name: what it is called, for the error
    :raises ValueError: if it has other keys, or an array of another shape or type
    """
    if isinstance(here, Mapping):
        if not isinstance(there, Mapping) or there.keys() != here.keys():
            raise ValueError(f"{name} is not made as the one here")
        for key in here:
            require_alike(here[key], there[key], f"{name}, {key}")
    elif isinstance(here, np.ndarray):
        found = np.asarray(there)
        if found.shape != here.shape or found.dtype != here.dtype:
            raise ValueError(f"{name} is {found.shape} {found.dtype}: expected {here.shape} {here.dtype}")
