import struct

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sb3_visual_td3.envs.carla_emulator import protocol
from sb3_visual_td3.envs.carla_emulator.catalogue import BLUEPRINTS, blueprints_message
from sb3_visual_td3.envs.carla_emulator.faults import ActiveFaults, Fault, parse_fault
from sb3_visual_td3.envs.carla_emulator.simulation import CLEAR_NOON, sky_of
from sb3_visual_td3.envs.road.carla_coordinates import from_carla, map_name_of, to_carla
from sb3_visual_td3.envs.road.shapes import Pose


def request(call_id, name, *arguments, asynchronous=False):
    return msgpack.packb([0, call_id, name, [[asynchronous], *arguments]])


@given(st.lists(st.tuples(st.integers(0, 2**31), st.text(), st.booleans()), max_size=8), st.integers(1, 7))
def test_calls_are_assembled_from_pieces_of_any_size(calls, size):
    data = b"".join(request(number, name, 1.5, "x", asynchronous=late) for number, name, late in calls)
    reader = protocol.CallReader()
    found = [call for start in range(0, len(data), size) for call in reader.read(data[start : start + size])]
    assert found == [protocol.Call(number, name, [1.5, "x"], not late) for number, name, late in calls]


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n", msgpack.packb([1, 2, 3]), msgpack.packb([0, 1, "x", []])])
def test_other_messages_are_refused(data):
    with pytest.raises(ValueError, match="not a request"):
        list(protocol.CallReader().read(data))


def test_results_are_wrapped_as_the_client_expects():
    assert msgpack.unpackb(protocol.response(7, protocol.value("0.9.16"))) == [1, 7, None, [[1, "0.9.16"]]]
    assert msgpack.unpackb(protocol.response(7, protocol.void())) == [1, 7, None, [[False]]]
    assert msgpack.unpackb(protocol.response(7, protocol.failure("no"))) == [1, 7, None, [[0, ["no"]]]]
    assert msgpack.unpackb(protocol.response(7, protocol.void_failure("no"))) == [1, 7, None, [[True, ["no"]]]]


def test_floats_are_sent_in_double_precision():
    """In single precision, a script would read a fixed step of 0.05 s as 0.05000000075 and write this value back."""
    assert protocol.packed(0.05) == b"\xcb" + struct.pack(">d", 0.05)


