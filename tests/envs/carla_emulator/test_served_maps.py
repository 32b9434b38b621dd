"""The maps that the emulator serves: a folder of files, generated worlds, and our own roads; and their spawn points."""

import importlib.util
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sb3_visual_td3.envs.carla_emulator.process import EmulatorProcess
from sb3_visual_td3.envs.carla_emulator.protocol import CallError
from sb3_visual_td3.envs.carla_emulator.served_maps import MapLibrary, spawn_points_of
from sb3_visual_td3.envs.carla_emulator.simulation import Simulation
from sb3_visual_td3.envs.road.lane_graph import NO_JUNCTION
from sb3_visual_td3.envs.road.maps import load_map
from sb3_visual_td3.envs.road.opendrive_writing import to_opendrive
from tests.envs.carla_emulator.wire import WireClient
from tests.towns import TOWNS

HAS_CLIENT = importlib.util.find_spec("carla") is not None
needs_client = pytest.mark.skipif(not HAS_CLIENT, reason="CARLA's client, which reads OpenDRIVE, is not installed")
N_SPAWN_POINTS = {"Town01": 200, "Town02": 100, "Town07": 100}


class Streams:
    """A stream server without subscribers."""

    def has_subscriber(self, stream_id):
        return False

    def keep(self, stream_id, payload):
        pass

    def send(self, stream_id, payload):
        pass

    def end(self, stream_id):
        pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with two maps. One has the name of a town, and Windows' line ends."""
    folder = tmp_path_factory.mktemp("maps")
    (folder / "Town02.xodr").write_bytes(to_opendrive(load_map("streets_0")).replace("\n", "\r\n").encode())
    (folder / "Village.xodr").write_text(to_opendrive(load_map("junction_0")))
    (folder / "notes.txt").write_text("not a map")
    return folder


@needs_client
def test_files_of_the_folder_come_before_our_own_roads_of_the_same_name(folder):
    maps = MapLibrary(folder)
    assert maps.paths[:3] == ["/Game/Carla/Maps/Town02", "/Game/Carla/Maps/Village", "/Game/Carla/Maps/train_0"]
    assert maps.names.count("Town02") == 1
    assert maps.find("/Game/Carla/Maps/Village") == "Village"
    town = maps.load("Town02")
    assert town.opendrive.encode() == (folder / "Town02.xodr").read_bytes()
    assert len(town.graph.segments) == len(MapLibrary().load("streets_0").graph.segments)
    assert maps.load("Town01").opendrive == to_opendrive(load_map("train_0"))


@needs_client
def test_a_file_with_the_prefix_of_a_namespace_is_served_without_it(tmp_path):
    text = re.sub(r"(</?)(\w)", r"\1od:\2", to_opendrive(load_map("train_0")))
    text = text.replace("<od:OpenDRIVE", "<od:OpenDRIVE xmlns:od='http://x'")
    (tmp_path / "Prefixed.xodr").write_text(text)
    maps = MapLibrary(tmp_path)
    maps.generate(text)
    for name in ("Prefixed", "OpenDriveMap"):
        served = maps.load(name).opendrive
        assert "od:" not in served
        assert "<OpenDRIVE" in served


def test_name_with_opt_finds_the_plain_town_if_there_is_no_opt_map(folder):
    maps = MapLibrary(folder)
    assert maps.find("Town02_Opt") == "Town02"
    assert maps.find("Town10HD_Opt") == "Town10HD_Opt"
    with pytest.raises(CallError, match="map not found: Atlantis_Opt"):
        maps.find("Atlantis_Opt")


@pytest.mark.parametrize(("name", "words"), [("absent", "no such folder"), ("empty", r"found no \*.xodr file")])
def test_folder_without_maps_is_refused(tmp_path, name, words):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=words):
        MapLibrary(tmp_path / name)


@needs_client
def test_map_that_cannot_be_read_leaves_the_world_as_it_is(folder, tmp_path):
    (tmp_path / "Broken.xodr").write_text((folder / "Village.xodr").read_text()[:2000])
    sim = Simulation("train_0", Streams(), 2001, maps=MapLibrary(tmp_path))
    vehicle = sim.spawn([0, "vehicle.tesla.model3", []], sim.map.spawn_points[0])
    with pytest.raises(CallError, match=r"Broken.xodr: got broken XML"):
        sim.load("Broken", reset_settings=True)
    assert (sim.map.name, sim.episode_id) == ("train_0", 1)
    assert vehicle.id in sim.actors


@pytest.mark.parametrize("name", ["train_0", "streets_0", "four_lanes_0"])
def test_spawn_points_of_our_roads_lie_on_lanes_and_are_free(name):
    check_spawn_points(MapLibrary(), name)


@needs_client
@pytest.mark.parametrize("town", sorted(N_SPAWN_POINTS))
def test_towns_have_enough_free_spawn_points_on_lanes(town):
    if not TOWNS.is_dir():
        pytest.skip("no towns beside the project")
    points = check_spawn_points(MapLibrary(TOWNS), town)
    assert len(points) >= N_SPAWN_POINTS[town]


