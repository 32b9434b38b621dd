"""The emulator's camera sensors: RGB, depth and semantic pictures, with other actors drawn as blocks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.envs.backend import CAMERA_AHEAD_M, CAMERA_HEIGHT_M, CHASE_AHEAD_M, CHASE_HEIGHT_M
from sb3_visual_td3.envs.carla_emulator.actors import Actor
from sb3_visual_td3.envs.carla_emulator.free_camera import FAR_M, FreeCamera, axes_of, free_camera
from sb3_visual_td3.envs.carla_emulator.records import DEPTH_SENSOR, RGB_SENSOR, SEMANTIC_SENSOR, Transform, image_body
from sb3_visual_td3.envs.carla_emulator.vehicles import CAR, Vehicle
from sb3_visual_td3.envs.lite.camera import (
    CAMERA_BANDS,
    PICTURE_BANDS,
    Camera,
    tint,
    tint_by_kind,
)
from sb3_visual_td3.envs.lite.car_painter import CAR_HEIGHT_M, clip_to_near_plane, paint_cars
from sb3_visual_td3.envs.lite.weather import Sky, WeatherFilter
from sb3_visual_td3.envs.road.collision import OrientedBox
from sb3_visual_td3.envs.road.ground import PAVED_LEVEL
from sb3_visual_td3.envs.road.maps import LiteMap

Colour = tuple[int, int, int]

MAX_DISTANCE_M = 150.0
_GLASS, _SHADOW, _CLOTHES = (38, 44, 52), (28, 28, 30), (150, 90, 60)
_ROOF_SHADE = 1.0
_SHADES = (0.92, 0.78, 0.85, 0.70)
"""Of the front, the left, the rear and the right side."""
_SHIFT = 4


class Block(NamedTuple):
    """A box that stands upright."""

    box: OrientedBox
    low_m: float
    high_m: float
    sides: Colour
    roof: Colour
    tag: int
    is_solid: bool = True
    """False for what is painted on the ground."""


class Face(NamedTuple):
    """A side of a block that looks at the camera."""

    corners: NDArray[np.float64]
    """``(n, 3)``: depth, left and up in metres from the camera."""
    colour: Colour
    shade: float
    block: Block
    distance_m: float


def blocks_of(actor: Actor) -> list[Block]:
    """Return what an actor looks like: from the ground upwards."""
    box = actor.box
    if box is None:
        return []
    tag = actor.tags[0]
    if not isinstance(actor, Vehicle):
        return [Block(box, 0.0, 2.0 * actor.extent_m[2], _CLOTHES, _CLOTHES, tag)]
    if not actor.is_on_ground:
        return []
    x, y, yaw, length, width = box
    back = 0.06 * length
    cabin = OrientedBox(x - back * math.cos(yaw), y - back * math.sin(yaw), yaw, 0.55 * length, 0.88 * width)
    shadow = OrientedBox(x, y, yaw, length + 0.2, width + 0.2)
    paint = actor.colour
    return [
        Block(shadow, 0.0, 0.0, _SHADOW, _SHADOW, tag, is_solid=False),
        Block(box, 0.2, 0.85, paint, paint, tag),
        Block(cabin, 0.85, CAR_HEIGHT_M, _GLASS, paint, tag),
    ]


def seen_faces(actors: Sequence[Actor], place: Transform, axes: NDArray[np.float64]) -> list[Face]:
    """Return the faces that look at a camera, the farthest actor's first.

    :param actors: what may be seen.
    :param place: of the camera, in CARLA's coordinates.
    :param axes: the camera's forward, right and up as rows, likewise.
    """
    found: list[tuple[float, list[Face]]] = []
    for actor in actors:
        box = actor.box
        if box is None:
            continue
        distance = math.dist((box.x_m, -box.y_m, 0.0), (place.x, place.y, place.z))
        if distance > MAX_DISTANCE_M:
            continue
        faces = [face for block in blocks_of(actor) for face in _faces_of(block, place, axes, distance)]
        found.append((distance, faces))
    found.sort(key=lambda each: -each[0])
    return [face for _, faces in found for face in faces]


def paint(
    picture: NDArray[np.uint8], face: Face, focal: float, value: Colour | tuple[float, ...], *, is_smooth: bool
) -> None:
    """Fill a face, in place."""
    pixels = _pixels_of(face, focal, picture.shape[:2])
    line = cv2.LINE_AA if is_smooth else cv2.LINE_8
    cv2.fillConvexPoly(picture, np.rint(pixels * 2**_SHIFT).astype(np.int32), value, line, _SHIFT)


def carve(depth_m: NDArray[np.float32], face: Face, focal: float) -> None:
    """Bring the depth of a face into a picture of depths, in place."""
    height, width = depth_m.shape
    pixels = _pixels_of(face, focal, (height, width))
    left, top = np.clip(np.floor(pixels.min(axis=0)), 0, (width, height)).astype(int)
    right, bottom = np.clip(np.ceil(pixels.max(axis=0)) + 1, 0, (width, height)).astype(int)
    if left >= right or top >= bottom:
        return
    mask = np.zeros((bottom - top, right - left), np.uint8)
    cv2.fillConvexPoly(mask, np.rint((pixels - (left, top)) * 2**_SHIFT).astype(np.int32), 1, cv2.LINE_8, _SHIFT)
    one, two, three = face.corners[:3]
    normal = np.cross(two - one, three - one)
    aside = (0.5 * width - np.arange(left, right) - 0.5) / focal
    up = (0.5 * height - np.arange(top, bottom) - 0.5) / focal
    slope = normal[0] + normal[1] * aside[None] + normal[2] * up[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        plane = (normal @ one) / slope
    # A pixel that the face just touches may see its plane far beyond its edge, where that is seen at a flat angle.
    plane = np.clip(plane, float(face.corners[:, 0].min()), float(face.corners[:, 0].max()))
    part = depth_m[top:bottom, left:right]
    is_nearer = (mask > 0) & (plane < part)
    part[is_nearer] = plane[is_nearer]


def _faces_of(block: Block, place: Transform, axes: NDArray[np.float64], distance_m: float) -> Iterator[Face]:
    box = block.box
    cos, sin = math.cos(box.yaw_rad), math.sin(box.yaw_rad)
    half_l, half_w = 0.5 * box.length_m, 0.5 * box.width_m
    # The camera in the block's own axes tells which sides face it.
    dx, dy = place.x - box.x_m, -place.y - box.y_m
    ahead, aside = dx * cos + dy * sin, dy * cos - dx * sin
    corners = ((half_l, -half_w), (half_l, half_w), (-half_l, half_w), (-half_l, -half_w))
    faces = (ahead > half_l, aside > half_w, ahead < -half_l, aside < -half_w)
    floor = _from_camera(corners, block.low_m, box, place, axes)
    roof = _from_camera(corners, block.high_m, box, place, axes)
    for side, is_seen in enumerate(faces):
        if is_seen and block.high_m > block.low_m:
            wall = (floor[side], floor[(side + 1) % 4], roof[(side + 1) % 4], roof[side])
            yield from _clipped(wall, block.sides, _SHADES[side], block, distance_m)
    if place.z > block.high_m:
        yield from _clipped(roof, block.roof, _ROOF_SHADE, block, distance_m)


def _clipped(
    corners: Sequence[NDArray[np.float64]] | NDArray[np.float64],
    colour: Colour,
    shade: float,
    block: Block,
    distance_m: float,
) -> Iterator[Face]:
    kept = clip_to_near_plane([(float(depth), float(left), float(up)) for depth, left, up in corners])
    if len(kept) >= 3:
        yield Face(np.array(kept), colour, shade, block, distance_m)


def _from_camera(
    corners: Sequence[tuple[float, float]],
    up_m: float,
    box: OrientedBox,
    place: Transform,
    axes: NDArray[np.float64],
) -> NDArray[np.float64]:
    cos, sin = math.cos(box.yaw_rad), math.sin(box.yaw_rad)
    points = [
        (
            box.x_m + along * cos - across * sin - place.x,
            -(box.y_m + along * sin + across * cos) - place.y,
            up_m - place.z,
        )
        for along, across in corners
    ]
    return np.asarray((np.array(points) @ axes.T) * (1.0, -1.0, 1.0))


def _pixels_of(face: Face, focal: float, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return columns and rows ``(n, 2)``; pixel centres are whole numbers."""
    height, width = shape
    depth, left, up = face.corners.T
    limit = 16.0 * max(shape)
    columns = 0.5 * width - 0.5 - focal * left / depth
    rows = 0.5 * height - 0.5 - focal * up / depth
    return np.asarray(np.clip(np.stack([columns, rows], axis=1), -limit, limit))


