"""``--vec-env ray`` and ``vec_env_kwargs`` in a hyperparameter file."""

import functools
import json
import sys

import pytest
import torch as th
import yaml
from stable_baselines3 import TD3
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from sb3_visual_td3 import VisualTD3
from sb3_visual_td3.vec_env import RayVecEnv
from sb3_visual_td3.zoo.hyperparameters import (
    check_classes,
    check_file,
    check_numbers,
    check_structure,
    env_kwargs_of,
    read_counts,
    read_kwargs,
)
from sb3_visual_td3.zoo.train import main

BLOCK = {
    "policy": "CnnPolicy",
    "n_timesteps": 80,
    "n_envs": 2,
    "buffer_size": 200,
    "learning_starts": 40,
    "batch_size": 4,
    "train_freq": 4,
    "callback": ["sb3_visual_td3.callbacks.run_recorder.RunRecorderCallback"],
}


def run(tmp_path, *flags, **changes):
    conf = tmp_path / "conf.yml"
    conf.write_text(yaml.safe_dump({"LiteDriving-v0": {**BLOCK, **changes}}))
    return main(["--conf-file", str(conf), "-f", str(tmp_path / "logs"), "--seed", "3", "--eval-freq", "-1", *flags])


@pytest.mark.ray
def test_training_on_ray_gives_the_same_weights_as_subproc_and_shuts_ray_down(tmp_path, monkeypatch, no_ray):
    ray = pytest.importorskip("ray")
    made = []

    make = RayVecEnv.__init__

    @functools.wraps(make)
    def watched(self, env_fns, **kwargs):
        made.append((len(env_fns), kwargs))
        make(self, env_fns, **kwargs)

    monkeypatch.setattr(RayVecEnv, "__init__", watched)
    assert run(tmp_path, "--vec-env", "ray", vec_env_kwargs={"num_cpus": 0.5, "patience_s": 300}) == 0
    assert made == [(2, {"num_cpus": 0.5, "patience_s": 300})]
    run_dir = tmp_path / "logs" / "visual_td3" / "LiteDriving-v0_1"
    assert (run_dir / "LiteDriving-v0.zip").is_file()
    assert json.loads((run_dir / "run.json").read_text())["finished"] is not None
    assert len(list(run_dir.glob("*.monitor.csv"))) == 2
    assert not ray.is_initialized()
    assert run(tmp_path, "--vec-env", "subproc") == 0
    ours, stock = (VisualTD3.load(run_dir.with_name(f"LiteDriving-v0_{n}") / "LiteDriving-v0.zip") for n in (1, 2))
    assert all(map(th.equal, ours.policy.state_dict().values(), stock.policy.state_dict().values()))


@pytest.mark.parametrize(
    ("flags", "kwargs", "words"),
    [
        (["--vec-env", "ray"], {"num_gpu": 1}, ["RayVecEnv has no 'num_gpu'", "did you mean 'num_gpus'"]),
        ([], {"deadline_s": 1.0}, ["DummyVecEnv has no 'deadline_s'", "--vec-env ray"]),
        ([], {"start_method": "fork"}, ["DummyVecEnv has no 'start_method'", "--vec-env subproc"]),
        (["--vec-env", "ray"], [1], ["vec_env_kwargs is [1]", "expected a mapping"]),
        (["--vec-env", "cloud"], {}, ["cloud", "dummy", "subproc", "ray"]),
        (["--vec-env", "ray"], {"placement": "near"}, ["placement='near'"]),
    ],
)
def test_a_usage_error_gives_a_one_line_message_and_leaves_no_log_folder(tmp_path, capsys, flags, kwargs, words):
    assert run(tmp_path, *flags, vec_env_kwargs=kwargs) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert all(word in lines[0] for word in words)
    assert not (tmp_path / "logs").exists()


