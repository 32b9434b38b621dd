"""Find or start the simulator of an environment, probe it before CARLA's client connects, and end it after use.

CARLA's client aborts the process if the port belongs to another program, and misreads the messages of another version.
Therefore this module first requests CARLA's version itself.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from sb3_visual_td3.common.installation import install_command
from sb3_visual_td3.envs.carla.failures import (
    SimulatorAbsentError,
    SimulatorLostError,
    SimulatorUnusableError,
    UnknownHostError,
)
from sb3_visual_td3.envs.carla.port_lease import PortLease, lease_free, lease_running
from sb3_visual_td3.envs.carla.settings import ServerSettings, launch_command

_LOG = logging.getLogger("sb3_visual_td3")
TESTED_VERSION = "0.9.16"
"""The version of CARLA that this package was tested with."""
SUPPORTED_VERSIONS = ("0.9.13", "0.9.14", "0.9.15", TESTED_VERSION)
"""Versions of CARLA's client that this package supports."""
_MAX_RESPONSE_BYTES = 65_536
# Every response to the probe begins with these bytes of msgpack: an array of four, 1 (a response), call id 1, nil (no
# error). The probe is [0, 1, "version", [[false]]]: 0 (a request), call id 1, the function, and
# [[is_asynchronous], *arguments] without arguments.
_RESPONSE_START = b"\x94\x01\x01\xc0"
# A probe of a starting server waits at most this long, and is then repeated. The first process of a launcher may have
# accepted the connection and then replaced itself, so that no response comes.
_MAX_PROBE_S = 10.0
_FIRST_RETRY_PAUSE_S, _MAX_RETRY_PAUSE_S = 0.02, 1.0
_HOW_TO_START = (
    "start the simulator (./CarlaUE4.sh -RenderOffScreen -carla-rpc-port={port}, or without CARLA: "
    "visual-td3 carla-emulator --port {port}), or name another host and port"
)


def server_version(host: str, port: int, timeout_s: float) -> str:
    """Return the version of the CARLA server on a port, without CARLA's client.

    :param host: name or address
    :param port: the server's RPC port
    :param timeout_s: longest wait in seconds, above 0
    :raises SimulatorAbsentError: if nothing listens on the port
    :raises SimulatorLostError: if no response comes in time, or the connection is closed before the response
    :raises SimulatorUnusableError: if the host is unknown, or the program does not speak CARLA's protocol
    :raises ImportError: if the extra ``carla`` is not installed
    """
    msgpack = _msgpack()
    unpacker = msgpack.Unpacker(raw=False, strict_map_key=False, max_buffer_size=_MAX_RESPONSE_BYTES)
    request: bytes = msgpack.packb([0, 1, "version", [[False]]])
    deadline = time.monotonic() + timeout_s
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as connection:
            if connection.getsockname() == connection.getpeername():
                # TCP self-connect: if nothing listens on a port of the ephemeral range, the system may choose that very
                # port for the client's end, and the probe would come back as its own response.
                raise ConnectionRefusedError("the socket connected to itself, because nothing listens on the port")
            connection.sendall(request)
            start, n_bytes = b"", 0
            while True:
                connection.settimeout(max(1e-3, deadline - time.monotonic()))
                received = connection.recv(4096)
                if not received:
                    raise _closed_early(host, port)
                n_bytes += len(received)
                unpacker.feed(received)
                for response in unpacker:
                    return _version_in(response, host, port)
                # An incomplete response is not a wrong one: the rest may be on its way, or the server may have died.
                # Only a wrong start shows at once that this is not CARLA.
                start = (start + received)[: len(_RESPONSE_START)]
                if not _RESPONSE_START.startswith(start) or n_bytes > _MAX_RESPONSE_BYTES:
                    raise _not_carla(host, port)
                if time.monotonic() > deadline:
                    raise TimeoutError
    except socket.gaierror as error:
        raise UnknownHostError(
            f"host={host!r}: there is no such host; give the name of the machine that runs CARLA"
        ) from error
    except TimeoutError as error:
        raise SimulatorLostError(
            f"{host}:{port} does not answer within {timeout_s:g} s: the server hangs, is still loading, or is not "
            "CARLA; restart it, or wait longer with timeout_s"
        ) from error
    except (ConnectionResetError, ConnectionAbortedError, BrokenPipeError) as error:
        raise _closed_early(host, port) from error
    except (ValueError, TypeError, msgpack.UnpackException) as error:  # not msgpack, or a map with a list as its key
        raise _not_carla(host, port) from error
    except OSError as error:
        raise SimulatorAbsentError(
            f"nothing listens on {host}:{port} ({error}); {_HOW_TO_START.format(port=port)}"
        ) from error


