"""Distinguish user mistakes from bugs of this package, print them, and define the exit codes of all commands.

A mistake is printed as one line and ends with exit code 2. A bug is printed with its traceback and ends with exit code
4.
"""

from __future__ import annotations

import dis
import os
import select
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import IntEnum
from pathlib import Path

DEBUG_FLAG = "--debug"
DEBUG_VARIABLE = "VISUAL_TD3_DEBUG"
CODE_FAULTS = (AttributeError, TypeError, NameError, LookupError, AssertionError)
"""Exceptions that wrong code raises. A wrong setting raises a ValueError, and a wrong file raises an OSError."""


class ExitCode(IntEnum):
    """Define the exit codes of all commands; 1 is also what Python exits with after an uncaught exception."""

    GO = 0
    """Success; in a command that judges, the verdict GO."""
    NO_GO = 1
    """The verdict NO-GO, or a problem that the doctor has found."""
    CRASHED = 1
    """An exception ended a training run. The number is that of NO_GO, so this name is an alias of NO_GO."""
    BAD_USAGE = 2
    """A mistake of the user that was found before the work started, or input that cannot be read."""
    INSUFFICIENT = 3
    """The verdict INSUFFICIENT."""
    INTERNAL_ERROR = 4
    """A bug."""
    SAVE_FAILED = 74
    """The final model of a training run could not be saved: EX_IOERR of ``sysexits.h``."""
    RESUMABLE = 75
    """A signal ended a training run that can be resumed: EX_TEMPFAIL ("try again") of ``sysexits.h``."""
    INTERRUPTED = 130
    """Ctrl-C ended the command: 128 plus the number of SIGINT, as in shells."""
    READER_IS_GONE = 141
    """The program that reads stdout, such as ``head``, has ended first: 128 plus the number of SIGPIPE."""


class UsageError(ValueError):
    """Report a mistake of the user; a command prints it as one line and ends with exit code 2."""


class InvalidSettingError(AssertionError, ValueError):
    """Report a setting that cannot work; it is a ValueError, and also an AssertionError as in Stable-Baselines3."""


@contextmanager
def assertions_as_setting_errors(advice: str = "", about: str = "") -> Iterator[None]:
    """Convert Stable-Baselines3's AssertionErrors about a user's settings into :class:`InvalidSettingError`.

    :param advice: advice to the user that is added to the message
    :param about: a word that the message must contain for the advice to be added
    :raises InvalidSettingError: if the body raises an AssertionError
    """
    try:
        yield
    except InvalidSettingError:
        raise
    except AssertionError as error:
        message = str(error)
        if advice and about in message.lower():
            message = f"{message}. {advice}"
        raise InvalidSettingError(message) from error


def in_one_line(error: object) -> str:
    """Return a message without line breaks, because a usage error is a single line.

    :param error: an exception, or a text
    """
    return " ".join(str(error).split())


def reader_is_gone() -> bool:
    """Return whether the program that reads stdout or stderr, such as ``head``, has ended.

    A BrokenPipeError alone does not show this, because a pipe to a worker process can also break.
    """
    # Windows has no poll().
    if not hasattr(select, "poll"):
        return True
    ends = select.poll()
    for handle in (1, 2):
        ends.register(handle, 0)
    return any(event & select.POLLERR for _, event in ends.poll(0))


def was_raised_on_purpose(error: BaseException) -> bool:
    """Return whether an exception comes from a ``raise`` or ``assert`` statement, not from a failed operation.

    ``raise ValueError("expected a number")`` reports a mistake to the user; the ValueError of ``a, b = c`` is a bug.

    :param error: an exception that was raised
    """
    last = error.__traceback__
    if last is None:
        return False
    while last.tb_next is not None:
        last = last.tb_next
    return last.tb_frame.f_code.co_code[last.tb_lasti] == dis.opmap["RAISE_VARARGS"]


def is_input_error(error: BaseException) -> bool:
    """Return whether an exception reports a wrong argument or a wrong file, rather than a bug of this package.

    A ValueError counts only if a ``raise`` statement raised it, because a wrong operation of ours, such as an addition
    of arrays whose shapes differ, raises a ValueError too.

    :param error: an exception that was raised while the command read its input
    """
    if isinstance(error, ValueError) and not isinstance(error, UnicodeError):
        return was_raised_on_purpose(error)
    return isinstance(error, (OSError, UnicodeError))


def check_output(flag: str, path: Path) -> None:
    """Refuse a path at which no file can be written; call this before you compute the content of the file.

    :param flag: the flag that gave the path, for the message
    :param path: path of the file
    :raises UsageError: if its folder does not exist or cannot be written to, or if the path is a folder
    """
    if not path.parent.is_dir():
        raise UsageError(f"{flag} {path}: there is no folder {path.parent}; create it, or choose another folder")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise UsageError(f"{flag} {path}: no file can be written there; choose another path")


def is_debugging() -> bool:
    """Return whether tracebacks of usage errors are requested, by ``--debug`` or ``VISUAL_TD3_DEBUG=1``."""
    return os.environ.get(DEBUG_VARIABLE, "") not in {"", "0"}


@contextmanager
def debugging(is_wanted: bool) -> Iterator[None]:
    """Request tracebacks of usage errors in this process and its worker processes, during a ``with`` block.

    :param is_wanted: whether to set ``VISUAL_TD3_DEBUG=1``; False leaves this environment variable as it is
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
    """Print the traceback of an error to stderr, if tracebacks are requested.

    :param error: a usage error, or an error after which a server continues
    """
    if is_debugging():
        with suppress(BrokenPipeError):  # a server continues although nothing reads its console
            traceback.print_exception(error)


def report_bug(command: str, error: BaseException) -> int:
    """Print the traceback of a bug to stderr, and ask the user to report the bug.

    :param command: name of the subcommand
    :param error: the exception
    :return: the exit code
    """
    traceback.print_exception(error)
    print(
        f"visual-td3 {command}: internal error: {type(error).__name__}: please report this with the traceback above, "
        "unless the traceback ends in your own code, such as a callback or an environment",
        file=sys.stderr,
    )
    return ExitCode.INTERNAL_ERROR
