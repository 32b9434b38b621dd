"""The table of logged names, as common/tags.py has it."""

from __future__ import annotations

from itertools import groupby

from markdown_pieces import code, table

from sb3_visual_td3.common.tags import TAGS


def logged_names() -> str:
    """:return: a table for each first part of the names"""
    by_room = sorted(TAGS.values(), key=lambda tag: tag.name.partition("/")[0])  # stable: the file's order within
    parts = []
    for room, tags in groupby(by_room, key=lambda tag: tag.name.partition("/")[0]):
        rows = [(code(tag.name), tag.unit, tag.meaning, code(tag.owner), tag.x_axis) for tag in tags]
        header = ("name", "unit", "meaning", "written by", "x-axis")
        parts.append(f"## {room}/\n\n{table(header, rows)}")
    return "\n\n".join(parts)
