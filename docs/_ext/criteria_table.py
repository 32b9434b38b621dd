"""Render the criteria of criteria.yml as Markdown tables."""

from __future__ import annotations

from markdown_pieces import code, table

from sb3_visual_td3.diagnosis.criteria import Criterion, load_criteria
from sb3_visual_td3.diagnosis.numerals import number


def criteria_table() -> str:
    """Return a table with one row per criterion, in the order of the file."""
    header = ("id", "condition", "threshold", "blocking", "from step", "source")
    return table(header, [_row(criterion) for criterion in load_criteria()])


def criteria_tags() -> str:
    """Return a table of the logged names that each criterion reads."""
    rows = [
        (code(criterion.id), ", ".join(map(code, criterion.tags)) or "every logged name", str(criterion.min_points))
        for criterion in load_criteria()
    ]
    return table(("id", "reads", "points needed to pass"), rows)


def _row(criterion: Criterion) -> tuple[str, ...]:
    threshold = "-" if criterion.threshold is None else number(criterion.threshold)
    blocking = "yes" if criterion.blocking else "no"
    if criterion.blocking and criterion.scale_dependent:
        blocking = "unless rewards are normalized"
    begin = f"{criterion.applies_from_step:,}" if criterion.applies_from_step else "the first"
    title = criterion.title + (" (separate encoders only)" if criterion.needs_actor_encoder else "")
    return code(criterion.id), title, threshold, blocking, begin, criterion.source
