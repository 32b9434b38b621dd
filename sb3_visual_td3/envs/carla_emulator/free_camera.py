"""Draw the ground and the horizon for a camera at any height and angle: in colour, depth and CARLA's semantic tags.

The camera of ``envs.lite`` is level and looks ahead, but clients of CARLA also tilt, turn and roll cameras.
:class:`FreeCamera` draws the ground by a homography, and everything above the horizon from the map's panorama.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.envs.carla_emulator.protocol import Transform
from sb3_visual_td3.envs.lite.camera import pose_matrix
from sb3_visual_td3.envs.road.ground import PANORAMA_COLUMNS, PANORAMA_ROWS, PAVED_LEVEL, TEXEL_M
from sb3_visual_td3.envs.road.maps import Scene

ROAD, BUILDING, VEGETATION, TERRAIN, SKY, ROAD_LINE = 1, 3, 9, 10, 11, 24
"""CARLA 0.9.16's semantic tags (``carla.CityObjectLabel``)."""
FAR_M = 1000.0
"""The depth of the sky, which is CARLA's far plane for depth images."""
# The ground is drawn with this many samples per pixel along each axis. Averaging them prevents aliasing.
_OVERSAMPLING = 2
# Grey levels: the threshold between asphalt and paint, and the threshold below which the panorama shows hills and
# houses.
_MARK_GREY = 140
_SKY_GREY = 150
# A camera on or below the ground would see no ground.
_MIN_HEIGHT_M = 0.05
_MIN_FORWARD = 0.35
_N_GROUND_LEVELS = 4
# Large cameras are computed in bands of rows, because arrays of all rows would take gigabytes.
_BAND_ROWS = 32
_WARP = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP


class _Strip(NamedTuple):
    """Describe the pixels that are drawn from one level (resolution) of the ground raster.

    Rows and columns belong to a picture with twice the camera's resolution.
    """

    level: int
    """Level of the ground raster: 0 is the finest, and each level has half the resolution of the one before."""
    first_row: int
    last_row: int
    mask: NDArray[np.bool_]
    """True for the pixels that are drawn from this level of the raster, ``(last_row - first_row, columns) bool``; with
    one column if it is the same in all columns."""