KINDS = {
    "sensor.camera.rgb": RGB_SENSOR,
    "sensor.camera.depth": DEPTH_SENSOR,
    "sensor.camera.semantic_segmentation": SEMANTIC_SENSOR,
}
_SMALL_ROWS = 128
_MOUNTS = ((CAMERA_AHEAD_M, CAMERA_HEIGHT_M), (CHASE_AHEAD_M, CHASE_HEIGHT_M))
"""Ahead and up: where the embedded world's own cameras sit, which are fast."""
_DEPTH_STEPS = 256**3 - 1
_ROUND_M, _ROUND_DEG = 3, 3
"""Decimals: cameras that differ by less are one, whose geometry is worked out once."""


def image_message(sensor: Actor, scene: LiteMap, sky: Sky | None, things: Sequence[Actor], tick: int) -> bytes:
    """Return the body of a camera's measurement.

    :param sensor: the camera.
    :param scene: the map.
    :param sky: the weather; None: a clear day.
    :param things: vehicles and walkers.
    :param tick: of the simulation, for what moves in the weather.
    """
    width, height = int(sensor.number_of("image_size_x", 800)), int(sensor.number_of("image_size_y", 600))
    fov_deg = sensor.number_of("fov", 90.0)
    kind = KINDS[sensor.type_id]
    mount = _plain_mount(sensor, fov_deg, height, width) if kind == RGB_SENSOR else None
    if mount is not None and all(isinstance(each, Vehicle) for each in things):
        assert isinstance(sensor.parent, Vehicle)
        cars = [
            each
            for each in things
            if isinstance(each, Vehicle) and each.is_on_ground and (each is not sensor.parent or mount[0] < 0.0)
        ]
        pixels = _plain_image(_plain_camera(height, width, *mount), scene, sky, sensor.parent, cars, tick)
    else:
        seen = [each for each in things if each is not sensor.parent or _sees_carrier(sensor.place)]
        pixels = _free_image(kind, (height, width), sensor, scene, sky, seen, tick)
    return image_body(width, height, fov_deg, pixels.tobytes())


