"""Define a snapshot's format: the state as JSON and arrays, the health of the training, and ``snapshot.json``.

A state is a tree of plain data (see :class:`~sb3_visual_td3.common.types.HasState`), so a file from another person
cannot execute code. :mod:`~sb3_visual_td3.runs.object_store` stores its large arrays.

In the JSON, an object with one key that starts with ``$`` is a marker: ``{"$array": 3}`` stands for the fourth array,
``$int`` for an integer beyond 64 bits, ``$float`` for the bits of a NaN or an infinity. If a dict of the state has a
key that starts with ``$``, this dict is written as ``{"$dict": {...}}``.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.common.errors import in_one_line
from sb3_visual_td3.common.input_files import open_regular
from sb3_visual_td3.common.saved_state import AnyArray
from sb3_visual_td3.runs.durable_files import FileDigest, sync_folder, write_durably


class SnapshotError(ValueError):
    """Report that a snapshot could not be written, or that it is incomplete or damaged."""


class NoSnapshotError(SnapshotError):
    """Report that a run has no snapshot."""


@contextmanager
def describing_errors(what: str) -> Iterator[None]:
    """Convert any error about the content of a snapshot into a SnapshotError with one line of text.

    A snapshot of another version of the package may cause any exception.

    :param what: text with which the line begins, such as "PATH cannot be resumed"
    :raises SnapshotError: instead of any other error
    """
    try:
        yield
    except (ValueError, MemoryError, OSError) as error:
        raise SnapshotError(f"{what}: {error or type(error).__name__}") from error
    except (LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError, AssertionError) as error:
        reason = in_one_line(error)
        raise SnapshotError(
            f"{what}: this version of sb3_visual_td3 cannot read the saved state ({type(error).__name__}: {reason}); "
            "use the version that wrote the snapshot"
        ) from error


# The state as JSON and arrays

MAX_DEPTH = 100
"""Deepest nesting of a state. This limit refuses a state that contains itself, and a state that is too deep for JSON
readers."""
ARRAY_KINDS = "biuf"
"""NumPy's letters for bool, int, unsigned int and float: the dtypes that a snapshot accepts."""
_MARKER = "$"
_ALLOWED = (
    "a state holds None, booleans, numbers, strings, NumPy arrays of numbers, and lists and dicts (with string keys) "
    "of these; save the values from which the object can be created instead"
)

TreePath = tuple[str, ...]


class NamedArray(NamedTuple):
    """Hold an array and its path in the state, such as ``replay_buffer.actions``."""

    path: str
    array: NDArray[Any]


class SplitTree(NamedTuple):
    """Hold a state in two parts: the arrays, and ``plain`` for everything else, as JSON without NaN and infinity."""

    plain: dict[str, Any]
    arrays: list[NamedArray]


def split(state: Mapping[str, Any]) -> SplitTree:
    """Separate a state into JSON and arrays, without copying the arrays.

    :param state: a state as :class:`~sb3_visual_td3.common.types.HasState` describes it; tuples become lists, and NumPy
        scalars become Python numbers
    :raises ValueError: if the state holds a value that HasState does not allow, or is nested deeper than ``MAX_DEPTH``
    """
    if not isinstance(state, Mapping):
        raise ValueError(f"the state is of type {type(state).__name__}: expected a dict with string keys")
    arrays: list[NamedArray] = []
    return SplitTree(_plain_dict(state, (), arrays), arrays)


def join(plain: Any, arrays: Sequence[AnyArray]) -> Any:
    """Rebuild a state from the two parts that :func:`split` returned.

    :param plain: the JSON part
    :param arrays: the arrays in the order of :func:`split`
    :raises ValueError: if ``plain`` has a marker that :func:`split` never writes
    """
    if isinstance(plain, list):
        return [join(value, arrays) for value in plain]
    if not isinstance(plain, dict):
        return plain
    if not any(key.startswith(_MARKER) for key in plain):
        return {key: join(value, arrays) for key, value in plain.items()}
    if len(plain) == 1:
        ((marker, content),) = plain.items()
        if marker == "$array" and type(content) is int and 0 <= content < len(arrays):
            return arrays[content]
        if marker == "$dict" and isinstance(content, dict):
            return {key: join(value, arrays) for key, value in content.items()}
        if marker in _FROM_TEXT and isinstance(content, str):
            return _FROM_TEXT[marker](content)
    raise ValueError(
        f"the snapshot stores a value as a mapping with {', '.join(plain)}, a form that this version does not know: "
        "use the version of sb3_visual_td3 that wrote the snapshot"
    )


