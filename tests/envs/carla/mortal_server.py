"""Run an emulator that dies and comes back on its port: ``python mortal_server.py LIFE...``.

Each LIFE is ``KIND:N``: a server that exits at its Nth call without answering (``die``), that answers nothing from its
Nth call on and exits after half a second (``hang``), or that closes (``close``) or resets (``reset``) its first N
connections without an answer. After the last LIFE a normal server runs. The port is printed first, and the end of each
life as it happens.
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
    """Live one life, and end the process with it."""
    end_with_parent()
    if kind in {"close", "reset"}:
        hang_up(port, n, kind == "reset")
        os._exit(0)
    answer, n_calls = Calls.answer, 0

    def answer_until_death(self, name, arguments):
        nonlocal n_calls
        n_calls += 1
        if n_calls >= n:
            print(f"{kind} at call {n_calls}: {name}", flush=True)
            if kind == "hang":
                time.sleep(0.5)
            os._exit(1)
        return answer(self, name, arguments)

    if kind != "live":
        Calls.answer = answer_until_death
    EmulatorServer(EmulatorSettings(port=port)).serve()


def main(lives):
    end_with_parent()
    cv2.setNumThreads(1)  # a forked child would wait for threads that exist only in its parent
    ports = EmulatorServer(EmulatorSettings(port=0))  # finds two free ports, and loads the map for all lives
    ports.close()
    print(ports.port, flush=True)
    for life in (*lives, "live:0"):
        kind, n = life.split(":")
        child = os.fork()
        if child == 0:
            live(ports.port, kind, int(n))
        os.waitpid(child, 0)


main(sys.argv[1:])
