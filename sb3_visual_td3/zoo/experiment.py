"""Save the configuration of a run as plain data, and check it before ``visual-td3 resume`` uses it.

Resuming a stranger's run must not execute the stranger's code:

- No value is run as Python code.
- Every dotted name must name a class of the expected kind, in a module listed below or in a package that the user has
  allowed.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
from rl_zoo3.utils import ALGOS
from stable_baselines3.common.buffers import BaseBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecEnvWrapper
from torch import nn, optim

from sb3_visual_td3.common.input_files import python_literal, shown
from sb3_visual_td3.runs.durable_files import write_atomically
from sb3_visual_td3.training_state.plain_data import map_leaves
from sb3_visual_td3.zoo.flags import import_packages
from sb3_visual_td3.zoo.hyperparameters import VEC_ENVS

EXPERIMENT = "experiment.json"
"""File in RUN_DIR with the configuration of a run."""
EVALUATED = ("policy_kwargs", "replay_buffer_class", "replay_buffer_kwargs", "monitor_kwargs", "normalize")
"""Hyperparameters that rl-zoo evaluates as Python code if they are strings."""
MAX_DEPTH = 50
MAX_EXPERIMENT_BYTES = 1 << 20

ALLOWED_PACKAGES = ("sb3_visual_td3", "stable_baselines3", "sb3_contrib", "rl_zoo3", "gymnasium", "torch")
"""Packages whose classes a saved configuration may name. The user has to allow any other package."""
CLASS_MARK = "$class"
"""Key of the mapping ``{"$class": "package.module.Class"}``, which represents a class in plain data."""


class Kind(NamedTuple):
    """Define a kind of class that a saved configuration may name.

    :ivar noun: name of the kind in error messages
    :ivar bases: base classes, of which the class needs one
    :ivar modules: regular expression of the modules that need no ``--allow``
    """

    noun: str
    bases: tuple[type, ...]
    modules: str


_GYM_WRAPPERS = r"gymnasium\.wrappers(\.(atari_preprocessing|common|rendering|stateful_\w+|transform_\w+))?"
_SB3_VEC_ENV = r"stable_baselines3\.common\.vec_env(\.vec_\w+)?"

CALLBACK = Kind(
    "callback class",
    (BaseCallback,),
    r"stable_baselines3\.common\.callbacks|rl_zoo3\.callbacks|sb3_visual_td3(\.callbacks(\.[a-z_]+)?)?",
)
WRAPPER = Kind(
    "gymnasium.Wrapper class",
    (gym.Wrapper,),
    rf"{_GYM_WRAPPERS}|stable_baselines3\.common\.(atari_wrappers|monitor)|sb3_contrib\.common\.wrappers(\.\w+)?"
    r"|rl_zoo3\.wrappers|sb3_visual_td3\.envs\.idle_limit",
)
VEC_WRAPPER = Kind("VecEnvWrapper class", (VecEnvWrapper,), _SB3_VEC_ENV)
POLICY = Kind(
    "policy class",
    (BasePolicy,),
    r"(stable_baselines3|sb3_contrib)\.[a-z0-9_]+\.policies|sb3_visual_td3\.visual_td3\.[a-z_]+",
)
PART = Kind(
    "class for policies or replay buffers",
    (nn.Module, optim.Optimizer, BaseFeaturesExtractor, BaseBuffer, ActionNoise),
    r"torch\.nn\.modules\.(activation|linear)|torch\.optim(\.[a-z_0-9]+)?|stable_baselines3\.her\.her_replay_buffer"
    r"|stable_baselines3\.common\.(torch_layers|buffers|noise|sb2_compat\.rmsprop_tf_like)|sb3_visual_td3"
    r"|sb3_visual_td3\.(buffers|visual_td3)\.[a-z_]+",
)
"""Classes that hyperparameters such as ``policy_kwargs`` may name: activations, optimizers, features extractors, replay
buffers and noise."""

_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)
_PACKAGE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)


_NAMED: Mapping[str, Kind] = {"callback": CALLBACK, "env_wrapper": WRAPPER, "vec_env_wrapper": VEC_WRAPPER}
"""Hyperparameters that name classes for rl-zoo to import."""


def find_class(name: Any, kind: Kind, allowed: Collection[str], where: str) -> type:
    """Look up a class; its module is imported only if the module is known or allowed.

    :param name: the class as ``package.module.Class``
    :param kind: expected kind of the class
    :param allowed: packages that the user has allowed in addition to :data:`ALLOWED_PACKAGES`
    :param where: name of the setting in error messages
    :raises ValueError: if the name is not allowed, or not a class of this kind
    """
    if not isinstance(name, str) or not _DOTTED.fullmatch(name):
        raise ValueError(f"{where} is {shown(name)}: expected the name of a {kind.noun}, package.module.Class")
    module_name, _, class_name = name.rpartition(".")
    package = name.partition(".")[0]
    # The user may allow a whole package, or one module of it. With the dots, "mine" does not allow "mineral".
    if package in allowed or any(f"{name}.".startswith(f"{each}.") for each in allowed):
        found = _look_up(module_name, class_name, where)
    elif package not in ALLOWED_PACKAGES:
        raise ValueError(
            f"{where} names {name}: a resumed run imports the package {package} only with your permission. If this "
            f"is your own package, add --allow {package}"
        )
    elif re.fullmatch(kind.modules, module_name):
        found = _look_up(module_name, class_name, where)
    else:
        found = None
    if not (isinstance(found, type) and issubclass(found, kind.bases) and found not in kind.bases):
        raise ValueError(
            f"{where} names {name}: expected a {kind.noun} from a library that rl-zoo uses, or from a package that you "
            "name with --allow"
        )
    return found


def _look_up(module_name: str, class_name: str, where: str) -> Any:
    try:
        return getattr(importlib.import_module(module_name), class_name, None)
    except ImportError as error:
        raise ValueError(
            f"{where} names {module_name}.{class_name}, which cannot be imported: {error}. Install its package"
        ) from error


def check_package(name: Any, allowed: Collection[str]) -> None:
    """Check that a package of ``gym_packages`` is known, or allowed by the user.

    :param name: name of the package or module
    :param allowed: packages that the user has allowed
    :raises ValueError: if importing the package is not permitted
    """
    if not isinstance(name, str) or not _PACKAGE.fullmatch(name):
        raise ValueError(f"gym_packages names {shown(name)}: expected the name of a package, such as my_envs")
    if name not in ALLOWED_PACKAGES and not any(f"{name}.".startswith(f"{each}.") for each in allowed):
        package = name.partition(".")[0]
        raise ValueError(
            f"the run imports {name}, and a resumed run does so only with your permission. If this is your own "
            f"package, add --allow {package}"
        )


def class_as_data(cls: type) -> dict[str, str] | None:
    """Return the name of a class as plain data, such as ``{"$class": "torch.optim.adam.Adam"}``.

    :param cls: the class
    :return: the mapping. None for a class that is defined in a function, and for a class that is not a torch module,
        optimizer, replay buffer or action noise (the base classes of :data:`PART`)
    """
    name = f"{cls.__module__}.{cls.__qualname__}"
    if not issubclass(cls, PART.bases) or "<locals>" in name:
        return None
    return {CLASS_MARK: name}


def class_name_in(value: Any) -> Any:
    """Return the class name in a ``{"$class": ...}`` mapping; None for any other value.

    :param value: any plain data
    """
    if isinstance(value, Mapping) and set(value) == {CLASS_MARK}:
        return value[CLASS_MARK]
    return None


def with_classes(value: Any, allowed: Collection[str], where: str) -> Any:
    """Replace each ``{"$class": ...}`` mapping in plain data by the class that it names.

    :param value: plain data
    :param allowed: packages that the user has allowed
    :param where: name of the setting in error messages
    :raises ValueError: if a name does not belong to a torch module, optimizer, replay buffer or action noise (the base
        classes of :data:`PART`). Also if the class is in a Python module that :data:`PART` does not contain and the
        user has not allowed
    """
    name = class_name_in(value)
    if name is not None:
        return find_class(name, PART, allowed, where)
    if isinstance(value, Mapping):
        return {key: with_classes(item, allowed, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [with_classes(item, allowed, where) for item in value]
    return value


def check_env_id(env_id: Any, where: str) -> None:
    """Check that an environment's id is registered, because any other id may make gymnasium import a module.

    :param env_id: the id, as for gymnasium's ``make``
    :param where: name of the setting in error messages
    :raises ValueError: if the id is not registered
    """
    if not isinstance(env_id, str) or env_id not in gym.registry:
        raise ValueError(
            f"{where} is {shown(env_id)}: expected a registered environment. If your own package registers it, "
            "name the package with --gym-packages when you train, and with --allow when you resume"
        )


def check_algorithm(algo: Any) -> None:
    """Check that an algorithm is one of rl-zoo's algorithms or ours.

    :param algo: name of the algorithm
    :raises ValueError: if there is no such algorithm
    """
    if not isinstance(algo, str) or algo not in ALGOS:
        raise ValueError(f"the algorithm is {shown(algo)}: expected one of {', '.join(ALGOS)}")


def packages_to_allow(experiment: Mapping[str, Any]) -> list[str]:
    """Return the packages that a resumed run imports only if ``--allow`` names them.

    :param experiment: a configuration as plain data
    """
    hyperparams = experiment["hyperparams"]
    names = [*experiment["gym_packages"], *_class_names_in(list(map(hyperparams.get, EVALUATED)))]
    for key in _NAMED:
        names += [path for path, _ in _named_in(key, hyperparams.get(key))]
    policy = hyperparams.get("policy")
    if isinstance(policy, str) and "." in policy:
        names.append(policy)
    return sorted({str(name).partition(".")[0] for name in names} - {*ALLOWED_PACKAGES})


def _class_names_in(value: Any) -> Iterator[Any]:
    """Yield the name in each ``{"$class": ...}`` mapping of plain data."""
    name = class_name_in(value)
    if name is not None:
        yield name
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _class_names_in(item)


# ---- Python code as data


def read_code(code: str) -> Any:
    """Convert a setting from Python code, such as ``dict(a=1)``, to plain data without executing the code.

    :param code: a literal, ``dict(a=1)``, or a class such as ``nn.ReLU`` or ``HerReplayBuffer``
    :return: the value; a class becomes ``{CLASS_MARK: its dotted path}``
    :raises ValueError: if the setting is any other code
    """
    try:
        return python_literal(code, _marks_of_classes())
    except ValueError as error:
        raise ValueError(
            f"the Python code {shown(code)} cannot be read: {error}. Besides literals, it may hold activations (such "
            "as nn.ReLU), optimizers (such as th.optim.Adam) and HerReplayBuffer"
        ) from error


@functools.cache
def _marks_of_classes() -> dict[str, dict[str, str]]:
    """Map each class name that ``read_code`` accepts, such as ``nn.ReLU``, to plain data that names the class."""
    from stable_baselines3.her.her_replay_buffer import HerReplayBuffer

    found: dict[str, type] = {cls.__name__: cls for cls in (HerReplayBuffer, RMSpropTFLike)}
    for spelling in ("nn", "th.nn", "torch.nn"):
        parts = {**vars(nn.modules.activation), "Identity": nn.Identity}
        found |= {f"{spelling}.{name}": cls for name, cls in parts.items() if _is_subclass(cls, nn.Module)}
    for spelling in ("th.optim", "torch.optim"):
        found |= {f"{spelling}.{name}": cls for name, cls in vars(optim).items() if _is_subclass(cls, optim.Optimizer)}
    return {spelling: {CLASS_MARK: f"{cls.__module__}.{cls.__qualname__}"} for spelling, cls in found.items()}


def _is_subclass(cls: Any, base: type) -> bool:
    return isinstance(cls, type) and issubclass(cls, base) and cls is not base


# ---- saving a configuration


_MAPPING_FLAGS = ("env_kwargs", "eval_env_kwargs")
_TYPES: Mapping[str, type] = {
    "algo": str,
    "env": str,
    "seed": int,
    "n_timesteps": int,
    "tensorboard_log": str,
    "trained_agent": str,
    "num_threads": int,
    "log_interval": int,
    "eval_freq": int,
    "eval_episodes": int,
    "n_eval_envs": int,
    "save_freq": int,
    "save_replay_buffer": bool,
    "log_folder": str,
    "vec_env": str,
    "device": str,
    "verbose": int,
    "progress": bool,
    "gym_packages": list,
}
"""rl-zoo's flags whose values are not mappings, each with the type of its value."""
_MONITOR_KWARGS = {"allow_early_resets", "reset_keywords", "info_keywords", "override_existing"}
_STARTS_SOMETHING = {
    "command": "a command that starts a simulator",
    "runtime_env": "an environment that Ray installs",
    "address": "a Ray cluster to connect to",
}
"""Arguments of environments and of RayVecEnv that start a program."""
_PATHS = (
    "save_path",
    "log_path",
    "best_model_save_path",
    "run_dir",
    "video_folder",
    "filename",
    "name_prefix",
)
"""Arguments of callbacks and wrappers that are paths for writing, or parts of them."""


