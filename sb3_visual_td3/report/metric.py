"""Statistics of one tag, as the contract of report.json names them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sb3_visual_td3.diagnosis.series import Series


@dataclass(frozen=True)
class Metric:
    """Statistics of one tag: over its finite values, first and last as they are."""

    n: int
    first: float
    last: float
    mean: float
    std: float
    min: float
    max: float
    first_step: int
    last_step: int

    @classmethod
    def of(cls, series: Series) -> Metric:
        """Compute the statistics of a series that is not empty (population standard deviation)."""
        finite = series.finite.values
        if finite.size == 0:
            finite = np.array([np.nan])
        return cls(
            n=len(series),
            first=float(series.values[0]),
            last=float(series.values[-1]),
            mean=series.mean(),
            std=series.std(),
            min=float(finite.min()),
            max=float(finite.max()),
            first_step=int(series.steps[0]),
            last_step=int(series.steps[-1]),
        )
