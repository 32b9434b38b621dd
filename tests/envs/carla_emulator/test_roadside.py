"""Traffic lights and signs of the emulator: with CARLA's genuine client, and without it."""

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sb3_visual_td3.envs.carla_emulator import cameras
from sb3_visual_td3.envs.carla_emulator.calls import ActorCalls
from sb3_visual_td3.envs.carla_emulator.process import EmulatorProcess
from sb3_visual_td3.envs.carla_emulator.protocol import CallError, Transform
from sb3_visual_td3.envs.carla_emulator.roadside import COLOURS, LightCalls, RoadSign, _stop_lines
from sb3_visual_td3.envs.carla_emulator.served_maps import MapLibrary
from sb3_visual_td3.envs.carla_emulator.server_traffic import ServerTraffic
from sb3_visual_td3.envs.carla_emulator.simulation import Simulation
from sb3_visual_td3.envs.road.graph_reading import read_graph
from sb3_visual_td3.envs.road.lane_graph import NO_JUNCTION
from sb3_visual_td3.envs.road.shapes import Pose
from tests.envs.carla_emulator.test_simulation import Streams
from tests.towns import TOWNS, needs_carla, needs_towns

SCRIPTS = Path(__file__).parent / "scripts_lights"


@pytest.fixture
def sim():
    return Simulation("streets_0", Streams(), 2001, maps=MapLibrary(lights_seed=0))


def lights_of(sim):
    return [actor for actor in sim.actors.values() if isinstance(actor, RoadSign) and actor.is_light]


def car_before(sim, light, before_m):
    """Spawn a car whose centre is some metres before the light's stop line."""
    stop = light.signal.stops[0]
    segment = sim.map.graph.segments[stop.segment]
    along_m = stop.along_m - before_m
    x, y = (float(np.interp(along_m, segment.along_m, segment.points_m[:, axis])) for axis in (0, 1))
    pose = Pose(x, y, segment.headings_rad[1])
    return sim.spawn([0, "vehicle.tesla.model3", []], Transform.from_pose(pose, 0.5))


def run_script(name, home, *arguments):
    """Run a script with CARLA's client, which keeps files of the server in the home folder."""
    with EmulatorProcess(*arguments) as emulator:
        command = [sys.executable, "-X", "faulthandler", str(SCRIPTS / name), "--port", str(emulator.port)]
        environment = {**os.environ, "HOME": str(home)}
        return subprocess.run(command, capture_output=True, text=True, timeout=600.0, check=False, env=environment)


@pytest.mark.carla
@needs_carla
def test_carlas_client_reads_and_sets_traffic_lights_of_a_built_in_map(tmp_path):
    done = run_script("traffic_lights.py", tmp_path, "streets_0", "--traffic-lights")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("done")


@pytest.mark.carla
@needs_carla
@needs_towns
def test_carlas_client_reads_and_sets_traffic_lights_of_town02(tmp_path):
    done = run_script("traffic_lights.py", tmp_path, "Town02", "--maps", str(TOWNS))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "done: 24 lights"


@pytest.mark.carla
@needs_carla
@pytest.mark.parametrize("map_name", ["streets_0", "train_0"])
def test_carlas_client_controls_walkers_on_built_in_maps(tmp_path, map_name):
    done = run_script("walkers.py", tmp_path, map_name)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("done")
    assert list(tmp_path.glob(f"carlaCache/*/Nav/{map_name}-*.bin")), "the client keeps the file under its own name"


@pytest.mark.carla
@needs_carla
@needs_towns
def test_carlas_client_controls_walkers_on_the_pavements_of_town02(tmp_path):
    done = run_script("walkers.py", tmp_path, "Town02", "--maps", str(TOWNS))
    assert done.returncode == 0, done.stderr


def test_set_walker_state_moves_a_walker_in_one_tick_only(sim):
    walker = sim.spawn([0, "walker.pedestrian.0001", []], Transform(10.0, 10.0, 1.0))
    calls = ActorCalls(sim)
    calls.on_set_walker_state(walker.id, [[11.0, 10.0, 0.0], [0.0, 90.0, 0.0]], 1.5)
    sim.tick()
    assert (walker.transform.x, walker.transform.y) == (11.0, 10.0)
    assert walker.velocity[1] == pytest.approx(1.5)
    sim.tick()
    assert (walker.transform.x, walker.transform.y) == (11.0, 10.0)
    assert walker.velocity == (0.0, 0.0, 0.0)


