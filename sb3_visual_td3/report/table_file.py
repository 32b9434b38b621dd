"""Read logs that are tables: SB3's progress.csv, monitor files and evaluations.npz, and CSV files of other programs.

Each table becomes series under the names that SB3's own event files use. The files may come from an unknown source, so
their size is limited and pickles are refused.
"""

from __future__ import annotations

import csv
import io
import math
import stat
import zipfile
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sb3_visual_td3.common import tags
from sb3_visual_td3.common.errors import in_one_line
from sb3_visual_td3.common.input_files import encoding_of, open_regular, read_text, shown
from sb3_visual_td3.diagnosis.numerals import counted
from sb3_visual_td3.diagnosis.series import MAX_STEP, FloatArray, Series, StepArray
from sb3_visual_td3.diagnosis.tag_search import BARE_REWARD_RANK, EVALUATION_WORDS, find_returns, words_of
from sb3_visual_td3.report.event_file import Track
from sb3_visual_td3.report.monitor_file import (
    MAX_TABLE_BYTES,
    MONITOR_END,
    MonitorFile,
    TableError,
    number_in_cell,
    series_of,
)

MAX_COLUMNS = 4_000
MAX_HEADER_BYTES = 1 << 16
PROGRESS, EVALUATIONS = "progress.csv", "evaluations.npz"
OUR_OWN_TABLES = frozenset(["report.csv", "series.csv"])
"""Names of the files that ``report --format csv`` writes. They repeat other logs, so they are read only if the user
gives the path of the file itself."""

_ENVIRONMENT_STEP_COLUMNS = (
    "time/total_timesteps",
    "total_timesteps",
    "num_timesteps",
    "timesteps",
    "timestep",
    # RLlib writes the next three, depending on its version.
    "timesteps_total",
    "num_env_steps_sampled_lifetime",
    "env_runners/num_env_steps_sampled_lifetime",
)
STEP_COLUMNS = (
    *_ENVIRONMENT_STEP_COLUMNS,
    "global_step",
    "trainer/global_step",
    "env_steps",
    "env_step",
    "environment_steps",
    "total_steps",
    "_step",
    "step",
    "steps",
    "update",
    "updates",
    "n_updates",
    "iteration",
    "training_iteration",
    "episode",
    "episodes",
    "epoch",
    "epochs",
)
"""Names of columns that can be the x-axis, the preferred names first. Case does not matter, and a space equals
``_``."""
ENVIRONMENT_STEPS, STEPS = "environment steps", "steps"
_AXIS_OF_COLUMN = {
    **dict.fromkeys([*_ENVIRONMENT_STEP_COLUMNS, "env_steps", "env_step", "environment_steps"], ENVIRONMENT_STEPS),
    **dict.fromkeys(["update", "updates", "n_updates"], "updates"),
    **dict.fromkeys(["iteration", "training_iteration"], "iterations"),
    **dict.fromkeys(["episode", "episodes"], "episodes"),
    **dict.fromkeys(["epoch", "epochs"], "epochs"),
}
# MLflow exports have a column "key". TensorBoard's tables and series.csv, with one row per point, have a column "tag".
_NAME_COLUMNS = ("metric", "key", "tag", "name")
_RUN_COLUMNS = ("run", "run_id", "run id")
_NO_SERIES = frozenset(["wall time", "wall_time", "_runtime", "_timestamp", "timestamp", "time", "date", "datetime"])
_NO_VALUE = frozenset(["", "none", "null", "na", "n/a"])
_ROWS_AT_BEGIN = 1_000
"""In this many rows, the reader looks for steps that are not whole numbers."""
_ROWS_AT_ENDS = 100
"""In this many rows at both ends of a file, the reader looks for its first and its last step."""
_MIN_EQUAL = 3
"""Two files belong to one run if at least this many points of their returns are equal, and no point is different."""
_RARE = 0.05
"""A column counts as steps only if it rises in at least this fraction of the rows, and drops by a large amount in at
most this fraction of the rows."""


