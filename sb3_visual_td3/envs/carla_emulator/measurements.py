"""What sensors other than cameras send."""

from __future__ import annotations

import math

from sb3_visual_td3.envs.carla_emulator.actors import Actor, Vehicle
from sb3_visual_td3.envs.carla_emulator.protocol import packed
from sb3_visual_td3.envs.carla_emulator.records import GNSS_SENSOR, IMU_SENSOR

KINDS = {"sensor.other.gnss": GNSS_SENSOR, "sensor.other.imu": IMU_SENSOR}
_EARTH_RADIUS_M = 6_378_137.0
"""Of the WGS 84 ellipsoid, which the maps' projection names."""
_GRAVITY_MPS2 = 9.81


def measurement(sensor: Actor) -> bytes:
    """Return the body of what a GNSS receiver or an inertial unit measures."""
    return _position(sensor) if sensor.type_id.endswith("gnss") else _inertia(sensor)


def _position(sensor: Actor) -> bytes:
    """Latitude and longitude in degrees, altitude in metres, as the client's ``transform_to_geolocation`` has them."""
    place = sensor.world_place
    latitude, longitude = (math.degrees(metres / _EARTH_RADIUS_M) for metres in (place.y, place.x))
    # In double precision: a single one has steps of a metre far from the origin.
    return b"\x93" + b"".join(_double(number) for number in (latitude, longitude, place.z))


def _double(number: float) -> bytes:
    import msgpack

    data: bytes = msgpack.packb(number, use_single_float=False)
    return data


def _inertia(sensor: Actor) -> bytes:
    """Acceleration in m/s², turn rates in rad/s, and the compass in radians, 0 in the north (-y)."""
    carrier = sensor.parent
    ahead, turn = 0.0, 0.0
    sideways = 0.0
    if isinstance(carrier, Vehicle):
        ahead, turn = carrier.acceleration_mps2, -carrier.turn_rad_s
        sideways = carrier.velocity_mps * turn
    compass = math.radians(sensor.world_place.yaw) + 0.5 * math.pi
    return packed([[ahead, sideways, _GRAVITY_MPS2], [0.0, 0.0, turn], compass % (2.0 * math.pi)])
