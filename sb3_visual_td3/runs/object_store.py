"""Chunks of bytes, each a file that is named by its content: what is there already is not written again."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Container, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from sb3_visual_td3.runs.durable_files import read_fully, sync_folder, write_durably
from sb3_visual_td3.runs.snapshot_error import SnapshotError

_DIGEST = re.compile("[0-9a-f]{64}")
_BEGUN = ".new-"
_FOLDERS = "[0-9a-f][0-9a-f]"


def is_digest(name: object) -> bool:
    """:return: whether this can be a chunk's name: nothing else ever becomes a part of a path"""
    return isinstance(name, str) and _DIGEST.fullmatch(name) is not None


class StoredChunk(NamedTuple):
    """A chunk's name, and how many bytes it took to have it on disk: 0 if it was there."""

    digest: str
    n_bytes_written: int


class ObjectStore:
    """Chunks at ``<folder>/ab/abcdef...``. One process at a time writes.

    A file that is there with the right name and length is read once before it is trusted: one that the disk has
    damaged must not become part of the next snapshot.

    :param folder: made when the first chunk is stored
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known_good: set[str] = set()
        self._added: list[str] = []
        self._to_sync: set[Path] = set()

    def path(self, digest: str) -> Path:
        """:return: where a chunk is, or would be"""
        assert is_digest(digest)
        return self.folder / digest[:2] / digest

    def put(self, data: memoryview) -> StoredChunk:
        """Have these bytes on disk.

        :param data: not empty
        :return: their name
        :raises OSError: if they cannot be written
        """
        digest = hashlib.sha256(data).hexdigest()
        path = self.path(digest)
        try:
            n_there = os.stat(path).st_size
        except OSError:
            n_there = -1
        if n_there == len(data) and (digest in self._known_good or self._is_good(digest, len(data))):
            return StoredChunk(digest, 0)
        path.parent.mkdir(parents=True, exist_ok=True)
        begun = self.folder / f"{_BEGUN}{digest}"
        if os.path.lexists(begun):  # see begin()
            begun = begun.with_name(f"{begun.name}~{os.getpid()}-{time.monotonic_ns()}")
        write_durably(begun, [data])
        if n_there < 0:
            self._added.append(digest)
        os.replace(begun, path)
        self._to_sync.add(path.parent)
        self._known_good.add(digest)
        return StoredChunk(digest, len(data))

    def sync(self) -> None:
        """Wait until the disk has the names of what was put."""
        if self._to_sync:
            for folder in sorted(self._to_sync):
                sync_folder(folder)
            sync_folder(self.folder)
            self._to_sync.clear()

    def read_into(self, digest: str, target: memoryview) -> None:
        """Read a chunk and check it.

        :param digest: its name
        :param target: of its length; undefined after an error
        :raises SnapshotError: if it is missing, damaged or cannot be read
        """
        path = self.path(digest)
        name = f"{self.folder.name}/{digest[:2]}/{digest}"
        try:
            n_bytes = os.stat(path).st_size
            if n_bytes != len(target):
                raise SnapshotError(f"{name} is damaged (it has {n_bytes} bytes, not {len(target)})")
            is_whole = read_fully(path, target)
        except FileNotFoundError:
            raise SnapshotError(f"{name} is missing") from None
        except OSError as error:
            raise SnapshotError(f"{name} cannot be read ({error.strerror})") from error
        if not is_whole or hashlib.sha256(target).hexdigest() != digest:
            self._known_good.discard(digest)
            raise SnapshotError(f"{name} is damaged (digest differs)")
        self._known_good.add(digest)

    def begin(self) -> None:
        """Remove what a killed writer left, and forget what was added before.

        :raises SnapshotError: if a folder of the store is a link: nothing elsewhere is written or removed
        """
        self._added.clear()
        for folder in (self.folder, *self.folder.glob(_FOLDERS)):
            if folder.is_symlink():
                raise SnapshotError(f"{folder} is a link: put there what it points to")
        # A killed writer may not have come to sync names that are used again now.
        self._to_sync = set(self.folder.glob(_FOLDERS))
        for begun in self.folder.glob(f"{_BEGUN}*"):
            with suppress(OSError):  # what cannot be removed must not keep snapshots from being taken
                begun.unlink()

    def take_back(self, in_use: Container[str]) -> None:
        """Remove what was added since :meth:`begin`, as far as the operating system lets us.

        :param in_use: names that stay
        """
        for digest in self._added:
            with suppress(OSError):
                self._remove([] if digest in in_use else [digest])
        with suppress(OSError, SnapshotError):
            self.begin()

    def keep_only(self, in_use: Container[str]) -> None:
        """Remove every other chunk.

        :param in_use: names that stay
        """
        self._remove(digest for digest in list(self) if digest not in in_use)

    def __iter__(self) -> Iterator[str]:
        """:return: the names of the chunks that are there"""
        for path in self.folder.glob(f"{_FOLDERS}/*"):
            if is_digest(path.name):
                yield path.name

    def _is_good(self, digest: str, n_bytes: int) -> bool:
        try:
            self.read_into(digest, memoryview(bytearray(n_bytes)))
        except SnapshotError:
            return False
        return True

    def _remove(self, digests: Iterable[str]) -> None:
        for digest in digests:
            self.path(digest).unlink(missing_ok=True)
            self._known_good.discard(digest)
