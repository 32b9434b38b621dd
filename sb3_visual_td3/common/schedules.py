"""Parse schedules of learning rates and noise from a number, a callable, or a string such as ``"lin_3e-4"``.

A number or a string becomes an instance of one of the classes below. Unlike a lambda, such an instance can be pickled
with a model, and a resumed run can compare it with the schedule in the snapshot. ``noise_std`` reads the present
size of a noise, which may follow a schedule.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from sb3_visual_td3.common.errors import InvalidSettingError
from sb3_visual_td3.common.numbers import to_float

Schedule: TypeAlias = Callable[[float], float]
"""Maps the remaining progress (1 at the start of training, 0 at the end) to a value, as in Stable-Baselines3."""

ScheduleLike: TypeAlias = float | str | Schedule


@dataclass(frozen=True)
class Constant:
    """Return the same value at any progress of the training."""

    value: float

    def __call__(self, progress_remaining: float) -> float:  # noqa: ARG002
        """Return the value, whatever the progress is."""
        return self.value


@dataclass(frozen=True)
class Linear:
    """Follow a straight line from ``start`` to ``end``, and then stay at ``end``.

    The last rollout may exceed the planned steps; the remaining progress is then negative.
    """

    start: float
    end: float = 0.0

    def __call__(self, progress_remaining: float) -> float:
        """Return the value of the schedule for a remaining progress (1 at the start of training, 0 at the end)."""
        return self.end + (self.start - self.end) * max(progress_remaining, 0.0)


@dataclass(frozen=True)
class Cosine:
    """Follow half a cosine from ``start`` to ``end``, and then stay at ``end``.

    Source: Loshchilov and Hutter 2017 (SGDR), equation 5, without restarts.
    """

    start: float
    end: float = 0.0

    def __call__(self, progress_remaining: float) -> float:
        """Return the value of the schedule for a remaining progress (1 at the start of training, 0 at the end)."""
        return self.end + (self.start - self.end) * 0.5 * (1.0 - math.cos(math.pi * max(progress_remaining, 0.0)))


@dataclass(frozen=True)
class Scaled:
    """Multiply a schedule by a factor; the guard of ExplosionAlertCallback lowers learning rates with it."""

    schedule: Schedule
    factor: float

    def __call__(self, progress_remaining: float) -> float:
        """Return the schedule's value, multiplied by the factor."""
        return self.schedule(progress_remaining) * self.factor


_SHAPES: dict[str, type[Linear] | type[Cosine]] = {"lin": Linear, "cos": Cosine}


def parse_schedule(value: ScheduleLike, name: str = "schedule") -> Schedule:
    """Turn a number, a string or a callable into a schedule.

    :param value: a number >= 0 (also as text), ``"lin_START"``, ``"lin_START_END"``, ``"cos_START"``,
        ``"cos_START_END"``, or a callable of the progress remaining
    :param name: name of the argument, for the error message
    :return: a schedule that can be pickled; a callable is returned as it is
    :raises InvalidSettingError: if the value has another form, or if a number is negative or not finite. For a
        callable, only its value at the start of training is checked.
    """
    if callable(value):
        # Only the start is checked, because a callable may be undefined for other values until training reaches them.
        start = value(1.0)
        if not _is_finite_and_not_negative(start):
            raise InvalidSettingError(
                f"{name} returns {start!r} at the start of training: expected finite numbers >= 0"
            )
        return value
    # "lin_3e-4_1e-5" has the shape "lin", a start and an end. A number, also as text, has only one value.
    shape: str = ""
    ends: list[Any] = [value]
    if isinstance(value, str) and value.split("_")[0] in _SHAPES:
        shape, *ends = value.split("_")
    try:
        numbers = [to_float(name, end, 0.0) for end in ends]
    except ValueError:
        numbers = []
    if not 1 <= len(numbers) <= (2 if shape else 1):
        raise InvalidSettingError(
            f"{name}={value!r} is not a schedule: expected a finite number >= 0, 'lin_3e-4' (to zero), "
            "'lin_3e-4_1e-5', 'cos_3e-4', or a callable of the remaining progress"
        )
    if shape:
        return _SHAPES[shape](*numbers)
    return Constant(numbers[0])


def _is_finite_and_not_negative(value: Any) -> bool:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return False
    return math.isfinite(number) and number >= 0


def noise_std(noise: Any) -> float | None:
    """Return the standard deviation of an action noise, averaged over the dimensions of the action.

    :param noise: an action noise for one environment, or Stable-Baselines3's VectorizedActionNoise
    :return: the standard deviation; None if the noise has no attribute ``sigma`` or ``_sigma``
    """
    # The first of several environments: all have copies of the same noise. The copies follow a schedule, but the
    # ``base_noise`` of a VectorizedActionNoise keeps its first value.
    each = getattr(noise, "noises", [noise])[0]
    sigma = getattr(each, "sigma", getattr(each, "_sigma", None))
    return None if sigma is None else float(np.mean(sigma))
