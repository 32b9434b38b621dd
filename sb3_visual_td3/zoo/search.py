"""rl-zoo's ``--optimize-hyperparameters``: workers that survive failing trials, and the report that a search leaves."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import math
import os
import pickle
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
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
from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER
from rl_zoo3.utils import ALGOS

from sb3_visual_td3.runs.durable_files import atomic_write, write_atomically
from sb3_visual_td3.visual_td3.visual_td3 import VisualTD3
from sb3_visual_td3.zoo.sampling import convert_visual_td3_params, with_sampled
from sb3_visual_td3.zoo.studies import (
    GRACE_S,
    RETRY_OF,
    WORKER,
    Heartbeat,
    Watchman,
    fail,
    load_study,
    open_storage,
    open_study,
    queue_again,
    this_worker,
    trial_id_of,
)
from sb3_visual_td3.zoo.trials import callbacks_of_a_trial, facts_of, run_trial

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
"""What ``--max-total-trials`` counts: a trial that failed, or that a dead worker left behind, has told nothing."""
POLL_S = 1.0
"""Seconds between two looks at trials that others are finishing."""
MAX_FAILURES = 10
"""Trials of one worker that may fail in a row; more, and it is not the hyperparameters."""

Objective = Callable[[optuna.Trial], float]


class SearchStoppedError(RuntimeError):
    """No trial can be finished."""


class Budget(NamedTuple):
    """How much there is to do.

    :ivar n_trials: trials of this worker; not looked at where there is a total
    :ivar max_total_trials: finished trials of all workers together
    """

    n_trials: int
    max_total_trials: int | None = None

    def next(self, n_own: int, n_finished: int, n_running: int) -> Literal["run", "wait", "stop"]:
        """Decide what a worker does next.

        :param n_own: trials that it has begun
        :param n_finished: trials of all workers that are finished
        :param n_running: trials that are being run by someone who lives
        :return: ``"wait"`` where those that are being run would be enough, if they were finished
        """
        if self.max_total_trials is None:
            return "run" if n_own < self.n_trials else "stop"
        if n_finished >= self.max_total_trials:
            return "stop"
        return "run" if n_finished + n_running < self.max_total_trials else "wait"


class Worker:
    """Runs trials of a study.

    :param study: the study
    :param storage: its storage
    :param objective: trains and evaluates
    :param budget: how much there is to do
    :param grace_s: seconds without a sign of life after which a worker on another machine is taken for dead
    :param poll_s: seconds between two looks at trials that others are finishing
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
        self._watchman = Watchman(study, storage, grace_s)
        self._lock = threading.Lock()
        self._n_own = 0
        self._n_failures = 0
        self._is_over = False

    def run(self, n_jobs: int = 1) -> None:
        """Run trials until there are enough.

        :param n_jobs: how many at a time, each in a thread
        :raises SearchStoppedError: if trial after trial fails
        :raises KeyboardInterrupt: if the user interrupts; the trial's parameters are queued again
        """
        if n_jobs == 1:
            self._go_on()
            return
        with ThreadPoolExecutor(n_jobs) as threads:
            try:
                for thread in [threads.submit(self._go_on_with_others) for _ in range(n_jobs)]:
                    thread.result()
            finally:
                self._is_over = True

    def _go_on_with_others(self) -> None:
        self._study.sampler.reseed_rng()
        try:
            self._go_on()
        except BaseException:
            self._is_over = True
            raise

    def _go_on(self) -> None:
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
            gc.collect()  # models and environments hang in rings of references
        self._storage.remove_session()

    def _begin(self) -> tuple[optuna.Trial, Heartbeat] | None:
        """:return: a trial, which says that it is run; None where there is none to run now"""
        living = self._watchman.look()
        n_finished = len(self._study.get_trials(deepcopy=False, states=FINISHED))
        step = self._budget.next(self._n_own, n_finished, len(living))
        self._is_over = self._is_over or step == "stop"
        if self._is_over or step == "wait":
            return None
        trial = self._study.ask()
        heartbeat = Heartbeat(self._storage, trial_id_of(self._study, self._storage, trial.number))
        heartbeat.start()
        self._n_own += 1
        return trial, heartbeat

    def _finish(self, trial: optuna.Trial) -> None:
        with self._lock:
            reason = self._surplus(trial)
        if reason is not None:
            fail(self._study, self._storage, trial.number, reason)
            return
        try:
            value = self._objective(trial)
            if math.isnan(value):
                raise ValueError("the mean reward is not a number")
        except optuna.TrialPruned as pruned:
            self._tell(trial, None, TrialState.PRUNED)
            _say(f"trial {trial.number} pruned: {pruned}")
        except KeyboardInterrupt:
            frozen = self._storage.get_trial(trial_id_of(self._study, self._storage, trial.number))
            if fail(self._study, self._storage, trial.number, "interrupted"):
                queue_again(self._study, frozen)
            raise
        except Exception as error:
            self._fail(trial, error)
        else:
            self._tell(trial, value)
            _say(f"trial {trial.number} finished with {value:.6g}; the best so far is {_best(self._study)}")

    def _tell(self, trial: optuna.Trial, value: float | None, state: TrialState | None = None) -> None:
        """Hand in a result; where this worker has been taken for dead it counts for nothing."""
        self._n_failures = 0
        with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
            self._study.tell(trial, value, state, skip_if_finished=True)

    def _fail(self, trial: optuna.Trial, error: Exception) -> None:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        fail(self._study, self._storage, trial.number, reason)
        _say(f"trial {trial.number} failed: {reason}")
        self._n_failures += 1
        if self._n_failures >= MAX_FAILURES:
            raise SearchStoppedError(f"{MAX_FAILURES} trials failed in a row, the last with {reason}") from error

    def _surplus(self, trial: optuna.Trial) -> str | None:
        """Find out whether another worker, at the same moment, began what this one did.

        :return: why the trial is not needed; None where it is
        """
        others = [other for other in self._study.get_trials(deepcopy=False) if other.number < trial.number]
        retry_of = trial.user_attrs.get(RETRY_OF)
        if retry_of is not None and any(other.user_attrs.get(RETRY_OF) == retry_of for other in others):
            return f"trial {retry_of} had been queued twice"
        if self._budget.max_total_trials is None:
            return None
        living = self._watchman.look()
        n_before = sum(other.state in FINISHED or other.number in living for other in others)
        return None if n_before < self._budget.max_total_trials else "others had begun the last trials"


