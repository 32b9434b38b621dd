"""Make the tables of the learning benchmark.

Most numbers are rliable's interquartile means over the seeds. For arms with at least three seeds, the tables also show
95 % intervals.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

N_RESAMPLES = 1_000
COLUMNS = {
    "driven_to_the_end": ("driven to the end", 100.0, "%"),
    "without_collision": ("without collision", 100.0, "%"),
    "success_rate": ("success", 100.0, "%"),
    "route_completion": ("route completion", 100.0, "%"),
    "return": ("return", 1.0, ""),
    "speed_mps": ("m/s", 1.0, ""),
}


def interquartile_mean(values: Iterable[float]) -> tuple[float, float, float] | float:
    """Return rliable's interquartile mean over the runs, with its 95 % interval for three or more runs.

    Source: Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice".
    """
    from rliable import library, metrics  # in the extra bench: machines that only train do not need it

    scores = np.array(list(values), dtype=float)[:, None]
    if len(scores) < 3:
        return float(metrics.aggregate_iqm(scores))
    state = np.random.get_state()
    np.random.seed(0)  # rliable draws from the global generator even if it gets a random_state
    try:
        points, intervals = library.get_interval_estimates(
            {"arm": scores}, lambda x: np.array([metrics.aggregate_iqm(x)]), reps=N_RESAMPLES
        )
    finally:
        np.random.set_state(state)
    return float(points["arm"][0]), float(intervals["arm"][0, 0]), float(intervals["arm"][1, 0])


def table(results: dict[str, dict[str, Any]], world: str, arms: Iterable[str], which: str = "kept") -> str:
    """Return the Markdown table of one world, with a line for each arm that was run."""
    heads = ["arm", "seeds", *(head for head, _, _ in COLUMNS.values())]
    heads += ["worst seed to the end", "the last policy to the end", "blind", "kept at step", "minutes", "NO-GO"]
    lines = ["| " + " | ".join(heads) + " |", "| --- " * len(heads) + "|"]
    for arm in arms:
        rows = rows_of(results, world, arm)
        if rows:
            cells = [arm, str(len(rows))]
            cells += [_cell([row[which][column] for row in rows], *COLUMNS[column][1:]) for column in COLUMNS]
            lines.append("| " + " | ".join([*cells, *_rest(rows)]) + " |")
    return "\n".join(lines)


BRIEF = {
    "visual": "VisualTD3, gamma 0.95",
    "gamma 0.99": "VisualTD3, gamma 0.99",
    "SB3 TD3": "SB3 TD3",
    "SB3 SAC": "SB3 SAC",
    "sb3-contrib TQC": "TQC",
}
BRIEF_HEADINGS = (
    "",
    "empty road, 10,000 steps: driven to the end",
    "mean speed, m/s",
    "6 to 10 cars, 30,000 steps: driven to the end",
    "without collision",
    "camera blanked, driven to the end",
)


def brief(results: dict[str, dict[str, Any]]) -> str:
    """Return the README's table: the preset beside stock algorithms."""
    lines = ["| " + " | ".join(BRIEF_HEADINGS) + " |", "| --- " * len(BRIEF_HEADINGS) + "|"]
    for arm, title in BRIEF.items():
        empty, traffic = (rows_of(results, world, arm) for world in ("empty road", "traffic"))
        if not empty and not traffic:
            continue
        cells = (
            f"{title}, seeds: {len(empty)} and {len(traffic)}",
            _cell([row["kept"]["driven_to_the_end"] for row in empty], 100.0, "%"),
            _cell([row["kept"]["speed_mps"] for row in empty], 1.0, ""),
            _cell([row["kept"]["driven_to_the_end"] for row in traffic], 100.0, "%"),
            _cell([row["kept"]["without_collision"] for row in traffic], 100.0, "%"),
            f"{100 * max(row['blind']['driven_to_the_end'] for row in (*empty, *traffic)):.0f} % at most",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def rows_of(results: dict[str, dict[str, Any]], world: str, arm: str) -> list[dict[str, Any]]:
    """Return an arm's runs in a world, one for each seed."""
    return [row for name, row in results.items() if name.rsplit(", seed ", 1)[0] == f"{world}, {arm}"]


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
    if not values:
        return "-"
    found = interquartile_mean(factor * value for value in values)
    digits = 0 if unit or abs(np.mean(values)) >= 100 else 1
    space = f" {unit}" if unit else ""
    if isinstance(found, float):
        return f"{found:.{digits}f}{space}"
    point, low, high = found
    return f"{point:.{digits}f}{space} ({low:.{digits}f}-{high:.{digits}f})"