def _plain(value: Any, path: TreePath, arrays: list[NamedArray]) -> Any:
    if len(path) > MAX_DEPTH:
        raise ValueError(
            f"{'.'.join(path[:5])}... is nested more than {MAX_DEPTH} levels deep: a state must not contain itself"
        )
    if isinstance(value, np.ndarray):
        return _marked_array(value, path, arrays)
    if isinstance(value, Mapping):
        return _plain_dict(value, path, arrays)
    if isinstance(value, list | tuple):
        return [_plain(part, (*path, str(index)), arrays) for index, part in enumerate(value)]
    return _plain_scalar(value, path)


def _plain_scalar(value: Any, path: TreePath) -> Any:
    if isinstance(value, np.generic) and value.dtype.kind in ARRAY_KINDS and value.dtype.itemsize <= 8:
        value = value.item()
    if value is None or isinstance(value, bool):
        return value
    # int(), float() and str.__str__ turn instances of subclasses, such as IntEnum, into plain values.
    if isinstance(value, int):
        # Some JSON readers round longer integers, and Python refuses to print more than 4,300 digits.
        if -(2**63) <= value < 2**63:
            return int(value)
        return {"$int": hex(value)}
    if isinstance(value, float):
        # JSON has no NaN and no infinity. The bits also preserve the payload and the sign of a NaN.
        if math.isfinite(value):
            return float(value)
        return {"$float": struct.pack(">d", value).hex()}
    if isinstance(value, str):
        return str.__str__(value)
    # For a function or a class, the message also has its name: "is a function act" for a function ``act``.
    kind = f"{type(value).__name__} {getattr(value, '__name__', '')}".strip()
    raise ValueError(f"{'.'.join(path)} is a {kind}: {_ALLOWED}")


def _plain_dict(value: Mapping[Any, Any], path: TreePath, arrays: list[NamedArray]) -> dict[str, Any]:
    for key in value:
        if not isinstance(key, str):
            place = ".".join(path) or "the state"
            raise ValueError(f"{place} has the key {key!r} ({type(key).__name__}): {_ALLOWED}")
    plain = {str.__str__(key): _plain(part, (*path, key), arrays) for key, part in value.items()}
    if any(key.startswith(_MARKER) for key in plain):
        return {"$dict": plain}
    return plain


def _marked_array(value: NDArray[Any], path: TreePath, arrays: list[NamedArray]) -> dict[str, int]:
    if isinstance(value, np.ma.MaskedArray):
        raise ValueError(f"{'.'.join(path)} is a masked array: {_ALLOWED}")
    if value.dtype.kind not in ARRAY_KINDS:
        raise ValueError(f"{'.'.join(path)} is an array of {value.dtype}: {_ALLOWED}")
    arrays.append(NamedArray(".".join(path), np.asarray(value)))
    return {"$array": len(arrays) - 1}


def _float_from_bits(bits: str) -> float:
    try:
        number: float = struct.unpack(">d", bytes.fromhex(bits))[0]
    except (ValueError, struct.error) as error:  # not hexadecimal, or not eight bytes
        raise ValueError(
            f"a saved number is {{'$float': {bits!r}}}: expected 16 hexadecimal digits. The snapshot is damaged; "
            "resume from another one"
        ) from error
    return number


def _int_from_hex(digits: str) -> int:
    try:
        return int(digits, 16)
    except ValueError as error:
        raise ValueError(
            f"a saved number is {{'$int': {digits!r}}}: expected hexadecimal digits. The snapshot is damaged; "
            "resume from another one"
        ) from error


