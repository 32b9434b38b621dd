"""The states of gymnasium's spaces and of observations, as plain data.

A transposed image is a view whose channels lie side by side, and a convolution over such a view adds up in another
order than over a copy: the action differs in its last bits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs

from sb3_visual_td3.training_state.random_state import generator_state, restored_generator


def describe_space(space: spaces.Space[Any]) -> str:
    """:return: shape, dtype and bounds, such as ``Box(4, 84, 84) uint8 from 0 to 255``"""
    if isinstance(space, spaces.Dict):
        return f"Dict({', '.join(f'{key}: {describe_space(each)}' for key, each in space.spaces.items())})"
    if isinstance(space, spaces.Tuple):
        return f"Tuple({', '.join(map(describe_space, space.spaces))})"
    if not isinstance(space, spaces.Box):
        return repr(space)
    low, high = space.low, space.high
    if low.size and (low == low.flat[0]).all() and (high == high.flat[0]).all():
        bounds = f"from {low.flat[0]} to {high.flat[0]}"
    else:
        bounds = f"with bounds {hashlib.sha256(low.tobytes() + high.tobytes()).hexdigest()[:12]}"
    return f"Box{space.shape} {space.dtype} {bounds}"


def space_random_state(space: spaces.Space[Any]) -> dict[str, Any]:
    """Read the generators of a space and of those in it; one that has not been seeded is left so.

    :return: plain data
    """
    return {
        "generator": generator_state(getattr(space, "_np_random", None)),
        "parts": [space_random_state(part) for part in _parts(space)],
    }


def set_space_random_state(space: spaces.Space[Any], state: Mapping[str, Any]) -> None:
    """Set the generators of a space and of those in it.

    :param space: of the same structure
    :param state: as returned by :func:`space_random_state`
    :raises ValueError: if the space is of another structure
    """
    parts = _parts(space)
    if len(parts) != len(state["parts"]):
        raise ValueError(f"a space with {len(state['parts'])} parts in the snapshot, {len(parts)} here: {space}")
    generator = restored_generator(getattr(space, "_np_random", None), state["generator"])
    space._np_random = generator  # type: ignore[assignment]  # None: not seeded yet
    for part, part_state in zip(parts, state["parts"], strict=True):
        set_space_random_state(part, part_state)


def _parts(space: spaces.Space[Any]) -> list[spaces.Space[Any]]:
    if isinstance(space, spaces.Dict):
        return list(space.spaces.values())
    if isinstance(space, spaces.Tuple | spaces.OneOf):
        return list(space.spaces)
    if isinstance(space, spaces.Sequence):
        return [space.feature_space]
    if isinstance(space, spaces.Graph):
        return [part for part in (space.node_space, space.edge_space) if part is not None]
    return []


def observation_state(observation: VecEnvObs | None) -> dict[str, Any] | None:
    """:return: an observation as plain data: an array, or a dict or tuple of arrays; None where there is none"""
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
    """:return: the observation that :func:`observation_state` was given"""
    if state is None:
        return None
    if "keys" in state:
        return {key: observation_from(each) for key, each in state["keys"].items()}
    if "items" in state:
        return tuple(observation_from(each) for each in state["items"])
    return _laid_out(np.asarray(state["array"]), state["strides"])


def _laid_out(array: NDArray[Any], strides: list[int]) -> NDArray[Any]:
    """:return: a copy with these strides, in items; an ordinary one where they leave gaps or go backwards"""
    span = 1 + sum((size - 1) * stride for size, stride in zip(array.shape, strides, strict=True))
    if not array.ndim or span != array.size or min(strides) < 0:
        return np.array(array)
    block = np.empty(span, array.dtype)
    strides_bytes = [stride * array.itemsize for stride in strides]
    laid_out: NDArray[Any] = np.lib.stride_tricks.as_strided(block, array.shape, strides_bytes)
    laid_out[...] = array
    return laid_out
