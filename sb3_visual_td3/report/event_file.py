"""Read one TensorBoard event file: its records with their checksums, and the scalars in them.

TensorBoard's own reader is slower, and keeps only 10,000 points of a tag by default.

Source: the TFRecord format, https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
"""

from __future__ import annotations

import math
import os
import stat
import struct
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c
import numpy as np
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from tensorboard.compat.proto import event_pb2, summary_pb2, types_pb2

from sb3_visual_td3.common.input_files import open_regular
from sb3_visual_td3.diagnosis.series import BoolArray, FloatArray, StepArray

EVENT_FILE_MARK = "tfevents"
"""The name of every event file contains this text."""
MAX_RECORD_BYTES = 64 << 20
"""A record of more bytes is left out. Usual records have at most a few megabytes."""

READ_BYTES = 1 << 20
"""Number of bytes that are read at once."""

TAIL_BYTES = 256
"""The reader remembers the last bytes of the last record, at most this many. If these bytes have changed at the next
read, another program has replaced the file."""
_HEADER = struct.Struct("<QI")
FOOTER_BYTES = 4
FRAME_BYTES = _HEADER.size + FOOTER_BYTES
"""Number of bytes that a record takes in addition to its data."""


class DamagedRecordError(ValueError):
    """Report that a file ends within a record, or that a record is damaged; all records before it are intact.

    :param reason: ``"cut off"`` or ``"damaged"``
    :param n_whole: number of intact records
    :param offset: byte at which the damaged record begins
    """

    def __init__(self, reason: str, n_whole: int, offset: int) -> None:
        super().__init__(f"{reason} at byte {offset:,}, after {n_whole:,} whole records")
        self.reason = reason
        self.n_whole = n_whole
        self.offset = offset

    @property
    def is_cut_off(self) -> bool:
        """Return whether the file ends within a record; if the file is still being written, the rest will follow."""
        return self.reason == CUT_OFF


CUT_OFF, DAMAGED = "cut off", "damaged"


class Batch(NamedTuple):
    """Hold consecutive records of a file.

    :ivar records: data of each record; an empty list if the batch is one record of more than ``MAX_RECORD_BYTES``
    :ivar n_whole: number of records; 1 if the batch is one record of more than ``MAX_RECORD_BYTES``
    :ivar n_bytes: number of bytes that these ``n_whole`` records take in the file
    :ivar tail: the last bytes of the last record
    """

    records: list[bytes | bytearray]
    n_whole: int
    n_bytes: int
    tail: bytes


def read_records(path: Path, offset: int = 0, n_whole: int = 0) -> Iterator[Batch]:
    """Yield the records of a file in order, some thousands at a time, after checking their checksums.

    Records of more than ``MAX_RECORD_BYTES`` are skipped.

    :param path: path of the event file
    :param offset: byte at which to start, which must be the end of a record
    :param n_whole: number of records before ``offset``
    :raises DamagedRecordError: if a record is damaged or cut off; the intact records before it are yielded first
    :raises OSError: if the file is not a regular file or cannot be read
    """
    with open_regular(path) as stream:
        stream.seek(offset)
        buffer = b""
        while chunk := stream.read(READ_BYTES):
            buffer += chunk
            # Drop this reference now: the buffer and the records that are cut from it already hold the same bytes
            # twice.
            del chunk
            frames = _frames(buffer)
            if frames.records:
                n_bytes = frames.n_bytes
                yield Batch(frames.records, len(frames.records), n_bytes, bytes(frames.records[-1][-TAIL_BYTES:]))
                n_whole += len(frames.records)
                offset += n_bytes
                buffer = buffer[n_bytes:]
            if frames.is_damaged:
                raise DamagedRecordError(DAMAGED, n_whole, offset)
            # Without this branch, a record that does not fit into the next chunk would make the buffer grow by repeated
            # copies.
            if frames.n_missing > READ_BYTES:
                # The record is longer than the rest of the file: either the file was cut off, or the length is damaged.
                if offset + len(buffer) + frames.n_missing > os.fstat(stream.fileno()).st_size:
                    break
                batch = _long_record(stream, buffer, offset)
                if batch is None:
                    raise DamagedRecordError(DAMAGED, n_whole, offset)
                yield batch
                n_whole += 1
                offset += batch.n_bytes
                buffer = b""
    if buffer:
        raise DamagedRecordError(CUT_OFF, n_whole, offset)


