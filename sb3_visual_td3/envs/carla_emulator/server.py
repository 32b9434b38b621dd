"""The server: one loop that reads calls, answers them, and sends what is measured."""

from __future__ import annotations

import selectors
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from sb3_visual_td3.envs.carla_emulator.calls import Calls
from sb3_visual_td3.envs.carla_emulator.city_traffic import CityTraffic
from sb3_visual_td3.envs.carla_emulator.faults import Fault
from sb3_visual_td3.envs.carla_emulator.protocol import CallReader, answer
from sb3_visual_td3.envs.carla_emulator.simulation import DEFAULT_STEP_S, Simulation
from sb3_visual_td3.envs.carla_emulator.streaming import StreamServer

_BACKLOG = 16
_CHUNK_BYTES = 65_536
_PATIENCE_S = 2.0
_SLACK_S = 0.02


@dataclass(frozen=True)
class EmulatorSettings:
    """What a server is told when it starts."""

    port: int = 2000
    """Of the calls; streams have the next one. 0: any two that are free."""
    host: str = "127.0.0.1"
    map_name: str = "train_0"
    is_realtime: bool = False
    """Whether synchronous ticks, too, take as long as the time that they simulate."""
    faults: tuple[Fault, ...] = ()
    n_cars: int = 0
    """Cars that the server drives itself."""
    seed: int = 0
    """Of those cars."""
    is_quiet: bool = False
    """Whether calls that it does not know are passed over in silence."""


class EmulatorServer:
    """Listens as soon as it is made.

    :param settings: where and what.
    :raises OSError: if the port, or the next one, is taken.
    """

    def __init__(self, settings: EmulatorSettings) -> None:
        self._settings = settings
        listener, stream_listener = _listen(settings.host, settings.port)
        self.port, self.stream_port = listener.getsockname()[1], stream_listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._streams = StreamServer(self._selector, stream_listener)
        traffic = CityTraffic(settings.n_cars, settings.seed)
        self._simulation = Simulation(settings.map_name, self._streams, self.stream_port, settings.faults, traffic)
        self._calls = Calls(self._simulation, self._streams, self.stream_port)
        self._selector.register(listener, selectors.EVENT_READ, lambda _: self._accept(listener))
        self._next_tick_s = 0.0

    def serve(self) -> NoReturn:
        """Serve until an exception, such as a signal's handler raises."""
        while True:
            for key, events in self._selector.select(self._pause_s()):
                key.data(events)
            if not self._simulation.is_synchronous and time.monotonic() >= self._next_tick_s:
                # From when it was due, so that the pace is kept; after a pause it does not catch up.
                due_s = max(self._next_tick_s, time.monotonic() - _SLACK_S)
                self._next_tick_s = due_s + (self._simulation.step_s or DEFAULT_STEP_S)
                self._simulation.tick()

    def close(self) -> None:
        """Close every connection."""
        for key in tuple(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        self._selector.close()

    def _pause_s(self) -> float | None:
        if self._simulation.is_synchronous:
            return None
        return max(0.0, self._next_tick_s - time.monotonic())

    def _accept(self, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(_PATIENCE_S)  # with one that does not read its answers
        reader = CallReader()
        self._selector.register(connection, selectors.EVENT_READ, lambda _: self._read(connection, reader))
        self._simulation.n_clients += 1

    def _read(self, connection: socket.socket, reader: CallReader) -> None:
        try:
            received = connection.recv(_CHUNK_BYTES)
            if not received:
                raise ConnectionError
            for call in reader.read(received):
                self._pace(call.name)
                result, complaint = self._calls.answer(call.name, call.arguments)
                if complaint and not self._settings.is_quiet:
                    print(f"carla-emulator: {complaint}", file=sys.stderr, flush=True)
                if call.wants_answer:
                    connection.sendall(answer(call.number, result))
        except (OSError, ValueError):  # gone, or no client of CARLA's
            self._selector.unregister(connection)
            connection.close()
            self._simulation.n_clients -= 1

    def _pace(self, name: str) -> None:
        if self._settings.is_realtime and name == "tick_cue":
            time.sleep(max(0.0, self._next_tick_s - time.monotonic()))
            self._next_tick_s = time.monotonic() + (self._simulation.step_s or DEFAULT_STEP_S)


def _listen(host: str, port: int) -> Sequence[socket.socket]:
    """Return two sockets that listen on neighbouring ports.

    :raises OSError: if one of them is taken.
    """
    for _ in range(50):
        first = _listener(host, port)
        try:
            return first, _listener(host, first.getsockname()[1] + 1)
        except (OSError, OverflowError):
            first.close()
            if port:
                raise
    raise OSError("found no two neighbouring ports that are free")


def _listener(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except (OSError, OverflowError):
        listener.close()
        raise
    return listener
