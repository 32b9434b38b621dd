"""What a satellite receiver and an inertial unit measure."""

from __future__ import annotations

import math

from sb3_visual_td3.envs.carla_emulator.actors import Actor
from sb3_visual_td3.envs.carla_emulator.protocol import packed
from sb3_visual_td3.envs.carla_emulator.records import GNSS_SENSOR, IMU_SENSOR, Transform

KINDS = {"sensor.other.gnss": GNSS_SENSOR, "sensor.other.imu": IMU_SENSOR}
_EARTH_RADIUS_M = 6_378_137.0
_SCALE = 0.9996
"""What CARLA 0.9.16's client takes for the projection's, whatever the map says."""
_GRAVITY_MPS2 = 9.81


def measurement(sensor: Actor) -> bytes:
    """Return the body of what a GNSS receiver or an inertial unit measures."""
    return packed(list(geolocation(sensor.world_place)) if sensor.type_id.endswith("gnss") else _inertia(sensor))


def geolocation(place: Transform) -> tuple[float, float, float]:
    """Return latitude and longitude in degrees and the altitude in metres, as ``Map.transform_to_geolocation`` does.

    A sphere's transverse Mercator projection around 0, 0. As in the client of 0.9.16, y grows to the north.
    Source: Snyder 1987, "Map Projections: A Working Manual", eq. 8-6 and 8-7.
    """
    across, along = place.x / (_EARTH_RADIUS_M * _SCALE), place.y / (_EARTH_RADIUS_M * _SCALE)
    latitude = math.asin(math.sin(along) / math.cosh(across))
    return math.degrees(latitude), math.degrees(math.atan2(math.sinh(across), math.cos(along))), place.z


def _inertia(sensor: Actor) -> list[object]:
    """Acceleration in m/s² and turn rates in rad/s, both in the sensor's axes; the compass: 0 in the north, -y."""
    yaw = math.radians(sensor.world_place.yaw)
    x, y, z = (0.0, 0.0, 0.0) if sensor.parent is None else sensor.parent.acceleration
    turn_rad_s = 0.0 if sensor.parent is None else -sensor.parent.turn_rad_s
    forward, right = x * math.cos(yaw) + y * math.sin(yaw), y * math.cos(yaw) - x * math.sin(yaw)
    compass = (yaw + 0.5 * math.pi) % (2.0 * math.pi)
    return [[forward, right, z + _GRAVITY_MPS2], [0.0, 0.0, turn_rad_s], compass]
