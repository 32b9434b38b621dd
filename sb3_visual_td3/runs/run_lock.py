"""Lock a run, so that two processes cannot train it at the same time."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import TracebackType

from sb3_visual_td3.runs.durable_files import open_own

try:
    import fcntl
except ImportError:  # on Windows
    _HAS_LOCKS = False
else:
    _HAS_LOCKS = True

_LOCK_BYTES = 20
"""Largest size of a lock file: a process id and a line feed."""
_WITHOUT_LOCKS = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS}
"""Errors of file systems that have no locks."""


class RunLock:
    """Lock a run exclusively; the kernel releases the lock when its holder dies, even by SIGKILL.

    On Windows and on a file system without locks, every process acquires the lock.

    :param path: path of the lock file, which stays in the run's folder
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._handle: int | None = None

    def acquire(self) -> None:
        """Acquire the lock; do nothing if this object already holds it.

        If another lock object of this process holds the lock, such as one from an interrupted notebook cell, that
        object loses it.

        :raises ValueError: if another process trains the run, if the path is a link, or if the file is not a lock file
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
            os.write(handle, f"{os.getpid()}\n".encode())
        except BaseException:
            os.close(handle)
            raise
        self._handle = handle
        _held.add(self)

    def release(self) -> None:
        """Release the lock, if this object holds it."""
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
        """Open the lock file, or create it.

        :raises ValueError: if the path is a link, or a file that is not a lock file
        """
        try:
            handle = open_own(self.path, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise ValueError(f"{self.path} is a symbolic link: expected a plain lock file. Remove the link") from error
        # acquire() empties the file, so it must be a lock file, and must have no other hard link.
        found = os.fstat(handle)
        if found.st_nlink != 1 or found.st_size > _LOCK_BYTES:
            os.close(handle)
            raise ValueError(
                f"{self.path} is not a lock file, because it has hard links or more than {_LOCK_BYTES} bytes: remove it"
            )
        return handle

    def _lock(self, handle: int) -> None:
        if not _HAS_LOCKS:
            return
        # This uses flock, because a file that says "locked" would remain after a kill and block the run.
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _WITHOUT_LOCKS:
                return
            if error.errno not in {errno.EWOULDBLOCK, errno.EACCES}:
                raise
            holder = os.read(handle, _LOCK_BYTES).decode(errors="replace").strip()
            raise ValueError(
                f"{self.path}: this run is being trained by process {holder or '(unknown)'}; "
                "wait until it ends, or stop it"
            ) from error


_held: set[RunLock] = set()


def _release_in_child() -> None:
    # The lock lasts as long as any process has the file open, and a forked worker may outlive its parent.
    for lock in list(_held):
        lock.release()


# Windows has no fork.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_in_child)
