"""How the report puts a factor, a share and a range of steps into words."""

from __future__ import annotations

import math

from sb3_visual_td3.diagnosis.numerals import number, rounded


def factor(value: float | None) -> str:
    """Return by how much something was multiplied; "-" where that says nothing."""
    if value is None or math.isnan(value):
        return "-"
    return f"{rounded(value)}x"


def percent(share: float | None) -> str:
    """Return a share of one; a small one never becomes 0 %."""
    if share is None or math.isnan(share):
        return "-"
    return f"{rounded(share * 100)} %"


def signed(value: float | None) -> str:
    """Return a number with its sign."""
    text = number(value)
    return f"+{text}" if value is not None and value > 0 else text


def step_range(first: int, last: int, unit: str = "") -> str:
    """Return from where to where, with the unit where it is not the environment step."""
    where = number(first) if first == last else f"{number(first)} to {number(last)}"
    return f"{where} ({unit})" if unit else where


def of_or_none(value: float) -> float | None:
    """Return the value, or None in the place of NaN: nothing was measured."""
    return None if math.isnan(value) else value
