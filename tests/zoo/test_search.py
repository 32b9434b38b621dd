"""Tests that a worker of a hyperparameter search completes the requested number of trials.

This also holds if some of its own trials or of the other workers' trials fail.
"""

import os
import signal
import time
from threading import Barrier, Event, Thread
from types import SimpleNamespace

import optuna
import pytest
import yaml
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.trial import TrialState

from sb3_visual_td3.zoo import search
from sb3_visual_td3.zoo.mistakes import SearchStoppedError
from sb3_visual_td3.zoo.search import Budget, Worker
from sb3_visual_td3.zoo.studies import WORKER, open_storage, open_study, this_worker


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setattr(search.gc, "collect", lambda: 0)  # takes longer than these trials
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def make_worker(objective, budget, address=None, storage=None, study=None, **kwargs):
    storage = storage or open_storage(address)
    study = study or open_study(storage, "study", {})
    return Worker(study, storage, objective, budget, poll_s=0.02, **kwargs), study


def states(study):
    return [trial.state.name for trial in study.trials]


def draws(trial):
    return trial.suggest_float("x", 0, 1)


@pytest.mark.parametrize(
    ("n_own", "n_finished", "n_running", "expected"),
    [
        (0, 0, 0, "run"),
        (5, 19, 0, "run"),
        (5, 19, 1, "wait"),
        (5, 18, 1, "run"),
        (5, 18, 3, "wait"),
        (0, 20, 0, "stop"),
        (0, 21, 2, "stop"),
    ],
)
def test_with_max_total_trials_a_worker_starts_only_the_missing_trials(n_own, n_finished, n_running, expected):
    assert Budget(3, 20).next(n_own, n_finished, n_running) == expected


@pytest.mark.parametrize(("n_own", "expected"), [(0, "run"), (2, "run"), (3, "stop")])
def test_without_max_total_trials_a_worker_stops_after_n_trials_of_its_own(n_own, expected):
    assert Budget(3).next(n_own, 100, 100) == expected


def test_a_worker_continues_after_an_error_and_the_trial_stores_the_reason():
    def objective(trial):
        if trial.number == 1:
            raise RuntimeError("time-out of 10s while waiting\nfor the simulator")
        return draws(trial)

    worker, study = make_worker(objective, Budget(1, max_total_trials=3))
    worker.run()
    assert states(study) == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    reason = study.trials[1].user_attrs["fail_reason"]
    assert reason == "RuntimeError: time-out of 10s while waiting for the simulator"


def test_pruned_trials_are_finished_and_failed_ones_are_not():
    def objective(trial):
        trial.report(1.0, 1)
        if trial.number == 0:
            raise optuna.TrialPruned("behind")
        if trial.number == 1:
            return float("nan")
        return 2.0

    worker, study = make_worker(objective, Budget(1, max_total_trials=2))
    worker.run()
    assert states(study) == ["PRUNED", "FAIL", "COMPLETE"]
    assert "mean reward is NaN" in study.trials[1].user_attrs["fail_reason"]


def test_a_search_in_which_everything_fails_ends():
    def objective(trial):
        raise RuntimeError("no simulator")

    worker, study = make_worker(objective, Budget(1, max_total_trials=3))
    with pytest.raises(SearchStoppedError, match="no simulator"):
        worker.run()
    assert states(study) == ["FAIL"] * search.MAX_FAILURES


def manager_of(hyperparams, **args):
    args = SimpleNamespace(**{"env_kwargs": None, "gym_packages": [], **args})
    name = SimpleNamespace(gym_id="Env-v0")
    return SimpleNamespace(
        env_name=name, args=args, _read_hyperparams=hyperparams, env_kwargs=args.env_kwargs, n_timesteps=60
    )


