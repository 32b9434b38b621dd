"""The criteria of the verdict, as criteria.yml has them."""

from __future__ import annotations

from markdown_pieces import code, table

from sb3_visual_td3.diagnosis.criteria import Criterion, load_criteria
from sb3_visual_td3.diagnosis.numerals import number


def criteria_table() -> str:
    """:return: a row for each criterion, in the file's order"""
    header = ("id", "holds where", "threshold", "blocking", "from step", "source")
    return table(header, [_row(criterion) for criterion in load_criteria()])


def criteria_tags() -> str:
    """:return: which logged names each criterion reads"""
    rows = [
        (code(criterion.id), ", ".join(map(code, criterion.tags)) or "every logged name", str(criterion.min_points))
        for criterion in load_criteria()
    ]
    return table(("id", "reads", "passes from so many points"), rows)


def _row(criterion: Criterion) -> tuple[str, ...]:
    threshold = "none" if criterion.threshold is None else number(criterion.threshold)
    blocking = "yes" if criterion.blocking else "no"
    if criterion.blocking and criterion.scale_dependent:
        blocking = "unless rewards are normalised"
    begin = f"{criterion.applies_from_step:,}" if criterion.applies_from_step else "the first"
    title = criterion.title + ("; of separate encoders only" if criterion.needs_actor_encoder else "")
    return code(criterion.id), title, threshold, blocking, begin, criterion.source
