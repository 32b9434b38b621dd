"""Test ``visual-td3 train -optimize`` with real but very short trials."""

import csv
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import optuna
import pytest
import yaml
from gymnasium import spaces
from optuna.trial import TrialState

from sb3_visual_td3 import VisualTD3
from sb3_visual_td3.callbacks.explosion_alert import ExplosionAlertCallback
from sb3_visual_td3.diagnosis.live import Finding
from sb3_visual_td3.zoo.mistakes import SearchStoppedError
from sb3_visual_td3.zoo.studies import WORKER, load_study, open_storage
from sb3_visual_td3.zoo.train import main, train
from sb3_visual_td3.zoo.trials import TrialHealthCallback, callbacks_of_a_trial, convert_visual_td3_params, no_go

ROOT = Path(__file__).resolve().parents[2]
BLOCK = {"n_timesteps": 40, "buffer_size": 200, "learning_starts": 10}
IDENTITY = {"algo": "visual_td3"}


class ShortEnv(gym.Env):
    """Give random observations and the action as reward in episodes of four steps; tests can make a step fail."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)
    reward_from_step_20 = None
    fails_in_trials = ()
    n_made = 0

    def __init__(self):
        self.n_steps = 0
        ShortEnv.n_made += 1
        self.number = ShortEnv.n_made

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), {}

    def step(self, action):
        self.n_steps += 1
        if self.number in self.fails_in_trials and self.n_steps == 15:
            raise RuntimeError("the simulator is gone")
        reward = float(action[0])
        if self.reward_from_step_20 is not None and self.n_steps >= 20:
            reward = self.reward_from_step_20
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), reward, self.n_steps % 4 == 0, False, {}


@pytest.fixture
def short_env(monkeypatch):
    """Register ShortEnv; trial n uses the instances with the numbers 2 n + 3 and 2 n + 4."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    monkeypatch.setattr(ShortEnv, "n_made", 0)
    gym.register("Short-v0", ShortEnv)
    yield ShortEnv
    del gym.registry["Short-v0"]


def arguments(folder, env="Short-v0", policy="MlpPolicy", **block):
    """Return the command line of a search with trials of 40 steps."""
    (folder / "block.yml").write_text(yaml.safe_dump({env: {"policy": policy, **BLOCK, **block}}))
    told = ["--env", env, "-conf", folder / "block.yml", "-f", folder / "logs", "--seed", 1, "--device", "cpu"]
    told += ["-optimize", "--n-evaluations", 2, "--eval-episodes", 1, "--no-optim-plots", "--pruner", "none"]
    told += ["--storage", folder / "study.log", "--study-name", "study", "--verbose", 0]
    return [str(each) for each in told]


def study_in(folder):
    return load_study(open_storage(f"{folder}/study.log"), "study", IDENTITY)


def test_a_search_leaves_rl_zoos_report_and_a_block_that_trains_the_best(tmp_path, short_env, capsys):
    assert train([*arguments(tmp_path, normalize={"norm_reward": True}), "--n-trials", "2"]).run_dir is None
    folder = tmp_path / "logs" / "visual_td3"
    (table,) = folder.glob("report_Short-v0_2-trials-40-tpe-none_*.csv")
    assert sorted(path.suffix for path in folder.iterdir()) == [".csv", ".pkl", ".yml"], "no empty RUN_DIR"
    rows = list(csv.DictReader(table.open()))
    assert [row["state"] for row in rows] == ["COMPLETE", "COMPLETE"]
    assert pickle.loads(table.with_suffix(".pkl").read_bytes()).best_value == max(float(row["value"]) for row in rows)
    best = study_in(tmp_path).best_trial
    block = yaml.safe_load(table.with_suffix(".yml").read_text())["Short-v0"]
    for name, value in convert_visual_td3_params(best.params).items():
        assert block[name] == value
    assert block["learning_starts"] == 10
    assert f"trial {best.number} of the study study" in capsys.readouterr().out
    run_dir = train(
        ["--env", "Short-v0", "-conf", str(table.with_suffix(".yml")), "-f", str(tmp_path), "--seed", "1"]
    ).run_dir
    assert VisualTD3.load(run_dir / "Short-v0.zip", device="cpu").gamma == block["gamma"]


