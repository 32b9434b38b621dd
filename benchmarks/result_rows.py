"""Results files in CSV format, to which each row is added as soon as it is measured."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
"""A row of the results: its values by the names of the columns."""
_WORDS = {"arm", "policy", "task", "algorithm"}
_WHOLE = {"seed", "step", "frames", "episodes"}


def read(path: Path) -> list[Row]:
    """Return the rows of a results file, oldest first; an empty list if there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [_typed(row) for row in csv.DictReader(file)]


def _typed(row: dict[str, str]) -> Row:
    return {
        column: value if column in _WORDS else int(value) if column in _WHOLE else float(value)
        for column, value in row.items()
    }


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
