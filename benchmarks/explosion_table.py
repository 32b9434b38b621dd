"""The explosion study's Markdown tables: each arm's norms before clipping, actor loss and verdict."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable
from typing import Any

from explosion_arms import ARMS

Rows = list[dict[str, Any]]

HEADINGS = (
    "arm",
    "seeds",
    "verdicts",
    "first diagnosis",
    "actor loss, last",
    "actor CNN norm, mean / max",
    "actor MLP, mean",
    "critic CNN, mean / max",
    "saturation, last",
    "metres, last evaluation",
)
BRIEF = {
    "leak, no clip, cnn 1e-5, raw": ("the actor's features", "none: the original settings"),
    "leak, clip 1, cnn 1e-5, raw": ("the actor's features", "clipping to 1"),
    "leak, clip 1, cnn 1e-4, raw": ("the actor's features", "clipping, the encoder's rate at 1e-4"),
    "leak, clip 1, cnn 1e-4, normalised": ("the actor's features", "these and normalised rewards"),
    "correct, no clip, cnn 1e-5, raw": ("its own", "none"),
    "correct, clip 1, cnn 1e-4, normalised": ("its own", "all three"),
    "visual": ("its own", "the preset"),
}
"""The arms on the page docs/why.md.

Each arm has two texts: whose features the critic receives in the actor's loss, and which cures were applied.
"""


def rows_of(results: dict[str, dict[str, Any]], arm: str) -> Rows:
    """Return an arm's runs, one for each seed."""
    return [row for name, row in results.items() if name.rsplit(", seed ", 1)[0] == arm]


def table(results: dict[str, dict[str, Any]]) -> str:
    """Return the table: a line for each arm that was run, with medians over the seeds."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "| --- " * len(HEADINGS) + "|"]
    for arm in ARMS:
        rows = rows_of(results, arm)
        if rows:
            lines.append("| " + " | ".join([arm, str(len(rows)), *_cells(rows)]) + " |")
    return "\n".join(lines)


def brief(results: dict[str, dict[str, Any]]) -> str:
    """Return the lines of the table on the page docs/why.md."""
    lines = []
    for arm, (scored, cures) in BRIEF.items():
        rows = rows_of(results, arm)
        if not rows:
            continue
        loss = _plain(statistics.median(row["actor_loss"] for row in rows))
        norm = _norm(rows, "actor_cnn", "mean")
        encoder = _plain(float(norm)) if norm else "none of its own: it uses the critic's"
        cells = (scored, cures, loss, encoder, _counted(rows, "verdict"))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _plain(value: float) -> str:
    """Return a number with three significant digits, without an exponent."""
    rounded = float(f"{value:.3g}")
    if abs(rounded) >= 100:
        return f"{rounded:,.0f}"
    return f"{rounded:g}"


def _cells(rows: Rows) -> Iterable[str]:
    yield _counted(rows, "verdict")
    yield _counted(rows, "first")
    yield _median(rows, "actor_loss")
    yield _mean_and_max(rows, "actor_cnn")
    yield _norm(rows, "actor_mlp", "mean")
    yield _mean_and_max(rows, "critic_cnn")
    yield _median(rows, "saturation")
    yield _median(rows, "distance_m")


def _counted(rows: Rows, key: str) -> str:
    return ", ".join(f"{name or 'none'} x{n}" for name, n in Counter(row[key] for row in rows).most_common())


def _median(rows: Rows, key: str) -> str:
    values = [row[key] for row in rows if row[key] is not None]
    if not values:
        return "-"
    return f"{statistics.median(values):,.4g}"


def _norm(rows: Rows, group: str, statistic: str) -> str:
    found = [row["norms"][group][statistic] for row in rows if row["norms"].get(group)]
    if not found:  # a shared encoder belongs to the critic: the actor has no norm of its own
        return ""
    return f"{statistics.median(found):,.3g}"


def _mean_and_max(rows: Rows, group: str) -> str:
    mean = _norm(rows, group, "mean")
    if not mean:
        return "-"
    return f"{mean} / {_norm(rows, group, 'max')}"