def _plain_mount(sensor: Actor, fov_deg: float, height: int, width: int) -> tuple[float, float] | None:
    """Return ahead and up where a camera sits as one of the embedded world's own does."""
    x, y, z, *angles = sensor.place
    is_level = y == 0.0 and not any(angles) and fov_deg == 90.0 and height % 2 == width % 2 == 0
    if not isinstance(sensor.parent, Vehicle) or not sensor.parent.is_on_ground or not is_level:
        return None
    return next((each for each in _MOUNTS if abs(x - each[0]) < 1e-4 and abs(z - each[1]) < 1e-4), None)


def _sees_carrier(place: Transform) -> bool:
    """Return whether a camera sits outside of the vehicle that carries it."""
    return abs(place.x) > 0.5 * CAR.length_m + 0.1 or abs(place.y) > 0.5 * CAR.width_m + 0.1 or place.z > 2.0


@lru_cache(maxsize=16)
def _plain_camera(height: int, width: int, ahead_m: float, height_m: float) -> Camera:
    bands = CAMERA_BANDS if height <= _SMALL_ROWS else PICTURE_BANDS
    return Camera(height, width, bands, ahead_m=ahead_m, height_m=height_m)


def _plain_image(
    camera: Camera, scene: LiteMap, sky: Sky | None, carrier: Vehicle, cars: Sequence[Vehicle], tick: int
) -> NDArray[np.uint8]:
    pose = carrier.pose
    picture = tint(camera.draw(scene, *pose), camera.paved(scene, *pose, level=PAVED_LEVEL), camera.lens.height // 2)
    weather = None if sky is None else camera.weather_filter(sky)
    if weather is not None:
        weather.apply(picture)
    if cars:
        paint_cars(picture, [car.box for car in cars], [car.paint for car in cars], pose, camera.lens, sky)
    if weather is not None:
        weather.draw_rain(picture, tick)
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2BGRA), np.uint8)