_FROM_TEXT: dict[str, Callable[[str], Any]] = {"$int": _int_from_hex, "$float": _float_from_bits}


# The health of the training, and the snapshots that are kept for a rollback


class Health(NamedTuple):
    """Describe whether the training was healthy when a snapshot was taken.

    :ivar is_healthy: False if a critical alert was active or had ended shortly before, or if a later alert marked this
        snapshot as unhealthy
    :ivar n_updates: number of gradient updates made
    :ivar n_in_doubt: an alert within this many further updates may mark the snapshot as unhealthy
    """

    is_healthy: bool
    n_updates: int
    n_in_doubt: int

    @classmethod
    def from_record(cls, read: Mapping[str, Any] | None) -> Health | None:
        """Return the health that is stored in a record; None if the training was not judged.

        :param read: value of the record's key ``health``
        :raises ValueError: if the value is not a valid health
        """
        if read is None:
            return None
        health = cls(**read)
        if type(health.is_healthy) is not bool or any(type(n) is not int or n < 0 for n in health[1:]):
            raise ValueError(
                f"health is {dict(read)}: expected is_healthy (bool), n_updates and n_in_doubt (integers >= 0)"
            )
        return health


def health_label(health: Health | None) -> str:
    """Return the word that describes a snapshot's health to the user: "healthy", "unhealthy" or "not judged"."""
    if health is None:
        return "not judged"
    return "healthy" if health.is_healthy else "unhealthy"


def kept_for_rollback(healths: Sequence[Health | None]) -> set[int]:
    """Choose the healthy snapshots that are kept for a rollback, whatever their age.

    A snapshot that is still healthy after ``n_in_doubt`` further updates is confirmed. Up to three snapshots are kept:

    - the newest confirmed snapshot
    - the healthy snapshot that will be confirmed next
    - the newest healthy snapshot, if an unhealthy snapshot follows

    :param healths: health of all snapshots, oldest first; None for a snapshot that was not judged
    :return: indices of the snapshots to keep
    """
    healthy = [(place, health) for place, health in enumerate(healths) if health is not None and health.is_healthy]
    if not healthy:
        return set()
    # The ``n_in_doubt`` of the newest snapshot applies to later alerts. If the newest snapshot was not judged, the run
    # no longer has alerts, so all healthy snapshots are confirmed.
    newest = healths[-1]
    settled = [
        place for place, health in healthy if newest is None or health.n_updates + newest.n_in_doubt <= newest.n_updates
    ]
    kept = set(settled[-1:])
    # Of the healthy snapshots after the confirmed ones, the one with the fewest updates will be confirmed next. If
    # several have the same number of updates, as during the warm-up, the latest of them is kept.
    waiting = [(health.n_updates, -place) for place, health in healthy if place > max(settled, default=-1)]
    if waiting:
        _, minus_place = min(waiting)
        kept.add(-minus_place)
    last_healthy, _ = healthy[-1]
    if any(health is not None for health in healths[last_healthy + 1 :]):
        kept.add(last_healthy)
    return kept


# snapshot.json: the record of a snapshot, which lists its parts

FORMAT = "sb3_visual_td3 snapshot"
FORMAT_VERSION = 1
RECORD_NAME = "snapshot.json"
SMALL_ARRAYS_NAME = "arrays.bin"
MAX_CHUNK_BYTES = 64 << 20
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_. -]*")
_DIGEST = re.compile("[0-9a-f]{64}")


def is_file_name(name: object) -> bool:
    """Return whether a file of a snapshot may have this name; ``snapshot.json`` is reserved for the list of parts."""
    return isinstance(name, str) and _FILE_NAME.fullmatch(name) is not None and name != RECORD_NAME


def is_digest(name: object) -> bool:
    """Return whether a value can be the name of a chunk; other values must not become part of a path."""
    return isinstance(name, str) and _DIGEST.fullmatch(name) is not None


