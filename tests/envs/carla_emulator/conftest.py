import pytest

from sb3_visual_td3.envs.carla_emulator.process import EmulatorProcess
from tests.envs.carla_emulator.wire import WireClient
from tests.towns import TOWNS

IN_A_TOWN = (
    pytest.mark.slow,
    pytest.mark.carla,  # whose package reads the town's file
    pytest.mark.skipif(not TOWNS.is_dir(), reason="no towns beside the project"),
)


@pytest.fixture(scope="module", params=["train_0", pytest.param("Town02", marks=IN_A_TOWN)])
def map_name(request):
    """Return the map on which the emulators of the fixtures start: a built-in map, or a CARLA town from ``TOWNS``."""
    return request.param


def start(map_name):
    """Return an emulator that starts on the map when its context is entered."""
    if map_name == "train_0":
        return EmulatorProcess(map_name)
    pytest.importorskip("carla", reason="CARLA's client, which reads OpenDRIVE, is not installed")
    return EmulatorProcess(map_name, "--maps", str(TOWNS))


@pytest.fixture(scope="module")
def emulator(map_name):
    """Run an emulator that all tests of a file share: a test must leave it running."""
    with start(map_name) as process:
        yield process


@pytest.fixture
def own_emulator(map_name):
    """Run an emulator that a test may kill or leave hanging."""
    with start(map_name) as process:
        yield process


@pytest.fixture
def client(emulator, map_name):
    """Connect a client in synchronous mode, in a new episode."""
    with WireClient(emulator.port) as client:
        client.call("load_new_episode", map_name, True, 65_535)
        client.synchronous()
        yield client