@pytest.mark.carla
@needs_carla
def test_traffic_lights_survive_a_round_trip_through_opendrive(sim):
    written = sim.map.graph.signs
    read = read_graph(sim.map.opendrive, "written").signs
    assert {signal.id for signal in read.signals if signal.is_light} == {signal.id for signal in written.signals}
    by_id = {signal.id: signal for signal in read.signals}
    for signal in written.signals:
        twin = by_id[signal.id]
        # OpenDRIVE gives a pole by the road beside it; some stand a little before or beyond both ends.
        assert np.hypot(twin.x_m - signal.x_m, twin.y_m - signal.y_m) < 0.5
        assert np.cos(twin.yaw_rad - signal.yaw_rad) == pytest.approx(1.0, abs=1e-3)
        assert [stop.segment for stop in twin.stops] == [stop.segment for stop in signal.stops]
    names = [[[read.signals[light].id for light in stage] for stage in stages] for stages in read.cycles]
    expected = [[[written.signals[light].id for light in stage] for stage in stages] for stages in written.cycles]
    assert sorted(names) == sorted(expected)


def test_maps_without_signals_have_no_lights():
    assert lights_of(Simulation("streets_0", Streams(), 2001)) == []


def test_a_vehicle_is_at_the_light_of_its_lane_only(sim):
    light = lights_of(sim)[0]
    car = car_before(sim, light, 5.0)
    assert sim.roadside.light_at(car) is light
    x, y, yaw = car.pose
    for ahead, is_at_light in ((0.0, True), (3.0, True), (6.0, False), (-8.0, False)):
        car.set_transform(Transform.from_pose(Pose(x + ahead * np.cos(yaw), y + ahead * np.sin(yaw), yaw)))
        assert (sim.roadside.light_at(car) is light) == is_at_light, ahead
    car.set_transform(Transform.from_pose(Pose(x, y, yaw + np.pi)))
    assert sim.roadside.light_at(car) is None, "it drives away"
    car.set_transform(Transform.from_pose(Pose(x - 3.5 * np.sin(yaw), y + 3.5 * np.cos(yaw), yaw)))
    assert sim.roadside.light_at(car) is None, "it is on the lane of the oncoming traffic"


def test_the_light_of_a_vehicle_is_the_nearest_of_all_stop_lines(sim):
    lines = list(_stop_lines(sim.map.graph))
    # The longest vehicle reaches its light first.
    bus = sim.spawn([0, "vehicle.mitsubishi.fusorosa", []], sim.map.spawn_points[0])
    rng = np.random.default_rng(0)
    n_at_light = 0
    for line in lines * 20:
        ahead_m, aside_m = rng.uniform(-4.0, 18.0), rng.normal(0.0, 2.0)
        x = line.x_m - ahead_m * line.cos - aside_m * line.sin
        y = line.y_m - ahead_m * line.sin + aside_m * line.cos
        yaw = math.atan2(line.sin, line.cos) + rng.normal(0.0, 0.3)
        bus.set_transform(Transform.from_pose(Pose(x, y, yaw)))
        expected, nearest_m = None, bus.extent_m[0] + 8.0
        for other in lines:
            dx, dy = other.x_m - x, other.y_m - y
            ahead_m = dx * other.cos + dy * other.sin
            is_in_lane = abs(dy * other.cos - dx * other.sin) < other.half_width_m
            if 0.0 < ahead_m < nearest_m and is_in_lane and math.cos(yaw) * other.cos + math.sin(yaw) * other.sin > 0.5:
                expected, nearest_m = sim.roadside.actors[other.light], ahead_m
        assert sim.roadside.light_at(bus) is expected
        n_at_light += expected is not None
    assert 0.1 < n_at_light / (20 * len(lines)) < 0.9


def test_bounding_boxes_of_a_semantic_tag_are_in_world_coordinates(sim):
    car = sim.spawn([0, "vehicle.tesla.model3", []], Transform(20.0, 30.0, 0.5, 0.0, 90.0))
    sim.spawn([0, "vehicle.carlamotors.firetruck", []], sim.map.spawn_points[9])
    walker = sim.spawn([0, "walker.pedestrian.0001", []], Transform(5.0, 6.0, 1.0))
    sim.spawn([0, "sensor.other.gnss", []], Transform(), car.id)
    boxes_of = ActorCalls(sim).on_get_all_level_BBs

    [[centre, half_sizes, rotation, number]] = boxes_of(14)  # cars
    assert centre == pytest.approx([20.0, 30.0, car.extent_m[2]])
    assert half_sizes == pytest.approx(car.extent_m)
    assert (rotation[1], number) == (pytest.approx(90.0), car.id)
    [[centre, half_sizes, _, number]] = boxes_of(12)  # pedestrians
    assert centre == pytest.approx([5.0, 6.0, 0.93])
    assert (half_sizes[2], number) == (pytest.approx(0.93), walker.id)
    lights = {box[3]: box for box in boxes_of(7)}
    assert lights.keys() == {light.id for light in lights_of(sim)}
    for light in lights_of(sim):
        (x, y, z), half_sizes, _, _ = lights[light.id]
        assert (x, y) == pytest.approx(light.transform[:2])
        assert 2.0 < z - half_sizes[2] < z + half_sizes[2] < 4.0
    assert len(boxes_of(255)) == 3 + len(sim.roadside.actors), "any tag; sensors have none"
    assert boxes_of(3) == [], "no buildings"


