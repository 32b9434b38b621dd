"""The emulated world without sockets: driving, collisions, walking, and which message each client receives."""

import math
import struct

import msgpack
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sb3_visual_td3.envs.backend import Control
from sb3_visual_td3.envs.carla.ego import _SPAWN_ABOVE_M
from sb3_visual_td3.envs.carla_emulator.actors import Prop, Vehicle, Walker, _touches
from sb3_visual_td3.envs.carla_emulator.calls import ActorCalls, Calls
from sb3_visual_td3.envs.carla_emulator.faults import parse_fault
from sb3_visual_td3.envs.carla_emulator.protocol import AckermannControl, CallError, Transform, VehicleControl
from sb3_visual_td3.envs.carla_emulator.sensing import geolocation
from sb3_visual_td3.envs.carla_emulator.simulation import Simulation
from sb3_visual_td3.envs.lite.vehicle import Motion, VehicleSettings, advance
from sb3_visual_td3.envs.road.collision import boxes_overlap


class Streams:
    """A stream server that records what is sent; every stream has a subscriber."""

    def __init__(self):
        self.sent = []

    def has_subscriber(self, stream_id):
        return True

    def keep(self, stream_id, payload):
        pass

    def send(self, stream_id, payload):
        self.sent.append((stream_id, payload))

    def end(self, stream_id):
        self.sent.append((stream_id, None))


@pytest.fixture
def sim():
    return Simulation("train_0", Streams(), 2001)


def car(sim, x=0.0, y=0.0, yaw=0.0, z=0.5):
    return sim.spawn([0, "vehicle.tesla.model3", []], Transform(x, y, z, 0.0, yaw))


controls = st.builds(
    VehicleControl,
    st.floats(0.0, 1.0),
    st.floats(-1.0, 1.0),
    st.sampled_from([0.0, 0.0, 0.3, 1.0]),
    st.booleans(),
    reverse=st.just(False),
    gear=st.just(1),
)


@hypothesis_settings(max_examples=25)
@given(st.lists(controls, min_size=1, max_size=40), st.floats(-180.0, 180.0), st.floats(0.0, 12.0))
def test_vehicle_moves_exactly_as_in_lite_driving(requested, yaw, speed):
    sim = Simulation("train_0", Streams(), 2001)
    vehicle = car(sim, 10.0, -20.0, yaw)
    heading = -math.radians(yaw)
    vehicle.set_velocity((speed * math.cos(heading), -speed * math.sin(heading), 0.0))
    motion = Motion(10.0, 20.0, heading, speed, 0.0)
    for control in requested:
        vehicle.control = control
        sim.tick()
        brake = max(control.brake, float(control.hand_brake))
        motion = advance(motion, Control(control.steer, control.throttle, brake), 0.05, VehicleSettings())
        assert vehicle.motion[:2] == pytest.approx(motion[:2], abs=1e-9)
        assert vehicle.motion.speed_mps == pytest.approx(motion.speed_mps, abs=1e-9)
        assert math.remainder(vehicle.motion.yaw_rad - motion.yaw_rad, 2.0 * math.pi) == pytest.approx(0.0, abs=1e-9)


def test_reversing_mirrors_driving_ahead(sim):
    vehicle, twin = car(sim), car(sim, 100.0)
    vehicle.control = VehicleControl(0.6, 0.5, reverse=True)
    twin.control = VehicleControl(0.6, -0.5)  # steering right in reverse moves the tail, which leads, to the right
    for _ in range(30):
        sim.tick()
    assert -vehicle.motion.x_m == pytest.approx(twin.motion.x_m - 100.0, abs=1e-9)
    assert abs(vehicle.motion.y_m) == pytest.approx(abs(twin.motion.y_m), abs=1e-9)
    assert vehicle.velocity[0] == pytest.approx(-twin.velocity[0], abs=1e-9)
    assert vehicle.yaw_rate_rad_s == pytest.approx(twin.yaw_rate_rad_s, abs=1e-9)


