"""Errors that are what two worlds expect of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class InvalidSettingError(AssertionError, ValueError):
    """A setting that cannot work: a ValueError, and the AssertionError that Stable-Baselines3 raises there."""


@contextmanager
def assertions_as_setting_errors(advice: str = "") -> Iterator[None]:
    """Turn assertions on a user's settings into errors that are ValueErrors as well.

    :param advice: what to do about them, added to the text
    :raises InvalidSettingError: where the body raises an AssertionError
    """
    try:
        yield
    except InvalidSettingError:
        raise
    except AssertionError as error:
        raise InvalidSettingError(f"{error}. {advice}" if advice else str(error)) from error
