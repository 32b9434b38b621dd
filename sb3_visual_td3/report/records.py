"""The framing of an event file: length, checksum, bytes, checksum, without TensorFlow.

Source: the TFRecord format, https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from tensorboard.compat.tensorflow_stub import pywrap_tensorflow

from sb3_visual_td3.common.input_files import open_regular
from sb3_visual_td3.report.checksums import masked_crc32c

MAX_RECORD_BYTES = 1 << 30
"""A length beyond this is a damaged header, not a record."""

READ_BYTES = 1 << 20
"""Bytes of one batch; more where a single record is longer."""

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


def read_records(path: Path, offset: int = 0, n_whole: int = 0) -> Iterator[list[bytes]]:
    """Yield the records of a file in order, some thousands at a time, each held against its checksum.

    :param offset: where to begin, the end of a record.
    :param n_whole: records before it, for messages.
    :raises DamagedRecordError: after the last whole record, where the file does not end with one.
    :raises OSError: if the file cannot be read.
    """
    with open_regular(path) as stream:
        stream.seek(offset)
        buffer, n_wanted = b"", READ_BYTES
        while True:
            chunk = stream.read(n_wanted)
            buffer += chunk
            frames = _frames(buffer)
            n_good = _n_undamaged(buffer, frames)
            records = [buffer[begin:end] for begin, end in zip(frames.begins[:n_good], frames.ends, strict=False)]
            if records:
                yield records
            n_whole += n_good
            n_used = frames.ends[n_good - 1] + FOOTER_BYTES if n_good else 0
            offset += n_used
            buffer = buffer[n_used:]
            if frames.is_damaged or n_good < len(frames.ends):
                raise DamagedRecordError(DAMAGED, n_whole, offset)
            if not chunk:
                break
            n_left = os.fstat(stream.fileno()).st_size - offset - len(buffer)
            n_wanted = max(READ_BYTES, min(frames.n_missing, n_left))
    if buffer:
        raise DamagedRecordError(CUT_OFF, n_whole, offset)


class _Frames(NamedTuple):
    """Where the records of a buffer lie.

    :ivar is_damaged: whether the header after the last one is no header.
    :ivar n_missing: bytes that the record after the last one still needs.
    """

    begins: list[int]
    ends: list[int]
    is_damaged: bool
    n_missing: int


def _frames(buffer: bytes) -> _Frames:
    begins: list[int] = []
    ends: list[int] = []
    at, size = 0, len(buffer)
    while at + _HEADER.size <= size:
        length, checksum = _HEADER.unpack_from(buffer, at)
        if checksum != _length_checksum(length) or length > MAX_RECORD_BYTES:
            return _Frames(begins, ends, True, 0)
        begin = at + _HEADER.size
        at = begin + length + FOOTER_BYTES
        if at > size:
            return _Frames(begins, ends, False, at - size)
        begins.append(begin)
        ends.append(begin + length)
    return _Frames(begins, ends, False, 0)


@lru_cache(maxsize=4096)
def _length_checksum(length: int) -> int:
    return int(pywrap_tensorflow.masked_crc32c(length.to_bytes(8, "little")))


def _n_undamaged(buffer: bytes, frames: _Frames) -> int:
    """Return how many of the records come before the first whose checksum does not hold."""
    if not frames.ends:
        return 0
    data: npt.NDArray[np.uint8] = np.frombuffer(buffer, dtype=np.uint8)
    begins, ends = np.array(frames.begins), np.array(frames.ends)
    told = np.ascontiguousarray(data[ends[:, None] + np.arange(FOOTER_BYTES)]).view("<u4")[:, 0]
    wrong = np.flatnonzero(masked_crc32c(data, begins, ends) != told)
    return int(wrong[0]) if wrong.size else len(frames.ends)
