"""Compute the measurements of a tick: camera images, lidar, radar and obstacle rays, GNSS and IMU.

Lane invasions are missing, because CARLA's client computes them itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.envs.carla_emulator import cameras
from sb3_visual_td3.envs.carla_emulator.actors import Actor, Hit, Prop, Vehicle
from sb3_visual_td3.envs.carla_emulator.free_camera import ROAD, TERRAIN, axes_of
from sb3_visual_td3.envs.carla_emulator.protocol import (
    COLLISION_SENSOR,
    GNSS_SENSOR,
    IMU_SENSOR,
    LIDAR_SENSOR,
    OBSTACLE_SENSOR,
    RADAR_SENSOR,
    SEMANTIC_LIDAR_SENSOR,
    Transform,
    packed,
)
from sb3_visual_td3.envs.carla_emulator.roadside import Roadside
from sb3_visual_td3.envs.lite.weather import Sky
from sb3_visual_td3.envs.road.ground import PAVED_LEVEL, Ground
from sb3_visual_td3.envs.road.maps import Scene

_COLLISION, _OBSTACLE = "sensor.other.collision", "sensor.other.obstacle"
_GNSS, _IMU = "sensor.other.gnss", "sensor.other.imu"
_LIDAR, _SEMANTIC_LIDAR, _RADAR = "sensor.lidar.ray_cast", "sensor.lidar.ray_cast_semantic", "sensor.other.radar"
_SENSOR_NUMBERS = {
    _COLLISION: COLLISION_SENSOR,
    **cameras.SENSOR_NUMBERS,
    _GNSS: GNSS_SENSOR,
    _IMU: IMU_SENSOR,
    _OBSTACLE: OBSTACLE_SENSOR,
    _LIDAR: LIDAR_SENSOR,
    _SEMANTIC_LIDAR: SEMANTIC_LIDAR_SENSOR,
    _RADAR: RADAR_SENSOR,
}


class WorldView(NamedTuple):
    """Hold what the sensors measure: the state of the world in one frame."""

    scene: Scene
    sky: Sky | None
    """The light and haze; None for a clear day."""
    things: Sequence[Actor]
    """All vehicles, walkers and props."""
    hits: Sequence[Hit]
    """The collision events of this tick."""
    step_s: float
    """The length of the tick."""
    tick: int
    """The number of the tick. It seeds random values, so that the same tick gives the same measurements."""
    roadside: Roadside
    """All traffic lights and signs; cameras show them, other sensors do not."""
    gravity_mps2: float
    """The gravity that inertial sensors measure."""


def sensor_number_of(type_id: str) -> int | None:
    """Return a sensor type's number in CARLA's protocol; None if the server sends no measurements of this type.

    :param type_id: id of the blueprint, such as ``"sensor.other.imu"``
    """
    return _SENSOR_NUMBERS.get(type_id)


def measurement(sensor: Actor, view: WorldView, actor_message: Callable[[Actor], list[Any]]) -> bytes | None:
    """Return what a sensor measures in a tick, as the body of a measurement message.

    :param sensor: any sensor except a collision detector
    :param view: the world in this tick
    :param actor_message: returns the msgpack form of an actor
    :return: the body; None if there is nothing to report
    """
    others = []
    for thing in view.things:
        is_in_the_air = isinstance(thing, Vehicle) and not thing.is_on_ground
        if thing is not sensor.parent and not is_in_the_air:
            others.append(thing)
    body: bytes | None = None
    if sensor.type_id in cameras.SENSOR_NUMBERS:
        body = cameras.image_message(sensor, view.scene, view.sky, view.things, view.tick, view.roadside)
    elif sensor.type_id == _GNSS:
        body = packed(list(geolocation(sensor.world_transform)))
    elif sensor.type_id == _IMU:
        body = packed(_imu_message(sensor, view.gravity_mps2))
    elif sensor.type_id == _LIDAR:
        body = _lidar(sensor, others, view.step_s, view.tick)
    elif sensor.type_id == _SEMANTIC_LIDAR:
        body = _semantic_lidar(sensor, others, view.scene.ground, view.step_s, view.tick)
    elif sensor.type_id == _RADAR:
        body = _radar(sensor, others, view.step_s, view.tick)
    else:
        found = _obstacle_ahead(sensor, others)
        if found is not None and sensor.parent is not None:
            obstacle, distance_m = found
            body = packed([actor_message(sensor.parent), actor_message(obstacle), distance_m])
    return body


_EARTH_RADIUS_M = 6_378_137.0  # WGS 84's equatorial radius
# The projection's scale factor. CARLA 0.9.16's client assumes it for every map, and ignores the map's geoReference.
_SCALE = 0.9996
GRAVITY_MPS2 = 9.81
"""The gravity that inertial sensors measure by default."""


def geolocation(transform: Transform) -> tuple[float, float, float]:
    """Return a location's geographic coordinates, as ``carla.Map.transform_to_geolocation`` computes them.

    This is the inverse of a sphere's transverse Mercator projection (Snyder 1987, "Map Projections: A Working Manual",
    eq. 8-6 and 8-7). As in the client of 0.9.16, the latitude grows with y.

    :param transform: location in CARLA's coordinates
    :return: latitude and longitude in degrees, altitude in metres
    """
    east, north = transform.x / (_EARTH_RADIUS_M * _SCALE), transform.y / (_EARTH_RADIUS_M * _SCALE)
    latitude = math.asin(math.sin(north) / math.cosh(east))
    longitude = math.atan2(math.sinh(east), math.cos(north))
    return math.degrees(latitude), math.degrees(longitude), transform.z


def _imu_message(sensor: Actor, gravity_mps2: float) -> list[object]:
    """Return acceleration in m/s^2 and turn rates in rad/s, in the sensor's coordinates, and the compass in radians.

    The compass is 0 in the direction of CARLA's -y. At rest the sensor measures gravity as an acceleration upwards.
    """
    yaw = math.radians(sensor.world_transform.yaw)
    x, y, z = 0.0, 0.0, 0.0
    yaw_rate_rad_s = 0.0
    if sensor.parent is not None:
        x, y, z = sensor.parent.acceleration
        yaw_rate_rad_s = -sensor.parent.yaw_rate_rad_s  # CARLA's yaw rate is positive to the right
    forward, right = x * math.cos(yaw) + y * math.sin(yaw), y * math.cos(yaw) - x * math.sin(yaw)
    compass = (yaw + 0.5 * math.pi) % (2.0 * math.pi)
    return [[forward, right, z + gravity_mps2], [0.0, 0.0, yaw_rate_rad_s], compass]


# Things farther away than this are not tested against rays.
_MAX_DISTANCE_M = 200.0


class _Echo(NamedTuple):
    """Hold the length of each ray and the vehicle, walker or prop that it hits."""

    distances_m: NDArray[np.float64]
    """The length of each ray, ``(n_rays,)``; ``inf`` where it hits nothing."""
    hit_index: NDArray[np.intp]
    """The index of the vehicle, walker or prop that each ray hits, ``(n_rays,)``; -1 for the ground and for no hit."""


def _obstacle_ahead(sensor: Actor, things: Sequence[Actor]) -> tuple[Actor, float] | None:
    """Return the nearest vehicle, walker or prop ahead and its distance in metres; None if nothing is in range."""
    if sensor.attributes.get("only_dynamics", "").lower() in {"true", "1"}:
        things = [thing for thing in things if not isinstance(thing, Prop)]
    ahead = np.array([[1.0, 0.0, 0.0]])
    radius_m = sensor.float_attribute("hit_radius", 0.5)
    echo = _cast_rays(ahead, sensor.world_transform, things, grow_m=radius_m, has_ground=False)
    if echo.hit_index[0] < 0 or echo.distances_m[0] > sensor.float_attribute("distance", 5.0):
        return None
    return things[echo.hit_index[0]], float(echo.distances_m[0])


def _cast_rays(
    directions: NDArray[np.float64],
    transform: Transform,
    things: Sequence[Actor],
    *,
    grow_m: float = 0.0,
    has_ground: bool = True,
) -> _Echo:
    """Return where rays hit the flat ground at height 0 or the box of an actor.

    :param directions: ``(n_rays, 3)``: unit vectors, (forward, right, up) in the sensor's own coordinates
    :param grow_m: margin in metres by which each box is enlarged
    """
    rays = directions @ axes_of(transform)  # in world coordinates, (n_rays, 3)
    nearest = np.full(len(rays), np.inf)
    if has_ground:
        with np.errstate(divide="ignore", invalid="ignore"):
            nearest = np.where(rays[:, 2] < 0.0, transform.z / -rays[:, 2], np.inf)
    hit_index = np.full(len(rays), -1, np.intp)
    for index, thing in enumerate(things):
        distance = _distance_to_box(rays, transform, thing, grow_m)
        is_nearer = distance < nearest
        nearest[is_nearer], hit_index[is_nearer] = distance[is_nearer], index
    return _Echo(nearest, hit_index)


def _distance_to_box(
    rays: NDArray[np.float64], transform: Transform, thing: Actor, grow_m: float
) -> NDArray[np.float64]:
    """Return the distance at which each ray enters the box of an actor, by the slab method.

    Source: Kay, Kajiya 1986, "Ray tracing complex scenes".

    :return: ``(n_rays,)``; ``inf`` where a ray misses the box or starts inside
    """
    box = thing.box
    if box is None or math.hypot(box.x_m - transform.x, -box.y_m - transform.y) > _MAX_DISTANCE_M:
        return np.full(len(rays), np.inf)
    # Rotate the rays into the box's own coordinates, in which its sides are pairs of planes (slabs) at +-half.
    cos, sin = math.cos(-box.yaw_rad), math.sin(-box.yaw_rad)
    to_box = np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])
    half = np.array([0.5 * box.length_m, 0.5 * box.width_m, thing.extent_m[2]]) + grow_m
    origin = to_box @ (transform.x - box.x_m, transform.y + box.y_m, transform.z - thing.extent_m[2])
    directions = rays @ to_box.T
    with np.errstate(divide="ignore", invalid="ignore"):
        one, two = (-half - origin) / directions, (half - origin) / directions
    # A ray is inside the box between its last entry into a slab and its first exit from one. fmin and fmax skip the NaN
    # of a ray that runs within a plane.
    enter, leave = np.fmin(one, two).max(axis=1), np.fmax(one, two).min(axis=1)
    return np.where((enter <= leave) & (enter > 0.0), enter, np.inf)


class _Scan(NamedTuple):
    """Hold what a rotating lidar measures in one tick, channel by channel."""

    header: bytes
    """The beginning of the measurement's body (sensor/data/SemanticLidarData.h): f32 horizontal angle in radians, u32
    number of channels, then for each channel u32 number of points."""
    rays: NDArray[np.float64]
    """Unit vectors of the rays that hit something, in the sensor's own coordinates, ``(n_points, 3)``."""
    distances_m: NDArray[np.float64]
    """Lengths of the rays in metres, ``(n_points,)``."""
    hit_index: NDArray[np.intp]
    """The index of the vehicle, walker or prop that each ray hits, ``(n_points,)``; -1 for the ground."""


