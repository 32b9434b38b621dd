"""Pack and read CARLA 0.9.16's network protocol: the byte layout of calls, structures and measurements.

A client opens two kinds of TCP connections:

*Calls* go to the RPC port. Requests and responses are msgpack objects, one after another, without a length prefix::

    request    [0, call_id, "name", [[is_asynchronous], argument, ...]]
    response   [1, call_id, error or nil, result]

An asynchronous call gets no response. CARLA wraps every result in its ``rpc::Response``:

==================  =====================  ==================
call                success                failure
==================  =====================  ==================
returns a value     ``[[1, value]]``       ``[[0, ["text"]]]``
returns nothing     ``[[false]]``          ``[[true, ["text"]]]``
==================  =====================  ==================

The msgpack-rpc ``error`` field stays nil, because the client ignores the text in this field. An optional value is
``[false]`` or ``[true, value]``.

*Streams* go to the RPC port + 1, in little-endian byte order. The client first sends the stream's number as a ``u32``.
After that only the server sends: for each measurement a ``u32`` size and that many bytes.

The layouts were read from the traffic of the genuine 0.9.16 client. CARLA's versions have different layouts. The client
does not check the layout of a payload, and a payload of the wrong size ends the client's process. The names in the
comments come from ``LibCarla/source/carla``.
"""

from __future__ import annotations

import math
import reprlib
import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import msgpack

from sb3_visual_td3.common.errors import in_one_line
from sb3_visual_td3.envs.road.carla_coordinates import from_carla
from sb3_visual_td3.envs.road.shapes import Pose

VOID = object()
"""Stands for the result of a call without a return value. Such a result is packed differently from nil."""
_RESPONSE = 1
# A map's OpenDRIVE is the longest message that a client sends: some megabytes.
_MAX_MESSAGE_BYTES = 16_000_000
# msgpack allocates a list of the length that a message announces before it reads the first element. Without a limit
# nine bytes could claim all memory.
_MAX_LIST_LENGTH = 100_000

_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 60


class CallError(Exception):
    """Signal that a call has failed: the server sends the text of this error, and the client raises a RuntimeError."""


class Call(NamedTuple):
    """Hold a request of a client as it was received."""

    call_id: int
    name: str
    arguments: list[Any]
    wants_response: bool


class CallReader:
    """Assemble requests from the pieces in which TCP delivers them."""

    def __init__(self) -> None:
        self._unpacker = msgpack.Unpacker(
            raw=False,
            # Text that is not UTF-8 must return to the client unchanged.
            unicode_errors="surrogateescape",
            strict_map_key=False,
            object_pairs_hook=list,  # a key may be a list, which a dict cannot hold
            max_buffer_size=_MAX_MESSAGE_BYTES,
            max_array_len=_MAX_LIST_LENGTH,
            max_map_len=_MAX_LIST_LENGTH,
        )

    def read(self, received: bytes) -> Iterator[Call]:
        """Return the requests that are complete, and store the bytes of an incomplete request.

        :param received: bytes that came in
        :raises ValueError: if the bytes are not a request
        """
        try:
            self._unpacker.feed(received)
        except msgpack.UnpackException as error:  # BufferFull
            raise ValueError(f"not a request: longer than {_MAX_MESSAGE_BYTES} bytes") from error
        while True:
            try:
                message = next(self._unpacker, VOID)
            except Exception as error:  # msgpack raises several types of exceptions, depending on the bytes
                raise ValueError(f"not a request: {shortened(error)}") from error
            match message:
                case [0, int(call_id), str(name), [[bool(is_asynchronous), *_], *arguments]]:
                    yield Call(call_id, name, arguments, not is_asynchronous)
                case _ if message is VOID:
                    return
                case _:
                    raise ValueError(
                        f"not a request: {shortened(message)}: expected [0, id, name, [[is_asynchronous], *arguments]]"
                    )


def shortened(thing: object) -> str:
    """Return a description of any object in one short ASCII line, even if the object is large or deeply nested."""
    try:
        if isinstance(thing, CallError):
            text = str(thing)
        elif isinstance(thing, Exception):
            text = f"{type(thing).__name__}: {thing}"
        else:
            text = _REPR.repr(thing)
    except Exception:  # must not fail: it is called while another error is being reported
        text = type(thing).__name__
    return in_one_line(text).encode("ascii", "backslashreplace")[:160].decode()


