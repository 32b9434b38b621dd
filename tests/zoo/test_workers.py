"""Heartbeats: a dead worker is found at once, and the trial of a living one is never failed."""

import os
import signal
import subprocess
import sys
import time

import optuna
import pytest
from optuna.trial import TrialState

from sb3_visual_td3.zoo import studies
from sb3_visual_td3.zoo.studies import (
    WORKER,
    Heartbeat,
    WorkerMonitor,
    fail,
    has_ended,
    open_storage,
    open_study,
    queue_again,
    this_worker,
)

GRACE_S = 100.0


class Clock:
    """A clock that a test sets."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture(params=["journal", "sqlite"])
def study(request, tmp_path):
    """A study, with its storage as an attribute."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    address = {"journal": f"{tmp_path}/study.log", "sqlite": f"sqlite:///{tmp_path}/study.db"}[request.param]
    storage = open_storage(address)
    study = open_study(storage, "study", {})
    study.of = storage
    return study


def begun(study, worker):
    """Begin a trial as a worker does, and return its number."""
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    if worker is not None:
        study.of.set_trial_system_attr(trial._trial_id, WORKER, {**worker, "beat": 0})
    return trial.number


def dead_worker():
    """Return what identifies a worker that has ended."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    worker = {**this_worker(), "pid": process.pid, "started": studies.start_time(process.pid)}
    assert worker["started"] is not None
    assert not has_ended(worker)
    process.kill()
    deadline = time.monotonic() + 300
    while not has_ended(worker) and time.monotonic() < deadline:  # not waited for: it is a zombie
        time.sleep(0.01)
    assert has_ended(worker)
    process.wait()
    return worker


def test_a_process_that_has_ended_is_recognised():
    worker = dead_worker()
    assert has_ended(worker), "after it was waited for as well"


def test_a_living_process_is_not_reported_as_ended():
    assert has_ended(this_worker()) is False


def test_a_process_that_reuses_the_id_of_a_dead_one_is_told_apart():
    assert has_ended({**this_worker(), "started": "12345"})


def test_nothing_is_known_about_a_process_on_another_machine():
    assert has_ended({**dead_worker(), "machine": "elsewhere"}) is None
    assert has_ended({**dead_worker(), "machine": None}) is None


def test_a_dead_workers_trial_fails_and_its_parameters_are_queued_again(study):
    number = begun(study, dead_worker())
    x = study.trials[number].params["x"]
    assert WorkerMonitor(study, study.of).fail_abandoned_trials() == []
    dead, queued = study.trials
    assert dead.state is TrialState.FAIL
    assert "its worker died" in dead.user_attrs["fail_reason"]
    assert queued.state is TrialState.WAITING
    again = study.ask()
    assert again.suggest_float("x", 0, 1) == x
    assert again.user_attrs["retry_of"] == number


def test_two_workers_that_find_the_same_dead_worker_queue_its_trial_once(study):
    begun(study, dead_worker())
    trials = study.get_trials()
    first, second = WorkerMonitor(study, study.of), WorkerMonitor(study, study.of)
    first.fail_abandoned_trials()
    second._give_up(trials[0], trials[0].system_attrs[WORKER])  # it had looked before the first one failed the trial
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.WAITING]


def test_a_living_workers_trial_is_never_failed_however_slow(study):
    clock = Clock()
    monitor = WorkerMonitor(study, study.of, GRACE_S, clock)
    number = begun(study, this_worker())
    trial_id = study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
    for n_beats in range(5):
        study.of.set_trial_system_attr(trial_id, WORKER, {**this_worker(), "beat": n_beats})
        assert monitor.fail_abandoned_trials() == [number]
        clock.now += 0.9 * GRACE_S
    assert study.trials[number].state is TrialState.RUNNING


def test_a_living_process_without_heartbeats_is_left_alone_on_the_same_machine(study):
    """It may have been stopped, or starved of its processor: the process table says that it lives."""
    clock = Clock()
    monitor = WorkerMonitor(study, study.of, GRACE_S, clock)
    number = begun(study, this_worker())
    monitor.fail_abandoned_trials()
    clock.now = 10 * GRACE_S
    assert monitor.fail_abandoned_trials() == [number]


def test_a_worker_elsewhere_is_dead_after_the_grace_period_without_a_heartbeat(study):
    clock = Clock()
    monitor = WorkerMonitor(study, study.of, GRACE_S, clock)
    number = begun(study, {**this_worker(), "machine": "elsewhere"})
    assert monitor.fail_abandoned_trials() == [number]
    clock.now = GRACE_S
    assert monitor.fail_abandoned_trials() == [number]
    clock.now = GRACE_S + 1
    assert monitor.fail_abandoned_trials() == []
    assert study.trials[number].state is TrialState.FAIL


def test_a_trial_without_a_worker_is_neither_failed_nor_waited_for(study):
    clock = Clock()
    monitor = WorkerMonitor(study, study.of, GRACE_S, clock)
    number = begun(study, None)
    assert monitor.fail_abandoned_trials() == [number]
    clock.now = GRACE_S + 1
    assert monitor.fail_abandoned_trials() == []
    assert study.trials[number].state is TrialState.RUNNING


def test_a_trial_is_queued_again_at_most_max_retries_times(study):
    number = begun(study, this_worker())
    n_queued = 0
    while n_queued < 9 and queue_again(study, study.trials[number]):
        n_queued += 1
        number = study.ask().number
    assert n_queued == studies.MAX_RETRIES


def test_a_trial_that_was_queued_and_has_drawn_nothing_yet_is_queued_again(study):
    study.enqueue_trial({"x": 0.25})
    number = study.ask().number
    assert queue_again(study, study.trials[number])
    study.ask()
    assert study.ask().suggest_float("x", 0, 1) != 0.25, "once"
    assert study.trials[1].system_attrs["fixed_params"] == {"x": 0.25}


def test_a_heartbeat_is_sent_until_it_is_stopped(study):
    trial = study.ask()
    heartbeat = Heartbeat(study.of, trial._trial_id, beat_s=0.02)
    heartbeat.start()
    deadline = time.monotonic() + 300
    while study.trials[0].system_attrs[WORKER]["beat"] < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    heartbeat.stop()
    worker = study.trials[0].system_attrs[WORKER]
    assert worker["beat"] >= 2
    assert worker["pid"] == os.getpid()
    time.sleep(0.1)
    assert study.trials[0].system_attrs[WORKER] == worker


def test_a_heartbeat_stops_if_another_worker_ended_the_trial(study):
    trial = study.ask()
    heartbeat = Heartbeat(study.of, trial._trial_id, beat_s=0.02)
    heartbeat.start()
    assert fail(study, study.of, trial.number, "for a test")
    heartbeat._thread.join(300)
    assert not heartbeat._thread.is_alive()
    assert not fail(study, study.of, trial.number, "again")


def test_a_stopped_process_is_alive():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        started = studies.start_time(process.pid)
        process.send_signal(signal.SIGSTOP)
        assert studies.start_time(process.pid) == started
    finally:
        process.kill()
        process.wait()
