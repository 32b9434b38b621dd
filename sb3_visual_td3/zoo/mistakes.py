"""Tells a user's mistake (one line on stderr, exit code 2) from a bug (a traceback, exit code 4).

Only what is listed here is a mistake. See :func:`is_mistake`.
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
    BAD_USAGE,
    CODE_FAULTS,
    UsageError,
    reader_is_gone,
    report_bug,
    show_traceback_if_debugging,
    was_raised_on_purpose,
)

SAVE_FAILED = 74
"""Exit code of a training whose model could not be saved at the end: EX_IOERR of ``sysexits.h``. It can be resumed."""
INTERRUPTED = 130
"""Exit code of a training that Ctrl-C ended, as shells have it: 128 and the number of SIGINT. It can be resumed."""

_MODULES = {"plots": ("matplotlib", "seaborn", "pandas", "scipy", "rliable"), "video": ("moviepy",)}
"""What an extra brings, as far as rl-zoo's commands import it."""
_TOO_NEW_PANDAS = 3
_NETWORK = ("httpx", "httpx2", "httpcore", "requests")


_ALWAYS: tuple[type[Exception], ...] = (UsageError, OSError, UnicodeError, SyntaxError, OverflowError)
"""What is wrong with the user's files, the network, code that the user wrote, or a number that no float holds."""
_TELLS: tuple[type[Exception], ...] = (
    ValueError,
    ImportError,
    yaml.YAMLError,
    gym.error.Error,
    zipfile.BadZipFile,
    pickle.UnpicklingError,
)
"""Exceptions that a ``raise`` statement uses to tell the user of a mistake, in our code and in that of others."""
_AT_THE_BORDER: Mapping[str, tuple[type[Exception], ...]] = {
    # The modules, classes and keywords that a hyperparameter file names, and the text that rl-zoo evaluates.
    "rl_zoo3": (*CODE_FAULTS, ValueError, RuntimeError, SyntaxError, ArithmeticError),
    "<string>": (*CODE_FAULTS, ValueError, RuntimeError, SyntaxError, ArithmeticError),
    # ``gym.make`` with keywords that the environment does not take.
    "gymnasium": (AssertionError, AttributeError, TypeError, ValueError),
    # Constructors that check settings with assertions, and ``load`` with a file that does not fit.
    "stable_baselines3": (AssertionError, LookupError, TypeError, ValueError, RuntimeError),
    "sb3_contrib": (AssertionError, LookupError, TypeError, ValueError, RuntimeError),
    # A file that is nested too deeply.
    "yaml": (*CODE_FAULTS, ValueError, RecursionError),
    "torch": (AssertionError, ValueError, RuntimeError),
    "huggingface_hub": (AssertionError, ValueError, RuntimeError),
    "huggingface_sb3": (AssertionError, ValueError, RuntimeError),
}
"""Packages that meet the user's input before we can check it, and what they raise where it cannot be used.

Each counts only where the traceback ends in the package itself: in our code and in the user's the same exception is a
bug.
"""
_OURS = "sb3_visual_td3"
_MADE_OF_SETTINGS = tuple(f"{_OURS}.{part}." for part in ("visual_td3", "buffers", "callbacks", "envs", "vec_env"))
"""Our packages whose constructors get the values of a hyperparameter file as they are."""
_STANDARD_LIBRARY = {*sys.stdlib_module_names, "<frozen importlib"}


def is_mistake(error: Exception) -> bool:
    """Tell a mistake in what the user asked for from a bug in the code.

    :param error: what a command ended with, before its work began
    :return: whether it is the user's mistake: a :class:`UsageError` or another exception class of ours, an exception
        that a ``raise`` statement made to tell of a mistake, or one of those in the table above
    """
    is_ours = type(error).__module__.partition(".")[0] == _OURS
    if is_ours or isinstance(error, _ALWAYS) or _is_of_the_network(error):
        return True
    if isinstance(error, ModuleNotFoundError):
        # A module of ours that a hyperparameter file misspells is imported by rl-zoo.
        return (error.name or "").partition(".")[0] != _OURS or _package(_owner(error)) == "rl_zoo3"
    owner = _owner(error)
    if is_of_a_type(error):
        return True
    if was_raised_on_purpose(error) and isinstance(error, _TELLS):
        return True
    # An environment says so where its simulator cannot be reached. Our own code has exceptions of its own for that.
    if was_raised_on_purpose(error) and type(error) is RuntimeError and _package(owner) != _OURS:
        return True
    return isinstance(error, _AT_THE_BORDER.get(_package(owner), ()))


