"""Numbers as users write them: one place decides what counts as an integer or a number.

Settings arrive as Python numbers, as numpy scalars, as floats that mean an integer (``1e6``), and as text (YAML reads
``1e6`` without a dot as text). What is exact is accepted and becomes a plain ``int`` or ``float``; the rest is refused
where it is given, with its name, instead of failing somewhere in training.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import cast

import numpy as np


def whole_number(name: str, value: object, minimum: int | None = None, expected: str | None = None) -> int:
    """Return a setting as an ``int``.

    :param name: what the setting is called, for the error
    :param value: an integer in any notation: ``8``, ``np.int64(8)``, ``8.0``, ``1e6``, ``"8"``, ``"1e6"``
    :param minimum: the smallest integer that is accepted; None accepts all
    :param expected: what the error says was expected; None says it from ``minimum``
    :return: the same integer
    :raises ValueError: if the value is not an integer (bools are rejected), or is too small
    """
    number = _plain_number(value)
    is_whole = number is not None and math.isfinite(number) and number == int(number)
    if number is None or not is_whole or (minimum is not None and number < minimum):
        limit = "" if minimum is None else f" >= {minimum}"
        raise ValueError(f"{name}={value!r}: expected {expected or f'a whole number{limit}'}")
    return int(number)


def real_number(
    name: str,
    value: object,
    minimum: float = -math.inf,
    maximum: float = math.inf,
    *,
    above: float | None = None,
    expected: str | None = None,
) -> float:
    """Return a setting as a ``float``.

    :param name: what the setting is called, for the error
    :param value: a finite number in any notation: ``1``, ``np.float32(0.5)``, ``"1e-3"``
    :param minimum: the smallest number that is accepted
    :param maximum: the largest number that is accepted
    :param above: a number that the value must be larger than; None for no such limit
    :param expected: what the error says was expected; None says it from the limits
    :return: the same number
    :raises ValueError: if the value is not a finite number (bools are rejected), or is out of range
    """
    number = _plain_number(value)
    holds = number is not None and math.isfinite(number) and minimum <= number <= maximum
    if number is None or not holds or (above is not None and number <= above):
        raise ValueError(f"{name}={value!r}: expected {expected or _range(minimum, maximum, above)}")
    return float(number)


def is_truth_value(value: object) -> bool:
    """Tell whether a value is True or False, numpy's included."""
    return isinstance(value, bool | np.bool_)


def _plain_number(value: object) -> int | float | None:
    """:return: the value as Python's own number; None where it is no number, or a truth value"""
    if isinstance(value, str):
        return _number_in(value)
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()  # a numpy scalar, or an array or a tensor without axes
    if is_truth_value(value) or not isinstance(value, Real):
        return None
    as_float = float(value)
    if not math.isfinite(as_float) or value != math.trunc(value):
        return as_float
    return cast(int, math.trunc(value))  # not by way of a float, which rounds integers above 2**53


def _number_in(text: str) -> int | float | None:
    for convert in (int, float):
        try:
            return _plain_number(convert(text))
        except ValueError:
            continue
    return None


def _range(minimum: float, maximum: float, above: float | None) -> str:
    words = ["a finite number"]
    if above is not None:
        words.append(f"above {above:g}")
    if minimum > -math.inf and maximum < math.inf:
        words.append(f"from {minimum:g} to {maximum:g}")
    elif minimum > -math.inf:
        words.append(f">= {minimum:g}")
    elif maximum < math.inf:
        words.append(f"<= {maximum:g}")
    return " ".join(words)
