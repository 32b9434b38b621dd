"""Run a simulator and end it together with the process that started it, even if that process is killed.

This file runs as a script, ``python watchdog.py COMMAND...``, and imports nothing of the package. When the parent
closes its end of the standard input or is gone, the watchdog ends the command's whole process group. If the watchdog
itself is killed, a second process (:class:`Guard`) ends the process group.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import signal
import subprocess
import sys
import time

# How long the command has to end after SIGTERM before it gets SIGKILL.
GRACE_S = 3.0
_CHECK_INTERVAL_S = 0.1
_PR_SET_PDEATHSIG = 1  # from <linux/prctl.h>


def main(command: list[str]) -> int:
    """Run a command until it ends, or until the process that started this script ends.

    :param command: program and arguments
    :return: the command's exit code
    """
    parent = os.getppid()
    # Ctrl-C in a terminal reaches all its processes. The parent decides whether to end the simulator.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    own = os.getpid()
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: _die_with(own),  # noqa: PLW1509  safe: this process has one thread
    )
    guard: Guard | None = None
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(sys.stdin.buffer, selectors.EVENT_READ)
            # The parent's id is checked too: a forked child of the parent may hold the pipe's other end open.
            while child.poll() is None and os.getppid() == parent:
                if guard is None or guard.is_gone():
                    guard = Guard(child.pid)
                if selector.select(timeout=_CHECK_INTERVAL_S) and not os.read(sys.stdin.fileno(), 4096):
                    break
    finally:
        end_group(child)
        if guard is not None:
            guard.dismiss()
    return child.returncode


def _die_with(watchdog: int) -> None:
    """Make the kernel kill this child process when the watchdog ends; called before the child runs the command."""
    with contextlib.suppress(OSError, AttributeError):  # other systems than Linux do not have it
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != watchdog:  # the watchdog ended before prctl took effect
        os._exit(1)


class Guard:
    """Fork a process that ends a process group when the watchdog disappears.

    Linux's parent-death signal is not enough. It would end the shell script CarlaUE4.sh, but not the simulator that the
    script runs.

    :param group: id of the process group
    """

    def __init__(self, group: int) -> None:
        reading, self._writing = os.pipe()
        self._pid = os.fork()
        if self._pid:
            os.close(reading)
            return
        try:
            os.close(self._writing)
            os.setsid()
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            nothing = os.open(os.devnull, os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(nothing, descriptor)
            # ``dismiss`` sends a byte. Only the watchdog holds the other end, so end of file means that it was killed.
            if not os.read(reading, 1):
                _signal_group(group, signal.SIGKILL)
        finally:
            os._exit(0)

    def is_gone(self) -> bool:
        """Return whether the forked process has ended, which only happens if it was killed."""
        try:
            is_gone = os.waitpid(self._pid, os.WNOHANG)[0] == self._pid
        except ChildProcessError:
            is_gone = True
        if is_gone:
            os.close(self._writing)
        return is_gone

    def dismiss(self) -> None:
        """End the forked process, without letting it end the process group."""
        with contextlib.suppress(OSError):
            os.write(self._writing, b".")
        with contextlib.suppress(OSError):
            os.close(self._writing)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)


def end_group(child: subprocess.Popen[bytes]) -> None:
    """End the command and all processes of its group, because CarlaUE4.sh is a shell script that runs the simulator."""
    _signal_group(child.pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_S
    while child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    _signal_group(child.pid, signal.SIGKILL)
    child.wait()


def _signal_group(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
