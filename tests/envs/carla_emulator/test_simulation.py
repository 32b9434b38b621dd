"""The emulator's world without sockets: what drives, touches, walks and is told to whom."""

import math
import struct

import msgpack
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sb3_visual_td3.envs.backend import Control
from sb3_visual_td3.envs.carla_emulator.calls import ActorCalls
from sb3_visual_td3.envs.carla_emulator.protocol import CallError
from sb3_visual_td3.envs.carla_emulator.records import Transform, VehicleControl
from sb3_visual_td3.envs.carla_emulator.sensing import geolocation
from sb3_visual_td3.envs.carla_emulator.simulation import Simulation
from sb3_visual_td3.envs.lite.vehicle import Motion, VehicleSettings, advance


class Streams:
    """Writes down what is sent; everything is listened to."""

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
    gear=st.just(0),
)


@hypothesis_settings(max_examples=25, deadline=None)
@given(st.lists(controls, min_size=1, max_size=40), st.floats(-180.0, 180.0), st.floats(0.0, 12.0))
def test_a_vehicle_moves_exactly_as_the_embedded_worlds_does(asked, yaw, speed):
    sim = Simulation("train_0", Streams(), 2001)
    vehicle = car(sim, 10.0, -20.0, yaw)
    heading = -math.radians(yaw)
    vehicle.push((speed * math.cos(heading), -speed * math.sin(heading), 0.0))
    motion = Motion(10.0, 20.0, heading, speed, 0.0)
    for control in asked:
        vehicle.control = control
        sim.tick()
        brake = max(control.brake, float(control.hand_brake))
        motion = advance(motion, Control(control.steer, control.throttle, brake), 0.05, VehicleSettings())
        assert vehicle.motion[:2] == pytest.approx(motion[:2], abs=1e-9)
        assert vehicle.motion.speed_mps == pytest.approx(motion.speed_mps, abs=1e-9)
        assert math.remainder(vehicle.motion.yaw_rad - motion.yaw_rad, 2.0 * math.pi) == pytest.approx(0.0, abs=1e-9)


def test_reverse_is_ahead_seen_in_a_mirror(sim):
    vehicle, twin = car(sim), car(sim, 100.0)
    vehicle.control = VehicleControl(0.6, 0.5, reverse=True)
    twin.control = VehicleControl(0.6, -0.5)  # a wheel turned to the right swings the tail, which leads, to the right
    for _ in range(30):
        sim.tick()
    assert -vehicle.motion.x_m == pytest.approx(twin.motion.x_m - 100.0, abs=1e-9)
    assert abs(vehicle.motion.y_m) == pytest.approx(abs(twin.motion.y_m), abs=1e-9)
    assert vehicle.velocity[0] == pytest.approx(-twin.velocity[0], abs=1e-9)
    assert vehicle.turn_rad_s == pytest.approx(twin.turn_rad_s, abs=1e-9)


def test_the_reverse_gear_brakes_a_moving_car_before_it_goes_back(sim):
    vehicle = car(sim)
    vehicle.push((6.0, 0.0, 0.0))
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
    assert speeds[-1] < vehicle.velocity[0] < 0.0, "and the other way round"


def test_a_hit_stops_who_drives_into_another_and_tells_both_with_opposite_impulses(sim):
    striker, struck = car(sim), car(sim, 10.0)
    for vehicle in (striker, struck):
        sim.spawn([0, "sensor.other.collision", []], Transform(), vehicle.number)
    striker.push((8.0, 0.0, 0.0))
    sim._streams.sent.clear()
    told = []
    for _ in range(40):
        sim.tick()
        told += [msgpack.unpackb(payload[48:]) for stream, payload in sim._streams.sent if payload[:8] == bytes(8)]
        sim._streams.sent.clear()
    assert [(actor[0], other[0]) for actor, other, _ in told] == [
        (striker.number, struck.number),
        (struck.number, striker.number),
    ]
    assert told[0][2] == [-part for part in told[1][2]]
    assert told[0][2][0] == pytest.approx(-1500.0 * 7.0, rel=0.1)  # what the drag has left of 8 m/s
    assert striker.motion.speed_mps == 0.0
    assert struck.motion.x_m == pytest.approx(10.0)


def test_a_car_that_pushes_on_is_told_each_tick_and_comes_no_closer_and_backing_off_frees_it(sim):
    pushing, _ = car(sim), car(sim, 6.0)
    sensor = sim.spawn([0, "sensor.other.collision", []], Transform(), pushing.number)
    pushing.control = VehicleControl(throttle=1.0)
    for _ in range(60):
        sim.tick()
    first_x = pushing.motion.x_m
    sim._streams.sent.clear()
    for _ in range(20):
        sim.tick()
    assert pushing.motion.x_m == first_x
    assert sum(stream == sensor.stream_id for stream, _ in sim._streams.sent) == 20
    assert 1.55 < first_x < 1.85  # 6 m less a car's length is 1.6 m
    pushing.control = VehicleControl(throttle=1.0, reverse=True)
    for _ in range(40):
        sim.tick()
    assert pushing.motion.x_m < first_x - 2.0


