"""A user's mistakes and our own bugs: which is which, what is printed, and the exit codes that all commands share."""

from __future__ import annotations

import dis
import os
import select
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

BAD_USAGE = 2
"""Exit code of a mistake that was found before the work started."""
INTERNAL_ERROR = 4
"""Exit code of a bug."""
DEBUG_FLAG = "--debug"
DEBUG_VARIABLE = "VISUAL_TD3_DEBUG"
CODE_FAULTS = (AttributeError, TypeError, NameError, LookupError, AssertionError)
"""Exceptions of code that is wrong. A setting that is wrong raises a ValueError, a file that is wrong an OSError."""


class UsageError(ValueError):
    """A mistake in what the user asked for: a command prints it as one line and ends with exit code 2."""


class InvalidSettingError(AssertionError, ValueError):
    """A setting that cannot work: a ValueError, and the AssertionError that Stable-Baselines3 raises there."""


@contextmanager
def assertions_as_setting_errors(advice: str = "", about: str = "") -> Iterator[None]:
    """Turn assertions on a user's settings into errors that are ValueErrors as well.

    :param advice: what to do about them, added to the text
    :param about: a word; the advice is added only where the text speaks of it
    :raises InvalidSettingError: where the body raises an AssertionError
    """
    try:
        yield
    except InvalidSettingError:
        raise
    except AssertionError as error:
        fits = advice and about in str(error).lower()
        raise InvalidSettingError(f"{error}. {advice}" if fits else str(error)) from error


def reader_is_gone() -> bool:
    """Return whether the program that reads stdout or stderr has ended, as ``head`` does.

    A BrokenPipeError alone does not tell: a pipe to a worker process breaks as well, and that is worth a message.
    """
    if not hasattr(select, "poll"):  # Windows
        return True
    ends = select.poll()
    for handle in (1, 2):
        ends.register(handle, 0)
    return any(event & select.POLLERR for _, event in ends.poll(0))


def was_raised_on_purpose(error: BaseException) -> bool:
    """Return whether a ``raise`` statement raised an exception, rather than an operation that failed.

    ``raise ValueError("expected a number")`` tells the user of a mistake; the ValueError of ``a, b = c`` is a bug.

    :param error: an exception that was raised
    :return: whether the innermost instruction of its traceback is a ``raise`` (or an ``assert``)
    """
    last = error.__traceback__
    if last is None:
        return False
    while last.tb_next is not None:
        last = last.tb_next
    return last.tb_frame.f_code.co_code[last.tb_lasti] == dis.opmap["RAISE_VARARGS"]


def is_debugging() -> bool:
    """Return whether the traceback of a usage error is wanted, by ``--debug`` or ``VISUAL_TD3_DEBUG=1``."""
    return os.environ.get(DEBUG_VARIABLE, "") not in {"", "0"}


@contextmanager
def debugging(is_wanted: bool) -> Iterator[None]:
    """Ask for the tracebacks of usage errors, in this process and in those that it starts.

    :param is_wanted: False leaves the environment variable as it is
    """
    before = os.environ.get(DEBUG_VARIABLE)
    if is_wanted:
        os.environ[DEBUG_VARIABLE] = "1"
    try:
        yield
    finally:
        if is_wanted and before is None:
            del os.environ[DEBUG_VARIABLE]
        elif is_wanted and before is not None:
            os.environ[DEBUG_VARIABLE] = before


def show_traceback_if_debugging(error: BaseException) -> None:
    """Print the traceback of a usage error to stderr where it is wanted.

    :param error: the mistake
    """
    if is_debugging():
        traceback.print_exception(error)


def report_bug(command: str, error: BaseException) -> int:
    """Print an exception that is not the user's mistake, with its traceback, to stderr.

    :param command: our subcommand
    :param error: what it ended with
    :return: the exit code
    """
    traceback.print_exception(error)
    print(
        f"visual-td3 {command}: internal error: {type(error).__name__}: please report this, with the traceback above, "
        "unless it ends in code of your own, such as a callback or an environment",
        file=sys.stderr,
    )
    return INTERNAL_ERROR
