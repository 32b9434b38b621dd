"""Run the search of rl-zoo's ``--optimize-hyperparameters``, and write its report.

:mod:`~sb3_visual_td3.zoo.trials` runs a trial, and :mod:`~sb3_visual_td3.zoo.studies` holds what workers share.
Workers continue after a failed trial.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import math
import os
import pickle
import shlex
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import optuna
import yaml
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.trial import TrialState
from optuna.visualization import plot_optimization_history, plot_param_importances
from rl_zoo3.exp_manager import ExperimentManager
from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER
from rl_zoo3.utils import ALGOS

from sb3_visual_td3.common.errors import in_one_line
from sb3_visual_td3.common.installation import install_command
from sb3_visual_td3.runs.durable_files import atomic_write, write_atomically
from sb3_visual_td3.visual_td3.visual_td3 import VisualTD3
from sb3_visual_td3.zoo.flags import PACKAGES_FLAG
from sb3_visual_td3.zoo.mistakes import SearchStoppedError
from sb3_visual_td3.zoo.studies import (
    GRACE_S,
    RETRY_OF,
    WORKER,
    Heartbeat,
    WorkerMonitor,
    fail,
    load_study,
    open_storage,
    open_study,
    queue_again,
    this_worker,
    trial_id_of,
)
from sb3_visual_td3.zoo.trials import (
    callbacks_of_a_trial,
    convert_visual_td3_params,
    run_trial,
    sampler_facts,
    with_sampled,
)

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
"""States of the trials that ``--max-total-trials`` counts."""
POLL_S = 1.0
"""Seconds between two checks of the trials that other workers are running."""
MAX_FAILURES = 10
"""A worker ends with an error after this many failed trials in a row."""

Objective = Callable[[optuna.Trial], float]


class Budget(NamedTuple):
    """Limit the number of trials of a hyperparameter search.

    :ivar n_trials: number of trials of this worker; not used if ``max_total_trials`` is given
    :ivar max_total_trials: the search ends when all workers together have finished this many trials; None if
        ``n_trials`` decides
    """

    n_trials: int
    max_total_trials: int | None = None

    def next(self, n_own: int, n_finished: int, n_running: int) -> Literal["run", "wait", "stop"]:
        """Decide what a worker does next.

        :param n_own: trials that the worker has begun
        :param n_finished: finished trials of all workers
        :param n_running: trials that living workers are running
        :return: ``"run"`` to begin a trial, ``"wait"`` if the running trials may use up the budget, or ``"stop"``
        """
        if self.max_total_trials is None:
            return "run" if n_own < self.n_trials else "stop"
        if n_finished >= self.max_total_trials:
            return "stop"
        return "run" if n_finished + n_running < self.max_total_trials else "wait"


class Worker:
    """Run trials of an Optuna study until the budget is used up.

    :param study: the Optuna study
    :param storage: storage of the study
    :param objective: function that runs a trial and returns its mean reward
    :param budget: number of trials to run
    :param grace_s: seconds without a heartbeat until a worker on another machine counts as dead
    :param poll_s: seconds between two checks of other workers' trials
    """

    def __init__(
        self,
        study: optuna.Study,
        storage: BaseStorage,
        objective: Objective,
        budget: Budget,
        grace_s: float = GRACE_S,
        poll_s: float = POLL_S,
    ) -> None:
        self._study = study
        self._storage = storage
        self._objective = objective
        self._budget = budget
        self._poll_s = poll_s
        self._monitor = WorkerMonitor(study, storage, grace_s)
        # The threads of --n-jobs share these counts. Under the lock, a thread checks the counts and begins a trial in
        # one step.
        self._lock = threading.Lock()
        self._n_own = 0
        self._n_failures = 0
        self._is_over = False

    def run(self, n_jobs: int = 1) -> None:
        """Run trials until the budget is used up.

        :param n_jobs: number of trials at a time, each in a thread
        :raises SearchStoppedError: if several trials in a row fail
        :raises KeyboardInterrupt: if the user interrupts. With one thread, the trial ends at once, and its parameters
            are queued again. With several threads, the running trials finish first.
        """
        if n_jobs == 1:
            self._run_trials()
            return
        with ThreadPoolExecutor(n_jobs) as threads:
            try:
                # result() raises a thread's exception; _is_over then ends the other threads after their current trial.
                for thread in [threads.submit(self._run_in_thread) for _ in range(n_jobs)]:
                    thread.result()
            except KeyboardInterrupt:  # raised in the main thread alone, so the trials continue
                self._is_over = True
                _print("interrupted: the search ends after the running trials")
                raise
            finally:
                self._is_over = True

    def _run_in_thread(self) -> None:
        self._study.sampler.reseed_rng()  # otherwise all threads would draw the same hyperparameters
        try:
            self._run_trials()
        except BaseException:
            self._is_over = True
            raise

    def _run_trials(self) -> None:
        while not self._is_over:
            with self._lock:
                begun = self._begin()
            if begun is None:
                time.sleep(0 if self._is_over else self._poll_s)
                continue
            trial, heartbeat = begun
            try:
                self._finish(trial)
            finally:
                heartbeat.stop()
            gc.collect()  # models and environments are in reference cycles, and hold gigabytes of memory
        self._storage.remove_session()

    def _begin(self) -> tuple[optuna.Trial, Heartbeat] | None:
        """Return a new trial and its heartbeat; None if there is no trial to run now."""
        running = self._monitor.fail_abandoned_trials()
        n_finished = len(self._study.get_trials(deepcopy=False, states=FINISHED))
        step = self._budget.next(self._n_own, n_finished, len(running))
        self._is_over = self._is_over or step == "stop"
        if self._is_over or step == "wait":
            return None
        trial = self._study.ask()
        heartbeat = Heartbeat(self._storage, trial_id_of(self._study, self._storage, trial.number))
        heartbeat.start()
        self._n_own += 1
        return trial, heartbeat

    def _finish(self, trial: optuna.Trial) -> None:
        # The trial is stored now, so other workers see it, and this worker sees trials that began at the same moment.
        with self._lock:
            reason = self._why_surplus(trial)
        if reason is not None:
            fail(self._study, self._storage, trial.number, reason)
            return
        try:
            value = self._objective(trial)
            if math.isnan(value):  # Optuna would also fail the trial, but without a reason
                raise ValueError("the mean reward is NaN: expected a finite reward")
        except optuna.TrialPruned as pruned:
            self._store_result(trial, None, TrialState.PRUNED)
            _print(f"trial {trial.number} pruned: {pruned}")
        except KeyboardInterrupt:
            # The trial is read before it fails, because its parameters are queued again.
            frozen = self._storage.get_trial(trial_id_of(self._study, self._storage, trial.number))
            if fail(self._study, self._storage, trial.number, "interrupted") and queue_again(self._study, frozen):
                _print("interrupted: the parameters of the trial are queued again")
            raise
        except Exception as error:
            self._fail(trial, error)
        else:
            self._store_result(trial, value)
            _print(f"trial {trial.number} finished with {value:.6g}; the best so far is {_best(self._study)}")

    def _store_result(self, trial: optuna.Trial, value: float | None, state: TrialState | None = None) -> None:
        """Store the result of a trial, unless another worker has ended the trial."""
        self._n_failures = 0
        with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
            self._study.tell(trial, value, state, skip_if_finished=True)

    def _fail(self, trial: optuna.Trial, error: Exception) -> None:
        reason = f"{type(error).__name__}: {in_one_line(error)}"
        fail(self._study, self._storage, trial.number, reason)
        _print(f"trial {trial.number} failed: {reason}")
        self._n_failures += 1
        if self._n_failures >= MAX_FAILURES:
            raise SearchStoppedError(
                f"{MAX_FAILURES} trials failed in a row, the last with {reason}; correct the cause and start the "
                "search again"
            ) from error

    def _why_surplus(self, trial: optuna.Trial) -> str | None:
        """Return why a trial that has begun is one too many; None if it should run.

        Two workers may both begin the last trial of a search, or both queue the same trial again.
        """
        others = [other for other in self._study.get_trials(deepcopy=False) if other.number < trial.number]
        retry_of = trial.user_attrs.get(RETRY_OF)
        if retry_of is not None and any(other.user_attrs.get(RETRY_OF) == retry_of for other in others):
            return f"trial {retry_of} had been queued twice"
        if self._budget.max_total_trials is None:
            return None
        running = self._monitor.fail_abandoned_trials()
        n_before = sum(other.state in FINISHED or other.number in running for other in others)
        if n_before < self._budget.max_total_trials:
            return None
        return "other workers had already begun all remaining trials"


def _best(study: optuna.Study) -> str:
    try:
        best = study.best_trial
    except ValueError:  # no trial is complete
        return "none"
    return f"trial {best.number} with {best.value:.6g}"


def _print(line: str) -> None:
    print(line, flush=True)


def write_report(manager: ExperimentManager, study: optuna.Study, is_ours: bool) -> Path:
    """Print the best trial of a search, and write a report on all trials to the files that rl-zoo would write.

    :param manager: rl-zoo's experiment manager
    :param study: the Optuna study
    :param is_ours: True writes the best trial as a hyperparameter file of VisualTD3
    :return: path of the report, without a file extension
    """
    trials = study.get_trials(deepcopy=False)
    n_of_state = Counter(trial.state.name.lower() for trial in trials)
    counts = ", ".join(f"{n} {state}" for state, n in n_of_state.items())
    print(f"Finished trials: {sum(trial.state in FINISHED for trial in trials)}. All trials: {counts or 'none'}")
    path = _report_path(manager)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(Path(f"{path}.csv")) as temporary:
        study.trials_dataframe().to_csv(temporary)
    write_atomically(Path(f"{path}.pkl"), pickle.dumps(study))
    _write_best(manager, study, path, is_ours)
    if not manager.no_optim_plots:
        _write_plots(study, path)
    print(f"Report: {path}.csv", flush=True)
    return path


def _report_path(manager: ExperimentManager) -> Path:
    """Return the report's path without an extension: rl-zoo's name, plus the process id if that name is taken."""
    name = (
        f"report_{manager.env_name}_{manager.n_trials}-trials-{manager.n_timesteps}-{manager.sampler}-{manager.pruner}"
        f"_{int(time.time())}"
    )
    path = Path(manager.log_folder, manager.algo, name)
    if Path(f"{path}.csv").exists():
        return path.with_name(f"{name}_{os.getpid()}")
    return path


def _write_best(manager: ExperimentManager, study: optuna.Study, path: Path, is_ours: bool) -> None:
    try:
        best = study.best_trial
    except ValueError:
        print("No trial is complete, so there is no best one")
        return
    print(f"Best trial: {best.number}, with {best.value}")
    if not is_ours:
        print("".join(f"    {name}: {value}\n" for name, value in best.params.items()), end="")
        return
    try:
        hyperparams = dict(manager._read_hyperparams)
        if manager.args.env_kwargs:
            hyperparams["env_kwargs"] = manager.env_kwargs
        block = best_block(manager.env_name.gym_id, hyperparams, best.params)
    except (ValueError, yaml.YAMLError) as error:
        reason = in_one_line(error)
        values = best.params
        with contextlib.suppress(ValueError):  # best_block() may have failed because of this conversion
            values = convert_visual_td3_params(values)
        print(f"The hyperparameter file of the best trial cannot be written: {reason}. Its values:\n    {values}")
        return
    header = f"{header_of_best(study)}{best.value} at {manager.n_timesteps} steps\n"
    write_atomically(Path(f"{path}.yml"), header + block)
    command = training_command(manager.env_name.gym_id, f"{path}.yml", manager.args.gym_packages)
    print(f"{header}{block}Train with it: {command}")


def header_of_best(study: optuna.Study) -> str:
    """Return the beginning of the first line in the hyperparameter file of a study's best trial."""
    return f"# trial {study.best_trial.number} of the study {study.study_name}, "


