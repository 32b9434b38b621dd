"""The framing of an event file: length, checksum, bytes, checksum, without TensorFlow.

Source: the TFRecord format, https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

MAX_RECORD_BYTES = 1 << 30
"""A length beyond this is a damaged header, not a record."""

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")


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


def read_records(path: Path, on_bytes: Callable[[int], None] | None = None) -> Iterator[bytes]:
    """Yield the records of a file, in order.

    :param on_bytes: called with the number of bytes of each record, for a progress bar.
    :raises DamagedRecordError: after the last whole record, where the file does not end with one.
    :raises OSError: if the file cannot be read.
    """
    with path.open("rb") as stream:
        n_whole, offset = 0, 0
        while True:
            record = _read_one(stream, n_whole, offset)
            if record is None:
                return
            n_bytes = _HEADER.size + len(record) + _FOOTER.size
            n_whole, offset = n_whole + 1, offset + n_bytes
            if on_bytes is not None:
                on_bytes(n_bytes)
            yield record


def _read_one(stream: BinaryIO, n_whole: int, offset: int) -> bytes | None:
    header = stream.read(_HEADER.size)
    if not header:
        return None
    if len(header) < _HEADER.size:
        raise DamagedRecordError("cut off", n_whole, offset)
    length, header_checksum = _HEADER.unpack(header)
    if masked_crc32c(header[:8]) != header_checksum or length > MAX_RECORD_BYTES:
        raise DamagedRecordError("damaged", n_whole, offset)
    body = stream.read(length)
    footer = stream.read(_FOOTER.size)
    if len(body) < length or len(footer) < _FOOTER.size:
        raise DamagedRecordError("cut off", n_whole, offset)
    if masked_crc32c(body) != _FOOTER.unpack(footer)[0]:
        raise DamagedRecordError("damaged", n_whole, offset)
    return bytes(body)
