"""Test rl-zoo's training with VisualTD3 on one short run."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import rl_zoo3.utils
import yaml
from rl_zoo3 import exp_manager
from rl_zoo3 import train as zoo_train
from rl_zoo3.exp_manager import ExperimentManager

from sb3_visual_td3 import VisualTD3
from sb3_visual_td3.zoo.plugin import CONFIGS, VisualExperimentManager, default_config, register
from sb3_visual_td3.zoo.plugin_scripts import create_env_to_watch, watching
from sb3_visual_td3.zoo.train import main, train
from tests.callbacks.event_files import scalars_in

ROOT = Path(__file__).resolve().parents[2]

SHORT = """
LiteDriving-v0:
  policy: CnnPolicy
  n_timesteps: 60
  normalize: {norm_obs: false, norm_reward: true}
  buffer_size: 100
  learning_starts: 40
  batch_size: 4
  n_steps: 3
  critic_cnn_lr: lin_1e-4
  callback:
    - sb3_visual_td3.callbacks.run_recorder.RunRecorderCallback
    - sb3_visual_td3.callbacks.gradient_norm.GradientNormCallback: {log_freq: 20, sample_freq: 1}
    - sb3_visual_td3.callbacks.explosion_alert.ExplosionAlertCallback: {warning: 1.0e-9, critical: 1.0e-8}
    - sb3_visual_td3.callbacks.driving_metrics.DrivingMetricsCallback
    - sb3_visual_td3.callbacks.driving_eval.DrivingEvalCallback: {eval_freq: 50, n_eval_episodes: 1}
"""


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zoo")
    (folder / "short.yml").write_text(SHORT)
    arguments = ["--env", "LiteDriving-v0", "-conf", folder / "short.yml", "-f", folder / "logs", "--seed", 1]
    return train([str(argument) for argument in [*arguments, "--verbose", 0]]).run_dir


def test_the_run_leaves_model_events_and_run_json(run_dir):
    assert run_dir.name == "LiteDriving-v0_1"
    assert (run_dir / "LiteDriving-v0.zip").is_file()
    assert (run_dir / "LiteDriving-v0" / "vecnormalize.pkl").is_file()
    assert len(list((run_dir / "tb").rglob("events.out.tfevents.*"))) == 1
    run = json.loads((run_dir / "run.json").read_text())
    assert run["env_id"] == "LiteDriving-v0"
    assert run["seed"] == 1
    assert run["reward_is_normalized"] is True
    assert run["encoder"] == "shared"
    assert run["hyperparams"]["critic_cnn_lr"] == "lin_1e-4"
    assert run["finished"]
    assert run["machine"]["cores"] >= 1
    assert run["command"] == sys.orig_argv
    assert {"rl_zoo3", "sb3-contrib", "torch"} <= run["versions"].keys()
    assert run["git"] is None or set(run["git"]) == {"commit", "dirty"}


def test_callbacks_of_the_yml_write_into_the_run(run_dir):
    assert (run_dir / "best_model.zip").is_file()
    alerts = [json.loads(line) for line in (run_dir / "alerts.jsonl").read_text().splitlines()]
    assert {alert["level"] for alert in alerts} == {"critical"}


def test_each_evaluation_logs_eval_mean_reward_once(run_dir):
    """rl-zoo's own EvalCallback would write eval/mean_reward as well."""
    assert [step for step, _ in scalars_in(run_dir / "tb")["eval/mean_reward"]] == [50, 60]


def test_the_evaluation_leaves_what_rl_zoos_plots_are_made_of(run_dir):
    record = np.load(run_dir / "evaluations.npz")
    assert record["timesteps"].tolist() == [50, 60]
    assert record["results"].shape == record["ep_lengths"].shape == (2, 1)


def test_the_critic_sees_normalised_rewards(run_dir):
    scalars = scalars_in(run_dir / "tb")
    assert {value for _, value in scalars["agent/reward_is_normalized"]} == {1.0}
    assert max(abs(value) for _, value in scalars["train/reward_min"]) <= 10.0


def test_the_model_of_the_run_loads(run_dir):
    model = VisualTD3.load(run_dir / "LiteDriving-v0.zip", device="cpu", buffer_size=1)
    assert model.describe()["critic_cnn_lr"] == ("lin_1e-4", "argument")


