"""One snapshot as it is read: every byte is checked before any of it is used."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.common.arrays import AnyArray
from sb3_visual_td3.common.input_files import open_regular
from sb3_visual_td3.runs.chunked_array import ChunkedArray
from sb3_visual_td3.runs.durable_files import bytes_of, digest_of, read_fully, sync_folder, write_durably
from sb3_visual_td3.runs.object_store import ObjectStore
from sb3_visual_td3.runs.snapshot_error import SnapshotError
from sb3_visual_td3.runs.snapshot_health import Health
from sb3_visual_td3.runs.snapshot_record import RECORD_NAME, SMALL_ARRAYS_NAME, ArrayRecord, SnapshotRecord
from sb3_visual_td3.runs.state_tree import join


@dataclass(frozen=True)
class Snapshot:
    """A snapshot that was whole when it was loaded.

    :param path: its folder
    :param step: environment steps
    :param created: ISO 8601 time, with its offset
    :param versions: package name to version, as saved
    :param state: the tree as saved; small arrays as ndarrays, large ones as
        :class:`~sb3_visual_td3.common.arrays.StoredArray`
    :param skipped: why newer ones were passed over, one line each
    :param health: of the training, as far as it was known when the snapshot was loaded; None where nobody judged
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
