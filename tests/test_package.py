"""Tests for the import of the package: public names, the version, and the registered environments."""

import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import pytest

import sb3_visual_td3

ROOT = Path(__file__).resolve().parents[1]


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_every_public_name_can_be_imported():
    for name in sb3_visual_td3.__all__:
        assert getattr(sb3_visual_td3, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="NoSuchThing"):
        _ = sb3_visual_td3.NoSuchThing


def test_the_version_is_the_one_of_the_version_file():
    assert sb3_visual_td3.__version__ == (ROOT / "sb3_visual_td3" / "version.txt").read_text().strip()


def test_importing_the_package_registers_the_environment_and_leaves_torch_alone():
    code = (
        "import sys, gymnasium, sb3_visual_td3\n"
        "assert 'LiteDriving-v0' in gymnasium.registry\n"
        "print([m for m in ('torch', 'stable_baselines3', 'cv2') if m in sys.modules])"
    )
    assert run_python(code).strip() == "[]"


def test_the_environment_is_registered_once():
    assert gym.spec("LiteDriving-v0").max_episode_steps == 500


WITHOUT_NAMES_MISSING_ON_WINDOWS = """
import os, platform, select, signal, sys
import matplotlib, plotly, psutil, rl_zoo3, sb3_contrib, tensorboard, torch, torch.utils.tensorboard
platform.uname()
for module in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[module] = None  # its import raises ImportError
for name in ("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "fork", "getuid", "killpg", "pread", "pwrite", "register_at_fork",
             "sched_getaffinity", "setsid", "sysconf", "uname"):
    delattr(os, name)
for name in ("ITIMER_REAL", "SIGALRM", "SIGHUP", "SIGKILL", "SIGUSR1", "SIGUSR2", "setitimer"):
    delattr(signal, name)
del select.poll

from sb3_visual_td3 import GradientNormCallback, RunRecorderCallback, SnapshotCallback, VisualTD3
from sb3_visual_td3.callbacks.ending_signals import TrainingInterrupted
from sb3_visual_td3.cli import main
from stable_baselines3.common.callbacks import BaseCallback

class Terminate(BaseCallback):
    def _on_step(self):
        if self.num_timesteps == 40:
            signal.raise_signal(signal.SIGTERM)
        return True

def train(*callbacks):
    model = VisualTD3("CnnPolicy", "LiteDriving-v0", learning_starts=20, batch_size=8, buffer_size=100,
                      tensorboard_log="run/tb")
    snapshots = SnapshotCallback(save_freq=30, run_dir="run", resume=True, signals=["SIGTERM"])
    callbacks = [*callbacks, RunRecorderCallback("run"), GradientNormCallback(), snapshots]
    return model.learn(60, callback=callbacks).num_timesteps

try:
    train(Terminate())
except TrainingInterrupted:
    print("interrupted")
print(train(), "steps")
assert main(["report", "run"]) == 3
assert main(["demo", "--seconds", "1", "--record"]) == 0
assert main(["carla-emulator"]) == main(["demo", "--carla", "2000"]) == 2
"""


@pytest.mark.slow
def test_training_resuming_and_reporting_need_no_name_that_python_lacks_on_windows(tmp_path):
    """The child process imports the other packages, and then removes the names that Python lacks on Windows."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_NAMES_MISSING_ON_WINDOWS],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "interrupted\nresumed at step 40 " in done.stdout
    assert "60 steps" in done.stdout
    assert "visual-td3 carla-emulator needs Linux\n" in done.stderr
    assert "CarlaDriving-v0 needs Linux: it locks the ports of servers with flock\n" in done.stderr