@pytest.mark.parametrize("is_reverse", [False, True])
def test_manual_gear_decides_the_direction_alone(is_reverse):
    automatic = {1: VehicleControl(0.5), 0: VehicleControl(), -1: VehicleControl(0.5, reverse=True)}
    for gear, equal in automatic.items():
        moved = []
        for control in (VehicleControl(0.5, reverse=is_reverse, manual_gear_shift=True, gear=gear), equal):
            sim = Simulation("train_0", Streams(), 2001)
            vehicle = car(sim)
            vehicle.control = control
            for _ in range(20):
                sim.tick()
            moved.append(vehicle.motion.x_m)
        assert moved[0] == moved[1]
        assert np.sign(round(moved[0], 6)) == gear


def test_constant_and_target_velocity_backwards(sim):
    vehicle, calls = car(sim), ActorCalls(sim)
    calls.on_enable_actor_constant_velocity(vehicle.id, [-5.0, 0.0, 0.0])
    for _ in range(20):
        sim.tick()
    assert vehicle.motion.x_m == pytest.approx(-5.0, abs=0.1)
    assert vehicle.velocity == pytest.approx((-5.0, 0.0, 0.0))
    calls.on_disable_actor_constant_velocity(vehicle.id)
    vehicle.set_transform(Transform(0.0, 0.0, 0.0, 0.0, 90.0))
    calls.on_set_actor_target_velocity(vehicle.id, [0.0, -5.0, 0.0])
    assert vehicle.velocity == pytest.approx((0.0, -5.0, 0.0))
    sim.tick()
    assert -5.0 < vehicle.velocity[1] < -4.8, "only drag slows it down"


def test_reverse_gear_brakes_a_moving_car_first(sim):
    vehicle = car(sim)
    vehicle.set_velocity((6.0, 0.0, 0.0))
    vehicle.control = VehicleControl(1.0, reverse=True)
    speeds = []
    for _ in range(60):
        sim.tick()
        speeds.append(vehicle.velocity[0])
    changes = [later - sooner for sooner, later in zip([6.0, *speeds], speeds, strict=False)]
    assert all(-0.5 < change <= 0.0 for change in changes)
    assert speeds[-1] < -2.0
    vehicle.control = VehicleControl(1.0)
    sim.tick()
    assert speeds[-1] < vehicle.velocity[0] < 0.0, "it brakes before it changes to forward, too"


def test_collision_stops_the_striker_and_sends_opposite_impulses_to_both(sim):
    striker, struck = car(sim), car(sim, 10.0)
    for vehicle in (striker, struck):
        sim.spawn([0, "sensor.other.collision", []], Transform(), vehicle.id)
    striker.set_velocity((8.0, 0.0, 0.0))
    sim._streams.sent.clear()
    events = []
    for _ in range(40):
        sim.tick()
        events += [msgpack.unpackb(payload[48:]) for stream, payload in sim._streams.sent if payload[:8] == bytes(8)]
        sim._streams.sent.clear()
    assert [(actor[0], other[0]) for actor, other, _ in events] == [
        (striker.id, struck.id),
        (struck.id, striker.id),
    ]
    assert events[0][2] == [-part for part in events[1][2]]
    assert events[0][2][0] == pytest.approx(-1500.0 * 7.0, rel=0.1)  # 8 m/s less what drag has taken
    assert striker.motion.speed_mps == 0.0
    assert struck.motion.x_m == pytest.approx(10.0)


