"""What a model was made with, so that a snapshot goes on in one made alike."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from enum import Enum
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.noise import (
    ActionNoise,
    NormalActionNoise,
    OrnsteinUhlenbeckActionNoise,
    VectorizedActionNoise,
)
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_visual_td3.common.moved_modules import present_class_path
from sb3_visual_td3.training_state.plain_data import class_path, map_leaves

_MAY_DIFFER = frozenset(
    {
        "self",
        "policy",  # by its class, below
        "env",  # the environment's state checks that
        "device",
        "seed",  # every generator is restored
        "tensorboard_log",
        "verbose",
        "stats_window_size",  # of means in the log
        "_init_setup_model",
    }
)
_NOISE_CONSTANTS: dict[type, tuple[str, ...]] = {
    NormalActionNoise: ("_mu", "_sigma"),
    OrnsteinUhlenbeckActionNoise: ("_mu", "_sigma", "_theta", "_dt", "initial_noise"),
}
_FUNCTIONS = (FunctionType, BuiltinFunctionType, MethodType, functools.partial)


def settings_of(model: OffPolicyAlgorithm) -> dict[str, Any]:
    """Describe what a model was made with: the arguments of its constructor that decide about numbers.

    To be called before the first step: noise and the like may change while they are used.

    :param model: the model, set up
    :return: plain data; classes by their import path, schedules and other objects by class and attributes
    :raises ValueError: if an argument is a function, or holds one, or an object that cannot be described
    """
    settings: dict[str, Any] = {
        "algorithm": class_path(type(model)),
        "policy": class_path(model.policy_class),
        "action_noise": _described_noise(model.action_noise),
    }
    for cls in type(model).__mro__:
        for name in inspect.signature(vars(cls)["__init__"]).parameters if "__init__" in vars(cls) else ():
            if name not in _MAY_DIFFER and name not in settings and name in vars(model):
                settings[name] = _described(vars(model)[name], name)
    return settings


def check_settings(recorded: Mapping[str, Any], model: OffPolicyAlgorithm) -> None:
    """Refuse a model that was made in another way.

    :param recorded: as returned by :func:`settings_of`
    :param model: the model that is to go on
    :raises ValueError: if a setting differs; all that differ are named
    """
    # An earlier version may have named a class by a module that has moved since.
    recorded = map_leaves(recorded, lambda leaf, _: present_class_path(leaf) if isinstance(leaf, str) else leaf)
    differences = _differences(recorded, settings_of(model), "")
    if differences:
        raise ValueError(f"{'; '.join(differences)}: make the model as it was, or start a new run")


def _differences(there: Any, here: Any, name: str) -> list[str]:
    if isinstance(there, Mapping) and isinstance(here, Mapping) and there.get("class") == here.get("class"):
        prefix = f"{name}." if name else ""
        keys = dict.fromkeys([*there, *here])
        return [line for k in keys for line in _differences(there.get(k), here.get(k), f"{prefix}{k}")]
    return [] if there == here else [f"{name} was {_shown(there)}, is {_shown(here)}"]


def _shown(value: Any) -> str:
    if isinstance(value, Mapping) and "class" in value:
        rest = ", ".join(f"{key}={_shown(each)}" for key, each in value.items() if key != "class")
        return f"{value['class'].rpartition('.')[2]}({rest})"
    return repr(value)


def _described(value: Any, name: str) -> Any:
    """:return: a value as plain data that says the same of every value made alike"""
    if isinstance(value, type | Enum):
        return class_path(value) if isinstance(value, type) else f"{class_path(type(value))}.{value.name}"
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic | np.ndarray | np.dtype | th.dtype | th.device):
        return value.tolist() if isinstance(value, np.generic | np.ndarray) else str(value)
    if isinstance(value, Mapping):
        return {str(key): _described(each, f"{name}.{key}") for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_described(each, f"{name}[{index}]") for index, each in enumerate(value)]
    return _described_object(value, name)


def _described_object(value: Any, name: str) -> dict[str, Any]:
    if isinstance(value, _FUNCTIONS):
        raise ValueError(
            f"{name} is a function, which a snapshot cannot describe: use a number, 'lin_1e-4' where a string may "
            "stand, or an object of a class, such as stable_baselines3.common.utils.LinearSchedule"
        )
    cls = type(value)
    if not hasattr(value, "__dict__") or "<locals>" in cls.__qualname__ or isinstance(value, th.Tensor | th.nn.Module):
        raise ValueError(
            f"{name} is a {class_path(cls)}, which a snapshot cannot describe: use plain values, or an object of a "
            "class that can be imported and whose attributes are plain values"
        )
    return {"class": class_path(cls), **{key: _described(each, f"{name}.{key}") for key, each in vars(value).items()}}


def _described_noise(noise: ActionNoise | None) -> dict[str, Any] | None:
    """:return: its class, and of Stable-Baselines3's own what does not change while they are used"""
    while isinstance(noise, VectorizedActionNoise):  # learn() makes it one
        noise = noise.base_noise
    if noise is None:
        return None
    constants = _NOISE_CONSTANTS.get(type(noise), ())
    return {"class": class_path(type(noise)), **{c: _described(vars(noise)[c], f"action_noise.{c}") for c in constants}}