def _lidar(sensor: Actor, things: Sequence[Actor], step_s: float, tick: int) -> bytes:
    """Return the body of a lidar's measurement, whose points are four f32 each: x, y, z and intensity (LidarData.h)."""
    scan = _scan(sensor, things, step_s, tick)
    points = np.empty((len(scan.rays), 4), np.float32)
    points[:, :3] = scan.rays * scan.distances_m[:, None]
    # CARLA's intensity: exp(-attenuation * distance).
    attenuation_rate = sensor.float_attribute("atmosphere_attenuation_rate", 0.004)
    points[:, 3] = np.exp(-attenuation_rate * scan.distances_m)
    return scan.header + points.tobytes()


# sensor/data/SemanticLidarData.h: the place, the cosine of the angle between ray and surface, actor and semantic tag.
_SEMANTIC_POINT = np.dtype([("place", "<3f4"), ("cos_angle", "<f4"), ("actor", "<u4"), ("tag", "<u4")])


def _semantic_lidar(sensor: Actor, things: Sequence[Actor], ground: Ground, step_s: float, tick: int) -> bytes:
    """Return the body of a semantic lidar's measurement, whose points have the format ``_SEMANTIC_POINT``."""
    scan = _scan(sensor, things, step_s, tick)
    points = np.zeros(len(scan.rays), _SEMANTIC_POINT)
    points["place"] = scan.rays * scan.distances_m[:, None]
    transform = sensor.world_transform
    rays = scan.rays @ axes_of(transform)  # in world coordinates
    places = (transform.x, transform.y, transform.z) + rays * scan.distances_m[:, None]
    points["cos_angle"] = np.abs(rays[:, 2])  # the ground and the tops of things are level
    points["tag"] = np.where(_is_paved(ground, places), ROAD, TERRAIN)
    for index, thing in enumerate(things):
        is_hit = scan.hit_index == index
        if is_hit.any():
            points["actor"][is_hit], points["tag"][is_hit] = thing.id, thing.semantic_tags[0]
            points["cos_angle"][is_hit] = _cos_at_box(rays[is_hit], places[is_hit], thing)
    return scan.header + points.tobytes()


