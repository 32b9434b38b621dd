"""Numbers in words: separators, few digits, factors and shares, the same wherever one is shown."""

from __future__ import annotations

import math


def number(value: float | int | None) -> str:
    """Return a number as a reader wants it; small ones never become 0."""
    if value is None:
        return "-"
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "∞" if value > 0 else "-∞"
    magnitude = abs(value)
    if magnitude >= 1e15 or 0 < magnitude < 1e-3:
        return f"{value:.3g}"
    if float(value).is_integer() or magnitude >= 1e5:
        return f"{value:,.0f}"
    return f"{value:,.1f}" if magnitude >= 1000 else f"{value:.4g}"


def rounded(value: float) -> str:
    """Return a number to three digits, for a sentence in which the scale is what counts."""
    if not math.isfinite(value) or value == 0:
        return number(value)
    return number(float(f"{value:.3g}"))


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
