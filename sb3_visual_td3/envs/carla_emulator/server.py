"""Run the emulator's server: one thread reads calls, answers them, and sends measurements.

A fault that hangs a tick therefore hangs the whole server, as in CARLA.
"""

from __future__ import annotations

import contextlib
import resource
import selectors
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

from sb3_visual_td3.common.errors import show_traceback_if_debugging
from sb3_visual_td3.envs.carla_emulator.calls import Calls
from sb3_visual_td3.envs.carla_emulator.faults import Fault
from sb3_visual_td3.envs.carla_emulator.protocol import CallReader, response, shortened
from sb3_visual_td3.envs.carla_emulator.served_maps import MapLibrary
from sb3_visual_td3.envs.carla_emulator.server_traffic import ServerTraffic
from sb3_visual_td3.envs.carla_emulator.simulation import DEFAULT_STEP_S, Simulation
from sb3_visual_td3.envs.carla_emulator.streaming import StreamServer

_BACKLOG = 128
_CHUNK_BYTES = 65_536
# How long to wait for a client that does not read its responses. The whole server waits meanwhile.
_SEND_TIMEOUT_S = 2.0
# In asynchronous mode, ticks that follow a late tick make up for a delay of at most this much.
_MAX_CATCH_UP_S = 0.02
# The longest time between two ticks of asynchronous mode, even if a tick simulates a longer time. Clients wait for the
# next tick. Some calls wait for it too, and the whole server waits during such a call.
_MAX_WAIT_S = 0.1
_MAX_OPEN_FILES = 65_536
_MAX_CONSOLE_LINES, _CONSOLE_LINES_PER_S = 100.0, 10.0


@dataclass(frozen=True)
class EmulatorSettings:
    """Hold the settings of an emulator server."""

    port: int = 2000
    """The port for calls; streams use the next one. 0 takes any two neighbouring ports that are free."""
    host: str = "127.0.0.1"
    """The address to listen on. The default is reachable from this machine only: the protocol has no password."""
    map_name: str = "train_0"
    """Name of the map that the server loads at its start."""
    maps: MapLibrary = field(default_factory=MapLibrary)
    """The maps that clients can load."""
    is_realtime: bool = False
    """Whether a tick in synchronous mode takes at least as long as the time that it simulates."""
    faults: tuple[Fault, ...] = ()
    """The faults to produce."""
    n_cars: int = 0
    """Number of cars that the server drives itself."""
    seed: int = 0
    """The seed of the cars that the server drives itself."""
    has_carla_steering: bool = False
    """True if ``vehicle.tesla.model3`` steers as in CARLA, False if it steers like the car of ``LiteDriving-v0``."""
    is_quiet: bool = False
    """True suppresses the reports of unsupported calls, refused connections and errors."""


class Console:
    """Print lines on standard error, at a limited rate, so that a faulty client cannot flood the terminal.

    :param is_quiet: True to print nothing
    """

    def __init__(self, is_quiet: bool) -> None:
        self._is_quiet = is_quiet
        # A token bucket: it holds up to 100 lines and refills with 10 a second.
        self._n_allowed, self._last_s = _MAX_CONSOLE_LINES, time.monotonic()
        self._n_suppressed = 0

    def say(self, line: str) -> None:
        """Print a line, unless too many lines were printed recently."""
        if self._is_quiet:
            return
        now_s = time.monotonic()
        refilled = self._n_allowed + _CONSOLE_LINES_PER_S * (now_s - self._last_s)
        self._n_allowed = min(_MAX_CONSOLE_LINES, refilled)
        self._last_s = now_s
        if self._n_allowed < 1.0:
            self._n_suppressed += 1
            return
        self._n_allowed -= 1.0
        suffix = ""
        if self._n_suppressed:
            suffix = f" ({self._n_suppressed} lines before this one were left out)"
        self._n_suppressed = 0
        with contextlib.suppress(OSError, ValueError):  # the server continues if its terminal is closed
            print(f"carla-emulator: {line}{suffix}", file=sys.stderr, flush=True)


