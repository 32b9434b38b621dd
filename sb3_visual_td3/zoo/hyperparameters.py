"""Check a hyperparameter file: its syntax, the names of a block's keys, and the types and ranges of their values.

The checks run before rl-zoo creates the environments and the model. They do not check whether a value suits the
environment or the model.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import numbers
import os
import re
from collections.abc import Iterable, Mapping
from importlib.resources import as_file, files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import gymnasium as gym
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecNormalize

from sb3_visual_td3.common.errors import UsageError
from sb3_visual_td3.common.input_files import UniqueKeyLoader, load_mapping, python_literal, read_text, shown
from sb3_visual_td3.common.numbers import to_integer
from sb3_visual_td3.vec_env.ray_vec_env import RayVecEnv

if TYPE_CHECKING:
    from importlib.abc import Traversable


def _find_configs() -> Traversable:
    """Return the folder of our hyperparameter files; in a clone, it is beside the package."""
    try:
        return files("sb3_visual_td3.zoo_configs")
    except ModuleNotFoundError:
        return Path(__file__).parents[2] / "zoo_configs"


CONFIGS = _find_configs()
"""Our hyperparameter files, one for each algorithm."""

_ZOO_KEYS = (
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
"""Keys of a block that are not arguments of the model: rl-zoo or our plug-in uses them."""
DEFAULT_BLOCK = "default"
"""Name of the block for environments without a block of their own."""
_REQUIRED = {"n_timesteps": "the number of environment steps", "policy": "the name of a policy, such as CnnPolicy"}
"""Keys that a block needs, and what to add for them."""
_COUNTS = ("n_timesteps", "n_envs", "frame_stack")
"""Keys whose values rl-zoo uses as counts without a check. Only ``n_timesteps`` is converted with ``int``."""
_CLASSES: Mapping[str, tuple[str, type, tuple[str, ...]]] = {
    "callback": (
        "a callback",
        BaseCallback,
        ("sb3_visual_td3", "stable_baselines3.common.callbacks", "rl_zoo3.callbacks"),
    ),
    "env_wrapper": (
        "an environment wrapper",
        gym.Env,
        ("gymnasium.wrappers", "rl_zoo3.wrappers", "sb3_visual_td3.envs.idle_limit"),
    ),
    "vec_env_wrapper": ("a VecEnvWrapper", VecEnv, ("stable_baselines3.common.vec_env",)),
}
"""Keys that name classes for rl-zoo to import: what the class is, its base class, and modules that have such
classes."""
_SET_BY_FLAGS = {"self", "env", "tensorboard_log", "seed", "verbose", "device", "_init_setup_model"}
"""Arguments of a model that rl-zoo sets from its flags."""

_NUMERIC = {"int", "float", "bool", "None", "Optional", "Union", "typing"}
"""An argument must be a number if its type annotation consists of these words only."""
_LARGEST = 1e18
"""Largest accepted number in a block."""
_NORMALIZE = tuple(inspect.signature(VecNormalize).parameters)[1:]
"""Keys of ``normalize``."""
_SIZES = {"batch_size", "buffer_size", "policy_delay", "n_steps"}


def check_file(path: str, env_id: str, is_atari: bool) -> str | None:
    """Check that a YAML file of hyperparameters is valid, and that its block for the environment maps names to values.

    This function accepts a file without a block for the environment, and rl-zoo refuses it later.

    :param path: path of the file
    :param env_id: id of the environment
    :param is_atari: whether the environment is one of Atari's games
    :return: name of the block that rl-zoo uses; None without such a block
    :raises ValueError: if the file is not valid YAML, gives a key twice, or is not a mapping, or if the block is not a
        mapping of text to values
    :raises OSError: if the file cannot be read
    """
    blocks = load_mapping(read_text(path), path, loader=UniqueKeyLoader)
    # rl-zoo looks for the block in this order.
    name = next((each for each in (env_id, "atari" if is_atari else DEFAULT_BLOCK) if each in blocks), None)
    if name is None:
        return None
    if not isinstance(blocks[name], Mapping):
        kind = "nothing" if blocks[name] is None else type(blocks[name]).__name__
        raise ValueError(f"{path}, {name}: expected a mapping of hyperparameters to values, got {kind}")
    for key in blocks[name]:
        if not isinstance(key, str):
            raise ValueError(f"{path}, {name}: the key {key!r} is not text; expected the name of a hyperparameter")
    return name


def find_config(config: str) -> str:
    """Return the path of a hyperparameter file, given as a path or as a name in this package.

    :param config: value of ``--conf-file``, which may also be the name of a Python module
    :raises UsageError: if there is no such file or module
    """
    resource = CONFIGS.joinpath(config)
    if os.path.basename(config) == config and not os.path.exists(config) and resource.is_file():
        with as_file(resource) as path:
            return str(path)
    is_file = config.endswith((".yml", ".yaml", ".py"))
    if is_file and not os.path.exists(config):
        raise UsageError(f"--conf-file {config}: there is no such file")
    if not is_file and not _is_module(config):
        raise UsageError(
            f"--conf-file {config}: there is no such module; expected a file that ends in .yml, .yaml or .py"
        )
    return config


def _is_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):  # a part of the name is missing or is no package, or the name is a path
        return False


def check_numbers(block: Mapping[str, Any], algorithm: type, where: str) -> dict[str, int]:
    """Check that the model's numeric arguments are numbers, and that its switches are booleans.

    Stock algorithms do not check that an argument is an integer. YAML reads ``2.56e2`` as a float.

    :param block: the hyperparameters by name
    :param algorithm: class of the model
    :param where: name of the block in error messages
    :return: the arguments in the block that must be integers, as integers
    :raises ValueError: if a value has the wrong type, is not finite, or is out of range
    """
    parameters = inspect.signature(algorithm.__init__).parameters  # type: ignore[misc]
    integers: dict[str, int] = {}
    noise = block.get("noise_std", 0.0)
    if not (isinstance(noise, int | float) and 0 <= noise <= _LARGEST):
        raise ValueError(f"{where}: noise_std is {str(noise)[:80]}, expected a number >= 0")
    for key, value in block.items():
        if key not in parameters:
            continue
        # Only arguments that must be numbers are checked; a learning rate may also be text or a function. Annotations
        # are types or, with ``from __future__ import annotations``, text.
        annotation = parameters[key].annotation
        written = annotation.__name__ if isinstance(annotation, type) else str(annotation)
        words = set(re.findall(r"\w+", written))
        if not words or not words <= _NUMERIC:
            continue
        if not words & {"int", "float"}:  # a switch
            if value not in (False, True) and not (value is None and "None" in words):
                raise ValueError(f"{where}: {key} is {shown(value)}, expected true or false")
            continue
        if isinstance(value, str):
            raise ValueError(f"{where}: {key} is the text {value!r}, expected a number{_as_number(value)}")
        if value is None and words & {"None", "Optional"}:
            continue
        if not isinstance(value, numbers.Real):  # YAML has dates and sets, too
            raise ValueError(f"{where}: {key} is {value!r}, expected a number")
        if not abs(cast("float", value)) <= _LARGEST:  # written so that NaN is refused, too
            raise ValueError(f"{where}: {key} is {str(value)[:80]}, expected a finite number")
        if "float" not in words:
            integers[key] = _read_integer(key, value, where)
    return integers


def _read_integer(key: str, value: object, where: str) -> int:
    """Return an integer hyperparameter as an ``int``.

    :raises ValueError: if it is not an integer, or is a size below 1
    """
    minimum, expected = None, "an integer"
    if key in _SIZES:
        minimum, expected = 1, "an integer >= 1"
    try:
        return to_integer(key, value, minimum)
    except ValueError as error:
        raise ValueError(f"{where}: {key} is {value}, expected {expected}") from error


def _as_number(text: str) -> str:
    """Return a hint for a number that YAML read as text, such as 1e-3; the hint is empty for other text."""
    found = re.fullmatch(r"([-+]?[0-9]+)(\.[0-9]*)?[eE]([-+]?[0-9]+)", text.strip())
    if found is None:
        return ""
    return f" (YAML reads {text} as text): write {found[1]}{found[2] or '.0'}e{int(found[3]):+d}"


def check_structure(block: Mapping[str, Any], where: str) -> None:
    """Check the hyperparameters that must be names or mappings.

    :param block: the hyperparameters by name
    :param where: name of the block in error messages
    :raises ValueError: if a type is wrong, or ``normalize`` has an unknown key
    """
    policy = block.get("policy", "")
    if not isinstance(policy, str | type):
        raise ValueError(f"{where}: policy is {str(policy)[:80]}, expected the name of a policy, such as CnnPolicy")
    for key in ("policy_kwargs", "replay_buffer_kwargs", "monitor_kwargs", "env_kwargs"):
        value = block.get(key)
        # rl-zoo evaluates text, except for env_kwargs.
        expected = Mapping if key == "env_kwargs" else str | Mapping
        if value is not None and not isinstance(value, expected):
            raise ValueError(f"{where}: {key} is {str(value)[:80]}, expected a mapping of names to values")
        for name in value if isinstance(value, Mapping) else ():
            if not isinstance(name, str):
                raise ValueError(
                    f"{where}: {key} contains the key {str(name)[:80]}, expected names of arguments as text"
                )
    normalize = block.get("normalize")
    settings: Mapping[str, Any] = normalize if isinstance(normalize, Mapping) else {}
    for key, value in settings.items():
        if key not in _NORMALIZE:
            raise ValueError(
                f"{where}: normalize has the key {str(key)[:80]!r}, expected one of {', '.join(_NORMALIZE)}"
            )
        if key in {"norm_obs", "norm_reward", "training"} and not isinstance(value, bool):
            raise ValueError(f"{where}: {key} of normalize is {str(value)[:80]}, expected true or false")


def check_classes(block: Mapping[str, Any], where: str) -> None:
    """Check the hyperparameters that name classes: each class can be imported, and accepts its arguments.

    This function imports the modules of the classes. rl-zoo would import them next anyway.

    :param block: the hyperparameters by name
    :param where: name of the block in error messages
    :raises ValueError: if a class is missing, is of the wrong kind, or does not accept its arguments
    """
    policy = block.get("policy")
    if isinstance(policy, str) and "." in policy:
        import_class(policy, f"{where}: policy")
    for key, (noun, base, modules) in _CLASSES.items():
        value = block.get(key)
        if value is None:
            continue
        for entry in value if isinstance(value, list) else [value]:
            name: Any = entry
            kwargs: Any = {}
            if isinstance(entry, Mapping) and len(entry) == 1:
                ((name, kwargs),) = entry.items()
            if isinstance(name, type | BaseCallback):  # from a hyperparameter file in Python
                continue
            named = f"{where}: {key} is {shown(name)}"
            if not isinstance(name, str) or not all(name.split(".")):
                raise ValueError(f"{named}; expected the name of {noun}, package.module.Class")
            if "." not in name:
                raise ValueError(f"{named}; expected its full name, {_full_name(name, modules)}")
            found = import_class(name, f"{where}: {key}")
            # rl-zoo calls a wrapper and uses what it returns. A class with its own __new__ may return an object of
            # another class, so its base class is not checked.
            has_new = isinstance(found, type) and getattr(found, "__new__", None) is not object.__new__
            makes_others = has_new and key != "callback"
            if not callable(found) or (isinstance(found, type) and not issubclass(found, base) and not makes_others):
                raise ValueError(f"{named}, which is not {noun}")
            if not isinstance(kwargs, Mapping) or not all(isinstance(each, str) for each in kwargs):
                raise ValueError(f"{named}: its arguments are {shown(kwargs)}; expected pairs of a name and a value")
            try:
                given = () if key == "callback" else (None,)  # a wrapper is also given the environment
                inspect.signature(found).bind(*given, **kwargs)
            except TypeError as error:
                raise ValueError(f"{named}: {error}; correct its arguments") from error


def _full_name(name: str, modules: Iterable[str]) -> str:
    """Return the full name of the class ``name`` if a module in ``modules`` has it; otherwise return an example."""
    for module in modules:
        if isinstance(getattr(importlib.import_module(module), name, None), type):
            return f"{module}.{name}"
    return f"such as my_package.my_module.{name}"


def import_class(name: str, where: str) -> Any:
    """Import a class, or a function that returns an object of a class.

    :param name: the full name, such as ``package.module.Class``
    :param where: name of the setting in error messages
    :raises ValueError: if the module cannot be imported, or does not have this name
    """
    module_name, _, class_name = name.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ValueError(
            f"{where} names {name}, which cannot be imported: {error}. Correct the name, or install its package"
        ) from error
    if not hasattr(module, class_name):
        close = difflib.get_close_matches(class_name, dir(module), n=1)
        meant = f"did you mean {close[0]}?" if close else "correct the name"
        raise ValueError(f"{where} names {name}, but {module_name} has no {class_name}; {meant}")
    return getattr(module, class_name)


def check_keys(keys: Iterable[str], algorithm: type, where: str, *, has_policy: bool = False) -> None:
    """Check that every key is a hyperparameter of rl-zoo or of the model, and that no key is missing.

    :param keys: the keys of the block
    :param algorithm: class of the model
    :param where: name of the block in error messages
    :param has_policy: True if the model exists already, so that the block needs no policy
    :raises ValueError: if a key is unknown or missing
    """
    keys = list(keys)
    parameters = inspect.signature(algorithm.__init__).parameters  # type: ignore[misc]
    known = {*_ZOO_KEYS, *parameters} - _SET_BY_FLAGS
    # An algorithm with **kwargs may accept any key.
    accepts_all = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    for key in [] if accepts_all else keys:
        if key in _SET_BY_FLAGS:
            raise ValueError(f"{where}: {key!r} is set by a flag of the command, not here; --help shows the flags")
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            meant = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(sorted(known))}"
            raise ValueError(f"{where}: there is no hyperparameter {key!r}; {meant}")
    # This comes after the unknown keys, because a missing key may only be misspelt.
    required = ["n_timesteps", *(["policy"] if "policy" in parameters and not has_policy else [])]
    for key in required:
        if key not in keys:
            raise ValueError(f"{where}: {key} is missing; add {_REQUIRED[key]}")


def read_counts(block: Mapping[str, Any], where: str) -> dict[str, int]:
    """Return the counts of a block as integers.

    rl-zoo itself would round 1000.5 down. For ``.inf``, or for ``1e6``, which YAML reads as text, it would end in a
    traceback.

    :param block: the hyperparameters, including those of the command line
    :param where: name of the block in error messages
    :return: the counts that the block contains, by name
    :raises ValueError: if a count is not an integer >= 1
    """
    counts = {}
    for key in _COUNTS:
        if key not in block or (key == "frame_stack" and block[key] is None):  # None: no stack
            continue
        try:
            counts[key] = to_integer(key, block[key], 1)
        except ValueError as error:
            raise ValueError(f"{where}: {key} is {block[key]!r}; expected an integer >= 1") from error
    return counts


VEC_ENVS: Mapping[str, type[VecEnv]] = {"dummy": DummyVecEnv, "subproc": SubprocVecEnv, "ray": RayVecEnv}
"""Classes of VecEnvs by the names that ``--vec-env`` accepts."""
STOCK_VEC_ENVS = ("dummy", "subproc")
"""Names that rl-zoo's own ``--vec-env`` accepts."""
KEY = "vec_env_kwargs"
_PLACE_KEYS = {"town", "maps"}
"""Arguments of driving environments that say where to drive."""


