"""A forward camera: the ground raster in perspective, the panorama above the horizon, and their colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.envs.backend import CAMERA_AHEAD_M, CAMERA_HEIGHT_M
from sb3_visual_td3.envs.lite.car_painter import Lens
from sb3_visual_td3.envs.lite.weather import Sky, WeatherFilter
from sb3_visual_td3.envs.road.ground import Ground
from sb3_visual_td3.envs.road.maps import LiteMap

_TURN = 2.0 * math.pi
_WARP = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP


class Band(NamedTuple):
    """A strip of rows below the horizon that is drawn from one level of the ground."""

    n_rows: int
    """Rows of the picture; the last band takes all that are left."""
    level: int
    samples: int
    """Samples per row, averaged: far rows see many metres of road each."""


CAMERA_BANDS = (Band(4, 3, 4), Band(10, 1, 4), Band(0, 0, 1))
"""For small frames. One warp of the finest level alone breaks far marks into dots."""
PICTURE_BANDS = (Band(4, 3, 8), Band(12, 1, 8), Band(44, 0, 8), Band(0, 0, 1))
"""For large pictures."""


class _Strip(NamedTuple):
    """A band with its geometry worked out."""

    first_row: int
    last_row: int
    level: int
    samples: int
    to_vehicle: NDArray[np.float64]
    """3x3, from (column, row) samples of the strip to homogeneous (forward, left) metres from the vehicle."""


class Camera:
    """Draws ``(height, width) uint8`` pictures, 90 degrees wide, the horizon on the middle row.

    :param height: in pixels, even.
    :param width: in pixels, even.
    :param bands: how the rows below the horizon are drawn, from the horizon downwards.
    :param ahead_m: the camera's place before the vehicle's centre.
    :param height_m: its height above the ground.
    """

    def __init__(
        self,
        height: int,
        width: int,
        bands: Sequence[Band] = CAMERA_BANDS,
        *,
        ahead_m: float = CAMERA_AHEAD_M,
        height_m: float = CAMERA_HEIGHT_M,
    ) -> None:
        cv2.setNumThreads(1)  # the pictures are too small to share out, and environments run side by side
        self.lens = Lens(height, width, ahead_m, height_m)
        self._height, self._width = height, width
        self._horizon = height // 2
        self._focal = width / 2.0
        self._strips = self._lay_out(bands)
        self._to_vehicles = np.stack([strip.to_vehicle for strip in self._strips])
        self._n_sky_columns = 2 * round(_TURN * self._focal)
        right = (np.arange(width) + 0.5 - width / 2.0) / self._focal
        self._sky_columns = np.arctan(-right) / _TURN * self._n_sky_columns
        self._skies: dict[str, NDArray[np.uint8]] = {}
        self._from_world: dict[str, NDArray[np.float64]] = {}

    def weather_filter(self, sky: Sky) -> WeatherFilter:
        """Return what puts the light of ``sky`` onto this camera's pictures."""
        down = np.arange(self._height - self._horizon) + 0.5
        sides = (np.arange(self._width) + 0.5 - self._width / 2.0) / self._focal
        return WeatherFilter(sky, self.lens.height_m * self._focal / down, sides, self._horizon)

    def draw(self, scene: LiteMap, x_m: float, y_m: float, yaw_rad: float) -> NDArray[np.uint8]:
        """Return what is seen from a vehicle at this place, as a new array."""
        frame = np.empty((self._height, self._width), np.uint8)
        # The panorama stands there three times: the middle one is the turn that the car faces.
        middle = (1.0 + yaw_rad / _TURN % 1.0) * self._n_sky_columns
        columns = (self._sky_columns + middle).astype(np.intp)
        np.take(self._sky(scene), columns, axis=1, out=frame[: self._horizon], mode="clip")
        to_world = pose_matrix(x_m, y_m, yaw_rad)
        matrices = self._to_texels(scene) @ to_world @ self._to_vehicles
        for strip, matrix in zip(self._strips, matrices, strict=True):
            self._draw_strip(frame[strip.first_row : strip.last_row], strip, scene.ground, matrix)
        return frame

    def paved(self, scene: LiteMap, x_m: float, y_m: float, yaw_rad: float, level: int) -> NDArray[np.uint8]:
        """Return a mask of ``draw``'s size: 255 where the road is seen, 0 elsewhere."""
        mask = np.zeros((self._height, self._width), np.uint8)
        rows = mask[self._horizon :]
        to_vehicle = self._to_vehicle(self._horizon, 1)
        matrix = scene.ground.from_world(level) @ pose_matrix(x_m, y_m, yaw_rad) @ to_vehicle
        cv2.warpPerspective(scene.ground.paved, matrix, rows.shape[::-1], dst=rows, flags=_WARP)
        return mask

    def _draw_strip(self, rows: NDArray[np.uint8], strip: _Strip, ground: Ground, matrix: NDArray[np.float64]) -> None:
        size = (self._width, rows.shape[0] * strip.samples)
        samples = rows if strip.samples == 1 else np.empty(size[::-1], np.uint8)
        cv2.warpPerspective(
            ground.levels[strip.level],
            matrix,
            size,
            dst=samples,
            flags=_WARP,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=ground.grey,
        )
        if strip.samples > 1:
            cv2.resize(samples, rows.shape[::-1], dst=rows, interpolation=cv2.INTER_AREA)

    def _lay_out(self, bands: Sequence[Band]) -> list[_Strip]:
        strips, first = [], self._horizon
        for band in bands:
            last = first + band.n_rows if band is not bands[-1] else self._height
            strips.append(_Strip(first, last, band.level, band.samples, self._to_vehicle(first, band.samples)))
            first = last
        return strips

    def _to_vehicle(self, first_row: int, samples: int) -> NDArray[np.float64]:
        """Return the ground point that a sample sees, for a strip that begins on ``first_row``.

        A sample ``right`` pixels right of and ``down`` pixels below the middle sees the ground
        ``height * focal / down`` ahead of the camera and ``height * right / down`` to its right.
        """
        right_down = np.array(
            [
                [1.0, 0.0, 0.5 - self._width / 2.0],
                [0.0, 1.0 / samples, 0.5 / samples + first_row - self._horizon],
                [0.0, 0.0, 1.0],
            ]
        )
        ahead_m, height_m = self.lens.ahead_m, self.lens.height_m
        forward_left = np.array([[0.0, ahead_m, height_m * self._focal], [-height_m, 0.0, 0.0], [0.0, 1.0, 0.0]])
        return np.asarray(forward_left @ right_down)

    def _to_texels(self, scene: LiteMap) -> NDArray[np.float64]:
        """Return for each strip the matrix from the world to the texels of its level, worked out once."""
        if scene.name not in self._from_world:
            self._from_world[scene.name] = np.stack([scene.ground.from_world(strip.level) for strip in self._strips])
        return self._from_world[scene.name]

    def _sky(self, scene: LiteMap) -> NDArray[np.uint8]:
        """Return the panorama of ``scene`` in this camera's resolution, three turns of it, scaled once."""
        if scene.name not in self._skies:
            # Two columns to a pixel where the picture is densest: finer ones would flicker as the car turns.
            size = (self._n_sky_columns, self._horizon)
            sky = cv2.resize(scene.panorama, size, interpolation=cv2.INTER_AREA)
            self._skies[scene.name] = np.tile(np.asarray(sky, dtype=np.uint8), 3)
        return self._skies[scene.name]


