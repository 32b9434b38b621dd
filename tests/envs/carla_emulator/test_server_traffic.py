"""Test the cars that the emulator drives.

They never touch and do not block each other, and the seed determines where they start and which ways they take.
"""

import importlib.util
import itertools
import math
import time

import pytest

from sb3_visual_td3.envs.carla_emulator.protocol import Transform
from sb3_visual_td3.envs.carla_emulator.served_maps import MapLibrary, pose_on
from sb3_visual_td3.envs.carla_emulator.server_traffic import ServerTraffic
from sb3_visual_td3.envs.carla_emulator.simulation import Simulation
from sb3_visual_td3.envs.road.collision import boxes_overlap
from sb3_visual_td3.envs.road.graph_traffic import TrafficMap
from sb3_visual_td3.envs.road.lane_graph import NO_JUNCTION
from tests.towns import TOWNS


class Streams:
    """A stream server; ``has_subscriber`` says whether sensors are read."""

    def __init__(self, has_subscriber=False):
        self._has_subscriber = has_subscriber
        self.n_sent = 0

    def has_subscriber(self, stream_id):
        return self._has_subscriber

    def keep(self, stream_id, payload):
        pass

    def send(self, stream_id, payload):
        self.n_sent += 1

    def end(self, stream_id):
        pass


def world(name, n_cars, seed=3, folder=None, streams=None):
    traffic = ServerTraffic(n_cars, seed)
    sim = Simulation(name, streams or Streams(), 2001, traffic=traffic, maps=MapLibrary(folder))
    return sim, traffic


def cars_of(sim):
    return [vehicle for vehicle in sim.vehicles if vehicle.is_server_traffic]


def poses(sim):
    return [tuple(vehicle.pose) for vehicle in cars_of(sim)]


def assert_nothing_touches(sim):
    on_ground = [vehicle for vehicle in sim.vehicles if vehicle.is_on_ground]
    for one, two in itertools.combinations(on_ground, 2):
        if math.dist(one.pose[:2], two.pose[:2]) < 15.0:
            assert not boxes_overlap(one.box, two.box)


def drive_and_measure(sim, n_ticks):
    """Drive, check every tenth tick that no cars touch, and return how far each car has come."""
    travelled = dict.fromkeys((car.id for car in cars_of(sim)), 0.0)
    before = {car.id: car.pose for car in cars_of(sim)}
    for tick in range(n_ticks):
        sim.tick()
        if tick % 10 == 9:
            assert_nothing_touches(sim)
        for car in cars_of(sim):
            step_m = math.dist(car.pose[:2], before[car.id][:2])
            assert step_m < 0.6, "no car jumps"
            travelled[car.id] += step_m
            before[car.id] = car.pose
    return travelled


@pytest.mark.parametrize(("name", "n_cars"), [("streets_0", 25), ("junction_1", 8), ("four_lanes_0", 12)])
def test_cars_never_touch_and_none_waits_forever(name, n_cars):
    sim, _ = world(name, n_cars)
    assert len(cars_of(sim)) == n_cars
    travelled = drive_and_measure(sim, 1_200)
    assert min(travelled.values()) > 60.0  # in one minute


@pytest.mark.parametrize("name", ["streets_0", "junction_1"])
def test_replanning_in_every_tick_does_not_change_how_cars_drive(name):
    sims = [world(name, 12)[0] for _ in range(2)]
    for _ in range(400):
        for car in sims[1]._traffic.cars:
            car.plan = None
        for sim in sims:
            sim.tick()
        assert poses(sims[0]) == poses(sims[1])


def test_cars_obey_the_lights_of_the_map():
    traffic = ServerTraffic(15, 3)
    sim = Simulation("streets_0", Streams(), 2001, traffic=traffic, maps=MapLibrary(lights_seed=0))
    lights = sim.roadside.lights
    n_entered, n_stopped = 0, 0
    for _ in range(1_500):
        before = [(car.path[0], car.along_m, car.speed_mps) for car in traffic.cars]
        sim.tick()
        for car, (segment, _, speed_mps) in zip(traffic.cars, before, strict=True):
            is_red = lights.stop_ahead_m(segment) is not None
            if car.path[0] != segment and sim.map.graph.segments[car.path[0]].junction != NO_JUNCTION:
                n_entered += 1
                # A car that could not stop any more when the light changed drives on.
                assert not is_red or speed_mps > 2.0
            n_stopped += is_red and speed_mps < 0.1
    assert n_entered > 15
    assert n_stopped > 100
    assert_nothing_touches(sim)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("carla") is None, reason="CARLA's client is not installed")
