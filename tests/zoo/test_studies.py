"""Tests that a storage or study that cannot be opened is reported in one line.

A study must not mix trials of different algorithms or environments, because their results cannot be compared.
"""

import json
import os
import threading

import optuna
import pytest

from sb3_visual_td3.zoo.studies import SEEDS, load_study, open_storage, open_study

PENDULUM = {"algo": "visual_td3", "env": "Pendulum-v1"}


def test_a_journal_is_created_with_its_folder(tmp_path):
    study = open_study(open_storage(f"{tmp_path}/new/study.log"), "study", PENDULUM)
    assert (tmp_path / "new" / "study.log").is_file()
    assert study.user_attrs == PENDULUM


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("{}/study.db", "sqlite:///study.db"),
        ("sqlite:///{}/nowhere/study.db", "unable to open database file"),
        ("nosuchdb://host/study", "nosuchdb"),
        ("{}/file/study.log", "ile exists"),
        ("redis://localhost", "redis"),
    ],
)
def test_a_storage_that_cannot_be_opened_says_why_in_one_line(tmp_path, address, words):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=words) as caught:
        open_study(open_storage(address.format(tmp_path)), "study", {})
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_that_is_not_a_journal_is_rejected(tmp_path):
    path = tmp_path / "training.log"
    path.write_text("step 1\nstep 2\n")
    with pytest.raises(ValueError, match=r"training\.log"):
        open_study(open_storage(str(path)), "study", {})
    assert path.read_text() == "step 1\nstep 2\n"


def test_a_journal_to_read_must_exist(tmp_path):
    with pytest.raises(ValueError, match="this file does not exist; expected the journal"):
        open_storage(f"{tmp_path}/study.log", must_exist=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_lock_of_a_worker_that_was_killed_while_writing_is_removed(tmp_path, monkeypatch):
    """Optuna itself would wait for this lock forever, because the path of the journal is relative."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "logs").mkdir()
    assert open_storage("logs/study.log")._backend._lock.acquire()  # and it is killed
    opened = []
    thread = threading.Thread(
        target=lambda: opened.append(open_study(open_storage("logs/study.log", lock_grace_s=3), "study", {})),
        daemon=True,
    )
    thread.start()
    thread.join(60)
    assert len(opened) == 1
    assert os.listdir(tmp_path / "logs") == ["study.log"]
    assert [json.loads(line)["op_code"] for line in (tmp_path / "logs" / "study.log").read_text().splitlines()] == [0]


def test_a_study_is_opened_again(tmp_path):
    for _ in range(2):
        study = open_study(open_storage(f"sqlite:///{tmp_path}/study.db"), "study", PENDULUM)
        study.ask()
    assert len(study.trials) == 2


@pytest.mark.parametrize("key", ["algo", "env"])
def test_a_study_with_another_identity_is_rejected(tmp_path, key):
    open_study(open_storage(f"{tmp_path}/study.log"), "study", PENDULUM)
    storage = open_storage(f"{tmp_path}/study.log")
    with pytest.raises(ValueError, match=rf"was created for {key} {PENDULUM[key]}, this search is for {key} other"):
        open_study(storage, "study", {**PENDULUM, key: "other"})
    with pytest.raises(ValueError, match="--study-name"):
        load_study(storage, "study", {**PENDULUM, key: "other"})


def test_a_study_of_seeds_and_a_study_of_a_search_are_not_mixed():
    storage = open_storage(None)
    seeds = {**SEEDS, "flags": "-n 5"}
    for _ in range(2):
        open_study(storage, "of seeds", seeds)
        open_study(storage, "of a search", PENDULUM)
    with pytest.raises(ValueError, match="created for runs with several seeds, not for a hyperparameter search"):
        open_study(storage, "of seeds", PENDULUM)
    with pytest.raises(ValueError, match=r"created for a hyperparameter search, not for runs .* --study-name"):
        open_study(storage, "of a search", seeds)


def test_a_study_that_minimises_is_rejected():
    storage = open_storage(None)
    optuna.create_study(storage=storage, study_name="study", direction="minimize")
    with pytest.raises(ValueError, match="is not a hyperparameter search: expected exactly one value to maximise"):
        open_study(storage, "study", PENDULUM)


def test_a_missing_study_is_rejected_and_the_known_ones_are_named():
    storage = open_storage(None)
    open_study(storage, "mine", PENDULUM)
    with pytest.raises(ValueError, match=r"'yours' is not in the storage, which holds mine"):
        load_study(storage, "yours", PENDULUM)


def test_workers_that_create_a_database_together_all_open_it(tmp_path):
    opened = []

    def open_it():
        opened.append(open_study(open_storage(f"sqlite:///{tmp_path}/study.db"), "study", PENDULUM))

    threads = [threading.Thread(target=open_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(opened) == 4
