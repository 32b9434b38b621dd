import pytest

from sb3_visual_td3.envs.carla_emulator.process import EmulatorProcess
from tests.envs.carla_emulator.wire import WireClient


@pytest.fixture(scope="module")
def emulator():
    """Run an emulator that all tests of a file share: a test must leave it running."""
    with EmulatorProcess("train_0") as process:
        yield process


@pytest.fixture
def own_emulator():
    """Run an emulator that a test may kill or leave hanging."""
    with EmulatorProcess("train_0") as process:
        yield process


@pytest.fixture
def client(emulator):
    """Connect a client in synchronous mode, in a new episode."""
    with WireClient(emulator.port) as client:
        client.call("load_new_episode", "train_0", True, 65_535)
        client.synchronous()
        yield client