def _best(study: optuna.Study) -> str:
    try:
        best = study.best_trial
    except ValueError:  # none is complete
        return "none"
    return f"trial {best.number} with {best.value:.6g}"


def _say(line: str) -> None:
    print(line, flush=True)


def write_report(manager: ExperimentManager, study: optuna.Study, is_ours: bool) -> Path:
    """Print the best trial and write the report where rl-zoo writes it.

    :param manager: rl-zoo's, which knows the folder
    :param study: the study
    :param is_ours: whether the trials are VisualTD3's, which a yml block can be made of
    :return: the report's path without its ending
    """
    trials = study.get_trials(deepcopy=False)
    n_of_state = Counter(trial.state.name.lower() for trial in trials)
    told = ", ".join(f"{n} {state}" for state, n in n_of_state.items())
    print(f"{sum(trial.state in FINISHED for trial in trials)} trials are finished: {told or 'none begun'}")
    path = _report_path(manager)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(Path(f"{path}.csv")) as begun:
        study.trials_dataframe().to_csv(begun)
    write_atomically(Path(f"{path}.pkl"), pickle.dumps(study))
    _write_best(manager, study, path, is_ours)
    if not manager.no_optim_plots:
        _write_plots(study, path)
    print(f"Report: {path}.csv", flush=True)
    return path


def _report_path(manager: ExperimentManager) -> Path:
    """:return: as rl-zoo names it, and the process: workers may end in the same second"""
    name = (
        f"report_{manager.env_name}_{manager.n_trials}-trials-{manager.n_timesteps}-{manager.sampler}-{manager.pruner}"
        f"_{int(time.time())}"
    )
    path = Path(manager.log_folder, manager.algo, name)
    return path.with_name(f"{name}_{os.getpid()}") if Path(f"{path}.csv").exists() else path


def _write_best(manager: ExperimentManager, study: optuna.Study, path: Path, is_ours: bool) -> None:
    try:
        best = study.best_trial
    except ValueError:
        print("No trial is complete: there is no best one")
        return
    print(f"Best trial: {best.number}, with {best.value}")
    if not is_ours:
        print("".join(f"    {name}: {value}\n" for name, value in best.params.items()), end="")
        return
    try:
        block = best_block(manager.env_name.gym_id, manager._read_hyperparams, best.params)
    except (ValueError, yaml.YAMLError) as error:
        print(f"No yml block: {' '.join(str(error).split())}\n    {convert_visual_td3_params(best.params)}")
        return
    header = f"# trial {best.number} of the study {study.study_name}, {best.value} at {manager.n_timesteps} steps\n"
    write_atomically(Path(f"{path}.yml"), header + block)
    print(f"{header}{block}Train with it: visual-td3 train --env {manager.env_name.gym_id} --conf-file {path}.yml")


def best_block(env_id: str, hyperparams: Mapping[str, Any], params: Mapping[str, Any]) -> str:
    """Make a hyperparameter file of a trial.

    :param env_id: the environment's
    :param hyperparams: as read from the file that the search began with
    :param params: what the trial has drawn
    :return: YAML that trains what the trial trained
    :raises ValueError: if the file's ``policy_kwargs`` are Python code
    :raises yaml.YAMLError: if the file's hyperparameters hold more than plain data
    """
    block = with_sampled(hyperparams, convert_visual_td3_params(params))
    return str(yaml.safe_dump({env_id: block}, sort_keys=False))


