"""Distinguish a user's mistake (one line on stderr, exit code 2) from a bug (a traceback, exit code 4).

Only the exceptions listed here are mistakes, so that an error in our code is never shown as the user's mistake.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import pickle
import sys
import zipfile
from collections.abc import Mapping

import gymnasium as gym
import yaml

from sb3_visual_td3.common.errors import (
    CODE_FAULTS,
    ExitCode,
    UsageError,
    in_one_line,
    reader_is_gone,
    report_bug,
    show_traceback_if_debugging,
    was_raised_on_purpose,
)
from sb3_visual_td3.common.installation import install_command

_MODULES = {"plots": ("matplotlib", "seaborn", "pandas", "scipy", "rliable"), "video": ("moviepy",)}
"""Libraries that rl-zoo's commands import, by the extra of this package that installs them."""
_TOO_NEW_PANDAS = 3
_NETWORK = ("httpx", "httpx2", "httpcore", "requests")
"""HTTP packages that huggingface_hub uses. Each release of huggingface_hub uses only some of them."""

_ALWAYS: tuple[type[Exception], ...] = (UsageError, OSError, UnicodeError, SyntaxError, OverflowError)
"""Exceptions that always count as a mistake of the user."""
_IF_RAISED: tuple[type[Exception], ...] = (
    ValueError,
    ImportError,
    yaml.YAMLError,
    gym.error.Error,
    zipfile.BadZipFile,
    pickle.UnpicklingError,
)
"""Exceptions that count as a mistake of the user if a ``raise`` statement raised them. If they come from a failed
operation, such as ``int("x")``, ``_RAISED_BY_PACKAGE`` decides."""
_RAISED_BY_PACKAGE: Mapping[str, tuple[type[Exception], ...]] = {
    # Raised for wrong modules, classes or keywords in a hyperparameter file, and for text that rl-zoo evaluates.
    "rl_zoo3": (*CODE_FAULTS, ValueError, RuntimeError, SyntaxError, ArithmeticError),
    "<string>": (*CODE_FAULTS, ValueError, RuntimeError, SyntaxError, ArithmeticError),
    # Raised by ``gym.make`` for keywords that the environment does not take.
    "gymnasium": (AssertionError, AttributeError, TypeError, ValueError),
    # Raised by constructors that check settings with assertions, and by ``load`` for a file that does not fit.
    "stable_baselines3": (AssertionError, LookupError, TypeError, ValueError, RuntimeError),
    "sb3_contrib": (AssertionError, LookupError, TypeError, ValueError, RuntimeError),
    # Raised for a file that is nested too deeply.
    "yaml": (*CODE_FAULTS, ValueError, RecursionError),
    "torch": (AssertionError, ValueError, RuntimeError),
    "huggingface_hub": (AssertionError, ValueError, RuntimeError),
    "huggingface_sb3": (AssertionError, ValueError, RuntimeError),
}
"""Packages that receive the user's input before we can check it, and the exceptions that they raise for wrong input. An
exception counts as a mistake of the user only if code of the listed package raised it."""
_OURS = "sb3_visual_td3"
_CONSTRUCTED_WITH_SETTINGS = tuple(
    f"{_OURS}.{part}." for part in ("visual_td3", "buffers", "callbacks", "envs", "vec_env")
)
"""Packages whose classes receive values of a hyperparameter file directly."""
_STANDARD_LIBRARY = {*sys.stdlib_module_names, "<frozen importlib"}


class SearchStoppedError(RuntimeError):
    """Report that several trials in a row or all trials have failed, so the search has no result.

    The class is here, and not beside the search, because the search imports SQLAlchemy, which other commands do not
    need.
    """


def is_mistake(error: Exception) -> bool:
    """Return whether an exception is the user's mistake rather than a bug.

    :param error: the exception that ended a command before its work began
    :return: True for exceptions of this package, and for those listed in this module
    """
    is_ours = type(error).__module__.partition(".")[0] == _OURS
    if is_ours or isinstance(error, _ALWAYS) or _is_of_the_network(error):
        return True
    if isinstance(error, ModuleNotFoundError):
        # A missing module of ours is a bug, unless rl-zoo tried to import it: then a hyperparameter file misspells its
        # name.
        return (error.name or "").partition(".")[0] != _OURS or _package(_owner(error)) == "rl_zoo3"
    owner = _owner(error)
    if is_wrong_type(error):
        return True
    if was_raised_on_purpose(error) and isinstance(error, _IF_RAISED):
        return True
    # Other environments raise a RuntimeError if their simulator cannot be reached; ours raise exceptions of their own.
    if was_raised_on_purpose(error) and type(error) is RuntimeError and _package(owner) != _OURS:
        return True
    return isinstance(error, _RAISED_BY_PACKAGE.get(_package(owner), ()))