def pose_matrix(x_m: float, y_m: float, yaw_rad: float) -> NDArray[np.float64]:
    """Return the 3x3 matrix from homogeneous (forward, left) metres from a vehicle to the world's."""
    cos, sin = math.cos(yaw_rad), math.sin(yaw_rad)
    return np.array([[cos, -sin, x_m], [sin, cos, y_m], [0.0, 0.0, 1.0]])


_LUMINANCE = np.array([0.299, 0.587, 0.114])
"""Source: ITU-R BT.601; OpenCV's conversion of RGB to grey."""
_GREYS = np.arange(256)


def _table(red: float, green: float, blue: float) -> NDArray[np.uint8]:
    """Return ``(256, 3) uint8``: the colour of every grey, as bright as the grey."""
    tint = np.array([red, green, blue])
    tint /= tint @ _LUMINANCE
    return np.asarray(np.clip(np.rint(_GREYS[:, None] * tint), 0, 255), np.uint8)


_SKY = _table(0.86, 0.97, 1.14)
_LAND = _table(0.86, 1.06, 0.62)
_ROAD = _table(1.0, 1.0, 1.0)
_ALL = np.concatenate([_LAND, _ROAD, _SKY])
"""256 entries each."""


def tint(grey: NDArray[np.uint8], paved: NDArray[np.uint8], horizon: int) -> NDArray[np.uint8]:
    """Return a picture in colour, ``(height, width, 3) uint8``, RGB.

    :param grey: ``(height, width) uint8``.
    :param paved: likewise: 128 or more where the road is seen.
    :param horizon: the row at which the ground begins.
    """
    plain = np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), np.uint8)
    colours = np.empty_like(plain)
    cv2.LUT(plain[:horizon], _SKY[None], dst=colours[:horizon])
    ground = colours[horizon:]
    cv2.LUT(plain[horizon:], _LAND[None], dst=ground)
    cv2.copyTo(plain[horizon:], cv2.threshold(paved[horizon:], 127, 255, cv2.THRESH_BINARY)[1], ground)
    return colours


def tint_by_kind(grey: NDArray[np.uint8], paved: NDArray[np.uint8], is_sky: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return a picture in colour like ``tinted``, for a camera that looks anywhere.

    :param grey: ``(height, width) uint8``.
    :param paved: likewise: 128 or more where the road is seen.
    :param is_sky: ``(height, width)``, where neither road nor land is seen.
    """
    entry = grey.astype(np.intp) + ((paved >> 7).astype(np.intp) << 8)
    entry[is_sky] = grey[is_sky].astype(np.intp) + 512
    return np.take(_ALL, entry, axis=0)
