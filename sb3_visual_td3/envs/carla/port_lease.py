"""Which server belongs to whom, where several environments run side by side on one machine."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
import tempfile
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from sb3_visual_td3.envs.carla.failures import SimulatorUnusableError

PORTS_PER_SERVER = 4
"""RPC, streams, and one in reserve belong to a server; the fourth keeps neighbours apart."""
MAX_SERVERS = 64
_ENDING_S = 2.0
_TRIES = 50
_FOLDERS = 10
_PRIVATE = 0o700


class PortLease:
    """A server's port that no other environment of this user on this machine may use; the lease ends with the process.

    :param port: that is leased.
    :param lock: descriptor of the locked file that says so.
    :param path: of that file.
    """

    def __init__(self, port: int, lock: int, path: Path) -> None:
        self.port = port
        self._lock, self._path, self._pid = lock, path, os.getpid()

    def is_free(self) -> bool:
        """Return whether nothing listens on the ports of the server, so that it can be started."""
        return _is_range_free(self.port)

    def release(self) -> None:
        """Give the port back and remove the file; a second call does nothing."""
        if self._lock < 0:
            return
        if self._pid == os.getpid():  # a fork has a copy of the descriptor, but the lease is its parent's
            with contextlib.suppress(OSError):
                self._path.unlink()
            # Closing would not unlock it as long as a fork has its copy open.
            fcntl.flock(self._lock, fcntl.LOCK_UN)
            with contextlib.suppress(OSError):  # other leases are in it
                self._path.parent.rmdir()
        os.close(self._lock)
        self._lock = -1

    def __del__(self) -> None:
        """Give the port back where that was forgotten."""
        with contextlib.suppress(Exception):  # Python may be ending
            self.release()


def lease_running(host: str, ports: Iterable[int]) -> PortLease:
    """Return a lease for the first of these servers that no other environment uses.

    :param host: where they run.
    :param ports: of servers that run already.
    :raises SimulatorUnusableError: if all are in use; the message says by which processes.
    """
    deadline_s = time.monotonic() + _ENDING_S
    while True:
        taken, is_ours = [], True
        for port in ports:
            lease, owner = _try_lease(host, port)
            if lease is not None:
                return lease
            taken.append(f"{port} (by process {owner})")
            is_ours = is_ours and owner == str(os.getpid())
        if is_ours or time.monotonic() > deadline_s:
            break
        time.sleep(0.1)  # a process that was killed has its locks until it is gone, which may take a moment
    raise SimulatorUnusableError(
        f"every CARLA server on {host} is in use by another environment: {', '.join(taken)}; give each its own: "
        "port=[2000, 2004, ...], or a command that starts them"
    )


def lease_free(first_port: int) -> PortLease:
    """Return a lease for a port on this machine where a server can be started.

    :param first_port: looked at first, then every fourth one above.
    :raises SimulatorUnusableError: if none is free.
    """
    for port in range(first_port, min(65_532, first_port + PORTS_PER_SERVER * MAX_SERVERS), PORTS_PER_SERVER):
        lease, _ = _try_lease("127.0.0.1", port)
        if lease is None:
            continue
        if lease.is_free():
            return lease
        lease.release()
    raise SimulatorUnusableError(
        f"no free port from {first_port} on for another CARLA server (looked at {MAX_SERVERS}); stop some, or begin "
        "at another port"
    )


def _try_lease(host: str, port: int) -> tuple[PortLease | None, str]:
    """Lease a port, if it is not leased.

    :return: the lease; or None and the number of the process that has it
    :raises SimulatorUnusableError: if there is no folder, or no file, that is safe to use.
    """
    name = f"carla-{'127.0.0.1' if host == 'localhost' else host.replace('/', '_')}-{port}.lock"
    for _ in range(_TRIES):
        folder, path = _open_folder()
        try:
            lock = _open_lock(folder, name, path / name)
            if lock is None:
                continue
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                owner = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
                os.close(lock)
                return None, owner
            if _is_still_there(lock, folder, name):
                with contextlib.suppress(OSError):  # a full disk: the number is for messages only
                    os.ftruncate(lock, 0)
                    os.pwrite(lock, str(os.getpid()).encode(), 0)
                return PortLease(port, lock, path / name), ""
            os.close(lock)  # its owner removed it after we had opened it: the next one counts
        finally:
            os.close(folder)
    raise SimulatorUnusableError(f"cannot lease port {port}: {path / name} changes all the time; remove it")


def _open_folder() -> tuple[int, Path]:
    """Open the folder of the leases, the same for all processes of this user.

    It is in the folder for temporary files, where every user of the machine may put what they like under any name, a
    link to one of our files among it. So only a folder that is ours and that no one else can write to is used; where
    another user has taken the name, there is a second one, and so on.

    :return: its descriptor, and its path
    :raises SimulatorUnusableError: if all the names are taken.
    """
    base = Path(tempfile.gettempdir()) / f"sb3_visual_td3-{os.geteuid()}"
    names = [base, *(base.with_name(f"{base.name}-{number}") for number in range(1, _FOLDERS))]
    for path in names:
        folder = _open_private(path)
        if folder is not None:
            return folder, path
    raise SimulatorUnusableError(
        f"{base}: expected a folder of this user for the leases of ports, but other users have taken this name and "
        f"{_FOLDERS - 1} further ones; set TMPDIR to a folder of your own"
    )


def _open_private(path: Path) -> int | None:
    """Open a folder, which is made if it is not there; None where it is not this user's."""
    for _ in range(_TRIES):
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=_PRIVATE)
        try:
            folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except FileNotFoundError:
            continue  # another process has just given its last lease back
        except OSError:  # a link, a file, or not ours to open
            return None
        found = os.fstat(folder)
        if found.st_uid == os.geteuid():
            if stat.S_IMODE(found.st_mode) != _PRIVATE:
                os.fchmod(folder, _PRIVATE)
            return folder
        os.close(folder)
        return None
    return None


def _open_lock(folder: int, name: str, path: Path) -> int | None:
    """Open a lease's file, which is made if it is not there.

    :return: its descriptor; None: something was in its place and is removed, or the folder has just been; try again
    :raises SimulatorUnusableError: if what is in its place cannot be removed.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK  # not to wait for what reads from a named pipe
    try:
        lock = os.open(name, flags, 0o600, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError:  # a link, a folder, a socket, or not ours to write
        lock = -1
    if lock >= 0:
        found = os.fstat(lock)
        # With a second name, what is written here would be in another of the user's files.
        if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and found.st_nlink <= 1:
            return lock
        os.close(lock)
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SimulatorUnusableError(f"{path}: expected a file for the lease of a port ({error}); remove it") from error
    return None


def _is_still_there(lock: int, folder: int, name: str) -> bool:
    try:
        return os.path.samestat(os.fstat(lock), os.stat(name, dir_fd=folder, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _is_range_free(port: int) -> bool:
    return all(_is_free(port + offset) for offset in range(PORTS_PER_SERVER - 1))


def _is_free(port: int) -> bool:
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