def test_pushing_car_gets_an_event_each_tick_and_can_back_off(sim):
    pushing, _ = car(sim), car(sim, 6.0)
    sensor = sim.spawn([0, "sensor.other.collision", []], Transform(), pushing.id)
    pushing.control = VehicleControl(throttle=1.0)
    for _ in range(60):
        sim.tick()
    first_x = pushing.motion.x_m
    sim._streams.sent.clear()
    for _ in range(20):
        sim.tick()
    assert pushing.motion.x_m == first_x
    assert sum(stream == sensor.stream_id for stream, _ in sim._streams.sent) == 20
    assert 1.15 < first_x < 1.45  # 6 m less a car's length is 1.2 m
    pushing.control = VehicleControl(throttle=1.0, reverse=True)
    for _ in range(40):
        sim.tick()
    assert pushing.motion.x_m < first_x - 2.0


def test_car_hit_from_behind_keeps_driving(sim):
    fast, slow = car(sim), car(sim, 6.0)
    fast.set_velocity((10.0, 0.0, 0.0))
    slow.set_velocity((4.0, 0.0, 0.0))
    for _ in range(20):
        sim.tick()
    assert fast.motion.speed_mps == 0.0
    assert slow.motion.speed_mps > 2.5


def test_walker_walks_and_can_be_hit(sim):
    walker = sim.spawn([0, "walker.pedestrian.0001", []], Transform(8.0, -1.4, 1.0))
    walker.walk((0.0, 2.0, 0.0), 1.4)
    vehicle = car(sim)
    sensor = sim.spawn([0, "sensor.other.collision", []], Transform(), vehicle.id)
    vehicle.set_velocity((7.0, 0.0, 0.0))
    for _ in range(20):
        sim.tick()
    assert walker.transform.y == pytest.approx(-1.4 + 20 * 0.05 * 1.4)
    assert walker.transform.yaw == pytest.approx(90.0)
    events = [msgpack.unpackb(payload[48:]) for stream, payload in sim._streams.sent if stream == sensor.stream_id]
    assert events[0][1][0] == walker.id


def test_vehicle_parked_in_the_air_touches_nothing_and_falls_with_physics(sim):
    below, above = car(sim), car(sim, z=400.0)
    above.set_physics(False)
    below.set_velocity((5.0, 0.0, 0.0))
    sim.tick()
    assert below.motion.speed_mps > 4.0
    assert above.world_transform.z == 400.0
    above.set_transform(Transform(50.0, 0.0, 0.0))
    above.set_physics(True)
    sim.tick()
    assert above.world_transform.z == 0.0


def test_vehicle_without_physics_reports_the_pose_that_was_set_until_it_has_physics_again(sim):
    vehicle = car(sim)

    def reported():
        sim.tick()
        last = [payload for number, payload in sim._streams.sent if number == 1][-1]
        return struct.unpack_from("<6f", last[-119:], 5)

    level = pytest.approx((0.0, 0.0, 0.002, 0.05, 0.0, 0.0))
    assert reported() == level
    vehicle.set_physics(False)
    assert reported() == level
    for pose in ((4.0, 1.0, 1.5, 20.0, 30.0, -3.0), (4.0, 1.0, 4.0, 20.0, 30.0, -3.0), (0.0, 0.0, 0.4, 0.0, 0.0, 0.0)):
        vehicle.set_transform(Transform(*pose))
        for _ in range(3):
            assert reported() == pytest.approx(pose)
    assert vehicle.is_on_ground
    vehicle.set_transform(Transform(4.0, 1.0, 1.5, 20.0, 30.0, -3.0))
    ActorCalls(sim).on_set_actor_location(vehicle.id, [5.0, 2.0, 0.5])
    assert reported() == pytest.approx((5.0, 2.0, 0.5, 20.0, 30.0, -3.0))
    vehicle.set_transform(Transform())
    vehicle.set_physics(True)
    for _ in range(3):
        assert reported() == level


def test_teleport_without_physics_gives_no_velocity(sim):
    vehicle = car(sim)
    vehicle.set_physics(False)
    vehicle.set_transform(Transform(0.5, 0.0, 0.0))
    sim.tick()
    assert vehicle.velocity == pytest.approx((10.0, 0.0, 0.0))
    vehicle.set_transform(Transform(300.0, 0.0, 0.0))
    sim.tick()
    assert vehicle.velocity == (0.0, 0.0, 0.0)