def env_kwargs_of(*layers: Mapping[str, Any] | None) -> dict[str, Any]:
    """Merge the arguments of an environment; later layers override earlier ones.

    ``town`` and ``maps`` both say where to drive. In a later layer, ``town`` replaces ``maps``, and ``maps`` replaces
    ``town``.

    :param layers: arguments by name; None means no arguments
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        given = dict(layer or {})
        if given.keys() & _PLACE_KEYS and not given.keys() >= _PLACE_KEYS:
            merged = {name: value for name, value in merged.items() if name not in _PLACE_KEYS}
        merged |= given
    return merged


def read_kwargs(given: Any, vec_env_class: type[VecEnv], where: str) -> dict[str, Any]:
    """Read ``vec_env_kwargs``, and check that they are arguments of the VecEnv class.

    :param given: a mapping, a mapping as text, or None
    :param vec_env_class: the class that ``--vec-env`` names
    :param where: name of the block in error messages
    :raises ValueError: if it is not a mapping, or a key is not an argument of the class
    """
    if given is None:
        return {}
    kwargs = python_literal(given) if isinstance(given, str) else given
    if not isinstance(kwargs, Mapping):
        raise ValueError(f"{where}: {KEY} is {given!r}: expected a mapping, such as {{num_gpus: 0.5}}")
    known = list(inspect.signature(vec_env_class).parameters)[1:]
    for key in kwargs:
        if key in known:
            continue
        # The key may be an argument of another --vec-env.
        others = [name for name, other in VEC_ENVS.items() if key in inspect.signature(other).parameters]
        close = difflib.get_close_matches(str(key), known, n=1)
        meant = f"expected one of {', '.join(known)}" if known else "it has no arguments"
        if close:
            meant = f"did you mean {close[0]!r}?"
        elif others:
            meant = f"it is for --vec-env {others[0]}"
        raise ValueError(f"{where}: {KEY}: {vec_env_class.__name__} has no {key!r}; {meant}")
    return dict(kwargs)