def test_who_is_hit_from_behind_drives_on(sim):
    fast, slow = car(sim), car(sim, 6.0)
    fast.push((10.0, 0.0, 0.0))
    slow.push((4.0, 0.0, 0.0))
    for _ in range(20):
        sim.tick()
    assert fast.motion.speed_mps == 0.0
    assert slow.motion.speed_mps > 2.5


def test_a_walker_walks_and_is_hit(sim):
    walker = sim.spawn([0, "walker.pedestrian.0001", []], Transform(8.0, -1.4, 1.0))
    walker.walk((0.0, 2.0, 0.0), 1.4)
    vehicle = car(sim)
    sensor = sim.spawn([0, "sensor.other.collision", []], Transform(), vehicle.number)
    vehicle.push((7.0, 0.0, 0.0))
    for _ in range(20):
        sim.tick()
    assert walker.place.y == pytest.approx(-1.4 + 20 * 0.05 * 1.4)
    assert walker.place.yaw == pytest.approx(90.0)
    told = [msgpack.unpackb(payload[48:]) for stream, payload in sim._streams.sent if stream == sensor.stream_id]
    assert told[0][1][0] == walker.number


def test_what_is_parked_high_above_touches_nobody_and_falls_when_it_has_physics(sim):
    below, above = car(sim), car(sim, z=400.0)
    above.set_physics(False)
    below.push((5.0, 0.0, 0.0))
    sim.tick()
    assert below.motion.speed_mps > 4.0
    assert above.world_place.z == 400.0
    above.put(Transform(50.0, 0.0, 0.0))
    above.set_physics(True)
    sim.tick()
    assert above.world_place.z == 0.0


def test_a_kinematic_vehicle_that_is_put_far_away_is_not_fast(sim):
    vehicle = car(sim)
    vehicle.set_physics(False)
    vehicle.put(Transform(0.5, 0.0, 0.0))
    sim.tick()
    assert vehicle.velocity == pytest.approx((10.0, 0.0, 0.0))
    vehicle.put(Transform(300.0, 0.0, 0.0))
    sim.tick()
    assert vehicle.velocity == (0.0, 0.0, 0.0)


def test_what_was_fixed_to_a_destroyed_actor_stays_where_it_was(sim):
    vehicle = car(sim, 3.0, 4.0, 90.0)
    child = sim.spawn([0, "sensor.other.gnss", []], Transform(1.0, 0.0, 2.0), vehicle.number)
    at = child.world_place
    assert at[:3] == pytest.approx((3.0, 5.0, 2.0))
    assert sim.destroy(vehicle.number)
    assert child.world_place == pytest.approx(at)
    assert sim.record(child)[1] == 0


def test_the_spectator_cannot_be_destroyed(sim):
    assert not sim.destroy(sim.spectator.number)
    assert sim.actors


def test_pedals_out_of_range_are_held_at_its_end(sim):
    vehicle = car(sim)
    calls = ActorCalls(sim)
    calls.on_apply_control_to_vehicle(vehicle.number, [7.0, -3.0, float("nan"), False, False, False, 0])
    assert vehicle.control[:3] == (1.0, -1.0, 0.0)
    with pytest.raises(CallError, match="is no vehicle"):
        calls.on_apply_control_to_vehicle(sim.spectator.number, [0.0] * 3 + [False] * 3 + [0])


def test_wheels_are_where_they_steer_the_vehicle(sim):
    vehicle = car(sim, 5.0, 6.0, 90.0)
    wheels = ActorCalls(sim).on_get_physics_control(vehicle.number)[15]
    assert [wheel[2] for wheel in wheels] == pytest.approx([20.0, 20.0, 0.0, 0.0])
    # Facing +y: the front wheels have the larger y, the left one the larger x.
    front_left, front_right, rear_left, _ = (wheel[9] for wheel in wheels)
    assert front_left[:2] == pytest.approx([590.0, 745.0])
    assert front_right[:2] == pytest.approx([410.0, 745.0])
    assert rear_left[:2] == pytest.approx([590.0, 455.0])
    vehicle.control = VehicleControl(steer=1.0)
    for _ in range(40):
        sim.tick()
    assert ActorCalls(sim).on_get_wheel_steer_angle(vehicle.number, 0) == pytest.approx(20.0, abs=0.1)


def test_geolocation_by_hand():
    """0.9996 of the equator: 100 m are this many degrees; y grows to the north, as the client of 0.9.16 has it."""
    degrees = math.degrees(100.0 / (0.9996 * 6_378_137.0))
    assert geolocation(Transform(100.0, 0.0, 3.0)) == pytest.approx((0.0, degrees, 3.0))
    assert geolocation(Transform(0.0, 100.0)) == pytest.approx((degrees, 0.0, 0.0))


def test_an_empty_world_still_tells_the_time(sim):
    sim.tick()
    stream, payload = sim._streams.sent[-1]
    assert stream == 1
    assert struct.unpack_from("<QQd", payload) == (17, 1, pytest.approx(0.05))
    assert len(payload) == 48 + 36 + 119  # the spectator
