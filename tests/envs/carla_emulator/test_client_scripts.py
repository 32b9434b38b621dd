"""Scripts for CARLA's genuine client, written as its documentation and its users write them, each in a process."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from sb3_visual_td3.envs.carla_emulator.process import EmulatorProcess

pytestmark = [
    pytest.mark.carla,
    pytest.mark.skipif(importlib.util.find_spec("carla") is None, reason="CARLA's client is not installed"),
]
SCRIPTS = sorted((Path(__file__).parent / "scripts").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_that_knows_nothing_of_the_emulator_runs_on_it(script):
    with EmulatorProcess("train_0") as emulator:
        command = [sys.executable, "-X", "faulthandler", str(script), "--port", str(emulator.port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120.0, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip().splitlines()[-1].startswith("done")
        assert emulator.control.status()["n_actors"] == 0, "it has cleaned up"
        assert emulator.stop() == 0
