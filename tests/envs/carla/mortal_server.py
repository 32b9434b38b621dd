"""Run faulty servers on one port, one after another: ``python mortal_server.py KIND:N...``.

Each argument describes one server:

- ``die:N``: an emulator that exits at its Nth call without an answer
- ``hang:N``: an emulator that stops answering at its Nth call, and exits half a second later
- ``close:N``: a server that closes its first N connections without an answer, and exits
- ``reset:N``: a server that resets its first N connections without an answer, and exits

After the last of them, a normal emulator runs. The script first prints the port, and later the call at which each
emulator fails.
"""

import ctypes
import os
import signal
import socket
import struct
import sys
import time

import cv2

from sb3_visual_td3.envs.carla_emulator.calls import Calls
from sb3_visual_td3.envs.carla_emulator.server import EmulatorServer, EmulatorSettings


def hang_up(port, n, resets):
    with socket.create_server(("127.0.0.1", port)) as server:
        for _ in range(n):
            connection, _ = server.accept()
            if resets:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()


def end_with_parent():
    """Ask the system to kill this process when its parent ends, for example with an interrupted test."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def live(port, kind, n):
    """Run the server that the argument ``kind:n`` describes; a faulty server ends this process."""
    end_with_parent()
    if kind in {"close", "reset"}:
        hang_up(port, n, kind == "reset")
        os._exit(0)
    answer, n_calls = Calls.answer, 0

    def answer_until_death(self, name, arguments, **options):
        nonlocal n_calls
        n_calls += 1
        if n_calls >= n:
            print(f"{kind} at call {n_calls}: {name}", flush=True)
            if kind == "hang":
                time.sleep(0.5)
            os._exit(1)
        return answer(self, name, arguments, **options)

    if kind != "live":
        Calls.answer = answer_until_death
    EmulatorServer(EmulatorSettings(port=port)).serve()


def main(lives):
    end_with_parent()
    cv2.setNumThreads(1)  # a forked child would wait for OpenCV's threads, which exist only in its parent
    ports = EmulatorServer(EmulatorSettings(port=0))  # finds two free ports, and loads the map for all servers
    ports.close()
    print(ports.port, flush=True)
    for life in (*lives, "live:0"):
        kind, n = life.split(":")
        child = os.fork()
        if child == 0:
            live(ports.port, kind, int(n))
        os.waitpid(child, 0)


main(sys.argv[1:])