def _is_paved(ground: Ground, places: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return for each place in CARLA's coordinates, ``(n_places, 3)``, whether it is on a road."""
    # The y axis of the embedded world points the other way.
    homogeneous = np.stack([places[:, 0], -places[:, 1], np.ones(len(places))])
    columns, rows = (ground.from_world(PAVED_LEVEL) @ homogeneous)[:2].round().astype(int)
    height, width = ground.paved.shape
    is_inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    is_paved = ground.paved[rows.clip(0, height - 1), columns.clip(0, width - 1)] > 127
    return np.asarray(is_inside & is_paved)


def _cos_at_box(rays: NDArray[np.float64], places: NDArray[np.float64], thing: Actor) -> NDArray[np.float64]:
    """Return the cosine of each ray's angle of incidence (between ray and surface normal) on an actor's box."""
    box = thing.box
    assert box is not None
    cos, sin = math.cos(-box.yaw_rad), math.sin(-box.yaw_rad)
    to_box = np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])
    half = np.array([0.5 * box.length_m, 0.5 * box.width_m, thing.extent_m[2]])
    inside = (places - (box.x_m, -box.y_m, thing.extent_m[2])) @ to_box.T
    side = np.argmax(np.abs(inside) / half, axis=1)
    return np.asarray(np.abs((rays @ to_box.T)[np.arange(len(rays)), side]))