def _long_record(stream: FileIO, begin: bytes, offset: int) -> Batch | None:
    """Read the rest of a long record into one buffer, or skip it if it is too long.

    :param begin: the bytes that were already read, with the header
    :return: a batch of this record; None if its checksum is wrong
    """
    length, _ = _HEADER.unpack_from(begin)
    n_bytes = FRAME_BYTES + length
    if length > MAX_RECORD_BYTES:
        stream.seek(offset + n_bytes - FOOTER_BYTES - TAIL_BYTES)
        tail = stream.read(TAIL_BYTES)
        stream.seek(offset + n_bytes)
        return Batch([], 1, n_bytes, tail)
    record = bytearray(begin[_HEADER.size :])
    while len(record) < length + FOOTER_BYTES:
        piece = stream.read(min(READ_BYTES, length + FOOTER_BYTES - len(record)))
        if not piece:  # another program truncated the file while it was being read
            return None
        record += piece
    checksum = int.from_bytes(record[length:], "little")
    del record[length:]
    if checksum != masked_crc32c(record):
        return None
    return Batch([record], 1, n_bytes, bytes(record[-TAIL_BYTES:]))


class _Frames(NamedTuple):
    """Hold the complete records at the start of a buffer.

    :ivar n_bytes: size of these records with their lengths and checksums
    :ivar n_missing: missing bytes of the next record; 0 if it is damaged or its length is unknown
    """

    records: list[bytes | bytearray]
    n_bytes: int
    is_damaged: bool
    n_missing: int


def _frames(buffer: bytes) -> _Frames:
    # This loop runs once for each record of a file, often a million times. It therefore uses local names and as few
    # calls as possible.
    records: list[bytes | bytearray] = []
    at, size = 0, len(buffer)
    while at + _HEADER.size <= size:
        length, checksum = _HEADER.unpack_from(buffer, at)
        if checksum != _length_checksum(length):
            return _Frames(records, at, is_damaged=True, n_missing=0)
        begin = at + _HEADER.size
        end = begin + length
        if end + FOOTER_BYTES > size:
            return _Frames(records, at, is_damaged=False, n_missing=end + FOOTER_BYTES - size)
        record = buffer[begin:end]
        if int.from_bytes(buffer[end : end + FOOTER_BYTES], "little") != _masked(google_crc32c.value(record)):
            return _Frames(records, at, is_damaged=True, n_missing=0)
        records.append(record)
        at = end + FOOTER_BYTES
    return _Frames(records, at, is_damaged=False, n_missing=0)


# Records of a run have only a few different lengths, so their checksums are cached.
@lru_cache(maxsize=4096)
def _length_checksum(length: int) -> int:
    return masked_crc32c(length.to_bytes(8, "little"))


def masked_crc32c(data: bytes | bytearray) -> int:
    """Return the CRC-32C of some bytes, masked as in TFRecord files.

    :param data: bytes of any length; they are not copied as a whole
    """
    checksum, view = 0, memoryview(data)
    for at in range(0, len(data), READ_BYTES):
        checksum = google_crc32c.extend(checksum, bytes(view[at : at + READ_BYTES]))
    return _masked(checksum)


def _masked(checksum: int) -> int:
    # The mask of the TFRecord format rotates right by 15 bits and adds a constant. The format masks CRCs because the
    # CRC of data that contain CRCs is weak.
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


OnBytes = Callable[[int], None]

CLOCK_TOLERANCE_S = 60.0
"""If the wall-clock time goes back by more seconds than this, the report has a note. Two threads of one program may
cause smaller steps back."""

MAX_SCALAR_BYTES = 1 << 16
"""Values of more bytes than this are images or texts. If a record has more than ``READ_BYTES`` bytes, such values are
not parsed."""
MAX_VALUES = 250_000
"""A record with more values than this is left out. Only records of more than ``READ_BYTES`` are checked."""

