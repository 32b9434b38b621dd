"""Lease server ports, so that no two environments on one machine use the same CARLA server.

A lease is a locked file in a private folder below the folder for temporary files. If the process that holds the
lock ends or is killed, the lock is released.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import tempfile
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import NoReturn

from sb3_visual_td3.envs.carla.failures import SimulatorUnusableError

try:
    import fcntl
except ModuleNotFoundError as error:  # on Windows
    raise ImportError("CarlaDriving-v0 needs Linux: it locks the ports of servers with flock") from error

PORTS_PER_SERVER = 4
"""Spacing of the servers' RPC ports. A server uses the first three of its four ports."""
MAX_SERVERS = 64
_MAX_PORT = 65_532
# The locks of a killed process are released only when the kernel has removed the process.
_MAX_WAIT_FOR_ENDING_PROCESS_S = 2.0
# The lease is tried up to this number of times, because other processes may create and remove the same folder and file.
_MAX_ATTEMPTS = 50
_MAX_FOLDERS = 10
_PRIVATE_MODE = 0o700


class PortLease:
    """Reserve a server's port: no other environment of this user on this machine can lease it.

    :param port: the leased port
    :param lock: file descriptor that holds the lock
    :param path: path of the locked file
    """

    def __init__(self, port: int, lock: int, path: Path) -> None:
        self.port = port
        self._lock, self._path, self._pid = lock, path, os.getpid()

    def is_free(self) -> bool:
        """Return whether nothing listens on the leased ports, so that a server can be started there."""
        return _is_range_free(self.port)

    def release(self) -> None:
        """Release the port and remove the file; a second call does nothing."""
        if self._lock < 0:
            return
        # A forked child has a copy of the descriptor, but the lease belongs to its parent.
        if self._pid == os.getpid():
            with contextlib.suppress(OSError):
                self._path.unlink()
            # Unlock explicitly: closing does not unlock while a forked child has its copy open.
            fcntl.flock(self._lock, fcntl.LOCK_UN)
            with contextlib.suppress(OSError):  # the folder still holds other leases
                self._path.parent.rmdir()
        os.close(self._lock)
        self._lock = -1

    def __reduce__(self) -> NoReturn:
        """Refuse to copy or pickle the lease: a deleted copy would close the descriptor of the original.

        :raises TypeError: always
        """
        raise TypeError(f"the lease of port {self.port} cannot be copied or pickled; make another environment instead")

    def __del__(self) -> None:
        """Release the port if the owner has not done so."""
        with contextlib.suppress(Exception):  # the interpreter may be shutting down
            self.release()


def lease_running(host: str, ports: Iterable[int]) -> PortLease:
    """Lease one of several running servers: the first that no other environment uses.

    :param host: machine on which the servers run
    :param ports: RPC ports of the servers
    :raises SimulatorUnusableError: if all servers are in use
    """
    deadline_s = time.monotonic() + _MAX_WAIT_FOR_ENDING_PROCESS_S
    while True:
        taken, are_all_ours = [], True
        for port in ports:
            lease, owner = _try_lease(host, port)
            if lease is not None:
                return lease
            taken.append(f"{port} (by process {owner})")
            are_all_ours = are_all_ours and owner == str(os.getpid())
        # Waiting helps only if another process may be about to end.
        if are_all_ours or time.monotonic() > deadline_s:
            break
        time.sleep(0.1)
    raise SimulatorUnusableError(
        f"every CARLA server on {host} is in use by another environment: {', '.join(taken)}; give each "
        "environment its own server: list the ports of several servers (port=[2000, 2004, ...]), or give a command "
        "that starts a server (command=...)"
    )


def lease_free(first_port: int) -> PortLease:
    """Lease a free port of this machine, so that a server can be started on it.

    :param first_port: port to try first; then every fourth port above it is tried
    :raises SimulatorUnusableError: if no port is free
    """
    ports = range(first_port, _MAX_PORT + 1, PORTS_PER_SERVER)[:MAX_SERVERS]
    for port in ports:
        lease, _ = _try_lease("127.0.0.1", port)
        if lease is None:
            continue
        if lease.is_free():
            return lease
        lease.release()
    raise SimulatorUnusableError(
        f"no free port from {first_port} upwards for another CARLA server (ports tried: {len(ports)}); stop some "
        "servers, or give another first port"
    )


def _try_lease(host: str, port: int) -> tuple[PortLease | None, str]:
    """Lease a port and return the lease; if it is taken, return None and the id of the process that holds it."""
    host_name = "127.0.0.1" if host == "localhost" else host.replace("/", "_")
    name = f"carla-{host_name}-{port}.lock"
    for _ in range(_MAX_ATTEMPTS):
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
            # The previous owner may have removed the file after it was opened here and before it was locked. Then this
            # lock is on a deleted file, and another process would lock a new file of the same name.
            if _is_still_there(lock, folder, name):
                with contextlib.suppress(OSError):  # the disk may be full; only messages need the process id
                    os.ftruncate(lock, 0)
                    os.pwrite(lock, str(os.getpid()).encode(), 0)
                return PortLease(port, lock, path / name), ""
            os.close(lock)
        finally:
            os.close(folder)
    raise SimulatorUnusableError(f"cannot lease port {port}: {path / name} keeps changing; remove this file")


def _open_folder() -> tuple[int, Path]:
    """Open the folder of the leases, which is the same for all processes of this user.

    Any user can create anything in the folder for temporary files, such as a link to one of this user's files. The
    folder must therefore belong to this user, and only this user gets permissions for it.
    """
    base = Path(tempfile.gettempdir()) / f"sb3_visual_td3-{os.geteuid()}"
    names = [base, *(base.with_name(f"{base.name}-{number}") for number in range(1, _MAX_FOLDERS))]
    for path in names:
        folder = _open_private(path)
        if folder is not None:
            return folder, path
    raise SimulatorUnusableError(
        f"{base}: this folder for lock files and all {_MAX_FOLDERS - 1} alternatives belong to other users; set "
        "TMPDIR to a folder of your own"
    )


def _open_private(path: Path) -> int | None:
    """Create a folder if it does not exist, and return its file descriptor; None if it is not a folder of this user."""
    for _ in range(_MAX_ATTEMPTS):
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=_PRIVATE_MODE)
        try:
            folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except FileNotFoundError:
            continue  # another process has just released the last lease
        except OSError:  # a link, a file, or a folder without permission
            return None
        found = os.fstat(folder)
        if found.st_uid == os.geteuid():
            if stat.S_IMODE(found.st_mode) != _PRIVATE_MODE:
                os.fchmod(folder, _PRIVATE_MODE)
            return folder
        os.close(folder)
        return None
    return None


def _open_lock(folder: int, name: str, path: Path) -> int | None:
    """Create a lease's file if it does not exist, and return its descriptor; None if the caller must try again.

    An unsuitable file of this name, such as a link, is deleted.
    """
    # O_NOFOLLOW: a link could lead to one of the user's files. O_NONBLOCK: opening a named pipe would block.
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        lock = os.open(name, flags, 0o600, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError:  # a link, a folder, a socket, or a file without permission
        lock = -1
    if lock >= 0:
        found = os.fstat(lock)
        # A second hard link means that writing here would change another of the user's files.
        if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and found.st_nlink <= 1:
            return lock
        os.close(lock)
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SimulatorUnusableError(
            f"{path} is not a lock file, and deleting it failed ({error}); delete it yourself"
        ) from error
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
