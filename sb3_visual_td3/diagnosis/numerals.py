"""Format numbers as text, so that a number looks the same in the report, the alerts and the documentation."""

from __future__ import annotations

import math


def number(value: float | int | None) -> str:
    """Format a number for a reader: large numbers with few or no decimals, others with four significant digits.

    :param value: any number; None becomes "-"
    :return: the text, such as "1,826,337", "0.05" or "1.2e-07"
    """
    if value is None:
        return "-"
    if not math.isfinite(value):
        if math.isnan(value):
            return "NaN"
        return "∞" if value > 0 else "-∞"
    magnitude = abs(value)
    if magnitude >= 1e15 or 0 < magnitude < 1e-3:
        return f"{value:.3g}"
    if float(value).is_integer() or magnitude >= 1e5:
        return f"{value:,.0f}"
    return f"{value:,.1f}" if magnitude >= 1000 else f"{value:.4g}"


def rounded(value: float) -> str:
    """Format a number with three significant digits, for sentences in which the approximate size is enough."""
    if not math.isfinite(value) or value == 0:
        return number(value)
    return number(float(f"{value:.3g}"))


def factor(value: float | None) -> str:
    """Format a factor, such as "12.3x"; None and NaN become "-"."""
    if value is None or math.isnan(value):
        return "-"
    return f"{rounded(value)}x"


def percent(share: float | None) -> str:
    """Format a fraction as a percentage; a small fraction never becomes 0 %, and None and NaN become "-"."""
    if share is None or math.isnan(share):
        return "-"
    return f"{rounded(share * 100)} %"


def counted(n: float, noun: str) -> str:
    """Format a count together with its noun, such as "1 point" or "1,200 points".

    :param n: the count
    :param noun: the noun in the singular; an s is added to form the plural
    """
    return f"{number(n)} {noun}" if n == 1 else f"{number(n)} {noun}s"


def signed(value: float | None) -> str:
    """Format a number with its sign."""
    text = number(value)
    return f"+{text}" if value is not None and value > 0 else text


def step_range(first: int, last: int, unit: str = "") -> str:
    """Format a range of steps, such as "100 to 5,000 (episode)".

    :param first: the first step
    :param last: the last step
    :param unit: unit of the steps; empty for environment steps
    """
    where = number(first) if first == last else f"{number(first)} to {number(last)}"
    return f"{where} ({unit})" if unit else where


def of_or_none(value: float) -> float | None:
    """Return a value, or None if the value is NaN, which means that nothing was measured."""
    return None if math.isnan(value) else value