class Acceptor:
    """Accept connections, and refuse them while the process has no file descriptors left.

    To refuse a connection, the server must accept and close it, which takes a file descriptor. The acceptor keeps a
    spare socket open, and closes this socket to free a descriptor for a refusal.

    :param listener: a listening socket
    :param console: console to which refusals are reported
    """

    def __init__(self, listener: socket.socket, console: Console) -> None:
        # The client may have disconnected between the selector's event and accept(), which must not block then.
        listener.setblocking(False)
        self._listener, self._console = listener, console
        self._reserve: socket.socket | None = None
        self._refill()

    def accept(self) -> socket.socket | None:
        """Return the next connection; None if no client is waiting, or if the connection had to be refused."""
        self._refill()
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return None
        except OSError as error:
            self._refuse(error)
            return None
        try:
            # Without it, Nagle's algorithm delays small responses by up to 40 ms.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:  # the client has disconnected
            connection.close()
            return None
        return connection

    def close(self) -> None:
        """Close the spare socket, which reserves a file descriptor for refusing connections."""
        if self._reserve is not None:
            self._reserve.close()

    def _refuse(self, error: OSError) -> None:
        if self._reserve is not None:
            self._reserve.close()
            self._reserve = None
        try:
            connection, _ = self._listener.accept()
        except OSError:
            # Something else has taken the freed descriptor. The selector reports the waiting client again at once, so
            # without a pause the server would retry in a busy loop.
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
    """Serve CARLA's clients: the constructor opens the ports, and :meth:`serve` answers calls.

    :param settings: the emulator's settings
    :raises OSError: if the port or the next port is in use
    :raises CallError: if the map to start with cannot be loaded
    """

    def __init__(self, settings: EmulatorSettings) -> None:
        self._settings = settings
        self._console = Console(settings.is_quiet)
        _raise_open_file_limit()
        call_listener, stream_listener = _listen(settings.host, settings.port)
        self.port, self.stream_port = call_listener.getsockname()[1], stream_listener.getsockname()[1]
        # Each selector entry's data is the function that handles its events.
        self._selector = selectors.DefaultSelector()
        call_acceptor = Acceptor(call_listener, self._console)
        stream_acceptor = Acceptor(stream_listener, self._console)
        self._acceptors = (call_acceptor, stream_acceptor)
        self._streams = StreamServer(self._selector, stream_listener, stream_acceptor.accept)
        traffic = ServerTraffic(settings.n_cars, settings.seed)
        self._simulation = Simulation(
            settings.map_name,
            self._streams,
            self.stream_port,
            settings.faults,
            traffic,
            settings.maps,
            has_carla_steering=settings.has_carla_steering,
        )
        self._calls = Calls(self._simulation, self._streams, self.stream_port, self._tick_when_due)
        self._selector.register(call_listener, selectors.EVENT_READ, lambda _: self._accept(call_acceptor.accept))
        self._next_tick_s = 0.0

    @property
    def map_name(self) -> str:
        """Return the short name of the current map."""
        return self._simulation.map.name

    def serve(self) -> NoReturn:
        """Answer calls and send measurements until an exception is raised, for example by a signal handler."""
        while True:
            for key, events in self._selector.select(self._pause_s()):
                try:
                    key.data(events)
                except Exception as error:  # a bug that one client triggers must not end the others' connections
                    show_traceback_if_debugging(error)
                    self._console.say(f"continued after an error: {shortened(error)}")
            if not self._simulation.is_synchronous and time.monotonic() >= self._next_tick_s:
                try:
                    self._tick_when_due()
                except Exception as error:
                    show_traceback_if_debugging(error)
                    self._console.say(f"a tick failed: {shortened(error)}")
            while self._simulation.complaints:
                self._console.say(self._simulation.complaints.pop(0))

    def _tick_when_due(self) -> None:
        """Wait for the next tick of asynchronous mode, and simulate it."""
        time.sleep(min(_MAX_WAIT_S, max(0.0, self._next_tick_s - time.monotonic())))
        # The next tick is due one time step after this tick was due, not after it was simulated. So a late tick does
        # not lower the average pace. After a long pause, the missed ticks are skipped.
        due_s = max(self._next_tick_s, time.monotonic() - _MAX_CATCH_UP_S)
        self._next_tick_s = due_s + min(self._simulation.step_s or DEFAULT_STEP_S, _MAX_WAIT_S)
        self._simulation.tick()

    def close(self) -> None:
        """Close all connections and both listeners."""
        for acceptor in self._acceptors:
            acceptor.close()
        for key in tuple(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        self._selector.close()

    def _pause_s(self) -> float | None:
        """Return how long to wait for events, in seconds: until the next tick; None (no limit) in synchronous mode."""
        if self._simulation.is_synchronous:
            return None
        return max(0.0, self._next_tick_s - time.monotonic())

    def _accept(self, accept: Callable[[], socket.socket | None]) -> None:
        connection = accept()
        if connection is None:
            return
        connection.settimeout(_SEND_TIMEOUT_S)
        reader = CallReader()
        self._selector.register(connection, selectors.EVENT_READ, lambda _: self._read(connection, reader))
        self._simulation.n_clients += 1

    def _read(self, connection: socket.socket, reader: CallReader) -> None:
        try:
            received = connection.recv(_CHUNK_BYTES)
            if not received:
                raise ConnectionError
            for call in reader.read(received):
                self._wait_for_realtime(call.name)
                result, complaint = self._calls.answer(call.name, call.arguments, wants_response=call.wants_response)
                if complaint:
                    self._console.say(complaint)
                if call.wants_response:
                    connection.sendall(response(call.call_id, result))
        except Exception as error:  # the client is gone or is not CARLA's client: only this connection ends
            if not isinstance(error, OSError):
                show_traceback_if_debugging(error)
                self._console.say(f"closed a connection: {shortened(error)}")
            self._selector.unregister(connection)
            connection.close()
            self._simulation.n_clients -= 1

    def _wait_for_realtime(self, call_name: str) -> None:
        if self._settings.is_realtime and self._simulation.is_synchronous and call_name == "tick_cue":
            time.sleep(max(0.0, self._next_tick_s - time.monotonic()))
            self._next_tick_s = time.monotonic() + (self._simulation.step_s or DEFAULT_STEP_S)


def _raise_open_file_limit() -> None:
    """Raise the limit of open files, and thus of connections, to the maximum that the system permits."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAX_OPEN_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(hard, _MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _listen(host: str, port: int) -> tuple[socket.socket, socket.socket]:
    """Return two listening sockets on neighbouring ports; port 0 takes any free ports."""
    for _ in range(50):
        first = _listener(host, port)
        try:
            return first, _listener(host, first.getsockname()[1] + 1)
        except (OSError, OverflowError):
            first.close()
            if port:
                raise
            # The system chose a port whose neighbour is in use: try another port.
    raise OSError(
        "found no two neighbouring free ports: one is needed for calls and the next for streams; stop other servers"
    )


def _listener(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    # A restarted server must not wait for its predecessor's connections in TIME_WAIT.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except (OSError, OverflowError):
        listener.close()
        raise
    return listener
