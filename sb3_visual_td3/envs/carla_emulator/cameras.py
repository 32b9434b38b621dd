"""What a camera of the emulator sends: BGRA, depth and semantic images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.envs.backend import CAMERA_AHEAD_M, CAMERA_HEIGHT_M, CHASE_AHEAD_M, CHASE_HEIGHT_M
from sb3_visual_td3.envs.carla_emulator.actors import Actor
from sb3_visual_td3.envs.carla_emulator.blocks import Face, carve, paint, seen_faces
from sb3_visual_td3.envs.carla_emulator.free_camera import FAR_M, FreeCamera, axes_of, free_camera
from sb3_visual_td3.envs.carla_emulator.records import DEPTH_SENSOR, RGB_SENSOR, SEMANTIC_SENSOR, Transform, image_body
from sb3_visual_td3.envs.carla_emulator.vehicles import CAR, Vehicle
from sb3_visual_td3.envs.lite.camera import (
    CAMERA_BANDS,
    PICTURE_BANDS,
    Camera,
    tinted,
    tinted_by_kind,
)
from sb3_visual_td3.envs.lite.car_painter import paint_cars
from sb3_visual_td3.envs.lite.weather import Sky, WeatherFilter
from sb3_visual_td3.envs.road.ground import PAVED_LEVEL
from sb3_visual_td3.envs.road.maps import LiteMap

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
    picture = tinted(camera.draw(scene, *pose), camera.paved(scene, *pose, level=PAVED_LEVEL), camera.lens.height // 2)
    weather = None if sky is None else camera.weather_filter(sky)
    if weather is not None:
        weather.put_on(picture)
    if cars:
        paint_cars(picture, [car.box for car in cars], [car.paint for car in cars], pose, camera.lens, sky)
    if weather is not None:
        weather.rain_on(picture, tick)
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
    picture = tinted_by_kind(camera.grey(scene, place), camera.paved(scene, place), camera.is_sky)
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
        WeatherFilter(sky, rows, np.zeros(camera.width), camera.height // 2).rain_on(picture, tick)
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2BGRA), np.uint8)


def _encoded_depth(depth_m: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return metres / 1000 as 24 bits: red the lowest, then green, then blue."""
    steps = np.rint(depth_m.astype(np.float64) * (_DEPTH_STEPS / FAR_M)).astype(np.uint32)
    image = np.empty((*depth_m.shape, 4), np.uint8)
    image[..., 2], image[..., 1], image[..., 0] = steps & 255, (steps >> 8) & 255, steps >> 16
    image[..., 3] = 255
    return image
