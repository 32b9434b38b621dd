"""Every test runs torch on one thread.

Results are reproducible bit for bit only with one thread, and the test processes share two cores.
"""

import gc
import os
import secrets
from multiprocessing import get_context

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
# Processes that a test starts use one thread as well, because another worker of pytest-xdist uses the other core.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Lane graphs of maps are not cached, so nothing is left in the user's cache folder.
os.environ.setdefault("VISUAL_TD3_CACHE", "off")
# Every Ray session gets the same key, because a process keeps the first key that it has used.
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
# By default Ray's workers have a niceness of 15, and get a thirtieth of the processor's time beside busy processes.
# If Ray's processes take longer than a minute to start, Ray gives up with a message on stderr, which some tests check.
os.environ.setdefault("RAY_worker_niceness", "0")
os.environ.setdefault("RAY_worker_register_timeout_seconds", "600")
os.environ.setdefault("RAY_raylet_start_wait_time_s", "600")
os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "600")

import hypothesis
import pytest
import torch as th

from sb3_visual_td3 import VisualTD3
from tests.image_env import ImageEnv

th.set_num_threads(1)
# On a busy machine, making and running an example may take long, although the code is right.
hypothesis.settings.register_profile(
    "busy machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("busy machine")
# A server process forks the workers of SubprocVecEnv. If the server has imported torch, no worker imports it again.
# The server cannot import our own package, because it does not have the sys.path of the tests.
get_context("forkserver").set_forkserver_preload(["stable_baselines3"])

_left_out = []


def pytest_collection_modifyitems(items):
    """Run the tests that take minutes first, so that none of them runs alone at the end."""

    def minutes_of(item):
        marker = item.get_closest_marker("minutes")
        return 0 if marker is None else marker.args[0]

    # The sort is stable: all other tests stay in the order of the files, whose fixtures they share.
    items.sort(key=minutes_of, reverse=True)


def pytest_deselected(items):
    """Remember the tests that a marker expression deselects."""
    _left_out.extend(item.nodeid for item in items)


def pytest_collection_finish():
    """Exclude modules and tests from garbage collection, because they live until the end."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish(session):
    """Send the deselected tests from a worker of pytest-xdist to the main process."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = _left_out


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    """Take the deselected tests from a worker. One list is enough, because every worker collects all tests."""
    _left_out[:] = getattr(node, "workeroutput", {}).get("left_out", _left_out)


def pytest_terminal_summary(terminalreporter):
    """List the deselected tests."""
    if _left_out:
        terminalreporter.section("left out by the marker expression")
        for nodeid in _left_out:
            terminalreporter.write_line(nodeid)


@pytest.fixture
def make_model():
    """Return a function that creates a VisualTD3 on small random images."""

    def make(policy="CnnPolicy", env=None, **kwargs):
        settings = {"buffer_size": 300, "learning_starts": 20, "batch_size": 8, "seed": 0, "device": "cpu"}
        return VisualTD3(policy, env if env is not None else ImageEnv(), **{**settings, **kwargs})

    return make


@pytest.fixture(scope="session")
def kept_sessions():
    """Keep the open Ray session (at most one) for later tests, because Ray takes seconds to start."""
    sessions = []
    yield sessions
    for session in sessions:
        session.close()


@pytest.fixture
def ray_runs(kept_sessions):
    """Return the Ray session of an earlier test, or start one."""
    pytest.importorskip("ray")
    from sb3_visual_td3.vec_env.ray_session import RaySession

    if not kept_sessions:
        kept_sessions.append(RaySession())
    return kept_sessions[0]


@pytest.fixture
def no_ray(kept_sessions):
    """Close the Ray session of an earlier test."""
    while kept_sessions:
        kept_sessions.pop().close()