def checked_number(thing: object, limit: float, what: str = "a number") -> float:
    """Return a number from a message as a float.

    :param thing: value in the message
    :param limit: largest accepted absolute value
    :param what: name of the number, for the message
    :raises CallError: if the value is not a finite number within the limit
    """
    is_number = isinstance(thing, int | float) and not isinstance(thing, bool)
    if not is_number or not math.isfinite(thing) or abs(thing) > limit:  # type: ignore[arg-type]
        raise CallError(f"{shortened(thing)}: expected {what} between {-limit:g} and {limit:g}")
    return float(thing)  # type: ignore[arg-type]


def packed(value: Any) -> bytes:
    """Return a value as msgpack."""
    # Floats stay double precision: clients compare a time step that they set, such as 0.05 s, with the returned one.
    data: bytes = msgpack.packb(value, use_bin_type=True, unicode_errors="surrogateescape")
    return data


def response(call_id: int, result: Any) -> bytes:
    """Return the response to a call.

    :param call_id: number of the request
    :param result: encoded by :func:`value`, :func:`void`, :func:`failure` or :func:`void_failure`; for
        ``apply_batch``, a list with one encoded result for each command
    """
    return packed([_RESPONSE, call_id, None, result])


def value(result: Any) -> list[Any]:
    """Return the encoded result of a successful call that has a return value."""
    return [[1, result]]


def void() -> list[Any]:
    """Return the encoded result of a successful call that has no return value."""
    return [[False]]


def failure(text: str) -> list[Any]:
    """Return the encoded error of a failed call whose function has a return value."""
    return [[0, [text]]]


def void_failure(text: str) -> list[Any]:
    """Return the encoded error of a failed call whose function has no return value."""
    return [[True, [text]]]


# ---------------------------------------------------------------------------------------------------------------------
# Structures
# ---------------------------------------------------------------------------------------------------------------------

# Numbers of the sensors in the header of a measurement: their positions in 0.9.16's sensor/SensorRegistry.h. The client
# picks the deserializer by this number, and crashes on one that it does not know.
COLLISION_SENSOR, DEPTH_SENSOR, GNSS_SENSOR, IMU_SENSOR, OBSTACLE_SENSOR = 0, 1, 4, 5, 7
RADAR_SENSOR, SEMANTIC_LIDAR_SENSOR, LIDAR_SENSOR = 9, 10, 11
RGB_SENSOR, SEMANTIC_SENSOR, INSTANCE_SENSOR, WORLD_SENSOR = 13, 14, 15, 17

# streaming/detail/Token.h, 24 bytes: u32 stream id, u16 port, u8 protocol (1: TCP), u8 address type (0: none, 1: IPv4,
# 2: IPv6), 16 bytes address. With address type 0 the client connects to the host that it reached for calls.
_TOKEN = struct.Struct("<IHBB16s")
_TCP, _HOST_OF_THE_CLIENT = 1, 0
# sensor/s11n/SensorHeaderSerializer.h, 48 bytes: u64 sensor number, u64 frame, f64 simulated seconds,
# f32 x, y, z, pitch, yaw, roll of the sensor.
_HEADER = struct.Struct("<QQd6f")
# sensor/s11n/ImageSerializer.h, 12 bytes before the pixels: u32 width, u32 height, f32 field of view in degrees.
_IMAGE = struct.Struct("<IIf")
# sensor/s11n/EpisodeStateSerializer.h, 36 bytes before the actors: u64 episode id, f64 platform time, f32 tick length,
# 3 x i32 map origin, u32 flags.
_WORLD = struct.Struct("<Qdf3iI")
# sensor/data/ActorDynamicState.h, 119 bytes an actor, packed without padding: u32 id, u8 state, 3 x f32 each of
# location, rotation (pitch, yaw, roll), velocity in m/s, angular velocity in degrees/s and acceleration in m/s^2,
# then a union of 54 bytes.
TYPE_STATE_BYTES = 54
_ACTOR = struct.Struct(f"<IB15f{TYPE_STATE_BYTES}s")
_ACTIVE = 1
# The union of a vehicle: f32 throttle, steer, brake, 3 x bool hand brake, reverse, manual gear shift, i32 gear,
# f32 speed limit in km/h, u8 state of its traffic light, bool whether it has one, u32 its id, u8 failure state.
_VEHICLE = struct.Struct("<3f3?ifB?IB")
SPEED_LIMIT_KMH = 50.0
"""The speed limit that vehicles report on maps without speed limits."""
_GREEN_LIGHT = 2  # also reported by a vehicle that is at no light
_REVERSE_GEAR, _FIRST_GEAR = -1, 1

