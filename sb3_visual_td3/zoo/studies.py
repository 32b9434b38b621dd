"""Where the trials of a search are kept, and whether they are trials of this search at all."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

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