def test_registering_is_all_that_a_script_of_your_own_needs(monkeypatch):
    monkeypatch.delitem(rl_zoo3.utils.ALGOS, "visual_td3", raising=False)
    monkeypatch.setattr(zoo_train, "ExperimentManager", ExperimentManager)
    register()
    register()
    assert rl_zoo3.utils.ALGOS["visual_td3"] is VisualTD3
    assert zoo_train.ExperimentManager is VisualExperimentManager


def test_our_hyperparameter_file_is_used_if_it_has_a_block_for_the_environment():
    assert default_config("visual_td3", "LiteDriving-v0") == str(CONFIGS / "visual_td3.yml")
    assert default_config("visual_td3", "CarRacing-v3") == str(CONFIGS / "visual_td3.yml"), "its default block"
    assert default_config("td3", "LiteDriving-v0") == str(CONFIGS / "td3.yml")
    assert default_config("td3", "CartPole-v1") is None
    assert default_config("ppo", "LiteDriving-v0") is None


def test_enjoy_and_record_video_play_whole_episodes():
    register()
    from rl_zoo3 import enjoy
    from rl_zoo3.utils import create_test_env  # rl-zoo's function, not the plugin's

    limit = {"sb3_visual_td3.envs.idle_limit.IdleLimit": {"max_idle_steps": 5}}

    def n_steps(create):
        env = create("Pendulum-v1", n_envs=1, should_render=False, hyperparams={"env_wrapper": [limit]})
        env.reset()
        n = next(n for n in range(1, 300) if env.step(np.zeros((1, 1), np.float32))[2][0])
        env.close()
        return n

    assert n_steps(create_test_env) == 5
    assert n_steps(enjoy.create_test_env) == 200
    with watching("visual_td3"):
        from rl_zoo3.utils import create_test_env as create_in_record_video
    assert n_steps(create_in_record_video) == 200


def test_a_frame_stack_of_none_is_no_stack_if_an_agent_is_watched(tmp_path):
    hyperparams = {"normalize": False, "frame_stack": None}
    env = create_env_to_watch("Pendulum-v1", stats_path=str(tmp_path), should_render=False, hyperparams=hyperparams)
    assert env.observation_space.shape == (3,)
    env.close()


