"""One process per run: a lock that the kernel releases when its holder dies, however it dies."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from types import TracebackType

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

        :raises ValueError: if the run is being trained
        :raises OSError: if the file cannot be written
        """
        if self._handle is not None:
            return
        for other in [lock for lock in _held if lock.path.absolute() == self.path.absolute()]:
            other.release()
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
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
