"""A user's mistake is one line and exit code 2; a bug is a traceback and exit code 4, in every command."""

import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import pytest
import stable_baselines3

from sb3_visual_td3 import VisualTD3, cli
from sb3_visual_td3.common.errors import UsageError, was_raised_on_purpose
from sb3_visual_td3.envs.carla.failures import SimulatorAbsentError
from sb3_visual_td3.zoo import evaluate, plugin, resume, sweep
from sb3_visual_td3.zoo.mistakes import is_mistake
from tests.zoo.test_ends import EndsAt, run_dir_in, run_json, train

PLEASE = "please report this"


def broken(*_, **__):
    return None.get("something")  # an AttributeError, as wrong code raises it


def raised_by(work):
    try:
        work()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def is_a_bug(printed, command, error="AttributeError"):
    assert "Traceback (most recent call last)" in printed
    last = printed.splitlines()[-1]
    assert last.startswith(f"visual-td3 {command}: internal error: {error}: {PLEASE}")
    return True


@pytest.mark.parametrize(
    ("command", "module", "name"),
    [
        (["train"], plugin, "check_keys"),
        (["validate"], plugin, "check_numbers"),
        (["evaluate", "-f", "logs"], evaluate, "find_run"),
        (["enjoy"], cli, None),
        (["sweep", "--seeds", "1"], sweep, "check_env_flags"),
        (["resume", "."], resume, "_experiment_of"),
        (["report", "."], None, "sb3_visual_td3.report.command.load_criteria"),
        (["carla-emulator"], None, "sb3_visual_td3.envs.carla_emulator.command.run"),
    ],
    ids=lambda each: each[0] if isinstance(each, list) else "",
)
def test_an_attribute_error_in_a_command_is_a_bug(command, module, name, tmp_path, monkeypatch, capsys):
    pytest.importorskip("msgpack")
    monkeypatch.chdir(tmp_path)
    if command == ["enjoy"]:
        monkeypatch.setattr("rl_zoo3.enjoy.enjoy", broken)
    elif module is None:
        monkeypatch.setattr(name, broken)
    else:
        monkeypatch.setattr(module, name, broken)
    assert cli.main(command) == 4
    assert is_a_bug(capsys.readouterr().err, command[0])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fault", [AttributeError, TypeError, NameError, KeyError, IndexError, AssertionError])
def test_wrong_code_in_a_callback_is_a_bug_and_the_run_can_be_resumed(tmp_path, capsys, fault):
    def be_wrong(_):
        raise fault("wrong")

    EndsAt.action, EndsAt.step = be_wrong, 45
    assert train(tmp_path) == 4
    assert is_a_bug(capsys.readouterr().err, "train", fault.__name__)
    run = run_json(run_dir_in(tmp_path))
    assert (run["end"], run["finished"]) == ("crashed", None)


def test_wrong_code_that_makes_a_callback_is_a_bug_and_leaves_no_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(EndsAt, "__init__", broken)
    assert train(tmp_path) == 4
    assert is_a_bug(capsys.readouterr().err, "train")
    assert not (tmp_path / "logs").exists()


def test_a_bug_before_the_first_step_leaves_no_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(plugin, "quick_doctor", broken)
    assert train(tmp_path) == 4
    assert is_a_bug(capsys.readouterr().err, "train")
    assert not (tmp_path / "logs").exists()


