"""What a camera of the emulator sends: BGRA, depth and semantic images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.envs.carla_emulator.actors import CAR, Actor, Vehicle
from sb3_visual_td3.envs.carla_emulator.free_camera import FAR_M, CarBox, FreeCamera
from sb3_visual_td3.envs.carla_emulator.records import DEPTH_SENSOR, RGB_SENSOR, SEMANTIC_SENSOR, Transform, image_body
from sb3_visual_td3.envs.lite.camera import (
    CAMERA_AHEAD_M,
    CAMERA_BANDS,
    CAMERA_HEIGHT_M,
    CHASE_AHEAD_M,
    CHASE_HEIGHT_M,
    PICTURE_BANDS,
    Camera,
)
from sb3_visual_td3.envs.lite.car_painter import CAR_HEIGHT_M, PAINTS, paint_cars
from sb3_visual_td3.envs.lite.ground import PAVED_LEVEL
from sb3_visual_td3.envs.lite.maps import LiteMap
from sb3_visual_td3.envs.lite.tint import tinted
from sb3_visual_td3.envs.lite.weather import Sky

KINDS = {
    "sensor.camera.rgb": RGB_SENSOR,
    "sensor.camera.depth": DEPTH_SENSOR,
    "sensor.camera.semantic_segmentation": SEMANTIC_SENSOR,
}
_SMALL_ROWS = 128
_MOUNTS = ((CAMERA_AHEAD_M, CAMERA_HEIGHT_M), (CHASE_AHEAD_M, CHASE_HEIGHT_M))
"""Ahead and up: where the embedded world's own cameras sit, which are fast."""
_DEPTH_STEPS = 256**3 - 1


def image_message(sensor: Actor, scene: LiteMap, sky: Sky | None, vehicles: Sequence[Vehicle], tick: int) -> bytes:
    """Return the body of a camera's measurement.

    :param sensor: the camera.
    :param scene: the map.
    :param sky: the weather; None: a clear day.
    :param vehicles: all that there are.
    :param tick: of the simulation, for what moves in the weather.
    """
    asked = sensor.attributes
    width, height = int(asked["image_size_x"]), int(asked["image_size_y"])
    fov_deg = float(asked.get("fov", 90.0))
    kind = KINDS[sensor.type_id]
    mount = _plain_mount(sensor, fov_deg, height, width) if kind == RGB_SENSOR else None
    others = [vehicle for vehicle in vehicles if mount is None or vehicle is not sensor.parent or mount[0] < 0.0]
    if mount is not None:
        assert isinstance(sensor.parent, Vehicle)
        pixels = _plain_image(_plain_camera(height, width, *mount), scene, sky, sensor.parent, others, tick)
    else:
        place = sensor.world_place
        seen = [each for each in vehicles if each is not sensor.parent or _sees_carrier(sensor.place)]
        boxes = [CarBox(each.box, CAR_HEIGHT_M, _grey(each.paint)) for each in seen]
        pixels = _free_image(kind, FreeCamera(height, width, fov_deg), scene, place, boxes)
    return image_body(width, height, fov_deg, pixels.tobytes())


def _plain_mount(sensor: Actor, fov_deg: float, height: int, width: int) -> tuple[float, float] | None:
    """Return ahead and up where a camera sits as one of the embedded world's own does."""
    x, y, z, *angles = sensor.place
    is_level = y == 0.0 and not any(angles) and fov_deg == 90.0 and height % 2 == width % 2 == 0
    if not isinstance(sensor.parent, Vehicle) or not is_level:
        return None
    return next((mount for mount in _MOUNTS if np.allclose((x, z), mount, atol=1e-4)), None)


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
    kind: int, camera: FreeCamera, scene: LiteMap, place: Transform, cars: Sequence[CarBox]
) -> NDArray[np.uint8]:
    if kind == DEPTH_SENSOR:
        return _encoded_depth(camera.depth_m(place, cars))
    if kind == SEMANTIC_SENSOR:
        kinds = camera.kinds(scene, place, cars)
        image = np.zeros((*kinds.shape, 4), np.uint8)
        image[..., 2], image[..., 3] = kinds, 255  # CARLA puts the tag into red
        return image
    grey = camera.grey(scene, place, cars)
    colours = tinted(grey, camera.paved(scene, place), 0)
    is_sky = camera.sees_sky(place)
    colours[is_sky] = tinted(grey, grey, len(grey))[is_sky]
    return np.asarray(cv2.cvtColor(colours, cv2.COLOR_RGB2BGRA), np.uint8)


def _encoded_depth(depth_m: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return metres / 1000 as 24 bits: red the lowest, then green, then blue."""
    steps = np.rint(depth_m.astype(np.float64) / FAR_M * _DEPTH_STEPS).astype(np.uint32)
    image = np.empty((*depth_m.shape, 4), np.uint8)
    image[..., 2], image[..., 1], image[..., 0] = steps & 255, (steps >> 8) & 255, steps >> 16
    image[..., 3] = 255
    return image


def _grey(paint: int) -> int:
    red, green, blue = PAINTS[paint]
    return round(0.299 * red + 0.587 * green + 0.114 * blue)
