"""Make the table of the stability benchmark.

The table shows how often a policy gets worse after it has learned, and how well it drives at the end of the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from result_rows import Row

COLUMNS = ("arm", "seed", "step", "policy", "episodes", "driven_to_the_end", "distance_m", "return", "minutes", "q1")
BEGIN = "<!-- python benchmarks/stability.py --table --page benchmarks/README.md -->"
END = "<!-- end of the table -->"
"""The table of a page stands between ``BEGIN`` and ``END``."""
N_EXAMINED = 90
"""The final test of a run has at least this many episodes; earlier evaluations have fewer."""
REACHED, FALLEN = 0.9, 0.8
"""Fractions of the best return in a policy's evaluations. A policy has learned as soon as an evaluation reaches
``REACHED``. A later evaluation below ``FALLEN`` counts as a fall."""
DRIVES_WELL = 0.95
"""A policy drives well if it drives at least this share of the final test's episodes to the end."""


def finished(rows: Sequence[Row]) -> set[tuple[str, int]]:
    """Return arm and seed of the finished runs, in which every policy has been tested."""
    policies: dict[tuple[str, int], set[str]] = {}
    examined: dict[tuple[str, int], set[str]] = {}
    for row in rows:
        run = row["arm"], row["seed"]
        policies.setdefault(run, set()).add(row["policy"])
        if row["episodes"] >= N_EXAMINED:
            examined.setdefault(run, set()).add(row["policy"])
    return {run for run, names in examined.items() if names == policies[run]}


def falls(returns: Sequence[float]) -> tuple[int, int]:
    """Count how often a policy got worse after it had learned.

    A policy has learned as soon as an evaluation reaches 90 % of the best return.

    :param returns: returns of the policy's evaluations, in order
    :return: number of later evaluations, and how many of them are below 80 % of the best return; ``(0, 0)`` if the best
        return is not above 0
    """
    best = max(returns)
    if best <= 0:
        return 0, 0
    first = next(index for index, value in enumerate(returns) if value >= REACHED * best)
    later = returns[first + 1 :]
    return len(later), sum(value < FALLEN * best for value in later)


def summary_of(runs: Sequence[Sequence[Row]]) -> dict[str, Any]:
    """Summarise one policy over the runs of one arm.

    :param runs: the rows of each run, including its final test
    :return: the table's numbers by name
    """
    curves = [[row["return"] for row in run if row["episodes"] < N_EXAMINED] for run in runs]
    examined = [row["driven_to_the_end"] for run in runs for row in run if row["episodes"] >= N_EXAMINED]
    counts = np.array([falls(curve) for curve in curves]).sum(axis=0)
    return {
        "seeds": len(runs),
        "later": int(counts[0]),
        "fallen": int(counts[1]),
        "end_well": sum(curve[-1] >= REACHED * max(curve) > 0 for curve in curves),
        "mean": float(np.mean(examined)),
        "min": float(np.min(examined)),
        "q1": tuple(float(np.mean([q_at(run, share) for run in runs])) for share in (0.5, 1.0)),
        "drive_well": sum(value >= DRIVES_WELL for value in examined),
    }


def q_at(run: Sequence[Row], share: float) -> float:
    """Return the mean of Q at the evaluation nearest to a fraction of the run's steps."""
    step = share * max(row["step"] for row in run)
    return float(min(run, key=lambda row: abs(row["step"] - step))["q1"])


def table(rows: Sequence[Row], arms: Sequence[str]) -> str:
    """Return a Markdown table of the finished runs, with one row for each policy of each arm.

    :param rows: rows of the results file
    :param arms: names of the arms to show, in order; an arm is one set of training settings
    """
    heads = (
        "arm",
        "policy",
        "seeds",
        "later evaluations below 80 % of the best",
        "runs that end at 90 % of their best or above",
        "episodes out of 100 driven to the end after training: mean",
        "worst seed",
        "seeds with 95 or more",
        "Q halfway, and at the end",
        "minutes",
    )
    lines = ["| " + " | ".join(heads) + " |", "| --- " * len(heads) + "|"]
    done = finished(rows)
    for arm in arms:
        of_arm = [row for row in rows if row["arm"] == arm and (arm, row["seed"]) in done]
        minutes = [max(row["minutes"] for row in run) for run in _by(of_arm, "seed")]
        for of_policy in _by(of_arm, "policy"):
            found = summary_of(_by(of_policy, "seed"))
            cells = (
                arm,
                of_policy[0]["policy"],
                found["seeds"],
                f"{found['fallen']} of {found['later']} ({100 * found['fallen'] / max(found['later'], 1):.1f} %)",
                f"{found['end_well']} of {found['seeds']}",
                f"{100 * found['mean']:.1f}",
                f"{100 * found['min']:.0f}",
                f"{found['drive_well']} of {found['seeds']}",
                "{:.2f}, {:.2f}".format(*found["q1"]),
                f"{np.median(minutes):.0f}",
            )
            lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def with_table(page: str, lines: str) -> str:
    """Put the table into its place in a page.

    :param page: Markdown with the comments :data:`BEGIN` and :data:`END`
    :param lines: the table
    :return: the page with this table between the two comments
    :raises ValueError: if the comments are not there
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"the page does not say where to put the table: expected the lines {BEGIN} and {END}")
    return f"{before}{begin}\n\n{lines}\n\n{end}{after}"


def _by(rows: Sequence[Row], column: str) -> list[list[Row]]:
    """Return one group of rows for each value in a column, in the order in which the values first appear."""
    values = list(dict.fromkeys(row[column] for row in rows))
    return [[row for row in rows if row[column] == value] for value in values]
