"""A wheel, installed into a new virtual environment and used from an empty folder."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_an_installed_wheel_finds_its_yml_and_trains_from_another_folder(tmp_path):
    wheels, venv = tmp_path / "wheels", tmp_path / "venv"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "wheel", str(ROOT), "--no-deps", "-w", str(wheels)], check=True, timeout=900)
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True, timeout=600)
    (wheel,) = wheels.glob("sb3_visual_td3-*.whl")
    subprocess.run([str(venv / "bin" / "pip"), "-q", "install", "--no-deps", str(wheel)], check=True, timeout=600)

    # The other packages are read where these tests have them; .pth files, and so an editable install of ours, are
    # not followed from PYTHONPATH.
    environment = {**os.environ, "PYTHONPATH": sysconfig.get_path("purelib")}
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = [str(venv / "bin" / "visual-td3"), "train", "--env", "LiteDriving-v0", "-n", "60"]
    command += ["-params", "learning_starts:30", "batch_size:8"]
    result = subprocess.run(
        command, cwd=elsewhere, env=environment, capture_output=True, text=True, check=False, timeout=900
    )
    assert result.returncode == 0, result.stderr
    assert f"Loading hyperparameters from: {venv}" in result.stdout
    run_dir = elsewhere / "logs" / "visual_td3" / "LiteDriving-v0_1"
    assert (run_dir / "LiteDriving-v0.zip").is_file()

    report = [str(venv / "bin" / "visual-td3"), "report", str(run_dir)]
    judged = subprocess.run(
        report, cwd=elsewhere, env=environment, capture_output=True, text=True, check=False, timeout=600
    )
    assert judged.returncode in (1, 3), judged.stderr  # 60 steps do not make a driver
    assert (run_dir / "report.html").is_file()

    # In a clone the package of the current folder hides the installed one, which has the hyperparameter files inside.
    for script in (["train.py"], ["-m", "sb3_visual_td3", "train"]):
        command = [str(venv / "bin" / "python"), *script, "-n", "40", "-f", str(tmp_path / script[-1])]
        command += ["--verbose", "0", "-params", "learning_starts:30", "batch_size:8"]
        result = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=900
        )
        assert result.returncode == 0, result.stderr
