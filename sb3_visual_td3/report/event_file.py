"""The scalars of one event file that may still grow: what is new is read, what was read is kept."""

from __future__ import annotations

import math
import stat
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from tensorboard.compat.proto import event_pb2, types_pb2

from sb3_visual_td3.common.input_files import open_regular
from sb3_visual_td3.report.records import FOOTER_BYTES, FRAME_BYTES, DamagedRecordError, read_records

OnBytes = Callable[[int], None]

CLOCK_TOLERANCE_S = 60.0
"""A clock that goes back by less is two threads that write; by more, somebody has set it."""

_FINGERPRINT_BYTES = 256

_TENSOR_TYPES: dict[int, tuple[str, str]] = {
    types_pb2.DT_FLOAT: ("<f4", "float_val"),
    types_pb2.DT_DOUBLE: ("<f8", "double_val"),
    types_pb2.DT_INT32: ("<i4", "int_val"),
    types_pb2.DT_INT64: ("<i8", "int64_val"),
    types_pb2.DT_HALF: ("<f2", ""),
}


@dataclass
class Points:
    """The points of one tag, in the order of the file."""

    steps: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))


class EventFile:
    """One event file, read as far as it goes.

    :param path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._begin_anew()

    def _begin_anew(self) -> None:
        self.points: dict[str, Points] = {}
        self.first_wall_time, self.last_wall_time = math.inf, -math.inf
        self.clock_went_back_s = 0.0
        self._problem: DamagedRecordError | str | None = None
        self._n_no_events = 0
        self._offset, self._n_whole, self._inode = 0, 0, -1
        self._fingerprint = b""

    def read_new(self, on_bytes: OnBytes | None = None) -> bool:
        """Read what has been appended; a file that was cut back or replaced is read from its start.

        :param on_bytes: called with the number of bytes of each part, for a progress bar.
        :return: whether the points are others than before.
        :raises OSError: if it cannot be read.
        """
        status = self.path.stat()
        if not stat.S_ISREG(status.st_mode):
            # Opened, a pipe would be waited for.
            self._problem = "is no regular file, and was left out"
            return False
        had_points = bool(self.points)
        is_other = status.st_ino != self._inode or status.st_size < self._offset or not self._is_continued()
        if is_other:
            self._begin_anew()
            self._inode = status.st_ino
        self._problem = "is empty (0 bytes)" if status.st_size == 0 else None
        n_before = self._n_whole
        try:
            for records in read_records(self.path, self._offset, self._n_whole):
                self._take(records)
                n_bytes = sum(map(len, records)) + FRAME_BYTES * len(records)
                self._offset += n_bytes
                self._n_whole += len(records)
                self._fingerprint = records[-1][-_FINGERPRINT_BYTES:]
                if on_bytes is not None:
                    on_bytes(n_bytes)
        except DamagedRecordError as error:
            self._problem = error
        return self._n_whole > n_before or (is_other and had_points)

    def _is_continued(self) -> bool:
        """Return whether the last record that was read still stands where it stood."""
        if not self._n_whole:
            return True
        with open_regular(self.path) as stream:
            stream.seek(self._offset - FOOTER_BYTES - len(self._fingerprint))
            return stream.read(len(self._fingerprint)) == self._fingerprint

    @property
    def clock_is_known(self) -> bool:
        """Whether its points tell when they were written."""
        return math.isfinite(self.first_wall_time)

    def notes(self, is_growing: bool = False) -> list[str]:
        """Return what had to be left out or is odd, in words.

        :param is_growing: the end of a half-written record is simply not there yet, and no note.
        """
        name, notes = self.path.name, []
        problem = self._problem
        if isinstance(problem, str):
            notes.append(f"{name} {problem}")
        elif problem is not None and problem.n_whole == 0 and not is_growing:
            notes.append(f"{name} is no event file, or its first record is {problem.reason}")
        elif problem is not None and not (is_growing and problem.is_cut_off):
            notes.append(f"{name} is {problem}; judged up to there")
        if self._n_no_events:
            notes.append(f"{name}: {self._n_no_events:,} records are no events, and were left out")
        if self.clock_went_back_s > CLOCK_TOLERANCE_S:
            notes.append(f"{name}: the clock goes back by {self.clock_went_back_s:,.0f} s; points are ordered by step")
        return notes

    def _take(self, records: Iterable[bytes]) -> None:
        parse = event_pb2.Event.FromString
        for record in records:
            try:
                event = parse(record)
            except DecodeError:
                self._n_no_events += 1
                continue
            n_taken = 0
            step = event.step
            for value in event.summary.value:
                number = scalar(value)
                if number is not None:
                    n_taken += 1
                    points = self.points.get(value.tag)
                    if points is None:
                        points = self.points[value.tag] = Points()
                    points.steps.append(step)
                    points.values.append(number)
            if n_taken:
                self._see_time(event.wall_time)

    def _see_time(self, wall_time: float) -> None:
        if wall_time < self.last_wall_time:
            self.clock_went_back_s = max(self.clock_went_back_s, self.last_wall_time - wall_time)
        elif wall_time > self.last_wall_time:
            self.last_wall_time = wall_time
        self.first_wall_time = min(self.first_wall_time, wall_time)


def scalar(value: Any) -> float | None:
    """Return the number that a summary's value holds; None for images, histograms, texts and vectors."""
    kind = value.WhichOneof("value")
    if kind == "simple_value":
        return float(value.simple_value)
    if kind != "tensor" or value.metadata.plugin_data.plugin_name not in {"", "scalars"}:
        return None
    tensor = value.tensor
    if tensor.dtype not in _TENSOR_TYPES or any(dim.size != 1 for dim in tensor.tensor_shape.dim):
        return None
    dtype, attribute = _TENSOR_TYPES[tensor.dtype]
    if tensor.tensor_content:
        if len(tensor.tensor_content) != np.dtype(dtype).itemsize:
            return None
        return float(np.frombuffer(tensor.tensor_content, dtype)[0])
    single: Sequence[float] = getattr(tensor, attribute) if attribute else ()
    return float(single[0]) if len(single) == 1 else None
