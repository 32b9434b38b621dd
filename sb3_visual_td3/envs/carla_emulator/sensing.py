"""What each sensor sends at a tick: pictures, lidar, radar and obstacle rays, GNSS, IMU and collisions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.envs.carla_emulator import cameras
from sb3_visual_td3.envs.carla_emulator.actors import Actor
from sb3_visual_td3.envs.carla_emulator.collisions import Hit
from sb3_visual_td3.envs.carla_emulator.free_camera import axes_of
from sb3_visual_td3.envs.carla_emulator.protocol import packed
from sb3_visual_td3.envs.carla_emulator.records import (
    COLLISION_SENSOR,
    GNSS_SENSOR,
    IMU_SENSOR,
    LIDAR_SENSOR,
    OBSTACLE_SENSOR,
    RADAR_SENSOR,
    Transform,
)
from sb3_visual_td3.envs.lite.weather import Sky
from sb3_visual_td3.envs.road.maps import LiteMap

_POSITION_KINDS = {"sensor.other.gnss": GNSS_SENSOR, "sensor.other.imu": IMU_SENSOR}
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


OBSTACLE, _LIDAR, _RADAR = "sensor.other.obstacle", "sensor.lidar.ray_cast", "sensor.other.radar"
_RAY_KINDS = {OBSTACLE: OBSTACLE_SENSOR, _LIDAR: LIDAR_SENSOR, _RADAR: RADAR_SENSOR}
_AROUND_M = 200.0


class Echo(NamedTuple):
    """Where rays end."""

    distances_m: NDArray[np.float64]
    """``(n,)``; ``inf`` where nothing is struck."""
    struck: NDArray[np.intp]
    """Index into the things, -1: the ground or nothing."""


class Obstacle(NamedTuple):
    """What the obstacle detector reports."""

    actor: Actor
    distance_m: float


def points(sensor: Actor, things: Sequence[Actor], step_s: float, tick: int) -> bytes:
    """Return the body of what a lidar or a radar measures.

    :param sensor: one of them.
    :param things: vehicles and walkers.
    :param step_s: length of the tick.
    :param tick: of the simulation; the same tick gives the same measurement.
    """
    others = [each for each in things if each is not sensor.parent]
    measure = _lidar if sensor.type_id == _LIDAR else _radar
    return measure(sensor, others, step_s, tick)


def obstacle(sensor: Actor, things: Sequence[Actor]) -> Obstacle | None:
    """Return the nearest thing ahead within the detector's ``distance``; None where the way is free."""
    others = [each for each in things if each is not sensor.parent]
    ahead = np.array([[1.0, 0.0, 0.0]])
    echo = cast(ahead, sensor.world_place, others, grow_m=sensor.number_of("hit_radius", 0.5), has_ground=False)
    if echo.struck[0] < 0 or echo.distances_m[0] > sensor.number_of("distance", 5.0):
        return None
    return Obstacle(others[echo.struck[0]], float(echo.distances_m[0]))


def cast(
    directions: NDArray[np.float64],
    place: Transform,
    things: Sequence[Actor],
    *,
    grow_m: float = 0.0,
    has_ground: bool = True,
) -> Echo:
    """Return where rays end.

    Source: Kay, Kajiya 1986, "Ray tracing complex scenes" (slabs), for boxes that stand upright.

    :param directions: ``(n, 3)``: forward, right and up in the sensor's axes, of length 1.
    :param place: of the sensor.
    :param things: what can be struck.
    :param grow_m: by how much everything is thicker.
    :param has_ground: whether the ground can be struck.
    """
    rays = directions @ axes_of(place)
    with np.errstate(divide="ignore", invalid="ignore"):
        down = np.where(rays[:, 2] < 0.0, place.z / -rays[:, 2], np.inf) if has_ground else np.full(len(rays), np.inf)
    struck = np.full(len(rays), -1, np.intp)
    for index, thing in enumerate(things):
        reach = _through(rays, place, thing, grow_m)
        is_nearer = reach < down
        down[is_nearer], struck[is_nearer] = reach[is_nearer], index
    return Echo(down, struck)


def _through(rays: NDArray[np.float64], place: Transform, thing: Actor, grow_m: float) -> NDArray[np.float64]:
    """Return how far each ray goes until it enters a thing; ``inf``: it does not, or begins within."""
    box = thing.box
    if box is None or math.hypot(box.x_m - place.x, -box.y_m - place.y) > _AROUND_M:
        return np.full(len(rays), np.inf)
    cos, sin = math.cos(-box.yaw_rad), math.sin(-box.yaw_rad)
    turn = np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])
    half = np.array([0.5 * box.length_m, 0.5 * box.width_m, thing.extent_m[2]]) + grow_m
    origin = turn @ (place.x - box.x_m, place.y + box.y_m, place.z - thing.extent_m[2])
    inside = rays @ turn.T
    with np.errstate(divide="ignore", invalid="ignore"):
        one, two = (-half - origin) / inside, (half - origin) / inside
    enter, leave = np.fmin(one, two).max(axis=1), np.fmax(one, two).min(axis=1)
    return np.where((enter <= leave) & (enter > 0.0), enter, np.inf)