def wait_for_server(
    host: str, port: int, timeout_s: float, *, is_starting: bool, check: Callable[[], None] | None = None
) -> str:
    """Return the server's version as soon as it answers; a starting server is probed repeatedly.

    :param host: name or address
    :param port: the server's RPC port
    :param timeout_s: longest wait in seconds, above 0
    :param is_starting: whether the server may still be starting; if False, it is probed only once
    :param check: called before each further probe; raises an error to end the wait early
    :raises SimulatorLostError: if nothing listens or answers; for a starting server only after ``timeout_s``
    :raises SimulatorUnusableError: if the host is unknown, the program is not CARLA, or client and server differ in
        version
    """
    deadline, pause_s = time.monotonic() + timeout_s, _FIRST_RETRY_PAUSE_S
    while True:
        try:
            left_s = max(0.1, deadline - time.monotonic())
            if is_starting:
                left_s = min(left_s, _MAX_PROBE_S)
            version = server_version(host, port, left_s)
        except SimulatorLostError:
            if not is_starting or time.monotonic() + pause_s > deadline:
                raise
            if check is not None:
                check()
            time.sleep(pause_s)
            pause_s = min(_MAX_RETRY_PAUSE_S, 1.5 * pause_s)
        else:
            check_version(version, host, port)
            return version


def client_version() -> str:
    """Return the version of the installed CARLA client, without importing the client."""
    try:
        return metadata.version("carla")
    except metadata.PackageNotFoundError:  # an egg of a CARLA installation on the path has no metadata
        return TESTED_VERSION


_reported: set[str] = set()
"""Client versions about which this process has already logged a warning."""


def check_version(version: str, host: str, port: int) -> None:
    """Raise an error if server and client have different versions. A suffix such as ``-dirty`` is ignored.

    :param version: the server's version
    :param host: name or address, for the message
    :param port: the server's RPC port, for the message
    :raises SimulatorUnusableError: if the first three numbers differ, or the client's version is not supported
    """
    client = _numbers(client_version())
    if client not in SUPPORTED_VERSIONS:
        raise SimulatorUnusableError(
            f"CARLA's client {client} is installed: expected {SUPPORTED_VERSIONS[0]} to {SUPPORTED_VERSIONS[-1]}; "
            f"{install_command('carla')} installs {TESTED_VERSION}"
        )
    server = _numbers(version)
    if server != client:
        remedy = f"start CARLA {client}"
        if server in SUPPORTED_VERSIONS:
            remedy += f", or install the server's client: pip install carla=={server}"
        raise SimulatorUnusableError(
            f"the server on {host}:{port} is CARLA {version}, but the client is CARLA {client}: expected the same "
            f"version; {remedy}"
        )
    if client != TESTED_VERSION and client not in _reported:
        _reported.add(client)
        _LOG.warning(
            "CARLA's client %s fits servers of version %s only. This package was tested with %s",
            client,
            client,
            TESTED_VERSION,
        )


def _numbers(version: str) -> str:
    """Return the first three numbers of a version, such as ``0.9.15`` of ``0.9.15-226-g5c2d2978a-dirty``."""
    return ".".join(version.split("-", maxsplit=1)[0].split(".")[:3])


def _msgpack() -> Any:
    try:
        import msgpack
    except ImportError as error:
        raise ImportError(f"CarlaDriving-v0 needs CARLA's client: {install_command('carla')}") from error
    return msgpack


def _version_in(response: Any, host: str, port: int) -> str:
    match response:
        case [1, 1, None, [[_, str(version)]]] | [1, 1, None, [1, str(version)]]:
            return version
    raise _not_carla(host, port)


def _closed_early(host: str, port: int) -> SimulatorLostError:
    return SimulatorLostError(
        f"the program on {host}:{port} closed the connection before it answered: it is a CARLA server that is ending "
        "or still starting, or it is not CARLA; look at the server's output, and check the port"
    )


def _not_carla(host: str, port: int) -> SimulatorUnusableError:
    return SimulatorUnusableError(
        f"the program on {host}:{port} does not speak CARLA's protocol: expected a CARLA server; "
        "give the port of a CARLA server (the default is 2000)"
    )


_WATCHDOG = Path(__file__).with_name("watchdog.py")
_STOP_TIMEOUT_S = 10.0
_SHOWN_OUTPUT_BYTES = 300
# If a signal has ended a process, a shell reports 128 plus the signal's number as the exit code.
_SIGNAL_EXIT_CODE = 128


