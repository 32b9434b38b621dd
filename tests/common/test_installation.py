"""Test the pip commands in messages, which name libraries and not the package ``sb3-visual-td3`` itself."""

import ast
import configparser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from sb3_visual_td3.common import installation
from sb3_visual_td3.common.installation import install_command, libraries_of

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("extra", ["carla", "plots", "video", "ray"])
def test_the_libraries_of_an_extra_are_those_of_setup_cfg(extra):
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = setup["options.extras_require"][extra].split("\n")
    expected = {str(Requirement(line.partition(";")[0])) for line in lines if line.strip()}
    assert {str(Requirement(library)) for library in libraries_of(extra)} == expected


def test_a_version_is_quoted_for_the_shell():
    assert install_command("ray") == "pip install 'ray>=2.40'"


def test_the_pip_command_names_the_extra_if_the_package_is_not_installed(monkeypatch):
    monkeypatch.setattr(installation, "DISTRIBUTION", "no-such-distribution")
    assert install_command("video") == "pip install '.[video]'"


def test_no_message_names_a_package_that_is_not_on_the_index():
    for file in (ROOT / "sb3_visual_td3").rglob("*.py"):
        strings = [node.value for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Constant)]
        assert not [text for text in strings if isinstance(text, str) and "pip install 'sb3-visual-td3" in text], file