def training_command(env_id: str, conf_file: str, packages: Sequence[str]) -> str:
    """Return the command that trains with the hyperparameter file of a search.

    :param env_id: id of the environment
    :param conf_file: path of the hyperparameter file
    :param packages: modules of ``--gym-packages``
    """
    words = ["visual-td3", "train", "--env", env_id, "--conf-file", conf_file]
    if packages:
        words += [PACKAGES_FLAG, *packages]
    return shlex.join(words)


def best_block(env_id: str, hyperparams: Mapping[str, Any], params: Mapping[str, Any]) -> str:
    """Return the text of a hyperparameter file with the hyperparameters of a trial.

    :param env_id: id of the environment
    :param hyperparams: the hyperparameters of the search's file
    :param params: sampled hyperparameters of the trial
    :return: the text, in YAML
    :raises ValueError: if the file's ``policy_kwargs`` are Python code
    :raises yaml.YAMLError: if the file's hyperparameters hold more than plain data
    """
    block = with_sampled(hyperparams, convert_visual_td3_params(params))
    return str(yaml.safe_dump({env_id: block}, sort_keys=False))


def _write_plots(study: optuna.Study, path: Path) -> None:
    """Write rl-zoo's two plots to files, because rl-zoo would open a browser."""
    for name, plot in (("history", plot_optimization_history), ("importances", plot_param_importances)):
        try:
            plot(study).write_html(f"{path}_{name}.html", include_plotlyjs="directory")
        except (ValueError, ImportError, RuntimeError) as error:  # too few trials, or all with the same value
            print(f"No plot of the {name}: {in_one_line(error)}")


