"""The scalars of one event file that may still grow: what is new is read, what was read is kept."""

from __future__ import annotations

import math
import stat
import struct
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from tensorboard.compat.proto import event_pb2, summary_pb2, types_pb2

from sb3_visual_td3.common.input_files import open_regular
from sb3_visual_td3.report.records import (
    FOOTER_BYTES,
    MAX_RECORD_BYTES,
    READ_BYTES,
    DamagedRecordError,
    read_records,
)
from sb3_visual_td3.report.restarts import Track, last_run

OnBytes = Callable[[int], None]

CLOCK_TOLERANCE_S = 60.0
"""A clock that goes back by less is two threads that write; by more, somebody has set it."""

MAX_SCALAR_BYTES = 1 << 16
"""A value of a long record that takes more is a picture or a text, and is passed over without being parsed."""
MAX_VALUES = 250_000
"""A long record that has more is not one that a training wrote."""

_TENSOR_TYPES: dict[int, tuple[str, str]] = {
    types_pb2.DT_FLOAT: ("<f4", "float_val"),
    types_pb2.DT_DOUBLE: ("<f8", "double_val"),
    types_pb2.DT_INT32: ("<i4", "int_val"),
    types_pb2.DT_INT64: ("<i8", "int64_val"),
    types_pb2.DT_HALF: ("<f2", ""),
}


@dataclass
class Points:
    """The points of one tag, in the order of the file; ``order`` counts the records that hold scalars."""

    order: array[int] = field(default_factory=lambda: array("I"))
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
        self._n_no_events, self._n_too_long = 0, 0
        self._n_with_scalars = 0
        self._steps_go_back = False
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
            for batch in read_records(self.path, self._offset, self._n_whole):
                self._take(batch.records)
                self._n_too_long += batch.n_whole - len(batch.records)
                self._offset += batch.n_bytes
                self._n_whole += batch.n_whole
                self._fingerprint = batch.tail
                if on_bytes is not None:
                    on_bytes(batch.n_bytes)
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
        if self._n_too_long:
            notes.append(f"{name}: {self._n_too_long:,} records of more than {MAX_RECORD_BYTES >> 20} MB were left out")
        if self.clock_went_back_s > CLOCK_TOLERANCE_S:
            notes.append(f"{name}: the clock goes back by {self.clock_went_back_s:,.0f} s; points are ordered by step")
        return notes

    def last_run(self) -> tuple[Mapping[str, Track], list[str]]:
        """Return the points of the file's last run by tag, and notes where the file holds more."""
        tracks = {
            tag: Track(np.array(points.order, np.int64), np.array(points.steps, np.int64), np.array(points.values))
            for tag, points in self.points.items()
        }
        return last_run(tracks, self.path.name) if self._steps_go_back else (tracks, [])

    def _take(self, records: Iterable[bytes | bytearray]) -> None:
        for record in records:
            try:
                if len(record) > READ_BYTES:
                    step, wall_time, values = long_event(memoryview(record))
                else:
                    event = event_pb2.Event.FromString(record)
                    step, wall_time, values = event.step, event.wall_time, event.summary.value
                self._take_values(step, wall_time, values)
            except DecodeError:
                self._n_no_events += 1

    def _take_values(self, step: int, wall_time: float, values: Iterable[Any]) -> None:
        is_taken = False
        for value in values:
            number = scalar(value)
            if number is not None:
                is_taken = True
                points = self.points.get(value.tag)
                if points is None:
                    points = self.points[value.tag] = Points()
                elif step < points.steps[-1]:
                    self._steps_go_back = True
                points.order.append(self._n_with_scalars)
                points.steps.append(step)
                points.values.append(number)
        if is_taken:
            self._n_with_scalars += 1
            self._see_time(wall_time)

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


def long_event(record: memoryview) -> tuple[int, float, Iterator[Any]]:
    """Read step, wall time and the small values of a long record, one value at a time.

    Parsed as a whole, a record can take many times its size: an empty message takes two bytes there, an object here.

    :param record: an Event in protobuf's wire format, https://protobuf.dev/programming-guides/encoding
    :return: step, wall time in seconds, and what parses the values of the summary up to ``MAX_SCALAR_BYTES`` each.
    :raises DecodeError: if it is not in that format, or has more than ``MAX_VALUES`` values.
    """
    step, wall_time = 0, 0.0
    places = array("Q")
    for field_number, kind, begin, end in _fields(record, 0, len(record)):
        if (field_number, kind) == (1, _FIXED_64):
            (wall_time,) = struct.unpack_from("<d", record, begin)
        elif (field_number, kind) == (2, _VARINT):
            number, _ = _varint(record, begin, end)
            step = (number + (1 << 63)) % (1 << 64) - (1 << 63)  # negative steps are written as their complement
        elif (field_number, kind) == (5, _BYTES):
            for inner, inner_kind, at, to in _fields(record, begin, end):
                if (inner, inner_kind) == (1, _BYTES) and to <= at + MAX_SCALAR_BYTES:
                    if len(places) >= 2 * MAX_VALUES:
                        raise DecodeError("too many values")
                    places.append(at)
                    places.append(to)
    parse = summary_pb2.Summary.Value.FromString
    values = (parse(bytes(record[places[i] : places[i + 1]])) for i in range(0, len(places), 2))
    return step, wall_time, values


_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5


def _fields(data: memoryview, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield number, kind, begin and end of each field of a message."""
    while at < end:
        key, at = _varint(data, at, end)
        begin, kind = at, key & 7
        if kind == _VARINT:
            _, at = _varint(data, at, end)
        elif kind == _BYTES:
            n_bytes, begin = _varint(data, at, end)
            at = begin + n_bytes
        elif kind in (_FIXED_64, _FIXED_32):
            at += 8 if kind == _FIXED_64 else 4
        else:
            raise DecodeError("not a kind of field that an event has")
        if at > end or not key >> 3:
            raise DecodeError("a field that ends after its message")
        yield key >> 3, kind, begin, at


def _varint(data: memoryview, at: int, end: int) -> tuple[int, int]:
    """Return the number that stands at a place, seven bits a byte, and the place after it."""
    number = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
    raise DecodeError("a number that does not end")
