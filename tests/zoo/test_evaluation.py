"""The evaluation that the zoo adds to a run: PolicyEvalCallback with rl-zoo's flags."""

from types import SimpleNamespace

import numpy as np
import pytest
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.env_util import make_vec_env

from sb3_visual_td3 import PolicyEvalCallback
from sb3_visual_td3.common import tags
from sb3_visual_td3.zoo.plugin import VisualExperimentManager
from sb3_visual_td3.zoo.train import train
from sb3_visual_td3.zoo.trials import callbacks_of_a_trial
from tests.callbacks.event_files import scalars_in
from tests.callbacks.test_policy_eval import NeedsServer, PointEnv

OURS = "sb3_visual_td3.callbacks.policy_eval.PolicyEvalCallback"


def run(tmp_path, *flags, params=(), algo="visual_td3"):
    arguments = ["--algo", algo, "--env", "Pendulum-v1", "-n", 80, "-f", tmp_path, "--seed", 14, "--verbose", 0]
    settings = ["learning_starts:70", "batch_size:4", *params]
    return train([str(argument) for argument in [*arguments, *flags, "-params", *settings]]).run_dir


@pytest.mark.parametrize("algo", ["visual_td3", "sac"])
def test_train_evaluates_with_policy_eval_callback_and_obeys_the_eval_flags(tmp_path, algo):
    normalize = "normalize:dict(norm_obs=True, norm_reward=True)"
    flags = ["--eval-freq", 40, "--eval-episodes", 2, "--n-eval-envs", 2]
    run_dir = run(tmp_path, *flags, params=[normalize], algo=algo)
    record = np.load(run_dir / "evaluations.npz")
    assert record["timesteps"].tolist() == [40, 80]
    assert record["results"].shape == (2, 2)
    scalars = scalars_in(run_dir / "tb")
    assert [step for step, _ in scalars[tags.EVAL_RANDOM_REWARD]] == [0, 40, 80]
    assert [step for step, _ in scalars[tags.EVAL_REWARD]] == [40, 80]
    assert -2_000 < scalars[tags.EVAL_RANDOM_REWARD][0][1] < -300
    assert (run_dir / "best_model.zip").is_file()
    assert (run_dir / "Pendulum-v1" / "vecnormalize.pkl").is_file()


@pytest.mark.parametrize("eval_freq", [-1, 0])
def test_an_eval_freq_of_zero_or_less_disables_the_evaluation(tmp_path, eval_freq):
    run_dir = run(tmp_path, "--eval-freq", eval_freq, params=[f"callback:[{{'{OURS}': dict(eval_env='Pendulum-v1')}}]"])
    assert not (run_dir / "evaluations.npz").exists()
    assert not any(name.startswith("eval/") for name in scalars_in(run_dir / "tb"))


def test_an_evaluation_in_the_hyperparameters_replaces_the_default_and_obeys_the_flags(tmp_path):
    own = f"callback:[{{'{OURS}': dict(eval_env='Pendulum-v1', eval_freq=60, n_eval_episodes=1)}}]"
    record = np.load(run(tmp_path, params=[own]) / "evaluations.npz")
    assert record["timesteps"].tolist() == [60, 80]
    assert record["results"].shape == (2, 1)
    record = np.load(run(tmp_path, "--eval-freq", 30, "--eval-episodes", 2, params=[own]) / "evaluations.npz")
    assert record["timesteps"].tolist() == [30, 60, 80]
    assert record["results"].shape == (3, 2)


def manager_of(env, n_timesteps):
    return SimpleNamespace(
        verbose=0,
        n_eval_envs=1,
        create_envs=lambda n, eval_env: make_vec_env(env, n),
        params_path="p",
        save_path="s",
        n_eval_episodes=3,
        deterministic_eval=True,
        n_timesteps=n_timesteps,
        n_envs=4,
    )


@pytest.mark.parametrize(
    ("n_timesteps", "given", "expected"),
    [
        (300, 25_000, 500),
        (20_000, 25_000, 2_000),
        (1_000_000, 25_000, 25_000),
        (20_000, 7_000, 7_000),
    ],
)
def test_a_short_run_is_evaluated_more_often_unless_the_flag_is_given(n_timesteps, given, expected):
    callback = VisualExperimentManager._create_evaluation(manager_of(PointEnv, n_timesteps), given)
    assert isinstance(callback, PolicyEvalCallback)
    assert callback.eval_freq == expected


def test_an_environment_with_a_server_keeps_the_evaluation_of_rl_zoo():
    callback = VisualExperimentManager._create_evaluation(manager_of(NeedsServer, 1_000), 4_000)
    assert type(callback) is EvalCallback
    assert callback.eval_freq == 1_000, "calls, of which one steps four environments"


def test_trials_of_a_search_omit_the_policy_eval_callback():
    assert callbacks_of_a_trial([{OURS: {"eval_env": "Pendulum-v1"}}]) == []
