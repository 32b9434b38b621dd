"""Run the emulator in a separate process, for tests and notebooks.

A thread would not work, because the client holds Python's global interpreter lock while it waits for the server.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import IO, Any

import msgpack

from sb3_visual_td3.envs.carla_emulator.faults import check_fault
from sb3_visual_td3.envs.carla_emulator.protocol import packed

_TIMEOUT_S = 60.0


class EmulatorControl:
    """Inject faults into a running emulator and read its status, without CARLA's client.

    :param port: the emulator's port for calls
    :param host: address of the emulator
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._address = (host, port)

    def fault(self, kind: str, amount: float | None = None) -> None:
        """Activate a fault now.

        :param kind: one of ``faults.KINDS``
        :param amount: seconds of a hang or slow tick, or number of images or spawns; None for the default
        :raises ValueError: if the kind is unknown, or does not permit the amount
        """
        check_fault(kind, amount)
        if kind == "die":
            # The server dies instead of answering.
            self._send("emulator_fault", kind, None).close()
            return
        self._call("emulator_fault", kind, amount)

    def status(self) -> dict[str, Any]:
        """Return the emulator's status.

        :return: ``frame``, ``map``, ``n_actors``, ``n_clients``, ``n_stream_connections``, ``synchronous``, ``rss_mb``
            (resident memory in MB) and ``n_file_descriptors``
        """
        found: dict[str, Any] = self._call("emulator_status")
        return found

    def _send(self, name: str, *arguments: Any) -> socket.socket:
        connection = socket.create_connection(self._address, timeout=_TIMEOUT_S)
        call_id, is_asynchronous = 1, False
        connection.sendall(packed([0, call_id, name, [[is_asynchronous], *arguments]]))
        return connection

    def _call(self, name: str, *arguments: Any) -> Any:
        with self._send(name, *arguments) as connection:
            unpacker = msgpack.Unpacker()
            while received := connection.recv(65_536):
                unpacker.feed(received)
                for _, _, _, ((is_value, result),) in unpacker:
                    if not is_value:
                        raise ValueError(result[0])
                    return result
        raise ConnectionError(
            f"the emulator on {self._address} closed the connection before it answered; start the emulator again"
        )


_READY = re.compile(r"listening on (\S+):(\d+) \(streams (\d+)\)")
_STOP_TIMEOUT_S = 60.0
_EXIT_TIMEOUT_S = 2.0


class EmulatorProcess:
    """Run an emulator in its own process: ``with EmulatorProcess("train_0") as emulator:``.

    :param map_name: the map to start with
    :param arguments: further arguments of ``visual-td3 carla-emulator``
    :param port: port for calls; 0 for any free port
    :param timeout_s: longest wait until the emulator listens, in seconds
    """

    def __init__(self, map_name: str = "train_0", *arguments: str, port: int = 0, timeout_s: float = 120.0) -> None:
        self.host = "127.0.0.1"
        self.port = port
        self._command = [sys.executable, "-m", "sb3_visual_td3.envs.carla_emulator", "--map", map_name, *arguments]
        self._timeout_s = timeout_s
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._running().pid

    @property
    def control(self) -> EmulatorControl:
        """Return an object that injects faults into the running emulator and reads its status."""
        return EmulatorControl(self.port, self.host)

    def start(self) -> None:
        """Start the emulator, on the same port as before if it was started before.

        :raises RuntimeError: if the emulator does not listen in time, or runs already
        """
        if self._process is not None:
            if self._process.poll() is None:
                raise RuntimeError(f"the emulator runs already, on port {self.port}: stop() it before you start() it")
            self.kill()  # it has ended by itself: this only releases its resources
        # --end-with makes the emulator end with this process, even if this process is killed. A leftover server would
        # occupy its port, and a later test would connect to it.
        command = [*self._command, "--end-with", str(os.getpid()), "--port", str(self.port)]
        # Ctrl-C in the terminal must not reach the emulator: the cleanup of this process still needs it.
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert self._process.stdout is not None
        line = _first_line(self._process.stdout, self._timeout_s)
        found = _READY.search(line)
        if found is None:
            problem = f"within {self._timeout_s:g} s (its output: {line!r}); increase timeout_s"
            with contextlib.suppress(subprocess.TimeoutExpired):
                # The process has closed its output, and is about to end.
                code = self._process.wait(_EXIT_TIMEOUT_S)
                problem = f"because it ended with exit code {code}; see its message above"
            self.kill()
            raise RuntimeError(f"the emulator did not listen {problem}")
        self.port = int(found[2])

    def kill(self) -> None:
        """Kill the emulator without cleanup, as a crash would."""
        self._end(self._running().kill)

    def stop(self) -> int:
        """Terminate the emulator, kill it if it does not end, and return its exit code."""
        return self._end(self._running().terminate)

    def _end(self, send_signal: Callable[[], None]) -> int:
        process = self._running()
        send_signal()
        try:
            code = process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait(_STOP_TIMEOUT_S)
        if process.stdout is not None:
            process.stdout.close()
        self._process = None
        return code

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise RuntimeError("the emulator is not running: start() it, or use it in a with statement")
        return self._process

    def __enter__(self) -> EmulatorProcess:
        """Start the emulator and return this object."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Kill the emulator if it still runs."""
        if self._process is not None:
            self.kill()


def _first_line(output: IO[str], timeout_s: float) -> str:
    """Return the first line that a process prints; an empty text if it prints none within ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    with selectors.DefaultSelector() as selector:
        selector.register(output, selectors.EVENT_READ)
        while time.monotonic() < deadline:
            if selector.select(timeout=0.1):
                return output.readline()
    return ""
