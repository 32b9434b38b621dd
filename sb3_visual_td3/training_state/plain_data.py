"""Convert other libraries' values, such as observations, to plain data and back.

Saving a snapshot uses :func:`as_plain`, and restoring a snapshot uses :func:`as_given`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs

from sb3_visual_td3.common.saved_state import StoredArray

INF = float("inf")


def class_path(cls: type) -> str:
    """Return the import path of a class: ``package.module.Class``."""
    return f"{cls.__module__}.{cls.__qualname__}"


def map_leaves(value: Any, convert: Callable[[Any, str], Any], name: str = "") -> Any:
    """Rebuild nested mappings, lists and tuples as dicts and lists, and convert every leaf.

    :param value: a mapping, a list, a tuple, or a leaf; keys become strings
    :param convert: function that takes a leaf and its place, such as ``policy_kwargs.net_arch[0]``, and returns the new
        leaf
    :param name: place of the value itself
    """
    if isinstance(value, Mapping):
        return {str(key): map_leaves(item, convert, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [map_leaves(item, convert, f"{name}[{index}]") for index, item in enumerate(value)]
    return convert(value, name)


def as_plain(value: Any, name: str) -> Any:
    """Convert a value to plain data: None, booleans, numbers, strings, arrays, and lists and dicts of these.

    NumPy scalars become arrays without dimensions: as Python numbers, they would follow other rules of arithmetic.
    Arrays are copied.

    :param value: any value from another library; tuples become lists
    :param name: name of the value, for the error message
    :raises ValueError: if the value holds anything else, or a key that is not a string
    """
    if value is None or type(value) in {bool, int, float, str} or isinstance(value, StoredArray):
        return value
    if isinstance(value, np.str_):
        return str(value)
    if isinstance(value, np.generic | np.ndarray) and not value.dtype.hasobject:
        return np.array(value)
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise ValueError(
                    f"{name} has the key {key!r}: expected a string, because plain data has string keys only"
                )
        return {str(key): as_plain(each, f"{name}.{key}") for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [as_plain(each, f"{name}[{index}]") for index, each in enumerate(value)]
    raise ValueError(
        f"{name} is of type {type(value).__name__}: expected plain data (None, booleans, numbers, strings, NumPy "
        "arrays, lists and dicts of these)"
    )


def as_given(state: Any) -> Any:
    """Convert the result of :func:`as_plain` back to the original value; a tuple comes back as a list.

    :param state: plain data, whose arrays are copied
    """
    if isinstance(state, Mapping):
        return {key: as_given(each) for key, each in state.items()}
    if isinstance(state, list | tuple):
        return [as_given(each) for each in state]
    if isinstance(state, StoredArray):
        state = np.asarray(state)
    if isinstance(state, np.ndarray):
        # state[()] converts an array without dimensions back to a NumPy scalar.
        return state.copy() if state.ndim else state[()]
    return state


def plain_part(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that are plain data, and leave the others out.

    :param values: values by name
    """
    kept = {}
    for name, value in values.items():
        try:
            kept[name] = as_plain(value, name)
        except ValueError:
            continue
    return kept


def is_number(value: Any) -> bool:
    """Return whether a value of a state is a finite Python or NumPy number; a bool does not count as a number."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return False
    return bool(abs(value) < INF)


def require_alike(here: Any, there: Any, name: str) -> None:
    """Refuse a part of a state that cannot replace the current value.

    :param here: the current arrays, in lists and dicts
    :param there: the part of the state
    :param name: name of the part, for the error message
    :raises ValueError: if the part has other keys, or an array of a different shape or dtype
    """
    if isinstance(here, Mapping):
        if not isinstance(there, Mapping) or there.keys() != here.keys():
            raise ValueError(
                f"{name} has other keys in the snapshot than in this run ({', '.join(map(str, here))}): use the "
                "environment with which the run was started"
            )
        for key in here:
            require_alike(here[key], there[key], f"{name}, {key}")
    elif isinstance(here, np.ndarray):
        found = np.asarray(there)
        if found.shape != here.shape or found.dtype != here.dtype:
            raise ValueError(f"{name} is {found.shape} {found.dtype}: expected {here.shape} {here.dtype}")


def observation_state(observation: VecEnvObs | None) -> dict[str, Any] | None:
    """Return an observation as plain data, with the memory layout of its arrays.

    With another layout, a convolution rounds differently and a resumed run is not exact.

    :param observation: an array, or a dict or tuple of arrays; None before the first reset
    """
    if observation is None:
        return None
    if isinstance(observation, Mapping):
        return {"keys": {key: observation_state(each) for key, each in observation.items()}}
    if isinstance(observation, tuple):
        return {"items": [observation_state(each) for each in observation]}
    array = np.asarray(observation)
    strides = [stride // array.itemsize for stride in array.strides]
    return {"array": array.copy(), "strides": strides}


def observation_from(state: Mapping[str, Any] | None) -> Any:
    """Rebuild an observation from the result of :func:`observation_state`, with the same memory layout.

    :param state: result of :func:`observation_state`
    """
    if state is None:
        return None
    if "keys" in state:
        return {key: observation_from(each) for key, each in state["keys"].items()}
    if "items" in state:
        return tuple(observation_from(each) for each in state["items"])
    return _with_strides(np.asarray(state["array"]), state["strides"])


def _with_strides(array: NDArray[Any], strides: list[int]) -> NDArray[Any]:
    """Return a copy of an array with the given strides, or a contiguous copy if the strides leave gaps or are negative.

    :param strides: number of items from one element to the next, for each axis
    """
    # The number of items from the first to the last element in memory equals the size if there are no gaps.
    span = 1 + sum((size - 1) * stride for size, stride in zip(array.shape, strides, strict=True))
    if not array.ndim or span != array.size or min(strides) < 0:
        return np.array(array)
    block = np.empty(span, array.dtype)
    strides_bytes = [stride * array.itemsize for stride in strides]
    copy: NDArray[Any] = np.lib.stride_tricks.as_strided(block, array.shape, strides_bytes)
    copy[...] = array
    return copy
