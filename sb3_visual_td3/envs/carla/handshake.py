"""Asks what listens on a port whether it speaks CARLA, before the official client does.

The client ends the whole process when it meets anything else there, and waits for its whole time limit where nothing
listens at all.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

from sb3_visual_td3.envs.carla.failures import SimulatorLostError, SimulatorUnusableError

CLIENT_VERSION = "0.9.16"
_MAX_ANSWER_BYTES = 65_536
_START_IT = (
    "start the simulator (./CarlaUE4.sh -RenderOffScreen -carla-rpc-port={port}, or without one: "
    "visual-td3 carla-emulator --port {port}), or name another host and port"
)


def server_version(host: str, port: int, timeout_s: float) -> str:
    """Return the version that the server on this port says it has.

    :param host: name or address.
    :param port: of the server's RPC.
    :param timeout_s: how long to wait for the answer, > 0.
    :raises SimulatorLostError: if nothing listens there (yet), or it does not answer.
    :raises SimulatorUnusableError: if the host is unknown, or what listens speaks something else.
    :raises ImportError: if the extra ``carla`` is not installed.
    """
    unpacker, request = _unpacker(), _request()
    deadline = time.monotonic() + timeout_s
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as connection:
            connection.sendall(request)
            n_bytes = 0
            while True:
                connection.settimeout(max(1e-3, deadline - time.monotonic()))
                received = connection.recv(4096)
                n_bytes += len(received)
                unpacker.feed(received)
                for answer in unpacker:
                    return _version_in(answer, host, port)
                if not received or n_bytes > _MAX_ANSWER_BYTES:
                    raise _is_no_carla(host, port)
                if time.monotonic() > deadline:
                    raise TimeoutError
    except socket.gaierror as error:
        raise SimulatorUnusableError(f"host={host!r}: there is no such host; name the one that runs CARLA") from error
    except TimeoutError as error:
        raise SimulatorLostError(
            f"{host}:{port} does not answer within {timeout_s:g} s: it hangs, is still loading, or is no CARLA; "
            "restart it, or wait longer with timeout_s"
        ) from error
    except (ConnectionResetError, BrokenPipeError, ValueError) as error:  # ValueError: it is no msgpack
        raise _is_no_carla(host, port) from error
    except OSError as error:
        raise SimulatorLostError(
            f"nothing listens on {host}:{port} ({error}); {_START_IT.format(port=port)}"
        ) from error


def wait_for_server(
    host: str, port: int, timeout_s: float, *, is_starting: bool, check: Callable[[], None] | None = None
) -> str:
    """Return the server's version once it answers, asking again while it may still be on its way up.

    :param host: name or address.
    :param port: of the server's RPC.
    :param timeout_s: longest wait, > 0.
    :param is_starting: whether a port where nothing listens is given that time.
    :param check: called before each further try; may raise what ends the wait.
    :raises SimulatorLostError: as ``server_version``, after ``timeout_s``.
    :raises SimulatorUnusableError: as ``server_version``, or if client and server do not fit.
    """
    deadline, pause_s = time.monotonic() + timeout_s, 0.02
    while True:
        try:
            version = server_version(host, port, max(0.1, deadline - time.monotonic()))
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


def _unpacker() -> Any:
    try:
        import msgpack
    except ImportError as error:
        raise ImportError("CarlaDriving-v0 needs CARLA's client: pip install 'sb3-visual-td3[carla]'") from error
    return msgpack.Unpacker(raw=False, strict_map_key=False, max_buffer_size=_MAX_ANSWER_BYTES)


def _request() -> bytes:
    import msgpack

    packed: bytes = msgpack.packb([0, 1, "version", [[False]]])
    return packed


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
