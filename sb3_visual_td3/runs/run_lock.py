"""One process per run: a lock that the kernel releases when its holder dies, however it dies."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from types import TracebackType

from sb3_visual_td3.runs.durable_files import open_own

_LOCK_BYTES = 20
"""A process id and a line feed have no more."""
_WITHOUT_LOCKS = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS}


class RunLock:
    """A run's lock; the file stays, holding the process id of whoever had it last.

    Where the file system knows no locks, everybody gets it.

    :param path: of the lock's file, in the run's folder
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._handle: int | None = None

    @property
    def is_held(self) -> bool:
        """Whether this object holds it."""
        return self._handle is not None

    def acquire(self) -> None:
        """Get the lock, or nothing if this object has it.

        Another object of this process gives it up: in a notebook it belongs to a training that was interrupted.

        :raises ValueError: if the run is being trained, or what is there is not a lock: a link, or another file
        :raises OSError: if the file cannot be written
        """
        if self._handle is not None:
            return
        for other in [lock for lock in _held if lock.path.absolute() == self.path.absolute()]:
            other.release()
        handle = self._open()
        try:
            self._lock(handle)
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        except BaseException:
            os.close(handle)
            raise
        self._handle = handle
        _held.add(self)

    def release(self) -> None:
        """Let it go, if this object has it."""
        handle, self._handle = self._handle, None
        _held.discard(self)
        if handle is not None:
            os.close(handle)

    def __enter__(self) -> RunLock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _open(self) -> int:
        """:return: the handle of a file that only this name shows, and that holds no more than a process id"""
        try:
            handle = open_own(self.path, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise ValueError(f"{self.path} is a link, and a lock is not: remove it") from error
        found = os.fstat(handle)
        if found.st_nlink != 1 or found.st_size > _LOCK_BYTES:
            os.close(handle)
            raise ValueError(f"{self.path} is not the lock of a run, but a link or another file: remove it")
        return handle

    def _lock(self, handle: int) -> None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _WITHOUT_LOCKS:
                return
            if error.errno not in {errno.EWOULDBLOCK, errno.EACCES}:
                raise
            holder = os.pread(handle, 20, 0).decode(errors="replace").strip()
            raise ValueError(
                f"{self.path}: this run is being trained by process {holder or '(unknown)'}; "
                "wait until it ends, or stop it"
            ) from error


_held: set[RunLock] = set()


def _let_go_in_child() -> None:
    # A forked worker that outlives its parent would keep the run locked: the lock lasts as long as any copy is open.
    for lock in list(_held):
        lock.release()


os.register_at_fork(after_in_child=_let_go_in_child)