@dataclass(frozen=True)
class Table:
    """Hold the content of one table.

    :param series: series by name
    :param axis: unit of the x-axis, such as "environment steps"; None for a table that TensorBoard exported, because
        only the names of the series show the unit
    :param notes: remarks on rows that could not be read, and on the choice of the step column
    :param tracks: if the steps go back, as after a restart: the same points in the order of the rows; otherwise empty
    :param cut: what was left out of the last row, because the row is incomplete. The program that writes the file was
        killed, or is still writing. The text is empty if the row is complete
    """

    series: Mapping[str, Series] = field(default_factory=dict)
    axis: str | None = ENVIRONMENT_STEPS
    notes: tuple[str, ...] = ()
    tracks: Mapping[str, Track] = field(default_factory=dict)
    cut: str = ""


def is_sb3_table(name: str) -> bool:
    """Return whether SB3 gives this name to one of its tables."""
    return name in {PROGRESS, EVALUATIONS} or name == MONITOR_END or name.endswith(f".{MONITOR_END}")


def is_table(path: Path) -> bool:
    """Return whether the name of a file shows that it is a table, such as progress.csv or evaluations.npz."""
    return path.suffix.lower() in {".csv", ".npz"}


def is_evaluation(name: str) -> bool:
    """Return whether the name of a file or folder says that it holds evaluations, such as ``eval.csv``."""
    return bool({*EVALUATION_WORDS, "evals", "evaluations"} & set(words_of(name)))


class TableBegin(NamedTuple):
    """Hold what the beginning of a CSV file shows.

    :ivar step: name of the step column, as in ``STEP_COLUMNS``
    :ivar metrics: names of the metrics. If each row of the table holds a single point, the names are in the first rows
        or in the file's name, otherwise in the heading.
    """

    step: str
    metrics: frozenset[str]

    @property
    def returns(self) -> frozenset[str]:
        """Return the names of the returns of episodes, without a bare ``reward``: it may be the reward of a step."""
        return frozenset(tag.name for tag in find_returns(self.metrics) if tag.rank != BARE_REWARD_RANK)


def table_begin(path: Path) -> TableBegin | None:
    """Read the beginning of a CSV file.

    :param path: path of the file
    :return: None if the first line names no x-axis, or if the file cannot be read
    """
    try:
        lines = _lines_at_begin(path)
        separator = _separator(lines[0])
        heading = next(csv.reader(lines[:1], delimiter=separator))
        steps = _find_columns(heading, STEP_COLUMNS)
        if not steps or len(heading) < 2:
            return None
        at_name = _find_column(heading, _NAME_COLUMNS)
        if _find_column(heading, ("value",)) is None:
            others = [cell if at not in steps else "" for at, cell in enumerate(heading)]
            metrics = {name for _, name in _metric_names(others, steps[0], set())}
        elif at_name is None:
            metrics = {_name_in_file_name(path)}
        else:
            rows = csv.reader(lines[1:], delimiter=separator)
            metrics = {row[at_name] for row in rows if len(row) == len(heading)}
    except (OSError, IndexError, StopIteration, csv.Error):
        return None
    return TableBegin(_in_step_columns(heading[steps[0]]), frozenset(metrics))


class StepRange(NamedTuple):
    """Hold the first and the last step of some points, and the usual number of steps between two of them."""

    first: int
    last: int
    interval: float

    @classmethod
    def of(cls, steps: StepArray) -> StepRange:
        """Return the range of some steps in any order; there is at least one."""
        each = np.unique(steps)
        return cls(int(each[0]), int(each[-1]), float(np.median(np.diff(each))) if each.size > 1 else 0.0)

    def continues(self, before: StepRange) -> bool:
        """Return whether these steps continue those of another file, as in a run that was resumed from a checkpoint.

        They begin after the other steps, or in their later half and end after them. A file that begins about one
        interval after step 0 begins a run of its own.
        """
        if self.first > before.last:
            return True
        is_start = self.first <= 1.5 * self.interval
        return not is_start and 2 * self.first >= before.first + before.last and self.last > before.last


def step_range(path: Path) -> StepRange | None:
    """Return the range of the steps in a CSV file, without reading the whole file; None if it cannot be read."""
    try:
        lines = _lines_at_begin(path)
        with open_regular(path) as stream:
            stream.seek(max(0, stream.seek(0, io.SEEK_END) - MAX_HEADER_BYTES))
            # Numbers and separators are ASCII characters, so latin-1 decodes them from UTF-8. After the zero bytes are
            # removed, it also decodes them from UTF-16.
            end = stream.read(MAX_HEADER_BYTES).decode("latin-1").replace("\0", "").splitlines()
        separator = _separator(lines[0])
        heading = next(csv.reader(lines[:1], delimiter=separator))
        at_step = _find_columns(heading, STEP_COLUMNS)[0]
        first, last = (
            [step for row in csv.reader(part, delimiter=separator) if (step := _step_in(row, at_step)) is not None]
            for part in (lines[1:_ROWS_AT_ENDS], end[-_ROWS_AT_ENDS:])
        )
        return StepRange.of(np.array(first, np.int64))._replace(first=first[0], last=max(last))
    except (OSError, IndexError, ValueError, StopIteration, csv.Error):
        return None


