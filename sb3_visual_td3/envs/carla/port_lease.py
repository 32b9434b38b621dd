"""Which server belongs to whom, where several environments run side by side on one machine."""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import IO

from sb3_visual_td3.envs.carla.failures import SimulatorUnusableError

PORTS_PER_SERVER = 4
"""RPC, streams, and one in reserve belong to a server; the fourth keeps neighbours apart."""
MAX_SERVERS = 64


class PortLease:
    """A server's port that no other environment of this user on this machine may use; the lease ends with the process.

    :param port: that is leased.
    :param lock: the file that says so.
    """

    def __init__(self, port: int, lock: IO[str]) -> None:
        self.port = port
        self._lock = lock

    def release(self) -> None:
        """Give it back; a second call does nothing."""
        self._lock.close()


def lease_running(host: str, ports: Iterable[int]) -> PortLease:
    """Return a lease for the first of these servers that no other environment uses.

    :param host: where they run.
    :param ports: of servers that run already.
    :raises SimulatorUnusableError: if all are in use; the message says by which processes.
    """
    taken = []
    for port in ports:
        lease, owner = _try_lease(host, port)
        if lease is not None:
            return lease
        taken.append(f"{port} (by process {owner})")
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
        if all(_is_free(port + offset) for offset in range(PORTS_PER_SERVER - 1)):
            return lease
        lease.release()
    raise SimulatorUnusableError(
        f"no free port from {first_port} on for another CARLA server (looked at {MAX_SERVERS}); stop some, or begin "
        "at another port"
    )


def _try_lease(host: str, port: int) -> tuple[PortLease | None, str]:
    """:return: the lease; or None and the number of the process that has it"""
    folder = Path(tempfile.gettempdir()) / f"sb3_visual_td3-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    name = "127.0.0.1" if host == "localhost" else host.replace("/", "_")
    lock = open(folder / f"carla-{name}-{port}.lock", "a+")  # noqa: SIM115  open as long as leased
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        owner = lock.read().strip() or "unknown"
        lock.close()
        return None, owner
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return PortLease(port, lock), ""


def _is_free(port: int) -> bool:
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
