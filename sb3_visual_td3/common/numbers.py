"""Convert numbers that users write, and decide for all settings what counts as an integer or a number.

Settings are Python numbers, NumPy scalars, floats with an integer value (``1e6``), or text: YAML reads ``1e6`` as text.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import cast

import numpy as np


def to_integer(name: str, value: object, minimum: int | None = None, expected: str | None = None) -> int:
    """Return a setting as an ``int``.

    :param name: name of the setting, for the error message
    :param value: an integer in any notation: ``8``, ``np.int64(8)``, ``8.0``, ``"8"``, ``"1e6"``
    :param minimum: the smallest accepted integer; None accepts all
    :param expected: expectation that the error message states; None derives it from ``minimum``
    :raises ValueError: if the value is not an integer (bools are rejected), or is below ``minimum``
    """
    number = _plain_number(value)
    is_integer = number is not None and math.isfinite(number) and number == int(number)
    if number is None or not is_integer or (minimum is not None and number < minimum):
        if expected is None:
            expected = "an integer" if minimum is None else f"an integer >= {minimum}"
        raise ValueError(f"{name}={value!r}: expected {expected}")
    return int(number)


def to_float(
    name: str,
    value: object,
    minimum: float = -math.inf,
    maximum: float = math.inf,
    *,
    above: float | None = None,
    below: float | None = None,
    expected: str | None = None,
) -> float:
    """Return a setting as a ``float``.

    :param name: name of the setting, for the error message
    :param value: a finite number in any notation: ``1``, ``np.float32(0.5)``, ``"1e-3"``
    :param minimum: the smallest accepted number
    :param maximum: the largest accepted number
    :param above: a number that the value must be larger than; None for no such limit
    :param below: a number that the value must be smaller than; None for no such limit
    :param expected: expectation that the error message states; None derives it from the limits
    :raises ValueError: if the value is not a finite number (bools are rejected), or is out of range
    """
    number = _plain_number(value)
    is_in_range = (
        number is not None
        and math.isfinite(number)
        and minimum <= number <= maximum
        and (above is None or number > above)
        and (below is None or number < below)
    )
    if number is None or not is_in_range:
        raise ValueError(f"{name}={value!r}: expected {expected or _range(minimum, maximum, above, below)}")
    return float(number)


def is_truth_value(value: object) -> bool:
    """Return whether a value is a bool: Python's ``bool`` or NumPy's ``np.bool_``."""
    return isinstance(value, bool | np.bool_)


def _plain_number(value: object) -> int | float | None:
    """Return a value as a Python number; None if it is a bool or not a number."""
    if isinstance(value, str):
        return _number_in(value)
    # NumPy scalars, and NumPy arrays and torch tensors without axes.
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
    # A bool is a Real, but gradient_steps=True is a mistake and not 1.
    if is_truth_value(value) or not isinstance(value, Real):
        return None
    as_float = float(value)
    if not math.isfinite(as_float) or value != math.trunc(value):
        return as_float
    # Without a conversion to float, which rounds integers above 2**53.
    return cast(int, math.trunc(value))


def _number_in(text: str) -> int | float | None:
    # int first: "9007199254740993" is exact as an int and rounded as a float.
    for convert in (int, float):
        try:
            return _plain_number(convert(text))
        except ValueError:
            continue
    return None


def _range(minimum: float, maximum: float, above: float | None, below: float | None) -> str:
    limits = []
    if above is not None:
        limits.append(f"above {above:g}")
    if minimum > -math.inf and maximum < math.inf:
        limits.append(f"from {minimum:g} to {maximum:g}")
    elif minimum > -math.inf:
        limits.append(f">= {minimum:g}")
    elif maximum < math.inf:
        limits.append(f"<= {maximum:g}")
    if below is not None:
        limits.append(f"below {below:g}")
    return f"a finite number {' and '.join(limits)}".rstrip()
