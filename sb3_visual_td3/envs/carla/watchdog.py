"""Runs a simulator and ends it with whoever started it, however that one ends.

A script by itself: ``python watchdog.py COMMAND...``. Its standard input is a pipe whose other end its parent holds;
when that is closed (which the operating system does for a process that was killed), the command's whole process group
is ended. A simulator that outlived its training would keep its port and its part of the GPU.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time

GRACE_S = 3.0


def main(command: list[str]) -> int:
    """:return: the command's exit code, as a shell gives it"""
    # Ctrl-C goes to the whole terminal: the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(sys.stdin.buffer, selectors.EVENT_READ)
            while child.poll() is None:
                if selector.select(timeout=0.1) and not os.read(sys.stdin.fileno(), 4096):
                    break
    finally:
        end_group(child)
    return child.returncode


def end_group(child: subprocess.Popen[bytes]) -> None:
    """End the command and all that it has started: CarlaUE4.sh is a shell script around the simulator."""
    _signal_group(child, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_S
    while child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    _signal_group(child, signal.SIGKILL)
    child.wait()


def _signal_group(child: subprocess.Popen[bytes], number: int) -> None:
    try:
        os.killpg(child.pid, number)
    except ProcessLookupError:
        return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