class Curve(NamedTuple):
    """Hold the points of a metric, in the order of the steps."""

    steps: Sequence[int]
    values: Sequence[float]


def curves_at_begin(path: Path, names: Container[str]) -> dict[str, Curve]:
    """Return the curves of some metrics at the beginning of a CSV file; empty if the file cannot be read."""
    try:
        lines = _lines_at_begin(path)
        separator = _separator(lines[0])
        heading, *rows = csv.reader(lines, delimiter=separator)
        at_step = _find_columns(heading, STEP_COLUMNS)[0]
        at_value = _find_column(heading, ("value",))
        if at_value is None:
            read = {at_step, *(at for at, name in _metric_names(heading, at_step, set()) if name in names)}
            heading = [cell if at in read else "" for at, cell in enumerate(heading)]
            found = _wide_points(rows, heading, at_step, set(), {})
        else:
            found = _long_points(rows, heading, (at_step, at_value), _name_in_file_name(path), set(), {})
    except (OSError, IndexError, ValueError, csv.Error):
        return {}
    curves = {}
    for name, column in found.items():
        # Several points may have the same step.
        order = sorted(range(len(column.steps)), key=column.steps.__getitem__)
        curves[name] = Curve([column.steps[at] for at in order], [column.values[at] for at in order])
    return curves


def are_equal(one: Curve, other: Curve) -> bool:
    """Return whether two files hold the same curve of returns.

    The curve with fewer points is looked up in the other curve, between the first and the last step of both. A file may
    log the return of the last episode at steps that are not those of the episodes, so at a step without a point, the
    points before and after it count. A curve that is always the same, such as 0 in a task with a rare reward, shows
    nothing, so it equals no other.
    """
    low, high = max(one.steps[0], other.steps[0]), min(one.steps[-1], other.steps[-1])
    inside, other_inside = (slice(bisect_left(c.steps, low), bisect_right(c.steps, high)) for c in (one, other))
    few, many = Curve(one.steps[inside], one.values[inside]), other
    if other_inside.stop - other_inside.start < len(few.steps):
        few, many = Curve(other.steps[other_inside], other.values[other_inside]), one
    for step, value in zip(*few, strict=True):
        begin, end = bisect_left(many.steps, step), bisect_right(many.steps, step)
        if begin == end:
            begin, end = max(0, begin - 1), end + 1
        # One of the files may hold rounded numbers.
        near = many.values[begin:end]
        is_equal = any(math.isclose(value, each, rel_tol=1e-3, abs_tol=5e-3) for each in near)
        if not is_equal and not (math.isnan(value) and any(map(math.isnan, near))):
            return False
    return len(few.steps) >= _MIN_EQUAL and len(set(few.values)) > 1


def _lines_at_begin(path: Path) -> list[str]:
    with open_regular(path) as stream:
        begin = stream.read(MAX_HEADER_BYTES)
    # The limit may cut a character of a later line in two.
    lines = begin.decode(encoding_of(begin), "replace").replace("\0", "").splitlines()
    return lines[:-1] if len(begin) == MAX_HEADER_BYTES and len(lines) > 1 else lines


