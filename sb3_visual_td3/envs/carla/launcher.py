"""A simulator that is started by us and ended by us."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from sb3_visual_td3.envs.carla.failures import SimulatorAbsentError, SimulatorLostError, SimulatorUnusableError

_WATCHDOG = Path(__file__).with_name("watchdog.py")
_STOP_S = 10.0
_TOLD_CHARACTERS = 300
_SIGNALLED = 128


def command_for(command: str, port: int) -> list[str]:
    """Return the command's words for a simulator on this port.

    :param command: as one would type it; ``{port}`` stands for the port. Without it ``-carla-rpc-port=PORT``, the
        flag of CARLA's own launcher, is put behind.
    :param port: of the simulator's RPC.
    :raises ValueError: if it is no command.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ValueError(f"command={command!r}: {error}; write it as in a shell") from error
    if not words:
        raise ValueError(f"command={command!r}: expected the simulator's command, such as './CarlaUE4.sh'")
    if any("{port}" in word for word in words):
        return [word.replace("{port}", str(port)) for word in words]
    return [*words, f"-carla-rpc-port={port}"]


class Simulator:
    """A running simulator. It ends with :meth:`stop`, and with this process however that ends.

    :param command: see :func:`command_for`.
    :param port: of its RPC.
    :raises SimulatorUnusableError: if there is no such program.
    """

    def __init__(self, command: str, port: int) -> None:
        words = command_for(command, port)
        if shutil.which(words[0]) is None:
            raise SimulatorUnusableError(
                f"command={command!r}: there is no program {words[0]}; give the path of CarlaUE4.sh (or of another "
                "launcher) as it is from the current folder"
            )
        self.port = port
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  open as long as the simulator runs
        self._process = subprocess.Popen(
            [sys.executable, str(_WATCHDOG), *words],
            stdin=subprocess.PIPE,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def is_running(self) -> bool:
        """Return whether it has not ended by itself."""
        return self._process.poll() is None

    def check(self) -> None:
        """Raise an error if it has ended; the message tells what it printed last.

        :raises SimulatorAbsentError: if it has ended by itself.
        :raises SimulatorLostError: if a signal has ended it: it was killed, or crashed.
        """
        if not self.is_running():
            code = self._process.returncode
            # As a shell says it: 128 and the signal's number. Below 0 it was the watchdog that was killed.
            is_killed = code < 0 or code > _SIGNALLED
            raise (SimulatorLostError if is_killed else SimulatorAbsentError)(
                f"the simulator on port {self.port} ended with exit code {code}; "
                f"it printed: {self.last_words() or 'nothing'}"
            )

    def last_words(self) -> str:
        """Return the end of what it printed, in one line."""
        size = self._output.seek(0, 2)
        self._output.seek(max(0, size - _TOLD_CHARACTERS))
        return " ".join(self._output.read().decode(errors="replace").split())

    def stop(self) -> None:
        """End it and all that it has started; a second call does nothing."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._output.close()