def test_the_command_after_a_search_trains_the_same_environment(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(search, "convert_visual_td3_params", lambda params: params)
    monkeypatch.setattr(search, "with_sampled", lambda hyperparams, params: {**hyperparams, **params})
    study = optuna.create_study(direction="maximize")
    study.add_trial(optuna.trial.create_trial(value=1.5, params={"x": 2}, distributions={"x": IntDistribution(0, 9)}))
    manager = manager_of({"env_kwargs": {"n": 1}}, env_kwargs={"n": 3}, gym_packages=["reach", "other"])
    search._write_best(manager, study, tmp_path / "report", True)
    file = tmp_path / "report.yml"
    assert yaml.safe_load(file.read_text()) == {"Env-v0": {"env_kwargs": {"n": 3}, "x": 2}}
    command = f"visual-td3 train --env Env-v0 --conf-file {file} --gym-packages reach other"
    assert capsys.readouterr().out.splitlines()[-1] == f"Train with it: {command}"


def test_a_best_trial_that_makes_no_hyperparameter_file_is_printed(tmp_path, capsys):
    study = optuna.create_study(direction="maximize")
    study.add_trial(optuna.trial.create_trial(value=1.5, params={"x": 2}, distributions={"x": IntDistribution(0, 9)}))
    manager = manager_of({})
    search._write_best(manager, study, tmp_path / "report", True)
    assert "cannot be written: the trial has no value for" in (printed := capsys.readouterr().out)
    assert "{'x': 2}" in printed


def test_if_a_hyperparameter_file_cannot_be_written_the_converted_values_are_printed(tmp_path, capsys):
    drawn = {"one_minus_gamma": 0.03, "batch_size_pow": 5, "grad_clip": "norm", "max_grad_norm": 10.0}
    drawn |= {"noise_start": 0.2, "noise_end_fraction": 0.5, "net_arch": "small"}
    study = optuna.create_study(direction="maximize")
    distributions = {name: CategoricalDistribution([value]) for name, value in drawn.items()}
    study.add_trial(optuna.trial.create_trial(value=1.5, params=drawn, distributions=distributions))
    hyperparams = {"policy_kwargs": "dict(net_arch=[32])"}
    manager = manager_of(hyperparams)
    search._write_best(manager, study, tmp_path / "report", True)
    assert "cannot be written" in (printed := capsys.readouterr().out)
    assert "'gamma': 0.97, 'batch_size': 32" in printed
    assert "one_minus_gamma" not in printed


def test_failures_that_are_not_in_a_row_do_not_end_a_search():
    def objective(trial):
        if trial.number % 2:
            raise RuntimeError("now and then")
        return draws(trial)

    worker, study = make_worker(objective, Budget(1, max_total_trials=search.MAX_FAILURES + 2))
    worker.run()
    assert states(study).count("FAIL") > search.MAX_FAILURES


def test_an_interrupted_trial_is_queued_again(capsys):
    def objective(trial):
        draws(trial)
        raise KeyboardInterrupt

    worker, study = make_worker(objective, Budget(5))
    with pytest.raises(KeyboardInterrupt):
        worker.run()
    assert states(study) == ["FAIL", "WAITING"]
    assert study.trials[1].system_attrs["fixed_params"] == study.trials[0].params
    assert capsys.readouterr().out == "interrupted: the parameters of the trial are queued again\n"


def test_an_interrupted_trial_without_parameters_is_not_queued_again(capsys):
    def objective(trial):
        raise KeyboardInterrupt

    worker, study = make_worker(objective, Budget(5))
    with pytest.raises(KeyboardInterrupt):
        worker.run()
    assert states(study) == ["FAIL"]
    assert "queued again" not in capsys.readouterr().out


def test_ctrl_c_ends_a_search_with_threads_after_the_running_trials(monkeypatch):
    both_run, has_spoken, lines = Barrier(2), Event(), []

    def show(line):
        lines.append(line)
        has_spoken.set()

    def objective(trial):
        x = draws(trial)
        if both_run.wait(60) == 0:
            os.kill(os.getpid(), signal.SIGINT)
        assert has_spoken.wait(60)  # the user is told while the trials run
        return x

    monkeypatch.setattr(search, "_print", show)
    worker, study = make_worker(objective, Budget(5))
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # pytest-xdist's workers ignore the signal
    try:
        with pytest.raises(KeyboardInterrupt):
            worker.run(n_jobs=2)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert states(study) == ["COMPLETE", "COMPLETE"]
    assert lines[0] == "interrupted: the search ends after the running trials"
    assert not any("queued again" in line for line in lines)


def test_a_worker_that_was_considered_dead_continues():
    def objective(trial):
        x = draws(trial)
        if trial.number == 0:
            study.tell(trial.number, state=TrialState.FAIL)
        return x

    worker, study = make_worker(objective, Budget(1, max_total_trials=2))
    worker.run()
    assert states(study) == ["FAIL", "COMPLETE", "COMPLETE"]


def test_threads_finish_the_requested_number_of_trials(tmp_path):
    worker, study = make_worker(lambda trial: time.sleep(0.01) or draws(trial), Budget(1, 12), f"{tmp_path}/study.log")
    worker.run(n_jobs=3)
    assert states(study).count("COMPLETE") == 12
    assert set(states(study)) <= {"COMPLETE", "FAIL"}


@pytest.mark.parametrize("address", ["{}/study.log", "sqlite:///{}/study.db"])
def test_two_workers_finish_the_total_and_no_more(tmp_path, address):
    address = address.format(tmp_path)
    workers = [make_worker(lambda trial: time.sleep(0.02) or draws(trial), Budget(1, 10), address) for _ in range(2)]
    threads = [Thread(target=worker.run) for worker, _ in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(600)
    assert states(workers[0][1]).count("COMPLETE") == 10


def test_a_worker_waits_for_the_last_trials_of_others_and_repeats_those_that_fail(tmp_path):
    """If a worker stopped when enough trials were begun, the study could end with too few."""
    storage = open_storage(f"{tmp_path}/study.log")
    study = open_study(storage, "study", {})
    other = study.ask()
    storage.set_trial_system_attr(other._trial_id, WORKER, {**this_worker(), "beat": 0})
    worker, _ = make_worker(draws, Budget(1, max_total_trials=2), storage=storage, study=study)
    thread = Thread(target=worker.run)
    thread.start()
    deadline = time.monotonic() + 300
    while states(study) != ["RUNNING", "COMPLETE"] and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.2)
    assert thread.is_alive()
    assert states(study) == ["RUNNING", "COMPLETE"]
    study.tell(other.number, state=TrialState.FAIL)
    thread.join(300)
    assert states(study) == ["FAIL", "COMPLETE", "COMPLETE"]


def test_if_two_workers_begin_the_last_trial_together_one_gives_up():
    begun, may_end = Event(), Event()

    def objective(trial):
        begun.set()
        may_end.wait(60)
        return draws(trial)

    storage = open_storage(None)
    worker, study = make_worker(objective, Budget(1, max_total_trials=1), storage=storage)
    thread = Thread(target=worker.run)
    thread.start()
    assert begun.wait(60)
    late, _ = make_worker(draws, Budget(1, max_total_trials=1), storage=storage, study=study)
    late._finish(study.ask())  # it had counted before the other one began
    may_end.set()
    thread.join(300)
    assert states(study) == ["COMPLETE", "FAIL"]
    assert study.trials[1].user_attrs["fail_reason"] == "other workers had already begun all remaining trials"


def test_a_trial_that_was_queued_twice_runs_once():
    worker, study = make_worker(draws, Budget(2))
    for _ in range(2):
        study.enqueue_trial({"x": 0.5}, user_attrs={"retry_of": 17, "n_retries": 1})
    worker.run()
    assert states(study) == ["COMPLETE", "FAIL"]
    assert study.trials[1].user_attrs["fail_reason"] == "trial 17 had been queued twice"
