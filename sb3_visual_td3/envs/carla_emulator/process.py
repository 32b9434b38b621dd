"""The emulator as a process of its own, for tests: start it, give it faults, and end it."""

from __future__ import annotations

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

_TIMEOUT_S = 5.0


class EmulatorControl:
    """A line to an emulator.

    :param port: of its calls.
    :param host: where it is.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._address = (host, port)

    def fault(self, kind: str, amount: float | None = None) -> None:
        """Make something go wrong, now.

        :param kind: one of ``faults.KINDS``.
        :param amount: seconds of a hang or of every tick (``slow``); images or spawns, of the others.
        :raises ValueError: if there is no such kind, or it has no such amount.
        """
        check_fault(kind, amount)
        if kind == "die":
            self._send("emulator_fault", kind, None).close()
            return
        self._ask("emulator_fault", kind, amount)

    def status(self) -> dict[str, Any]:
        """Return frame and map, memory in MB, and how many actors, clients, streams and file descriptors there are."""
        found: dict[str, Any] = self._ask("emulator_status")
        return found

    def _send(self, name: str, *arguments: Any) -> socket.socket:
        connection = socket.create_connection(self._address, timeout=_TIMEOUT_S)
        connection.sendall(packed([0, 1, name, [[False], *arguments]]))
        return connection

    def _ask(self, name: str, *arguments: Any) -> Any:
        with self._send(name, *arguments) as connection:
            unpacker = msgpack.Unpacker()
            while received := connection.recv(65_536):
                unpacker.feed(received)
                for _, _, _, ((is_value, result),) in unpacker:
                    if not is_value:
                        raise ValueError(result[0])
                    return result
        raise ConnectionError(f"the emulator on {self._address} hung up")


_READY = re.compile(r"listening on (\S+):(\d+) \(streams (\d+)\)")
_STOP_S = 5.0


class EmulatorProcess:
    """Runs while it is entered: ``with EmulatorProcess("train_0") as emulator: ... emulator.port``.

    :param map_name: the first map.
    :param arguments: further ones of ``visual-td3 carla-emulator``.
    :param port: of its calls; 0: any that is free.
    :param timeout_s: how long it may take to be ready.
    """

    def __init__(self, map_name: str = "train_0", *arguments: str, port: int = 0, timeout_s: float = 30.0) -> None:
        self.host = "127.0.0.1"
        self.port = port
        self._command = [sys.executable, "-m", "sb3_visual_td3.envs.carla_emulator", "--map", map_name, *arguments]
        self._timeout_s = timeout_s
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._running().pid

    @property
    def control(self) -> EmulatorControl:
        """A line to it that needs no client."""
        return EmulatorControl(self.port, self.host)

    def start(self) -> None:
        """Start it, on the port that it had before if it was started before.

        :raises RuntimeError: if it does not get ready in time.
        """
        # It ends with this process, also if that is killed: its port would be taken, and a test would meet it later.
        command = [*self._command, "--end-with", str(os.getpid()), "--port", str(self.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        line = _first_line(self._process.stdout, self._timeout_s)
        found = _READY.search(line)
        if found is None:
            self.kill()
            raise RuntimeError(f"the emulator did not get ready within {self._timeout_s:g} s: {line!r}")
        self.port = int(found[2])

    def kill(self) -> None:
        """End it as a crash would."""
        self._end(self._running().kill)

    def stop(self) -> int:
        """Ask it to end, and return its exit code; one that does not listen is killed."""
        return self._end(self._running().terminate)

    def _end(self, how: Callable[[], None]) -> int:
        process = self._running()
        how()
        try:
            code = process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait(_STOP_S)
        if process.stdout is not None:
            process.stdout.close()
        self._process = None
        return code

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise RuntimeError("the emulator is not running: start() it, or use it in a with statement")
        return self._process

    def __enter__(self) -> EmulatorProcess:
        """:return: itself, ready"""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End it, if it has not ended."""
        if self._process is not None:
            self.kill()


def _first_line(output: IO[str], timeout_s: float) -> str:
    deadline = time.monotonic() + timeout_s
    with selectors.DefaultSelector() as selector:
        selector.register(output, selectors.EVENT_READ)
        while time.monotonic() < deadline:
            if selector.select(timeout=0.1):
                return output.readline()
    return ""