def test_a_bug_sets_the_exit_code_of_the_process(tmp_path):
    (tmp_path / "wrong_env.py").write_text("import gymnasium\n\ngymnasium.no_such_function()\n")
    command = [sys.executable, "-m", "sb3_visual_td3", "evaluate", "--gym-packages", "wrong_env"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 4
    assert is_a_bug(ended.stderr, "evaluate")
    assert "wrong_env.py" in ended.stderr


@pytest.mark.parametrize("how", ["flag first", "flag last", "variable"])
def test_debug_shows_the_traceback_of_a_usage_error(how, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VISUAL_TD3_DEBUG", raising=False)
    arguments = ["train", "--env", "NoSuchEnv-v0"]
    assert cli.main(arguments) == 2
    assert "Traceback" not in capsys.readouterr().err
    if how == "variable":
        monkeypatch.setenv("VISUAL_TD3_DEBUG", "1")
    asked = {"flag first": ["--debug", *arguments], "flag last": [*arguments, "--debug"], "variable": arguments}
    assert cli.main(asked[how]) == 2
    printed = capsys.readouterr().err
    assert "Traceback" in printed
    assert printed.splitlines()[-1].startswith("visual-td3 train: --env NoSuchEnv-v0: ")
    monkeypatch.setenv("VISUAL_TD3_DEBUG", "0")
    assert cli.main(arguments) == 2
    assert "Traceback" not in capsys.readouterr().err, "the flag holds for one command"


def unpack_too_much():
    _, _ = (1,)


def say_what_is_wrong():
    raise ValueError("gamma is 2")


def test_a_value_error_is_a_mistake_only_if_a_raise_statement_raised_it():
    assert was_raised_on_purpose(raised_by(say_what_is_wrong))
    assert is_mistake(raised_by(say_what_is_wrong))
    assert not was_raised_on_purpose(raised_by(unpack_too_much))
    assert not is_mistake(raised_by(unpack_too_much))
    assert not is_mistake(raised_by(lambda: int("many")))
    assert not was_raised_on_purpose(ValueError("never raised"))


def test_the_package_that_raised_an_exception_decides_whether_it_is_a_mistake():
    wrong_name = raised_by(lambda: gym.make("CartPole-v1", colour=1))
    assert isinstance(wrong_name, TypeError)
    assert is_mistake(wrong_name), "gymnasium raises it"
    assert is_mistake(raised_by(lambda: VisualTD3("CnnPolicy", "LiteDriving-v0", random_shift=-1)))
    assert is_mistake(raised_by(lambda: stable_baselines3.TD3("CnnPolicy", "Pendulum-v1")))
    assert is_mistake(raised_by(lambda: Path("nowhere").read_text()))
    for error in (UsageError("no"), SimulatorAbsentError("no")):
        assert is_mistake(error)
    for fault in (AttributeError, TypeError, NameError, KeyError, IndexError, AssertionError, NotImplementedError):

        def be_wrong(fault=fault):
            raise fault("wrong")

        assert not is_mistake(raised_by(be_wrong)), "it is raised in this file, which is not one of the border"


def test_a_missing_package_is_a_mistake_and_a_missing_module_of_ours_is_a_bug():
    def import_missing():
        import no_such_package  # noqa: F401

    def import_ours():
        import sb3_visual_td3.no_such_module  # noqa: F401

    def import_name_of_ours():
        from sb3_visual_td3.zoo.experiment import no_such_name  # noqa: F401

    assert is_mistake(raised_by(import_missing))
    assert not is_mistake(raised_by(import_ours))
    assert not is_mistake(raised_by(import_name_of_ours))


def test_a_bug_in_a_training_of_a_sweep_names_the_file_with_the_traceback(tmp_path, monkeypatch):
    monkeypatch.setattr(plugin, "check_keys", broken)
    done = sweep.train_one(["--env", "LiteDriving-v0", "-f", str(tmp_path / "logs")], str(tmp_path / "one"))
    assert done.code == 4
    assert PLEASE in done.problem
    assert "AttributeError" in (tmp_path / "one" / "train.log").read_text()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"policy": ["CnnPolicy"]}, "policy is ['CnnPolicy'], expected the name of a policy"),
        ({"policy": {"os.system": {}}}, "expected the name of a policy"),
        ({"policy_kwargs": 0.5}, "policy_kwargs is 0.5, expected a mapping"),
        ({"policy_kwargs": {1: 2}}, "policy_kwargs contains the key 1, expected names of arguments as text"),
        ({"policy_kwargs": "0.5"}, "a hyperparameter has a wrong type"),
        ({"normalize": {"norm_obz": False}}, "normalize has the key 'norm_obz', expected one of "),
        ({"normalize": {"norm_obs": "yes"}}, "norm_obs of normalize is yes, expected true or false"),
        ({"callback": "sb3_visual_td3.caldbacks.X"}, "No module named 'sb3_visual_td3.caldbacks'"),
    ],
)
def test_a_wrong_hyperparameter_of_any_type_gives_a_one_line_error(tmp_path, capsys, changed, words):
    assert train(tmp_path, **changed) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("visual-td3 train: ")]
    assert words in line
    assert not (tmp_path / "logs").exists()
