"""One snapshot: the record of its files and digests, whether the run was healthy, and reading and writing it."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.common.input_files import open_regular
from sb3_visual_td3.common.saved_state import AnyArray
from sb3_visual_td3.runs.durable_files import FileDigest, bytes_of, digest_of, read_fully, sync_folder, write_durably
from sb3_visual_td3.runs.object_store import ChunkedArray, ObjectStore, is_digest
from sb3_visual_td3.runs.snapshot_error import SnapshotError
from sb3_visual_td3.runs.state_tree import ARRAY_KINDS, join


class Health(NamedTuple):
    """What is known of the training in a snapshot.

    :ivar is_healthy: no critical alert lasted, and none that began later had begun to show by then
    :ivar n_updates: gradient updates made
    :ivar n_in_doubt: how many updates an alert that begins later may reach back
    """

    is_healthy: bool
    n_updates: int
    n_in_doubt: int

    @classmethod
    def from_record(cls, read: Mapping[str, Any] | None) -> Health | None:
        """:return: what a record says; None where it was not judged

        :raises ValueError: if it is something else
        """
        if read is None:
            return None
        health = cls(**read)
        if type(health.is_healthy) is not bool or any(type(n) is not int or n < 0 for n in health[1:]):
            raise ValueError(f"{dict(read)} is no health")
        return health


def word_for(health: Health | None) -> str:
    """:return: for a list of snapshots"""
    if health is None:
        return "not judged"
    return "healthy" if health.is_healthy else "unhealthy"


def to_spare(healths: Sequence[Health | None]) -> set[int]:
    """Choose the snapshots that stay, however old, so that there is always a healthy one to go back to.

    They are the newest healthy one beyond doubt, the one that will be so next, and the newest healthy one of all where
    a later one is unhealthy.

    :param healths: of all snapshots, oldest first; None where it was not judged
    :return: their places
    """
    healthy = [(place, health) for place, health in enumerate(healths) if health is not None and health.is_healthy]
    if not healthy:
        return set()
    newest = healths[-1]
    settled = [
        place for place, health in healthy if newest is None or health.n_updates + newest.n_in_doubt <= newest.n_updates
    ]
    waiting = [(-health.n_updates, place) for place, health in healthy if place > max(settled, default=-1)]
    last_healthy, _ = healthy[-1]
    spared = {*settled[-1:], *([max(waiting)[1]] if waiting else [])}
    is_followed = any(health is not None for health in healths[last_healthy + 1 :])
    return spared | {last_healthy} if is_followed else spared


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
    :param health: of the training, as far as it is known by now; None where it was not judged
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


@dataclass(frozen=True)
class Snapshot:
    """A snapshot that was whole when it was loaded.

    :param path: its folder
    :param step: environment steps
    :param created: ISO 8601 time, with its offset
    :param versions: package name to version, as saved
    :param state: the tree as saved; small arrays as ndarrays, large ones as
        :class:`~sb3_visual_td3.common.saved_state.StoredArray`
    :param skipped: why newer ones were passed over, one line each
    :param health: of the training, as far as it was known when the snapshot was loaded; None where it was not judged
    """

    path: Path
    step: int
    created: str
    versions: Mapping[str, str]
    state: dict[str, Any]
    skipped: list[str] = field(default_factory=list)
    file_names: tuple[str, ...] = ()
    health: Health | None = None

    def file(self, name: str) -> Path:
        """:param name: as given to ``save``

        :return: where the file is
        :raises ValueError: if there is none of that name
        """
        if name not in self.file_names:
            raise ValueError(f"{self.path}: no file {name!r}; there are {', '.join(self.file_names) or 'none'}")
        return self.path / name


def read_record(folder: Path) -> SnapshotRecord:
    """Read what a snapshot consists of; its parts are not looked at.

    :param folder: of the snapshot
    :return: its record
    :raises SnapshotError: if it is missing, damaged, foreign or cannot be read
    """
    try:
        with open_regular(folder / RECORD_NAME) as stream:
            return SnapshotRecord.from_bytes(stream.read())
    except (FileNotFoundError, NotADirectoryError):
        raise SnapshotError(f"it is no snapshot: {RECORD_NAME} is missing") from None
    except OSError as error:
        raise SnapshotError(f"{RECORD_NAME} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise SnapshotError(f"{RECORD_NAME} {error}") from error


def rewrite_record(folder: Path, record: SnapshotRecord) -> None:
    """Put a record in the place of the one that is there; a reader sees the one or the other.

    :param folder: of the snapshot
    :param record: what is known of it now
    :raises OSError: as the operating system says; the old record stays
    """
    begun = folder / f".{RECORD_NAME}"
    begun.unlink(missing_ok=True)
    write_durably(begun, [memoryview(record.to_bytes())])
    os.replace(begun, folder / RECORD_NAME)
    sync_folder(folder)


def load_snapshot(
    folder: Path, record: SnapshotRecord, objects: ObjectStore, with_large_arrays: bool = True
) -> Snapshot:
    """Check every file and every chunk, then read all but the large arrays.

    :param folder: of the snapshot
    :param record: its record
    :param objects: where its chunks are
    :param with_large_arrays: whether the large arrays will be read: if not, they are not checked
    :return: the snapshot
    :raises SnapshotError: if a part is missing, damaged or cannot be read; the message names the part
    """
    _check_files(folder, record)
    if with_large_arrays:
        _check_chunks(record, objects)
    try:
        arrays = [_array(array, folder, objects) for array in record.arrays]
        state = join(record.state, arrays)
    except OSError as error:
        raise SnapshotError(f"{SMALL_ARRAYS_NAME} cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise SnapshotError(f"{RECORD_NAME} is no record that this version wrote ({error})") from error
    return Snapshot(
        path=folder,
        step=record.step,
        created=record.created,
        versions=record.versions,
        state=state,
        file_names=tuple(name for name in record.files if name != SMALL_ARRAYS_NAME),
        health=record.health,
    )


def _check_files(folder: Path, record: SnapshotRecord) -> None:
    for name, expected in record.files.items():
        try:
            found = digest_of(folder / name)
        except FileNotFoundError:
            raise SnapshotError(f"{name} is missing") from None
        except OSError as error:
            raise SnapshotError(f"{name} cannot be read ({error.strerror})") from error
        if found.n_bytes != expected.n_bytes:
            raise SnapshotError(f"{name} is damaged (it has {found.n_bytes} bytes, not {expected.n_bytes})")
        if found != expected:
            raise SnapshotError(f"{name} is damaged (digest differs)")


def _check_chunks(record: SnapshotRecord, objects: ObjectStore) -> None:
    chunks = record.chunks
    buffer = memoryview(bytearray(max(chunks.values(), default=0)))
    for digest, n_bytes in chunks.items():
        objects.read_into(digest, buffer[:n_bytes])


def _array(array: ArrayRecord, folder: Path, objects: ObjectStore) -> AnyArray:
    dtype = np.dtype(array.dtype)
    if array.offset is None:
        return ChunkedArray(array.shape, dtype, array.chunk_bytes, array.chunks, objects)
    read: NDArray[Any] = np.empty(array.shape, dtype)
    if not read_fully(folder / SMALL_ARRAYS_NAME, bytes_of(read), array.offset):
        raise SnapshotError(f"{SMALL_ARRAYS_NAME} is damaged (it ends within {array.path})")
    return read
