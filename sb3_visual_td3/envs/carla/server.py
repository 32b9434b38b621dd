"""A CARLA server that environments share a place on: started or joined, asked for its version, left when unused.

The client ends the whole process when it meets anything else there, and waits for its whole time limit where nothing
listens at all.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from sb3_visual_td3.envs.carla.failures import (
    SimulatorAbsentError,
    SimulatorLostError,
    SimulatorUnusableError,
    UnknownHostError,
)
from sb3_visual_td3.envs.carla.launcher import Simulator
from sb3_visual_td3.envs.carla.port_lease import PortLease, lease_free, lease_running
from sb3_visual_td3.envs.carla.settings import ServerSettings

CLIENT_VERSION = "0.9.16"
_MAX_ANSWER_BYTES = 65_536
_ANSWER_HEAD = b"\x94\x01\x01\xc0"
"""How every answer to the request begins: an array of four, a response, to call 1, no error."""
_LONGEST_TRY_S = 10.0
"""A server that starts is asked again after so long: a first process may have taken the question with it."""
_START_IT = (
    "start the simulator (./CarlaUE4.sh -RenderOffScreen -carla-rpc-port={port}, or without one: "
    "visual-td3 carla-emulator --port {port}), or name another host and port"
)


def server_version(host: str, port: int, timeout_s: float) -> str:
    """Return the version that the server on this port says it has.

    :param host: name or address.
    :param port: of the server's RPC.
    :param timeout_s: how long to wait for the answer, > 0.
    :raises SimulatorAbsentError: if nothing listens there (yet).
    :raises SimulatorLostError: if it closes or resets the connection before it has answered, as a server does that
        dies or is only half up, or if it does not answer in time.
    :raises SimulatorUnusableError: if the host is unknown, or what listens answers in another language.
    :raises ImportError: if the extra ``carla`` is not installed.
    """
    msgpack = _msgpack()
    unpacker = msgpack.Unpacker(raw=False, strict_map_key=False, max_buffer_size=_MAX_ANSWER_BYTES)
    request: bytes = msgpack.packb([0, 1, "version", [[False]]])
    deadline = time.monotonic() + timeout_s
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as connection:
            if connection.getsockname() == connection.getpeername():
                # Where nothing listens on a port of the range that clients get theirs from, TCP may connect it to
                # itself, and the question would come back as the answer.
                raise ConnectionRefusedError("nothing but this very connection uses the port")
            connection.sendall(request)
            head, n_bytes = b"", 0
            while True:
                connection.settimeout(max(1e-3, deadline - time.monotonic()))
                received = connection.recv(4096)
                if not received:
                    raise _has_hung_up(host, port)
                n_bytes += len(received)
                unpacker.feed(received)
                for answer in unpacker:
                    return _version_in(answer, host, port)
                # Half an answer is no wrong answer: the rest may be on its way, or its sender may have died.
                head = (head + received)[: len(_ANSWER_HEAD)]
                if not _ANSWER_HEAD.startswith(head) or n_bytes > _MAX_ANSWER_BYTES:
                    raise _is_no_carla(host, port)
                if time.monotonic() > deadline:
                    raise TimeoutError
    except socket.gaierror as error:
        raise UnknownHostError(f"host={host!r}: there is no such host; name the one that runs CARLA") from error
    except TimeoutError as error:
        raise SimulatorLostError(
            f"{host}:{port} does not answer within {timeout_s:g} s: it hangs, is still loading, or is no CARLA; "
            "restart it, or wait longer with timeout_s"
        ) from error
    except (ConnectionResetError, ConnectionAbortedError, BrokenPipeError) as error:
        raise _has_hung_up(host, port) from error
    except (ValueError, TypeError, msgpack.UnpackException) as error:  # no msgpack, or a map with a list as its key
        raise _is_no_carla(host, port) from error
    except OSError as error:
        raise SimulatorAbsentError(
            f"nothing listens on {host}:{port} ({error}); {_START_IT.format(port=port)}"
        ) from error


def wait_for_server(
    host: str, port: int, timeout_s: float, *, is_starting: bool, check: Callable[[], None] | None = None
) -> str:
    """Return the server's version once it answers, asking again while it may still be on its way up.

    :param host: name or address.
    :param port: of the server's RPC.
    :param timeout_s: longest wait, > 0.
    :param is_starting: whether a server that is not there, or does not answer, is given that time.
    :param check: called before each further try; may raise what ends the wait.
    :raises SimulatorLostError: as ``server_version``, after ``timeout_s``.
    :raises SimulatorUnusableError: as ``server_version``, or if client and server do not fit.
    """
    deadline, pause_s = time.monotonic() + timeout_s, 0.02
    while True:
        try:
            left_s = max(0.1, deadline - time.monotonic())
            version = server_version(host, port, min(left_s, _LONGEST_TRY_S) if is_starting else left_s)
        except SimulatorLostError:
            if not is_starting or time.monotonic() + pause_s > deadline:
                raise
            if check is not None:
                check()
            time.sleep(pause_s)
            pause_s = min(1.0, 1.5 * pause_s)
        else:
            check_version(version, host, port)
            return version


def check_version(version: str, host: str, port: int) -> None:
    """Return where client and server fit together: their first three numbers are the same.

    CARLA's client only warns about it, and then reads the server's messages in its own layout.

    :raises SimulatorUnusableError: if they do not fit.
    """
    if version.split("-", maxsplit=1)[0].split(".")[:3] != CLIENT_VERSION.split("."):
        raise SimulatorUnusableError(
            f"the server on {host}:{port} is CARLA {version}, the client {CLIENT_VERSION}: expected the same version; "
            f"start CARLA {CLIENT_VERSION}, the one that this package knows"
        )


def _msgpack() -> Any:
    try:
        import msgpack
    except ImportError as error:
        raise ImportError("CarlaDriving-v0 needs CARLA's client: pip install 'sb3-visual-td3[carla]'") from error
    return msgpack


def _has_hung_up(host: str, port: int) -> SimulatorLostError:
    return SimulatorLostError(
        f"what listens on {host}:{port} closed the connection before it had answered: a CARLA server that dies or is "
        "only half up, or no CARLA at all; look at what the server prints, and at the port"
    )


def _version_in(answer: Any, host: str, port: int) -> str:
    match answer:
        case [1, 1, None, [[_, str(version)]]] | [1, 1, None, [1, str(version)]]:
            return version
    raise _is_no_carla(host, port)


def _is_no_carla(host: str, port: int) -> SimulatorUnusableError:
    return SimulatorUnusableError(
        f"what listens on {host}:{port} does not speak CARLA's protocol: expected a CARLA server; "
        "name its port (CARLA's own default is 2000)"
    )


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    port: int


class Server:
    """Nothing is leased or started before :meth:`ensure`.

    :param settings: where the simulator is.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self._lease: PortLease | None = None
        self._shared_with: Address | None = None
        self._simulator: Simulator | None = None
        self._has_answered = False

    @property
    def address(self) -> Address | None:
        """Where the server is, once it has been looked for."""
        if self._shared_with is not None:
            return self._shared_with
        return None if self._lease is None else Address(self.settings.host, self._lease.port)

    @property
    def is_ours(self) -> bool:
        """Whether the simulator is started and ended here."""
        return self.settings.command is not None and self._shared_with is None

    @property
    def is_shared(self) -> bool:
        """Whether another environment drives on it too, by turns."""
        return self._shared_with is not None or self.settings.is_shared

    def share(self, address: Address) -> None:
        """Use, by turns with whoever has leased it, a server that runs."""
        self.close()
        self._shared_with = address

    def ensure(self) -> Address:
        """Return where the server is, which answers by now.

        :raises SimulatorLostError: if it does not come up or does not answer.
        :raises SimulatorUnusableError: if it cannot be used.
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
            # The name was known: the name service is down, or forgets a container's name until it runs again.
            raise SimulatorLostError(str(error)) from error
        self._has_answered = True
        return address

    def answers(self) -> bool:
        """Return whether the server answers now: it is alive, whatever else it does not do."""
        if self.address is None:
            return False
        try:
            server_version(*self.address, min(1.0, self.settings.timeout_s))
        except (SimulatorLostError, SimulatorUnusableError):
            return False
        return True

    def restart(self) -> None:
        """End the simulator, if it is ours; :meth:`ensure` starts it anew, or one in place of a shared one."""
        if self.settings.command is not None:
            self._shared_with = None
        if self._simulator is not None:
            self._simulator.stop()
            self._simulator = None

    def close(self) -> None:
        """End the simulator, if it is ours, and give the port back; a second call does nothing."""
        self.restart()
        if self._lease is not None:
            self._lease.release()
            self._lease = None

    def _find(self) -> Address:
        if self.address is None:
            settings = self.settings
            if settings.is_shared:
                return Address(settings.host, settings.ports[0])
            is_started_here = settings.command is not None
            self._lease = lease_free(settings.ports[0]) if is_started_here else lease_running(*_place(settings))
        assert self.address is not None
        return self.address

    def _start(self) -> Address:
        assert self.settings.command is not None
        assert self._lease is not None
        self.restart()
        if not self._lease.is_free():
            # Something has taken the port while our simulator was down. It could not listen there, and what does
            # would be taken for it.
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


def _place(settings: ServerSettings) -> tuple[str, tuple[int, ...]]:
    return settings.host, settings.ports
