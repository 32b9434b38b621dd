"""A small client that speaks the protocol by hand, for the tests that run without CARLA's client."""

import select
import socket
import struct
import time

import msgpack

# How long to wait for an answer: a safety net, long enough for a busy machine.
TIMEOUT_S = 120.0


class WireClient:
    """Call one server; ``subscribe`` opens a stream."""

    def __init__(self, port, host="127.0.0.1"):
        self.host, self.port = host, port
        self._socket = socket.create_connection((host, port), timeout=TIMEOUT_S)
        self._unpacker = msgpack.Unpacker(raw=False)
        self._number = 0

    def raw(self, name, *arguments):
        """Return the whole response."""
        self._number += 1
        self._socket.sendall(msgpack.packb([0, self._number, name, [[False], *arguments]]))
        while True:
            for message in self._unpacker:
                assert message[:2] == [1, self._number]
                return message
            received = self._socket.recv(65_536)
            if not received:
                raise ConnectionError
            self._unpacker.feed(received)

    def send(self, name, *arguments):
        """Make a call without waiting for a response."""
        self._socket.sendall(msgpack.packb([0, 0, name, [[True], *arguments]]))

    def call(self, name, *arguments):
        """Return the value of a call, or None if it returns nothing; raise its error."""
        _, _, error, result = self.raw(name, *arguments)
        assert error is None
        (status, *content) = result[0]
        if status is False:
            return None
        if status == 1 and status is not True:
            return content[0]
        raise RuntimeError(content[0][0])

    def synchronous(self, step_s=0.05):
        self.call(
            "set_episode_settings", [True, False, [True, step_s], True, 0.01, 10, 0.0, False, 3000.0, 2000.0, True]
        )

    def spawn(self, type_id, transform, parent=None, **attributes):
        """Return the id and the stream token of a new actor; ``transform`` is x, y, z, pitch, yaw, roll."""
        description = [0, type_id, [[name, 4, str(value)] for name, value in attributes.items()]]
        message = [list(transform[:3]), list(transform[3:])]
        if parent is None:
            actor = self.call("spawn_actor", description, message)
        else:
            actor = self.call("spawn_actor_with_parent", description, message, parent, 0, "")
        return actor[0], actor[5]

    def spawn_points(self):
        return [(*location, *rotation) for location, rotation in self.call("get_map_info")[1]]

    def tick(self, n=1):
        for _ in range(n):
            frame = self.call("tick_cue")
        return frame

    def subscribe(self, token):
        return Stream(self.host, token)

    def close(self):
        self._socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Stream:
    """One stream, read with ``next()``."""

    def __init__(self, host, token):
        stream_id, port, protocol, address = struct.unpack_from("<IHBB", token)
        assert (protocol, address) == (1, 0)
        self._socket = socket.create_connection((host, port), timeout=TIMEOUT_S)
        self._socket.sendall(struct.pack("<I", stream_id))

    def next(self):
        """Return sensor number, frame, seconds, transform and body of the next measurement."""
        (size,) = struct.unpack("<I", self._read(4))
        payload = self._read(size)
        sensor, frame, seconds, *transform = struct.unpack_from("<QQd6f", payload)
        return sensor, frame, seconds, tuple(transform), payload[48:]

    def settle(self, client):
        """Tick until the first measurement arrives: subscriptions are asynchronous."""
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            client.tick()
            readable, _, _ = select.select([self._socket], [], [], 0.05)
            if readable:
                return self.next()
        raise AssertionError("no measurement arrived")

    def is_closed(self):
        """Read what is left and return whether the server has closed the stream."""
        try:
            for _ in range(1000):
                self.next()
        except ConnectionError:
            return True
        return False

    def _read(self, size):
        data = b""
        while len(data) < size:
            received = self._socket.recv(size - len(data))
            if not received:
                raise ConnectionError
            data += received
        return data

    def close(self):
        self._socket.close()


def actors_of(body):
    """Return the actors of a world state by id: transform (6), velocity (3), angular velocity (3), acceleration (3)."""
    assert (len(body) - 36) % 119 == 0
    found = {}
    for start in range(36, len(body), 119):
        actor_id, _, *values = struct.unpack_from("<IB15f", body, start)
        found[actor_id] = values
    return found