def test_the_top_level_script_is_the_same_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train.py", "--help"])
    with pytest.raises(SystemExit) as end:
        exec(compile((ROOT / "train.py").read_text(), "train.py", "exec"), {"__name__": "__main__"})
    assert end.value.code == 0
    assert "visual_td3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--env", "NoSuchEnv-v0"], "--env NoSuchEnv-v0: no environment"),
        (["--env", "LiteDriving-v0", "-params", "batch_sizes:3"], "batch_sizes"),
        (["--env", "LiteDriving-v0", "-params", "random_shift:-4"], "random_shift"),
        (["--env", "LiteDriving-v0", "-conf", "nowhere.yml"], "nowhere.yml"),
    ],
)
def test_a_usage_error_gives_a_one_line_message(arguments, words, capsys, tmp_path):
    assert main([*arguments, "-f", str(tmp_path), "--verbose", "0"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("visual-td3 train: ")
    assert words in line


def schedules_of(tmp_path, algo, hyperparams):
    """Return hyperparameters of a file after rl-zoo has converted the schedules."""
    (tmp_path / "conf.yml").write_text(
        yaml.safe_dump({"LiteDriving-v0": {"policy": "CnnPolicy", "n_timesteps": 9, **hyperparams}})
    )
    args = SimpleNamespace(tensorboard_log="")
    manager = VisualExperimentManager(args, algo, "LiteDriving-v0", str(tmp_path), config=str(tmp_path / "conf.yml"))
    return manager._preprocess_schedules(manager.read_hyperparameters()[0])


@pytest.mark.parametrize("value", ["cos_1e-4", "lin_1e-4_1e-5", "1e-4", 1e-4])
def test_our_learning_rate_is_not_converted_to_a_linear_schedule(tmp_path, value):
    found = schedules_of(tmp_path, "visual_td3", {"learning_rate": value})
    assert found["learning_rate"] == value
    model = VisualTD3("CnnPolicy", "LiteDriving-v0", learning_rate=found["learning_rate"], buffer_size=10, device="cpu")
    assert model.lr_schedule(1.0) == 1e-4


@pytest.mark.parametrize("value", ["foo_1e-4", float("nan"), -1e-4, True])
def test_an_invalid_learning_rate_is_quoted_as_the_file_has_it(tmp_path, value):
    """rl-zoo alone would read "foo_1e-4" as a linear schedule."""
    found = schedules_of(tmp_path, "visual_td3", {"learning_rate": value})
    with pytest.raises(ValueError, match="learning_rate="):
        VisualTD3("CnnPolicy", "LiteDriving-v0", learning_rate=found["learning_rate"], buffer_size=10, device="cpu")


def test_other_algorithms_keep_rl_zoos_schedules(tmp_path):
    assert schedules_of(tmp_path, "td3", {"learning_rate": "lin_1e-4"})["learning_rate"](0.5) == 5e-5


class ResetsNever(gym.Env):
    """Imitate an unreachable simulator, which raises an error at a reset and not before."""

    observation_space = gym.spaces.Box(0, 1, (2,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    after_n_resets = 0

    def reset(self, seed=None, options=None):
        self.after_n_resets -= 1
        if self.after_n_resets < 0:
            raise RuntimeError("nothing listens on port 2000")
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return np.zeros(2, np.float32), 0.0, True, False, {}


BROKEN = """
ResetsNever-v0:
  policy: MlpPolicy
  n_timesteps: 20
  callback: sb3_visual_td3.callbacks.run_recorder.RunRecorderCallback
"""


@pytest.fixture
def broken_env(tmp_path, monkeypatch):
    """Return the flags of a training whose environment fails at a reset."""
    monkeypatch.setitem(gym.registry, "ResetsNever-v0", gym.envs.registration.EnvSpec("ResetsNever-v0", ResetsNever))
    (tmp_path / "broken.yml").write_text(BROKEN)
    arguments = ["--env", "ResetsNever-v0", "-conf", tmp_path / "broken.yml", "-f", tmp_path / "logs", "--verbose", 0]
    return [str(argument) for argument in [*arguments, "--eval-freq", -1]]


@pytest.mark.parametrize("flags", [[], ["-P"]], ids=["run recorder first", "progress bar first"])
def test_a_failing_reset_gives_a_one_line_error_and_leaves_no_log_folder(broken_env, flags, tmp_path, capsys):
    """rl-zoo then ends a callback that has not started, whose error must not hide the environment's error."""
    assert main([*broken_env, *flags]) == 2
    assert capsys.readouterr().err.splitlines() == ["visual-td3 train: nothing listens on port 2000"]
    assert not (tmp_path / "logs").exists()


class CameraLast(gym.Env):
    observation_space = gym.spaces.Dict(
        cam=gym.spaces.Box(0, 255, (36, 36, 3), np.uint8), speed=gym.spaces.Box(-9, 9, (2,), np.float32)
    )
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, seed=None, options=None):
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, False, False, {}


def test_a_camera_that_the_buffer_of_a_stock_algorithm_cannot_store_is_refused_with_the_fix(
    tmp_path, monkeypatch, capsys
):
    """Stable-Baselines3's TD3 would fail at its first step."""
    monkeypatch.setitem(gym.registry, "CameraLast-v0", gym.envs.registration.EnvSpec("CameraLast-v0", CameraLast))
    block = {"policy": "MultiInputPolicy", "n_timesteps": 20, "buffer_size": 30}
    block["normalize"] = {"norm_obs": True, "norm_obs_keys": ["speed"]}
    (tmp_path / "camera.yml").write_text(yaml.safe_dump({"CameraLast-v0": block}))
    arguments = ["--algo", "td3", "--env", "CameraLast-v0", "-conf", str(tmp_path / "camera.yml")]
    assert main([*arguments, "-f", str(tmp_path / "logs"), "--verbose", "0", "--eval-freq", "-1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "the replay buffer would hold cam of shape (36, 36, 3), but the policy sees (3, 36, 36)" in line
    assert not (tmp_path / "logs").exists()


def test_an_environment_that_fails_later_is_not_a_usage_error(broken_env, tmp_path, monkeypatch):
    monkeypatch.setattr(ResetsNever, "after_n_resets", 3)
    with pytest.raises(RuntimeError, match="nothing listens"):
        main(broken_env)
    assert (tmp_path / "logs" / "visual_td3" / "ResetsNever-v0_1" / "run.json").is_file()


def tiny_run(tmp_path, algo, env_id, **settings):
    """Return the flags of a training of a stock algorithm that ends at once."""
    block = {"policy": "MlpPolicy", "n_timesteps": 20, "learning_starts": 100, "buffer_size": 200, **settings}
    (tmp_path / "tiny.yml").write_text(yaml.safe_dump({env_id: block}))
    arguments = ["--algo", algo, "--env", env_id, "-conf", tmp_path / "tiny.yml", "-f", tmp_path / "logs"]
    return [str(argument) for argument in [*arguments, "--verbose", 0, "--eval-freq", -1]]


def test_trainings_that_begin_at_the_same_time_have_a_folder_each(tmp_path, monkeypatch, capsys):
    # None of them has made its folder when the others choose their number.
    monkeypatch.setattr(exp_manager, "get_latest_run_id", lambda *_: 0)
    arguments = tiny_run(tmp_path, "td3", "Pendulum-v1")
    first = train([*arguments, "--seed", "1"]).run_dir
    there = {path: path.read_bytes() for path in first.rglob("*") if path.is_file()}
    second = train([*arguments, "--seed", "2"]).run_dir
    assert main([*arguments, "-params", "policy_kwargs:dict(bogus=1)"]) == 2
    assert [first.name, second.name] == ["Pendulum-v1_1", "Pendulum-v1_2"]
    assert sorted(path.name for path in first.parent.iterdir()) == [first.name, second.name]
    assert {path.relative_to(first).parts[0] for path in there} == {path.name for path in second.iterdir()}
    assert {path: path.read_bytes() for path in first.rglob("*") if path.is_file()} == there


@pytest.mark.parametrize("algo", ["dqn", "qrdqn"])
def test_algorithms_with_discrete_actions_train(algo, tmp_path):
    arguments = tiny_run(tmp_path, algo, "CartPole-v1")
    assert (train(arguments).run_dir / "CartPole-v1.zip").is_file()


def test_a_stock_algorithm_trains_with_a_whole_float_and_refuses_another(tmp_path):
    assert main(tiny_run(tmp_path, "td3", "Pendulum-v1", learning_starts=10, batch_size=4.0)) == 0
    assert main(tiny_run(tmp_path, "td3", "Pendulum-v1", learning_starts=10, policy_delay=1.5)) == 2


CONF_IN_PYTHON = """
import threading
from stable_baselines3.common.callbacks import ConvertCallback

callback = ConvertCallback(None)
callback.lock = threading.Lock()
hyperparams = {
    "Pendulum-v1": dict(policy="MlpPolicy", n_timesteps=20, buffer_size=100, callback=[callback]),
}
"""


def test_a_hyperparameter_file_in_python_may_create_callbacks_that_cannot_be_copied(tmp_path):
    (tmp_path / "conf.py").write_text(CONF_IN_PYTHON)
    arguments = [*tiny_run(tmp_path, "td3", "Pendulum-v1"), "-conf", str(tmp_path / "conf.py")]
    run_dir = train(arguments).run_dir
    assert (run_dir / "Pendulum-v1.zip").is_file()
    saved = (run_dir / "Pendulum-v1" / "config.yml").read_text()
    assert "stable_baselines3.common.callbacks.ConvertCallback" in saved


class Vector(gym.Env):
    """Observe a vector of ``n`` numbers."""

    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, n=3):
        self.observation_space = gym.spaces.Box(-1, 1, (n,), np.float32)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(self.observation_space.shape, np.float32), {}

    def step(self, action):
        return np.zeros(self.observation_space.shape, np.float32), 0.0, False, True, {}


@pytest.mark.parametrize(
    ("settings", "flags", "words"),
    [
        ({}, ["--eval-freq", "10", "--eval-env-kwargs", "n:4"], "observation_space Box"),
        ({"callback": ["sb3_visual_td3.callbacks.snapshot.SnapshotCallback"] * 2}, [], "put SnapshotCallback last"),
    ],
)
def test_a_mistake_that_a_callback_finds_at_its_start_gives_one_line_and_leaves_no_log_folder(
    tmp_path, monkeypatch, capsys, settings, flags, words
):
    monkeypatch.setitem(gym.registry, "Vector-v0", gym.envs.registration.EnvSpec("Vector-v0", Vector))
    assert main([*tiny_run(tmp_path, "td3", "Vector-v0", **settings), *flags]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("visual-td3 train: ")]
    assert words in line
    assert not (tmp_path / "logs").exists()
