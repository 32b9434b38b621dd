"""Open Optuna studies that several workers share, and use heartbeats to detect workers that have died.

Each trial stores which worker process runs it, and a counter of heartbeats. Workers on the same machine look this
process up in the process table. Workers on other machines consider it dead if the counter no longer increases.
"""

from __future__ import annotations

import contextlib
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

BEAT_S = 30.0
"""Time between two heartbeats of a trial in seconds."""
GRACE_S = 300.0
"""Seconds without a heartbeat after which a worker on another machine is considered dead."""
MAX_RETRIES = 3
"""The parameters of a trial are queued again at most this many times after its worker died."""

WORKER = "visual_td3:worker"
"""System attribute of a trial that says which process runs it."""
SEEDS = {"sweep": "seeds"}
"""Part of the identity of a study whose trials differ only in their seeds. Studies of a search do not have this key."""
FAIL_REASON = "fail_reason"
RETRY_OF = "retry_of"
N_RETRIES = "n_retries"


def machine_id() -> str | None:
    """Return an id that differs between machines, boots and containers; None if there is no /proc."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        # Containers on one machine have the same boot id, but process ids of their own.
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def start_time(pid: int) -> str | None:
    """Return when a process of this machine started, in clock ticks since boot; None if it has ended.

    :param pid: the process id
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # See proc(5). The second field is the name in brackets and may contain anything, so the fields are counted from the
    # last bracket: field 3 is the state (Z and X have ended), field 22 the start time.
    fields = stat.rpartition(")")[2].split()
    if fields[0] in {"Z", "X"}:
        return None
    return fields[19]


def this_worker() -> dict[str, Any]:
    """Return the data that identify this process to other workers."""
    return {
        "host": platform.node(),
        "machine": machine_id(),
        "pid": os.getpid(),
        "started": start_time(os.getpid()),
    }


def has_ended(worker: Mapping[str, Any]) -> bool | None:
    """Return whether a worker has ended; None if it is on another machine, where this is unknown.

    :param worker: the result of :func:`this_worker` in that worker
    """
    here = machine_id()
    if here is None or worker["machine"] != here:
        return None
    return bool(start_time(worker["pid"]) != worker["started"])


class Heartbeat:
    """Mark a trial repeatedly as running in this process, which shows other workers that this process is alive.

    :param storage: the storage of the study
    :param trial_id: the storage's id of the trial
    :param beat_s: seconds between two heartbeats
    """

    def __init__(self, storage: BaseStorage, trial_id: int, beat_s: float = BEAT_S) -> None:
        self._storage = storage
        self._trial_id = trial_id
        self._beat_s = beat_s
        self._worker = this_worker()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat_until_stopped, daemon=True)

    def start(self) -> None:
        """Send the first heartbeat at once, and further ones from a thread."""
        self._beat(0)
        self._thread.start()

    def stop(self) -> None:
        """Stop sending heartbeats."""
        self._ended.set()
        self._thread.join()

    def _beat_until_stopped(self) -> None:
        n_beats = 0
        while not self._ended.wait(self._beat_s):
            n_beats += 1
            try:
                self._beat(n_beats)
            except optuna.exceptions.UpdateFinishedTrialError:
                break  # another worker considered this worker dead and failed the trial
            # The storage may be busy or unreachable for a moment: the next heartbeat may succeed.
            except Exception as error:
                print(
                    f"the heartbeat of this worker could not be stored: {error}; the next try is in {self._beat_s:g} s",
                    flush=True,
                )
        self._storage.remove_session()  # a database needs one connection for each thread

    def _beat(self, n_beats: int) -> None:
        self._storage.set_trial_system_attr(self._trial_id, WORKER, {**self._worker, "beat": n_beats})


class WorkerMonitor:
    """Mark the trials of dead workers as failed, and queue their parameters again.

    :param study: the Optuna study
    :param storage: storage of the study
    :param grace_s: seconds without a heartbeat until a worker on another machine counts as dead
    :param clock: a clock in seconds that never goes back
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
        # by number of the trial: its last heartbeat, and when this process first saw it
        self._last_change: dict[int, tuple[int | None, float]] = {}

    def fail_abandoned_trials(self) -> list[int]:
        """Mark the trials of dead workers as failed.

        A trial that has never stored a heartbeat is not marked. Workers of stock rl-zoo store no heartbeats.

        :return: the numbers of the trials that seem to be still running
        """
        running = []
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            worker = trial.system_attrs.get(WORKER)
            if worker is None:
                is_dead = self._is_silent(trial.number, None)
            else:
                # This is also called for a worker on this machine, so that no change of its heartbeat is missed.
                is_silent = self._is_silent(trial.number, worker["beat"])
                ended = has_ended(worker)
                is_dead = is_silent if ended is None else ended
            if not is_dead:
                running.append(trial.number)
            elif worker is not None:
                self._give_up(trial, worker)
        return running

    def _is_silent(self, number: int, beat: int | None) -> bool:
        """Return whether a worker's heartbeat has not changed for too long."""
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
    """Return the storage's id of a trial, which may differ from the trial's number.

    :param study: the Optuna study
    :param storage: storage of the study
    :param number: number of the trial
    """
    study_id = storage.get_study_id_from_name(study.study_name)
    return storage.get_trial_id_from_study_id_trial_number(study_id, number)


def fail(study: optuna.Study, storage: BaseStorage, number: int, reason: str) -> bool:
    """Mark a trial as failed.

    :param study: the Optuna study
    :param storage: storage of the study
    :param number: number of the trial
    :param reason: stored as the trial's user attribute ``fail_reason``
    :return: whether this call, and no other worker, has marked the trial
    """
    trial_id = trial_id_of(study, storage, number)
    try:
        storage.set_trial_user_attr(trial_id, FAIL_REASON, reason)
        return storage.set_trial_state_values(trial_id, TrialState.FAIL)
    except optuna.exceptions.UpdateFinishedTrialError:
        return False


def queue_again(study: optuna.Study, trial: FrozenTrial) -> bool:
    """Queue the parameters of a trial that could not be finished, at most :data:`MAX_RETRIES` times.

    :param study: the Optuna study
    :param trial: the trial
    :return: whether the parameters were queued
    """
    params = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
    n_retries = trial.user_attrs.get(N_RETRIES, 0)
    if not params or n_retries >= MAX_RETRIES:
        return False
    study.enqueue_trial(params, user_attrs={RETRY_OF: trial.number, N_RETRIES: n_retries + 1})
    return True


JOURNAL = ".log"
"""File name ending by which rl-zoo recognises a journal file."""
LOCK_GRACE_S = 30
"""Seconds after which a dead worker's lock on the journal is removed (Optuna's default)."""
N_OPENINGS = 5
"""Number of tries to open a database. A try fails if another worker creates the same tables at the same time."""


def open_storage(address: str | None, *, must_exist: bool = False, lock_grace_s: int = LOCK_GRACE_S) -> BaseStorage:
    """Open the storage that rl-zoo's ``--storage`` names.

    :param address: a journal file (``"logs/study.log"``) or a database (``"sqlite:///study.db"``); None keeps the
        trials in memory
    :param must_exist: True refuses to create a journal file
    :param lock_grace_s: seconds after which the lock of a dead worker is removed
    :raises ValueError: if the storage cannot be opened
    """
    if address is None:
        return InMemoryStorage()
    with _errors_as_value_errors("storage", address):
        if not address.endswith(JOURNAL):
            return _database(address)
        # The lock is a symbolic link to the journal. With a relative path the link is broken, and Optuna (5.0) then
        # waits forever for a worker that was killed while it wrote.
        path = Path(address).absolute()
        if must_exist and not path.is_file():
            raise ValueError("this file does not exist; expected the journal file of an existing study")
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = JournalFileSymlinkLock(str(path), grace_period=lock_grace_s)
        return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))


def _database(address: str) -> RDBStorage:
    if "://" not in address:
        raise ValueError(
            f"expected a journal file that ends in {JOURNAL}, such as logs/study.log, or the address of a database, "
            "such as sqlite:///study.db"
        )
    options = {}
    if address.startswith("sqlite"):
        # SQLite has one writer at a time. The others wait, by default for 5 s, which is short for many workers.
        options = {"connect_args": {"timeout": 60}}
    for n_tries in range(1, N_OPENINGS + 1):
        try:
            return RDBStorage(address, engine_kwargs=options)
        except SQLAlchemyError as error:
            made_by_others = isinstance(error, IntegrityError) or "already exists" in str(error)
            if n_tries == N_OPENINGS or not made_by_others:
                raise
            time.sleep(0.2 * n_tries)
    raise AssertionError("unreachable: the last try either returns or raises")


def open_study(
    storage: BaseStorage,
    name: str | None,
    identity: Mapping[str, str],
    sampler: BaseSampler | None = None,
    pruner: BasePruner | None = None,
) -> optuna.Study:
    """Open a study, or create it if the storage has no study with this name.

    :param storage: the storage that holds the study
    :param name: name of the study; None chooses a new name
    :param identity: properties that the trials share; a new study stores them
    :param sampler: Optuna's sampler
    :param pruner: Optuna's pruner
    :return: the study, which maximises its value
    :raises ValueError: if the study has another identity, or cannot be read
    """
    with _errors_as_value_errors("study", str(name)):
        study = optuna.create_study(
            storage=storage,
            sampler=sampler,
            pruner=pruner,
            study_name=name,
            direction="maximize",
            load_if_exists=True,
        )
    check_study(study, identity)
    for key, value in identity.items():
        if key not in study.user_attrs:
            study.set_user_attr(key, value)
    return study


def load_study(storage: BaseStorage, name: str, identity: Mapping[str, str]) -> optuna.Study:
    """Open an existing study.

    :param storage: the storage that holds the study
    :param name: name of the study
    :param identity: properties that the trials share
    :raises ValueError: if there is no such study, or its identity differs
    """
    known = [study.study_name for study in storage.get_all_studies()]
    if name not in known:
        raise ValueError(
            f"study={name!r} is not in the storage, which holds {', '.join(known) or 'none'}; choose another study"
        )
    study = optuna.load_study(study_name=name, storage=storage)
    check_study(study, identity)
    return study


def check_study(study: optuna.Study, identity: Mapping[str, str]) -> None:
    """Check that the trials of a study can be compared with the trials of this search.

    :param study: the Optuna study
    :param identity: properties that the trials share
    :raises ValueError: if a stored property differs, if only one of the two is a sweep of seeds, or if the study does
        not maximise one objective
    """
    if [direction.name for direction in study.directions] != ["MAXIMIZE"]:
        raise ValueError(
            f"the study {study.study_name!r} is not a hyperparameter search: expected exactly one value to maximise; "
            "choose another --study-name"
        )
    known = study.user_attrs
    holds_seeds = SEEDS.keys() <= identity.keys()
    if known and (SEEDS.keys() <= known.keys()) != holds_seeds:
        kinds = ("a hyperparameter search", "runs with several seeds")
        raise ValueError(
            f"the study {study.study_name!r} was created for {kinds[not holds_seeds]}, not for {kinds[holds_seeds]}: "
            "their trials are not comparable, choose another --study-name"
        )
    other = {key: known[key] for key in identity if known.get(key, identity[key]) != identity[key]}
    if other:
        theirs = ", ".join(f"{key} {other[key]}" for key in other)
        ours = ", ".join(f"{key} {identity[key]}" for key in other)
        raise ValueError(
            f"the study {study.study_name!r} was created for {theirs}, this search is for {ours}: their trials are not "
            "comparable, choose another --study-name"
        )


@contextlib.contextmanager
def _errors_as_value_errors(kind: str, name: str) -> Iterator[None]:
    """Convert errors of files, Optuna and databases into a ValueError that names the storage or study."""
    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.OptunaError, OSError, ImportError, ValueError, KeyError) as error:
        reason = str(error)
        if isinstance(error, optuna.exceptions.OptunaError) and error.__cause__ is not None:
            reason = str(error.__cause__)  # Optuna's own text does not say what failed
        first_line = (reason.strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{kind}={name!r} cannot be opened: {first_line}") from error
