"""Test that CarlaDriving-v0 waits until a server that has died is running again.

Each test drives in a separate process, because CARLA's client ends its process on some faults.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.envs.carla.conftest import EMULATOR

pytest.importorskip("carla", reason="carla's client is not installed")
pytestmark = pytest.mark.carla

ROOT = Path(__file__).parents[3]
DRIVE = """
import sys
import gymnasium as gym, numpy as np
import sb3_visual_td3
from sb3_visual_td3.envs.carla import carla_env

carla_env._MAX_PAUSE_S = 0.1
env = gym.make("CarlaDriving-v0", timeout_s=0.3, n_cars=1, {arguments})
env.reset(seed=0)
answer = env.step(np.array([0.0, 0.5], np.float32))
while answer[3]:  # the last server dies after some steps
    env.reset()
    answer = env.step(np.array([0.0, 0.5], np.float32))
print("failures", env.unwrapped.n_simulator_failures)
env.close()
"""


def drive(arguments, timeout_s=900.0):
    command = [sys.executable, "-X", "faulthandler", "-c", DRIVE.format(arguments=arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False, cwd=ROOT)


@pytest.fixture
def mortal():
    """Return a function that starts ``mortal_server.py`` with the given arguments and returns the port."""
    started = []

    def start(*lives):
        script = [sys.executable, str(Path(__file__).with_name("mortal_server.py")), *lives]
        process = subprocess.Popen(
            script, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True, cwd=ROOT
        )
        started.append(process)
        return int(process.stdout.readline())

    yield start
    for process in started:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def test_first_reset_waits_for_a_starting_server(mortal):
    lives = ["close:2", "hang:1", "reset:2", "hang:2", "die:1", "close:1", "die:2", "reset:1", "die:3", "die:4"]
    done = drive(f"port={mortal(*lives)}, patience_s=600.0")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[1]) >= 8


def test_server_may_die_at_any_call_while_the_world_is_built(mortal):
    done = drive(f"port={mortal(*(f'die:{n}' for n in range(5, 45, 4)))}, patience_s=600.0")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[1]) >= 8


def test_reset_fails_after_patience_s_if_the_server_never_finishes_starting(mortal):
    done = drive(f"port={mortal('close:1000')}, patience_s=0.5")
    assert done.returncode == 1
    assert "closed the connection before it answered" in done.stderr.splitlines()[-1]


def test_other_protocol_is_refused_at_once():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            while True:  # on a busy machine, the client may connect again before it has the first answer
                connection, _ = server.accept()
                connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")

        threading.Thread(target=serve, daemon=True).start()
        done = drive(f"port={server.getsockname()[1]}, patience_s=3600.0")
    assert "does not speak CARLA's protocol" in done.stderr.splitlines()[-1]


def test_simulator_killed_during_its_start_is_restarted(tmp_path):
    """The simulator is killed twice before it listens on its port, and once as soon as it listens."""
    starts, pid, emulator = tmp_path / "starts", tmp_path / "pid", EMULATOR.format(port="$1")
    script = tmp_path / "start.sh"
    script.write_text(
        f"echo >> {starts}; n=$(wc -l < {starts})\n"
        "[ $n = 1 ] && kill -9 $$\n"
        "[ $n = 2 ] && kill -11 $$\n"
        f"[ $n -gt 3 ] && exec {emulator}\n"
        f"({emulator} & echo $! > {pid}; wait) | (read line; kill -9 $(cat {pid}))\n"
        "exit 137\n"
    )
    done = drive(f"command='sh {script} {{port}}', port=24800, patience_s=600.0")
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "starts").read_text()) >= 4


def test_simulator_that_ends_at_its_first_start_is_not_retried(tmp_path):
    done = drive("command='sh -c \"echo {port} wrong flag; exit 3\"', port=24840, patience_s=3600.0")
    assert done.returncode == 1
    assert "ended with exit code 3; it printed: " in done.stderr.splitlines()[-1]