class TableFile:
    """Read one table, and read it again in full when it has changed.

    :param path: path of the file
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.table = Table()
        self.wall_time = -math.inf
        self._problem: str | None = None
        self._state: tuple[int, int, int] | None = None

    def read_new(self) -> bool:
        """Read the file if it has changed since the last call.

        :return: whether the points may have changed
        :raises OSError: if the file cannot be read
        """
        status = self.path.stat()
        state = (status.st_ino, status.st_size, status.st_mtime_ns)
        if state == self._state:
            return False
        had_points = bool(self.table.series)
        self._state, self.wall_time = state, status.st_mtime
        self.table, self._problem = Table(), None
        if not stat.S_ISREG(status.st_mode):
            self._problem = "the file was left out, because it is not a regular file"
        elif status.st_size == 0:
            self._problem = "the file is empty (0 bytes)"
        else:
            try:
                self.table = read_table(self.path)
            except TableError as error:
                self._problem = str(error)
        return had_points or bool(self.table.series)

    def notes(self, is_growing: bool = False) -> list[str]:
        """Return one line that says why the file could not be read, or lines on rows that were left out.

        :param is_growing: whether the file is still being written; a cut last row then gets no note
        """
        notes = list(self.table.notes if self._problem is None else (self._problem,))
        if self.table.cut and not is_growing:
            notes.append(self.table.cut)
        return [f"{self.path.name}: {note}" for note in notes]


def read_table(path: Path) -> Table:
    """Read a table in the format that its name shows.

    :param path: path of the file
    :raises TableError: if the file is not a table of that format
    :raises OSError: if it cannot be read
    """
    if path.suffix.lower() == ".npz":
        return Table(_evaluations(path))
    try:
        text = read_text(path, MAX_TABLE_BYTES)
    except ValueError as error:
        raise TableError(
            f"the file was left out, because it is not a text file or is larger than {MAX_TABLE_BYTES >> 20} MB; "
            "expected UTF-8, or UTF-16 with a byte order mark"
        ) from error
    try:
        if path.name.endswith(MONITOR_END):
            found = MonitorFile.read(text)
            return Table(series_of(found.episodes), notes=found.notes())
        return _columns(path, text)
    except csv.Error as error:
        raise TableError(f"the file was left out, because it is not a CSV file ({error})") from error


# ---- Tables with a step column


def _columns(path: Path, text: str) -> Table:
    text = text.replace("\0", "")
    separator = _separator(io.StringIO(text, newline="").readline())
    rows = _rows(text, separator)
    heading = [cell.strip().lstrip("\ufeff") for cell in next(rows, [])]
    if len(heading) > MAX_COLUMNS:
        raise TableError(
            f"the file was left out, because it has {len(heading):,} columns; expected at most {MAX_COLUMNS:,}"
        )
    step_columns = _find_columns(heading, STEP_COLUMNS)
    if not step_columns:
        raise TableError(
            "the file is not a log that the report reads: expected a step column in the first line, such as step, "
            "global_step, timesteps, update, episode or epoch, and columns separated by comma, semicolon or tab"
        )
    read = [name for name in heading if name and name.lower() not in _NO_SERIES]
    twice = [name for name, n_columns in Counter(read).items() if n_columns > 1]
    if twice:
        raise TableError(
            f"the file was left out, because it has two columns with the name {shown(twice[0])}: rename one of them"
        )
    at_step = step_columns[0]
    at_value = _find_column(heading, ("value",))
    notes = []
    if at_value is None and len(step_columns) > 1:
        at_step = _counter_among(step_columns, _rows(text, separator))
        if at_step != step_columns[0]:
            notes.append(
                f"the x-axis is the column {shown(heading[at_step])}, because the column "
                f"{shown(heading[step_columns[0]])} does not rise from row to row"
            )
    axis = None if _is_of_tensorboard(heading) else _AXIS_OF_COLUMN.get(_in_step_columns(heading[at_step]), STEPS)
    text, cut = _without_cut_end(text, separator, at_step if at_value is None else None)
    rows = islice(_rows(text, separator), 1, None)
    runs: set[str] = set()
    unread: _Unread = {}
    if at_value is not None:
        points = _long_points(rows, heading, (at_step, at_value), _name_in_file_name(path), runs, unread)
    else:
        points = _wide_points(rows, heading, at_step, runs, unread)
    if len(runs) > 1:
        raise TableError(
            f"the file was left out, because it holds {len(runs)} runs: export each run into a separate file"
        )
    fraction = _first_fraction(islice(_rows(text, separator), _ROWS_AT_BEGIN), at_step)
    if fraction is not None:
        notes.append(
            f"the steps in the column {shown(heading[at_step])} are not whole numbers, and were rounded towards 0; the "
            f"first is {shown(fraction)}"
        )
    notes += [
        f"left out: {counted(len(cells), 'value')} in the column {shown(name)}, not a number; the first is "
        f"{shown(cells[0])}"
        for name, cells in unread.items()
    ]
    if not points:
        reason = "its only row with numbers is cut" if cut else "no column except the step column holds a number"
        raise TableError("; ".join([f"the file was left out, because {reason}", *notes]))
    tracks = {name: track.arrays() for name, track in points.items()}
    series = {name: Series(name, track.steps, track.values) for name, track in tracks.items()}
    # The rows of a table with one row for each point have no known order.
    if at_value is not None or not _is_counter_that_goes_back(tracks):
        tracks = {}
    return Table(series, axis, tuple(notes), tracks, cut)


def _rows(text: str, separator: str) -> Iterator[list[str]]:
    return csv.reader(io.StringIO(text, newline=""), delimiter=separator)


def _without_cut_end(text: str, separator: str, at_step: int | None) -> tuple[str, str]:
    """Return a table without a cut end, and a note on what was left out; empty if nothing is cut.

    The end may be cut because the program was killed or still writes. A row without a newline is cut if it has fewer
    cells than the row before. Its last cell may be a part of a number, so this cell is left out, and without its step
    the whole row. A row is also cut if its last cell seems to be the beginning of a step.

    :param at_step: index of the step column; None if the steps of the table have no order
    """
    *_, line_before, line = f"\n\n{text}".rsplit("\n", 2)
    # A line with a quote may be a part of a row, because quoted text may contain newlines.
    if not line or "\r" in line or '"' in line:
        return text, ""
    before, last = (next(csv.reader([each], delimiter=separator), []) for each in (line_before, line))
    if len(last) >= len(before):
        if at_step != len(last) - 1 or not _is_cut_step(last[at_step], before[at_step]):
            return text, ""
    elif at_step is not None and at_step < len(last) - 1:
        return text.removesuffix(separator + last[-1]), "the last row is cut, and its last value was left out"
    return text.removesuffix(line), "the last row is cut and was left out"


def _is_cut_step(cell: str, cell_before: str) -> bool:
    """Return whether a cell is the beginning of a step that comes after the step before it, but not far after.

    ``10`` is cut if the step before is ``100000``. ``99000`` is not, because with more digits it is 990,000 or more.
    """
    step, before = number_in_cell(cell), number_in_cell(cell_before)
    if step is None or before is None or not cell.strip().isdecimal() or not 0 < step < before < MAX_STEP:
        return False
    # The numbers that begin with the digits of the step, from "low" on and below "high".
    low, high = step, step + 1
    while high <= before + 1:
        low, high = 10 * low, 10 * high
    return low <= 2 * before


def _counter_among(candidates: Sequence[int], rows: Iterable[Sequence[str]]) -> int:
    """Return the first candidate whose numbers rise from row to row; without such a column, the first candidate.

    In many logs, the column ``steps`` holds the length of each episode.

    :param candidates: indices of the step columns, the preferred column first
    """
    steps: dict[int, list[int]] = {at: [] for at in candidates}
    for row in rows:
        for at in candidates:
            step = _step_in(row, at)
            if step is not None:
                steps[at].append(step)
    return next((at for at in candidates if _is_counter(np.array(steps[at], np.int64))), candidates[0])


def _is_of_tensorboard(heading: Sequence[str]) -> bool:
    """Return whether TensorBoard exported a table. Its column ``step`` then holds the steps of an event file.

    In other tables, such as exports of Weights & Biases, the column ``step`` may count anything.
    """
    return {_in_step_columns(cell) for cell in heading} == {"wall_time", "step", "value"}


def _is_counter(steps: StepArray) -> bool:
    """Return whether numbers rise from row to row, except at a restart and for rows that come slightly late."""
    if steps.size < 2:
        return steps.size == 1
    before, after = steps[:-1].astype(np.float64), steps[1:].astype(np.float64)
    is_far_back = before - after > _RARE * np.ptp(steps.astype(np.float64))
    return bool((after > before).mean() >= _RARE and is_far_back.sum() <= 1 + _RARE * steps.size)


def _is_counter_that_goes_back(tracks: Mapping[str, Track]) -> bool:
    steps = max((track.steps for track in tracks.values()), key=len)
    return bool((steps[1:] < steps[:-1]).any()) and _is_counter(steps)


def _separator(line: str) -> str:
    """Return the separator of a table: a comma, a semicolon or a tab.

    The separator splits the first line into columns, and one of them is a step column. If no separator does this, the
    result is a comma.
    """
    for separator in (",", ";", "\t"):
        heading = next(csv.reader([line], delimiter=separator), [])
        if len(heading) > 1 and _find_column(heading, STEP_COLUMNS) is not None:
            return separator
    return ","


_Unread = dict[str, list[str]]
"""Maps the name of a column to its cells that are not numbers. For each such cell, a row or a point is left out."""


@dataclass
class _Column:
    """Collect the points of one metric, with the number of the row of each point."""

    rows: list[int] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def arrays(self) -> Track:
        """Return the points in the order of the rows."""
        return Track(np.array(self.rows, np.int64), np.array(self.steps, np.int64), np.array(self.values))


_Points = dict[str, _Column]


def _long_points(
    rows: Iterable[Sequence[str]],
    heading: Sequence[str],
    columns: tuple[int, int],
    default_name: str,
    runs: set[str],
    unread: _Unread,
) -> _Points:
    """Read a table with one row for each point: exports of MLflow and TensorBoard, and series.csv."""
    points: _Points = {}
    at_name, at_run = _find_column(heading, _NAME_COLUMNS), _find_column(heading, _RUN_COLUMNS)
    at_step, at_value = columns
    for number, row in enumerate(rows):
        step, value = _step_in(row, at_step), _number_in(row, at_value)
        if len(row) < len(heading) or step is None or value is None:
            at = at_step if step is None else at_value
            _add_unread(unread, heading[at], row, at)
            continue
        if at_run is not None:
            runs.add(row[at_run])
        _add(points, default_name if at_name is None else row[at_name], number, step, value)
    return points


def _wide_points(
    rows: Iterable[Sequence[str]], heading: Sequence[str], at_step: int, runs: set[str], unread: _Unread
) -> _Points:
    """Read a table with one row for each step, such as SB3's progress.csv and exports of Weights & Biases."""
    points: _Points = {}
    names = _metric_names(heading, at_step, runs)
    for number, row in enumerate(rows):
        step = _step_in(row, at_step)
        if step is None:
            _add_unread(unread, heading[at_step], row, at_step)
            continue
        for at, name in names:
            value = _number_in(row, at)
            if value is not None:
                _add(points, name, number, step, value)
            elif at < len(row) and row[at].strip().lower() not in _NO_VALUE:
                _add_unread(unread, name, row, at)
    # A column that holds only text is no metric.
    for name in unread.keys() - points.keys() - {heading[at_step]} if points else ():
        del unread[name]
    return points