class FreeCamera:
    """Draw the ground and the horizon for a camera with a fixed height, pitch and roll.

    Position and heading may change from frame to frame.

    :param height: height in pixels
    :param width: width in pixels
    :param fov_deg: horizontal field of view in degrees
    :param up_m: height above the ground in metres
    :param pitch_deg: pitch in degrees, positive when the camera looks up
    :param roll_deg: roll in degrees, positive when the camera leans to the right
    """

    def __init__(self, height: int, width: int, fov_deg: float, up_m: float, pitch_deg: float, roll_deg: float) -> None:
        self.height, self.width = height, width
        self.focal = 0.5 * width / math.tan(math.radians(0.5 * fov_deg))
        """The focal length in pixels."""
        self._up_m = max(_MIN_HEIGHT_M, up_m)
        self._axes = axes_of(Transform(pitch=pitch_deg, roll=roll_deg))
        self.is_sky = np.empty((height, width), np.bool_)
        self._depth_m, self._sky_rows, self._sky_columns = np.empty((3, height, width), np.float32)
        self.distances_m = np.empty((height, width), np.float32)
        """Length of each pixel's ray up to the ground or the sky in metres, ``(height, width) float32``."""
        self.sides = np.empty((height, width), np.float32)
        """Tangent of each pixel's horizontal angle to the heading, positive to the right, ``(height, width)``."""
        for rows in _bands(height):
            self._fill(rows)
        self._strips = self._choose_levels()
        self._panorama_tags: tuple[str, NDArray[np.uint8]] | None = None
        """The name of the last scene, and its panorama as semantic tags."""

    def grey(self, scene: Scene, transform: Transform) -> NDArray[np.uint8]:
        """Return the ground and the horizon in grey, without vehicles and walkers.

        :param scene: the map to draw
        :param transform: position and heading
        :return: ``(height, width) uint8``
        """
        fine = np.full((self.height * _OVERSAMPLING, self.width * _OVERSAMPLING), scene.ground.grey, np.uint8)
        for strip in self._strips:
            rows = fine[strip.first_row : strip.last_row]
            drawn = self._warp(scene, transform, strip.level, strip.first_row, len(rows))
            np.copyto(rows, drawn, where=strip.mask)
        picture = np.asarray(cv2.resize(fine, (self.width, self.height), interpolation=cv2.INTER_AREA), np.uint8)
        if self.is_sky.any():
            np.copyto(picture, self._panorama(scene.panorama, transform, cv2.INTER_LINEAR), where=self.is_sky)
        return picture

    def paved(self, scene: Scene, transform: Transform) -> NDArray[np.uint8]:
        """Return a mask that shows where the road is.

        :param scene: the map to draw
        :param transform: position and heading
        :return: ``(height, width) uint8``, 255 on the road, 0 elsewhere, interpolated at the edges
        """
        matrix = scene.ground.from_world(PAVED_LEVEL) @ self._to_world(transform, 1, 0)
        seen = cv2.warpPerspective(scene.ground.paved, matrix, (self.width, self.height), flags=_WARP)
        seen[self.is_sky] = 0
        return np.asarray(seen, np.uint8)

    def depth_m(self) -> NDArray[np.float32]:
        """Return the depth of ground and sky along the camera's axis: ``(height, width) float32``, a new array."""
        return np.array(self._depth_m)

    def tags(self, scene: Scene, transform: Transform) -> NDArray[np.uint8]:
        """Return ground and horizon as CARLA's semantic tags, without vehicles and walkers.

        :param scene: the map to draw
        :param transform: position and heading
        :return: ``(height, width) uint8``
        """
        paved = self.paved(scene, transform) > 127
        tags = np.where(paved, ROAD, TERRAIN).astype(np.uint8)
        tags[paved & (self.grey(scene, transform) >= _MARK_GREY)] = ROAD_LINE
        if self.is_sky.any():
            # The nearest tag is taken, because an average of two tags would be a third tag.
            if self._panorama_tags is None or self._panorama_tags[0] != scene.name:
                self._panorama_tags = (scene.name, _tags_of(scene.panorama))
            sky_tags = self._panorama(self._panorama_tags[1], transform, cv2.INTER_NEAREST)
            np.copyto(tags, sky_tags, where=self.is_sky)
        return tags

    def _fill(self, rows: slice) -> None:
        """Compute some rows of the camera's arrays, which do not change from frame to frame."""
        # Each pixel's ray is scaled so that its part along the camera's axis is 1. The depth of the ground is then the
        # factor by which the ray must be multiplied to fall by the camera's height.
        forward, right, up = (self._rays(component, rows, 1) for component in range(3))
        self.is_sky[rows] = up >= 0.0
        with np.errstate(divide="ignore"):
            depth = np.where(up >= 0.0, FAR_M, self._up_m / -up)
        self._depth_m[rows] = np.minimum(depth, FAR_M)
        self.distances_m[rows] = self._depth_m[rows] * np.sqrt(forward**2 + right**2 + up**2).astype(np.float32)
        self.sides[rows] = right / np.maximum(np.abs(forward), 1e-6)
        # As in the camera of ``LiteDriving-v0``, an image row shows one height of the panorama from edge to edge: the
        # row follows from up / forward. Far to the side, where forward approaches 0, forward is limited from below.
        along = np.maximum(forward, _MIN_FORWARD * np.hypot(forward, right)) + 1e-9
        self._sky_rows[rows] = np.clip(PANORAMA_ROWS * (1.0 - up / along) - 0.5, 0, PANORAMA_ROWS - 1)
        self._sky_columns[rows] = np.arctan2(-right, forward) / (2.0 * np.pi) * PANORAMA_COLUMNS

    def _rays(self, component: int, rows: slice, oversampling: int) -> NDArray[np.float64]:
        """Return the forward (0), right (1) or up (2) component of rays, relative to the heading.

        :param component: number of the component
        :param rows: the rows of samples
        :param oversampling: number of samples along each side of a pixel
        :return: ``(rows, width * oversampling)``, scaled to 1 along the camera's axis; ``(rows, 1)`` if the component
            is the same in all columns, as the up component of a camera without roll
        """
        axis, right, up = self._axes[:, component]
        n_columns = self.width * oversampling if right else 1
        columns = ((np.arange(n_columns) + 0.5) / oversampling - 0.5 * self.width) / self.focal
        heights = ((np.arange(rows.start, rows.stop) + 0.5) / oversampling - 0.5 * self.height) / self.focal
        return np.asarray(axis + columns[None] * right - heights[:, None] * up)

    def _choose_levels(self) -> list[_Strip]:
        """Choose a resolution (mipmap level) of the ground raster for each part of the picture.

        A sample is drawn from the level whose texels are about as large as the sample's area on the ground.
        """
        bands = []
        for band in _bands(self.height * _OVERSAMPLING):
            up = self._rays(2, band, _OVERSAMPLING)
            with np.errstate(divide="ignore", invalid="ignore"):
                depth = np.where(up < 0.0, self._up_m / -up, np.inf)
                # The longer side of the sample's footprint on the ground; in a flat view this is the side along the
                # ray.
                footprint_m = depth / (self.focal * _OVERSAMPLING) * np.maximum(1.0, depth / self._up_m)
                chosen = np.clip(np.rint(np.log2(footprint_m / TEXEL_M)), 0, _N_GROUND_LEVELS - 1)
            chosen[~(up < 0.0)] = -1  # sky, and NaN
            bands.append(chosen.astype(np.int8))
        levels = np.concatenate(bands)
        strips = []
        for level in range(_N_GROUND_LEVELS):
            is_level = levels == level
            rows = np.flatnonzero(is_level.any(axis=1))
            if len(rows):
                first, last = int(rows[0]), int(rows[-1]) + 1
                strips.append(_Strip(level, first, last, is_level[first:last]))
        return strips

    def _to_world(self, transform: Transform, oversampling: int, first_row: int) -> NDArray[np.float64]:
        """Return the 3x3 homography from samples (column, row) to places (x, y) on the ground in metres.

        The places are in this package's right-handed coordinates (y to the left).

        :param transform: position and heading of the camera
        :param oversampling: number of samples along each side of a pixel
        :param first_row: row of samples that the matrix counts as row 0
        """
        size = self.focal * oversampling
        # (column, row, 1) -> (1, u, v): u to the right and v downwards from the middle of the picture, in focal lengths
        to_ray = np.array(
            [
                [0.0, 0.0, 1.0],
                [1.0 / size, 0.0, (0.5 - 0.5 * self.width * oversampling) / size],
                [0.0, 1.0 / size, (0.5 + first_row - 0.5 * self.height * oversampling) / size],
            ]
        )
        # The ray of a sample is axis + u * right - v * up, with the camera's three axes as vectors. If the ray goes f
        # ahead, l to the left and d down, it meets the ground h f / d ahead of the point below the camera and h l / d
        # to the left of it; h is the camera's height. In homogeneous coordinates this is (h f, h l, d), which is linear
        # in (1, u, v). In each name below, the first letter is the vector: axis (a), right (r) or up (u). The second
        # letter is its component: forward (f), right (r) or up (u).
        (af, ar, au), (rf, rr, ru), (uf, ur, uu) = self._axes
        up_m = self._up_m
        # (1, u, v) -> homogeneous (forward, left, 1), from the point below the camera
        to_ground = np.array([[up_m * af, up_m * rf, -up_m * uf], [-up_m * ar, -up_m * rr, up_m * ur], [-au, -ru, uu]])
        x, y, yaw = transform.pose
        return np.asarray(pose_matrix(x, y, yaw) @ to_ground @ to_ray)

    def _warp(self, scene: Scene, transform: Transform, level: int, first_row: int, n_rows: int) -> NDArray[np.uint8]:
        """Draw some rows of the picture, at twice the camera's resolution, from one level of the ground raster.

        :return: ``(n_rows, columns) uint8``
        """
        matrix = scene.ground.from_world(level) @ self._to_world(transform, _OVERSAMPLING, first_row)
        drawn = cv2.warpPerspective(
            scene.ground.levels[level],
            matrix,
            (self.width * _OVERSAMPLING, n_rows),
            flags=_WARP,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=scene.ground.grey,
        )
        return np.asarray(drawn, np.uint8)

    def _panorama(self, panorama: NDArray[np.uint8], transform: Transform, interpolation: int) -> NDArray[np.uint8]:
        """Draw the panorama, the distant surroundings all around the map, as the camera sees it.

        :return: ``(height, width) uint8``
        """
        shift = np.float32(transform.pose.heading_rad / (2.0 * math.pi) % 1.0 * PANORAMA_COLUMNS)
        columns = (self._sky_columns + shift) % np.float32(PANORAMA_COLUMNS)
        drawn = cv2.remap(panorama, columns, self._sky_rows, interpolation, borderMode=cv2.BORDER_WRAP)
        return np.asarray(drawn, np.uint8)