class ArrayRecord(NamedTuple):
    """Say where an array is stored: at ``offset`` in the file of small arrays, or in chunks if ``offset`` is None.

    ``path`` is the array's path in the state.
    """

    path: str
    dtype: str
    shape: tuple[int, ...]
    offset: int | None
    chunk_bytes: int
    chunks: tuple[str, ...]

    @property
    def n_bytes(self) -> int:
        """Return the size of the array in bytes."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def n_bytes_of_chunks(self) -> Iterator[tuple[str, int]]:
        """Yield the name and the size of each chunk."""
        for index, chunk in enumerate(self.chunks):
            yield chunk, min(self.chunk_bytes, self.n_bytes - index * self.chunk_bytes)


@dataclass(frozen=True)
class SnapshotRecord:
    """Hold the content of ``snapshot.json``.

    :param step: environment steps at which the snapshot was taken
    :param serial: number that increases with every snapshot and shows which one is the newest. Times and steps do not
        show this, because they may go back
    :param created: ISO 8601 time with its UTC offset
    :param versions: versions by package name
    :param state: the state without its arrays, as from :func:`split`
    :param arrays: where each array is stored, in the order of :func:`split`
    :param files: size and digest of every other file in the folder
    :param health: health of the training, updated by later alerts; None if it was not judged
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
        """Return the sizes of all chunks in bytes, by name."""
        return dict(chunk for array in self.arrays for chunk in array.n_bytes_of_chunks())

    @property
    def n_bytes(self) -> int:
        """Return the size in bytes of all files and chunks of the snapshot, except ``snapshot.json`` itself."""
        return sum(self.chunks.values()) + sum(file.n_bytes for file in self.files.values())

    def to_bytes(self) -> bytes:
        """Return the content of ``snapshot.json``, with its own digest as the last key."""
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
        """Parse the content of ``snapshot.json``, and check all of it.

        :param content: bytes of the file
        :raises ValueError: if the content is not a valid record
        """
        try:
            read = json.loads(content.decode("utf-8", "surrogatepass"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{RECORD_NAME} is damaged (not JSON: {error})") from error
        if not isinstance(read, dict) or read.get("format") != FORMAT:
            raise ValueError(
                f"{RECORD_NAME} does not describe a snapshot: expected a JSON object with the key 'format' and the "
                f"value {FORMAT!r}"
            )
        if read.get("format_version") != FORMAT_VERSION:
            raise ValueError(
                f"{RECORD_NAME} has format_version {read.get('format_version')!r}, expected {FORMAT_VERSION}: install "
                "the version of sb3_visual_td3 that wrote this snapshot"
            )
        digest = read.pop("sha256", None)
        try:
            if digest != hashlib.sha256(_encode(read)).hexdigest():
                raise ValueError("the content does not match the recorded SHA-256")
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{RECORD_NAME} is damaged ({error})") from error
        # A correct digest only shows that the file is complete. So the types are checked as well.
        try:
            return cls._checked(read)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise ValueError(
                f"{RECORD_NAME} has content that this version of sb3_visual_td3 cannot read ({reason}): install the "
                "version that wrote this snapshot"
            ) from error

    @classmethod
    def _checked(cls, read: dict[str, Any]) -> SnapshotRecord:
        files: dict[str, FileDigest] = {}
        for name, file in read["files"].items():
            if not is_file_name(name) or not is_digest(file["sha256"]):
                raise ValueError(f"'files' has the entry {name!r}: expected file names, each with a size and a SHA-256")
            files[name] = FileDigest(_count(file["n_bytes"]), file["sha256"])
        if SMALL_ARRAYS_NAME not in files:
            raise ValueError(f"'files' does not list {SMALL_ARRAYS_NAME!r}: expected the size and SHA-256 of this file")
        arrays = tuple(_checked_array(array, files[SMALL_ARRAYS_NAME].n_bytes) for array in read["arrays"])
        texts = [read["created"], *read["versions"].keys(), *read["versions"].values()]
        if not isinstance(read["state"], dict) or not all(isinstance(text, str) for text in texts):
            raise ValueError(
                "a value has the wrong type: expected an object for 'state', text for 'created', and only text in "
                "'versions'"
            )
        return cls(
            step=_count(read["step"]),
            serial=_count(read["serial"]),
            created=read["created"],
            versions=read["versions"],
            state=read["state"],
            arrays=arrays,
            files=files,
            # Snapshots of earlier versions have no health.
            health=Health.from_record(read.get("health")),
        )


def _encode(content: Mapping[str, Any]) -> bytes:
    # Surrogates are written directly. If two neighbouring surrogates were written as \u escapes, they would be read
    # back as one character.
    return json.dumps(content, ensure_ascii=False, allow_nan=False).encode("utf-8", "surrogatepass")


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"a number in the record (a step, size or offset) is {value!r}: expected an integer >= 0")
    return value


def _checked_array(read: dict[str, Any], n_bytes_small: int) -> ArrayRecord:
    """Check the types and sizes in the record of an array, and return the record.

    :param n_bytes_small: size in bytes of the file of small arrays
    """
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
        raise ValueError(f"{array.path} is an array of {dtype}: expected numbers or booleans")
    if array.offset is not None:
        if array.chunks or array.offset + array.n_bytes > n_bytes_small:
            raise ValueError(
                f"the record of the array {array.path} is wrong: the array ends at byte "
                f"{array.offset + array.n_bytes:,} of {SMALL_ARRAYS_NAME} and has {len(array.chunks)} chunks; "
                f"expected an end at byte {n_bytes_small:,} or before, and 0 chunks"
            )
    elif (
        not 0 < array.chunk_bytes <= MAX_CHUNK_BYTES
        or array.chunk_bytes % dtype.itemsize
        or len(array.chunks) != -(-array.n_bytes // array.chunk_bytes)  # rounded up
        or not all(is_digest(chunk) for chunk in array.chunks)
    ):
        raise ValueError(
            f"the record of the array {array.path} is wrong: the array has {array.n_bytes} bytes, but the record lists "
            f"{len(array.chunks)} digests for chunks of {array.chunk_bytes} bytes"
        )
    return array


def read_record(folder: Path) -> SnapshotRecord:
    """Read the record of a snapshot, without checking the files and arrays that the record lists.

    :param folder: folder of the snapshot
    :raises SnapshotError: if the record is missing, damaged, of another format, or cannot be read
    """
    try:
        with open_regular(folder / RECORD_NAME) as stream:
            return SnapshotRecord.from_bytes(stream.read())
    except (FileNotFoundError, NotADirectoryError):
        raise SnapshotError(f"{RECORD_NAME} is missing, so {folder} is not a snapshot") from None
    except OSError as error:
        raise SnapshotError(f"{RECORD_NAME} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise SnapshotError(str(error)) from error


def rewrite_record(folder: Path, record: SnapshotRecord) -> None:
    """Replace the record of a snapshot atomically.

    :param folder: folder of the snapshot
    :param record: the new record
    :raises OSError: if the operating system refuses; the old record stays
    """
    temporary = folder / f".{RECORD_NAME}"
    temporary.unlink(missing_ok=True)
    write_durably(temporary, [memoryview(record.to_bytes())])
    os.replace(temporary, folder / RECORD_NAME)
    sync_folder(folder)


@dataclass(frozen=True)
class Snapshot:
    """Hold a loaded snapshot, which was complete when it was loaded.

    :param path: folder of the snapshot
    :param step: environment steps at which the snapshot was taken
    :param created: ISO 8601 time with its UTC offset
    :param versions: versions by package name
    :param state: the state; large arrays are :class:`~sb3_visual_td3.common.saved_state.StoredArray`
    :param skipped: reasons why newer snapshots were skipped, one line each
    :param file_names: names of the files that the caller of ``save`` wrote
    :param health: health of the training; None if it was not judged
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
        """Return the path of a file in the snapshot.

        :param name: the name that the file got when the snapshot was saved
        :raises ValueError: if there is no file of that name
        """
        if name not in self.file_names:
            raise ValueError(f"{self.path}: no file {name!r}; there are {', '.join(self.file_names) or 'none'}")
        return self.path / name
