"""Draw the view of a forward camera: the ground in perspective, the panorama above the horizon, and their colours.

The world is flat and the camera looks straight ahead. So the horizon is the middle row, and the ground is drawn by a
homography (a 3x3 matrix on homogeneous coordinates) of the ground raster.
"""

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
from sb3_visual_td3.envs.road.maps import Scene

_TURN_RAD = 2.0 * math.pi
_WARP = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
"""Flags of OpenCV's warp, whose matrix maps pixels of the picture to pixels of the ground raster."""


class Band(NamedTuple):
    """Describe a band: adjacent picture rows below the horizon that show the ground raster at one resolution."""

    n_rows: int
    """Number of picture rows in the band. It is ignored for the last band, which takes all remaining rows."""
    level: int
    """Resolution level of the ground raster: 0 is the finest, and each level has half the resolution of the level
    before."""
    samples: int
    """Number of rows that are drawn for each picture row and then averaged."""


# The row ``d`` pixels below the horizon sees the ground from h f / (d + 1) to h f / d metres ahead (see
# ``Camera._to_vehicle``), so far rows cover much more ground than near ones. If all rows were drawn from the finest
# level, far marks would break into dots. Coarser levels prevent this, as mipmaps do in computer graphics.
CAMERA_BANDS = (Band(4, 3, 4), Band(10, 1, 4), Band(0, 0, 1))
"""The bands (see ``Band``) of small frames, from the horizon downwards. The frames of the policy are small frames."""
PICTURE_BANDS = (Band(4, 3, 8), Band(12, 1, 8), Band(44, 0, 8), Band(0, 0, 1))
"""The bands (see ``Band``) of large pictures, from the horizon downwards."""


class _Strip(NamedTuple):
    """Hold the picture rows of a ``Band`` and their precomputed geometry."""

    first_row: int
    last_row: int
    level: int
    samples: int
    to_vehicle: NDArray[np.float64]
    """3x3 matrix that maps (column, row) of a drawn pixel to (forward, left) on the ground in metres, both
    homogeneous."""