def _write_plots(study: optuna.Study, path: Path) -> None:
    """Write rl-zoo's two plots; it opens a browser for them, which a server has not."""
    for name, plot in (("history", plot_optimization_history), ("importances", plot_param_importances)):
        try:
            plot(study).write_html(f"{path}_{name}.html", include_plotlyjs="directory")
        except (ValueError, ImportError, RuntimeError) as error:  # too few trials, or all alike
            print(f"No plot of the {name}: {' '.join(str(error).split())}")


def optimize(manager: ExperimentManager, on_start: Callable[[], None]) -> optuna.Study:
    """Search for hyperparameters as this command line says, and write the report.

    :param manager: rl-zoo's, set up
    :param on_start: called when what can be a mistake of the command line has been found to be none
    :return: the study
    :raises ValueError: if the command line, the storage or the hyperparameter file is at fault
    """
    if importlib.util.find_spec("pandas") is None:
        raise ValueError("a search writes its report with pandas: pip install 'sb3-visual-td3[plots]'")
    manager.specified_callbacks = callbacks_of_a_trial(manager.specified_callbacks)
    is_ours = _is_ours(manager)  # other algorithms' trials are rl-zoo's own, without a look at their health
    objective = partial(run_trial, manager, facts=facts_of(manager)) if is_ours else manager.objective
    storage = open_storage(manager.storage)
    identity = {**_identity(manager), "n_timesteps": str(manager.n_timesteps)}
    pruner = manager._create_pruner(manager.pruner)
    study = open_study(storage, manager.study_name, identity, _sampler(manager), pruner)
    _describe(study, manager._hyperparams)
    _draw_apart(study)
    print(f"Study {study.study_name}: sampler {manager.sampler}, pruner {manager.pruner}", flush=True)
    on_start()
    budget = Budget(manager.n_trials, manager.max_total_trials)
    try:
        Worker(study, storage, objective, budget).run(manager.n_jobs)
    except KeyboardInterrupt:
        print("interrupted: the trial's parameters are queued again", flush=True)
    write_report(manager, study, is_ours)
    return study


def with_trial(manager: ExperimentManager, trial_id: int, hyperparams: Mapping[str, Any]) -> dict[str, Any]:
    """Take a trial's hyperparameters in place of the file's; the command line's stay.

    :param manager: rl-zoo's, which knows ``--storage`` and ``--study-name``
    :param trial_id: the trial's number
    :param hyperparams: of the file, and of the command line
    :return: all of them
    :raises ValueError: if there is no such trial, or no storage or study is named
    """
    if not manager.storage or not manager.study_name:
        raise ValueError(f"--trial-id {trial_id} needs --storage and --study-name: which study's trial is it?")
    study = load_study(open_storage(manager.storage, must_exist=True), manager.study_name, _identity(manager))
    trials = study.get_trials(deepcopy=False)
    if not 0 <= trial_id < len(trials):
        raise ValueError(f"--trial-id {trial_id}: the study {study.study_name!r} has {len(trials)} trials, from 0 on")
    drawn = HYPERPARAMS_CONVERTER[manager.algo](dict(trials[trial_id].params))
    merged = with_sampled(hyperparams, drawn) if _is_ours(manager) else {**hyperparams, **drawn}
    return {**merged, **(manager.custom_hyperparams or {})}


def _is_ours(manager: ExperimentManager) -> bool:
    return issubclass(ALGOS[manager.algo], VisualTD3)


def _identity(manager: ExperimentManager) -> dict[str, str]:
    return {"algo": manager.algo, "env": str(manager.env_name)}


def _sampler(manager: ExperimentManager) -> BaseSampler:
    try:
        sampler: BaseSampler = manager._create_sampler(manager.sampler)
    except ImportError as error:
        raise ValueError(f"--sampler {manager.sampler}: {error}; pip install optunahub, or take tpe") from error
    return sampler


def _draw_apart(study: optuna.Study) -> None:
    """Let the second worker of a study, and the first one when it comes back, draw what no other worker has drawn.

    rl-zoo gives every sampler the ``--seed``: with the same seed they would try the same. All say that they are there
    and then look for others, so that of two that start together one sees the other at least.
    """
    worker = this_worker()
    own = f"{WORKER}:{worker['host']}:{worker['pid']}:{worker['started']}:{uuid.uuid4().hex[:8]}"
    study.set_user_attr(own, True)
    if any(name.startswith(WORKER) and name != own for name in study.user_attrs):
        study.sampler.reseed_rng()


def _describe(study: optuna.Study, hyperparams: Mapping[str, Any]) -> None:
    """Keep what rl-zoo keeps with a study: the command that began it, and what is not searched for."""
    if "command" in study.user_attrs:
        return
    study.set_user_attr("command", " ".join(sys.orig_argv))
    for name in sorted(hyperparams.keys() - study.user_attrs.keys()):
        study.set_user_attr(name, str(hyperparams[name]))