def _add_unread(unread: _Unread, name: str, row: Sequence[str], at: int) -> None:
    # An empty line is no row.
    if row:
        unread.setdefault(name, []).append(row[at] if at < len(row) else "")


def _add(points: _Points, name: str, row: int, step: int, value: float) -> None:
    if name not in points:
        if len(points) >= MAX_COLUMNS:
            raise TableError(f"the file was left out, because it holds more than {MAX_COLUMNS:,} metrics")
        points[name] = _Column()
    column = points[name]
    column.rows.append(row)
    column.steps.append(step)
    column.values.append(value)


def _metric_names(heading: Sequence[str], at_step: int, runs: set[str]) -> list[tuple[int, str]]:
    """Return the index and the metric's name of each column that holds a metric.

    Of the columns ``RUN - METRIC``, ``RUN - METRIC__MIN`` and ``RUN - METRIC__MAX`` of Weights & Biases, only the first
    is returned, as ``METRIC``.

    :param runs: a set to which this function adds the names of the runs
    """
    found = []
    for at, column in enumerate(heading):
        if at == at_step or not column or column.lower() in _NO_SERIES:
            continue
        # The name of a run may hold the separator, too.
        run, separator, metric = column.rpartition(" - ")
        if not separator:
            found.append((at, column))
            continue
        runs.add(run)
        if not metric.endswith(("__MIN", "__MAX")):
            found.append((at, metric))
    return found


