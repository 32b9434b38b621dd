"""How a number is put into words: separators, few digits, the same wherever one is shown."""

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