@pytest.mark.parametrize(("town", "n_cars"), [("Town01", 100), ("Town02", 50), ("Town07", 60)])
def test_many_cars_drive_in_a_town_at_ten_ticks_a_second_with_a_camera(town, n_cars):
    if not TOWNS.is_dir():
        pytest.skip("no towns beside the project")
    streams = Streams(has_subscriber=True)
    sim, _ = world(town, n_cars, folder=TOWNS, streams=streams)
    assert len(cars_of(sim)) == n_cars
    ego = sim.spawn([0, "vehicle.tesla.model3", []], sim.map.spawn_points[0])
    size = [["image_size_x", 2, "320"], ["image_size_y", 2, "240"]]
    sim.spawn([0, "sensor.camera.rgb", size], Transform(1.0, 0.0, 1.7), ego.id)
    ego.set_physics(False)
    ego.set_transform(ego.transform._replace(z=50.0))  # out of the traffic's way
    begin_s = time.process_time()
    for _ in range(50):
        sim.tick()
    assert time.process_time() - begin_s < 5.0
    assert streams.n_sent == 100
    travelled = drive_and_measure(sim, 600)
    assert sorted(travelled.values())[len(travelled) // 2] > 60.0


def test_seed_determines_places_and_ways():
    runs = []
    for seed in (3, 3, 4):
        sim, _ = world("streets_0", 10, seed)
        start = poses(sim)
        for _ in range(400):
            sim.tick()
        runs.append((start, poses(sim)))
    assert runs[0] == runs[1]
    assert runs[0][0] != runs[2][0]
    assert runs[0][1] != runs[2][1]


def test_cars_turn_every_way_at_junctions():
    sim, traffic = world("streets_0", 10)
    chosen = {}
    for _ in range(2_000):
        sim.tick()
        for car in traffic.cars:
            for one, two in itertools.pairwise(car.path):
                chosen.setdefault(one, set()).add(two)
    assert max(len(ways) for ways in chosen.values()) >= 2
    for one, ways in chosen.items():
        assert ways <= set(sim.map.graph.segments[one].successors)


def test_cars_stop_behind_a_clients_vehicle_and_go_on_when_it_is_gone():
    sim, traffic = world("streets_0", 1)
    car = traffic.cars[0]
    sim.tick()
    segment = sim.map.graph.segments[car.path[1]]
    obstacle = sim.spawn([0, "vehicle.audi.tt", []], Transform.from_pose(pose_on(segment, 0.6 * segment.length_m)))
    for _ in range(600):
        sim.tick()
    assert car.speed_mps < 0.05
    assert (
        3.5 < math.dist(car.vehicle.pose[:2], obstacle.pose[:2]) < 9.0 or sim.map.graph.segments[car.path[1]] is segment
    )
    sim.destroy(obstacle.id)
    before = car.vehicle.pose
    for _ in range(200):
        sim.tick()
    assert math.dist(before[:2], car.vehicle.pose[:2]) > 10.0


def test_cars_wait_while_junctions_are_closed_to_traffic_and_drive_when_opened():
    sim, traffic = world("streets_0", 6)
    junctions = [segment.junction != NO_JUNCTION for segment in sim.map.graph.segments]
    for _ in range(400):  # those that are within a junction leave it
        sim.tick()
    traffic.is_closed = lambda segment, way: True
    for _ in range(1_200):
        sim.tick()
    for car in traffic.cars:
        assert not junctions[car.path[0]]
        assert car.speed_mps < 0.05
        to_line_m = sim.map.graph.segments[car.path[0]].length_m - car.along_m - car.half_length_m
        assert 0.5 < to_line_m < 60.0
    traffic.is_closed = lambda segment, way: False
    travelled = drive_and_measure(sim, 400)
    assert min(travelled.values()) > 20.0


def test_dead_ends_are_avoided_where_there_is_another_way():
    graph = MapLibrary().load("junction_0").graph
    ways = TrafficMap(graph).onward
    assert any(set(ways[i]) < set(segment.successors) for i, segment in enumerate(graph.segments))
    for number in range(200):
        at = next(i for i, after in enumerate(ways) if after)
        for _ in range(number):
            at = ways[at][number % len(ways[at])]
        assert ways[at]


def test_short_road_gets_as_many_cars_as_fit_and_the_first_spawn_point_stays_free():
    sim, _ = world("junction_1", 100)
    assert 20 <= len(cars_of(sim)) <= 100
    sim.spawn([0, "vehicle.tesla.model3", []], sim.map.spawn_points[0])


def test_destroyed_car_frees_its_lane():
    sim, traffic = world("streets_0", 6)
    for vehicle in cars_of(sim)[:5]:
        assert sim.destroy(vehicle.id)
    assert len(traffic.cars) == 1
    travelled = drive_and_measure(sim, 300)
    assert min(travelled.values()) > 20.0


@pytest.mark.parametrize("n_cars", [-1, 101, 2.5])
def test_impossible_numbers_of_cars_are_refused(n_cars):
    with pytest.raises(ValueError, match="n_cars"):
        ServerTraffic(n_cars, 0)