def test_vec_env_ray_without_ray_installed_gives_the_pip_command(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert run(tmp_path, "--vec-env", "ray") == 2
    assert "pip install 'ray>=2.40'" in capsys.readouterr().err
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize(
    ("given", "vec_env_class", "expected"),
    [
        (None, DummyVecEnv, {}),
        ({}, RayVecEnv, {}),
        ({"start_method": "fork"}, SubprocVecEnv, {"start_method": "fork"}),
        ("dict(num_gpus=0.5)", RayVecEnv, {"num_gpus": 0.5}),
    ],
)
def test_arguments_in_the_file_reach_the_environments(given, vec_env_class, expected):
    assert read_kwargs(given, vec_env_class, "here") == expected


@pytest.mark.parametrize(
    ("layers", "together"),
    [
        (({"a": 1, "b": 2}, {"b": 3}), {"a": 1, "b": 3}),
        (
            ({"town": "Town01", "port": 2000}, {"maps": "held_out"}, {"town": "Town02"}),
            {"port": 2000, "town": "Town02"},
        ),
        (({"town": "Town01"}, {"maps": ["Town02"]}), {"maps": ["Town02"]}),
        (({"maps": "train"}, {"town": "Town02"}), {"town": "Town02"}),
        (({"town": "Town01"}, None, {"port": 3000}), {"town": "Town01", "port": 3000}),
        # Both in one layer is the user's own mistake, which the environment names.
        (({}, {"town": "Town01", "maps": "train"}), {"town": "Town01", "maps": "train"}),
    ],
)
def test_a_later_town_or_maps_argument_replaces_an_earlier_town_or_maps(layers, together):
    assert env_kwargs_of(*layers) == together


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "conf.yml: expected a mapping of names to values, got NoneType"),
        (b"# nothing", "conf.yml: expected a mapping of names to values, got NoneType"),
        (b"- Env-v0", "conf.yml: expected a mapping of names to values, got list"),
        (b"hello", "conf.yml: expected a mapping of names to values, got str"),
        (b"Env-v0:", "conf.yml, Env-v0: expected a mapping of hyperparameters to values, got nothing"),
        (b"Env-v0: [a: 1]", "conf.yml, Env-v0: expected a mapping of hyperparameters to values, got list"),
        (b"default: 5", "conf.yml, default: expected a mapping of hyperparameters to values, got int"),
        (b"Env-v0: {1: 2}", "conf.yml, Env-v0: the key 1 is not text"),
        (b"Env-v0: {}  # gr\xfc\xdfe", "conf.yml: not a text file"),
        (b"Env-v0:\n\ta: 1", "conf.yml: not valid YAML"),
        (b"Env-v0: {a: 1}\nEnv-v0: {a: 2}", "conf.yml: not valid YAML: line 2: Env-v0 is given twice"),
    ],
)
def test_a_malformed_hyperparameter_file_is_named(tmp_path, content, words):
    path = tmp_path / "conf.yml"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"conf\.yml") as refused:
        check_file(str(path), "Env-v0", is_atari=False)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_hyperparameter_file_may_use_merge_keys_and_need_not_have_blocks_for_other_environments(tmp_path):
    (tmp_path / "conf.yml").write_text("rate: &rate 1e-3\nbase: &base {a: 1}\nEnv-v0: {<<: *base, a: 2, b: *rate}\n")
    check_file(str(tmp_path / "conf.yml"), "Env-v0", is_atari=False)


def test_train_checks_the_file_before_rl_zoo_reads_it(tmp_path, capsys):
    (tmp_path / "conf.yml").write_text("LiteDriving-v0:\n  n_timesteps: 10\n  n_timesteps: 20\n")
    assert main(["--conf-file", str(tmp_path / "conf.yml"), "-f", str(tmp_path / "logs")]) == 2
    assert "conf.yml: not valid YAML: line 3: n_timesteps is given twice" in capsys.readouterr().err


@pytest.mark.parametrize("value", [0, "four", 4.5, True, -1])
@pytest.mark.parametrize("key", ["frame_stack", "n_envs"])
def test_a_count_must_be_an_integer(key, value):
    with pytest.raises(ValueError, match=f"conf.yml, Env-v0: {key} is .*; expected an integer >= 1"):
        read_counts({key: value}, "conf.yml, Env-v0")


def test_counts_may_be_left_out_or_written_as_whole_floats_or_text():
    assert read_counts({"frame_stack": None, "n_timesteps": 1e6}, "conf.yml") == {"n_timesteps": 1_000_000}
    counts = {"frame_stack": 4, "n_envs": 2, "n_timesteps": 100}
    assert read_counts({"frame_stack": 4.0, "n_envs": "2", "n_timesteps": "100"}, "conf.yml") == counts


@pytest.mark.parametrize("text", ["2020-01-01", "!!set {a, b}", "!!binary aGk=", "[4]", "{a: 1}", "null"])
def test_a_number_must_not_be_another_kind_of_yaml_value(text):
    block = yaml.safe_load(f"batch_size: {text}")
    with pytest.raises(ValueError, match=r"conf\.yml: batch_size is .*, expected a number"):
        check_numbers(block, VisualTD3, "conf.yml")
    check_numbers({"batch_size": 4.0, "tau": 1, "max_grad_norm": None, "seed": None}, VisualTD3, "conf.yml")


def test_whole_floats_of_integer_arguments_become_integers():
    block = yaml.safe_load("{batch_size: 2.56e+2, gradient_steps: -1, policy_delay: 2, tau: 1, seed: null}")
    assert block["batch_size"] == 256.0
    integers = check_numbers(block, TD3, "conf.yml")
    assert integers == {"batch_size": 256, "gradient_steps": -1, "policy_delay": 2}
    assert {type(value) for value in integers.values()} == {int}


