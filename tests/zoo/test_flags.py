"""Test how KEY:VALUE pairs of the command line are read: as Python, as YAML, or as plain text."""

import argparse
import math

import pytest
from torch import nn

from sb3_visual_td3.common.errors import UsageError
from sb3_visual_td3.zoo.flags import StorePlainPairs, command_line, import_packages, read_value, store_pairs


@pytest.mark.parametrize(
    "text",
    [
        "lin_1e-3", "cos_3e-4", "lin_0.5_0.1", "Town02", "held_out", "held-out", "Town10HD/Opt", "MlpPolicy",
        "/data/maps:old/a.xodr", "./a.yml", "C:\\maps\\a.xodr", "localhost:2000", "127.0.0.1", "0.9.16", "10:30",
        "2024-01-01", "007", "two words", "a #b", "#b", "- a", "*a", "[", "{a", "!!python/object:os.system x", "é",
        "stable_baselines3.common.callbacks.CheckpointCallback", "lin(1e-3)",
        # These words are, or begin with, names of Python functions or modules.
        "min", "max", "all", "id", "map", "os", "map.xml", "glob.txt", "os.yml", "all-red",
    ],
)  # fmt: skip
def test_plain_text_is_a_string_as_in_a_hyperparameter_file(text):
    assert read_value(text) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2000", 2000), ("1e-3", 0.001), ("1_000", 1000), ("None", None), ("True", True), ("'Town01'", "Town01"),
        ('"2000"', "2000"), ("''", ""), ("[64, 64]", [64, 64]), ("(1, 'step')", (1, "step")), ("{'a': 1}", {"a": 1}),
        (" 3 ", 3),
    ],
)  # fmt: skip
def test_a_python_literal_keeps_its_type(text, value):
    assert read_value(text) == value
    assert type(read_value(text)) is type(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("dict(net_arch=[64])", {"net_arch": [64]}), ("2**18", 262_144), ("1/4", 0.25), ("nn.ReLU", nn.ReLU),
        ("dict(activation_fn=nn.Tanh)", {"activation_fn": nn.Tanh}), ("float", float), ("[0] * 3", [0, 0, 0]),
        ("[n for n in range(3)]", [0, 1, 2]), ("float('inf')", math.inf), ("str(3)", "3"),
    ],
)  # fmt: skip
def test_code_that_rl_zoo_runs_is_still_run(text, value):
    assert read_value(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True), ("false", False), ("null", None), ("~", None), ("{n: 3, mode: fast}", {"n": 3, "mode": "fast"}),
        ("[Town01, Town02]", ["Town01", "Town02"]), ("{lr: 1e-3, rate: lin_1e-3}", {"lr": 0.001, "rate": "lin_1e-3"}),
        ("{'town': Town02}", {"town": "Town02"}), ("inf", math.inf), ("-inf", -math.inf),
    ],
)  # fmt: skip
def test_yaml_constants_lists_and_mappings_become_python_values(text, value):
    assert read_value(text) == value


@pytest.mark.parametrize(
    "text", ["1/0", "dict(net_arch=", "dict(a=foo)", "dict(a=nn.Relu)", "int('many')", "(lambda: 1/0)()"]
)
def test_code_that_fails_is_rejected_and_quoted(text):
    with pytest.raises(UsageError) as refused:
        read_value(text, "-params policy_kwargs")
    assert str(refused.value).startswith(f"-params policy_kwargs: {text!r}")


@pytest.mark.parametrize("package", ["./my_envs.py", "../my_envs.py", ".my_envs", "envs/my_envs.py", "my_envs.py"])
def test_a_path_instead_of_a_module_is_refused_with_the_modules_name(package):
    with pytest.raises(UsageError, match=r"give the name of the module, my_envs$"):
        import_packages([package])


StorePairs = type("StorePairs", (argparse.Action,), {"__call__": store_pairs})


def parse(action, *pairs):
    parser = argparse.ArgumentParser()
    parser.add_argument("-params", "--hyperparams", nargs="+", action=action)
    return parser.parse_args(["-params", *pairs]).hyperparams


@pytest.mark.parametrize("action", [StorePairs, StorePlainPairs])
def test_the_key_of_a_pair_ends_at_the_first_colon(action):
    pairs = parse(action, "a:1", "path:C:/x:y", " b : {c: d}")
    assert pairs == {"a": 1, "path": "C:/x:y", "b": {"c": "d"}}


NO_PAIRS = ["learning_rate=1e-3", "gamma", ":3", " :3", "gamma:", "gamma: "]


@pytest.mark.parametrize("pair", NO_PAIRS)
def test_text_that_is_not_a_pair_is_rejected_with_the_name_of_the_flag(pair):
    with pytest.raises(UsageError, match=r"^-params .*(expected KEY:VALUE|no value after the colon)"):
        parse(StorePairs, "a:1", pair)


@pytest.mark.parametrize("pair", NO_PAIRS)
def test_text_that_is_not_a_plain_pair_is_rejected_by_the_parser(pair, capsys):
    with pytest.raises(SystemExit):
        parse(StorePlainPairs, "a:1", pair)
    assert f"error: -params {pair}: " in capsys.readouterr().err


def test_a_plain_pair_runs_no_code():
    assert parse(StorePairs, "a:2**3") == {"a": 8}
    assert parse(StorePlainPairs, "a:2**3", "b:dict(c=1)") == {"a": "2**3", "b": "dict(c=1)"}


PACKAGE_WITH_A_PARSER = """
import argparse

parser = argparse.ArgumentParser("simulator")
parser.add_argument("--env", default="town")
parser.add_argument("--vec-env", choices=["own"], default="own")
settings = vars(parser.parse_args([]))
"""


def test_parsers_of_the_user_work_while_a_command_runs(tmp_path, monkeypatch):
    """rl-zoo's parser is the first to parse; a package, an environment or a callback may have another parser."""
    (tmp_path / "package_with_a_parser.py").write_text(PACKAGE_WITH_A_PARSER)
    monkeypatch.syspath_prepend(tmp_path)
    flags = ["--env", "Pendulum-v1", "--vec-env", "ray", "--gym-packages", "package_with_a_parser"]
    with command_line("train", flags, makes_environments=True, trains=True, overrides={"track": False}):
        of_rl_zoo = argparse.ArgumentParser()
        of_rl_zoo.add_argument("--env")
        of_rl_zoo.add_argument("--vec-env", choices=["dummy"])
        parsed = of_rl_zoo.parse_args()
        assert (parsed.env, parsed.vec_env, parsed.no_doctor, parsed.track) == ("Pendulum-v1", "ray", False, False)
        import package_with_a_parser as package

        assert package.settings == {"env": "town", "vec_env": "own"}
        assert package.parser.prog == "simulator"
        assert vars(package.parser.parse_args(["--env", "no-such-env"])) == {"env": "no-such-env", "vec_env": "own"}
        with pytest.raises(SystemExit):
            package.parser.parse_args(["--colour"])
