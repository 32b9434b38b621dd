"""Call train and enjoy as rl-zoo's own tests do, with VisualTD3 on Pendulum, and check the results of each call."""

import os
import pickle
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import gymnasium as gym
import numpy as np
import optuna
import pytest
import yaml
from gymnasium.envs.classic_control import PendulumEnv
from optuna.trial import TrialState
from sb3_contrib import ARS

from sb3_visual_td3 import VisualTD3
from sb3_visual_td3.cli import main as visual_td3
from sb3_visual_td3.zoo.train import train
from sb3_visual_td3.zoo.wrappers import ContinuedModel, Learner

ENV = "Pendulum-v1"
WRAPPERS = "rl_zoo3.wrappers"
QUICK = ["learning_starts:60", "batch_size:4"]
SHORT_ENV = """
import gymnasium as gym
import numpy as np
from gymnasium import spaces


class ShortEnv(gym.Env):
    action_space = spaces.Box(-1, 1, (1,))
    observation_space = spaces.Box(0, 1, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.n_steps = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.n_steps += 1
        return np.zeros(2, np.float32), 1.0, self.n_steps == 5, False, {}


gym.register("ZooPattern-v0", "zoo_pattern_env:ShortEnv")
hyperparams = {"ZooPattern-v0": {"policy": "MlpPolicy", "n_timesteps": 20000, "batch_size": 4, "learning_starts": 8}}
"""


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*flags, env=ENV, n_steps=80):
    """Train for a short while with these flags, and return RUN_DIR."""
    arguments = ["--algo", "visual_td3", "--env", env, "-n", n_steps, "-f", "logs", "--seed", 14, *flags]
    return train([str(argument) for argument in arguments]).run_dir


def enjoy(*flags, env=ENV):
    return visual_td3(["enjoy", "--env", env, "-n", "210", "--no-render", "-f", "logs", *flags])


def model_in(run_dir, env=ENV):
    return VisualTD3.load(run_dir / f"{env}.zip", device="cpu", buffer_size=1)


def mean_reward(capsys, *flags):
    capsys.readouterr()
    assert enjoy(*flags) == 0
    return float(re.search(r"Mean reward: (\S+)", capsys.readouterr().out)[1])


def test_training_and_evaluation_each_get_their_own_env_kwargs(capsys, monkeypatch):
    n_steps = Counter()
    step = PendulumEnv.step

    def counted(env, action):
        n_steps[env.g] += 1
        return step(env, action)

    monkeypatch.setattr(PendulumEnv, "step", counted)
    once = ["--eval-freq", 80, "--eval-episodes", 1, "--n-eval-envs", 1]
    run("--env-kwargs", "g:8.0", "--eval-env-kwargs", "g:5.0", *once, "-params", *QUICK)
    said = capsys.readouterr().out
    assert "\nenv_kwargs={'g': 8.0}" in said
    assert "\neval_env_kwargs={'g': 5.0}" in said
    assert set(n_steps) == {8.0, 5.0}
    assert n_steps[8.0] == 80, "the steps of the training"


def test_training_continues_with_the_saved_replay_buffer():
    flags = ["--save-replay-buffer", "-params", "buffer_size:1000", *QUICK]
    first = run(*flags)
    second = run(*flags, "-i", first / f"{ENV}.zip")
    assert second.name == f"{ENV}_2"
    assert model_in(second).num_timesteps == 160
    with open(second / "replay_buffer.pkl", "rb") as file:
        assert pickle.load(file).size() == 160


def test_each_continued_run_without_a_replay_buffer_has_the_same_warm_up():
    model = VisualTD3("MlpPolicy", ENV, learning_starts=10, batch_size=8, device="cpu").learn(30)
    for n_updates in (40, 60):  # 20 more in each run
        model.save("model")
        model = VisualTD3.load("model", env=model.env, device="cpu")
        ContinuedModel(model).learn(30)
        assert model.learning_starts == 10
        assert model._n_updates == n_updates


@pytest.mark.parametrize("continues", [False, True])
def test_rl_zoo_finds_the_policy_that_the_workers_of_ars_evaluate(continues):
    model = ARS("LinearPolicy", ENV, device="cpu")
    assert Learner(model, continues).policy is model.policy


def test_enjoy_uses_the_env_kwargs_of_training_unless_others_are_given(capsys):
    run("--env-kwargs", "g:8.0", "-params", *QUICK)
    as_trained = mean_reward(capsys)
    assert mean_reward(capsys, "--env-kwargs", "g:8.0") == as_trained
    assert mean_reward(capsys, "--env-kwargs", "g:1.0") != as_trained


