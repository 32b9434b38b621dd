"""Run scripts that use CARLA's genuine client as its documentation does, each script in its own process."""

import importlib.util
import re
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
def test_carla_script_runs_on_the_emulator(script):
    with EmulatorProcess("train_0") as emulator:
        command = [sys.executable, "-X", "faulthandler", str(script), "--port", str(emulator.port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600.0, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip().splitlines()[-1].startswith("done")
        assert emulator.control.status()["n_actors"] == 0, "the script has destroyed its actors"
        assert emulator.stop() == 0


def test_quick_start_of_the_documentation_runs(tmp_path):
    text = (Path(__file__).parents[3] / "docs" / "carla_emulator.md").read_text()
    (block,) = [each for each in re.findall(r"```python\n(.*?)```", text, re.S) if "save_to_disk" in each]
    with EmulatorProcess("train_0") as emulator:
        script = block.replace("2000", str(emulator.port))
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=600.0, check=False
        )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "front.png").stat().st_size > 10_000