def _free_image(
    kind: int,
    size: tuple[int, int],
    sensor: Actor,
    scene: LiteMap,
    sky: Sky | None,
    things: Sequence[Actor],
    tick: int,
) -> NDArray[np.uint8]:
    place = sensor.world_place
    pitch, roll = round(place.pitch, _ROUND_DEG), round(place.roll, _ROUND_DEG)
    camera = free_camera(*size, sensor.number_of("fov", 90.0), round(place.z, _ROUND_M), pitch, roll)
    faces = seen_faces(things, place, axes_of(place))
    if kind == DEPTH_SENSOR:
        depth = camera.depth_m()
        for face in faces:
            if face.block.is_solid:
                carve(depth, face, camera.focal)
        return _encoded_depth(depth)
    if kind == SEMANTIC_SENSOR:
        kinds = camera.kinds(scene, place)
        for face in faces:
            if face.block.is_solid:
                paint(kinds, face, camera.focal, (face.block.tag,), is_smooth=False)
        image = np.zeros((*kinds.shape, 4), np.uint8)
        image[..., 2], image[..., 3] = kinds, 255  # CARLA puts the tag into red
        return image
    has_headlights = isinstance(sensor.parent, Vehicle)
    light = sky if sky is None or has_headlights else sky._replace(beam=0.0)
    return _free_picture(camera, scene, light, place, faces, tick)


def _free_picture(
    camera: FreeCamera, scene: LiteMap, sky: Sky | None, place: Transform, faces: Sequence[Face], tick: int
) -> NDArray[np.uint8]:
    picture = tint_by_kind(camera.grey(scene, place), camera.paved(scene, place), camera.is_sky)
    if sky is not None:
        gain, veil = sky.gains_and_veils(camera.distances_m, camera.sides)
        gain[camera.is_sky], veil[camera.is_sky] = sky.sky_ambient, 0.0
        picture = np.clip(picture * gain[..., None] + veil[..., None], 0.0, 255.0).astype(np.uint8)
    for face in faces:
        gain_here, veil_here = (1.0, 0.0) if sky is None else sky.gain_and_veil(face.distance_m, 0.0)
        value = tuple(part * face.shade * gain_here + veil_here for part in face.colour)
        paint(picture, face, camera.focal, value, is_smooth=True)
    if sky is not None and sky.streaks:
        rows = np.ones(camera.height - camera.height // 2)
        WeatherFilter(sky, rows, np.zeros(camera.width), camera.height // 2).draw_rain(picture, tick)
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2BGRA), np.uint8)


def _encoded_depth(depth_m: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return metres / 1000 as 24 bits: red the lowest, then green, then blue."""
    steps = np.rint(depth_m.astype(np.float64) * (_DEPTH_STEPS / FAR_M)).astype(np.uint32)
    image = np.empty((*depth_m.shape, 4), np.uint8)
    image[..., 2], image[..., 1], image[..., 0] = steps & 255, (steps >> 8) & 255, steps >> 16
    image[..., 3] = 255
    return image