def test_structures_have_the_layouts_of_carla_0_9_16():
    assert protocol.stream_token(3, 2001) == struct.pack("<IHBB", 3, 2001, 1, 0) + bytes(16)
    place = protocol.Transform(1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
    header = protocol.sensor_header(13, 9, 0.5, place)
    assert header == struct.pack("<QQd", 13, 9, 0.5) + struct.pack("<6f", 1, 2, 3, 4, 5, 6)
    assert len(header) == 48
    state = protocol.actor_state(8, place, (7.0, 8.0, 9.0), (1.0, 1.0, 1.0), 12.0)
    assert len(state) == 119
    assert struct.unpack_from("<IB6f", state) == (8, 1, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
    assert len(protocol.world_body(1, 0.0, 0.05, [state, state])) == 36 + 2 * 119
    vehicle = protocol.vehicle_state(protocol.VehicleControl(0.25, -0.5, 1.0, hand_brake=True))
    assert struct.unpack_from("<3f3?if", vehicle) == (0.25, -0.5, 1.0, True, False, False, 1, 50.0)
    backwards = protocol.vehicle_state(protocol.VehicleControl(reverse=True))
    assert struct.unpack_from("<3f3?i", backwards)[-1] == -1
    assert len(vehicle) == 30
    assert protocol.image_body(2, 1, 90.0, bytes(8)) == struct.pack("<IIf", 2, 1, 90.0) + bytes(8)


poses = st.builds(Pose, st.floats(-1e3, 1e3), st.floats(-1e3, 1e3), st.floats(-3.1, 3.1))


@given(poses)
def test_poses_survive_conversion_to_carla_coordinates_and_back(pose):
    assert from_carla(*to_carla(pose)) == pytest.approx(pose, abs=1e-9)


def test_carlas_y_points_to_the_right_and_its_yaw_turns_clockwise():
    assert to_carla(Pose(1.0, 2.0, 0.5 * 3.141592653589793)) == pytest.approx((1.0, -2.0, -90.0))


@pytest.mark.parametrize("path", ["Carla/Maps/Town01", "/Game/Carla/Maps/Town01", "Town01", "Town01/"])
def test_map_paths_are_shortened_to_names(path):
    assert map_name_of(path) == "Town01"


def test_every_blueprint_attribute_has_six_fields():
    definitions = blueprints_message()
    assert [uid for uid, *_ in definitions] == list(range(1, len(BLUEPRINTS) + 1))
    assert all(len(attribute) == 6 for *_, attributes in definitions for attribute in attributes)
    assert sum(each.startswith("vehicle.") for each in BLUEPRINTS) >= 15


@pytest.mark.parametrize(
    ("type_id", "names"),
    [
        # CARLA's leaderboard and examples set these attributes; the client refuses to set an unknown attribute.
        ("sensor.camera.rgb", "lens_circle_multiplier lens_circle_falloff chromatic_aberration_intensity"),
        ("sensor.camera.rgb", "chromatic_aberration_offset exposure_mode iso fstop bloom_intensity white_clip"),
        ("sensor.lidar.ray_cast", "dropoff_general_rate dropoff_intensity_limit dropoff_zero_intensity noise_stddev"),
        ("sensor.other.radar", "horizontal_fov vertical_fov points_per_second range noise_seed"),
        ("sensor.other.gnss", "noise_alt_stddev noise_lat_stddev noise_lon_stddev noise_alt_bias noise_lon_bias"),
        ("sensor.other.imu", "noise_accel_stddev_x noise_gyro_stddev_z noise_gyro_bias_y noise_seed"),
        ("vehicle.tesla.model3", "color role_name ros_name"),
    ],
)
def test_blueprints_have_the_attributes_that_scripts_set(type_id, names):
    attributes = next(definition[3] for definition in blueprints_message() if definition[1] == type_id)
    ids = [each[0] for each in attributes]
    assert set(names.split()) <= set(ids)
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("die@500", Fault("die", 500)),
        ("hang@every:20", Fault("hang", 20, True)),
        ("wrong-version", Fault("wrong-version", 0)),
        ("hang=2.5@7", Fault("hang", 7, False, 2.5)),
        ("drop-frames=3@every:9", Fault("drop-frames", 9, True, 3.0)),
        ("slow=0.05", Fault("slow", 0, False, 0.05)),
    ],
)
def test_faults_are_parsed_from_the_command_line(text, expected):
    assert parse_fault(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "boom@3",
        "die@0",
        "die@-1",
        "die@every:",
        "die@every:0",
        "die@x",
        "hang@every:x",
        "die",
        "hang=3",
        "slow=x@1",
    ],
)
def test_malformed_faults_are_refused(text):
    with pytest.raises(ValueError, match="expected KIND"):
        parse_fault(text)


def test_faults_are_due_once_or_periodically():
    assert [tick for tick in range(1, 8) if Fault("slow").is_due(tick)] == []
    assert Fault("slow").is_active_from_start
    assert not Fault("slow", 1).is_active_from_start
    assert [tick for tick in range(1, 8) if Fault("slow", 3).is_due(tick)] == [3]
    assert [tick for tick in range(1, 8) if Fault("slow", 3, True).is_due(tick)] == [3, 6]


def test_active_faults_count_down():
    faults = ActiveFaults()
    faults.activate("drop-frames", 2)
    assert [faults.drops_image() for _ in range(3)] == [True, True, False]
    faults.activate("truncate-images")
    assert [len(faults.truncate(bytes(80))) for _ in range(2)] == [40, 80]
    faults.activate("refuse-spawns")
    assert [faults.refuses_spawn() for _ in range(2)] == [True, False]
    with pytest.raises(ValueError, match="expected one of"):
        faults.activate("boom")


def weather(**changes):
    names = ("cloudiness", "precipitation", "deposits", "wind", "azimuth", "altitude", "fog")
    return [changes.get(name, value) for name, value in zip(names, CLEAR_NOON, strict=False)] + list(CLEAR_NOON[7:])


def test_weather_parameters_become_light_and_haze():
    assert sky_of(CLEAR_NOON) is None
    rain, night = sky_of(weather(precipitation=80.0, cloudiness=90.0)), sky_of(weather(altitude=-30.0))
    assert rain.streaks > 0.0
    assert rain.haze_per_m > 0.0
    assert rain.ambient < 1.0
    assert night.ambient < 0.3
    assert night.beam > 0.0
    assert sky_of(weather(fog=50.0)).haze_per_m > 0.0