_TENSOR_TYPES: dict[int, tuple[str, str]] = {
    types_pb2.DT_FLOAT: ("<f4", "float_val"),
    types_pb2.DT_DOUBLE: ("<f8", "double_val"),
    types_pb2.DT_INT32: ("<i4", "int_val"),
    types_pb2.DT_INT64: ("<i8", "int64_val"),
    types_pb2.DT_HALF: ("<f2", ""),
}


@dataclass(frozen=True)
class Track:
    """Hold the points of one tag in the order of the file.

    :param order: ``(n,) int64``, number of each point's record, increasing
    :param steps: ``(n,) int64``, which may go back
    :param values: ``(n,) float64``
    """

    order: StepArray
    steps: StepArray
    values: FloatArray

    def where(self, mask: BoolArray) -> Track:
        """Return the points of the tag that a ``(n,) bool`` mask selects."""
        return Track(self.order[mask], self.steps[mask], self.values[mask])

    def goes_back_at(self, record: int) -> bool | None:
        """Return whether the step decreases between the last point before a record and the first point at or after it.

        :param record: number of the record
        :return: True if the step decreases, for example from 1,000 to 800; None if one of these two points is missing
        """
        at = int(np.searchsorted(self.order, record))
        if at in {0, len(self.order)}:
            return None
        return bool(self.steps[at] < self.steps[at - 1])


@dataclass
class Points:
    """Collect the points of one tag, in the order in which the file holds them.

    :ivar order: number of each point's record, from 0; only the records that hold scalars are counted
    """

    order: array[int] = field(default_factory=lambda: array("I"))
    steps: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))