def test_actor_stays_in_place_when_its_parent_is_destroyed(sim):
    vehicle = car(sim, 3.0, 4.0, 90.0)
    child = sim.spawn([0, "sensor.other.gnss", []], Transform(1.0, 0.0, 2.0), vehicle.id)
    at = child.world_transform
    assert at[:3] == pytest.approx((3.0, 5.0, 2.0))
    assert sim.destroy(vehicle.id)
    assert child.world_transform == pytest.approx(at)
    assert sim.actor_message(child)[1] == 0


def test_attached_actor_is_moved_relative_to_its_parent_and_stays_attached(sim):
    vehicle, calls = car(sim, 3.0, 4.0, 90.0), ActorCalls(sim)
    child = sim.spawn([0, "sensor.other.gnss", []], Transform(1.0, 0.0, 2.0), vehicle.id)
    calls.on_set_actor_transform(child.id, [[-5.0, 0.0, 2.8], [-10.0, 20.0, 0.0]])
    assert child.world_transform == pytest.approx((3.0, -1.0, 2.8, -10.0, 110.0, 0.0))
    calls.on_set_actor_location(child.id, [0.0, 1.0, 2.0])
    assert child.world_transform == pytest.approx((2.0, 4.0, 2.0, -10.0, 110.0, 0.0))
    vehicle.set_transform(Transform(13.0, 4.0, 0.0, 0.0, 90.0))
    assert child.world_transform == pytest.approx((12.0, 4.0, 2.0, -10.0, 110.0, 0.0))
    assert sim.actor_message(child)[1] == vehicle.id


def measured(sim, type_id, attributes=()):
    """Return the body that a sensor on a new vehicle at the origin measures in one tick; None if it sends nothing."""
    vehicle = car(sim)
    sensor = sim.spawn([0, type_id, list(attributes)], Transform(2.5, 0.0, 0.5), vehicle.id)
    sim._streams.sent.clear()
    sim.tick()
    sim.destroy(vehicle.id)
    return next((payload[48:] for stream, payload in sim._streams.sent if stream == sensor.stream_id and payload), None)


def test_rays_do_not_hit_a_vehicle_in_the_air(sim):
    other = car(sim, 12.0)
    other.set_physics(False)
    distance = ["distance", 3, "20"]
    ray_range = ["range", 3, "50"]
    for z, is_seen in ((0.0, True), (60.0, False)):
        other.set_transform(Transform(12.0, 0.0, z))
        assert (measured(sim, "sensor.other.obstacle", [distance]) is not None) == is_seen
        points = measured(sim, "sensor.lidar.ray_cast_semantic", [ray_range])[8 + 4 * 32 :]
        ids = np.frombuffer(points, np.uint32).reshape(-1, 6)[:, 4]
        assert (other.id in ids) == is_seen


@pytest.mark.parametrize("type_id", ["static.prop.streetbarrier", "vehicle.audi.tt", "walker.pedestrian.0001"])
def test_obstacle_sensor_for_dynamic_objects_does_not_report_props(sim, type_id):
    sim.spawn([0, type_id, []], Transform(10.0))
    distance = ["distance", 3, "20"]
    assert measured(sim, "sensor.other.obstacle", [distance]) is not None
    only_dynamics = ["only_dynamics", 1, "true"]
    is_prop = type_id.startswith("static.")
    assert (measured(sim, "sensor.other.obstacle", [distance, only_dynamics]) is None) == is_prop


SOLID = ("vehicle.audi.tt", "walker.pedestrian.0001", "static.prop.container")


