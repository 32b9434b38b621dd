"""A mistake in what was typed: one clear line on stderr and exit code 2, never a traceback."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import pickle
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import gymnasium as gym
import yaml

from sb3_visual_td3.common.errors import reader_is_gone

BAD_USAGE = 2
"""Exit code of a mistake that was found before the work started."""
SAVE_FAILED = 74
"""Exit code of a training whose model could not be saved at the end: EX_IOERR of ``sysexits.h``. It can be resumed."""
INTERRUPTED = 130
"""Exit code of a training that Ctrl-C ended, as shells have it: 128 and the number of SIGINT. It can be resumed."""

_MODULES = {"plots": ("matplotlib", "seaborn", "pandas", "scipy", "rliable"), "video": ("moviepy",)}
"""What an extra brings, as far as rl-zoo's commands import it."""
_TOO_NEW_PANDAS = 3
_NETWORK = ("httpx", "httpx2", "httpcore", "requests")


class UsageError(ValueError):
    """Arguments that the command does not take."""


def mistakes() -> tuple[type[Exception], ...]:
    """:return: what rl-zoo, and what it calls, raises where a user asked for what cannot be"""
    kinds: list[type[Exception]] = [
        ValueError,
        TypeError,
        AssertionError,
        OSError,
        ImportError,
        LookupError,
        AttributeError,
        RuntimeError,  # of rl-zoo, where a kind of noise is unknown; of torch, where weights do not fit
        NameError,  # of a flag's value, which rl-zoo evaluates
        SyntaxError,
        OverflowError,  # of a number that no float holds
        yaml.YAMLError,
        gym.error.Error,
        zipfile.BadZipFile,
        pickle.UnpicklingError,
    ]
    # With these huggingface_hub goes to the network; which of them depends on its age.
    clients = [sys.modules[name] for name in _NETWORK if name in sys.modules]
    return (*kinds, *(client.HTTPError for client in clients if hasattr(client, "HTTPError")))


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
    has_no_model = isinstance(error, zipfile.BadZipFile) or "wasn't a zip-file" in text or "No model found" in text
    if has_no_model and "visual-td3 resume" not in text:
        text += "; a run that was killed goes on and is saved by 'visual-td3 resume RUN_DIR'"
    if type(error).__module__.split(".")[0] in _NETWORK:
        text = f"the Hugging Face hub cannot be reached ({text}): look to the network; benchmark has --no-hub"
    print(f"visual-td3 {command}: {text}", file=sys.stderr)
    return BAD_USAGE


@contextmanager
def usage_errors() -> Iterator[None]:
    """Have argparse raise where it would print the usage of all of rl-zoo's flags and end the process."""

    def refuse(self: argparse.ArgumentParser, message: str) -> NoReturn:  # noqa: ARG001 - a method of the parser
        raise UsageError(f"{message}; --help shows the flags")

    stock = argparse.ArgumentParser.error
    argparse.ArgumentParser.error = refuse  # type: ignore[method-assign]
    try:
        yield
    finally:
        argparse.ArgumentParser.error = stock  # type: ignore[method-assign]


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
