"""The learning benchmark's tables: rliable's interquartile means over the seeds, with intervals where seeds allow."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np

N_RESAMPLES = 2_000
COLUMNS = {
    "driven_to_the_end": ("driven to the end", 100.0, "%"),
    "without_collision": ("without collision", 100.0, "%"),
    "success_rate": ("success", 100.0, "%"),
    "route_completion": ("route completion", 100.0, "%"),
    "return": ("return", 1.0, ""),
    "speed_mps": ("m/s", 1.0, ""),
}


def interquartile_mean(values: Iterable[float]) -> tuple[float, float, float] | float:
    """Return rliable's interquartile mean over the runs, with its 95 % interval where there are three runs or more.

    Source: Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice".
    """
    from rliable import library, metrics  # of the extra bench: a machine that only trains can do without

    scores = np.array(list(values), dtype=float)[:, None]
    if len(scores) < 3:
        return float(metrics.aggregate_iqm(scores))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # rliable names its generator as arch did once
        points, intervals = library.get_interval_estimates(
            {"arm": scores},
            lambda x: np.array([metrics.aggregate_iqm(x)]),
            reps=N_RESAMPLES,
            random_state=np.random.RandomState(0),
        )
    return float(points["arm"][0]), float(intervals["arm"][0, 0]), float(intervals["arm"][1, 0])


def table(results: dict[str, dict[str, Any]], world: str, arms: Iterable[str], which: str = "kept") -> str:
    """:return: a line of Markdown for each arm that was run in this world"""
    heads = ["arm", "seeds", *(head for head, _, _ in COLUMNS.values())]
    heads += ["worst seed to the end", "the last policy to the end", "blind", "kept at step", "minutes", "NO-GO"]
    lines = ["| " + " | ".join(heads) + " |", "| --- " * len(heads) + "|"]
    for arm in arms:
        rows = [row for name, row in results.items() if name.rsplit(", seed ", 1)[0] == f"{world}, {arm}"]
        if rows:
            cells = [arm, str(len(rows))]
            cells += [_cell([row[which][column] for row in rows], *COLUMNS[column][1:]) for column in COLUMNS]
            lines.append("| " + " | ".join([*cells, *_rest(rows)]) + " |")
    return "\n".join(lines)


def _rest(rows: list[dict[str, Any]]) -> list[str]:
    return [
        f"{100 * min(row['kept']['driven_to_the_end'] for row in rows):.0f} %",
        _cell([row["last"]["driven_to_the_end"] for row in rows], 100.0, "%"),
        _cell([row["blind"]["driven_to_the_end"] for row in rows], 100.0, "%"),
        ", ".join(f"{row['kept_at_step']:,}" for row in rows),
        f"{np.median([row['seconds'] for row in rows]) / 60:.1f}",
        f"{sum(row['verdict'] == 'NO-GO' for row in rows)} of {len(rows)}",
    ]


def _cell(values: list[float], factor: float, unit: str) -> str:
    found = interquartile_mean(factor * value for value in values)
    digits = 0 if unit or abs(np.mean(values)) >= 100 else 1
    space = f" {unit}" if unit else ""
    if isinstance(found, float):
        return f"{found:.{digits}f}{space}"
    point, low, high = found
    return f"{point:.{digits}f}{space} ({low:.{digits}f}-{high:.{digits}f})"