def optimize(manager: ExperimentManager, on_start: Callable[[], None]) -> optuna.Study:
    """Run the hyperparameter search that the command line requests, and write the report.

    :param manager: rl-zoo's experiment manager, after its ``setup_experiment()``
    :param on_start: function that is called before the first trial
    :raises ValueError: if the command line, the storage or the hyperparameter file is wrong
    :raises SearchStoppedError: if all trials have failed
    """
    if manager.algo not in HYPERPARAMS_SAMPLER:
        raise ValueError(
            f"--algo {manager.algo}: rl-zoo has no search for this algorithm; expected one of "
            f"{', '.join(sorted(HYPERPARAMS_SAMPLER))}"
        )
    if importlib.util.find_spec("pandas") is None:
        raise ValueError(f"pandas, which a search needs for its report, is not installed: {install_command('plots')}")
    manager.specified_callbacks = callbacks_of_a_trial(manager.specified_callbacks)
    is_ours = _is_ours(manager)
    if is_ours:
        objective = partial(run_trial, manager, facts=sampler_facts(manager))
    else:
        objective = manager.objective  # rl-zoo's own algorithms, for which the health of a run is not watched
    storage = open_storage(manager.storage)
    identity = {**_identity(manager), "n_timesteps": str(manager.n_timesteps)}
    pruner = manager._create_pruner(manager.pruner)
    study = open_study(storage, manager.study_name, identity, _sampler(manager), pruner)
    _store_description(study, manager._hyperparams)
    _reseed_if_not_alone(study)
    print(f"Study {study.study_name}: sampler {manager.sampler}, pruner {manager.pruner}", flush=True)
    on_start()
    budget = Budget(manager.n_trials, manager.max_total_trials)
    is_interrupted = False
    try:
        Worker(study, storage, objective, budget).run(manager.n_jobs)
    except KeyboardInterrupt:  # an interrupted search has a report too
        is_interrupted = True
    write_report(manager, study, is_ours)
    # Other workers may still be running trials, or a queued one may be waiting.
    states = {trial.state for trial in study.get_trials(deepcopy=False)}
    if not is_interrupted and states == {TrialState.FAIL}:
        raise SearchStoppedError(
            f"all trials of the study {study.study_name} have failed; correct the cause and start the search again"
        )
    return study


