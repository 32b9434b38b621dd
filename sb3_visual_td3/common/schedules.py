"""Schedules: a number, a callable, or a short string such as ``"lin_3e-4"`` that a yml file can hold."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from sb3_visual_td3.common.errors import InvalidSettingError

Schedule: TypeAlias = Callable[[float], float]
"""Maps the progress remaining (1 at the start, 0 at the end of training) to a value, as in Stable-Baselines3."""

ScheduleLike: TypeAlias = float | str | Schedule


@dataclass(frozen=True)
class Constant:
    """The same value throughout."""

    value: float

    def __call__(self, progress_remaining: float) -> float:  # noqa: ARG002
        """:return: the value"""
        return self.value


@dataclass(frozen=True)
class Linear:
    """A straight line from ``start`` to ``end``, where it stays: the last episode may go past the end of training."""

    start: float
    end: float = 0.0

    def __call__(self, progress_remaining: float) -> float:
        """:return: the value at this point of the line"""
        return self.end + (self.start - self.end) * max(progress_remaining, 0.0)


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from ``start`` to ``end``, where it stays.

    Source: Loshchilov and Hutter 2017 (SGDR), equation 5, without restarts.
    """

    start: float
    end: float = 0.0

    def __call__(self, progress_remaining: float) -> float:
        """:return: the value at this point of the curve"""
        return self.end + (self.start - self.end) * 0.5 * (1.0 - math.cos(math.pi * max(progress_remaining, 0.0)))


@dataclass(frozen=True)
class Scaled:
    """Another schedule times a factor."""

    schedule: Schedule
    factor: float

    def __call__(self, progress_remaining: float) -> float:
        """:return: the other schedule's value times the factor"""
        return self.schedule(progress_remaining) * self.factor


_SHAPES: dict[str, type[Linear] | type[Cosine]] = {"lin": Linear, "cos": Cosine}


def parse_schedule(value: ScheduleLike, name: str = "schedule") -> Schedule:
    """Turn a number, a string or a callable into a schedule.

    :param value: a number >= 0, ``"lin_START"``, ``"lin_START_END"``, ``"cos_START"``, ``"cos_START_END"``, a
        number in a string, or a callable of the progress remaining
    :param name: the argument's name, for the error
    :return: a picklable schedule (a callable is returned as it is)
    :raises InvalidSettingError: if the value is none of these, negative or not finite (a callable: at its start)
    """
    if callable(value):
        start = value(1.0)
        if not _is_finite_and_not_negative(start):
            raise InvalidSettingError(
                f"{name} starts at {start!r}: expected a callable whose numbers are finite and >= 0"
            )
        return value
    shape, *ends = value.split("_") if isinstance(value, str) else ("", value)
    if isinstance(value, str) and shape not in _SHAPES:
        shape, ends = "", [value]
    try:
        numbers = [float(end) for end in ends]
    except (TypeError, ValueError):
        numbers = []
    well_formed = 1 <= len(numbers) <= (2 if shape else 1)
    if isinstance(value, bool) or not well_formed or not all(map(_is_finite_and_not_negative, numbers)):
        raise InvalidSettingError(
            f"{name}={value!r} is no schedule: give a finite number >= 0, 'lin_3e-4' (to zero), 'lin_3e-4_1e-5', "
            "'cos_3e-4', or a callable of the progress remaining"
        )
    return _SHAPES[shape](*numbers) if shape else Constant(numbers[0])


def _is_finite_and_not_negative(value: Any) -> bool:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return False
    return math.isfinite(number) and number >= 0
