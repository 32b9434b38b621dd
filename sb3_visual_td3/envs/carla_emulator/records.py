"""Shapes of the wire: what CARLA's structures look like as lists and bytes."""

from __future__ import annotations

import math
import struct
from typing import Any, NamedTuple

from sb3_visual_td3.envs.carla_emulator.protocol import CallError, number_of, shortened
from sb3_visual_td3.envs.road.carla_coordinates import Pose, from_carla, to_carla

WORLD_SENSOR, RGB_SENSOR, DEPTH_SENSOR, SEMANTIC_SENSOR = 17, 13, 1, 14
COLLISION_SENSOR, GNSS_SENSOR, IMU_SENSOR, OBSTACLE_SENSOR, RADAR_SENSOR, LIDAR_SENSOR = 0, 4, 5, 7, 9, 11

_TOKEN = struct.Struct("<IHBB16s")
_HEADER = struct.Struct("<QQd6f")
_IMAGE = struct.Struct("<IIf")
_WORLD = struct.Struct("<Qdf3iI")
_ACTOR = struct.Struct("<IB15f54s")
_VEHICLE = struct.Struct("<3f3?ifB?IB")
_TCP, _HOST_OF_THE_CLIENT = 1, 0

SPEED_LIMIT_KMH = 50.0
_GREEN_LIGHT = 2
_FAR_M = 1e6
_MANY_TURNS_DEG = 1e6

Vector = tuple[float, float, float]
"""x, y and z in CARLA's axes."""
STILL: Vector = (0.0, 0.0, 0.0)


class Transform(NamedTuple):
    """A place in CARLA's coordinates: metres and degrees."""

    x: float = 0.0
    y: float = 0.0
    z: float = 0.0
    pitch: float = 0.0
    yaw: float = 0.0
    roll: float = 0.0

    @classmethod
    def of_wire(cls, record: Any) -> Transform:
        """Read ``[[x, y, z], [pitch, yaw, roll]]``.

        :raises CallError: if it is no place.
        """
        try:
            location, rotation = vector_of(record[0], _FAR_M), vector_of(record[1], _MANY_TURNS_DEG)
        except (CallError, TypeError, LookupError) as error:
            raise CallError(f"{shortened(record)} is no place: {error}") from error
        return cls(*location, *rotation)

    @classmethod
    def of_pose(cls, pose: Pose, z: float = 0.0) -> Transform:
        """Stand on the ground at a place of the embedded world."""
        x, y, yaw = to_carla(pose)
        return cls(x, y, z, 0.0, yaw, 0.0)

    @property
    def pose(self) -> Pose:
        """The place on the ground, in the embedded world's coordinates."""
        return from_carla(self.x, self.y, self.yaw)

    def wire(self) -> list[Any]:
        """Return the record."""
        return [[self.x, self.y, self.z], [self.pitch, self.yaw, self.roll]]


def vector_of(record: Any, limit: float) -> Vector:
    """Read ``[x, y, z]``.

    :raises CallError: if it is not three numbers within the limit.
    """
    if not isinstance(record, list | tuple) or len(record) < 3:
        raise CallError(f"{shortened(record)} is not three numbers")
    x, y, z = (number_of(part, limit) for part in record[:3])
    return x, y, z


class VehicleControl(NamedTuple):
    """What a client asks a vehicle to do."""

    throttle: float = 0.0
    steer: float = 0.0
    brake: float = 0.0
    hand_brake: bool = False
    reverse: bool = False
    manual_gear_shift: bool = False
    gear: int = 0


def token(stream_id: int, port: int) -> bytes:
    """Return the 24 bytes with which a client finds a stream."""
    return _TOKEN.pack(stream_id, port, _TCP, _HOST_OF_THE_CLIENT, bytes(16))


def sensor_header(sensor: int, frame: int, seconds: float, place: Transform) -> bytes:
    """Return the 48 bytes before every measurement."""
    return _HEADER.pack(sensor, frame, seconds, *place)


def image_body(width: int, height: int, fov_deg: float, pixels: bytes) -> bytes:
    """Return an image: BGRA, row by row."""
    return _IMAGE.pack(width, height, fov_deg) + pixels


def world_body(episode_id: int, platform_s: float, delta_s: float, actors: list[bytes]) -> bytes:
    """Return the state of the world in one frame."""
    return b"".join([_WORLD.pack(episode_id, platform_s, delta_s, 0, 0, 0, 0), *actors])


def actor_state(
    number: int,
    place: Transform,
    velocity: Vector = STILL,
    acceleration: Vector = STILL,
    turn_deg_s: float = 0.0,
    more: bytes = b"",
) -> bytes:
    """Return the 119 bytes of one actor."""
    return _ACTOR.pack(number, 1, *place, *velocity, 0.0, 0.0, turn_deg_s, *acceleration, more)


def vehicle_state(control: VehicleControl) -> bytes:
    """Return what is special about a vehicle's state; it stands before no traffic light."""
    throttle, steer, brake, hand_brake, reverse, manual, gear = control
    gear = gear if manual else -1 if reverse else 1
    return _VEHICLE.pack(
        throttle, steer, brake, hand_brake, reverse, manual, gear, SPEED_LIMIT_KMH, _GREEN_LIGHT, False, 0, 0
    )


def velocity_of(pose: Pose, speed_mps: float) -> Vector:
    """Return a speed along a direction of the embedded world as CARLA's velocity."""
    return speed_mps * math.cos(pose.yaw_rad), -speed_mps * math.sin(pose.yaw_rad), 0.0