def with_trial(manager: ExperimentManager, trial_id: int, hyperparams: Mapping[str, Any]) -> dict[str, Any]:
    """Replace hyperparameters of a file by the values of a trial; the command line still wins.

    :param manager: rl-zoo's experiment manager
    :param trial_id: number of the trial
    :param hyperparams: hyperparameters of file and command line
    :raises ValueError: if there is no such trial, or no storage or study is named
    """
    if not manager.storage or not manager.study_name:
        raise ValueError(f"--trial-id {trial_id}: add --storage and --study-name, which name the study of the trial")
    study = load_study(open_storage(manager.storage, must_exist=True), manager.study_name, _identity(manager))
    trials = study.get_trials(deepcopy=False)
    # A negative index would silently choose a trial from the end of the list.
    if not 0 <= trial_id < len(trials):
        raise ValueError(
            f"--trial-id {trial_id}: there is no such trial; the study {study.study_name!r} has {len(trials)}, "
            "numbered from 0"
        )
    drawn = HYPERPARAMS_CONVERTER[manager.algo](dict(trials[trial_id].params))
    if _is_ours(manager):
        merged = with_sampled(hyperparams, drawn)
    else:
        merged = {**hyperparams, **drawn}
    return {**merged, **(manager.custom_hyperparams or {})}


def _is_ours(manager: ExperimentManager) -> bool:
    return issubclass(ALGOS[manager.algo], VisualTD3)


def _identity(manager: ExperimentManager) -> dict[str, str]:
    return {"algo": manager.algo, "env": str(manager.env_name)}


def _sampler(manager: ExperimentManager) -> BaseSampler:
    try:
        sampler: BaseSampler = manager._create_sampler(manager.sampler)
    except ImportError as error:
        raise ValueError(
            f"--sampler {manager.sampler}: {error}; pip install optunahub, or use --sampler tpe"
        ) from error
    return sampler


def _reseed_if_not_alone(study: optuna.Study) -> None:
    """Reseed the sampler if another worker has used the study.

    rl-zoo seeds every sampler with ``--seed``, so workers with the same seed would try the same hyperparameters.
    """
    worker = this_worker()
    own = f"{WORKER}:{worker['host']}:{worker['pid']}:{worker['started']}:{uuid.uuid4().hex[:8]}"
    study.set_user_attr(own, True)
    if any(name.startswith(WORKER) and name != own for name in study.user_attrs):
        study.sampler.reseed_rng()


def _store_description(study: optuna.Study, hyperparams: Mapping[str, Any]) -> None:
    """Store a study's fixed hyperparameters and the command that created the study, as rl-zoo does."""
    if "command" in study.user_attrs:
        return
    study.set_user_attr("command", " ".join(sys.orig_argv))
    for name in sorted(hyperparams.keys() - study.user_attrs.keys()):
        study.set_user_attr(name, str(hyperparams[name]))
