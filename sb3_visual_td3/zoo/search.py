"""A worker of a search: trial after trial until enough are finished, whatever becomes of the others."""

from __future__ import annotations

import contextlib
import gc
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple

import optuna
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from sb3_visual_td3.zoo.workers import GRACE_S, RETRY_OF, Heartbeat, Watchman, fail, queue_again, trial_id_of

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