def test_trial_id_0_trains_with_the_parameters_of_trial_0(tmp_path, short_env):
    train([*arguments(tmp_path), "--n-trials", "2"])
    drawn = convert_visual_td3_params(study_in(tmp_path).trials[0].params)
    told = [each for each in arguments(tmp_path) if each != "-optimize"]
    run_dir = train([*told, "--trial-id", "0", "-params", "tau:0.123"]).run_dir
    model = VisualTD3.load(run_dir / "Short-v0.zip", device="cpu")
    assert model.gamma == drawn["gamma"]
    assert model.actor_lr == drawn["actor_lr"]
    assert model.learning_starts == 10
    assert model.tau == 0.123, "the command line wins"
    assert main([*told, "--trial-id", "7"]) == 2


def test_the_seed_fixes_the_first_workers_draws_and_no_other_worker_repeats_them(tmp_path, short_env):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        train([*arguments(tmp_path / name, n_timesteps=12), "--n-trials", "1"])
    train([*arguments(tmp_path / "a", n_timesteps=12), "--n-trials", "1"])
    first, second = study_in(tmp_path / "a").trials
    (of_another_study,) = study_in(tmp_path / "b").trials
    assert first.params == of_another_study.params
    assert first.params["tau"] != second.params["tau"]


def test_an_environment_that_fails_costs_one_trial(tmp_path, short_env, monkeypatch, capsys):
    monkeypatch.setattr(ShortEnv, "fails_in_trials", (3,))
    train([*arguments(tmp_path), "--n-trials", "1", "--max-total-trials", "2"])
    trials = study_in(tmp_path).trials
    assert [trial.state.name for trial in trials] == ["FAIL", "COMPLETE", "COMPLETE"]
    assert trials[0].user_attrs["fail_reason"] == "RuntimeError: the simulator is gone"
    assert "trial 0 failed: RuntimeError: the simulator is gone" in capsys.readouterr().out


def test_a_search_in_which_every_trial_fails_is_not_a_success(tmp_path, short_env, monkeypatch, capsys):
    monkeypatch.setattr(ShortEnv, "fails_in_trials", (3,))
    with pytest.raises(SearchStoppedError, match="all trials of the study study have failed"):
        train([*arguments(tmp_path), "--n-trials", "1"])
    assert "No trial is complete" in capsys.readouterr().out