def is_of_a_type(error: Exception) -> bool:
    """Return whether a constructor of ours failed because a value of the hyperparameter file has a wrong type.

    The constructors check values, and types where it is likely that they are wrong. The rest fails at its first use.

    :param error: what setting up an experiment ended with
    """
    return (
        isinstance(error, TypeError)
        and not was_raised_on_purpose(error)
        and _owner(error).startswith(_MADE_OF_SETTINGS)
    )


def _is_of_the_network(error: Exception) -> bool:
    """Return whether one of the clients raised it with which huggingface_hub goes to the network."""
    clients = [sys.modules[name] for name in _NETWORK if name in sys.modules]
    return isinstance(error, tuple(client.HTTPError for client in clients if hasattr(client, "HTTPError")))


def _package(module: str) -> str:
    return module.partition(".")[0]


def _owner(error: Exception) -> str:
    """Return the module whose code raised an exception, or called the standard library, which raised it."""
    owner, frame = "", error.__traceback__
    while frame is not None:
        # A script of rl-zoo is run as __main__: its spec has its own name.
        names = frame.tb_frame.f_globals
        name = names["__spec__"].name if names.get("__spec__") else names.get("__name__", "")
        is_evaluated = frame.tb_frame.f_code.co_filename == "<string>"
        module = "<string>" if is_evaluated else str(name)
        if _package(module) not in _STANDARD_LIBRARY:
            owner = module
        frame = frame.tb_next
    return owner


def answer(command: str, error: Exception) -> int:
    """Print what a command ended with: one line for a mistake, the traceback for a bug.

    :param command: our subcommand
    :param error: what it ended with
    :return: the exit code
    """
    return complain(command, error) if is_mistake(error) else report_bug(command, error)


def complain(command: str, error: Exception) -> int:
    """Say what is wrong.

    :param command: our subcommand
    :param error: what it ended with
    :return: the exit code
    :raises BrokenPipeError: where nothing can be said any more because the reader has ended
    """
    if isinstance(error, BrokenPipeError) and reader_is_gone():
        raise error
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, KeyError):  # says nothing but the key
        text = f"there is no {text}: look for the name in the hyperparameter file, or in the flags"
    if is_of_a_type(error):
        text = f"a value of the hyperparameters has a wrong type ({text}); --debug shows where it is used"
    has_no_model = isinstance(error, zipfile.BadZipFile) or "wasn't a zip-file" in text or "No model found" in text
    if has_no_model and "visual-td3 resume" not in text:
        text += "; a run that was killed goes on and is saved by 'visual-td3 resume RUN_DIR'"
    if type(error).__module__.split(".")[0] in _NETWORK:
        text = f"the Hugging Face hub cannot be reached ({text}): look to the network; benchmark has --no-hub"
    show_traceback_if_debugging(error)
    print(f"visual-td3 {command}: {text}", file=sys.stderr)
    return BAD_USAGE


def save_failed(command: str, error: Exception) -> int:
    """Print that the end of a training could not be saved.

    :param command: our subcommand
    :param error: what happened
    :return: the exit code
    """
    print(f"visual-td3 {command}: {' '.join(str(error).split())}", file=sys.stderr)
    return SAVE_FAILED


def need_extra(extra: str) -> None:
    """Look for what a command will import.

    :param extra: of this package
    :raises ImportError: if something is missing, or too new; the extra is named
    """
    remedy = f"install the extra, pip install 'sb3-visual-td3[{extra}]'"
    for module in _MODULES[extra]:
        if importlib.util.find_spec(module) is None:
            raise ImportError(f"this needs {module}, which is not installed: {remedy}")
    if extra == "plots" and int((version := importlib.metadata.version("pandas")).split(".")[0]) >= _TOO_NEW_PANDAS:
        raise ImportError(f"this needs pandas below {_TOO_NEW_PANDAS}, and {version} is installed: {remedy}")
