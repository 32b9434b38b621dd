"""Read logs that are tables: SB3's progress.csv, monitor files and evaluations.npz, and CSV files of other programs.

Each table becomes series under the names that SB3's own event files use. The files may come from an unknown source, so
their size is limited and pickles are refused.
"""

from __future__ import annotations

import csv
import io
import json
import math
import stat
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sb3_visual_td3.common import tags
from sb3_visual_td3.common.errors import in_one_line
from sb3_visual_td3.common.input_files import encoding_of, open_regular, read_text, shown
from sb3_visual_td3.diagnosis.numerals import counted
from sb3_visual_td3.diagnosis.series import MAX_STEP, FloatArray, Series, StepArray
from sb3_visual_td3.diagnosis.tag_search import ROLLOUT_WINDOW
from sb3_visual_td3.report.event_file import Track

MAX_TABLE_BYTES = 64 << 20
"""A table of more bytes is not read. SB3's progress.csv has a few megabytes after several days of training."""
MAX_COLUMNS = 4_000
MAX_HEADER_BYTES = 1 << 16
PROGRESS, EVALUATIONS, MONITOR_END = "progress.csv", "evaluations.npz", "monitor.csv"
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
_RARE = 0.05
"""A column counts as steps only if it rises in at least this fraction of the rows, and drops by a large amount in at
most this fraction of the rows."""
_EPISODE_REWARD_MEAN, _EPISODE_LENGTH_MEAN = "rollout/ep_rew_mean", "rollout/ep_len_mean"


class TableError(ValueError):
    """Report that a table cannot be read. Callers write the name of the file in front of the message."""


@dataclass(frozen=True)
class Table:
    """Hold the content of one table.

    :param series: series by name
    :param axis: unit of the x-axis, such as "environment steps"
    :param notes: remarks on rows that could not be read, and on the choice of the step column
    :param tracks: the same points in the order of the rows, if the steps go back as after a restart; otherwise empty
    """

    series: Mapping[str, Series] = field(default_factory=dict)
    axis: str = ENVIRONMENT_STEPS
    notes: tuple[str, ...] = ()
    tracks: Mapping[str, Track] = field(default_factory=dict)


def is_sb3_table(name: str) -> bool:
    """Return whether SB3 gives this name to one of its tables."""
    return name in {PROGRESS, EVALUATIONS} or name == MONITOR_END or name.endswith(f".{MONITOR_END}")


def is_table(path: Path) -> bool:
    """Return whether the name of a file shows that it is a table, such as progress.csv or evaluations.npz."""
    return path.suffix.lower() in {".csv", ".npz"}


def has_step_column(path: Path) -> bool:
    """Return whether a CSV file begins with a header line that names an x-axis."""
    try:
        with open_regular(path) as stream:
            begin = stream.read(MAX_HEADER_BYTES)
        # The limit may cut a character of a later line in two.
        line = begin.decode(encoding_of(begin), "replace").splitlines()[0]
        heading = next(csv.reader([line], delimiter=_separator(line)))
    except (OSError, IndexError, StopIteration, csv.Error):
        return False
    return _find_column(heading, STEP_COLUMNS) is not None and len(heading) > 1


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

    def notes(self) -> list[str]:
        """Return one line that says why the file could not be read, or lines on rows that were left out."""
        notes = self.table.notes if self._problem is None else (self._problem,)
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
            episodes, n_unreadable = _episodes_in(text)
            return Table(_of_episodes(episodes), notes=_note_on_rows(n_unreadable))
        return _columns(path, text)
    except csv.Error as error:
        raise TableError(f"the file was left out, because it is not a CSV file ({error})") from error


def read_monitors(paths: Sequence[Path]) -> dict[str, Series]:
    """Read the monitor files of a run, one for each parallel environment, as one sequence of episodes.

    :param paths: paths of the files
    :return: series by name; empty if a file cannot be read
    """
    try:
        episodes = [episode for path in paths for episode in _episodes_in(read_text(path, MAX_TABLE_BYTES))[0]]
        return _of_episodes(sorted(episodes, key=lambda episode: (episode.session, episode.at_s)))
    except (ValueError, OSError, csv.Error):
        return {}


# ---- Monitor files


class _Episode(NamedTuple):
    """Hold one row of a monitor file, which is one episode.

    :ivar session: number of the session, from 0; a resumed run may append its episodes to the file
    :ivar at_s: time at which the episode ended
    """

    session: int
    at_s: float
    reward: float
    length: float


def _of_episodes(ended: Sequence[_Episode]) -> dict[str, Series]:
    """Return the series that SB3's logger would have written for some episodes.

    The x-axis is the number of environment steps of all environments together.
    """
    if not ended:
        raise TableError("the file holds no finished episode")
    rewards = np.array([episode.reward for episode in ended])
    lengths = np.array([float(int(episode.length)) for episode in ended])
    ends = np.cumsum(lengths)
    # A sum of more than 64 bits cannot be a number of steps, so an episode with such a sum is left out.
    is_usable = ends < MAX_STEP
    steps = ends[is_usable].astype(np.int64)
    return {
        name: Series(name, steps, _means_of_the_last(values, ROLLOUT_WINDOW)[is_usable])
        for name, values in ((_EPISODE_REWARD_MEAN, rewards), (_EPISODE_LENGTH_MEAN, lengths))
    }


