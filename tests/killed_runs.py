"""Run functions in separate processes that are killed, and compare the files of training runs."""

import csv
import os
import pickle
import re
import signal
import sys
import time
import traceback
import zipfile
from io import BytesIO
from multiprocessing import forkserver, resource_tracker

import numpy as np
import torch as th
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

WALL_CLOCK = {"time/fps", "time/time_elapsed"}


def in_child(function, log_path):
    """Call a function in a forked process, and return the id of the process."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    # Both helper processes belong to the parent process. After the reset, this process starts its own.
    forkserver._forkserver.__init__()
    resource_tracker._resource_tracker.__init__()
    try:
        with open(log_path, "a", buffering=1) as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            sys.stdout = sys.stderr = log
            try:
                status = function() or 0
            except BaseException:
                traceback.print_exc()
                raise
    finally:
        os._exit(status)


def ended(pid, within_s):
    """Return the status from ``os.waitpid``, or None if the process does not end within ``within_s`` seconds."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        time.sleep(0.002)
    return None


def says(log_path, pattern, pid, within_s=300):
    """Return whether a process writes a match of ``pattern`` to its log before it ends or the time is up."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if log_path.is_file() and re.search(pattern, log_path.read_text()):
            return True
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return False
        time.sleep(0.002)
    return False


def at_every_line(pattern, action, function):
    """Return a function that runs ``function`` and calls ``action`` before each printed text matching ``pattern``."""

    def call():
        really_write = sys.stdout.write

        def write(text):
            if re.search(pattern, text):
                action()
            return really_write(text)

        sys.stdout.write = write
        return function()

    return call


def dies_after(pattern, cpu_s, function):
    """Return a function that runs ``function`` and ends the process by SIGPROF after ``cpu_s`` seconds of CPU time.

    The time starts when the function first prints a text that matches ``pattern``. CPU time makes the moment of the end
    independent of other processes on the machine. The process has no handler for SIGPROF, so it ends as abruptly as
    with SIGKILL.
    """
    is_first = [True]

    def start_the_timer():
        if is_first[0]:
            signal.setitimer(signal.ITIMER_PROF, max(cpu_s, 1e-6))
        is_first[0] = False

    return at_every_line(pattern, start_the_timer, function)


def dies_in_the_midst_of_a_snapshot(function, n_writes):
    """Return a function that runs ``function`` and kills the process at the call number ``n_writes`` of ``os.fsync``.

    A snapshot calls ``os.fsync`` several times, for its files and folders.
    """
    left = [n_writes]
    really_sync = os.fsync

    def sync(handle):
        left[0] -= 1
        if left[0] <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        really_sync(handle)

    def call():
        os.fsync = sync
        return function()

    return call


def weights_in(model_path):
    """Return every tensor in a model file of SB3, also those of the optimizers."""
    found = {}
    with zipfile.ZipFile(model_path) as archive:
        for name in archive.namelist():
            if name.endswith(".pth"):
                _collect(found, name, th.load(BytesIO(archive.read(name)), weights_only=True))
    return found


def _collect(found, name, value):
    if isinstance(value, dict):
        for key, item in value.items():
            _collect(found, f"{name}.{key}", item)
    elif isinstance(value, th.Tensor):
        found[name] = value


def assert_same_weights(one, other):
    first, second = weights_in(one), weights_in(other)
    assert first.keys() == second.keys()
    assert len(first) > 10
    for name, tensor in first.items():
        assert th.equal(tensor, second[name]), name


def assert_same_replay(one, other):
    first, second = (pickle.loads(path.read_bytes()) for path in (one, other))
    assert first.size() == second.size() > 0
    assert first.pos == second.pos
    for name in ("observations", "next_observations", "actions", "rewards", "dones", "timeouts"):
        a, b = getattr(first, name), getattr(second, name)
        for key in a if isinstance(a, dict) else [...]:
            np.testing.assert_array_equal(np.asarray(a[key]), np.asarray(b[key]), err_msg=name)
    for attribute in ("segment_ends",):
        if hasattr(first, attribute):
            np.testing.assert_array_equal(getattr(first, attribute), getattr(second, attribute))


def scalars_of_run(folder):
    """Return every scalar of a run, from all of its event files: name -> [(step, value), ...], sorted by step.

    TensorBoard reads the files in the order of their names, which contain the time of creation in seconds. For files of
    the same second, this order may be wrong, so the points are sorted here.
    """
    (run,) = {path.parent for path in folder.rglob("events.out.tfevents.*")}
    accumulator = EventAccumulator(str(run), size_guidance={"scalars": 0})
    accumulator.Reload()
    tags = accumulator.Tags()["scalars"]
    return {tag: sorted((event.step, event.value) for event in accumulator.Scalars(tag)) for tag in tags}


def assert_same_scalars(one, other, at_least=20):
    """Check that two runs logged the same values at the same steps; times and fps may differ."""
    first, second = scalars_of_run(one), scalars_of_run(other)
    assert first.keys() == second.keys()
    assert len(first) > at_least
    for tag in first:
        steps = [step for step, _ in second[tag]]
        assert steps == sorted(set(steps)), tag
        if tag in WALL_CLOCK:
            assert steps == [step for step, _ in first[tag]], tag
        else:
            np.testing.assert_array_equal(np.array(first[tag]), np.array(second[tag]), err_msg=tag)


def episodes_in(folder):
    """Return the reward and the length of every episode in Monitor's files."""
    rows = []
    for path in sorted(folder.glob("*monitor.csv")):
        lines = path.read_text().splitlines()
        assert lines[0].startswith("#")
        rows += [(row["r"], row["l"]) for row in csv.DictReader(lines[1:])]
    return rows