def _scan(sensor: Actor, things: Sequence[Actor], step_s: float, tick: int) -> _Scan:
    """Return the points that a lidar measures while it turns for one tick."""
    n_channels = int(sensor.float_attribute("channels", 32))
    points_per_second = sensor.float_attribute("points_per_second", 56_000)
    n_per_channel = max(1, round(points_per_second * step_s / n_channels))
    turned_deg = 360.0 * sensor.float_attribute("rotation_frequency", 10.0) * step_s  # in this tick
    fov_deg = sensor.float_attribute("horizontal_fov", 360.0)
    start_deg = turned_deg * tick
    azimuths_deg = start_deg + turned_deg * np.arange(n_per_channel) / n_per_channel
    azimuths = np.radians(azimuths_deg % fov_deg - 0.5 * fov_deg)
    upper, lower = sensor.float_attribute("upper_fov", 10.0), sensor.float_attribute("lower_fov", -30.0)
    elevations = np.radians(np.linspace(upper, lower, n_channels))
    # All combinations, channel by channel: (n_channels * n_per_channel,) each.
    elevation, azimuth = (grid.ravel() for grid in np.meshgrid(elevations, azimuths, indexing="ij"))
    rays = _directions(azimuth, elevation)
    echo = _cast_rays(rays, sensor.world_transform, things)
    is_seen = echo.distances_m <= sensor.float_attribute("range", 10.0)
    n_by_channel = is_seen.reshape(n_channels, -1).sum(axis=1).astype(np.uint32)
    angle = np.array([math.radians(start_deg % 360.0)], np.float32).tobytes()
    header: bytes = angle + np.uint32(n_channels).tobytes() + n_by_channel.tobytes()
    return _Scan(header, rays[is_seen], echo.distances_m[is_seen], echo.hit_index[is_seen])


def _radar(sensor: Actor, things: Sequence[Actor], step_s: float, tick: int) -> bytes:
    """Return the body of a radar's measurement.

    Each detection consists of four f32 values: velocity, azimuth, altitude and depth. The velocity is relative to
    the sensor, along the ray, and positive away from the sensor.
    """
    n_rays = max(1, round(sensor.float_attribute("points_per_second", 1500) * step_s))
    rng = np.random.default_rng([sensor.id, tick])
    # The square root makes the density uniform over the disc; without it the middle would be crowded.
    radius, angle = np.sqrt(rng.random(n_rays)), rng.uniform(0.0, 2.0 * np.pi, n_rays)
    azimuth = np.radians(0.5 * sensor.float_attribute("horizontal_fov", 30.0)) * radius * np.cos(angle)
    altitude = np.radians(0.5 * sensor.float_attribute("vertical_fov", 30.0)) * radius * np.sin(angle)
    rays = _directions(azimuth, altitude)
    transform = sensor.world_transform
    echo = _cast_rays(rays, transform, things)
    own_velocity = np.zeros(3)
    if sensor.parent is not None:
        own_velocity = np.array(sensor.parent.velocity)
    # The last row is the ground's velocity: the index -1 selects it.
    velocities = np.array([thing.velocity for thing in things] + [(0.0, 0.0, 0.0)])[echo.hit_index]  # (n_rays, 3)
    along_ray = ((velocities - own_velocity) * (rays @ axes_of(transform))).sum(axis=1)
    is_seen = echo.distances_m <= sensor.float_attribute("range", 100.0)
    detections = np.stack([along_ray, azimuth, altitude, echo.distances_m], axis=1)[is_seen]
    return bytes(detections.astype(np.float32).tobytes())


def _directions(azimuth: NDArray[np.float64], elevation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return unit vectors (forward, right, up), ``(n, 3)``, in given directions.

    :param azimuth: ``(n,)``: angles to the right, in radians
    :param elevation: ``(n,)``: angles above the sensor's horizontal plane, in radians
    """
    horizontal = np.cos(elevation)
    return np.stack([horizontal * np.cos(azimuth), horizontal * np.sin(azimuth), np.sin(elevation)], axis=1)
