"""Compare a model's arguments with those in a snapshot, which can be restored only into a model with equal arguments.

With another batch size, a restored training would give other results without an error.
"""

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
        "policy",  # compared by class in described_arguments()
        "env",  # compared by the environment's state
        "device",
        "seed",  # every generator is restored
        "tensorboard_log",
        "verbose",
        "stats_window_size",  # only changes averages in the log
        "_init_setup_model",
    }
)
_NOISE_CONSTANTS: dict[type, tuple[str, ...]] = {
    NormalActionNoise: ("_mu", "_sigma"),
    OrnsteinUhlenbeckActionNoise: ("_mu", "_sigma", "_theta", "_dt", "initial_noise"),
}
"""Attributes of SB3's noises that do not change while they are used."""
_FUNCTIONS = (FunctionType, BuiltinFunctionType, MethodType, functools.partial)


def described_arguments(model: OffPolicyAlgorithm) -> dict[str, Any]:
    """Return the arguments of a model's constructor that influence the results.

    Call this before the first step, because objects such as noise may change while they are used.

    :param model: the model, after ``_setup_model``
    :raises ValueError: if an argument, or a value inside an argument, is a function or cannot be described by plain
        data
    """
    settings: dict[str, Any] = {
        "algorithm": class_path(type(model)),
        "policy": class_path(model.policy_class),
        "action_noise": _described_noise(model.action_noise),
    }
    # The constructors of all parent classes are read, because a subclass may pass arguments on as **kwargs.
    for cls in type(model).__mro__:
        if "__init__" not in vars(cls):
            continue
        for name in inspect.signature(vars(cls)["__init__"]).parameters:
            if name not in _MAY_DIFFER and name not in settings and name in vars(model):
                settings[name] = _described(vars(model)[name], name)
    return settings


def check_settings(recorded: Mapping[str, Any], model: OffPolicyAlgorithm) -> None:
    """Refuse a model whose settings differ from those in a snapshot.

    :param recorded: result of :func:`described_arguments`
    :param model: the model that is to be restored
    :raises ValueError: if a setting differs
    """
    # An earlier version may have saved the path of a class that is in another module now.
    recorded = map_leaves(recorded, lambda leaf, _: present_class_path(leaf) if isinstance(leaf, str) else leaf)
    differences = _differences(recorded, described_arguments(model), "")
    if differences:
        raise ValueError(
            f"{'; '.join(differences)}: create the model with the settings of the snapshot, or start a new run"
        )


def _differences(there: Any, here: Any, name: str) -> list[str]:
    if isinstance(there, Mapping) and isinstance(here, Mapping) and there.get("class") == here.get("class"):
        prefix = f"{name}." if name else ""
        keys = dict.fromkeys([*there, *here])
        return [line for k in keys for line in _differences(there.get(k), here.get(k), f"{prefix}{k}")]
    if there == here:
        return []
    return [f"{name} was {_shown(there)} in the snapshot, is {_shown(here)} now"]


def _shown(value: Any) -> str:
    if isinstance(value, Mapping) and "class" in value:
        rest = ", ".join(f"{key}={_shown(each)}" for key, each in value.items() if key != "class")
        return f"{value['class'].rpartition('.')[2]}({rest})"
    return repr(value)


def _described(value: Any, name: str) -> Any:  # noqa: PLR0911 - one return for each kind of value
    """Describe a value by plain data, which is equal for equal values."""
    if isinstance(value, type):
        return class_path(value)
    if isinstance(value, Enum):
        return f"{class_path(type(value))}.{value.name}"
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, np.dtype | th.dtype | th.device):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _described(each, f"{name}.{key}") for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_described(each, f"{name}[{index}]") for index, each in enumerate(value)]
    return _described_object(value, name)


def _described_object(value: Any, name: str) -> dict[str, Any]:
    # Functions of the same name may differ, and code cannot be compared.
    if isinstance(value, _FUNCTIONS):
        raise ValueError(
            f"{name} is a function, which a snapshot cannot describe: use a number, a text such as 'lin_1e-4' if "
            f"{name} accepts text, or an object such as stable_baselines3.common.utils.LinearSchedule(...)"
        )
    cls = type(value)
    if not hasattr(value, "__dict__") or "<locals>" in cls.__qualname__ or isinstance(value, th.Tensor | th.nn.Module):
        raise ValueError(
            f"{name} is of type {class_path(cls)}, which a snapshot cannot describe: use plain values, or an object of "
            "an importable class with only plain values as attributes"
        )
    return {"class": class_path(cls), **{key: _described(each, f"{name}.{key}") for key, each in vars(value).items()}}


def _described_noise(noise: ActionNoise | None) -> dict[str, Any] | None:
    """Return the class of an action noise and, if the class is SB3's own, its constants, such as sigma."""
    # learn() wraps the noise if there are several environments.
    while isinstance(noise, VectorizedActionNoise):
        noise = noise.base_noise
    if noise is None:
        return None
    constants = _NOISE_CONSTANTS.get(type(noise), ())
    return {"class": class_path(type(noise)), **{c: _described(vars(noise)[c], f"action_noise.{c}") for c in constants}}
