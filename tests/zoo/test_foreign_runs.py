"""Test what ``evaluate``, ``export`` and ``enjoy`` say about runs that they cannot load."""

import pytest
import yaml

from sb3_visual_td3.cli import main
from tests.zoo.test_saved_run import ARGS

COMMANDS = {"evaluate": [], "export": ["-o", "policy.onnx"], "enjoy": ["--no-render"]}


def run_of_my_env(folder, packages):
    settings = folder / "logs" / "visual_td3" / "MyEnv-v0_1" / "MyEnv-v0"
    settings.mkdir(parents=True)
    (settings / "args.yml").write_text(yaml.dump({**ARGS, "env": "MyEnv-v0", "gym_packages": packages}))
    (settings.parent / "MyEnv-v0.zip").touch()


def error_of(command, *arguments, capsys):
    assert main([command, *arguments, *COMMANDS[command]]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize("command", COMMANDS)
def test_the_packages_of_the_training_are_named_if_the_environment_is_unknown(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run_of_my_env(tmp_path, ["reach", "json"])
    line = error_of(command, "--env", "MyEnv-v0", "--gym-packages", "json", capsys=capsys)
    assert "The run was trained with --gym-packages reach: add it" in line


@pytest.mark.parametrize("command", COMMANDS)
def test_a_run_without_packages_gets_the_general_message(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run_of_my_env(tmp_path, [])
    assert "name the module that registers it" in error_of(command, "--env", "MyEnv-v0", capsys=capsys)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("folder", ["logs", "logs/visual_td3"])
def test_an_environment_without_a_run_is_named(command, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / folder).mkdir(parents=True)
    line = error_of(command, "--env", "LiteRoutes-v0", capsys=capsys)
    assert "there is no run of LiteRoutes-v0 below logs/visual_td3" in line


@pytest.mark.parametrize("command", ["evaluate", "export"])
@pytest.mark.parametrize("left", ["run.json", "tb", "snapshots"])
def test_the_run_of_a_script_is_recognised(command, left, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run" / left).mkdir(parents=True)
    line = error_of(command, "run", capsys=capsys)
    assert "'visual-td3 train' did not start" in line
    assert "load the model with VisualTD3.load" in line