@pytest.mark.parametrize("there", SOLID)
@pytest.mark.parametrize("new", SOLID)
def test_solid_actor_cannot_be_spawned_inside_another_one(sim, there, new):
    sim.spawn([0, there, []], Transform(5.0, 5.0, 0.5))
    with pytest.raises(CallError, match="Spawn failed because of collision at spawn position"):
        sim.spawn([0, new, []], Transform(5.1, 5.1, 0.5))
    assert len(sim._solid) == 1
    sim.spawn([0, new, []], Transform(12.0, 5.0, 0.5))
    sim.spawn([0, "static.prop.dirtdebris01", []], Transform(), sim.actors[next(iter(sim._solid))].id)


@pytest.mark.parametrize(
    ("there", "new", "z", "can_spawn"),
    [
        ("vehicle.audi.tt", "vehicle.audi.tt", 12.0, False),  # both stand on a hill of the original map
        ("vehicle.audi.tt", "vehicle.audi.tt", 30.0, True),
        ("vehicle.audi.tt", "walker.pedestrian.0001", 10.0, True),
        ("vehicle.audi.tt", "static.prop.trafficcone01", 3.0, True),
        ("walker.pedestrian.0001", "vehicle.audi.tt", 10.0, True),
        ("static.prop.trafficcone01", "static.prop.trafficcone01", 0.73, False),
        ("static.prop.trafficcone01", "static.prop.trafficcone01", 0.75, True),
        ("static.prop.trafficcone01", "walker.pedestrian.0001", 1.6, False),  # a walker's origin is its middle
        ("static.prop.trafficcone01", "walker.pedestrian.0001", 1.7, True),
    ],
)
def test_solid_actor_can_be_spawned_above_another_one(sim, there, new, z, can_spawn):
    sim.spawn([0, there, []], Transform(5.0, 5.0, 0.0))
    if can_spawn:
        sim.spawn([0, new, []], Transform(5.0, 5.0, z))
        return
    with pytest.raises(CallError, match="Spawn failed because of collision at spawn position"):
        sim.spawn([0, new, []], Transform(5.0, 5.0, z))


def test_a_vehicle_can_be_spawned_under_a_prop_in_the_air(sim):
    sim.spawn([0, "static.prop.container", []], Transform(5.0, 5.0, 30.0))
    sim.spawn([0, "vehicle.audi.tt", []], Transform(5.0, 5.0, 0.5))


def test_the_ego_of_carla_driving_can_be_spawned_on_a_map_full_of_vehicles(sim):
    points = sim.map.spawn_points
    for point in points:
        sim.spawn([0, "vehicle.audi.tt", []], point)
    for point in points:
        with pytest.raises(CallError, match="Spawn failed because of collision at spawn position"):
            sim.spawn([0, "vehicle.tesla.model3", []], point)
    ego = sim.spawn([0, "vehicle.tesla.model3", []], points[0]._replace(z=_SPAWN_ABOVE_M))
    assert len(sim.vehicles) == len(points) + 1
    assert ego in sim.vehicles


def test_spawn_of_a_batch_succeeds_even_if_the_command_that_follows_it_fails(sim):
    calls = Calls(sim, sim._streams, 2001)
    commands = []
    for x, following in ((0.0, [16, [0, True, 8000]]), (20.0, [16, [0, True, 8000]]), (40.0, [6, [0, "nowhere"]])):
        place = [[x, 0.0, 0.5], [0.0, 0.0, 0.0]]
        commands.append([[0, [[0, "vehicle.audi.tt", []], place, [False], 0, "", [[following]]]]])
    result, _ = calls.answer("apply_batch", [commands, False])
    assert result == [[[1, vehicle.id]] for vehicle in sim.vehicles]
    assert len(sim.vehicles) == 3
    assert ["Traffic Manager" in line for line in sim.complaints] == [True, False], "one line for each kind of command"
    assert ["has no effect" in line for line in sim.complaints] == [False, True]


