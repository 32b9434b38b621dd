"""Results files of the benchmarks: CSV tables that grow row by row, and JSON files with one entry per measurement.

Results are written as soon as they are measured, so that a benchmark can be stopped and continued.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sb3_visual_td3.runs.durable_files import write_atomically

Row = dict[str, Any]
"""A row of the results: its values by the names of the columns."""
_WORDS = {
    "arm",
    "cell",
    "policy",
    "task",
    "algorithm",
    "fault",
    "label",
    "verdict",
    "stable",
    "learning",
    "state",
    "signs",
    "cause",
    "driver",
    "suite",
    "part",
}
_WHOLE = {"seed", "step", "steps", "samples", "updates", "frames", "episodes", "number"}


def read(path: Path) -> list[Row]:
    """Return the rows of a results file, oldest first; an empty list if there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [_typed(row) for row in csv.DictReader(file)]


def _typed(row: dict[str, str]) -> Row:
    typed: Row = {}
    for column, value in row.items():
        if column in _WORDS:
            typed[column] = value
        elif column in _WHOLE:
            typed[column] = int(value)
        else:
            typed[column] = float(value)
    return typed


def write(rows: Sequence[Row], path: Path, columns: Sequence[str]) -> None:
    """Write a results file and replace the existing one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def add(row: Row, path: Path, columns: Sequence[str]) -> None:
    """Add a row to a results file, which is created if it does not exist."""
    if not path.is_file():
        write([], path, columns)
    with path.open("a", newline="", encoding="utf-8") as file:
        csv.DictWriter(file, columns, lineterminator="\n").writerow(row)


def drop(key: Row, path: Path, columns: Sequence[str]) -> None:
    """Remove the rows that have all these values."""
    kept = [row for row in read(path) if any(row[column] != value for column, value in key.items())]
    write(kept, path, columns)


def read_json(path: Path) -> dict[str, Any]:
    """Return the entries of a JSON results file; an empty dict if there is no file."""
    if not path.is_file():
        return {}
    entries: dict[str, Any] = json.loads(path.read_text())
    return entries


def torch_versions(rounds: Iterable[Mapping[str, Any]]) -> str:
    """Return the versions of torch that measured the rounds; "unknown" for rounds that do not store it."""
    return ", ".join(sorted({str(each.get("torch", "unknown")) for each in rounds}))


def save_json(entries: dict[str, Any], path: Path) -> None:
    """Replace a JSON results file atomically, so that an interrupted benchmark does not lose earlier results."""
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, json.dumps(entries, indent=2, sort_keys=True) + "\n")