@pytest.mark.parametrize("config", ["zoo_pattern_conf", "zoo_pattern_conf.py"])
def test_hyperparameters_may_be_a_python_package_or_file(config, in_folder, monkeypatch, capsys):
    block = {"policy": "MlpPolicy", "n_timesteps": 2e4, "normalize": True, "learning_starts": 20, "batch_size": 8}
    wrapper = "[{'gymnasium.wrappers.TimeLimit': {'max_episode_steps': 10}}]"
    text = f"import torch\nhyperparams = {{{ENV!r}: dict(env_wrapper={wrapper}, **{block!r})}}\n"
    text += f"hyperparams[{ENV!r}]['policy_kwargs'] = dict(net_arch=[32], activation_fn=torch.nn.Tanh)\n"
    Path("zoo_pattern_conf.py").write_text(text)
    monkeypatch.syspath_prepend(in_folder)
    monkeypatch.delitem(sys.modules, "zoo_pattern_conf", raising=False)
    run_dir = run("-conf", config)
    model = model_in(run_dir)
    assert model.policy_kwargs["net_arch"] == [32]
    assert "Tanh" in str(model.actor)
    capsys.readouterr()
    assert enjoy() == 0
    assert "21 Episodes" in capsys.readouterr().out, "of ten steps each"


def test_an_environment_without_its_own_block_needs_a_default_block(capsys):
    Path("default.yml").write_text("default: {policy: MlpPolicy, n_timesteps: 200, learning_starts: 32}")
    assert model_in(run("-conf", "default.yml")).learning_starts == 32
    Path("other.yml").write_text("CartPole-v1: {policy: MlpPolicy, n_timesteps: 200}")
    capsys.readouterr()
    assert visual_td3(["train", "--env", ENV, "-conf", "other.yml", "-f", "nothing"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "Hyperparameters not found for visual_td3-Pendulum-v1 in other.yml" in line
    assert not Path("nothing").exists()


def test_a_gym_package_is_imported_by_train_and_enjoy(in_folder, monkeypatch, capsys):
    Path("zoo_pattern_env.py").write_text(SHORT_ENV)
    monkeypatch.syspath_prepend(in_folder)
    package = ["--gym-packages", "zoo_pattern_env"]
    run_dir = run(*package, "--conf-file", "zoo_pattern_env", env="ZooPattern-v0", n_steps=20)
    assert model_in(run_dir, "ZooPattern-v0")._n_updates == 12
    capsys.readouterr()
    assert enjoy(*package, env="ZooPattern-v0") == 0
    assert "42 Episodes\nMean reward: 5.00 +/- 0.00" in capsys.readouterr().out


def test_settings_of_the_command_line_reach_monitor_policy_and_environments():
    settings = ["n_envs:2", "policy:'stable_baselines3.td3.MlpPolicy'", "policy_kwargs:dict(net_arch=[32])"]
    monitor = "monitor_kwargs:dict(info_keywords=('TimeLimit.truncated',))"
    run_dir = run("-params", *QUICK, *settings, monitor, "--uuid", "-tb", "events", n_steps=410)
    assert re.fullmatch(ENV + r"_1_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", run_dir.name)
    assert list(Path("events", ENV).rglob("events.out.tfevents.*"))
    assert model_in(run_dir).policy_kwargs["net_arch"] == [32]
    for number in (0, 1):
        head, _, *rows = (run_dir / f"{number}.monitor.csv").read_text().splitlines()
        assert head.startswith("#")
        assert [row.split(",")[-1] for row in rows] == ["True"]


def test_a_monitor_that_forbids_early_resets_does_not_end_a_training_with_evaluations():
    monitor = "monitor_kwargs:dict(allow_early_resets=False,info_keywords=('TimeLimit.truncated',))"
    run_dir = run("-params", *QUICK, monitor, "--eval-freq", "40", "--eval-episodes", "1")
    assert model_in(run_dir).num_timesteps == 80
    header = (run_dir / "0.monitor.csv").read_text().splitlines()[1]
    assert header == "r,l,t,TimeLimit.truncated"


@pytest.mark.parametrize(
    ("setting", "shape"),
    [
        ("env_wrapper:'sb3_contrib.common.wrappers.TimeFeatureWrapper'", (4,)),
        (f"env_wrapper:[{{'{WRAPPERS}.HistoryWrapper': dict(horizon=2)}},'{WRAPPERS}.DelayedRewardWrapper']", (8,)),
        ("vec_env_wrapper:[{'stable_baselines3.common.vec_env.VecFrameStack': dict(n_stack=3)}]", (9,)),
        ("frame_stack:2", (6,)),
    ],
)
def test_a_model_is_shown_through_the_wrappers_that_it_was_trained_with(setting, shape):
    assert model_in(run("-params", *QUICK, setting, "--eval-freq", "40")).observation_space.shape == shape
    assert enjoy() == 0
    assert enjoy("--load-best") == 0


def test_callbacks_are_a_list_of_names_and_of_names_with_settings():
    stop = "{'stable_baselines3.common.callbacks.StopTrainingOnMaxEpisodes': dict(max_episodes=1)}"
    run_dir = run("-params", *QUICK, f"callback:[{stop},'rl_zoo3.callbacks.RawStatisticsCallback']", n_steps=500)
    assert model_in(run_dir).num_timesteps == 200, "an episode of Pendulum"


def search(*flags, n_trials=2):
    """Run a small search, and return its exit code."""
    arguments = ["-n", "80", "--env", ENV, "-f", "logs", "-params", "policy_kwargs:dict(net_arch=[32])"]
    arguments += ["--no-optim-plots", "--seed", "14", "--n-trials", str(n_trials), "--n-startup-trials", "1"]
    return visual_td3(["train", *arguments, "--n-evaluations", "2", "--eval-episodes", "1", "-optimize", *flags])


@pytest.mark.slow
@pytest.mark.parametrize(("sampler", "pruner"), [("random", "none"), ("tpe", "halving"), ("tpe", "median")])
def test_every_sampler_and_pruner_of_rl_zoo_searches(sampler, pruner):
    pytest.importorskip("pandas")
    assert search("--sampler", sampler, "--pruner", pruner, "--n-jobs", "1") == 0
    (study,) = (pickle.loads(path.read_bytes()) for path in Path("logs/visual_td3").glob("report_*.pkl"))
    assert [trial.state.is_finished() for trial in study.trials] == [True, True]
    assert TrialState.FAIL not in {trial.state for trial in study.trials}


@pytest.mark.slow
def test_a_search_logs_its_trials_and_each_can_be_trained_again():
    pytest.importorskip("pandas")
    where = ["--study-name", "demo", "--storage", "demo.log"]
    assert search(*where, "--optimization-log-path", "optim", "--pruner", "none") == 0
    for number in (0, 1):
        assert np.load(f"optim/trial_{number}/evaluations.npz")["timesteps"].tolist() == [40, 80]
    run_dir = run(*where, "--trial-id", "1", "-params", "policy_kwargs:dict(net_arch=[32])")
    saved = yaml.load((run_dir / ENV / "config.yml").read_text(), Loader=yaml.UnsafeLoader)
    backend = optuna.storages.journal.JournalFileBackend("demo.log")
    trial = optuna.load_study(study_name="demo", storage=optuna.storages.JournalStorage(backend)).trials[1]
    assert saved["gamma"] == pytest.approx(1 - trial.params["one_minus_gamma"])
    assert saved["policy_kwargs"]["net_arch"] == [32], "the command line's stay"


@pytest.mark.slow
def test_workers_one_after_another_finish_the_total_and_no_more():
    pytest.importorskip("pandas")
    where = ["--study-name", "test-study", "--storage", "sqlite:///optuna.db", "--max-total-trials", "3"]
    for _ in range(3):
        assert search(*where) == 0
    study = optuna.load_study(study_name="test-study", storage="sqlite:///optuna.db")
    assert len(study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))) == len(study.trials) == 3


