"""Streams of measurements: a client connects, names one, and gets whatever is sent on it."""

from __future__ import annotations

import selectors
import socket
import struct
from collections.abc import Callable

_SIZE = struct.Struct("<I")
_MAX_WAITING_BYTES = 64_000_000


class _Subscriber:
    """A connection to a client that listens to a stream."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.asked = b""
        self.stream_id: int | None = None
        self.waiting = bytearray()


class StreamServer:
    """Accepts subscribers and sends to them without ever waiting for one.

    :param selector: where it waits for news; each entry's data is a function of the events.
    :param listener: a socket that listens.
    :param accept: returns the next connection; None: there is none.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        listener: socket.socket,
        accept: Callable[[], socket.socket | None],
    ) -> None:
        self._selector, self._accept_next = selector, accept
        self._subscribers: dict[int, list[_Subscriber]] = {}
        self._kept: dict[int, bytes] = {}
        self._n_connections = 0
        selector.register(listener, selectors.EVENT_READ, lambda _: self._accept())

    @property
    def n_connections(self) -> int:
        """How many clients' connections are open."""
        return self._n_connections

    def has_subscriber(self, stream_id: int) -> bool:
        """Return whether anybody listens to this stream."""
        return bool(self._subscribers.get(stream_id))

    def keep(self, stream_id: int, payload: bytes | None) -> None:
        """Have whoever subscribes from now on get this first; ``None``: nothing."""
        self._kept.pop(stream_id, None)
        if payload is not None:
            self._kept[stream_id] = _SIZE.pack(len(payload)) + payload

    def send(self, stream_id: int, payload: bytes) -> None:
        """Send a measurement to all who listen; a client that does not read for long loses what comes last."""
        for subscriber in tuple(self._subscribers.get(stream_id, ())):
            message = _SIZE.pack(len(payload)) + payload
            if subscriber.waiting:
                if len(subscriber.waiting) < _MAX_WAITING_BYTES:
                    subscriber.waiting += message
                continue
            self._write(subscriber, message)

    def end(self, stream_id: int) -> None:
        """Hang up on all who listen to this stream."""
        for subscriber in tuple(self._subscribers.get(stream_id, ())):
            self._drop(subscriber)

    def _accept(self) -> None:
        connection = self._accept_next()
        if connection is None:
            return
        connection.setblocking(False)
        subscriber = _Subscriber(connection)
        self._n_connections += 1
        self._selector.register(connection, selectors.EVENT_READ, self._on_events(subscriber))

    def _on_events(self, subscriber: _Subscriber) -> Callable[[int], None]:
        def on_events(events: int) -> None:
            if events & selectors.EVENT_READ:
                self._read(subscriber)
            if events & selectors.EVENT_WRITE and subscriber.connection.fileno() >= 0:
                waiting = bytes(subscriber.waiting)
                subscriber.waiting.clear()
                self._write(subscriber, waiting)

        return on_events

    def _read(self, subscriber: _Subscriber) -> None:
        try:
            received = subscriber.connection.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        if not received:
            self._drop(subscriber)
            return
        if subscriber.stream_id is None:
            subscriber.asked += received
            if len(subscriber.asked) >= _SIZE.size:
                (subscriber.stream_id,) = _SIZE.unpack_from(subscriber.asked)
                self._subscribers.setdefault(subscriber.stream_id, []).append(subscriber)
                if subscriber.stream_id in self._kept:  # it may wait for what was sent while it was on its way
                    self._write(subscriber, self._kept[subscriber.stream_id])

    def _write(self, subscriber: _Subscriber, data: bytes) -> None:
        try:
            n_sent = subscriber.connection.send(data)
        except BlockingIOError:
            n_sent = 0
        except OSError:
            self._drop(subscriber)
            return
        subscriber.waiting += data[n_sent:]
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if subscriber.waiting else 0)
        if self._selector.get_key(subscriber.connection).events != events:
            self._selector.modify(subscriber.connection, events, self._on_events(subscriber))

    def _drop(self, subscriber: _Subscriber) -> None:
        if subscriber.connection.fileno() < 0:
            return
        self._selector.unregister(subscriber.connection)
        subscriber.connection.close()
        self._n_connections -= 1
        if subscriber.stream_id is not None:
            subscribers = self._subscribers[subscriber.stream_id]
            subscribers.remove(subscriber)
            if not subscribers:
                del self._subscribers[subscriber.stream_id]
