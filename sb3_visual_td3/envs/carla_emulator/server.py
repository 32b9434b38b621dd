"""The server: one loop that reads calls, answers them, and sends what is measured."""

from __future__ import annotations

import contextlib
import resource
import selectors
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from sb3_visual_td3.envs.carla_emulator.calls import Calls
from sb3_visual_td3.envs.carla_emulator.city_traffic import CityTraffic
from sb3_visual_td3.envs.carla_emulator.faults import Fault
from sb3_visual_td3.envs.carla_emulator.protocol import CallReader, answer, shortened
from sb3_visual_td3.envs.carla_emulator.simulation import DEFAULT_STEP_S, Simulation
from sb3_visual_td3.envs.carla_emulator.streaming import StreamServer

_BACKLOG = 128
_CHUNK_BYTES = 65_536
_PATIENCE_S = 2.0
_SLACK_S = 0.02
_MANY_FILES = 65_536
_MOST_LINES, _LINES_PER_S = 100.0, 10.0


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


class Console:
    """Lines on standard error, of which a client that makes many mistakes cannot make a flood.

    :param is_quiet: whether nothing is said at all.
    """

    def __init__(self, is_quiet: bool) -> None:
        self._is_quiet = is_quiet
        self._n_allowed, self._last_s, self._n_left_out = _MOST_LINES, time.monotonic(), 0

    def say(self, line: str) -> None:
        """Print a line, unless there were too many of late."""
        now_s = time.monotonic()
        self._n_allowed = min(_MOST_LINES, self._n_allowed + _LINES_PER_S * (now_s - self._last_s))
        self._last_s = now_s
        if self._is_quiet or self._n_allowed < 1.0:
            self._n_left_out += not self._is_quiet
            return
        self._n_allowed -= 1.0
        more = f" ({self._n_left_out} lines before this one were left out)" if self._n_left_out else ""
        self._n_left_out = 0
        with contextlib.suppress(OSError, ValueError):  # the terminal is gone: no reason to end
            print(f"carla-emulator: {line}{more}", file=sys.stderr, flush=True)


class Acceptor:
    """Accepts connections, and refuses them as long as the system has no descriptors left for more.

    A connection that is not accepted would make the selector report it again and again. So one descriptor is kept in
    reserve: with it, each one too many is accepted and closed.

    :param listener: a socket that listens.
    :param console: hears of refusals.
    """

    def __init__(self, listener: socket.socket, console: Console) -> None:
        listener.setblocking(False)  # a client may have gone before it is accepted
        self._listener, self._console = listener, console
        self._reserve: socket.socket | None = None
        self._refill()

    def accept(self) -> socket.socket | None:
        """Return the next connection; None: there is none, or it had to be refused."""
        self._refill()
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return None
        except OSError as error:
            self._refuse(error)
            return None
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:  # it is gone
            connection.close()
            return None
        return connection

    def close(self) -> None:
        """Give the reserve back."""
        if self._reserve is not None:
            self._reserve.close()

    def _refuse(self, error: OSError) -> None:
        if self._reserve is not None:
            self._reserve.close()
            self._reserve = None
        try:
            connection, _ = self._listener.accept()
        except OSError:  # another process has taken the descriptor: wait a moment, not to try without a pause
            time.sleep(0.01)
        else:
            connection.close()
        self._console.say(f"refused a connection: {error}")
        self._refill()

    def _refill(self) -> None:
        if self._reserve is None:
            with contextlib.suppress(OSError):
                self._reserve = socket.socket()


class EmulatorServer:
    """Listens as soon as it is made.

    :param settings: where and what.
    :raises OSError: if the port, or the next one, is taken.
    """

    def __init__(self, settings: EmulatorSettings) -> None:
        self._settings = settings
        self._console = Console(settings.is_quiet)
        _allow_many_files()
        listener, stream_listener = _listen(settings.host, settings.port)
        self.port, self.stream_port = listener.getsockname()[1], stream_listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        acceptors = tuple(Acceptor(each, self._console) for each in (listener, stream_listener))
        self._acceptors = acceptors
        self._streams = StreamServer(self._selector, stream_listener, acceptors[1].accept)
        traffic = CityTraffic(settings.n_cars, settings.seed)
        self._simulation = Simulation(settings.map_name, self._streams, self.stream_port, settings.faults, traffic)
        self._calls = Calls(self._simulation, self._streams, self.stream_port)
        self._selector.register(listener, selectors.EVENT_READ, lambda _: self._accept(acceptors[0].accept))
        self._next_tick_s = 0.0

    def serve(self) -> NoReturn:
        """Serve until an exception, such as a signal's handler raises."""
        while True:
            for key, events in self._selector.select(self._pause_s()):
                try:
                    key.data(events)
                except Exception as error:  # not expected, but one client's trouble must not be everybody's
                    self._console.say(f"went on after {shortened(error)}")
            if not self._simulation.is_synchronous and time.monotonic() >= self._next_tick_s:
                # From when it was due, so that the pace is kept; after a pause it does not catch up.
                due_s = max(self._next_tick_s, time.monotonic() - _SLACK_S)
                self._next_tick_s = due_s + (self._simulation.step_s or DEFAULT_STEP_S)
                try:
                    self._simulation.tick()
                except Exception as error:
                    self._console.say(f"a tick failed: {shortened(error)}")
            while self._simulation.complaints:
                self._console.say(self._simulation.complaints.pop(0))

    def close(self) -> None:
        """Close every connection."""
        for acceptor in self._acceptors:
            acceptor.close()
        for key in tuple(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        self._selector.close()

    def _pause_s(self) -> float | None:
        if self._simulation.is_synchronous:
            return None
        return max(0.0, self._next_tick_s - time.monotonic())

    def _accept(self, accept: Callable[[], socket.socket | None]) -> None:
        connection = accept()
        if connection is None:
            return
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
                if complaint:
                    self._console.say(complaint)
                if call.wants_answer:
                    connection.sendall(answer(call.number, result))
        except Exception as error:  # it is gone, or not a client of CARLA's: that is the end of this connection alone
            if not isinstance(error, OSError):
                self._console.say(f"closed a connection: {shortened(error)}")
            self._selector.unregister(connection)
            connection.close()
            self._simulation.n_clients -= 1

    def _pace(self, name: str) -> None:
        if self._settings.is_realtime and name == "tick_cue":
            time.sleep(max(0.0, self._next_tick_s - time.monotonic()))
            self._next_tick_s = time.monotonic() + (self._simulation.step_s or DEFAULT_STEP_S)


def _allow_many_files() -> None:
    """Let this process have as many connections as the system lets it have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MANY_FILES if hard == resource.RLIM_INFINITY else min(hard, _MANY_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


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
