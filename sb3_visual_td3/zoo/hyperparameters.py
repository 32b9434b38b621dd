"""Checks of a block of a hyperparameter file before anything is made: its keys, its numbers, ``vec_env_kwargs``."""

from __future__ import annotations

import difflib
import inspect
import math
import numbers
import re
from collections.abc import Iterable, Mapping
from typing import Any

from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecNormalize

from sb3_visual_td3.common.input_files import python_literal
from sb3_visual_td3.vec_env.ray_vec_env import RayVecEnv

_OF_ZOO = (
    "callback",
    "env_kwargs",
    "env_wrapper",
    "frame_stack",
    "monitor_kwargs",
    "n_envs",
    "n_timesteps",
    "noise_std",
    "noise_type",
    "normalize",
    "vec_env_kwargs",
    "vec_env_wrapper",
)
"""What rl-zoo, or our plug-in, takes out of a block before the model is made."""
_COUNTS = ("n_timesteps", "n_envs")
"""What rl-zoo makes an int of, whatever it is."""
_FROM_FLAGS = {"self", "env", "tensorboard_log", "seed", "verbose", "device", "_init_setup_model"}
"""Arguments of a model that rl-zoo sets from its flags."""


_NUMERIC = {"int", "float", "bool", "None", "Optional", "Union", "typing"}
"""The words in the annotation of an argument that is a number and nothing else."""
_LARGEST = 1e18
"""Beyond it no hyperparameter makes sense, and an integer may not fit a float."""
_NORMALIZE = tuple(inspect.signature(VecNormalize).parameters)[1:]
"""The keys of ``normalize``."""
_SIZES = {"batch_size", "buffer_size", "policy_delay", "n_steps"}


def check_numbers(block: Mapping[str, Any], algorithm: type, where: str) -> None:
    """Look for text, and other things that are no numbers, where the model needs a number, before anything is made.

    :param block: the hyperparameters
    :param algorithm: the class of the model
    :param where: what to call the block in a complaint
    :raises ValueError: if there is some
    """
    parameters = inspect.signature(algorithm.__init__).parameters  # type: ignore[misc]
    noise = block.get("noise_std", 0.0)
    if not (isinstance(noise, int | float) and 0 <= noise <= _LARGEST):
        raise ValueError(f"{where}: noise_std is {str(noise)[:80]}, expected a number from 0 on")
    for key, value in block.items():
        if key not in parameters:
            continue
        annotation = parameters[key].annotation
        written = annotation.__name__ if isinstance(annotation, type) else str(annotation)
        words = set(re.findall(r"\w+", written))
        if not words or not words <= _NUMERIC:
            continue
        if isinstance(value, str):
            raise ValueError(f"{where}: {key} is the text {value!r}, expected a number{_as_number(value)}")
        if isinstance(value, Mapping | list | tuple) or (value is None and not words & {"None", "Optional"}):
            raise ValueError(f"{where}: {key} is {value!r}, expected a number")
        if value is not None and not abs(value) <= _LARGEST:
            raise ValueError(f"{where}: {key} is {str(value)[:80]}, expected a finite number")
        if key in _SIZES and value < 1:
            raise ValueError(f"{where}: {key} is {value}, expected 1 or more")


def _as_number(text: str) -> str:
    """:return: how the number is written so that YAML 1.1, which needs a point and a sign in it, takes it for one"""
    found = re.fullmatch(r"([-+]?[0-9]+)(\.[0-9]*)?[eE]([-+]?[0-9]+)", text.strip())
    if found is None:
        return ""
    return f": YAML takes {text} for text, write {found[1]}{found[2] or '.0'}e{int(found[3]):+d}"


def check_structure(block: Mapping[str, Any], where: str) -> None:
    """Check the hyperparameters that are a name or a mapping, before anything is made.

    :param block: the hyperparameters
    :param where: what to call the block in a complaint
    :raises ValueError: if one is of another type, or ``normalize`` has an unknown key
    """
    policy = block.get("policy", "")
    if not isinstance(policy, str | type):
        raise ValueError(f"{where}: policy is {str(policy)[:80]}, expected the name of a policy, such as CnnPolicy")
    for key in ("policy_kwargs", "replay_buffer_kwargs", "monitor_kwargs", "env_kwargs"):
        value = block.get(key)
        if value is not None and not isinstance(value, str | Mapping):
            raise ValueError(f"{where}: {key} is {str(value)[:80]}, expected a mapping of names to values")
        for name in value if isinstance(value, Mapping) else ():
            if not isinstance(name, str):
                raise ValueError(f"{where}: {key} has the key {str(name)[:80]}, expected the name of an argument")
    normalize = block.get("normalize")
    settings: Mapping[str, Any] = normalize if isinstance(normalize, Mapping) else {}
    for key, value in settings.items():
        if key not in _NORMALIZE:
            raise ValueError(f"{where}: normalize has no {str(key)[:80]!r}, expected one of {', '.join(_NORMALIZE)}")
        if key in {"norm_obs", "norm_reward", "training"} and not isinstance(value, bool):
            raise ValueError(f"{where}: {key} of normalize is {str(value)[:80]}, expected true or false")