class Camera:
    """Draw the view ahead as ``(height, width) uint8`` pictures, 90 degrees wide, with the horizon on the middle row.

    :param height: height in pixels, an even number
    :param width: width in pixels, an even number
    :param bands: for each group of rows below the horizon, the resolution at which it shows the ground (see ``Band``);
        from the horizon downwards
    :param ahead_m: distance of the camera ahead of the vehicle's centre
    :param height_m: height of the camera above the ground
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
        # OpenCV's threads are switched off: the pictures are too small for them, and several environments run in
        # parallel.
        cv2.setNumThreads(1)
        self.lens = Lens(height, width, ahead_m, height_m)
        self._height, self._width = height, width
        self._horizon = height // 2
        # 90 degrees wide: the outermost column is seen at 45 degrees, where right / focal is 1.
        self._focal_px = width / 2.0
        self._strips = self._lay_out(bands)
        self._to_vehicles = np.stack([strip.to_vehicle for strip in self._strips])
        # In the middle of the picture a pixel is 1 / focal radians wide, so a turn of 2 pi has 2 pi focal pixels. The
        # panorama has two columns for each of these pixels; a finer panorama would flicker when the vehicle turns.
        self._n_sky_columns = 2 * round(_TURN_RAD * self._focal_px)
        # (width,): the panorama's column for each column of the picture, relative to the middle column. A pixel
        # ``right`` focal lengths to the right of the middle looks arctan(right) to the right. The numbers of the
        # panorama's columns grow to the left.
        right = (np.arange(width) + 0.5 - width / 2.0) / self._focal_px
        self._sky_columns = np.arctan(-right) / _TURN_RAD * self._n_sky_columns
        self._skies: dict[str, NDArray[np.uint8]] = {}
        self._from_world: dict[str, NDArray[np.float64]] = {}

    def weather_filter(self, sky: Sky) -> WeatherFilter:
        """Return a filter that applies the light, haze and rain of ``sky`` to this camera's pictures."""
        # Rows are height * focal / down metres away (see ``_to_vehicle``).
        down = np.arange(self._height - self._horizon) + 0.5
        sides = (np.arange(self._width) + 0.5 - self._width / 2.0) / self._focal_px
        return WeatherFilter(sky, self.lens.height_m * self._focal_px / down, sides, self._horizon)

    def draw(self, scene: Scene, x_m: float, y_m: float, yaw_rad: float) -> NDArray[np.uint8]:
        """Draw the view from a vehicle at a place, without cars and weather.

        :param scene: the map to draw
        :param x_m: x of the vehicle's centre in metres
        :param y_m: y of the vehicle's centre in metres
        :param yaw_rad: heading in radians, counter-clockwise from the x axis
        :return: ``(height, width) uint8``, a new array
        """
        frame = np.empty((self._height, self._width), np.uint8)
        # The panorama is stored three times side by side. The vehicle looks at the middle copy, so that the columns to
        # the left and right of it never leave the array.
        middle = (1.0 + yaw_rad / _TURN_RAD % 1.0) * self._n_sky_columns
        columns = (self._sky_columns + middle).astype(np.intp)
        np.take(self._sky(scene), columns, axis=1, out=frame[: self._horizon], mode="clip")
        # All strips at once, (n_strips, 3, 3): drawn pixels -> metres from the vehicle -> metres of the world -> pixels
        # of the ground raster.
        to_world = pose_matrix(x_m, y_m, yaw_rad)
        matrices = self._to_texels(scene) @ to_world @ self._to_vehicles
        for strip, matrix in zip(self._strips, matrices, strict=True):
            self._draw_strip(frame[strip.first_row : strip.last_row], strip, scene.ground, matrix)
        return frame

    def paved(self, scene: Scene, x_m: float, y_m: float, yaw_rad: float, level: int) -> NDArray[np.uint8]:
        """Return a mask of the road in the picture that ``draw`` returns.

        :param scene: the map to draw
        :param x_m: x of the vehicle's centre in metres
        :param y_m: y of the vehicle's centre in metres
        :param yaw_rad: heading in radians, counter-clockwise from the x axis
        :param level: must be ``PAVED_LEVEL``, the resolution of the mask in ``scene.ground``
        :return: ``(height, width) uint8``: 255 on the road, 0 elsewhere, interpolated at the edge
        """
        mask = np.zeros((self._height, self._width), np.uint8)
        rows = mask[self._horizon :]
        to_vehicle = self._to_vehicle(self._horizon, 1)
        matrix = scene.ground.from_world(level) @ pose_matrix(x_m, y_m, yaw_rad) @ to_vehicle
        cv2.warpPerspective(scene.ground.paved, matrix, rows.shape[::-1], dst=rows, flags=_WARP)
        return mask

    def _draw_strip(self, rows: NDArray[np.uint8], strip: _Strip, ground: Ground, matrix: NDArray[np.float64]) -> None:
        """Draw the ground into the picture rows of a strip, in place.

        This method draws ``strip.samples`` rows for each picture row, and then averages them.

        :param matrix: 3x3 homography from (column, row) of a pixel in the drawn rows to a pixel of the ground raster
        """
        size = (self._width, rows.shape[0] * strip.samples)  # OpenCV's order: width, height
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
        """Compute the first row, the last row and the geometry of each band, from the horizon downwards."""
        strips, first = [], self._horizon
        for band in bands:
            is_last = band is bands[-1]
            last = self._height if is_last else first + band.n_rows
            strips.append(_Strip(first, last, band.level, band.samples, self._to_vehicle(first, band.samples)))
            first = last
        return strips

    def _to_vehicle(self, first_row: int, samples: int) -> NDArray[np.float64]:
        """Return the homography that maps drawn pixels to places on the ground around the vehicle.

        :param first_row: first row of the strip in the picture
        :param samples: number of rows that are drawn for each picture row and then averaged
        :return: 3x3 matrix from (column, row) of a drawn pixel to (forward, left) in metres
        """
        # From (column, row) of a drawn pixel to (right, down, 1) in pixels of the picture. A pixel's centre is half a
        # pixel beyond its index.
        right_down = np.array(
            [
                [1.0, 0.0, 0.5 - self._width / 2.0],
                [0.0, 1.0 / samples, 0.5 / samples + first_row - self._horizon],
                [0.0, 0.0, 1.0],
            ]
        )
        ahead_m, height_m = self.lens.ahead_m, self.lens.height_m
        # From (right, down, 1) to (forward, left, scale). Let h be the camera's height. The ray through the pixel
        # ``right`` pixels to the right of the middle and ``down`` pixels below it has the direction (focal, right,
        # down). It meets the ground h focal / down ahead of the camera, and h right / down to its right. The camera is
        # ``ahead`` metres ahead of the vehicle's centre. In homogeneous coordinates, multiplied by ``down``:
        #     forward = ahead * down + h * focal
        #     left    = -h * right
        #     scale   = down
        forward_left = np.array([[0.0, ahead_m, height_m * self._focal_px], [-height_m, 0.0, 0.0], [0.0, 1.0, 0.0]])
        return np.asarray(forward_left @ right_down)

    def _to_texels(self, scene: Scene) -> NDArray[np.float64]:
        """Return the matrices from the world to the ground raster, ``(n_strips, 3, 3)``; cached."""
        if scene.name not in self._from_world:
            self._from_world[scene.name] = np.stack([scene.ground.from_world(strip.level) for strip in self._strips])
        return self._from_world[scene.name]

    def _sky(self, scene: Scene) -> NDArray[np.uint8]:
        """Return the panorama of ``scene`` in this camera's resolution, repeated three times side by side; cached."""
        if scene.name not in self._skies:
            size = (self._n_sky_columns, self._horizon)
            sky = cv2.resize(scene.panorama, size, interpolation=cv2.INTER_AREA)
            self._skies[scene.name] = np.tile(np.asarray(sky, dtype=np.uint8), 3)
        return self._skies[scene.name]