def test_traffic_light_calls_refuse_other_actors_and_invalid_values(sim):
    calls = LightCalls(lambda: sim.roadside)
    light = lights_of(sim)[0]
    calls.on_set_traffic_light_state(light.id, 1)
    assert light.colour == "yellow"
    with pytest.raises(CallError, match="not a traffic light"):
        calls.on_set_traffic_light_state(sim.spectator.id, 1)
    with pytest.raises(CallError, match="expected a traffic light state"):
        calls.on_set_traffic_light_state(light.id, 9)
    with pytest.raises(CallError):
        calls.on_set_traffic_light_green_time(light.id, float("nan"))
    assert not sim.destroy(light.id)


def test_traffic_lights_change_over_time_and_are_reset_by_loading_a_map(sim):
    before = [light.colour for light in lights_of(sim)]
    for _ in range(210):
        sim.tick()
    assert [light.colour for light in lights_of(sim)] != before
    n_lights = len(lights_of(sim))
    sim.load("train_0", reset_settings=False)
    assert lights_of(sim) == []
    sim.load("streets_0", reset_settings=False)
    assert len(lights_of(sim)) == n_lights
    assert [light.colour for light in lights_of(sim)] == before


def test_the_servers_cars_stop_at_red_lights():
    sim = Simulation("streets_0", Streams(), 2001, traffic=ServerTraffic(12, 3), maps=MapLibrary(lights_seed=0))
    lights = lights_of(sim)
    n_waiting, n_passed = 0, 0
    before = {}
    for _ in range(1500):
        sim.tick()
        now = {}
        for vehicle in sim.vehicles:
            light = sim.roadside.light_at(vehicle)
            if light is not None:
                now[vehicle.id] = light
                n_waiting += light.colour == "red" and math.hypot(*vehicle.velocity[:2]) < 0.1
        for vehicle_id, light in before.items():
            # A vehicle is at its light until its centre has passed the line.
            if now.get(vehicle_id) is not light and light.colour == "red":
                n_passed += 1
        before = now
    assert len(lights) > 10
    assert n_waiting > 100
    assert n_passed == 0


@pytest.mark.parametrize("kind", ["rgb", "semantic_segmentation", "depth"])
@pytest.mark.parametrize("mount", [(2.0, 0.0, 1.5), (1.0, 0.2, 1.8)])
def test_cameras_draw_lights(sim, kind, mount):
    light = lights_of(sim)[0]
    car = car_before(sim, light, 4.0)
    size = [["image_size_x", 1, "200"], ["image_size_y", 1, "200"]]
    sensor = sim.spawn([0, f"sensor.camera.{kind}", size], Transform(*mount), car.id)

    def image(roadside):
        body = cameras.image_message(sensor, sim.map.scene, None, [car], 1, roadside)
        return np.frombuffer(body[12:], np.uint8).reshape(200, 200, 4)

    calls = LightCalls(lambda: sim.roadside)
    calls.on_set_traffic_light_state(light.id, COLOURS.index("red"))
    red, without = image(sim.roadside), image(None)
    assert (red != without).any()
    calls.on_set_traffic_light_state(light.id, COLOURS.index("green"))
    green = image(sim.roadside)
    if kind == "rgb":
        changed = (red.astype(int) - green)[np.abs(red.astype(int) - green).max(axis=2) > 60]
        assert len(changed) > 4
        assert changed[:, 2].max() > 100, "the red lamp shines in one image"
        assert changed[:, 1].min() < -100, "and the green lamp in the other"
    else:
        np.testing.assert_array_equal(red, green)
    if kind == "semantic_segmentation":
        assert {6, 7} <= set(np.unique(red[..., 2]).tolist())


@needs_towns
@pytest.mark.carla
@needs_carla
def test_town02_has_traffic_lights_signs_and_a_speed_limit_of_25_mph():
    sim = Simulation("Town02", Streams(), 2001, maps=MapLibrary(TOWNS))
    kinds = {actor.type_id for actor in sim.actors.values() if isinstance(actor, RoadSign)}
    assert {"traffic.traffic_light", "traffic.speed_limit.30"} <= kinds
    graph = sim.map.graph
    segment = next(each for each in graph.segments if each.junction == NO_JUNCTION and each.length_m > 30.0)
    x, y = segment.points_m[len(segment.points_m) // 2].tolist()
    car = sim.spawn([0, "vehicle.tesla.model3", []], Transform.from_pose(Pose(x, y, segment.headings_rad[0]), 0.5))
    assert sim.roadside.speed_limit_kmh(car, 50.0) == pytest.approx(25 * 1.609344, abs=0.01)