def test_vehicle_cannot_be_attached(sim):
    vehicle = car(sim)
    with pytest.raises(CallError, match="spawn it without attach_to"):
        sim.spawn([0, "vehicle.audi.tt", []], Transform(-8.0), vehicle.id)
    assert sim.vehicles == [vehicle]


def test_walker_is_detached_when_the_navigation_of_the_client_places_it(sim):
    vehicle = car(sim, 3.0, 4.0, 90.0)
    walker = sim.spawn([0, "walker.pedestrian.0001", []], Transform(-5.0, 0.0), vehicle.id)
    ActorCalls(sim).on_set_walker_state(walker.id, [[7.0, 8.0, 0.0], [0.0, 0.0, 0.0]], 1.0)
    assert walker.world_transform[:2] == (7.0, 8.0)
    assert sim.actor_message(walker)[1] == 0


def test_spectator_cannot_be_destroyed(sim):
    assert not sim.destroy(sim.spectator.id)
    assert sim.actors


def test_controls_are_clipped_to_their_range(sim):
    vehicle = car(sim)
    calls = ActorCalls(sim)
    calls.on_apply_control_to_vehicle(vehicle.id, [7.0, -3.0, float("nan"), False, False, False, 0])
    assert vehicle.control[:3] == (1.0, -1.0, 0.0)
    with pytest.raises(CallError, match="is not a vehicle"):
        calls.on_apply_control_to_vehicle(sim.spectator.id, [0.0] * 3 + [False] * 3 + [0])


def test_ackermann_control_reaches_a_speed_and_keeps_it(sim):
    vehicle, calls = car(sim), ActorCalls(sim)
    sim.step_s = 0.05
    calls.on_apply_ackermann_control_to_vehicle(vehicle.id, [0.0, 0.0, 5.0, 2.0, 0.0])
    speeds = []
    for _ in range(100):
        sim.tick()
        speeds.append(vehicle.motion.speed_mps)
    assert np.diff(speeds[:40]) == pytest.approx(0.1), "it accelerates at 2 m/s^2"
    assert speeds[50:] == pytest.approx([5.0] * 50)
    assert 0.0 < vehicle.control.throttle < 1.0

    calls.on_apply_ackermann_control_to_vehicle(vehicle.id, [0.1, 0.0, -2.0, 0.0, 0.0])
    for _ in range(60):
        sim.tick()
    assert vehicle.control.reverse
    assert vehicle.motion.speed_mps == pytest.approx(2.0)
    assert vehicle.motion.wheel_rad == pytest.approx(-0.1, abs=1e-3), "to the right"

    calls.on_apply_control_to_vehicle(vehicle.id, [0.0, 0.0, 1.0, False, False, False, 0])
    for _ in range(20):
        sim.tick()
    assert vehicle.motion.speed_mps == 0.0
    with pytest.raises(CallError):
        calls.on_apply_ackermann_control_to_vehicle(vehicle.id, [0.0, 0.0, math.nan, 0.0, 0.0])


def test_physics_control_has_the_positions_of_the_wheels(sim):
    vehicle = car(sim, 5.0, 6.0, 90.0)
    wheels = ActorCalls(sim).on_get_physics_control(vehicle.id)[15]
    assert [wheel[2] for wheel in wheels] == pytest.approx([20.0, 20.0, 0.0, 0.0])
    # The wheelbase is 2.9 m, the width 2.164 m.
    # Facing +y: the front wheels have the larger y, the left one the larger x.
    front_left, front_right, rear_left, _ = (wheel[9] for wheel in wheels)
    assert front_left[:2] == pytest.approx([608.2, 745.0])
    assert front_right[:2] == pytest.approx([391.8, 745.0])
    assert rear_left[:2] == pytest.approx([608.2, 455.0])
    vehicle.control = VehicleControl(steer=1.0)
    for _ in range(40):
        sim.tick()
    assert ActorCalls(sim).on_get_wheel_steer_angle(vehicle.id, 0) == pytest.approx(20.0, abs=0.1)


