"""Importing the package: public names, the version, and the registered environments."""

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
