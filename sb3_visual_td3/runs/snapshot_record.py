"""snapshot.json: what a snapshot consists of, and how each part is known to be whole."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np

from sb3_visual_td3.runs.durable_files import FileDigest
from sb3_visual_td3.runs.object_store import is_digest
from sb3_visual_td3.runs.snapshot_health import Health
from sb3_visual_td3.runs.state_tree import ARRAY_KINDS

FORMAT = "sb3_visual_td3 snapshot"
FORMAT_VERSION = 1
RECORD_NAME = "snapshot.json"
SMALL_ARRAYS_NAME = "arrays.bin"
MAX_CHUNK_BYTES = 64 << 20
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_. -]*")


def is_file_name(name: object) -> bool:
    """:return: whether it names a file in the snapshot's own folder, and can name no other"""
    return isinstance(name, str) and _FILE_NAME.fullmatch(name) is not None and name != RECORD_NAME


class ArrayRecord(NamedTuple):
    """Where an array is: in the snapshot's file of small arrays from ``offset`` on, or else in chunks.

    ``path`` is its place in the state, for whoever reads the file.
    """

    path: str
    dtype: str
    shape: tuple[int, ...]
    offset: int | None
    chunk_bytes: int
    chunks: tuple[str, ...]

    @property
    def n_bytes(self) -> int:
        """Of its numbers."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def n_bytes_of_chunks(self) -> Iterator[tuple[str, int]]:
        """:return: each chunk and its length"""
        for index, chunk in enumerate(self.chunks):
            yield chunk, min(self.chunk_bytes, self.n_bytes - index * self.chunk_bytes)


@dataclass(frozen=True)
class SnapshotRecord:
    """The content of snapshot.json.

    :param step: environment steps
    :param serial: one more than that of any snapshot that was there: what is newest does not hang on clocks, nor on
        steps, which a run that went back to an older snapshot counts again
    :param created: ISO 8601 time, with its offset
    :param versions: package name to version
    :param state: the tree without its arrays, see :mod:`~sb3_visual_td3.runs.state_tree`
    :param arrays: in the tree's order
    :param files: every other file in the folder
    :param health: of the training, as far as it is known by now; None where nobody judged
    """

    step: int
    serial: int
    created: str
    versions: Mapping[str, str]
    state: Mapping[str, Any]
    arrays: tuple[ArrayRecord, ...]
    files: Mapping[str, FileDigest]
    health: Health | None = None

    @property
    def chunks(self) -> dict[str, int]:
        """Every chunk's name, and its length."""
        return dict(chunk for array in self.arrays for chunk in array.n_bytes_of_chunks())

    @property
    def n_bytes(self) -> int:
        """Of all files and chunks, this record left out."""
        return sum(self.chunks.values()) + sum(file.n_bytes for file in self.files.values())

    def to_bytes(self) -> bytes:
        """:return: the file's content, with its own digest as the last key"""
        content = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "step": self.step,
            "serial": self.serial,
            "created": self.created,
            "versions": dict(self.versions),
            "state": self.state,
            "arrays": [array._asdict() for array in self.arrays],
            "files": {name: file._asdict() for name, file in self.files.items()},
            "health": None if self.health is None else self.health._asdict(),
        }
        return _encode({**content, "sha256": hashlib.sha256(_encode(content)).hexdigest()})

    @classmethod
    def from_bytes(cls, content: bytes) -> SnapshotRecord:
        """Read the file's content; nothing in it is believed before it is checked.

        :raises ValueError: with a reason that goes on after the file's name: "is damaged (...)"
        """
        try:
            read = json.loads(content.decode("utf-8", "surrogatepass"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"is damaged (not JSON: {error})") from error
        if not isinstance(read, dict) or read.get("format") != FORMAT:
            raise ValueError("is no snapshot's record but some other JSON")
        if read.get("format_version") != FORMAT_VERSION:
            raise ValueError(f"has format_version {read.get('format_version')!r}; this version reads {FORMAT_VERSION}")
        digest = read.pop("sha256", None)
        try:
            if digest != hashlib.sha256(_encode(read)).hexdigest():
                raise ValueError("digest differs")
        except (ValueError, RecursionError) as error:
            raise ValueError(f"is damaged ({error})") from error
        try:
            return cls._checked(read)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ValueError(f"is no record that this version wrote ({type(error).__name__}: {error})") from error

    @classmethod
    def _checked(cls, read: dict[str, Any]) -> SnapshotRecord:
        files: dict[str, FileDigest] = {}
        for name, file in read["files"].items():
            if not is_file_name(name) or not is_digest(file["sha256"]):
                raise ValueError(f"{name!r} is no file's name, or its digest is none")
            files[name] = FileDigest(_count(file["n_bytes"]), file["sha256"])
        if SMALL_ARRAYS_NAME not in files:
            raise ValueError(f"{SMALL_ARRAYS_NAME} is not listed")
        arrays = tuple(_checked_array(array, files[SMALL_ARRAYS_NAME].n_bytes) for array in read["arrays"])
        texts = [read["created"], *read["versions"].keys(), *read["versions"].values()]
        if not isinstance(read["state"], dict) or not all(isinstance(text, str) for text in texts):
            raise ValueError("state, created or versions is of another type")
        return cls(
            step=_count(read["step"]),
            serial=_count(read["serial"]),
            created=read["created"],
            versions=read["versions"],
            state=read["state"],
            arrays=arrays,
            files=files,
            health=Health.from_record(read.get("health")),  # older records have none
        )


def _encode(content: Mapping[str, Any]) -> bytes:
    # Surrogates are kept as they are: as \u escapes, two neighbours would come back as one letter.
    return json.dumps(content, ensure_ascii=False, allow_nan=False).encode("utf-8", "surrogatepass")


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value


def _checked_array(read: dict[str, Any], n_bytes_small: int) -> ArrayRecord:
    dtype = np.dtype(cast("str", read["dtype"]))
    array = ArrayRecord(
        path=str(read["path"]),
        dtype=dtype.str,
        shape=tuple(_count(length) for length in read["shape"]),
        offset=None if read["offset"] is None else _count(read["offset"]),
        chunk_bytes=_count(read["chunk_bytes"]),
        chunks=tuple(read["chunks"]),
    )
    if not isinstance(read["dtype"], str) or dtype.kind not in ARRAY_KINDS:
        raise ValueError(f"{array.path} is an array of {dtype}")
    if array.offset is not None:
        if array.chunks or array.offset + array.n_bytes > n_bytes_small:
            raise ValueError(f"{array.path} is not where it is said to be")
    elif (
        not 0 < array.chunk_bytes <= MAX_CHUNK_BYTES
        or array.chunk_bytes % dtype.itemsize
        or len(array.chunks) != -(-array.n_bytes // array.chunk_bytes)
        or not all(is_digest(chunk) for chunk in array.chunks)
    ):
        raise ValueError(f"{array.path} is not in chunks as it is said to be")
    return array
