"""A client of a few lines that speaks the protocol by hand: what the tests without CARLA's client use."""

import socket
import struct

import msgpack


class WireClient:
    """Calls one server; ``subscribe`` opens a stream."""

    def __init__(self, port, host="127.0.0.1"):
        self.host, self.port = host, port
        self._socket = socket.create_connection((host, port), timeout=10.0)
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

    def call(self, name, *arguments):
        """Return the value of a call, ``None`` of one that returns nothing; raise its error."""
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

    def spawn(self, type_id, place, parent=None, **attributes):
        """Return the number and the stream token of a new actor; ``place`` is x, y, z, pitch, yaw, roll."""
        description = [0, type_id, [[name, 4, str(value)] for name, value in attributes.items()]]
        transform = [list(place[:3]), list(place[3:])]
        if parent is None:
            record = self.call("spawn_actor", description, transform)
        else:
            record = self.call("spawn_actor_with_parent", description, transform, parent, 0, "")
        return record[0], record[5]

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
    """One stream; iterate over ``next()``."""

    def __init__(self, host, token):
        stream_id, port, protocol, address = struct.unpack_from("<IHBB", token)
        assert (protocol, address) == (1, 0)
        self._socket = socket.create_connection((host, port), timeout=10.0)
        self._socket.sendall(struct.pack("<I", stream_id))

    def next(self):
        """Return sensor index, frame, seconds, place and body of the next message."""
        (size,) = struct.unpack("<I", self._read(4))
        payload = self._read(size)
        sensor, frame, seconds, *place = struct.unpack_from("<QQd6f", payload)
        return sensor, frame, seconds, tuple(place), payload[48:]

    def settle(self, client):
        """Tick until the first message arrives, for subscriptions are asynchronous."""
        self._socket.settimeout(0.05)
        for _ in range(100):
            client.tick()
            try:
                message = self.next()
            except TimeoutError:
                continue
            self._socket.settimeout(10.0)
            return message
        raise AssertionError("nothing was sent")

    def is_hung_up(self):
        """Read what is left and return whether that was all."""
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
    """Return the actors of a world state by number: place (6), velocity (3), angular (3), acceleration (3), extra."""
    assert (len(body) - 36) % 119 == 0
    found = {}
    for start in range(36, len(body), 119):
        number, _, *numbers = struct.unpack_from("<IB15f", body, start)
        found[number] = numbers
    return found