# Larger values are mistakes of a client. They are refused, because float32 arithmetic on them would yield inf and NaN.
_MAX_LOCATION_M = 1e6
_MAX_ROTATION_DEG = 1e6

Vector = tuple[float, float, float]
"""A vector x, y, z in CARLA's coordinates."""
ZERO: Vector = (0.0, 0.0, 0.0)


class Transform(NamedTuple):
    """Hold a location in metres and a rotation in degrees, both in CARLA's left-handed coordinates."""

    x: float = 0.0
    y: float = 0.0
    z: float = 0.0
    pitch: float = 0.0
    yaw: float = 0.0
    roll: float = 0.0

    @classmethod
    def from_message(cls, message: Any) -> Transform:
        """Return the transform from its msgpack form ``[[x, y, z], [pitch, yaw, roll]]``.

        :param message: the decoded list
        :raises CallError: if the shape is wrong, or a number is not finite or too large
        """
        try:
            location = vector_from_message(message[0], _MAX_LOCATION_M)
            rotation = vector_from_message(message[1], _MAX_ROTATION_DEG)
        except (CallError, TypeError, LookupError) as error:
            raise CallError(f"{shortened(message)} is not a transform: {error}") from error
        return cls(*location, *rotation)

    @classmethod
    def from_pose(cls, pose: Pose, z: float = 0.0) -> Transform:
        """Return CARLA's transform for a pose in this package's right-handed coordinates.

        :param pose: position and heading
        :param z: height in metres
        """
        # The formula of ``to_carla`` is repeated here, because a call would create one more tuple for each vehicle in
        # each tick.
        x, y, heading_rad = pose
        return cls(x, -y, z, 0.0, -math.degrees(heading_rad), 0.0)

    @property
    def pose(self) -> Pose:
        """Return the position on the ground and the heading, in this package's right-handed coordinates."""
        return from_carla(self.x, self.y, self.yaw)

    def to_message(self) -> list[Any]:
        """Return the transform in its msgpack form ``[[x, y, z], [pitch, yaw, roll]]``."""
        return [[self.x, self.y, self.z], [self.pitch, self.yaw, self.roll]]


def vector_from_message(message: Any, limit: float) -> Vector:
    """Return the vector from its msgpack form ``[x, y, z]``.

    :param message: the decoded list; its elements after the first three are ignored
    :param limit: largest accepted absolute value
    :raises CallError: if ``message`` is not a list with at least three elements, or if one of the first three is not a
        finite number within the limit
    """
    if not isinstance(message, list | tuple) or len(message) < 3:
        raise CallError(f"{shortened(message)}: expected three numbers")
    x, y, z = (checked_number(part, limit) for part in message[:3])
    return x, y, z


class VehicleControl(NamedTuple):
    """Hold the values of a ``carla.VehicleControl`` in the order in which messages contain them."""

    throttle: float = 0.0
    steer: float = 0.0
    brake: float = 0.0
    hand_brake: bool = False
    reverse: bool = False
    manual_gear_shift: bool = False
    gear: int = 0


class AckermannControl(NamedTuple):
    """Hold the values of a ``carla.VehicleAckermannControl`` in the order in which messages contain them."""

    steer_rad: float = 0.0
    """Angle of the front wheels, positive to the right."""
    steer_rad_s: float = 0.0
    """Largest steering rate in rad/s, which the emulator ignores; 0 means no limit."""
    speed_mps: float = 0.0
    """The speed to reach and keep; negative in reverse."""
    acceleration_mps2: float = 0.0
    """Largest acceleration and deceleration; 0 means no limit."""
    jerk_mps3: float = 0.0
    """Largest rate of change of the acceleration in m/s^3. The emulator ignores this value."""


