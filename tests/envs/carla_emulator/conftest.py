import pytest

from sb3_visual_td3.envs.carla_emulator.process import EmulatorProcess
from tests.envs.carla_emulator.wire import WireClient


@pytest.fixture(scope="module")
def emulator():
    """A running emulator on a port of its own, shared by the tests of a file: leave it alive."""
    with EmulatorProcess("train_0") as process:
        yield process


@pytest.fixture
def own_emulator():
    """One that a test may ruin."""
    with EmulatorProcess("train_0") as process:
        yield process


@pytest.fixture
def client(emulator):
    """A hand-made client in synchronous mode, in a new episode."""
    with WireClient(emulator.port) as client:
        client.call("load_new_episode", "train_0", True, 65_535)
        client.synchronous()
        yield client