class EventFile:
    """Read one event file up to its last intact record; the file may grow between two reads.

    :param path: path of the file
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reset()

    def _reset(self) -> None:
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
        """Read the records that were appended since the last call; a truncated or replaced file is read from its start.

        :param on_bytes: function called after each batch of records, with the number of bytes of the batch
        :return: whether the points have changed
        :raises OSError: if the file cannot be read
        """
        status = self.path.stat()
        if not stat.S_ISREG(status.st_mode):
            # Opening a pipe would block until another program writes to it.
            self._problem = "the file was left out, because it is not a regular file"
            return False
        had_points = bool(self.points)
        # The file was replaced if it has a different inode, if it has fewer bytes, or if the bytes of the last record
        # have changed.
        is_other = status.st_ino != self._inode or status.st_size < self._offset or not self._is_continued()
        if is_other:
            self._reset()
            self._inode = status.st_ino
        self._problem = "the file is empty (0 bytes)" if status.st_size == 0 else None
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
        """Return whether the file still contains what was read before, judged by the last bytes that were read."""
        if not self._n_whole:
            return True
        with open_regular(self.path) as stream:
            stream.seek(self._offset - FOOTER_BYTES - len(self._fingerprint))
            return stream.read(len(self._fingerprint)) == self._fingerprint

    @property
    def clock_is_known(self) -> bool:
        """Return whether the points of the file have usable wall-clock times."""
        return math.isfinite(self.first_wall_time)

    def notes(self, is_growing: bool = False) -> list[str]:
        """Return notes on records that were left out and on unusual content.

        :param is_growing: whether the file is still being written; an incomplete last record then gets no note
        """
        name, notes = self.path.name, []
        problem = self._problem
        if isinstance(problem, str):
            notes.append(f"{name}: {problem}")
        elif problem is not None and problem.n_whole == 0 and not is_growing:
            notes.append(f"{name} is not an event file, or its first record is {problem.reason}")
        elif problem is not None and not (is_growing and problem.is_cut_off):
            notes.append(f"{name} is {problem}; only the records before it are judged")
        if self._n_no_events:
            notes.append(f"{name}: {self._n_no_events:,} records are not events, and were left out")
        if self._n_too_long:
            notes.append(f"{name}: {self._n_too_long:,} records of more than {MAX_RECORD_BYTES >> 20} MB were left out")
        if self.clock_went_back_s > CLOCK_TOLERANCE_S:
            notes.append(
                f"{name}: the wall-clock time goes back by {self.clock_went_back_s:,.0f} s; points are ordered by step"
            )
        return notes

    @property
    def steps_go_back(self) -> bool:
        """Return whether the steps of a tag go back; the file may then hold several runs, or a resumed run."""
        return self._steps_go_back

    def tracks(self) -> dict[str, Track]:
        """Return the points of each tag, in the order in which the file holds them."""
        return {
            tag: Track(np.array(points.order, np.int64), np.array(points.steps, np.int64), np.array(points.values))
            for tag, points in self.points.items()
        }

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
                    # The search for several runs in one file is slow. It is made only if steps go back.
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


class Begin(NamedTuple):
    """Hold the content of the first records of an event file.

    :ivar has_hparams: whether there are hyperparameters for TensorBoard's HParams plugin
    :ivar is_whole: whether these are all records of the file
    """

    tags: frozenset[str]
    n_points: int
    has_hparams: bool
    is_whole: bool


def scalars_at_begin(path: Path, n_bytes: int = 1 << 16) -> Begin | None:
    """Read the first records of an event file, and leave the rest unread.

    :param path: path of the file
    :param n_bytes: number of bytes to read
    :return: the content; None if the file is not an event file, or cannot be read
    """
    try:
        with open_regular(path) as stream:
            content = stream.read(n_bytes)
            size = os.fstat(stream.fileno()).st_size
        frames = _frames(content)
        events = [event_pb2.Event.FromString(record) for record in frames.records]
    except (OSError, DecodeError):
        return None
    if not events:
        return None
    names, n_points, has_hparams = set(), 0, False
    for value in (value for event in events for value in event.summary.value):
        if scalar(value) is not None:
            names.add(value.tag)
            n_points += 1
        has_hparams |= value.metadata.plugin_data.plugin_name == "hparams"
    return Begin(frozenset(names), n_points, has_hparams, size <= n_bytes)


def scalar(value: Any) -> float | None:
    """Return the number that a summary's value holds; None for images, histograms, texts and vectors.

    :param value: a ``Summary.Value``
    """
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
    """Read step, wall time and the small values of a long record, one value at a time to save memory.

    :param record: an Event in protobuf's wire format, https://protobuf.dev/programming-guides/encoding
    :return: step, wall time in seconds, and an iterator over the values that take at most ``MAX_SCALAR_BYTES`` each
    :raises DecodeError: if the record is not in that format, or has more than ``MAX_VALUES`` values
    """
    step, wall_time = 0, 0.0
    places = array("Q")
    # In event.proto, field 1 is wall_time (double), 2 is step (int64), 5 is summary; field 1 of a summary is its
    # values.
    for field_number, kind, begin, end in _fields(record, 0, len(record)):
        if (field_number, kind) == (1, _FIXED_64):
            (wall_time,) = struct.unpack_from("<d", record, begin)
        elif (field_number, kind) == (2, _VARINT):
            number, _ = _varint(record, begin, end)
            step = (number + (1 << 63)) % (1 << 64) - (1 << 63)  # negative steps are stored as two's complement
        elif (field_number, kind) == (5, _BYTES):
            for inner, inner_kind, at, to in _fields(record, begin, end):
                if (inner, inner_kind) == (1, _BYTES) and to <= at + MAX_SCALAR_BYTES:
                    if len(places) >= 2 * MAX_VALUES:
                        raise DecodeError(
                            f"the record is damaged or not an event: it holds more than {MAX_VALUES:,} values"
                        )
                    places.append(at)
                    places.append(to)
    parse = summary_pb2.Summary.Value.FromString
    values = (parse(bytes(record[places[i] : places[i + 1]])) for i in range(0, len(places), 2))
    return step, wall_time, values


_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5


def _fields(data: memoryview, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield the number, the wire type, the start and the end of each field of a protobuf message."""
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
            raise DecodeError(f"not a protobuf message: a field has wire type {kind}; expected 0, 1, 2 or 5")
        if at > end or not key >> 3:
            raise DecodeError("not a protobuf message: a field has the number 0, or extends beyond the message")
        yield key >> 3, kind, begin, at


def _varint(data: memoryview, at: int, end: int) -> tuple[int, int]:
    """Decode a varint of protobuf that begins at index ``at``; return the integer and the index after the varint."""
    number = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
    raise DecodeError("not a protobuf message: an integer is cut off, or longer than 10 bytes")