def console_script(folder, *arguments):
    """Run the installed command; unlike ``python -m``, it does not start with the current folder in ``sys.path``."""
    command = [str(Path(sys.executable).with_name("visual-td3")), *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, check=False, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_the_installed_command_finds_a_module_of_the_current_folder(in_folder):
    Path("zoo_pattern_parts.py").write_text("STEPS = 5\n")
    Path("zoo_pattern_env.py").write_text(SHORT_ENV.replace("n_steps == 5", "n_steps == STEPS", 1) + FROM_BESIDE)
    flags = ["--gym-packages", "zoo_pattern_env", "-conf", "zoo_pattern_env", "-n", 20, "--verbose", 0]
    trained = console_script(in_folder, "train", "--env", "ZooPattern-v0", *flags, "--vec-env", "subproc")
    assert trained.returncode == 0, trained.stderr
    assert model_in(Path("logs/visual_td3/ZooPattern-v0_1"), "ZooPattern-v0")._n_updates == 12


FROM_BESIDE = "from zoo_pattern_parts import STEPS\n"


@pytest.fixture
def own_env(in_folder, monkeypatch):
    """Train on the user's own environment, unregister it, and return the flags that name it."""
    Path("zoo_pattern_env.py").write_text(SHORT_ENV.replace("def reset", RENDER, 1))
    monkeypatch.setattr(sys, "path", [*sys.path, str(in_folder)])
    monkeypatch.delitem(sys.modules, "zoo_pattern_env", raising=False)
    run("--gym-packages", "zoo_pattern_env", "--conf-file", "zoo_pattern_env", env="ZooPattern-v0", n_steps=20)
    del gym.registry["ZooPattern-v0"]
    del sys.modules["zoo_pattern_env"]
    yield ["--env", "ZooPattern-v0"]
    gym.registry.pop("ZooPattern-v0", None)
    sys.modules.pop("zoo_pattern_env", None)


RENDER = """def __init__(self, render_mode=None):
        self.render_mode = render_mode

    metadata = {"render_modes": ["rgb_array", "human"], "render_fps": 10}

    def render(self):
        return np.zeros((64, 64, 3), np.uint8)

    def reset"""


def called_in_this_process(command):
    return visual_td3(command[3:])


@pytest.mark.parametrize(
    ("command", "left"),
    [
        (["enjoy", "--no-render", "-n", "9"], ()),
        (["record-video", "-n", "9"], ("logs/visual_td3/ZooPattern-v0_1/videos/*.mp4",)),
        (["record-training", "-n", "9"], ("logs/visual_td3/ZooPattern-v0_1/videos/training.mp4",)),
        (["benchmark", "--no-hub", "-n", "50", "--test-mode"], ("logs/benchmark/benchmark.md",)),
    ],
)
def test_every_command_that_makes_an_environment_takes_gym_packages(command, left, own_env, monkeypatch, capsys):
    pytest.importorskip("moviepy")
    pytest.importorskip("pandas")
    monkeypatch.setattr(subprocess, "call", called_in_this_process)
    name = [] if command[0] == "benchmark" else own_env
    assert visual_td3([*command, *name]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "--env ZooPattern-v0: no environment of this name is registered" in line
    assert ("--gym-packages MODULE" if command[0] == "benchmark" else "--gym-packages zoo_pattern_env: add it") in line
    assert visual_td3([*command, *name, "--gym-packages", "zoo_pattern_env"]) == 0
    assert all(list(Path().glob(pattern)) for pattern in left)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["evaluate", "--maps", "train"], "ZooPattern-v0 has no maps"),
        (["push-to-hub", "-orga", "me", "--no-render"], "hub cannot be reached"),
        (["validate", "-conf", "seed_debug.yml"], "not found for visual_td3-ZooPattern-v0 in"),
        pytest.param(
            ["sweep", "--seeds", "1", "--num-cpus", "10000"], "each run needs 10000 CPU", marks=pytest.mark.ray
        ),
    ],
)
def test_evaluate_push_validate_and_sweep_accept_gym_packages(command, words, own_env, monkeypatch, capsys, request):
    if command[0] == "sweep":
        request.getfixturevalue("ray_runs")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert visual_td3([*command, *own_env]) == 2
    assert "--env ZooPattern-v0: no environment of this name is registered" in capsys.readouterr().err
    assert visual_td3([*command, *own_env, "--gym-packages", "zoo_pattern_env"]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--env", "LiteDrivng-v0"], "Did you mean LiteDriving-v0?"),
        (["--env", "litedriving-v3"], "Did you mean LiteDriving-v0?"),
        (["--env", "Pendulum"], "Did you mean Pendulum-v1?"),
        (
            ["--env", "Foo-v0"],
            "Foo-v0: no environment of this name is registered. If it is your own environment, name the module",
        ),
        (["--env", "json:Foo-v0"], "--gym-packages json --env Foo-v0"),
        (["--env", "Foo-v0", "--gym-packages", "json"], "neither by gymnasium nor by json"),
        (["--gym-packages", "no_such_module"], "no_such_module: there is no such module among"),
        (["--gym-packages", "no_such_module.py"], "give the name of the module, no_such_module"),
        (["--gym-packages", "needs_more"], "needs_more: the module needs no_such_module"),
    ],
)
@pytest.mark.parametrize("command", ["train", "enjoy", "record-video", "validate"])
def test_an_unknown_environment_or_module_is_named(command, flags, words, in_folder, monkeypatch, capsys):
    Path("needs_more.py").write_text("import no_such_module\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert visual_td3([command, *flags]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert words in line
    assert "close match" not in line
    assert not Path("logs").exists()


def test_words_on_the_command_line_mean_the_same_as_in_a_file():
    settings = ["learning_rate:lin_1e-3", "noise_schedule:lin_0.5_0.1", "actor_objective:min", "policy:MlpPolicy"]
    Path("default.yml").write_text("default:\n  n_timesteps: 80\n  " + "\n  ".join(QUICK + settings).replace(":", ": "))
    typed = run("-conf", "default.yml", "-params", *settings)
    written = run("-conf", "default.yml")
    one, other = (yaml.unsafe_load((each / ENV / "config.yml").read_text()) for each in (typed, written))
    assert one == other
    assert one["learning_rate"] == "lin_1e-3"
    first, second = model_in(typed), model_in(written)
    pairs = zip(first.actor.parameters(), second.actor.parameters(), strict=True)
    assert all(np.array_equal(a.detach(), b.detach()) for a, b in pairs)
