"""Which points of a series stand for it in a table, and the value at one step."""

from __future__ import annotations

import numpy as np

from sb3_visual_td3.diagnosis.series import Series, StepArray

MAX_ROWS = 12


def representative(series: Series, n_rows: int = MAX_ROWS) -> Series:
    """Return about a dozen points, evenly chosen: both ends, and the largest magnitude.

    :param series: finite, not empty.
    """
    chosen = np.union1d(evenly(len(series), n_rows), [int(np.argmax(np.abs(series.values)))])
    return Series(series.name, series.steps[chosen], series.values[chosen])


def evenly(n: int, n_rows: int = MAX_ROWS) -> StepArray:
    """Return the indices of at most ``n_rows`` of ``n`` rows, evenly chosen, both ends among them."""
    return np.unique(np.linspace(0, n - 1, min(n_rows, n)).round().astype(np.int64))


def value_at(series: Series, step: int) -> float | None:
    """Return the last value at a step; None where the series has none there."""
    at = int(np.searchsorted(series.steps, step, side="right")) - 1
    return float(series.values[at]) if at >= 0 and series.steps[at] == step else None
