"""What exploration noise remembers: where a walk has got to, how large the noise has become."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from stable_baselines3.common.noise import ActionNoise, VectorizedActionNoise

from sb3_visual_td3.training_state.class_path import class_path
from sb3_visual_td3.training_state.plain_data import as_given, as_plain
from sb3_visual_td3.training_state.random_state import generator_state, restored_generator


def action_noise_state(noise: ActionNoise | None) -> dict[str, Any] | None:
    """Read what a noise remembers: by its own ``get_state``, or else its numbers, arrays and generators.

    :param noise: the model's; None where it has none
    :return: plain data
    """
    if noise is None:
        return None
    state: dict[str, Any] = {"class": class_path(type(noise))}
    if isinstance(noise, VectorizedActionNoise):
        return {**state, "noises": [action_noise_state(each) for each in noise.noises]}
    if _has_state(noise):
        return {**state, "own": as_plain(noise.get_state(), "action_noise")}  # type: ignore[attr-defined]
    kinds = bool | int | float | np.generic | np.ndarray
    values = {name: as_plain(value, name) for name, value in vars(noise).items() if isinstance(value, kinds)}
    generators = {n: generator_state(v) for n, v in vars(noise).items() if isinstance(v, np.random.Generator)}
    return {**state, "values": values, "generators": generators}


def set_action_noise_state(noise: ActionNoise | None, state: Mapping[str, Any] | None) -> None:
    """Go on from where :func:`action_noise_state` was called.

    :param noise: of the same class
    :param state: as returned there
    :raises ValueError: if it is the state of another noise
    """
    there, here = _name_in(state), None if noise is None else class_path(type(noise))
    if there != here:
        raise ValueError(f"action_noise: the snapshot has {there}, the model here {here}: make the model as it was")
    if noise is None or state is None:
        return
    if isinstance(noise, VectorizedActionNoise):
        if len(noise.noises) != len(state["noises"]):
            raise ValueError(
                f"action_noise: the snapshot has it for {len(state['noises'])} environments, here are "
                f"{len(noise.noises)}: make the environment as it was"
            )
        for each, each_state in zip(noise.noises, state["noises"], strict=True):
            set_action_noise_state(each, each_state)
    elif "own" in state:
        noise.set_state(as_given(state["own"]))  # type: ignore[attr-defined]
    else:
        values = as_given(state["values"])
        unknown = (values.keys() | state["generators"].keys()) - vars(noise).keys()
        if unknown:
            raise ValueError(f"action_noise: {here} has no {', '.join(sorted(unknown))}")
        vars(noise).update(values)
        for name, generator in state["generators"].items():
            vars(noise)[name] = restored_generator(vars(noise).get(name), generator)


def _name_in(state: Mapping[str, Any] | None) -> str | None:
    return None if state is None else state["class"]


def _has_state(noise: ActionNoise) -> bool:
    return hasattr(noise, "get_state") and hasattr(noise, "set_state")
