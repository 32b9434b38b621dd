"""A camera anywhere and at any angle, which sees grey, depth and kinds of things; slower than the embedded world's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.envs.carla_emulator.records import Transform
from sb3_visual_td3.envs.lite.collision import OrientedBox
from sb3_visual_td3.envs.lite.ground import PAVED_LEVEL
from sb3_visual_td3.envs.lite.maps import LiteMap

ROAD, ROAD_LINE, TERRAIN, SKY, CAR = 1, 24, 10, 11, 14
"""CARLA's semantic tags."""
FAR_M = 1000.0
_MARK_GREY = 175
_LEVEL_FROM_M = ((0.0, 0), (15.0, 1), (40.0, 3))
_FINE = 2
"""Samples per pixel along each axis, of grey."""
_SHADES = (0.92, 0.78, 0.85, 0.70)


class CarBox(NamedTuple):
    """A car as a block."""

    box: OrientedBox
    height_m: float
    grey: int


class _Rays(NamedTuple):
    """Where each pixel looks: all ``(height, width)``."""

    x_m: NDArray[np.float32]
    y_m: NDArray[np.float32]
    depth_m: NDArray[np.float32]
    """Along the camera's axis; ``FAR_M`` where it sees the sky."""
    azimuth_rad: NDArray[np.float32]
    rise: NDArray[np.float32]
    """Tangent of the elevation."""


class FreeCamera:
    """Draws ``(height, width)`` pictures.

    :param height: in pixels.
    :param width: in pixels.
    :param fov_deg: horizontal angle of view.
    """

    def __init__(self, height: int, width: int, fov_deg: float) -> None:
        self._height, self._width = height, width
        self._focal = 0.5 * width / math.tan(math.radians(0.5 * fov_deg))

    def grey(self, scene: LiteMap, place: Transform, cars: Sequence[CarBox]) -> NDArray[np.uint8]:
        """Return the picture in grey."""
        rays = self._rays(place, _FINE)
        picture = np.where(rays.rise >= 0.0, _sky(scene, rays), _ground(scene, rays)).astype(np.uint8)
        picture = np.asarray(cv2.resize(picture, (self._width, self._height), interpolation=cv2.INTER_AREA), np.uint8)
        self._draw_cars(picture, place, cars, [car.grey for car in cars])
        return picture

    def paved(self, scene: LiteMap, place: Transform) -> NDArray[np.uint8]:
        """Return 255 where the road is seen, elsewhere 0."""
        rays = self._rays(place, 1)
        seen = _looked_up(scene, rays, scene.ground.paved, PAVED_LEVEL, 0)
        return np.where(rays.rise >= 0.0, 0, seen).astype(np.uint8)

    def sees_sky(self, place: Transform) -> NDArray[np.bool_]:
        """Return where nothing is seen."""
        return np.asarray(self._rays(place, 1).rise >= 0.0)

    def depth_m(self, place: Transform, cars: Sequence[CarBox]) -> NDArray[np.float32]:
        """Return how far everything is along the camera's axis, at most ``FAR_M``."""
        depth = self._rays(place, 1).depth_m
        for car in sorted(cars, key=lambda each: -self._distance_m(place, each)):
            mask = np.zeros(depth.shape, np.uint8)
            self._draw_cars(mask, place, [car], [255])
            nearest = self._distance_m(place, car) - 0.5 * car.box.length_m
            np.minimum(depth, np.float32(max(0.0, nearest)), out=depth, where=mask > 0)
        return depth

    def kinds(self, scene: LiteMap, place: Transform, cars: Sequence[CarBox]) -> NDArray[np.uint8]:
        """Return CARLA's tag of what is seen."""
        rays = self._rays(place, 1)
        paved = self.paved(scene, place) > 127
        is_mark = paved & (_ground(scene, rays) >= _MARK_GREY)
        kinds = np.where(paved, ROAD, TERRAIN).astype(np.uint8)
        kinds[is_mark] = ROAD_LINE
        kinds[rays.rise >= 0.0] = SKY
        self._draw_cars(kinds, place, cars, [CAR] * len(cars), shades=(1.0,) * 4)
        return kinds

    def _rays(self, place: Transform, fine: int) -> _Rays:
        columns = (np.arange(self._width * fine) + 0.5) / fine - 0.5 * self._width
        rows = (np.arange(self._height * fine) + 0.5) / fine - 0.5 * self._height
        right, down = np.meshgrid(columns / self._focal, rows / self._focal)
        axes = _axes(place)
        x, y, z = (axes[0, i] + right * axes[1, i] - down * axes[2, i] for i in range(3))
        with np.errstate(divide="ignore", invalid="ignore"):
            depth = np.where(z < -1e-9, place.z / -z, FAR_M)
        depth = np.clip(depth, 0.0, FAR_M)
        rise = z / np.maximum(np.hypot(x, y), 1e-9)
        parts = (place.x + depth * x, -(place.y + depth * y), depth, np.arctan2(-y, x), rise)
        return _Rays(*(part.astype(np.float32) for part in parts))

    def _distance_m(self, place: Transform, car: CarBox) -> float:
        offset = np.array([car.box.x_m - place.x, -car.box.y_m - place.y, 0.5 * car.height_m - place.z])
        return float(offset @ _axes(place)[0])

    def _draw_cars(
        self,
        picture: NDArray[np.uint8],
        place: Transform,
        cars: Sequence[CarBox],
        greys: Sequence[int],
        shades: Sequence[float] = _SHADES,
    ) -> None:
        order = sorted(range(len(cars)), key=lambda n: -self._distance_m(place, cars[n]))
        for number in order:
            corners = self._pixels_of(place, cars[number])
            if corners is None:
                continue
            for side, shade in enumerate(shades):
                wall = corners[[side, (side + 1) % 4, (side + 1) % 4 + 4, side + 4]]
                cv2.fillConvexPoly(picture, cv2.convexHull(wall), int(greys[number] * shade))
            cv2.fillConvexPoly(picture, cv2.convexHull(corners[4:]), int(greys[number]))

    def _pixels_of(self, place: Transform, car: CarBox) -> NDArray[np.int32] | None:
        """Return the block's corners, four on the ground and four above; None where it is not before the camera."""
        cos, sin = math.cos(car.box.yaw_rad), math.sin(car.box.yaw_rad)
        half_l, half_w = 0.5 * car.box.length_m, 0.5 * car.box.width_m
        corners = []
        for up in (0.0, car.height_m):
            for along, left in ((half_l, -half_w), (half_l, half_w), (-half_l, half_w), (-half_l, -half_w)):
                x, y = car.box.x_m + along * cos - left * sin, car.box.y_m + along * sin + left * cos
                corners.append((x - place.x, -y - place.y, up - place.z))
        depth, right, up_ = _axes(place) @ np.array(corners).T
        if depth.min() < 0.2 or depth.min() > 150.0:
            return None
        columns = 0.5 * self._width + self._focal * right / depth
        rows = 0.5 * self._height - self._focal * up_ / depth
        limit = 8 * max(self._width, self._height)
        return np.asarray(np.clip(np.stack([columns, rows], axis=1), -limit, limit), np.int32)


