"""Render a Markdown table of all findings that the doctor can report."""

from __future__ import annotations

from markdown_pieces import code, table

from sb3_visual_td3.preflight.findings import CATALOGUE


def doctor_table() -> str:
    """Return a table with one row per finding, causes before what they cause."""
    rows = [
        (code(name), entry.severity, entry.title, entry.example, entry.remedy, entry.source)
        for name, entry in CATALOGUE.items()
    ]
    return table(("id", "severity", "finding", "for example", "what to do", "source"), rows)
