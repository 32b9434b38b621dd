"""Every test runs torch on one thread.

Results are reproducible bit for bit only with one thread, and the test processes share two cores.
"""

import gc
import os
import secrets
from multiprocessing import get_context

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
# Processes that a test starts use one thread, too: pytest-xdist has given the other core to another worker.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Maps of files are read afresh, and nothing is left in the user's cache folder.
os.environ.setdefault("VISUAL_TD3_CACHE", "off")
# One key for every Ray that a test starts: a process keeps to the first that it has met.
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
# Ray gives its workers the niceness 15: beside busy processes they would get a thirtieth of the processor's time. And
# when its processes take longer than a minute to start, it gives up and says so on stderr, which some tests look at.
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
# On a busy machine an example takes long and is slow to make: neither is a fault of the code.
hypothesis.settings.register_profile(
    "busy machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("busy machine")
# SubprocVecEnv has its workers forked by a server. If the server has imported torch, no worker imports it again.
# Not our own package: the server does not have the sys.path of the tests.
get_context("forkserver").set_forkserver_preload(["stable_baselines3"])

_left_out = []


def pytest_collection_modifyitems(items):
    """Begin with the tests that take minutes, so that no worker of pytest-xdist is left alone with one at the end."""

    def minutes_of(item):
        marker = item.get_closest_marker("minutes")
        return 0 if marker is None else marker.args[0]

    # Stable: all other tests stay in the order of the files, whose fixtures they share.
    items.sort(key=minutes_of, reverse=True)


def pytest_deselected(items):
    """Remember what a marker expression left out, so that no run is silent about it."""
    _left_out.extend(item.nodeid for item in items)


def pytest_collection_finish():
    """Leave out of garbage collection what lives until the end: the modules of torch, and some thousand tests."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish(session):
    """Hand what a worker of pytest-xdist has left out to the process that prints the summary."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = _left_out


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    """Take what a worker has left out: each of them collects all tests, so one list is enough."""
    _left_out[:] = getattr(node, "workeroutput", {}).get("left_out", _left_out)


def pytest_terminal_summary(terminalreporter):
    """Name what was left out."""
    if _left_out:
        terminalreporter.section("left out by the marker expression")
        for nodeid in _left_out:
            terminalreporter.write_line(nodeid)


@pytest.fixture
def make_model():
    """A VisualTD3 on small random images, ready to learn."""

    def make(policy="CnnPolicy", env=None, **kwargs):
        settings = {"buffer_size": 300, "learning_starts": 20, "batch_size": 8, "seed": 0, "device": "cpu"}
        return VisualTD3(policy, env if env is not None else ImageEnv(), **{**settings, **kwargs})

    return make


@pytest.fixture(scope="session")
def kept_sessions():
    """Keep the open session of Ray, at most one, from test to test: Ray takes seconds to start."""
    sessions = []
    yield sessions
    for session in sessions:
        session.close()


@pytest.fixture
def ray_runs(kept_sessions):
    """Start Ray as RayVecEnv and the sweep start it, unless it runs since an earlier test."""
    pytest.importorskip("ray")
    from sb3_visual_td3.vec_env.ray_session import RaySession

    if not kept_sessions:
        kept_sessions.append(RaySession())
    return kept_sessions[0]


@pytest.fixture
def no_ray(kept_sessions):
    """End the Ray of earlier tests."""
    while kept_sessions:
        kept_sessions.pop().close()