class Simulator:
    """Run a simulator, and end it when :meth:`stop` is called or this process ends.

    The simulator also ends if this process is killed.

    :param command: see :func:`~sb3_visual_td3.envs.carla.settings.launch_command`
    :param port: RPC port
    :raises SimulatorUnusableError: if there is no such program
    """

    def __init__(self, command: str, port: int) -> None:
        words = launch_command(command, port)
        if shutil.which(words[0]) is None:
            raise SimulatorUnusableError(
                f"command={command!r}: there is no program {words[0]}; give the path of CarlaUE4.sh (or of another "
                "launcher) relative to the current folder"
            )
        self.port = port
        # A file instead of a pipe: a pipe that is not read fills up and blocks the simulator.
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  open while the simulator runs
        # The watchdog ends the simulator when its standard input, this process's end of a pipe, is closed.
        self._process = subprocess.Popen(
            [sys.executable, str(_WATCHDOG), *words],
            stdin=subprocess.PIPE,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in the terminal must not reach it
        )

    def is_running(self) -> bool:
        """Return whether the simulator still runs."""
        return self._process.poll() is None

    def check(self) -> None:
        """Raise an error if the simulator has ended; the message contains the end of its output.

        :raises SimulatorAbsentError: if the simulator ended by itself, so the command is probably wrong
        :raises SimulatorLostError: if a signal ended the simulator, so a restart may help
        """
        if self.is_running():
            return
        code = self._process.returncode
        message = (
            f"the simulator on port {self.port} ended with exit code {code}; "
            f"it printed: {self.end_of_output() or 'nothing'}"
        )
        # A negative code means that the watchdog itself was killed.
        if code < 0 or code > _SIGNAL_EXIT_CODE:
            raise SimulatorLostError(message)
        raise SimulatorAbsentError(message)

    def end_of_output(self) -> str:
        """Return the end of the simulator's output in one line."""
        size = self._output.seek(0, 2)
        self._output.seek(max(0, size - _SHOWN_OUTPUT_BYTES))
        return " ".join(self._output.read().decode(errors="replace").split())

    def stop(self) -> None:
        """End the simulator and all processes that it has started; a second call does nothing."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            # The watchdog hangs. The process that it forked (``Guard``) ends the simulator when the watchdog is killed.
            self._process.kill()
            self._process.wait()
        self._output.close()


class Address(NamedTuple):
    """Hold the host and port on which a server listens."""

    host: str
    port: int


class Server:
    """Manage the server of one environment.

    Only :meth:`ensure` reserves a port or starts a simulator.

    :param settings: address of the simulator, or the command that starts it
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self._lease: PortLease | None = None
        self._shared_address: Address | None = None
        """The address of another environment's server if this object uses that server, otherwise None."""
        self._simulator: Simulator | None = None
        self._has_answered = False

    @property
    def address(self) -> Address | None:
        """Return the server's address; None before :meth:`ensure`."""
        if self._shared_address is not None:
            return self._shared_address
        if self._lease is None:
            return None
        return Address(self.settings.host, self._lease.port)

    @property
    def is_ours(self) -> bool:
        """Return whether this object starts the simulator and ends it."""
        return self.settings.command is not None and self._shared_address is None

    @property
    def is_shared(self) -> bool:
        """Return whether another environment may use the same server; the two environments take turns."""
        return self._shared_address is not None or self.settings.is_shared

    def share(self, address: Address) -> None:
        """Use a running server that another environment has leased."""
        self.close()
        self._shared_address = address

    def ensure(self) -> Address:
        """Return the address of a server that answers. If this object manages a simulator, start it if necessary.

        :raises SimulatorLostError: if the simulator does not start or does not answer
        :raises SimulatorUnusableError: if the simulator cannot be used as requested
        """
        address = self._find()
        try:
            if self.is_ours and (self._simulator is None or not self._simulator.is_running()):
                address = self._start()
            else:
                wait_for_server(*address, self.settings.timeout_s, is_starting=False)
        except UnknownHostError as error:
            if not self._has_answered:
                raise
            # The name was known before. The name service may be down, or a container with this name may be restarting.
            raise SimulatorLostError(str(error)) from error
        self._has_answered = True
        return address

    def answers(self) -> bool:
        """Return whether the server answers a probe. A server that answers is alive, even if other calls fail."""
        if self.address is None:
            return False
        try:
            server_version(*self.address, min(1.0, self.settings.timeout_s))
        except (SimulatorLostError, SimulatorUnusableError):
            return False
        return True

    def restart(self) -> None:
        """End the simulator if this object started it; any other server keeps running.

        If the settings have a command, the next :meth:`ensure` starts a new simulator. Otherwise, the next
        :meth:`ensure` probes the same server again.
        """
        if self.settings.command is not None:
            self._shared_address = None
        if self._simulator is not None:
            self._simulator.stop()
            self._simulator = None

    def close(self) -> None:
        """End the simulator if this object started it, and release the port; a second call does nothing."""
        self.restart()
        if self._lease is not None:
            self._lease.release()
            self._lease = None

    def _find(self) -> Address:
        if self.address is None:
            settings = self.settings
            if settings.is_shared:
                # A shared server needs no lease, because its environments take turns.
                return Address(settings.host, settings.ports[0])
            if settings.command is not None:
                self._lease = lease_free(settings.ports[0])
            else:
                self._lease = lease_running(settings.host, settings.ports)
        assert self.address is not None
        return self.address

    def _start(self) -> Address:
        assert self.settings.command is not None
        assert self._lease is not None
        self.restart()
        if not self._lease.is_free():
            # Another program took the port while the simulator was down. A new simulator could not listen there, and
            # the client would connect to the other program.
            self._lease.release()
            self._lease = lease_free(self.settings.ports[0])
        address = Address(self.settings.host, self._lease.port)
        simulator = Simulator(self.settings.command, address.port)
        self._simulator = simulator
        try:
            wait_for_server(*address, self.settings.start_timeout_s, is_starting=True, check=simulator.check)
        except SimulatorLostError:
            self.restart()
            raise
        return address