def stream_token(stream_id: int, port: int) -> bytes:
    """Return the 24 bytes that contain the address of a stream.

    :param stream_id: number of the stream
    :param port: port of the stream server
    """
    return _TOKEN.pack(stream_id, port, _TCP, _HOST_OF_THE_CLIENT, bytes(16))


def sensor_header(sensor: int, frame: int, seconds: float, transform: Transform) -> bytes:
    """Return the 48 bytes that precede the body of every measurement.

    :param sensor: kind of sensor, such as ``RGB_SENSOR``
    :param frame: number of the frame
    :param seconds: simulated time
    :param transform: the sensor's transform in the world
    """
    return _HEADER.pack(sensor, frame, seconds, *transform)


def image_body(width: int, height: int, fov_deg: float, pixels: bytes) -> bytes:
    """Return a camera's image as the body of a measurement message.

    :param width: width in pixels
    :param height: height in pixels
    :param fov_deg: horizontal field of view in degrees
    :param pixels: ``height * width * 4`` bytes, BGRA, row by row from the top
    """
    return _IMAGE.pack(width, height, fov_deg) + pixels


def world_body(episode_id: int, platform_s: float, delta_s: float, actors: list[bytes]) -> bytes:
    """Return the body of the message with the world's state, from which the client makes its WorldSnapshot.

    :param episode_id: number of the episode; a change invalidates the client's actors
    :param platform_s: server's clock in seconds
    :param delta_s: length of the tick in seconds
    :param actors: result of ``actor_state`` for each actor
    """
    map_origin = (0, 0, 0)  # only large, tiled maps have another
    flags = 0
    return b"".join([_WORLD.pack(episode_id, platform_s, delta_s, *map_origin, flags), *actors])


def actor_state(
    actor_id: int,
    transform: tuple[float, float, float, float, float, float],
    velocity: Vector = ZERO,
    acceleration: Vector = ZERO,
    yaw_rate_deg_s: float = 0.0,
    type_state: bytes = b"",
) -> bytes:
    """Return the packed state of one actor, 119 bytes.

    :param actor_id: number of the actor
    :param transform: in the world, in the order of :class:`Transform`
    :param velocity: in m/s, in world coordinates
    :param acceleration: in m/s^2, in world coordinates
    :param yaw_rate_deg_s: in degrees/s, positive to the right
    :param type_state: up to 54 bytes: :func:`vehicle_state`, or a state from
        :mod:`~sb3_visual_td3.envs.carla_emulator.roadside`
    """
    angular_velocity = (0.0, 0.0, yaw_rate_deg_s)
    return _ACTOR.pack(actor_id, _ACTIVE, *transform, *velocity, *angular_velocity, *acceleration, type_state)


@lru_cache(maxsize=256)
def vehicle_state(
    control: VehicleControl,
    speed_limit_kmh: float = SPEED_LIMIT_KMH,
    light_state: int = _GREEN_LIGHT,
    light_id: int | None = None,
) -> bytes:
    """Return the part of an actor's state that only vehicles have.

    :param control: the vehicle's control
    :param speed_limit_kmh: speed limit in km/h
    :param light_state: state of the vehicle's traffic light, as in ``carla.TrafficLightState``
    :param light_id: number of this light's actor; None without a light
    """
    throttle, steer, brake, hand_brake, reverse, manual, gear = control
    if not manual:
        gear = _REVERSE_GEAR if reverse else _FIRST_GEAR
    has_light = light_id is not None
    return _VEHICLE.pack(
        throttle,
        steer,
        brake,
        hand_brake,
        reverse,
        manual,
        gear,
        speed_limit_kmh,
        light_state,
        has_light,
        light_id or 0,
        0,
    )


def velocity_along(pose: Pose, speed_mps: float) -> Vector:
    """Convert a speed in the direction of a pose to a velocity in CARLA's coordinates."""
    # CARLA's y axis points the other way.
    return speed_mps * math.cos(pose.heading_rad), -speed_mps * math.sin(pose.heading_rad), 0.0
