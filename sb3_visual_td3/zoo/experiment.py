"""How a run was started, as plain data: what a snapshot keeps so that rl-zoo can make the same again.

What is read back may come from a stranger. Its values are data and are never run: what rl-zoo would evaluate reaches it
as values that are made here, and every name must stand for a class that the user knows (see :mod:`known_classes`).
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sb3_visual_td3.runs.durable_files import write_atomically
from sb3_visual_td3.training_state.plain_data import map_leaves
from sb3_visual_td3.zoo.environments import import_packages
from sb3_visual_td3.zoo.hyperparameters import VEC_ENVS
from sb3_visual_td3.zoo.known_classes import (
    ALLOWED_PACKAGES,
    CALLBACK,
    POLICY,
    VEC_WRAPPER,
    WRAPPER,
    Kind,
    check_algorithm,
    check_env_id,
    check_package,
    class_as_data,
    find_class,
    read_code,
    shown,
    with_classes,
)

EXPERIMENT = "experiment.json"
"""In RUN_DIR from its first moment: a run that is killed before its first snapshot is begun again from it."""
EVALUATED = ("policy_kwargs", "replay_buffer_class", "replay_buffer_kwargs", "monitor_kwargs", "normalize")
"""Hyperparameters that rl-zoo runs as Python code where they are strings."""
_NAMED: Mapping[str, Kind] = {"callback": CALLBACK, "env_wrapper": WRAPPER, "vec_env_wrapper": VEC_WRAPPER}
"""Hyperparameters that rl-zoo imports: one dotted path, or a list of them, each alone or with its arguments."""
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
"""rl-zoo's flags, other than mappings, and the type of each."""
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
"""Arguments of callbacks and wrappers that say where files are written."""
MAX_DEPTH = 50
MAX_EXPERIMENT_BYTES = 1 << 20


class Permission(NamedTuple):
    """What the user lets a run do at resume, beside what it may do in any case.

    :ivar run_dir: the only folder that it writes to
    :ivar packages: of the user's own, whose classes it may name
    :ivar is_trusted: whether it may start programs, load a saved model and write to other folders
    """

    run_dir: Path
    packages: Collection[str] = ()
    is_trusted: bool = False


def describe_experiment(args: argparse.Namespace, hyperparams: Mapping[str, Any]) -> dict[str, Any]:
    """Write down how a run was started.

    :param args: rl-zoo's arguments, the seed drawn
    :param hyperparams: as read, before rl-zoo makes objects of them
    :return: plain data
    :raises ValueError: if a hyperparameter is Python code or an object, which a snapshot does not hold
    """
    described = {name: getattr(args, name) for name in (*_TYPES, *_MAPPING_FLAGS)}
    described["hyperparams"] = {name: _as_data(name, value) for name, value in hyperparams.items()}
    for name in _MAPPING_FLAGS:
        described[name] = map_leaves(described[name], _plain_leaf, f"--{name.replace('_', '-')}")
    return described


def _as_data(name: str, value: Any) -> Any:
    if name in EVALUATED and isinstance(value, str):
        try:
            value = read_code(value)
        except ValueError as error:
            raise ValueError(
                f"{name} is Python code, which a snapshot does not hold: {value!r} ({error}). Write it as a yml "
                "mapping of numbers and strings, or leave SnapshotCallback out"
            ) from error
    return map_leaves(value, _plain_leaf, f"the hyperparameter {name}")


def _plain_leaf(value: Any, where: str) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    mark = class_as_data(value) if isinstance(value, type) else None
    if mark is not None:
        return mark
    raise ValueError(
        f"{where} is {value!r}, which a snapshot does not hold: expected numbers, strings, lists and mappings of "
        "these. Leave SnapshotCallback out, or train in a script of your own, with SnapshotCallback(resume=True)"
    )


def check_experiment(experiment: Any, permission: Permission) -> None:
    """Refuse whatever a description could run, import or write to, unless it is known or the user says so.

    Nothing but modules of known or allowed packages is imported here.

    :param experiment: as described, or anything else: it is read from a file
    :param permission: what the user lets it do
    :raises ValueError: if something is of another type than described, or is not permitted; it is named
    """
    _check_is_data(experiment, "the run's description")
    if not isinstance(experiment, Mapping):
        raise ValueError(f"the run's description is {shown(experiment)}: expected a mapping")
    _check_flags(experiment)
    hyperparams = experiment["hyperparams"]
    for package in experiment["gym_packages"]:
        check_package(package, permission.packages)
        try:
            import_packages([package])
        except ImportError as error:
            raise ValueError(f"the run's {error}") from error
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
            if cls.__module__.partition(".")[0] in ALLOWED_PACKAGES:
                _check_arguments(path, kwargs, permission)
    if not permission.is_trusted:
        _check_starts_nothing(experiment, "")
        if experiment["trained_agent"]:
            raise ValueError(
                f"the run was begun with the saved model {experiment['trained_agent']}, and loading that runs what is "
                "pickled in it. If it is yours: --trust"
            )


