"""Render the table of logged names from common/tags.py."""

from __future__ import annotations

from itertools import groupby

from markdown_pieces import code, table

from sb3_visual_td3.common.tags import ALERT_WARNING, TAGS, Tag, alert_of_rule
from sb3_visual_td3.diagnosis.rules import LIVE_RULES


def logged_names() -> str:
    """Return one Markdown table per prefix of the logged names."""
    alerts = [
        Tag(alert_of_rule(rule.id), "0|1", f"1 while the last updates show {rule.id}", TAGS[ALERT_WARNING].owner)
        for rule in LIVE_RULES.values()
    ]
    by_prefix = sorted(
        [*TAGS.values(), *alerts], key=lambda tag: tag.name.partition("/")[0]
    )  # the sort is stable: names with the same prefix keep the order of the file
    parts = []
    for prefix, tags in groupby(by_prefix, key=lambda tag: tag.name.partition("/")[0]):
        rows = [(code(tag.name), tag.unit, tag.meaning, code(tag.owner), tag.x_axis) for tag in tags]
        header = ("name", "unit", "meaning", "written by", "x-axis")
        parts.append(f"## {prefix}/\n\n{table(header, rows)}")
    return "\n\n".join(parts)
