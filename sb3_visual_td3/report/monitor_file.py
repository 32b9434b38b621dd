"""Read monitor files, in which SB3's Monitor writes one row for each episode of an environment."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sb3_visual_td3.common import tags
from sb3_visual_td3.common.input_files import read_text
from sb3_visual_td3.diagnosis.numerals import counted
from sb3_visual_td3.diagnosis.series import MAX_STEP, FloatArray, Series
from sb3_visual_td3.diagnosis.tag_search import ROLLOUT_WINDOW

MONITOR_END = "monitor.csv"
MAX_TABLE_BYTES = 64 << 20
"""A table of more bytes is not read. SB3's progress.csv has a few megabytes after several days of training."""


class TableError(ValueError):
    """Report that a table cannot be read. Callers write the name of the file in front of the message."""


class Episode(NamedTuple):
    """Hold one row of a monitor file, which is one episode.

    :ivar session: number of the session, from 0; a resumed run may append its episodes to the file
    :ivar at_s: time at which the episode ended
    """

    session: int
    at_s: float
    reward: float
    length: float


class MonitorFile(NamedTuple):
    """Hold what one monitor file contains.

    :ivar start_s: time at which the file was begun, as its first line states it; 0 without this line
    :ivar episodes: the episodes in the order of the file
    :ivar n_unreadable: number of rows that could not be read; the last row does not count, because a run that was
        killed may have cut it in the middle
    """

    start_s: float
    episodes: list[Episode]
    n_unreadable: int

    @classmethod
    def read(cls, text: str) -> MonitorFile:
        """Read one monitor file.

        :param text: content of the file
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
        episodes: list[Episode] = []
        unreadable: list[int] = []
        n_rows = session = 0
        reached_s = 0.0
        for n_rows, row in enumerate(filter(None, rows), 1):
            reward = length = None
            if len(row) >= len(heading):
                reward, length = number_in_cell(row[at_r]), number_in_cell(row[at_l])
            if reward is None or length is None or not 0 < length < MAX_STEP:
                unreadable.append(n_rows)
                continue
            # Without a column of times, the episodes keep the order of the rows.
            seconds: float | None = float(len(episodes))
            if at_t is not None:
                seconds = number_in_cell(row[at_t])
            if seconds is not None and math.isfinite(seconds):
                # SB3's Monitor appends without a new header line, and its times begin at 0 again. A clock that was set
                # back by a few seconds does not begin a session.
                session += seconds < 0.9 * reached_s
                reached_s = seconds
            episodes.append(Episode(session, start_s + reached_s, reward, length))
        return cls(start_s, episodes, sum(row < n_rows for row in unreadable))

    def notes(self) -> tuple[str, ...]:
        """Return a note on the rows that could not be read, if there are any."""
        if self.n_unreadable == 0:
            return ()
        return (f"left out: {counted(self.n_unreadable, 'row')} without a return or a length that is a number",)


def read_monitors(paths: Sequence[Path]) -> tuple[dict[str, Series], tuple[str, ...]]:
    """Read several monitor files, such as one for each parallel environment, as one sequence of episodes.

    A resumed run also writes new files. They cannot be distinguished from the files of another run, so a note names
    them. There is no note if all names are numbers, because SB3 gives such names to the files of parallel environments.

    :param paths: paths of the files
    :return: series by name, and notes; no series if a file cannot be read, or if there is no episode
    """
    try:
        read = {path: MonitorFile.read(read_text(path, MAX_TABLE_BYTES)) for path in paths}
        # A training that starts again empties its files while the report reads them.
        read = {path: file for path, file in read.items() if file.episodes}
        episodes = [episode for file in read.values() for episode in file.episodes]
        series = series_of(sorted(episodes, key=lambda episode: (episode.session, episode.at_s)))
    except (ValueError, OSError, csv.Error):
        return {}, ()
    ordered = sorted(read, key=lambda path: read[path].start_s)
    last_s = [max(episode.at_s for episode in read[path].episodes) for path in ordered]
    has_gap = any(read[path].start_s > end_s for path, end_s in zip(ordered[1:], accumulate(last_s, max), strict=False))
    names = [path.name for path in ordered]
    if not has_gap or all(name.removesuffix(f".{MONITOR_END}").isdecimal() for name in names):
        return series, ()
    return series, (
        f"{', '.join(names)} were read as one run that was continued; if they are different runs, move each into a "
        "folder of its own",
    )


def series_of(ended: Sequence[Episode]) -> dict[str, Series]:
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
        for name, values in ((tags.OF_SB3["ep_rew_mean"], rewards), (tags.OF_SB3["ep_len_mean"], lengths))
    }


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


def number_in_cell(cell: str) -> float | None:
    """Return the number in a cell; None for an empty cell, and for text."""
    try:
        return float(cell)
    except ValueError:
        return None
