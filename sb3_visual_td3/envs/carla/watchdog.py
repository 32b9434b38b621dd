"""Runs a simulator and ends it with the process that started it, however that one ends.

A script by itself: ``python watchdog.py COMMAND...``. Its standard input is a pipe whose other end its parent holds;
when that is closed (which the operating system does for a process that was killed), or the parent is gone, the
command's whole process group is ended. A simulator that outlived its training would keep its port and its part of the
GPU.

The watchdog itself may be killed, by a user or for the memory that its job takes. Then its guard, a second process,
ends the group; and for a moment in which there is no guard, the system ends the command.
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

GRACE_S = 3.0
_PR_SET_PDEATHSIG = 1


def main(command: list[str]) -> int:
    """:return: the command's exit code, as a shell gives it"""
    parent = os.getppid()
    # Ctrl-C goes to the whole terminal: the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    own = os.getpid()
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: _die_with(own),  # noqa: PLW1509  this process has one thread
    )
    guard: Guard | None = None
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(sys.stdin.buffer, selectors.EVENT_READ)
            while child.poll() is None and os.getppid() == parent:
                if guard is None or guard.is_gone():
                    guard = Guard(child.pid)
                if selector.select(timeout=0.1) and not os.read(sys.stdin.fileno(), 4096):
                    break
    finally:
        end_group(child)
        if guard is not None:
            guard.dismiss()
    return child.returncode


def _die_with(watchdog: int) -> None:
    """Have the system kill this process, which is about to become the command, when the watchdog is gone."""
    with contextlib.suppress(OSError, AttributeError):  # not on Linux
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != watchdog:  # it was too late
        os._exit(1)


class Guard:
    """A process that ends a process group when the watchdog, which has forked it, is gone.

    CarlaUE4.sh is a shell script around the simulator: the system would end the shell alone.

    :param group: to be ended.
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
            # A byte: dismissed. The end of the pipe: the watchdog, which alone holds its other end, was killed.
            if not os.read(reading, 1):
                _signal_group(group, signal.SIGKILL)
        finally:
            os._exit(0)

    def is_gone(self) -> bool:
        """Return whether it has ended, which it does not do by itself."""
        try:
            is_gone = os.waitpid(self._pid, os.WNOHANG)[0] == self._pid
        except ChildProcessError:
            is_gone = True
        if is_gone:
            os.close(self._writing)
        return is_gone

    def dismiss(self) -> None:
        """End it: there is nothing left to guard."""
        with contextlib.suppress(OSError):
            os.write(self._writing, b".")
        with contextlib.suppress(OSError):
            os.close(self._writing)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)


def end_group(child: subprocess.Popen[bytes]) -> None:
    """End the command and all that it has started: CarlaUE4.sh is a shell script around the simulator."""
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