def _name_in_file_name(path: Path) -> str:
    """Return the tag in the name of a file that TensorBoard exported: ``run-RUN-tag-rollout_ep_rew_mean.csv``."""
    name = path.stem.rpartition("-tag-")[2]
    for known in (tags.OF_SB3["ep_rew_mean"], tags.OF_SB3["ep_len_mean"], *tags.TAGS):
        if known.replace("/", "_") == name:
            return known
    return name.replace("_", "/", 1)


def _find_column(heading: Sequence[str], wanted: Sequence[str]) -> int | None:
    return next(iter(_find_columns(heading, wanted)), None)


def _find_columns(heading: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Return the indices of the wanted columns that a table has, in the order of ``wanted``."""
    known = _all_in_step_columns(tuple(heading))
    names = [name.replace(" ", "_") for name in wanted]
    return [known.index(name) for name in names if name in known]


@lru_cache(maxsize=32)
def _all_in_step_columns(heading: tuple[str, ...]) -> list[str]:
    """Return the names of all columns, as :func:`_in_step_columns`; the files of a folder often have the same ones."""
    return [_in_step_columns(cell) for cell in heading]


def _in_step_columns(cell: str) -> str:
    """Return the name of a column in the form in which ``STEP_COLUMNS`` lists names."""
    return cell.strip().lstrip("\ufeff").lower().replace(" ", "_")


def _step_in(row: Sequence[str], at: int) -> int | None:
    step = _number_in(row, at)
    if step is None or not abs(step) < MAX_STEP:
        return None
    return int(step)


def _first_fraction(rows: Iterable[Sequence[str]], at: int) -> str | None:
    """Return the first step that is not a whole number; None if there is no such step."""
    for row in rows:
        step = _step_in(row, at)
        if step is not None and step != number_in_cell(row[at]):
            return row[at]
    return None


def _number_in(row: Sequence[str], at: int) -> float | None:
    return number_in_cell(row[at]) if at < len(row) else None


# ---- evaluations.npz


def _evaluations(path: Path) -> dict[str, Series]:
    """Read what SB3's EvalCallback stores: ``timesteps (n,)``, ``results`` and ``ep_lengths`` ``(n, n_episodes)``."""
    try:
        arrays = dict(_arrays(path))
    except OSError:
        raise
    except Exception as error:
        # A damaged file causes errors of a dozen undocumented classes. They come from zipfile, zlib, NumPy, and the
        # tokenizer that NumPy uses for headings.
        reason = in_one_line(error)
        raise TableError(
            f"the file was left out, because it is not an evaluations.npz of plain numbers ({reason})"
        ) from error
    steps, results = arrays.get("timesteps"), arrays.get("results")
    if steps is None or results is None or steps.ndim != 1 or not steps.size:
        raise TableError(
            'the file was left out, because it lacks the array "timesteps" or the array "results". SB3\'s EvalCallback '
            "writes both"
        )
    is_usable = np.isfinite(steps) & (np.abs(steps) < MAX_STEP)
    found = {}
    for name, values in (
        (tags.EVAL_REWARD, results),
        (tags.EVAL_LENGTH_OF_SB3, arrays.get("ep_lengths")),
        (tags.EVAL_SUCCESS_RATE, arrays.get("successes")),
    ):
        if values is None or values.ndim not in {1, 2} or len(values) != len(steps) or not values.size:
            continue
        with np.errstate(over="ignore", invalid="ignore"):
            means = values.reshape(len(steps), -1).mean(axis=1)
        found[name] = Series(name, steps[is_usable].astype(np.int64), means[is_usable])
    return found


def _arrays(path: Path) -> Iterator[tuple[str, FloatArray]]:
    with open_regular(path) as stream, zipfile.ZipFile(stream) as archive:
        for name in ("timesteps", "results", "ep_lengths", "successes"):
            try:
                info = archive.getinfo(f"{name}.npy")
            except KeyError:
                continue
            # A zip file of a few bytes can hold an array of gigabytes.
            if info.file_size > MAX_TABLE_BYTES:
                raise ValueError(f"the array {name!r} is larger than {MAX_TABLE_BYTES >> 20} MB")
            with archive.open(info) as member:
                content = member.read(MAX_TABLE_BYTES + 1)
            yield name, _array(name, content[:MAX_TABLE_BYTES])


def _array(name: str, content: bytes) -> FloatArray:
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    read_header: Any = np.lib.format.read_array_header_1_0
    if version != (1, 0):
        read_header = np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(stream)
    if dtype.hasobject or dtype.kind not in "biuf":
        raise ValueError(f"the values of the array {name!r} are of type {dtype}, not numbers")
    # NumPy reserves memory for the shape before it reads: a shape that is larger than the file is refused.
    if any(size < 0 for size in shape) or math.prod(shape) * dtype.itemsize > len(content):
        raise ValueError(f"the array {name!r} is shorter than its header states")
    stream.seek(0)
    array = np.lib.format.read_array(stream, allow_pickle=False)
    return np.asarray(array, dtype=np.float64)