def check_spawn_points(maps, name):
    """Check all spawn points of a map, and return them."""
    served = maps.load(name)
    points = served.spawn_points
    assert points == spawn_points_of(served.graph), "the order never changes"
    sim = Simulation(name, Streams(), 2001, maps=maps)
    used = set()
    for point in points:
        x, y, heading = point.pose
        distance_m, place = served.graph.places_near(x, y, 1.0)[0]
        segment = served.graph.segments[place.segment]
        assert segment.junction == NO_JUNCTION
        assert distance_m < 0.4  # to the closest of the points, which are up to 0.7 m apart
        used.add(place.segment)
        ahead = segment.points_m[-1] - (x, y)
        if segment.length_m < 20.0:  # short enough to be nearly straight
            assert math.cos(heading - math.atan2(ahead[1], ahead[0])) > 0.7
        sim.spawn([0, "vehicle.tesla.model3", []], point)  # raises where another vehicle stands
    long = [i for i, s in enumerate(served.graph.segments) if s.junction == NO_JUNCTION and s.length_m > 30.0]
    assert used.issuperset(long), "every lane that is long enough has one"
    with pytest.raises(CallError, match="collision at spawn position"):
        sim.spawn([0, "vehicle.tesla.model3", []], points[0])
    return points


@needs_client
def test_generated_world_is_served_and_replaced_by_the_next_one():
    first, second = to_opendrive(load_map("junction_0")), to_opendrive(load_map("streets_1"))
    parameters = [2.0, 50.0, 1.0, 0.6, True, True]
    with EmulatorProcess("train_0", "--quiet") as emulator, WireClient(emulator.port) as client:
        with pytest.raises(RuntimeError, match="map not found"):
            client.call("load_new_episode", "OpenDriveMap", True, 65_535)
        for text in (first, second):
            client.call("copy_opendrive_to_file", text, parameters)
            client.call("load_new_episode", "OpenDriveMap", True, 65_535)
            assert client.call("get_map_info")[0] == "Carla/Maps/OpenDriveMap"
            assert client.call("get_map_data") == text
            client.tick()
        for text in (first[:5000], "", "<OpenDRIVE/>", 7, None, []):
            with pytest.raises(RuntimeError):
                client.call("copy_opendrive_to_file", text, parameters)
        assert client.call("get_map_data") == second


GENUINE_CLIENT = """
import random, sys, time
import carla

client = carla.Client("127.0.0.1", int(sys.argv[1]))
client.set_timeout(120.0)
name, path = sys.argv[2:4]
assert f"/Game/Carla/Maps/{name}" == client.get_available_maps()[int(sys.argv[4])]
for wanted in (name, f"/Game/Carla/Maps/{name}"):
    world = client.load_world(wanted)
    town = world.get_map()
    assert town.name == f"Carla/Maps/{name}", town.name
    assert town.to_opendrive().encode() == open(path, "rb").read()
world.apply_settings(carla.WorldSettings(synchronous_mode=True, fixed_delta_seconds=0.05))
points = town.get_spawn_points()
for point in points:
    waypoint = town.get_waypoint(point.location)
    # The emulator's world is flat: heights of the map are not compared.
    assert waypoint.transform.location.distance_2d(point.location) < 0.3
    assert abs((waypoint.transform.rotation.yaw - point.rotation.yaw + 180.0) % 360.0 - 180.0) < 15.0
    assert not waypoint.is_junction
blueprint = world.get_blueprint_library().find("vehicle.tesla.model3")
cars = [world.try_spawn_actor(blueprint, point) for point in points[:20]]
assert all(cars)
world.tick()
assert world.try_spawn_actor(blueprint, points[0]) is None
world = client.generate_opendrive_world(open(path).read())
assert world.get_map().name.endswith("OpenDriveMap")
assert len(world.get_map().get_spawn_points()) == len(points)
assert len(world.get_actors().filter("vehicle.*")) == 0
print("done", len(points))
"""


@pytest.mark.carla
@needs_client
@pytest.mark.parametrize("source", ["own", "town"])
def test_genuine_client_drives_on_maps_of_the_folder(folder, source):
    if source == "town":
        if not TOWNS.is_dir():
            pytest.skip("no towns beside the project")
        folder = TOWNS
    position = sorted(path.stem for path in folder.glob("*.xodr")).index("Town02")
    with EmulatorProcess("train_0", "--maps", str(folder)) as emulator:
        arguments = [str(emulator.port), "Town02", str(folder / "Town02.xodr"), str(position)]
        done = subprocess.run(
            [sys.executable, "-c", GENUINE_CLIENT, *arguments], capture_output=True, text=True, timeout=600, check=False
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("done")


@needs_client
def test_map_may_be_a_file_and_the_first_of_the_folder_is_the_default(folder, capfd):
    path = str(folder / "Village.xodr")
    with EmulatorProcess(path) as emulator, WireClient(emulator.port) as client:
        assert client.call("get_map_info")[0] == "Carla/Maps/Village"
        assert client.call("get_map_data").encode() == Path(path).read_bytes()
    command = [sys.executable, "-m", "sb3_visual_td3", "carla-emulator", "--port", "0", "--maps", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline().endswith("map Town02\n")
        process.terminate()