class Permission(NamedTuple):
    """Hold the permissions that the user gives to a resumed run.

    :ivar run_dir: the folder of the run, to which the run may always write
    :ivar packages: further packages whose classes the run may name
    :ivar is_trusted: whether the run may start programs, load a saved model and write to other folders
    """

    run_dir: Path
    packages: Collection[str] = ()
    is_trusted: bool = False


def describe_experiment(args: argparse.Namespace, hyperparams: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of a run as plain data.

    :param args: rl-zoo's parsed arguments. ``seed`` is the seed in use, which rl-zoo draws if the user gives none
    :param hyperparams: the hyperparameters as they are in the file, before rl-zoo creates objects from them
    :return: numbers and strings, in lists and dicts
    :raises ValueError: if a hyperparameter cannot be written as plain data
    """
    described = {name: getattr(args, name) for name in (*_TYPES, *_MAPPING_FLAGS)}
    described["hyperparams"] = {name: _as_data(name, value) for name, value in hyperparams.items()}
    for name in _MAPPING_FLAGS:
        described[name] = map_leaves(described[name], _plain_leaf, _flag(name))
    return described


def _flag(name: str) -> str:
    """Return the flag that sets an argument of rl-zoo."""
    return f"--{name.replace('_', '-')}"


def _as_data(name: str, value: Any) -> Any:
    if name in EVALUATED and isinstance(value, str):
        try:
            value = read_code(value)
        except ValueError as error:
            raise ValueError(
                f"{name} is Python code that a snapshot cannot store: {error}. Write it as a YAML mapping of numbers "
                "and strings, or remove SnapshotCallback"
            ) from error
    return map_leaves(value, _plain_leaf, f"the hyperparameter {name}")


def _plain_leaf(value: Any, where: str) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, type):
        mark = class_as_data(value)
        if mark is not None:
            return mark
    raise ValueError(
        f"{where} is {value!r}, which a snapshot cannot store: expected numbers and strings, in lists and mappings. "
        "Remove SnapshotCallback, or train with a script of your own: it can keep SnapshotCallback, and must create "
        "this value again when it resumes with SnapshotCallback(resume=True)"
    )


# ---- checking a configuration


def check_experiment(experiment: Any, permission: Permission) -> None:
    """Refuse a saved configuration if it could execute, import or write something that is not permitted.

    The check imports modules of known or permitted packages.

    :param experiment: a saved configuration, which may be any value
    :param permission: permissions that the user has given
    :raises ValueError: if a value has a wrong type, or is not permitted
    """
    # The order matters. Each check relies on types that earlier checks have confirmed. Packages are imported before the
    # environment is looked up, because they register it.
    _check_is_data(experiment, "the run's saved configuration")
    if not isinstance(experiment, Mapping):
        raise ValueError(f"the run's saved configuration is {shown(experiment)}: expected a mapping")
    _check_flags(experiment)
    hyperparams = experiment["hyperparams"]
    for package in experiment["gym_packages"]:
        check_package(package, permission.packages)
        try:
            import_packages([package])
        except ImportError as error:
            raise ValueError(f"a module that the run needs cannot be imported: {error}") from error
    check_algorithm(experiment["algo"])
    check_env_id(experiment["env"], "the environment")
    _check_evaluated(hyperparams, permission.packages)
    policy = hyperparams.get("policy")
    if not isinstance(policy, str):
        raise ValueError(f"policy is {shown(policy)}: expected the name of a policy")
    if "." in policy:
        find_class(policy, POLICY, permission.packages, "policy")
    for name, kind in _NAMED.items():
        for path, kwargs in _named_in(name, hyperparams.get(name)):
            cls = find_class(path, kind, permission.packages, name)
            # A class of a package that the user has permitted may get any arguments.
            if cls.__module__.partition(".")[0] in ALLOWED_PACKAGES:
                _check_arguments(path, kwargs, permission)
    if not permission.is_trusted:
        _check_starts_nothing(experiment, "")
        if experiment["trained_agent"]:
            raise ValueError(
                f"the run was started from the saved model {experiment['trained_agent']}, and loading a model "
                "executes the code that is pickled in it. If this is your own run, add --trust"
            )


def _check_is_data(value: Any, where: str, depth: int = 0) -> None:
    """Check that a value is plain JSON data, with printable text."""
    if depth > MAX_DEPTH:
        raise ValueError(f"{where} is nested more than {MAX_DEPTH} levels deep: expected at most {MAX_DEPTH} levels")
    if isinstance(value, Mapping):
        for key, item in value.items():
            _check_is_data(key, where, depth + 1)
            if not isinstance(key, str):
                raise ValueError(f"{where} has the key {shown(key)}: expected text")
            _check_is_data(item, f"{where}.{shown(key)[1:-1]}", depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check_is_data(item, where, depth + 1)
    elif isinstance(value, str):
        if not value.isprintable() and not all(each.isprintable() or each in "\n\t" for each in value):
            raise ValueError(f"{where} is {shown(value)}: expected printable text")
    elif value is not None and not isinstance(value, bool | int | float):
        raise ValueError(f"{where} is {shown(value)}: expected plain data (numbers, text, lists and mappings)")


def _check_flags(experiment: Mapping[str, Any]) -> None:
    for name, kind in _TYPES.items():
        value = experiment.get(name)
        # ``type`` and not ``isinstance``, because True is an instance of int.
        is_right = type(value) is kind or (kind is str and value is None)
        if name not in experiment or not is_right:
            raise ValueError(f"the run's {_flag(name)} is {shown(value)}: expected {kind.__name__}")
    for name in _MAPPING_FLAGS:
        _check_keywords(experiment.get(name), f"the run's {_flag(name)}")
    if not isinstance(experiment.get("hyperparams"), Mapping):
        raise ValueError(f"the run's hyperparameters are {shown(experiment.get('hyperparams'))}: expected a mapping")
    if experiment["vec_env"] not in VEC_ENVS:
        raise ValueError(
            f"the run's --vec-env is {shown(experiment['vec_env'])}: expected one of {', '.join(VEC_ENVS)}"
        )


def _check_keywords(value: Any, where: str) -> None:
    if value is None:
        return
    if not isinstance(value, Mapping):
        raise ValueError(f"{where} is {shown(value)}: expected a mapping of names to values")
    for key in value:
        if not isinstance(key, str) or not key.isidentifier():
            raise ValueError(
                f"{where} has the key {shown(key)}, which cannot be the name of a Python argument: expected letters, "
                "digits and underscores"
            )


def _check_evaluated(hyperparams: Mapping[str, Any], packages: Collection[str]) -> None:
    for name in EVALUATED:
        value = hyperparams.get(name)
        if isinstance(value, str):
            raise ValueError(f"{name} is the text {shown(value)}, which rl-zoo would run as code: expected plain data")
        with_classes(value, packages, name)
        if name.endswith("_kwargs"):
            _check_keywords(value, name)
    for name in ("env_kwargs", "vec_env_kwargs"):
        _check_keywords(_read_if_text(hyperparams.get(name)), name)
    for key in hyperparams.get("monitor_kwargs") or {}:
        if key not in _MONITOR_KWARGS:
            raise ValueError(
                f"monitor_kwargs has the key {key!r}: expected one of {', '.join(sorted(_MONITOR_KWARGS))}"
            )


def _named_in(name: str, value: Any) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    """Yield the dotted path and the keyword arguments of each class that a hyperparameter names."""
    if value is None:
        return
    entries = value if isinstance(value, list) else [value]
    for each in entries:
        if isinstance(each, Mapping):
            if len(each) != 1:
                raise ValueError(f"{name} holds {shown(each)}: expected one class with its arguments")
            ((path, kwargs),) = each.items()
        else:
            path, kwargs = each, {}
        _check_keywords(kwargs, f"{name} {path}")
        if kwargs is None:
            raise ValueError(f"{name} {path} has no arguments after its colon: expected a mapping")
        yield path, kwargs


def _check_arguments(path: str, kwargs: Mapping[str, Any], permission: Permission) -> None:
    """Check the evaluation environment and the output paths in the arguments of a callback or wrapper."""
    if isinstance(kwargs.get("eval_env"), str):
        check_env_id(kwargs["eval_env"], f"eval_env of {path}")
    _check_keywords(kwargs.get("eval_env_kwargs"), f"eval_env_kwargs of {path}")
    # SnapshotCallback always gets RUN_DIR, so the file's value does not matter.
    if permission.is_trusted or path.endswith(".SnapshotCallback"):
        return
    for name in _PATHS:
        given = kwargs.get(name)
        if not isinstance(given, str):
            continue
        if name == "name_prefix":
            is_inside = os.sep not in given
        else:
            is_inside = Path(os.path.abspath(given)).is_relative_to(os.path.abspath(permission.run_dir))
        if not is_inside:
            raise ValueError(
                f"{name} of {path} is {shown(given)}, which is outside {permission.run_dir}: a resumed run writes "
                "there only if you trust it. If this is your own run, add --trust"
            )


def _read_if_text(value: Any) -> Any:
    """Return a setting as a mapping, even if it is written as text (``dict(a=1)``)."""
    if isinstance(value, str):
        return read_code(value)
    return value


def _check_starts_nothing(value: Any, where: str) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key in _STARTS_SOMETHING and item is not None:
                raise ValueError(
                    f"{where}{key} is {shown(item)}, {_STARTS_SOMETHING[key]}: a resumed run uses this setting only "
                    "with your permission. If this is your own run, add --trust"
                )
            if key == "vec_env_kwargs":
                _check_starts_nothing(_read_if_text(item), f"{key}.")
            else:
                _check_starts_nothing(item, f"{key}.")
    elif isinstance(value, list | tuple):
        for item in value:
            _check_starts_nothing(item, where)


# ---- from a configuration to rl-zoo's arguments, and the file in RUN_DIR


def arguments_of(experiment: Mapping[str, Any], conf_file: str, tensorboard_log: str | None = None) -> list[str]:
    """Return a run's command line for rl-zoo.

    It leaves out the environment's arguments, because rl-zoo would run them as Python code.

    :param experiment: a saved configuration that has been checked
    :param conf_file: path of a file with the result of :func:`hyperparameter_file`
    :param tensorboard_log: folder of the event files; None for RUN_DIR/tb
    """
    arguments = ["--conf-file", conf_file]
    for name in _TYPES:
        flag, value = _flag(name), experiment[name]
        if name == "tensorboard_log":
            value = tensorboard_log
        if name == "n_timesteps" and value <= 0:
            value = -1  # earlier versions accepted any of these numbers for "the number in the file"
        if isinstance(value, bool):
            if value:
                arguments.append(flag)
        elif isinstance(value, list):
            if value:
                arguments += [flag, *value]
        elif value not in {None, ""}:
            # With "=", a value that begins with a dash is not taken for a flag.
            arguments.append(f"{flag}={value}")
    return arguments


def hyperparameter_file(experiment: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a hyperparameter file for a run.

    :param experiment: a saved configuration that has been checked
    """
    return {experiment["env"]: experiment["hyperparams"]}


def keep_experiment(run_dir: Path, experiment: Mapping[str, Any]) -> None:
    """Write the configuration of a run to ``experiment.json`` in its new RUN_DIR.

    :param run_dir: the folder of the run
    :param experiment: the configuration as plain data
    """
    write_atomically(run_dir / EXPERIMENT, json.dumps(experiment, indent=2) + "\n")


def kept_experiment(run_dir: Path) -> Any:
    """Read the configuration of a run from the file in RUN_DIR.

    :param run_dir: the folder of the run
    :return: the content, to be checked with :func:`check_experiment`; None if there is no file
    :raises ValueError: if the file is not JSON, or is too large
    """
    path = run_dir / EXPERIMENT
    if path.is_symlink() or not path.is_file():
        return None
    try:
        if path.stat().st_size > MAX_EXPERIMENT_BYTES:
            raise ValueError(
                f"the file is larger than {MAX_EXPERIMENT_BYTES:,} bytes, the limit for a run's configuration"
            )
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}), so the run cannot be started again: train a new run"
        ) from error
