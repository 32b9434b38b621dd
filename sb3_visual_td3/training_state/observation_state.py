"""The observation that the next action is chosen from, down to its layout in memory.

A transposed image is a view whose channels lie side by side, and a convolution over such a view adds up in another
order than over a copy: the action differs in its last bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs


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
