"""No simulator outlives the training that started it, whichever process is killed."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sb3_visual_td3.envs.carla import watchdog
from sb3_visual_td3.envs.carla.server import Simulator

WATCHDOG = str(Path(watchdog.__file__))
SHELL = ["sh", "-c", "trap '' TERM; sleep 1000 & echo $!; wait"]
"""Like CarlaUE4.sh, a shell around the simulator. It prints the simulator's process id and ignores SIGTERM."""


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(is_so):
    for _ in range(15_000):
        if is_so():
            return
        time.sleep(0.02)
    raise AssertionError("the condition did not become true in time")


def children_of(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.fixture
def watched():
    """Start a watchdog and yield it with the process ids of its shell, its guard and its simulator.

    The guard is a process that ends the shell and the simulator if the watchdog is killed.
    """
    process = subprocess.Popen(
        [sys.executable, WATCHDOG, *SHELL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    simulator = int(process.stdout.readline())
    wait_until(lambda: len(children_of(process.pid)) == 2)
    shell, guard = children_of(process.pid)
    yield process, shell, guard, simulator
    with contextlib.suppress(ProcessLookupError):
        os.killpg(shell, signal.SIGKILL)
    process.kill()
    process.communicate()


def test_killing_the_watchdog_ends_its_shell_guard_and_simulator(watched):
    process, shell, guard, simulator = watched
    process.kill()
    wait_until(lambda: not any(map(is_alive, (shell, guard, simulator))))


def test_killed_guard_is_replaced(watched):
    process, shell, guard, simulator = watched
    os.kill(guard, signal.SIGKILL)
    wait_until(lambda: not {guard} & set(children_of(process.pid)) and len(children_of(process.pid)) == 2)
    process.kill()
    wait_until(lambda: not any(map(is_alive, (shell, simulator))))


def test_command_ends_when_watchdog_and_guard_are_killed_together(watched):
    process, shell, guard, _ = watched
    os.kill(process.pid, signal.SIGSTOP)
    os.kill(guard, signal.SIGKILL)
    process.kill()
    wait_until(lambda: not is_alive(shell))


@pytest.mark.slow
def test_guard_ends_with_a_stopped_simulator(watched):
    process, shell, guard, simulator = watched
    process.send_signal(signal.SIGTERM)
    wait_until(lambda: not any(map(is_alive, (shell, guard, simulator))))
    assert process.wait() == 0


@pytest.mark.slow
def test_end_of_the_parent_is_noticed_while_its_fork_holds_the_pipe():
    code = (
        "import os, subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, {WATCHDOG!r}, *{SHELL!r}], stdin=subprocess.PIPE,"
        " stdout=subprocess.PIPE, text=True)\n"
        "simulator = child.stdout.readline().strip()\n"
        "if os.fork() == 0:\n    print(simulator, os.getpid(), flush=True); time.sleep(1_000)\n"
        "time.sleep(1_000)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        simulator, fork = map(int, parent.stdout.readline().split())
        parent.kill()
        wait_until(lambda: not is_alive(simulator))
        os.kill(fork, signal.SIGKILL)


def test_guard_stops_the_simulator_of_a_hanging_watchdog(monkeypatch, tmp_path):
    monkeypatch.setattr("sb3_visual_td3.envs.carla.server._STOP_TIMEOUT_S", 0.2)
    pid_file = tmp_path / "pid"
    simulator = Simulator(f"sh -c 'echo {{port}} > /dev/null; sleep 1000 & echo $! > {pid_file}; wait'", 2000)
    wait_until(lambda: pid_file.exists() and pid_file.read_text())
    wait_until(lambda: len(children_of(simulator._process.pid)) == 2)
    os.kill(simulator._process.pid, signal.SIGSTOP)
    simulator.stop()
    wait_until(lambda: not is_alive(int(pid_file.read_text())))


@pytest.mark.parametrize("hangs", [False, True])
def test_emulator_ends_with_a_killed_test(hangs):
    pytest.importorskip("msgpack")
    code = (
        "import time\nfrom sb3_visual_td3.envs.carla_emulator.process import EmulatorProcess\n"
        "with EmulatorProcess('train_0') as emulator:\n"
        f"    if {hangs}: emulator.control.fault('hang')\n"
        "    print(emulator.pid, flush=True)\n    time.sleep(1_000)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        emulator = int(parent.stdout.readline())
        assert is_alive(emulator)
        parent.kill()
        wait_until(lambda: not is_alive(emulator))
