"""``visual-td3 doctor``, and the line that ``train`` prints: flags, exit codes, files, and no effect on results."""

import json
import sys

import pytest
import torch as th

from sb3_visual_td3 import VisualTD3
from sb3_visual_td3.cli import main

SMALL = ["--roll-out-steps", "60", "--num-threads", "1"]
FAULTY = ["-params", "learning_starts:9000"]


def test_a_healthy_training_gives_exit_code_0_and_leaves_no_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", *SMALL]) == 0
    output = capsys.readouterr().out
    assert "visual_td3 on LiteDriving-v0: no problems, no warnings" in output
    assert "OrderedDict" not in output
    assert not list(tmp_path.iterdir())


def test_a_problem_gives_exit_code_1_and_is_in_the_json_and_html_files(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", *SMALL, *FAULTY, "--json", "found.json", "--html", "found.html"]) == 1
    found = json.loads((tmp_path / "found.json").read_text())
    assert [finding["id"] for finding in found["findings"]] == ["warmup_beyond_run"]
    assert "learning_starts=9,000 of 5,000 steps: no update will be made" in (tmp_path / "found.html").read_text()
    assert "problem warmup_beyond_run" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"found.json", "found.html"}


@pytest.mark.parametrize(
    "flags",
    [
        ["-params", "buffer_size:int(1e9)"],
        ["--algo", "td3", "--env", "Pendulum-v1", "-params", "buffer_size:int(1e14)"],
    ],
)
def test_a_buffer_that_does_not_fit_is_a_finding(flags, tmp_path, monkeypatch):
    """Our buffer allocates when it is used, Stable-Baselines3's when the model is made."""
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", *SMALL, "-n", "1000000000", *flags, "--json", "found.json"]) == 1
    assert json.loads((tmp_path / "found.json").read_text())["findings"][0]["id"] == "buffer_memory"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--env", "NoSuchEnv-v0"], "no environment of this name"),
        (["-params", "gama:0.9"], "gama"),
        (["-optimize"], "-optimize: the doctor examines one set of hyperparameters"),
        (["--roll-out-steps", "5"], "n_steps=5: expected an integer >= 20"),
        (["--algo", "ppo", "--env", "CartPole-v1"], "expected a Box of continuous actions"),
        (["--algo", "sac", "--env", "Pendulum-v1", "-params", "policy_kwargs:dict(bogus=1)"], "bogus"),
    ],
)
def test_a_usage_error_gives_a_one_line_message_and_exit_code_2(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("visual-td3 doctor: ")
    assert words in line
    assert not list(tmp_path.iterdir())


def test_an_algorithm_without_replay_buffer_is_examined_as_far_as_it_goes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", *SMALL, "--algo", "ppo", "--env", "Pendulum-v1"]) == 0
    assert "has no replay buffer" in capsys.readouterr().out


def test_the_doctor_starts_no_run_of_weights_and_biases(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "wandb", None)  # rl-zoo imports it before it refuses another flag
    assert main(["doctor", "--track", "-optimize"]) == 2
    assert "the doctor examines one set of hyperparameters" in capsys.readouterr().err


TRAINING = ["train", "-n", "60", "-params", "learning_starts:30", "batch_size:8", "--num-threads", "1"]


def test_the_doctor_adds_one_line_to_train_and_does_not_change_the_weights(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    weights = []
    for folder, flags in (("with", []), ("without", ["--no-doctor"])):
        assert main([*TRAINING, "--seed", "3", "--eval-freq", "-1", "-f", folder, *flags]) == 0
        lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Doctor: ")]
        assert len(lines) == (folder == "with")
        model = VisualTD3.load(tmp_path / folder / "visual_td3" / "LiteDriving-v0_1" / "LiteDriving-v0.zip")
        weights.append(model.get_parameters()["policy"])
    assert all(th.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_train_names_the_worst_finding(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = ["-n", "60", "-params", "learning_starts:600", "--num-threads", "1", "--verbose", "0", "--eval-freq", "-1"]
    assert main(["train", *flags]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Doctor: ")]
    assert "learning_starts=600 of 60 steps: no update will be made" in line
