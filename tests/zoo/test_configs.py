"""The hyperparameter files: every block makes a model that trains, and every number says where it comes from."""

import copy
import re
from contextlib import ExitStack

import numpy as np
import pytest
import yaml
from rl_zoo3.utils import ALGOS

from sb3_visual_td3.zoo.experiment import CALLBACK, WRAPPER, find_class
from sb3_visual_td3.zoo.plugin import CONFIGS, register
from sb3_visual_td3.zoo.train import main, train

register()

FILES = ["visual_td3.yml", "seed_debug.yml", "seed_1m.yml", "td3.yml", "sac.yml", "tqc.yml"]
ENVS = ["LiteDriving-v0", "CarlaDriving-v0", "CarRacing-v3", "Pendulum-v1"]


def algo_of(file):
    name = file.removesuffix(".yml")
    return "visual_td3" if name.startswith("seed") else name


def blocks_of(file):
    read = yaml.safe_load(CONFIGS.joinpath(file).read_text())
    return {name: block for name, block in read.items() if not name.startswith(".")}


def marks_of(file, block):
    marks = [pytest.mark.slow] if (file, block) in SLOW else []
    return [*marks, pytest.mark.carla] if block == "CarlaDriving-v0" else marks


def made_small(block):
    """Return the same settings with a run that is short enough for a test."""
    small = copy.deepcopy(block)
    small.update(n_timesteps=14, learning_starts=6, batch_size=2, buffer_size=50, train_freq=1)
    listed = block["callback"] if isinstance(block["callback"], list) else [block["callback"]]
    small["callback"] = []
    for callback in listed:
        (name, settings), *rest = callback.items() if isinstance(callback, dict) else [(callback, {})]
        assert not rest
        if name.endswith("DrivingEvalCallback"):
            short = {"maps": "held_out", "max_episode_steps": 5}
            settings = {**settings, "eval_freq": 10, "n_eval_episodes": 1, "eval_env_kwargs": short}
        small["callback"].append({name: dict(settings)})
    return small


SLOW = {("sac.yml", "CarRacing-v3"), ("tqc.yml", "CarRacing-v3"), ("tqc.yml", "LiteDriving-v0")}
RUNNABLE = [
    pytest.param(file, block, marks=marks_of(file, block), id=f"{file}-{block}")
    for file in FILES
    for block in blocks_of(file)
]


@pytest.fixture
def flags_of():
    """Return a function that returns the extra flags of an environment, and starts an emulator for CarlaDriving-v0."""
    with ExitStack() as stack:

        def flags(env):
            if env != "CarlaDriving-v0":
                return []
            pytest.importorskip("carla", reason="carla's client is not installed")
            from sb3_visual_td3.envs.carla_emulator.process import EmulatorProcess

            return ["--env-kwargs", f"port:{stack.enter_context(EmulatorProcess()).port}"]

        yield flags


@pytest.mark.parametrize(("file", "name"), RUNNABLE)
def test_every_block_trains(file, name, tmp_path, flags_of):
    env = "LiteDriving-v0" if name == "default" else name
    if env == "CarRacing-v3":
        pytest.importorskip("Box2D")
    (tmp_path / "small.yml").write_text(yaml.safe_dump({env: made_small(blocks_of(file)[name])}))
    arguments = ["--algo", algo_of(file), "--env", env, "-conf", tmp_path / "small.yml", "-f", tmp_path / "logs"]
    more = ["--eval-freq", "-1"] if name in {"CarRacing-v3", "Pendulum-v1", "default"} else []
    more += flags_of(env)
    run_dir = train([str(argument) for argument in [*arguments, "--seed", 0, "--verbose", 0, *more]]).run_dir
    model = ALGOS[algo_of(file)].load(run_dir / f"{env}.zip", device="cpu", buffer_size=1)
    assert model.num_timesteps == 14
    assert model._n_updates == 8
    assert (run_dir / "run.json").is_file()
    assert (run_dir / "evaluations.npz").is_file() == (name in {"LiteDriving-v0", "LiteRoutes-v0", "CarlaDriving-v0"})


@pytest.mark.parametrize("file", FILES)
def test_resume_accepts_every_callback_and_wrapper_of_the_files_without_the_allow_flag(file):
    for block in blocks_of(file).values():
        for setting, kind in (("callback", CALLBACK), ("env_wrapper", WRAPPER)):
            for each in np.atleast_1d(np.array(block.get(setting, []), dtype=object)):
                name = each if isinstance(each, str) else next(iter(each))
                assert find_class(name, kind, (), setting).__name__ == name.rpartition(".")[2]


@pytest.mark.parametrize("file", FILES)
def test_every_file_has_the_environments_that_it_should(file):
    expected = set(ENVS[:2] if file.startswith("seed") else ENVS)
    if file in {"visual_td3.yml", "td3.yml"}:
        expected.add("LiteRoutes-v0")
    assert set(blocks_of(file)) - {"default"} == expected
    assert ("default" in blocks_of(file)) == (file == "visual_td3.yml")


@pytest.mark.parametrize("file", FILES)
def test_every_number_has_a_comment_with_its_source(file):
    number = re.compile(r"(?<![\w.])-?\d[\d.]*(e-?\d+)?(?![\w.])")
    lines = CONFIGS.joinpath(file).read_text().splitlines()
    numbered = [line for line in lines if number.search(line.split("#")[0])]
    assert len(numbered) > 10
    assert [line for line in numbered if not line.partition("#")[2].strip()] == []


@pytest.mark.parametrize("file", FILES)
def test_no_file_contains_python_code(file):
    for block in blocks_of(file).values():
        for key in ("normalize", "policy_kwargs", "env_kwargs", "replay_buffer_kwargs"):
            assert not isinstance(block.get(key), str)


def class_of(callback):
    """Return the class path of a callback, which stands alone or before its arguments."""
    return callback if isinstance(callback, str) else next(iter(callback))


def test_the_seed_files_have_the_numbers_of_the_original_run():
    debug, long = (blocks_of(f"seed_{name}.yml")["LiteDriving-v0"] for name in ("debug", "1m"))
    assert (debug["n_timesteps"], debug["buffer_size"], debug["learning_starts"]) == (5_000, 97_000, 2_500)
    assert (long["n_timesteps"], long["buffer_size"], long["learning_starts"]) == (1_000_000, 1_000_000, 10_000)
    assert (debug["actor_cnn_lr"], long["actor_cnn_lr"], long["actor_lr"]) == (1e-5, 1e-4, 3e-4)
    assert (debug["max_grad_norm"], long["max_grad_norm"]) == ({}, {"actor": 1.0})
    for block in (debug, long):
        carla = blocks_of("seed_debug.yml" if block is debug else "seed_1m.yml")["CarlaDriving-v0"]
        assert {**carla, "callback": None} == {**block, "callback": None}
        classes = [class_of(callback) for callback in carla["callback"]]
        assert classes == [class_of(callback) for callback in block["callback"]]


def test_conf_file_prefers_a_file_in_the_current_folder_to_the_packaged_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["-conf", "seed_debug.yml", "-params", "batch_sise:3"]
    assert main(arguments) == 2
    assert f"{CONFIGS / 'seed_debug.yml'}, LiteDriving-v0: there is no" in capsys.readouterr().err
    (tmp_path / "seed_debug.yml").write_text("LiteDriving-v0: {policy: CnnPolicy, n_timestep: 3}")
    assert main(arguments[:2]) == 2
    assert "seed_debug.yml, LiteDriving-v0: there is no hyperparameter 'n_timestep'" in capsys.readouterr().err