def _check_is_data(value: Any, where: str, depth: int = 0) -> None:
    """Make sure that a value is what JSON can say, with text that can be written to a file."""
    if depth > MAX_DEPTH:
        raise ValueError(f"{where} is nested more than {MAX_DEPTH} deep: expected settings")
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
        raise ValueError(f"{where} is {shown(value)}: expected plain data")


def _check_flags(experiment: Mapping[str, Any]) -> None:
    for name, kind in _TYPES.items():
        value = experiment.get(name)
        is_right = type(value) is kind or (kind is str and value is None)
        if name not in experiment or not is_right:
            raise ValueError(f"the run's --{name.replace('_', '-')} is {shown(value)}: expected {kind.__name__}")
    for name in _MAPPING_FLAGS:
        _check_keywords(experiment.get(name), f"the run's --{name.replace('_', '-')}")
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
        if not key.isidentifier():
            raise ValueError(f"{where} has the key {shown(key)}: expected the name of an argument")


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
    """:return: each dotted path, with the arguments that stand beside it"""
    for each in value if isinstance(value, list) else [] if value is None else [value]:
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
    """Look at the arguments of a class that is not the user's own."""
    if isinstance(kwargs.get("eval_env"), str):
        check_env_id(kwargs["eval_env"], f"eval_env of {path}")
    _check_keywords(kwargs.get("eval_env_kwargs"), f"eval_env_kwargs of {path}")
    # SnapshotCallback is always told RUN_DIR, whatever the file says.
    names = [name for name in _PATHS if isinstance(kwargs.get(name), str) and not path.endswith(".SnapshotCallback")]
    for name in names if not permission.is_trusted else []:
        given = kwargs[name]
        if name == "name_prefix":
            is_inside = os.sep not in given
        else:
            is_inside = Path(os.path.abspath(given)).is_relative_to(os.path.abspath(permission.run_dir))
        if not is_inside:
            raise ValueError(
                f"{name} of {path} is {shown(given)}, which is outside {permission.run_dir}: a resumed run writes "
                "there only if you trust it. If it is yours: --trust"
            )


def _read_if_text(value: Any) -> Any:
    """:return: a mapping that stands there as text, as ``vec_env_kwargs`` may"""
    return read_code(value) if isinstance(value, str) else value


def _check_starts_nothing(value: Any, where: str) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key in _STARTS_SOMETHING and item is not None:
                raise ValueError(
                    f"{where}{key} is {shown(item)}, {_STARTS_SOMETHING[key]}: it is used only if you trust the run. "
                    "If it is yours: --trust"
                )
            _check_starts_nothing(_read_if_text(item) if key == "vec_env_kwargs" else item, f"{key}.")
    elif isinstance(value, list):
        for item in value:
            _check_starts_nothing(item, where)


def arguments_of(experiment: Mapping[str, Any], conf_file: str, tensorboard_log: str | None = None) -> list[str]:
    """Make rl-zoo's command line again, without the environment's arguments, which rl-zoo would evaluate.

    :param experiment: as described and checked
    :param conf_file: where the hyperparameters have been written to, see :func:`hyperparameter_file`
    :param tensorboard_log: where event files go; None for RUN_DIR/tb
    :return: the flags
    """
    arguments = ["--conf-file", conf_file]
    for name in _TYPES:
        flag, value = f"--{name.replace('_', '-')}", experiment[name]
        if name == "tensorboard_log":
            value = tensorboard_log
        if isinstance(value, bool):
            arguments += [flag] if value else []
        elif isinstance(value, list):
            arguments += [flag, *value] if value else []
        elif value not in {None, ""}:
            arguments += [f"{flag}={value}"]
    return arguments


def hyperparameter_file(experiment: Mapping[str, Any]) -> dict[str, Any]:
    """:return: what a hyperparameter file for this run alone holds"""
    return {experiment["env"]: experiment["hyperparams"]}


def keep_experiment(run_dir: Path, experiment: Mapping[str, Any]) -> None:
    """Write down in a new RUN_DIR how its run was started.

    :param run_dir: the folder of the run
    :param experiment: as described
    """
    write_atomically(run_dir / EXPERIMENT, json.dumps(experiment, indent=2) + "\n")


def kept_experiment(run_dir: Path) -> Any:
    """Read how a run was started that may have no snapshot yet.

    :param run_dir: the folder of the run
    :return: what :func:`keep_experiment` wrote, or anything else that stands there: :func:`check_experiment` tells;
        None where there is no such file
    :raises ValueError: if the file is not JSON, or is too large for a description
    """
    path = run_dir / EXPERIMENT
    if path.is_symlink() or not path.is_file():
        return None
    try:
        if path.stat().st_size > MAX_EXPERIMENT_BYTES:
            raise ValueError(f"it has more than {MAX_EXPERIMENT_BYTES:,} bytes")
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise ValueError(f"{path} cannot be read ({error}): the run cannot be begun again from it") from error