def test_geolocation_equals_a_hand_computed_value():
    """100 m near the origin are an angle of 100 m / (0.9996 * Earth's radius) radians.

    The scale of the projection is 0.9996. The latitude grows with y, as in the client of CARLA 0.9.16.
    """
    degrees = math.degrees(100.0 / (0.9996 * 6_378_137.0))
    assert geolocation(Transform(100.0, 0.0, 3.0)) == pytest.approx((0.0, degrees, 3.0))
    assert geolocation(Transform(0.0, 100.0)) == pytest.approx((degrees, 0.0, 0.0))


def test_empty_world_sends_the_time_and_the_spectator(sim):
    sim.tick()
    stream, payload = sim._streams.sent[-1]
    assert stream == 1
    assert struct.unpack_from("<QQd", payload) == (17, 1, pytest.approx(0.05))
    assert len(payload) == 48 + 36 + 119  # the spectator


@pytest.mark.parametrize("plan", ["refuse-spawns@3", "refuse-spawns@every:3"])
def test_ticks_without_a_client_do_not_count_for_faults(plan):
    sim = Simulation("train_0", Streams(), 2001, [parse_fault(plan)])
    for n_clients, n_ticks, n_refused in ((0, 10, 0), (1, 2, 0), (0, 1, 1)):
        sim.n_clients = n_clients
        for _ in range(n_ticks):
            sim.tick()
        assert sim.active_faults.spawns_to_refuse == n_refused


def test_new_episode_begins_at_0_seconds_with_the_default_gravity(sim):
    for _ in range(3):
        sim.tick()
    sim.gravity_mps2 = 3.0
    sim.load("train_0", reset_settings=False)
    sim.tick()
    assert (sim.seconds, sim.frame) == (pytest.approx(0.05), 4)
    assert sim.gravity_mps2 == 9.81