def is_wrong_type(error: Exception) -> bool:
    """Return whether a class of this package failed because a hyperparameter has a wrong type.

    :param error: the exception
    """
    return (
        isinstance(error, TypeError)
        and not was_raised_on_purpose(error)
        and _owner(error).startswith(_CONSTRUCTED_WITH_SETTINGS)
    )


def _is_of_the_network(error: Exception) -> bool:
    """Return whether a network client of huggingface_hub raised the exception."""
    clients = [sys.modules[name] for name in _NETWORK if name in sys.modules]
    return isinstance(error, tuple(client.HTTPError for client in clients if hasattr(client, "HTTPError")))


def _package(module: str) -> str:
    return module.partition(".")[0]


def _owner(error: Exception) -> str:
    """Return the last module in an exception's traceback that does not belong to the standard library."""
    owner, frame = "", error.__traceback__
    while frame is not None:
        # A script of rl-zoo runs as __main__, and its spec has the real name.
        names = frame.tb_frame.f_globals
        name = names["__spec__"].name if names.get("__spec__") else names.get("__name__", "")
        is_evaluated = frame.tb_frame.f_code.co_filename == "<string>"
        module = "<string>" if is_evaluated else str(name)
        if _package(module) not in _STANDARD_LIBRARY:
            owner = module
        frame = frame.tb_next
    return owner


def answer(command: str, error: Exception) -> int:
    """Print the exception that ended a command: one line for a mistake, the traceback for a bug.

    :param command: name of the subcommand of ``visual-td3``
    :param error: the exception that ended the command
    :return: the exit code
    """
    if is_mistake(error):
        return complain(command, error)
    return report_bug(command, error)


def complain(command: str, error: Exception) -> int:
    """Print a mistake as one line on stderr.

    :param command: name of the subcommand of ``visual-td3``
    :param error: the exception that ended the command
    :return: the exit code
    :raises BrokenPipeError: if the program that reads our output has ended
    """
    if isinstance(error, BrokenPipeError) and reader_is_gone():
        raise error
    text = in_one_line(error) or type(error).__name__
    if isinstance(error, KeyError):  # the text of a KeyError is only the key
        text = f"there is no {text}: check this name in the hyperparameter file and in the flags"
    if is_wrong_type(error):
        text = f"a hyperparameter has a wrong type ({text}): correct its value; --debug shows where it is used"
    has_no_model = isinstance(error, zipfile.BadZipFile) or "wasn't a zip-file" in text or "No model found" in text
    if has_no_model and "visual-td3 resume" not in text:
        text += "; if the run was killed, 'visual-td3 resume RUN_DIR' continues and saves it"
    if type(error).__module__.split(".")[0] in _NETWORK:
        text = (
            f"the Hugging Face hub cannot be reached ({text}): check the network, or use 'benchmark --no-hub', "
            "which does not need it"
        )
    show_traceback_if_debugging(error)
    print(f"visual-td3 {command}: {text}", file=sys.stderr)
    return ExitCode.BAD_USAGE


def save_failed(command: str, error: Exception) -> int:
    """Print that the final model of a training run could not be saved.

    :param command: name of the subcommand of ``visual-td3``
    :param error: the exception that ended the command
    :return: the exit code
    """
    print(f"visual-td3 {command}: {in_one_line(error)}", file=sys.stderr)
    return ExitCode.SAVE_FAILED


def need_extra(extra: str) -> None:
    """Check that the libraries of an extra are installed, before a command imports them.

    :param extra: name of the extra of this package
    :raises ImportError: if a library is missing or too new
    """
    remedy = f"install the libraries of the extra {extra}, {install_command(extra)}"
    for module in _MODULES[extra]:
        if importlib.util.find_spec(module) is None:
            raise ImportError(f"this command needs {module}, which is not installed: {remedy}")
    if extra == "plots" and int((version := importlib.metadata.version("pandas")).split(".")[0]) >= _TOO_NEW_PANDAS:
        raise ImportError(f"this command needs pandas < {_TOO_NEW_PANDAS}, and {version} is installed: {remedy}")
