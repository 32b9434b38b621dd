"""``--vec-env ray`` and ``vec_env_kwargs`` in a hyperparameter file."""

import functools
import json
import sys

import pytest
import torch as th
import yaml
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from sb3_visual_td3 import VisualTD3
from sb3_visual_td3.vec_env import RayVecEnv
from sb3_visual_td3.zoo.hyperparameters import env_kwargs_of, read_kwargs
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