def test_spawning_a_walker_advances_one_frame_only_in_asynchronous_mode(sim):
    calls = ActorCalls(sim)
    walker = [0, "walker.pedestrian.0001", []]
    calls.on_spawn_actor(walker, [[5.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    assert sim.frame == 1
    sim.is_synchronous = True
    calls.on_spawn_actor(walker, [[9.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    assert sim.frame == 1


class NeverAtRest(Vehicle):
    """A vehicle whose motion is computed in every tick."""

    def _rests(self, dt_s):
        return False


def nothing(vehicle):
    pass


def steer_to(command):
    return lambda vehicle: setattr(vehicle, "ackermann", command)


changes = st.one_of(
    st.builds(lambda control: lambda each: setattr(each, "control", control), controls),
    st.builds(lambda speed: lambda each: setattr(each, "constant_mps", speed), st.sampled_from([None, 0.0, 2.0, -2.0])),
    st.builds(lambda x: lambda each: each.set_transform(Transform(x, 3.0, 0.4, 0.0, 20.0)), st.floats(-5.0, 5.0)),
    st.builds(lambda x: lambda each: each.set_velocity((x, 0.0, 0.0)), st.sampled_from([0.0, 4.0, -4.0])),
    st.builds(lambda enabled: lambda each: each.set_physics(enabled), st.booleans()),
    st.builds(steer_to, st.sampled_from([None, AckermannControl(0.1, 0.0, 3.0)])),
    st.just(lambda each: each.stop()),
    st.just(lambda each: each.stop_at_previous_motion()),
    st.just(lambda each: setattr(each, "control", VehicleControl(brake=1.0))),
    st.builds(lambda: nothing),
)


@hypothesis_settings(max_examples=60, deadline=None)
@example([(nothing, 2, 0.05), (steer_to(AckermannControl(0.1, 0.0, 3.0)), 2, 0.05)])
@example([(nothing, 2, 0.05), (steer_to(AckermannControl(0.1)), 2, 0.05), (steer_to(None), 2, 0.1)])
@given(st.lists(st.tuples(changes, st.sampled_from([1, 2, 30]), st.sampled_from([0.05, 0.05, 0.1])), max_size=12))
def test_resting_vehicle_reacts_to_changes_like_one_computed_in_every_tick(steps):
    twins = [kind(1, [0, "vehicle.tesla.model3", []], Transform(0.0, 0.0, 0.5)) for kind in (Vehicle, NeverAtRest)]
    for change, n_ticks, dt_s in steps:
        for twin in twins:
            change(twin)
        for _ in range(n_ticks):
            for twin in twins:
                twin.drive(dt_s)
            one, two = ((t.motion, t.velocity, t.acceleration, t.yaw_rate_rad_s, t.world_transform) for t in twins)
            assert repr(one) == repr(two)


def test_vehicle_that_stands_keeps_its_motion_and_its_state(sim):
    parked = car(sim)
    for _ in range(3):
        sim.tick()
    motion, state = parked.motion, parked.last_state
    sim.tick()
    assert parked.motion is motion
    assert parked.last_state is state
    parked.control = VehicleControl(throttle=1.0)
    sim.tick()
    assert parked.motion.speed_mps > 0.0
    assert parked.last_state is None


def test_sent_state_of_a_resting_actor_follows_transform_control_and_speed_limit(sim, monkeypatch):
    walker = sim.spawn([0, "walker.pedestrian.0001", []], Transform(30.0, 30.0))
    parked = car(sim)

    def states():
        """Return the states of the walker and the car after a tick."""
        sim.tick()
        last = [payload for number, payload in sim._streams.sent if number == 1][-1]
        return last[-238:-119], last[-119:]

    for _ in range(3):
        at_rest = states()
    assert states() == at_rest
    walker.set_transform(Transform(31.0, 30.0, 0.93))
    assert [now == before for now, before in zip(states(), at_rest, strict=True)] == [False, True]
    parked.control = VehicleControl(brake=0.5)
    for _ in range(3):
        braking = states()[1]
    assert braking != at_rest[1]
    monkeypatch.setattr(sim.roadside, "speed_limit_kmh", lambda vehicle, default_kmh: 12.0)
    slower = states()[1]
    assert slower != braking
    parked.set_transform(Transform(0.0, 7.0))
    assert states()[1][:17] != slower[:17]


def naive_touches(solid):
    """Return which moving vehicle touches which actor, from all pairs."""
    touches = []
    for vehicle in solid:
        if not isinstance(vehicle, Vehicle) or not vehicle.is_on_ground or not any(vehicle.velocity):
            continue
        for other in solid:
            is_there = other.box is not None and (not isinstance(other, Vehicle) or other.is_on_ground)
            if other is not vehicle and is_there and boxes_overlap(vehicle.box, other.box):
                touches.append((vehicle.id, other.id))
    return touches


@pytest.mark.parametrize("seed", range(5))
def test_contacts_equal_those_found_by_testing_all_pairs(seed):
    rng = np.random.default_rng(seed)
    solid = []
    for number in range(60):
        place = Transform(
            *rng.uniform(-25.0, 25.0, 2), float(rng.choice([0.0, 0.0, 0.0, 3.0])), 0.0, rng.uniform(0, 360)
        )
        kind = rng.choice(
            ["vehicle.tesla.model3", "vehicle.carlamotors.firetruck", "walker.pedestrian.0001", "static.prop.container"]
        )
        actor = {"v": Vehicle, "w": Walker, "s": Prop}[kind[0]](number, [0, str(kind), []], place)
        if isinstance(actor, Vehicle):
            actor.has_physics = place.z == 0.0
            actor.velocity = (float(rng.choice([0.0, 2.0])), 0.0, 0.0)
        solid.append(actor)
    found = [(vehicle.id, other.id) for vehicle, other in _touches(solid)]
    assert found == naive_touches(solid)
    assert found
