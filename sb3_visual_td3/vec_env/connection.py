"""Carry the steps of one environment over a network connection to the learner.

Ray's own calls are not used for steps, because each takes about a millisecond of processor time on both sides.

Values are pickled, and unpickling executes code. Therefore a listener accepts a single client, which must first send a
secret key. The key is exchanged through Ray.
"""

from __future__ import annotations

import hmac
import pickle
import secrets
import socket
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import connection as mp_connection
from typing import Any, NamedTuple, TypeVar, cast

import cloudpickle
import numpy as np

_ACCEPT_TIMEOUT_S = 30.0
_CONNECT_TIMEOUT_S = 3.0
_KEY_TIMEOUT_S = 1.0
"""How long a client may take to send its key, in seconds."""
_KEY_BYTES = 32
_SEPARATE_MESSAGE_BYTES = 64 * 2**10
"""Arrays of at least this many bytes are sent as separate messages, without a copy."""
_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4}
"""Settings of TCP's keepalive. A connection is broken after about 30 s without an answer. The system's default is two
hours."""


class ConnectionLostError(ConnectionError):
    """Report that the other side has closed the connection or can no longer be reached."""


class Address(NamedTuple):
    """Hold the address where a :class:`Listener` accepts a connection, and the key that a client sends first."""

    host: str
    port: int
    key: bytes


class Connection:
    """Exchange Python values with one other process, in order.

    Large arrays are not copied (pickle protocol 5 with out-of-band buffers, PEP 574).

    :param sock: a connected socket, which belongs to this object from now on
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(None)
        # Without TCP_NODELAY the system would hold back a small message, such as an action, until the previous one is
        # acknowledged, which takes up to 40 ms.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A machine that loses its power does not close its connections. Keepalive packets detect this.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):  # macOS and Windows lack some of these options
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        # multiprocessing's Connection frames the messages; it works on any file descriptor, a socket's included.
        self._connection = mp_connection.Connection(sock.detach())

    def fileno(self) -> int:
        """Return the socket's file descriptor, so that one call can wait for several connections."""
        return self._connection.fileno()

    def send(self, value: Any) -> None:
        """Send a value.

        :param value: any value that pickle or cloudpickle can serialise
        :raises ConnectionLostError: if the connection is broken
        """
        large: list[memoryview] = []

        def belongs_into_message(buffer: pickle.PickleBuffer) -> bool:
            # pickle calls this for each array: True copies the array into the message, False leaves it out.
            raw = buffer.raw()
            if raw.nbytes >= _SEPARATE_MESSAGE_BYTES:
                large.append(raw)
            return raw.nbytes < _SEPARATE_MESSAGE_BYTES

        try:
            packed = pickle.dumps(value, 5, buffer_callback=belongs_into_message)
        except (pickle.PicklingError, AttributeError, TypeError):
            # Only cloudpickle serialises local classes and lambdas by value, but it is slower. pickle.dumps may have
            # collected some arrays before it failed.
            large.clear()
            packed = cloudpickle.dumps(value, 5, buffer_callback=belongs_into_message)
        try:
            self._connection.send_bytes(pickle.dumps(([raw.nbytes for raw in large], packed), 5))
            for raw in large:
                self._connection.send_bytes(raw)
        except OSError as error:
            raise ConnectionLostError(str(error)) from error

    def receive(self) -> Any:
        """Wait for the next value from the other side.

        :return: the value; its arrays are writeable
        :raises ConnectionLostError: if the connection is broken
        """
        try:
            sizes, packed = pickle.loads(self._connection.recv_bytes())
            # Allocate memory for each large array: unpickled arrays use it directly, and are writeable.
            buffers = [np.empty(size, np.uint8) for size in sizes]
            for buffer in buffers:
                self._connection.recv_bytes_into(buffer)
        except (OSError, EOFError) as error:
            raise ConnectionLostError(str(error) or "the other side has closed the connection") from error
        return pickle.loads(packed, buffers=buffers)

    def poll(self, timeout_s: float = 0.0) -> bool:
        """Wait up to ``timeout_s`` for a value, and return whether a value has arrived.

        :param timeout_s: longest wait, in seconds; 0 returns at once
        :return: True if a value has arrived or the connection is broken; :meth:`receive` then returns the value or
            raises the error
        """
        return bool(wait_for_messages([self], timeout_s))

    def close(self) -> None:
        """Close the connection; a second call does nothing."""
        self._connection.close()


