"""Run the stream server: clients subscribe to a stream by its number and receive every measurement sent on it.

A client sends the stream's number as a little-endian ``u32``, and only listens from then on. The server sends a ``u32``
size and the payload of each measurement.
"""

from __future__ import annotations

import selectors
import socket
import struct
from collections.abc import Callable

_U32 = struct.Struct("<I")
# About 30 images of 800 x 600. A client that falls farther behind loses measurements, so that one client that stops
# reading does not fill the server's memory.
_MAX_BACKLOG_BYTES = 64_000_000


class _Subscriber:
    """Hold a client's connection, which subscribes to one stream."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.request = b""
        self.stream_id: int | None = None
        """The number of the stream; None until the client has sent it."""
        self.backlog = bytearray()
        """Bytes that could not be sent yet, because the client reads too slowly."""
        self.is_waiting = False
        """Whether the selector also reports when the socket can be written to."""


class StreamServer:
    """Accept subscribers and send measurements to them; a slow subscriber never blocks the server.

    :param selector: the server's selector, whose entries have an event handler as their data
    :param listener: a listening socket
    :param accept: returns the next connection; None if no client is waiting
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
        """Return the number of open connections."""
        return self._n_connections

    def has_subscriber(self, stream_id: int) -> bool:
        """Return whether a client has subscribed to this stream."""
        return bool(self._subscribers.get(stream_id))

    def keep(self, stream_id: int, payload: bytes | None) -> None:
        """Set the payload that each new subscriber of a stream receives first.

        :param stream_id: number of the stream
        :param payload: None to send nothing first
        """
        self._kept.pop(stream_id, None)
        if payload is not None:
            self._kept[stream_id] = _U32.pack(len(payload)) + payload

    def send(self, stream_id: int, payload: bytes) -> None:
        """Send a measurement to all subscribers of a stream, except those with a full backlog.

        :param stream_id: number of the stream
        :param payload: sensor header and body
        """
        for subscriber in tuple(self._subscribers.get(stream_id, ())):
            message = _U32.pack(len(payload)) + payload
            if subscriber.backlog:
                # Only whole messages are dropped; half a message would shift everything after it.
                if len(subscriber.backlog) < _MAX_BACKLOG_BYTES:
                    subscriber.backlog += message
                continue
            self._write(subscriber, message)

    def end(self, stream_id: int) -> None:
        """Close the connections of all subscribers of a stream."""
        for subscriber in tuple(self._subscribers.get(stream_id, ())):
            self._drop(subscriber)

    def _accept(self) -> None:
        connection = self._accept_next()
        if connection is None:
            return
        connection.setblocking(False)
        subscriber = _Subscriber(connection)
        self._n_connections += 1
        self._selector.register(connection, selectors.EVENT_READ, self._event_handler(subscriber))

    def _event_handler(self, subscriber: _Subscriber) -> Callable[[int], None]:
        def handle(events: int) -> None:
            if events & selectors.EVENT_READ:
                self._read(subscriber)
            # Reading may have dropped the subscriber and closed its socket.
            if events & selectors.EVENT_WRITE and subscriber.connection.fileno() >= 0:
                backlog = bytes(subscriber.backlog)
                subscriber.backlog.clear()
                self._write(subscriber, backlog)

        return handle

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
        # After the stream's number, data from a client has no meaning.
        if subscriber.stream_id is None:
            subscriber.request += received
            if len(subscriber.request) >= _U32.size:
                (subscriber.stream_id,) = _U32.unpack_from(subscriber.request)
                self._subscribers.setdefault(subscriber.stream_id, []).append(subscriber)
                if subscriber.stream_id in self._kept:
                    self._write(subscriber, self._kept[subscriber.stream_id])

    def _write(self, subscriber: _Subscriber, data: bytes) -> None:
        """Send as many bytes as the socket accepts now, and store the others in the subscriber's backlog."""
        try:
            n_sent = subscriber.connection.send(data)
        except BlockingIOError:
            n_sent = 0
        except OSError:
            self._drop(subscriber)
            return
        subscriber.backlog += data[n_sent:]
        must_wait = bool(subscriber.backlog)
        if must_wait != subscriber.is_waiting:
            subscriber.is_waiting = must_wait
            events = selectors.EVENT_READ
            if must_wait:
                events |= selectors.EVENT_WRITE
            self._selector.modify(subscriber.connection, events, self._event_handler(subscriber))

    def _drop(self, subscriber: _Subscriber) -> None:
        if subscriber.connection.fileno() < 0:
            return  # dropped already
        self._selector.unregister(subscriber.connection)
        subscriber.connection.close()
        self._n_connections -= 1
        if subscriber.stream_id is not None:
            subscribers = self._subscribers[subscriber.stream_id]
            subscribers.remove(subscriber)
            if not subscribers:
                del self._subscribers[subscriber.stream_id]