def _lidar(sensor: Actor, things: Sequence[Actor], step_s: float, tick: int) -> bytes:
    channels = int(sensor.number_of("channels", 32))
    per_channel = max(1, round(sensor.number_of("points_per_second", 56_000) * step_s / channels))
    turned_deg = 360.0 * sensor.number_of("rotation_frequency", 10.0) * step_s
    fov_deg = sensor.number_of("horizontal_fov", 360.0)
    begin_deg = turned_deg * tick
    angles = np.radians((begin_deg + turned_deg * np.arange(per_channel) / per_channel) % fov_deg - 0.5 * fov_deg)
    upper, lower = sensor.number_of("upper_fov", 10.0), sensor.number_of("lower_fov", -30.0)
    rises = np.radians(np.linspace(upper, lower, channels))
    rise, angle = (grid.ravel() for grid in np.meshgrid(rises, angles, indexing="ij"))
    rays = _directions(angle, rise)
    echo = cast(rays, sensor.world_place, things)
    is_seen = echo.distances_m <= sensor.number_of("range", 10.0)
    found = np.empty((int(is_seen.sum()), 4), np.float32)
    found[:, :3] = rays[is_seen] * echo.distances_m[is_seen, None]
    found[:, 3] = np.exp(-sensor.number_of("atmosphere_attenuation_rate", 0.004) * echo.distances_m[is_seen])
    counts = is_seen.reshape(channels, -1).sum(axis=1).astype(np.uint32)
    angle_bits = np.array([math.radians(begin_deg % 360.0)], np.float32).tobytes()
    header: bytes = angle_bits + np.uint32(channels).tobytes() + counts.tobytes()
    return header + found.tobytes()


def _radar(sensor: Actor, things: Sequence[Actor], step_s: float, tick: int) -> bytes:
    n = max(1, round(sensor.number_of("points_per_second", 1500) * step_s))
    rng = np.random.default_rng([sensor.number, tick])
    # Evenly over the circle: the root keeps its middle from being crowded.
    radius, around = np.sqrt(rng.random(n)), rng.uniform(0.0, 2.0 * np.pi, n)
    azimuth = np.radians(0.5 * sensor.number_of("horizontal_fov", 30.0)) * radius * np.cos(around)
    altitude = np.radians(0.5 * sensor.number_of("vertical_fov", 30.0)) * radius * np.sin(around)
    rays = _directions(azimuth, altitude)
    place = sensor.world_place
    echo = cast(rays, place, things)
    own = np.zeros(3) if sensor.parent is None else np.array(sensor.parent.velocity)
    velocities = np.array([thing.velocity for thing in things] + [(0.0, 0.0, 0.0)])[echo.struck]
    towards = ((velocities - own) * (rays @ axes_of(place))).sum(axis=1)
    is_seen = echo.distances_m <= sensor.number_of("range", 100.0)
    found = np.stack([towards, azimuth, altitude, echo.distances_m], axis=1)[is_seen]
    return bytes(found.astype(np.float32).tobytes())


def _directions(azimuth: NDArray[np.float64], altitude: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return unit vectors forward, right and up."""
    flat = np.cos(altitude)
    return np.stack([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(altitude)], axis=1)


_KINDS = {"sensor.other.collision": COLLISION_SENSOR, **cameras.KINDS, **_POSITION_KINDS, **_RAY_KINDS}


class Scenery(NamedTuple):
    """The world in one frame."""

    scene: LiteMap
    sky: Sky | None
    """None: a clear day."""
    things: Sequence[Actor]
    """Vehicles and walkers."""
    hits: Sequence[Hit]
    step_s: float
    tick: int


def kind_of(type_id: str) -> int | None:
    """Return the number of a kind of sensor on the wire; None where the server measures nothing for it."""
    return _KINDS.get(type_id)


def body_of(sensor: Actor, scenery: Scenery, record: Callable[[Actor], list[Any]]) -> bytes | None:
    """Return what a sensor measures; None where it has nothing to say.

    :param sensor: any but a collision detector.
    :param scenery: the world.
    :param record: gives an actor as the client reads it.
    """
    if sensor.type_id in cameras.KINDS:
        return cameras.image_message(sensor, scenery.scene, scenery.sky, scenery.things, scenery.tick)
    if sensor.type_id in _POSITION_KINDS:
        return measurement(sensor)
    if sensor.type_id == OBSTACLE:
        found = obstacle(sensor, scenery.things)
        if found is None or sensor.parent is None:
            return None
        return packed([record(sensor.parent), record(found.actor), found.distance_m])
    return points(sensor, scenery.things, scenery.step_s, scenery.tick)
