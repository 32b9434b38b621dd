"""The line between the learner and one environment: what crosses it at every step, past Ray's calls.

It is what ``SubprocVecEnv`` has, a connection of ``multiprocessing``, stretched to another machine. One of Ray's calls
takes the two of them about a millisecond of processor time, whatever it carries.
"""

from __future__ import annotations

import hmac
import pickle
import secrets
import socket
from collections.abc import Sequence
from multiprocessing import connection
from typing import Any, NamedTuple, TypeVar, cast

import cloudpickle
import numpy as np

_ANSWER_S = 30.0
_DIAL_S = 3.0
_KEY_S = 1.0
_KEY_BYTES = 32
_OWN_MESSAGE_BYTES = 64 * 2**10
_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4}


class LineBrokenError(ConnectionError):
    """Nobody is at the other end any more."""


class Address(NamedTuple):
    """Where a door is, and what opens it."""

    host: str
    port: int
    key: bytes


class Line:
    """Carries values to and from one other process, in order.

    Large arrays travel as they are: they are written from where they are, and read to where they stay.

    :param sock: is connected to the other, and is the line's from now on
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(None)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():  # a machine that is switched off says no goodbye
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self._connection = connection.Connection(sock.detach())

    def fileno(self) -> int:
        """:return: what the system calls it, for those who wait on many"""
        return self._connection.fileno()

    def send(self, value: Any) -> None:
        """:raises LineBrokenError: if nobody is there"""
        large: list[memoryview] = []

        def is_small(buffer: pickle.PickleBuffer) -> bool:
            raw = buffer.raw()
            if raw.nbytes >= _OWN_MESSAGE_BYTES:
                large.append(raw)
            return raw.nbytes < _OWN_MESSAGE_BYTES

        try:
            packed = pickle.dumps(value, 5, buffer_callback=is_small)
        except (pickle.PicklingError, AttributeError, TypeError):  # known to this process alone
            large.clear()
            packed = cloudpickle.dumps(value, 5, buffer_callback=is_small)
        try:
            self._connection.send_bytes(pickle.dumps(([raw.nbytes for raw in large], packed), 5))
            for raw in large:
                self._connection.send_bytes(raw)
        except OSError as error:
            raise LineBrokenError(str(error)) from error

    def receive(self) -> Any:
        """:return: what the other has sent; waits for it

        :raises LineBrokenError: if nobody is there
        """
        try:
            sizes, packed = pickle.loads(self._connection.recv_bytes())
            buffers = [np.empty(size, np.uint8) for size in sizes]
            for buffer in buffers:
                self._connection.recv_bytes_into(buffer)
        except (OSError, EOFError) as error:
            raise LineBrokenError(str(error) or "closed by the other side") from error
        return pickle.loads(packed, buffers=buffers)

    def has_news(self, timeout_s: float = 0.0) -> bool:
        """:return: whether :meth:`receive` need not wait, as soon as that is so, or time is up"""
        return bool(wait_for_news([self], timeout_s))

    def close(self) -> None:
        """Hang up; a second call does nothing."""
        self._connection.close()


AnyLine = TypeVar("AnyLine", bound=Line)


class Door:
    """Where the learner comes in, once, with the key.

    :param host: the address, of this machine, at which to listen
    :raises OSError: if there is no listening there
    """

    def __init__(self, host: str) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, 0), family=family)
        self.address = Address(host, self._socket.getsockname()[1], secrets.token_bytes(_KEY_BYTES))

    def open(self) -> Line:
        """:return: the line to whoever has come with the key, behind whom the door is shut

        :raises LineBrokenError: if nobody comes in half a minute
        """
        try:
            self._socket.settimeout(_ANSWER_S)
            while True:
                sock, _ = self._socket.accept()
                if hmac.compare_digest(_first_bytes(sock), self.address.key):
                    return Line(sock)
                sock.close()
        except OSError as error:
            raise LineBrokenError(f"nobody came to {self.address.host}:{self.address.port}: {error}") from error
        finally:
            self.shut()

    def shut(self) -> None:
        """Let nobody in any more; a second call does nothing."""
        self._socket.close()


def dial(address: Address) -> socket.socket:
    """Come to a door; nobody need be there to open it yet.

    :return: what the line is made of
    :raises OSError: if its machine is out of reach
    """
    sock = socket.create_connection((address.host, address.port), _DIAL_S)
    sock.sendall(address.key)
    return sock


def wait_for_news(lines: Sequence[AnyLine], timeout_s: float) -> list[AnyLine]:
    """:return: the lines on which somebody has said something, or has hung up, as soon as there is one"""
    by_number = {line.fileno(): line for line in lines}
    return [by_number[cast(int, number)] for number in connection.wait(list(by_number), timeout_s)]


def _first_bytes(sock: socket.socket) -> bytes:
    """:return: what a stranger says, up to the length of a key; nothing, where they take their time"""
    sock.settimeout(_KEY_S)
    said = b""
    try:
        while len(said) < _KEY_BYTES and (more := sock.recv(_KEY_BYTES - len(said))):
            said += more
    except OSError:
        return b""
    return said
