"""Talks to a running emulator without CARLA's client: makes it fail, and asks how it is."""

from __future__ import annotations

import socket
from typing import Any

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
