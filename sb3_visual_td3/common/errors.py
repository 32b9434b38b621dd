"""Errors that are what two worlds expect of them."""

from __future__ import annotations

import select
from collections.abc import Iterator
from contextlib import contextmanager


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