def test_a_failed_search_prints_one_line(tmp_path, short_env, monkeypatch, capsys):
    monkeypatch.setattr(ShortEnv, "fails_in_trials", (3,))
    assert main([*arguments(tmp_path), "--n-trials", "1"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("visual-td3 train: all trials of the study study have failed")


def test_a_search_without_a_trial_has_not_failed(tmp_path, short_env, capsys):
    assert main([*arguments(tmp_path), "--n-trials", "0"]) == 0
    assert "All trials: none" in capsys.readouterr().out


def test_a_worker_whose_trials_fail_does_not_say_that_the_trials_of_others_have_failed(
    tmp_path, short_env, monkeypatch, capsys
):
    assert main([*arguments(tmp_path), "--n-trials", "0"]) == 0
    study_in(tmp_path).ask()  # a trial that another worker is running
    monkeypatch.setattr(ShortEnv, "fails_in_trials", tuple(range(20)))
    assert main([*arguments(tmp_path), "--n-trials", "1"]) == 0
    assert sorted(trial.state.name for trial in study_in(tmp_path).trials) == ["FAIL", "RUNNING"]
    assert "No trial is complete" in capsys.readouterr().out


def test_a_trial_that_turns_no_go_is_pruned_and_says_why(tmp_path, short_env, monkeypatch, capsys):
    monkeypatch.setattr(ShortEnv, "reward_from_step_20", float("nan"))
    train([*arguments(tmp_path), "--n-trials", "1"])
    (trial,) = study_in(tmp_path).trials
    assert trial.state is TrialState.PRUNED
    assert trial.user_attrs["verdict"] == "NO-GO"
    assert trial.user_attrs["diagnosis"] == "non_finite"
    out = capsys.readouterr().out
    assert "trial 0 pruned: NO-GO: non_finite: the reward is nan" in out
    assert "No trial is complete" in out


def test_a_run_with_an_absurd_learning_rate_is_pruned_at_its_first_evaluation_and_a_sound_one_is_not(
    tmp_path, short_env
):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    told = [*arguments(tmp_path, n_timesteps=400, batch_size=16), "--n-trials", "2"]
    storage = open_storage(f"{tmp_path}/study.log")
    study = optuna.create_study(storage=storage, study_name="study", direction="maximize")
    healthy = {
        "one_minus_gamma": 0.03,
        "tau": 0.005,
        "actor_lr": 1e-4,
        "critic_lr": 3e-4,
        "grad_clip": "norm",
        "max_grad_norm": 10.0,
        "noise_start": 0.2,
        "noise_end_fraction": 0.5,
        "actor_objective": "q1",
        "pre_tanh_penalty": 1e-1,
        "target_q_clamp": True,
        "critic_loss": "mse",
        "layer_norm": True,
        "n_steps": 1,
        "batch_size_pow": 5,
        "net_arch": "small",
    }
    study.enqueue_trial(healthy)
    study.enqueue_trial({**healthy, "actor_lr": 1.0, "critic_lr": 1.0})
    train(told)
    good, dead = study_in(tmp_path).trials
    assert good.state is TrialState.COMPLETE
    assert "verdict" not in good.user_attrs
    assert dead.state is TrialState.PRUNED
    assert dead.user_attrs["verdict"] == "NO-GO"
    assert dead.user_attrs["diagnosis"] == "learning_rate_too_high"
    assert list(good.intermediate_values) == [1, 2]
    assert list(dead.intermediate_values) == [1]


def test_an_uncertain_finding_prunes_nothing():
    warning = Finding("reward_scale", "warning", 9, None, "tag", 1.0, 1.0, "perhaps", "look")
    critical = Finding("actor_saturation", "critical", 9, None, "tag", 1.0, 0.5, "stuck", "restart")
    assert no_go(()) is None
    assert no_go((warning,)) is None
    assert no_go((critical,)) == critical
    assert no_go((warning, critical)) == warning, "the first finding is the cause to remedy first"


def test_a_non_finite_gradient_stops_a_trial_with_the_diagnosis_non_finite():
    health = TrialHealthCallback()
    settings = {"learning_starts": 5, "batch_size": 4, "policy_delay": 1, "device": "cpu", "seed": 0}
    model = VisualTD3("MlpPolicy", ShortEnv(), buffer_size=100, **settings)

    def poison(_module, _inputs, output):
        if output.requires_grad and model._n_updates == 3:
            output.register_hook(lambda gradient: gradient * np.nan)

    model.critic.qf0[0].register_forward_hook(poison)
    model.learn(40, callback=health)
    assert model.num_timesteps < 40, "the training stops"
    assert health.verdict() == ("non_finite", "gradients/critic_mlp_norm is nan at update 3")


def test_a_trial_writes_no_run():
    ours = "sb3_visual_td3.callbacks.explosion_alert.ExplosionAlertCallback"
    theirs = "stable_baselines3.common.callbacks.StopTrainingOnMaxEpisodes"
    specified = [{ours: {"warning": 1.0, "critical": 2.0}}, ours, {theirs: {"max_episodes": 3}}]
    assert callbacks_of_a_trial(specified) == [{theirs: {"max_episodes": 3}}]
    assert callbacks_of_a_trial(ours) == []
    assert callbacks_of_a_trial([]) == []
    assert ExplosionAlertCallback.__name__ in ours


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--storage", "sqlite:////nowhere/at/all/study.db"], "unable to open database file"),
        (["--storage", "study.db"], "sqlite:///study.db"),
        (["--sampler", "auto"], "optunahub"),
        (["-params", "batch_sizes:3"], "batch_sizes"),
        (["--trial-id", "0"], "is not in the storage"),
        (["--algo", "crossq"], "--algo crossq: rl-zoo has no search for this algorithm; expected one of a2c, ars"),
    ],
)
def test_a_usage_error_gives_a_one_line_message_before_a_trial_begins(tmp_path, short_env, capsys, extra, words):
    open_storage(f"{tmp_path}/study.log")
    assert main([*arguments(tmp_path), "--n-trials", "1", *extra]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("visual-td3 train: ")
    assert words in line
    assert not (tmp_path / "logs").exists()


def test_a_study_of_another_environment_is_rejected(tmp_path, short_env, capsys):
    train([*arguments(tmp_path), "--n-trials", "1"])
    capsys.readouterr()
    assert main([*arguments(tmp_path, env="Pendulum-v1"), "--n-trials", "1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "was created for env Short-v0, this search is for env Pendulum-v1" in line
    assert len(study_in(tmp_path).trials) == 1


def a_worker(folder):
    """Start a process that takes part in a search of 20 trials."""
    command = [sys.executable, "-m", "sb3_visual_td3", "train", "--algo", "visual_td3"]
    command += [*arguments(folder, env="Pendulum-v1", n_timesteps=60), "--max-total-trials", "20"]
    log = (folder / f"worker{len(list(folder.glob('worker*')))}.txt").open("w")
    return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})


def running(folder, pid):
    """Return the running trial of a process; None until all parameters of the trial are drawn."""
    if not (folder / "study.log").is_file():
        return None
    for trial in optuna.load_study(storage=open_storage(f"{folder}/study.log"), study_name=None).trials:
        mine = trial.system_attrs.get(WORKER, {}).get("pid") == pid
        if mine and trial.state is TrialState.RUNNING and "net_arch" in trial.params:
            return trial
    return None


@pytest.mark.slow
@pytest.mark.minutes(1)
def test_a_study_of_20_trials_ends_although_one_of_two_workers_is_killed(tmp_path):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    killed, other = a_worker(tmp_path), a_worker(tmp_path)
    deadline = time.monotonic() + 1_200
    while killed.poll() is None and time.monotonic() < deadline:
        done = [] if not (tmp_path / "study.log").is_file() else finished(tmp_path)
        victim = running(tmp_path, killed.pid) if len(done) >= 4 else None
        if victim is not None:
            killed.send_signal(signal.SIGKILL)
            break
        time.sleep(0.05)
    assert killed.wait(300) == -signal.SIGKILL
    assert other.wait(1_800) == 0, (tmp_path / "worker1.txt").read_text()
    trials = study_in(tmp_path).trials
    dead = trials[victim.number]
    assert len(finished(tmp_path)) == 20
    assert [trial.state for trial in trials if trial.state.name in {"RUNNING", "WAITING"}] == []
    assert dead.state is TrialState.FAIL
    assert f"process {killed.pid}" in dead.user_attrs["fail_reason"]
    (again,) = [trial for trial in trials if trial.user_attrs.get("retry_of") == dead.number]
    assert again.params == dead.params
    assert again.state in {TrialState.COMPLETE, TrialState.PRUNED}
    assert again.system_attrs[WORKER]["pid"] == other.pid
    pids = {trial.system_attrs[WORKER]["pid"] for trial in finished(tmp_path)}
    assert pids == {killed.pid, other.pid}, "both took part"


def finished(folder):
    try:
        study = study_in(folder)
    except ValueError:
        return []
    return [trial for trial in study.trials if trial.state in {TrialState.COMPLETE, TrialState.PRUNED}]
