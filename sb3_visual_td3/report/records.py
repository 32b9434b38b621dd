"""The framing of an event file: length, checksum, bytes, checksum, without TensorFlow.

Source: the TFRecord format, https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from functools import lru_cache
from io import FileIO
from pathlib import Path
from typing import NamedTuple

import google_crc32c

from sb3_visual_td3.common.input_files import open_regular

MAX_RECORD_BYTES = 64 << 20
"""A record that is longer is left out: scalars take a few hundred bytes, a picture some megabytes."""

READ_BYTES = 1 << 20
"""Bytes that are read at once, and a batch of records has about as many; a longer record is a batch of its own."""

TAIL_BYTES = 256
_HEADER = struct.Struct("<QI")
FOOTER_BYTES = 4
FRAME_BYTES = _HEADER.size + FOOTER_BYTES
"""What a record takes beside its own bytes."""


class DamagedRecordError(ValueError):
    """The file ends, or is damaged, within a record; what came before is whole.

    :param n_whole: records read before.
    :param offset: byte at which the damaged record begins.
    """

    def __init__(self, reason: str, n_whole: int, offset: int) -> None:
        super().__init__(f"{reason} at byte {offset:,}, after {n_whole:,} whole records")
        self.reason = reason
        self.n_whole = n_whole
        self.offset = offset

    @property
    def is_cut_off(self) -> bool:
        """Whether the file merely ends too soon: of one that grows, the rest is still to come."""
        return self.reason == CUT_OFF


CUT_OFF, DAMAGED = "cut off", "damaged"


class Batch(NamedTuple):
    """Records that follow each other in a file.

    :ivar records: their bytes; a record of more than ``MAX_RECORD_BYTES`` is not among them.
    :ivar n_whole: how many records they are, with one that was left out.
    :ivar n_bytes: what they take in the file.
    :ivar tail: the last bytes of the last record.
    """

    records: list[bytes | bytearray]
    n_whole: int
    n_bytes: int
    tail: bytes


def read_records(path: Path, offset: int = 0, n_whole: int = 0) -> Iterator[Batch]:
    """Yield the records of a file in order, some thousands at a time, each held against its checksum.

    A record of more than ``MAX_RECORD_BYTES`` is skipped without a look at it. The memory that is taken is that of a
    batch, or of one long record.

    :param offset: where to begin, the end of a record.
    :param n_whole: records before it, for messages.
    :raises DamagedRecordError: after the last whole record, where the file does not end with one.
    :raises OSError: if the file is not a regular file or cannot be read.
    """
    with open_regular(path) as stream:
        stream.seek(offset)
        buffer = b""
        while chunk := stream.read(READ_BYTES):
            buffer += chunk
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
            if frames.n_missing > READ_BYTES:
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
    """Read the rest of a record into one buffer, or skip it where it is too long; None if its checksum is wrong.

    :param begin: what has been read of it, from its header on.
    :param offset: where it begins in the file.
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
        if not piece:  # cut while it was read
            return None
        record += piece
    told = int.from_bytes(record[length:], "little")
    del record[length:]
    if told != masked_crc32c(record):
        return None
    return Batch([record], 1, n_bytes, bytes(record[-TAIL_BYTES:]))


class _Frames(NamedTuple):
    """The records of a buffer.

    :ivar n_bytes: what they take.
    :ivar is_damaged: whether what comes after them is no record, whatever follows.
    :ivar n_missing: bytes that the record after them still needs.
    """

    records: list[bytes | bytearray]
    n_bytes: int
    is_damaged: bool
    n_missing: int


def _frames(buffer: bytes) -> _Frames:
    records: list[bytes | bytearray] = []
    at, size = 0, len(buffer)
    while at + _HEADER.size <= size:
        length, checksum = _HEADER.unpack_from(buffer, at)
        if checksum != _length_checksum(length):
            return _Frames(records, at, True, 0)
        begin = at + _HEADER.size
        end = begin + length
        if end + FOOTER_BYTES > size:
            return _Frames(records, at, False, end + FOOTER_BYTES - size)
        record = buffer[begin:end]
        if int.from_bytes(buffer[end : end + FOOTER_BYTES], "little") != _masked(google_crc32c.value(record)):
            return _Frames(records, at, True, 0)
        records.append(record)
        at = end + FOOTER_BYTES
    return _Frames(records, at, False, 0)


@lru_cache(maxsize=4096)
def _length_checksum(length: int) -> int:
    return masked_crc32c(length.to_bytes(8, "little"))


def masked_crc32c(data: bytes | bytearray) -> int:
    """Return the CRC-32C of bytes, masked as TFRecord files have it.

    :param data: of any length; it is not copied as a whole.
    """
    checksum, view = 0, memoryview(data)
    for at in range(0, len(data), READ_BYTES):
        checksum = google_crc32c.extend(checksum, bytes(view[at : at + READ_BYTES]))
    return _masked(checksum)


def _masked(checksum: int) -> int:
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF
