"""Optuna studies that several workers share, and the workers' signs of life.

Optuna's JournalStorage has no heartbeat, and a database's needs minutes to tell that a process was killed. So every
trial says which process runs it, on which machine, and beats while it runs. On the same machine the process table
tells at once; from elsewhere the beats do, whatever the clocks of the two machines show.
"""

from __future__ import annotations

import contextlib
import os
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
                break  # another worker took this one for dead
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

        A trial that no worker has marked as its own (stock rl-zoo's workers do not) is never failed.

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


JOURNAL = ".log"
"""How rl-zoo tells a journal file from the address of a database."""
LOCK_GRACE_S = 30
"""Seconds after which the lock of a worker that died while it wrote is taken away; Optuna's."""
N_OPENINGS = 5
"""Workers that start together make the tables of a new database together, and all but one find that it has them."""


def open_storage(address: str | None, *, must_exist: bool = False, lock_grace_s: int = LOCK_GRACE_S) -> BaseStorage:
    """Open what rl-zoo's ``--storage`` names.

    :param address: a journal file, ``"….log"``, or the address of a database, ``"sqlite:///….db"``; None keeps the
        trials in memory
    :param must_exist: whether a journal file that is not there is an error; it is made otherwise
    :param lock_grace_s: seconds after which the journal's lock is taken from a worker that died while it wrote
    :return: the storage
    :raises ValueError: if it cannot be opened; it says why
    """
    if address is None:
        return InMemoryStorage()
    with _said_as("storage", address):
        if not address.endswith(JOURNAL):
            return _database(address)
        # The lock is a symbolic link to the journal. With a relative path it leads nowhere, and Optuna (seen in 5.0)
        # then waits for ever for a worker that was killed while it wrote.
        path = Path(address).absolute()
        if must_exist and not path.is_file():
            raise ValueError("there is no such journal")
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = JournalFileSymlinkLock(str(path), grace_period=lock_grace_s)
        return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))


def _database(address: str) -> RDBStorage:
    if "://" not in address:
        raise ValueError("expected a journal file, such as logs/study.log, or a database, such as sqlite:///study.db")
    # SQLite has one writer at a time: the others wait, not for the five seconds of its own but as long as it takes.
    options = {"connect_args": {"timeout": 60}} if address.startswith("sqlite") else {}
    for n_tries in range(1, N_OPENINGS + 1):
        try:
            return RDBStorage(address, engine_kwargs=options)
        except SQLAlchemyError as error:
            made_by_others = isinstance(error, IntegrityError) or "already exists" in str(error)
            if n_tries == N_OPENINGS or not made_by_others:
                raise
            time.sleep(0.2 * n_tries)
    raise AssertionError("the last try returns or raises")


def open_study(
    storage: BaseStorage,
    name: str | None,
    identity: Mapping[str, str],
    sampler: BaseSampler | None = None,
    pruner: BasePruner | None = None,
) -> optuna.Study:
    """Open a study, or begin it where there is none of that name.

    :param storage: what holds it
    :param name: of the study; None makes one up
    :param identity: what its trials must have in common to compare: kept with a new study, held against an old one
    :param sampler: draws the hyperparameters
    :param pruner: ends trials that others have left behind
    :return: the study, which maximises
    :raises ValueError: if a study of that name is of something else, or the storage cannot be read
    """
    with _said_as("study", str(name)):
        study = optuna.create_study(
            storage=storage,
            sampler=sampler,
            pruner=pruner,
            study_name=name,
            direction="maximize",
            load_if_exists=True,
        )
    check_study(study, identity)
    for key in identity.keys() - study.user_attrs.keys():
        study.set_user_attr(key, identity[key])
    return study


def load_study(storage: BaseStorage, name: str, identity: Mapping[str, str]) -> optuna.Study:
    """Open a study that there is.

    :param storage: what holds it
    :param name: of the study
    :param identity: what it must be of
    :return: the study
    :raises ValueError: if there is none of that name, or it is of something else
    """
    known = [study.study_name for study in storage.get_all_studies()]
    if name not in known:
        raise ValueError(f"study={name!r} is not in the storage, which holds {', '.join(known) or 'none'}")
    study = optuna.load_study(study_name=name, storage=storage)
    check_study(study, identity)
    return study


def check_study(study: optuna.Study, identity: Mapping[str, str]) -> None:
    """Refuse a study whose trials do not compare with ours.

    :param study: the study
    :param identity: what its trials must have in common; what the study does not say is not held against it
    :raises ValueError: if it says otherwise, or minimises
    """
    if [direction.name for direction in study.directions] != ["MAXIMIZE"]:
        raise ValueError(f"the study {study.study_name!r} does not maximise: give another --study-name")
    known = study.user_attrs
    other = {key: known[key] for key in identity if known.get(key, identity[key]) != identity[key]}
    if other:
        theirs, ours = (", ".join(f"{key} {said[key]}" for key in other) for said in (other, identity))
        raise ValueError(
            f"the study {study.study_name!r} is of {theirs}, this search of {ours}: their trials do not compare, give "
            "another --study-name"
        )


@contextlib.contextmanager
def _said_as(kind: str, name: str) -> Iterator[None]:
    """What goes wrong with a file, a driver or a database is a mistake in what was asked for."""
    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.OptunaError, OSError, ImportError, ValueError, KeyError) as error:
        reason = str(error.__cause__ or error) if isinstance(error, optuna.exceptions.OptunaError) else str(error)
        first_line = (reason.strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{kind}={name!r} cannot be opened: {first_line}") from error
