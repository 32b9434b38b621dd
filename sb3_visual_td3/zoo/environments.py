"""Finds the environment that a command names: ``--gym-packages`` for one's own, and a message where there is none.

rl_zoo3 (seen in 2.9) has the flag in train and enjoy alone, imports modules of the current folder only under
``python -m``, and ends with a KeyError in the commands that check no name.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym

from sb3_visual_td3.common.errors import UsageError

FLAG = "--gym-packages"
_PLACES = {"town", "maps"}
"""Arguments of driving environments that say where to drive."""
_CLOSE = 0.7
"""How much of a name must agree before it is proposed, from 0 to 1."""


def add_packages_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--gym-packages`` to a command that makes an environment.

    :param parser: of the command
    """
    parser.add_argument(
        FLAG,
        nargs="+",
        default=[],
        metavar="MODULE",
        help="modules that register environments of your own: installed packages, or files of the current folder",
    )


def packages_in(arguments: Sequence[str]) -> list[str]:
    """:return: the modules that a command line names"""
    parser = argparse.ArgumentParser(add_help=False)
    add_packages_argument(parser)
    packages: list[str] = parser.parse_known_args(arguments)[0].gym_packages
    return packages


def import_packages(packages: Sequence[str]) -> None:
    """Import the modules that register environments.

    The current folder is searched last. It stays on the path, for processes that are started later need it as well.

    :param packages: their dotted names
    :raises UsageError: if there is no such module; what fails within a module is raised as it is
    """
    here = os.getcwd()
    if packages and here not in sys.path and "" not in sys.path:
        sys.path.append(here)
    for package in packages:
        try:
            importlib.import_module(package)
        except ModuleNotFoundError as error:
            if error.name is None or not (package == error.name or package.startswith(f"{error.name}.")):
                raise ImportError(f"{FLAG} {package}: the module needs {error.name}, which is not installed") from error
            name = Path(package).stem
            is_path = name != package and (package.endswith(".py") or os.sep in package)
            meant = f"; give the name of the module, {name}" if is_path else ""
            raise UsageError(f"{FLAG} {package}: there is no such module, installed or in {here}{meant}") from error


def check_environment(env_id: str, packages: Sequence[str] = ()) -> None:
    """Look for an environment by its name.

    :param env_id: its id, such as ``LiteDriving-v0``
    :param packages: modules that have been imported because they were to register it
    :raises UsageError: if gymnasium knows no such environment; one with a similar name is proposed
    """
    if env_id in gym.registry:
        return
    module, colon, name = env_id.partition(":")
    if colon:
        raise UsageError(f"--env {env_id}: name the module by a flag of its own: {FLAG} {module} --env {name}")
    # Of several with one name, the one without a namespace and with the latest version is proposed.
    by_name = {_bare(known): known for known in sorted(gym.registry, key=lambda known: "/" not in known)}
    close = difflib.get_close_matches(_bare(env_id), by_name, n=1, cutoff=_CLOSE)
    text = f"--env {env_id}: no environment of this name is registered"
    if packages:
        text += f", neither by gymnasium nor by {', '.join(packages)}"
    if close:
        text += f". Did you mean {by_name[close[0]]}?"
    if not packages:
        text += f"{'' if close else '.'} The module of an environment of your own is named by {FLAG} MODULE"
    raise UsageError(text)


def env_kwargs_of(*layers: Mapping[str, Any] | None) -> dict[str, Any]:
    """Put together the arguments of an environment; what a later layer says replaces what earlier ones say.

    CarlaDriving-v0 takes ``town`` or ``maps``, which say the same thing and exclude each other: one of a later layer
    replaces the other one too.

    :param layers: such as those of the hyperparameter file, then those of the command line; None for none
    :return: the arguments
    """
    together: dict[str, Any] = {}
    for layer in layers:
        given = dict(layer or {})
        if given.keys() & _PLACES and not given.keys() >= _PLACES:
            together = {name: value for name, value in together.items() if name not in _PLACES}
        together |= given
    return together


def _bare(env_id: str) -> str:
    """:return: the name alone, in small letters: without namespace and version"""
    return re.sub(r"-v\d+$", "", env_id.rsplit("/", maxsplit=1)[-1]).lower()


def check_flags(arguments: Sequence[str], default_env: str) -> None:
    """Import what a command line of rl-zoo names, and look for its environment.

    :param arguments: the command line
    :param default_env: the environment where it names none
    :raises UsageError: if something is not there
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--env", default=default_env)
    env = parser.parse_known_args(arguments)[0].env
    packages = packages_in(arguments)
    import_packages(packages)
    check_environment(env, packages)