def check_keys(keys: Iterable[str], algorithm: type, where: str) -> None:
    """Look for misspelt keys before anything is made.

    :param keys: of the block
    :param algorithm: the class of the model
    :param where: what to call the block in a complaint
    :raises ValueError: if neither rl-zoo nor the model knows a key; the likeliest one is named
    """
    parameters = inspect.signature(algorithm.__init__).parameters  # type: ignore[misc]
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    known = {*_OF_ZOO, *parameters} - _FROM_FLAGS
    for key in keys:
        if key in _FROM_FLAGS:
            raise ValueError(f"{where}: {key!r} is set by a flag of the command, not here; --help shows the flags")
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            meant = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(sorted(known))}"
            raise ValueError(f"{where}: there is no hyperparameter {key!r}; {meant}")


def check_counts(block: Mapping[str, Any], where: str) -> None:
    """Look for counts that are no whole numbers before anything is made.

    :param block: as read from a hyperparameter file, command line included
    :param where: what to call the block in a complaint
    :raises ValueError: if one is not a whole number >= 1, such as ``.inf``; it is named
    """
    for key in _COUNTS:
        value = block.get(key, 1)
        if isinstance(value, str) and value.strip().isdecimal():
            value = int(value)
        is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if not is_number or not 1 <= value < math.inf or value != int(value):
            raise ValueError(f"{where}: {key} is {block[key]!r}; expected a whole number >= 1")


VEC_ENVS: Mapping[str, type[VecEnv]] = {"dummy": DummyVecEnv, "subproc": SubprocVecEnv, "ray": RayVecEnv}
"""By the name that ``--vec-env`` gives them."""
STOCK_VEC_ENVS = ("dummy", "subproc")
"""Those that rl-zoo knows."""
KEY = "vec_env_kwargs"
_PLACE_KEYS = {"town", "maps"}
"""Arguments of driving environments that say where to drive."""


def env_kwargs_of(*layers: Mapping[str, Any] | None) -> dict[str, Any]:
    """Merge the arguments of an environment; a later layer replaces what earlier ones say.

    CarlaDriving-v0 takes ``town`` or ``maps``, which mean the same and exclude each other: one of them in a later layer
    replaces the other one, too.

    :param layers: such as those of the hyperparameter file, then those of the command line; None is empty
    :return: the arguments
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        given = dict(layer or {})
        if given.keys() & _PLACE_KEYS and not given.keys() >= _PLACE_KEYS:
            merged = {name: value for name, value in merged.items() if name not in _PLACE_KEYS}
        merged |= given
    return merged


def read_kwargs(given: Any, vec_env_class: type[VecEnv], where: str) -> dict[str, Any]:
    """Look for mistakes before anything is made.

    :param given: ``vec_env_kwargs`` of a hyperparameter file: a mapping, or the text of one; or None
    :param vec_env_class: what ``--vec-env`` asks for
    :param where: what to call the block in a complaint
    :return: arguments of the class, beside the environments
    :raises ValueError: if one is not an argument of the class
    """
    kwargs = python_literal(given) if isinstance(given, str) else {} if given is None else given
    if not isinstance(kwargs, Mapping):
        raise ValueError(f"{where}: {KEY} is {given!r}: expected a mapping, such as {{num_gpus: 0.5}}")
    known = list(inspect.signature(vec_env_class).parameters)[1:]
    for key in kwargs:
        if key in known:
            continue
        others = [name for name, other in VEC_ENVS.items() if key in inspect.signature(other).parameters]
        close = difflib.get_close_matches(str(key), known, n=1)
        meant = f"expected one of {', '.join(known)}" if known else "it takes none"
        if close:
            meant = f"did you mean {close[0]!r}?"
        elif others:
            meant = f"it is for --vec-env {others[0]}"
        raise ValueError(f"{where}: {KEY}: {vec_env_class.__name__} has no {key!r}; {meant}")
    return dict(kwargs)