@pytest.mark.parametrize("value", [1.5, True])
@pytest.mark.parametrize("key", ["batch_size", "gradient_steps", "policy_delay", "learning_starts"])
def test_an_integer_argument_of_a_stock_algorithm_must_be_an_integer(key, value):
    with pytest.raises(ValueError, match=rf"conf\.yml: {key} is {value}, expected an integer"):
        check_numbers({key: value}, TD3, "conf.yml")


def test_env_kwargs_must_be_a_mapping_because_rl_zoo_does_not_evaluate_text():
    with pytest.raises(ValueError, match=r"env_kwargs is dict\(town='b'\), expected a mapping of names to values"):
        check_structure({"env_kwargs": "dict(town='b')"}, "conf.yml")
    check_structure({"env_kwargs": {"town": "b"}, "monitor_kwargs": "dict(info_keywords=('a',))"}, "conf.yml")


def test_a_switch_must_be_true_or_false():
    with pytest.raises(ValueError, match="scale_rewards is 'maybe', expected true or false"):
        check_numbers({"scale_rewards": "maybe"}, VisualTD3, "conf.yml")
    with pytest.raises(ValueError, match="overlap is None, expected true or false"):
        check_numbers({"overlap": None}, VisualTD3, "conf.yml")
    check_numbers({"scale_rewards": None, "overlap": True, "target_q_clamp": 5.0}, VisualTD3, "conf.yml")


ALERT = "sb3_visual_td3.callbacks.explosion_alert.ExplosionAlertCallback"
LIMIT = "gymnasium.wrappers.TimeLimit"


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ({"callback": 5}, "callback is 5; expected the name of a callback, package.module.Class"),
        ({"callback": "ExplosionAlertCallback"}, "expected its full name, sb3_visual_td3.ExplosionAlertCallback"),
        ({"callback": ["NoSuchCallback"]}, "expected its full name, such as my_package.my_module.NoSuchCallback"),
        (
            {"env_wrapper": "TimeLimit"},
            "'TimeLimit'; expected its full name, gymnasium.wrappers.TimeLimit",
        ),
        ({"callback": "my.thing"}, "callback names my.thing, which cannot be imported: No module named 'my'"),
        ({"env_wrapper": {"nope.Wrapper": {}}}, "env_wrapper names nope.Wrapper, which cannot be imported"),
        ({"vec_env_wrapper": "nope.Wrapper"}, "vec_env_wrapper names nope.Wrapper, which cannot be imported"),
        ({"policy": "nope.Policy"}, "policy names nope.Policy, which cannot be imported"),
        ({"callback": ALERT + "s"}, "has no ExplosionAlertCallbacks; did you mean ExplosionAlertCallback?"),
        ({"callback": "collections.OrderedDict"}, "callback is 'collections.OrderedDict', which is not a callback"),
        ({"callback": [{ALERT: {"on_critcal": "stop"}}]}, "unexpected keyword argument 'on_critcal'"),
        ({"callback": [{ALERT: None}]}, "its arguments are None; expected pairs of a name and a value"),
        ({"env_wrapper": [{LIMIT: {"max_steps": 5}}]}, "env_wrapper is 'gymnasium.wrappers.TimeLimit': "),
    ],
)
def test_a_class_that_cannot_be_used_is_named_with_its_key(block, words):
    with pytest.raises(ValueError, match=r"conf\.yml") as refused:
        check_classes(block, "conf.yml, Env-v0")
    assert str(refused.value).startswith(f"conf.yml, Env-v0: {next(iter(block))} ")
    assert words in str(refused.value)


def test_classes_that_rl_zoo_can_use_are_accepted():
    check_classes(
        {
            "policy": "CnnPolicy",
            "callback": [ALERT, {ALERT: {"on_critical": "stop"}}],
            "env_wrapper": [{LIMIT: {"max_episode_steps": 5}}, "rl_zoo3.utils.flatten_dict_observations"],
            "vec_env_wrapper": None,
        },
        "conf.yml",
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"policy_kwargs": "dict(net_arch=[64]"}, "LiteDriving-v0: policy_kwargs cannot be evaluated: '(' was never"),
        (
            {"replay_buffer_class": "nope.Buffer"},
            "replay_buffer_class cannot be evaluated: name 'nope' is not defined",
        ),
        ({"normalize": "{'norm_obs': False"}, "LiteDriving-v0: normalize cannot be evaluated: '{' was never"),
    ],
)
def test_python_code_that_fails_is_named_with_its_key(tmp_path, capsys, changes, words):
    assert run(tmp_path, **changes) == 2
    assert words in capsys.readouterr().err