def pose_matrix(x_m: float, y_m: float, yaw_rad: float) -> NDArray[np.float64]:
    """Return the 3x3 matrix that converts places relative to a vehicle (forward, left) to world coordinates (x, y).

    Both are homogeneous, in metres.

    :param x_m: x of the vehicle's centre
    :param y_m: y of the vehicle's centre
    :param yaw_rad: heading in radians, counter-clockwise from the x axis
    """
    cos, sin = math.cos(yaw_rad), math.sin(yaw_rad)
    return np.array([[cos, -sin, x_m], [sin, cos, y_m], [0.0, 0.0, 1.0]])


_LUMINANCE = np.array([0.299, 0.587, 0.114])
"""Weights of red, green and blue in a grey value. Source: ITU-R BT.601, as in OpenCV's conversion of RGB to grey."""
_GREYS = np.arange(256)


def _table(red: float, green: float, blue: float) -> NDArray[np.uint8]:
    """Return a table of colours, ``(256, 3) uint8``: all have one hue, and colour ``i`` is as bright as grey ``i``."""
    hue = np.array([red, green, blue])
    hue /= hue @ _LUMINANCE  # hue @ luminance is now 1, so grey * hue has the luminance grey
    return np.asarray(np.clip(np.rint(_GREYS[:, None] * hue), 0, 255), np.uint8)


_SKY = _table(0.86, 0.97, 1.14)
_LAND = _table(0.86, 1.06, 0.62)
_ROAD = _table(1.0, 1.0, 1.0)
_ALL = np.concatenate([_LAND, _ROAD, _SKY])
"""``(768, 3) uint8``: three tables of 256 colours, for land (from row 0), road (from 256) and sky (from 512)."""


def tint(grey: NDArray[np.uint8], paved: NDArray[np.uint8], horizon: int) -> NDArray[np.uint8]:
    """Colour a grey picture: sky above the horizon, road or land below it.

    :param grey: ``(height, width) uint8``
    :param paved: ``(height, width) uint8``: 128 or more on the road
    :param horizon: row at which the ground begins
    :return: ``(height, width, 3) uint8``, RGB, a new array
    """
    # OpenCV looks up each channel in its own column of the table, so the grey value is repeated in three channels.
    plain = np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), np.uint8)
    colours = np.empty_like(plain)
    cv2.LUT(plain[:horizon], _SKY[None], dst=colours[:horizon])
    ground = colours[horizon:]
    cv2.LUT(plain[horizon:], _LAND[None], dst=ground)
    # The road's table is the identity, so the grey values themselves are copied where the mask is set.
    cv2.copyTo(plain[horizon:], cv2.threshold(paved[horizon:], 127, 255, cv2.THRESH_BINARY)[1], ground)
    return colours


def tint_by_kind(grey: NDArray[np.uint8], paved: NDArray[np.uint8], is_sky: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Colour a grey picture as ``tint`` does, but for a camera with any direction.

    :param grey: ``(height, width) uint8``
    :param paved: ``(height, width) uint8``: 128 or more on the road
    :param is_sky: ``(height, width) bool``
    :return: ``(height, width, 3) uint8``, RGB, a new array
    """
    # (height, width): index into the joint table. The highest bit of the mask selects road (256) or land (0).
    entry = grey.astype(np.intp) + ((paved >> 7).astype(np.intp) << 8)
    entry[is_sky] = grey[is_sky].astype(np.intp) + 512
    return np.take(_ALL, entry, axis=0)
