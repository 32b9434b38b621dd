"""No simulator outlives the training that started it, whichever of the processes is killed."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sb3_visual_td3.envs.carla import watchdog
from sb3_visual_td3.envs.carla.launcher import Simulator

WATCHDOG = str(Path(watchdog.__file__))
SHELL = ["sh", "-c", "trap '' TERM; sleep 100 & echo $!; wait"]
"""As CarlaUE4.sh: a shell around the simulator, whose number it prints. It does not listen to SIGTERM."""


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(is_so):
    for _ in range(3_000):
        if is_so():
            return
        time.sleep(0.02)
    raise AssertionError("it did not come to pass")


def children_of(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.fixture
def watched():
    """A watchdog with its shell and its guard, and the number of the simulator."""
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


def test_a_watchdog_that_is_killed_takes_shell_and_simulator_along(watched):
    process, shell, guard, simulator = watched
    process.kill()
    wait_until(lambda: not any(map(is_alive, (shell, guard, simulator))))


def test_a_guard_that_is_killed_is_replaced(watched):
    process, shell, guard, simulator = watched
    os.kill(guard, signal.SIGKILL)
    wait_until(lambda: not {guard} & set(children_of(process.pid)) and len(children_of(process.pid)) == 2)
    process.kill()
    wait_until(lambda: not any(map(is_alive, (shell, simulator))))


def test_where_watchdog_and_guard_are_killed_at_once_the_command_itself_ends(watched):
    process, shell, guard, _ = watched
    os.kill(process.pid, signal.SIGSTOP)
    os.kill(guard, signal.SIGKILL)
    process.kill()
    wait_until(lambda: not is_alive(shell))


def test_a_guard_of_a_simulator_that_was_stopped_is_gone(watched):
    process, shell, guard, simulator = watched
    process.send_signal(signal.SIGTERM)
    wait_until(lambda: not any(map(is_alive, (shell, guard, simulator))))
    assert process.wait() == 0


def test_a_parent_that_is_gone_is_noticed_though_a_fork_of_it_holds_the_pipe():
    code = (
        "import os, subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, {WATCHDOG!r}, *{SHELL!r}], stdin=subprocess.PIPE,"
        " stdout=subprocess.PIPE, text=True)\n"
        "simulator = child.stdout.readline().strip()\n"
        "if os.fork() == 0:\n    print(simulator, os.getpid(), flush=True); time.sleep(100)\n"
        "time.sleep(100)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        simulator, fork = map(int, parent.stdout.readline().split())
        parent.kill()
        wait_until(lambda: not is_alive(simulator))
        os.kill(fork, signal.SIGKILL)


def test_a_watchdog_that_does_not_answer_is_replaced_by_its_guard_when_the_simulator_is_stopped(monkeypatch, tmp_path):
    monkeypatch.setattr("sb3_visual_td3.envs.carla.launcher._STOP_S", 0.2)
    told = tmp_path / "pid"
    simulator = Simulator(f"sh -c 'echo {{port}} > /dev/null; sleep 100 & echo $! > {told}; wait'", 2000)
    wait_until(lambda: told.exists() and told.read_text())
    wait_until(lambda: len(children_of(simulator._process.pid)) == 2)
    os.kill(simulator._process.pid, signal.SIGSTOP)
    simulator.stop()
    wait_until(lambda: not is_alive(int(told.read_text())))


@pytest.mark.parametrize("hangs", [False, True])
def test_an_emulator_of_a_test_that_is_killed_ends_too(hangs):
    pytest.importorskip("msgpack")
    code = (
        "import time\nfrom sb3_visual_td3.envs.carla_emulator.process import EmulatorProcess\n"
        "with EmulatorProcess('train_0') as emulator:\n"
        f"    if {hangs}: emulator.control.fault('hang')\n"
        "    print(emulator.pid, flush=True)\n    time.sleep(100)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        emulator = int(parent.stdout.readline())
        assert is_alive(emulator)
        parent.kill()
        wait_until(lambda: not is_alive(emulator))
