"""Which workers of a search still live: a trial that says so, and somebody who looks.

Optuna's JournalStorage has no heartbeat, and a database's needs minutes to tell that a process was killed. So every
trial says which process runs it, on which machine, and beats while it runs. On the same machine the process table
tells at once; from elsewhere the beats do, whatever the clocks of the two machines show.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

BEAT_S = 30.0
"""Seconds between two beats of a trial."""
GRACE_S = 300.0
"""Seconds without a beat after which a worker on another machine is taken for dead."""
MAX_RETRIES = 3
"""How often the parameters of trials whose workers died are queued again: they may be what kills."""

WORKER = "visual_td3:worker"
"""The trial's system attribute that says who runs it."""
FAIL_REASON = "fail_reason"
RETRY_OF = "retry_of"
N_RETRIES = "n_retries"


def machine() -> str | None:
    """:return: what tells apart machines, boots and containers; None where there is no /proc"""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def start_time(pid: int) -> str | None:
    """:return: when a process of this machine started, in ticks since its boot; None where it runs no more"""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name, in brackets, may hold anything; 22nd of all is the start, third the state. Z and X have ended.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in {"Z", "X"} else fields[19]


def this_worker() -> dict[str, Any]:
    """:return: how this process is known to others"""
    return {"host": os.uname().nodename, "machine": machine(), "pid": os.getpid(), "started": start_time(os.getpid())}


def has_ended(worker: Mapping[str, Any]) -> bool | None:
    """:return: whether a worker has ended; None where that cannot be seen from here: on another machine"""
    here = machine()
    if here is None or worker["machine"] != here:
        return None
    return bool(start_time(worker["pid"]) != worker["started"])


class Heartbeat:
    """Says that a trial is run by this process, as long as it is.

    :param storage: of the study
    :param trial_id: the storage's name for the trial
    :param beat_s: seconds between two beats
    """

    def __init__(self, storage: BaseStorage, trial_id: int, beat_s: float = BEAT_S) -> None:
        self._storage = storage
        self._trial_id = trial_id
        self._beat_s = beat_s
        self._worker = this_worker()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._go_on, daemon=True)

    def start(self) -> None:
        """Beat for the first time, and from now on."""
        self._beat(0)
        self._thread.start()

    def stop(self) -> None:
        """Beat no more."""
        self._ended.set()
        self._thread.join()

    def _go_on(self) -> None:
        n_beats = 0
        while not self._ended.wait(self._beat_s):
            n_beats += 1
            try:
                self._beat(n_beats)
            except optuna.exceptions.UpdateFinishedTrialError:
                break  # somebody took this worker for dead
            except Exception as error:  # a storage that is busy or away for a moment: there will be another beat
                print(f"no heartbeat: {error}", flush=True)
        self._storage.remove_session()  # a database keeps one connection for each thread

    def _beat(self, n_beats: int) -> None:
        self._storage.set_trial_system_attr(self._trial_id, WORKER, {**self._worker, "beat": n_beats})


class Watchman:
    """Looks after the trials of other workers: fails those whose worker is dead, and queues their parameters again.

    :param study: the study
    :param storage: its storage
    :param grace_s: seconds without a beat after which a worker on another machine is taken for dead
    :param clock: seconds of a clock that only goes forward
    """

    def __init__(
        self,
        study: optuna.Study,
        storage: BaseStorage,
        grace_s: float = GRACE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._study = study
        self._storage = storage
        self._grace_s = grace_s
        self._clock = clock
        self._last_change: dict[int, tuple[int | None, float]] = {}

    def look(self) -> list[int]:
        """Fail the trials of the dead.

        A trial of which nobody says that he runs it (stock rl-zoo's workers do not) is never failed.

        :return: the numbers of the trials that are being run, as far as can be told
        """
        living = []
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            worker = trial.system_attrs.get(WORKER)
            silent = self._is_silent(trial.number, None if worker is None else worker["beat"])
            ended = silent if worker is None else has_ended(worker)
            if not (silent if ended is None else ended):
                living.append(trial.number)
            elif worker is not None:
                self._give_up(trial, worker)
        return living

    def _is_silent(self, number: int, beat: int | None) -> bool:
        """:return: whether nothing has changed for too long, by this process's own clock"""
        now = self._clock()
        known = self._last_change.get(number)
        if known is None or known[0] != beat:
            self._last_change[number] = (beat, now)
            return False
        return now - known[1] > self._grace_s

    def _give_up(self, trial: FrozenTrial, worker: Mapping[str, Any]) -> None:
        reason = f"its worker died (process {worker['pid']} on {worker['host']})"
        if fail(self._study, self._storage, trial.number, reason):
            queue_again(self._study, trial)
            print(f"trial {trial.number} failed: {reason}", flush=True)


def trial_id_of(study: optuna.Study, storage: BaseStorage, number: int) -> int:
    """:return: the storage's name for a trial"""
    study_id = storage.get_study_id_from_name(study.study_name)
    return storage.get_trial_id_from_study_id_trial_number(study_id, number)


def fail(study: optuna.Study, storage: BaseStorage, number: int, reason: str) -> bool:
    """Mark a trial as failed.

    :param number: of the trial
    :param reason: kept as the trial's user attribute ``fail_reason``
    :return: whether it was this call that failed it: of several, one does
    """
    trial_id = trial_id_of(study, storage, number)
    try:
        storage.set_trial_user_attr(trial_id, FAIL_REASON, reason)
        return storage.set_trial_state_values(trial_id, TrialState.FAIL)
    except optuna.exceptions.UpdateFinishedTrialError:
        return False


def queue_again(study: optuna.Study, trial: FrozenTrial) -> bool:
    """Queue the parameters of a trial that could not be finished.

    :param trial: the trial; it may have drawn some of its parameters only
    :return: whether they were queued: what has ended several workers is not
    """
    params = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
    n_retries = trial.user_attrs.get(N_RETRIES, 0)
    if not params or n_retries >= MAX_RETRIES:
        return False
    study.enqueue_trial(params, user_attrs={RETRY_OF: trial.number, N_RETRIES: n_retries + 1})
    return True