AnyConnection = TypeVar("AnyConnection", bound=Connection)


class ActorConnection(Connection):
    """Step an :class:`EnvActor` over a connection; this is the learner's side.

    While the actor serves the connection, it does not answer Ray calls. So call :meth:`leave` before a Ray call.

    :param actor: Ray's handle of an :class:`EnvActor` that listens
    :param address: the address that ``listen`` returned
    :raises OSError: if the actor's machine cannot be reached
    """

    def __init__(self, actor: Any, address: Address) -> None:
        try:
            super().__init__(connect(address))
        except OSError:
            actor.close_listener.remote()  # otherwise its port would stay open
            raise
        self.service: Any = actor.serve.remote()
        """Ray's reference to the actor's call ``serve``. Its result is None, or an exception that the environment has
        raised."""
        self.is_left = False

    def leave(self) -> None:
        """Tell the actor to stop serving this connection.

        The actor finishes the step that it is making, if there is one. After that, the actor answers Ray calls again.
        """
        if not self.is_left:
            self.is_left = True
            with suppress(ConnectionLostError):
                self.send(None)

    def close(self) -> None:
        """Close the connection, even during a step; the actor then answers Ray calls again."""
        self.leave()
        super().close()


class Listener:
    """Accept one connection from a client that sends the valid key, and then stop listening.

    :param host: an address of this machine
    :raises OSError: if this machine does not have that address
    """

    def __init__(self, host: str) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, 0), family=family)
        self.address = Address(host, self._socket.getsockname()[1], secrets.token_bytes(_KEY_BYTES))

    def accept(self) -> Connection:
        """Wait for the first client with a valid key; the listener then closes.

        :raises ConnectionLostError: if no such client connects within 30 s
        """
        try:
            self._socket.settimeout(_ACCEPT_TIMEOUT_S)
            while True:
                sock, _ = self._socket.accept()
                # compare_digest takes the same time for any wrong key, so timing does not reveal the key.
                if hmac.compare_digest(_read_key(sock), self.address.key):
                    return Connection(sock)
                sock.close()
        except OSError as error:
            host, port = self.address.host, self.address.port
            raise ConnectionLostError(
                f"no client connected to {host}:{port}: {error}; check that the learner can reach this port"
            ) from error
        finally:
            self.close()

    def close(self) -> None:
        """Stop listening; a second call does nothing."""
        self._socket.close()


def connect(address: Address) -> socket.socket:
    """Connect to a listener and send the listener's secret key, without waiting until the listener accepts.

    :param address: host, port and secret key of the listener
    :return: the socket for a :class:`Connection`
    :raises OSError: if the machine cannot be reached
    """
    sock = socket.create_connection((address.host, address.port), _CONNECT_TIMEOUT_S)
    sock.sendall(address.key)
    return sock


def wait_for_messages(connections: Sequence[AnyConnection], timeout_s: float) -> list[AnyConnection]:
    """Wait until at least one connection has a message or has been closed by its other side.

    :param connections: the open connections
    :param timeout_s: longest wait in seconds
    :return: the connections that can be read; empty after the timeout
    """
    by_number = {each.fileno(): each for each in connections}
    return [by_number[cast(int, number)] for number in mp_connection.wait(list(by_number), timeout_s)]


def _read_key(sock: socket.socket) -> bytes:
    """Return the key that a client sends; fewer bytes if the client is too slow or closes the connection."""
    sock.settimeout(_KEY_TIMEOUT_S)
    received = b""
    try:
        while len(received) < _KEY_BYTES:
            more = sock.recv(_KEY_BYTES - len(received))
            if not more:
                break
            received += more
    except OSError:
        return b""
    return received