def _bands(n_rows: int) -> list[slice]:
    return [slice(first, min(first + _BAND_ROWS, n_rows)) for first in range(0, n_rows, _BAND_ROWS)]


@lru_cache(maxsize=6)
def free_camera(height: int, width: int, fov_deg: float, up_m: float, pitch_deg: float, roll_deg: float) -> FreeCamera:
    """Return a :class:`FreeCamera` from a cache; the parameters are those of the class."""
    return FreeCamera(height, width, fov_deg, up_m, pitch_deg, roll_deg)


def axes_of(transform: Transform) -> NDArray[np.float64]:
    """Return the forward, right and up axes of a rotated object as rows of a 3x3 matrix, in CARLA's coordinates.

    The object turns about its own axes in the order yaw, pitch (positive up), roll (positive to the right). Source:
    ``LibCarla/source/carla/geom/Math.cpp``.
    """
    pitch, yaw, roll = (math.radians(angle) for angle in (transform.pitch, transform.yaw, transform.roll))
    cp, sp = math.cos(pitch), math.sin(pitch)
    cy, sy = math.cos(yaw), math.sin(yaw)
    cr, sr = math.cos(roll), math.sin(roll)
    return np.array(
        [
            [cp * cy, cp * sy, sp],
            [cy * sp * sr - sy * cr, sy * sp * sr + cy * cr, -cp * sr],
            [-(cy * sp * cr + sy * sr), cy * sr - sy * sp * cr, cp * cr],
        ]
    )


def _tags_of(panorama: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the semantic tags of a panorama, which is the grey image of the distant surroundings of a map.

    Pixels of the most frequent dark grey level show hills and become vegetation. Other dark pixels become buildings.
    The rest is sky.
    """
    dark = panorama[panorama < _SKY_GREY]
    hills = int(np.bincount(dark).argmax()) if len(dark) else 0
    tags = np.where(panorama < _SKY_GREY, BUILDING, SKY).astype(np.uint8)
    tags[panorama == hills] = VEGETATION
    return tags