def _note_on_rows(n_unreadable: int) -> tuple[str, ...]:
    if n_unreadable == 0:
        return ()
    return (f"left out: {counted(n_unreadable, 'row')} without a return or a length that is a number",)


def _episodes_in(text: str) -> tuple[list[_Episode], int]:
    """Read the episodes of one monitor file, in the order of the file.

    :return: the episodes, and the number of rows that could not be read; the last row does not count, because a run
        that was killed may have cut it in the middle
    :raises TableError: if the text is not a monitor file
    """
    lines = text.splitlines()
    start_s = 0.0
    if lines and lines[0].startswith("#"):
        start_s = _start_time(lines[0])
        lines = lines[1:]
    rows = csv.reader(lines)
    heading = [cell.strip() for cell in next(rows, [])]
    if not {"r", "l"} <= set(heading):
        raise TableError('the file was left out, because it has no columns "r" and "l". SB3\'s Monitor writes them')
    at_r, at_l = heading.index("r"), heading.index("l")
    at_t = heading.index("t") if "t" in heading else None
    episodes: list[_Episode] = []
    unreadable: list[int] = []
    n_rows = session = 0
    reached_s = 0.0
    for n_rows, row in enumerate(filter(None, rows), 1):
        reward = length = None
        if len(row) >= len(heading):
            reward, length = _number(row[at_r]), _number(row[at_l])
        if reward is None or length is None or not 0 < length < MAX_STEP:
            unreadable.append(n_rows)
            continue
        # Without a column of times, the episodes keep the order of the rows.
        seconds: float | None = float(len(episodes))
        if at_t is not None:
            seconds = _number(row[at_t])
        if seconds is not None and math.isfinite(seconds):
            # SB3's Monitor appends without a new header line, and its times begin at 0 again. A clock that was set back
            # by a few seconds does not begin a session.
            session += seconds < 0.9 * reached_s
            reached_s = seconds
        episodes.append(_Episode(session, start_s + reached_s, reward, length))
    return episodes, sum(row < n_rows for row in unreadable)


def _means_of_the_last(values: FloatArray, n: int) -> FloatArray:
    """Return a moving mean: at each value, the mean of this value and of up to ``n - 1`` values before it."""
    with np.errstate(over="ignore", invalid="ignore"):
        first = np.cumsum(values[:n]) / np.arange(1, min(n, len(values)) + 1)
        if len(values) <= n:
            return first
        # A difference of running sums would be faster, but one infinite reward would spoil all means after it.
        return np.concatenate([first, np.lib.stride_tricks.sliding_window_view(values[1:], n).mean(axis=1)])


def _start_time(line: str) -> float:
    try:
        started = json.loads(line[1:]).get("t_start", 0.0)
    except (ValueError, AttributeError, RecursionError):
        return 0.0
    is_number = isinstance(started, int | float) and not isinstance(started, bool)
    # An integer of 400 digits is valid JSON, but too large for a double.
    if not is_number or not abs(started) < 1e18:
        return 0.0
    return float(started)


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
    axis = _AXIS_OF_COLUMN.get(heading[at_step].strip().lower(), STEPS)
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
    notes += [
        f"left out: {counted(len(cells), 'value')} in the column {shown(name)}, not a number; the first is "
        f"{shown(cells[0])}"
        for name, cells in unread.items()
    ]
    if not points:
        reason = "the file was left out, because no column except the step column holds a number"
        raise TableError("; ".join([reason, *notes]))
    tracks = {name: track.arrays() for name, track in points.items()}
    series = {name: Series(name, track.steps, track.values) for name, track in tracks.items()}
    # The rows of a table with one row for each point have no known order.
    if at_value is not None or not _is_counter_that_goes_back(tracks):
        tracks = {}
    return Table(series, axis, tuple(notes), tracks)


def _rows(text: str, separator: str) -> Iterator[list[str]]:
    return csv.reader(io.StringIO(text, newline=""), delimiter=separator)


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
    """Return the separator with which the first line of a table has a step column; a comma if none has."""
    for separator in (",", ";", "\t"):
        heading = next(csv.reader([line], delimiter=separator), [])
        if len(heading) > 1 and _find_column(heading, STEP_COLUMNS) is not None:
            return separator
    return ","


_Unread = dict[str, list[str]]
"""Maps the name of a column to its cells that are not numbers. Each such cell costs a row or a point."""


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
    for known in (_EPISODE_REWARD_MEAN, _EPISODE_LENGTH_MEAN, *tags.TAGS):
        if known.replace("/", "_") == name:
            return known
    return name.replace("_", "/", 1)


def _find_column(heading: Sequence[str], wanted: Sequence[str]) -> int | None:
    return next(iter(_find_columns(heading, wanted)), None)


def _find_columns(heading: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Return the indices of the wanted columns that a table has, in the order of ``wanted``."""
    known = [cell.strip().lstrip("\ufeff").lower().replace(" ", "_") for cell in heading]
    names = [name.replace(" ", "_") for name in wanted]
    return [known.index(name) for name in names if name in known]


def _step_in(row: Sequence[str], at: int) -> int | None:
    step = _number_in(row, at)
    if step is None or not abs(step) < MAX_STEP:
        return None
    return int(step)


def _number_in(row: Sequence[str], at: int) -> float | None:
    return _number(row[at]) if at < len(row) else None


def _number(cell: str) -> float | None:
    """Return the number in a cell; None for an empty cell, and for text."""
    try:
        return float(cell)
    except ValueError:
        return None


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
