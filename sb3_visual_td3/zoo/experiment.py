"""How a run was started, as plain data: what a snapshot keeps so that rl-zoo can make the same again."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from typing import Any

from sb3_visual_td3.common.literals import python_literal

ALLOWED_PACKAGES = ("sb3_visual_td3", "stable_baselines3", "sb3_contrib", "rl_zoo3", "gymnasium")
"""What a resumed run may import because its hyperparameters name it; others have to be allowed by the user."""

_EVALUATED = ("policy_kwargs", "replay_buffer_class", "replay_buffer_kwargs", "monitor_kwargs", "normalize")
"""Hyperparameters that rl-zoo runs as Python code where they are strings."""
_IMPORTED = ("callback", "env_wrapper", "vec_env_wrapper", "policy")
"""Hyperparameters that rl-zoo imports where they are dotted paths."""
_MAPPING_FLAGS = ("env_kwargs", "eval_env_kwargs")
_PLAIN_FLAGS = (
    "algo",
    "env",
    "seed",
    "n_timesteps",
    "tensorboard_log",
    "trained_agent",
    "num_threads",
    "log_interval",
    "eval_freq",
    "eval_episodes",
    "n_eval_envs",
    "save_freq",
    "save_replay_buffer",
    "log_folder",
    "vec_env",
    "device",
    "verbose",
    "progress",
    "gym_packages",
)


def describe_experiment(args: argparse.Namespace, hyperparams: Mapping[str, Any]) -> dict[str, Any]:
    """Write down how a run was started.

    :param args: rl-zoo's arguments, the seed drawn
    :param hyperparams: as read, before rl-zoo makes objects of them
    :return: plain data
    :raises ValueError: if a hyperparameter is Python code or an object, which a snapshot does not hold
    """
    described = {name: getattr(args, name) for name in (*_PLAIN_FLAGS, *_MAPPING_FLAGS)}
    described["hyperparams"] = {name: _as_data(name, value) for name, value in hyperparams.items()}
    for name in _MAPPING_FLAGS:
        described[name] = None if described[name] is None else _plain(f"--{name.replace('_', '-')}", described[name])
    return described


def _as_data(name: str, value: Any) -> Any:
    if name in _EVALUATED and isinstance(value, str):
        value = _literal(name, value)
    return _plain(f"the hyperparameter {name}", value)


def _literal(name: str, code: str) -> Any:
    """:return: what ``dict(a=1)`` or a literal stands for, without running it"""
    try:
        return python_literal(code)
    except ValueError as error:
        raise ValueError(
            f"{name} is Python code, which a snapshot does not hold: {code!r}. Write it as a yml mapping of numbers "
            "and strings, or leave SnapshotCallback out"
        ) from error


def _plain(where: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(f"{where}.{key}", item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(where, item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(
        f"{where} is {value!r}, which a snapshot does not hold: expected numbers, strings, lists and mappings of "
        "these. Leave SnapshotCallback out, or train in a script of your own, with SnapshotCallback(resume=True)"
    )


def check_imports(experiment: Mapping[str, Any], allowed: Iterable[str] = ()) -> None:
    """Refuse to import what a snapshot names, unless it is known or the user says so.

    :param experiment: as described
    :param allowed: packages beside :data:`ALLOWED_PACKAGES`
    :raises ValueError: if something else would be imported; it is named
    """
    known = {*ALLOWED_PACKAGES, *allowed}
    paths = [*experiment["gym_packages"]]
    for name in _IMPORTED:
        paths += _paths_in(experiment["hyperparams"].get(name))
    # rl-zoo looks for the modules of "module:Env-v0" itself.
    paths += [experiment["env"].split(":")[0]] if ":" in experiment["env"] else []
    strange = sorted({path for path in paths if path.split(".")[0] not in known})
    if strange:
        packages = " ".join(sorted({path.split(".")[0] for path in strange}))
        raise ValueError(
            f"the run imports {', '.join(strange)}, which is not ours to run because a file says so. If you know it: "
            f"--allow {packages}"
        )


def _paths_in(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value] if "." in value else []
    if isinstance(value, Mapping):
        return [path for key in value for path in _paths_in(key)]
    return [path for item in value for path in _paths_in(item)] if isinstance(value, list) else []


def arguments_of(experiment: Mapping[str, Any], conf_file: str) -> list[str]:
    """Make rl-zoo's command line again.

    :param experiment: as described
    :param conf_file: where the hyperparameters have been written to, see :func:`hyperparameter_file`
    :return: the flags; what rl-zoo evaluates are literals
    """
    arguments = ["--conf-file", conf_file]
    for name in _PLAIN_FLAGS:
        flag, value = f"--{name.replace('_', '-')}", experiment[name]
        if isinstance(value, bool):
            arguments += [flag] if value else []
        elif isinstance(value, list):
            arguments += [flag, *value] if value else []
        elif value not in {None, ""}:
            arguments += [f"{flag}={value}"]
    for name in _MAPPING_FLAGS:
        if experiment[name] is not None:
            arguments += [f"--{name.replace('_', '-')}", *(f"{key}:{item!r}" for key, item in experiment[name].items())]
    return arguments


def hyperparameter_file(experiment: Mapping[str, Any]) -> dict[str, Any]:
    """:return: what a hyperparameter file for this run alone holds"""
    return {experiment["env"].split(":")[-1]: experiment["hyperparams"]}
