"""The blueprint library's vehicles, walkers and props: sizes, and how each kind of vehicle drives."""

import math

import pytest

from sb3_visual_td3.envs.backend import Control
from sb3_visual_td3.envs.carla_emulator.catalogue import BLUEPRINTS, CARS, PROPS
from sb3_visual_td3.envs.carla_emulator.protocol import Transform, VehicleControl
from sb3_visual_td3.envs.carla_emulator.simulation import Simulation
from sb3_visual_td3.envs.carla_emulator.vehicle_models import MODELS, handling_of, model_of
from sb3_visual_td3.envs.lite.vehicle import Motion, VehicleSettings, advance
from tests.envs.carla_emulator.test_served_maps import Streams

KINDS = {"car", "truck", "van", "bus", "motorcycle", "bicycle"}


@pytest.fixture
def sim():
    return Simulation("train_0", Streams(), 2001)


def spawn(sim, type_id, x=0.0, y=0.0):
    return sim.spawn([0, type_id, []], Transform(x, y, 0.5))


def attributes_of(type_id):
    return {attribute.id: attribute.value for attribute in BLUEPRINTS[type_id].attributes}


def test_library_has_the_vehicles_walkers_and_props_of_0_9_16():
    assert len(MODELS) == 41
    assert {model.base_type for model in MODELS} == KINDS
    assert len([name for name in BLUEPRINTS if name.startswith("walker.pedestrian.")]) == 51
    assert len(PROPS) == len(set(PROPS)) > 90
    assert {"static.prop.streetbarrier", "static.prop.trafficcone01"} <= set(BLUEPRINTS)
    assert "carlamotors.firetruck" not in CARS
    assert attributes_of("vehicle.carlamotors.european_hgv")["number_of_wheels"] == "6"
    assert attributes_of("vehicle.bh.crossbike")["base_type"] == "bicycle"
    assert attributes_of("vehicle.ford.ambulance")["special_type"] == "emergency"
    assert attributes_of("walker.pedestrian.0009")["age"] == "child"


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_vehicle_carries_the_box_of_its_blueprint(sim, model):
    vehicle = spawn(sim, f"vehicle.{model.name}")
    centre, extent, _, _ = vehicle.bounding_box()
    assert extent == [0.5 * model.length_m, 0.5 * model.width_m, 0.5 * model.height_m]
    assert centre == [0.0, 0.0, 0.5 * model.height_m]
    assert vehicle.box[3:] == (model.length_m, model.width_m)
    assert vehicle.semantic_tags[0] in {14, 15, 16, 18, 19}


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_every_vehicle_gets_around_corners_and_reaches_its_top_speed(model):
    settings, mass_kg = handling_of(model)
    assert settings.wheelbase_m < model.length_m
    assert settings.wheelbase_m / math.tan(settings.max_wheel_rad) < 8.0
    assert 20.0 < mass_kg < 20_000.0
    motion = Motion(0.0, 0.0, 0.0, 0.0, 0.0)
    for _ in range(4_000):
        motion = advance(motion, Control(0.0, 1.0, 0.0), 0.05, settings)
    assert motion.speed_mps == pytest.approx(settings.max_throttle_mps2 / settings.drag_per_s)
    assert 5.0 < motion.speed_mps < 12.5


def test_cars_turn_as_tightly_as_carlas_agents_expect():
    # The right turns of Town02 have a radius of 6.5 m. A BasicAgent drives them at 30 km/h, with at most 0.8 steering.
    settings = handling_of(model_of("vehicle.lincoln.mkz_2020")).settings
    speed_mps = 30.0 / 3.6
    motion = Motion(0.0, 0.0, 0.0, speed_mps, -0.8 * settings.max_wheel_rad)
    turned_rad, metres = 0.0, 0.0
    for _ in range(40):
        before = motion._replace(speed_mps=speed_mps)
        motion = advance(before, Control(0.8, 0.7, 0.0), 0.05, settings)
        turned_rad += before.yaw_rad - motion.yaw_rad
        metres += math.hypot(motion.x_m - before.x_m, motion.y_m - before.y_m)
    assert metres / turned_rad < 6.5


def test_heavier_vehicles_accelerate_more_slowly(sim):
    tt, truck, bus = spawn(sim, "vehicle.audi.tt"), spawn(sim, "vehicle.carlamotors.firetruck", y=20.0), None
    bus = spawn(sim, "vehicle.mitsubishi.fusorosa", y=40.0)
    for vehicle in (tt, truck, bus):
        vehicle.control = VehicleControl(throttle=1.0)
    sim.step_s = 0.05
    for _ in range(40):
        sim.tick()
    assert tt.motion.speed_mps > 2.0 * truck.motion.speed_mps > 2.0 * bus.motion.speed_mps > 1.0
    assert bus.handling.mass_kg > truck.handling.mass_kg > 5_000.0 > tt.handling.mass_kg


def test_model3_has_the_same_handling_as_the_lite_driving_car():
    settings, mass_kg = handling_of(model_of("vehicle.tesla.model3"))
    lite = VehicleSettings()
    for name in (
        "wheelbase_m",
        "max_wheel_rad",
        "max_throttle_mps2",
        "max_brake_mps2",
        "drag_per_s",
        "max_lateral_mps2",
    ):
        assert getattr(settings, name) == getattr(lite, name)
    assert mass_kg == 1_500.0


def test_a_server_can_steer_model3_like_the_other_cars():
    angles_deg = []
    for has_carla_steering in (False, True):
        sim = Simulation("train_0", Streams(), 2001, has_carla_steering=has_carla_steering)
        settings = spawn(sim, "vehicle.tesla.model3").handling.settings
        angles_deg.append(math.degrees(settings.max_wheel_rad))
        assert settings.max_throttle_mps2 == VehicleSettings().max_throttle_mps2
    assert angles_deg == pytest.approx([20.0, 60.0])


def test_impulse_of_a_collision_grows_with_the_mass(sim):
    impulses = []
    for number, name in enumerate(("vehicle.micro.microlino", "vehicle.carlamotors.firetruck")):
        striker = spawn(sim, name, y=30.0 * number)
        struck = spawn(sim, "vehicle.tesla.model3", x=12.0, y=30.0 * number)
        striker.constant_mps = 5.0
        hits = []
        while not hits:
            striker.drive(0.05)
            hits = sim._collisions.resolve([striker, struck])
        impulses.append(abs(hits[0].impulse[0]))
        assert impulses[-1] == pytest.approx(5.0 * striker.handling.mass_kg)
    assert impulses[1] > 10.0 * impulses[0]


def test_props_stand_in_the_way_and_are_not_moved(sim):
    barrier = spawn(sim, "static.prop.streetbarrier", x=10.0)
    vehicle = spawn(sim, "vehicle.tesla.model3")
    vehicle.control = VehicleControl(throttle=1.0)
    before = barrier.world_transform
    for _ in range(200):
        sim.tick()
    assert vehicle.motion.x_m < 10.0 - 2.3
    assert vehicle.motion.x_m > 6.0
    assert barrier.world_transform == before
    carried = sim.spawn([0, "static.prop.shoppingbag", []], Transform(0.0, 0.0, 1.0), vehicle.id)
    assert carried.box is None