def _axes(place: Transform) -> NDArray[np.float64]:
    """Return the camera's forward, right and up as rows, in CARLA's coordinates."""
    pitch, yaw, roll = (math.radians(angle) for angle in (place.pitch, place.yaw, place.roll))
    cp, sp, cy, sy, cr, sr = (f(a) for a in (pitch, yaw, roll) for f in (math.cos, math.sin))
    return np.array(
        [
            [cp * cy, cp * sy, sp],
            [cy * sp * sr - sy * cr, sy * sp * sr + cy * cr, -cp * sr],
            [-(cy * sp * cr + sy * sr), cy * sr - sy * sp * cr, cp * cr],
        ]
    )


def _sky(scene: LiteMap, rays: _Rays) -> NDArray[np.uint8]:
    rows, columns = scene.panorama.shape
    column = (rays.azimuth_rad / (2.0 * np.pi) % 1.0) * columns
    row = np.clip(rows - 1 - rays.rise * rows, 0, rows - 1)
    sky = cv2.remap(scene.panorama, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    return np.asarray(sky, np.uint8)


def _ground(scene: LiteMap, rays: _Rays) -> NDArray[np.uint8]:
    picture: NDArray[np.uint8] | None = None
    for from_m, level in _LEVEL_FROM_M:
        drawn = _looked_up(scene, rays, scene.ground.levels[level], level, scene.ground.grey)
        picture = drawn if picture is None else np.where(rays.depth_m >= from_m, drawn, picture)
    assert picture is not None
    return picture


def _looked_up(scene: LiteMap, rays: _Rays, raster: NDArray[np.uint8], level: int, outside: int) -> NDArray[np.uint8]:
    matrix = scene.ground.from_world(level)
    columns = (rays.x_m * matrix[0, 0] + matrix[0, 2]).astype(np.float32)
    rows = (rays.y_m * matrix[1, 1] + matrix[1, 2]).astype(np.float32)
    found = cv2.remap(raster, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=outside)
    return np.asarray(found, np.uint8)
