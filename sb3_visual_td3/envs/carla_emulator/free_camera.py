"""A camera anywhere and at any angle: the ground and the horizon in colour, depth and CARLA's tags."""

from __future__ import annotations

import math
from functools import cache, lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.envs.carla_emulator.records import Transform
from sb3_visual_td3.envs.lite.camera import pose_matrix
from sb3_visual_td3.envs.road.ground import PANORAMA_COLUMNS, PANORAMA_ROWS, PAVED_LEVEL, TEXEL_M
from sb3_visual_td3.envs.road.maps import LiteMap, load_map

ROAD, BUILDING, VEGETATION, TERRAIN, SKY, ROAD_LINE = 1, 3, 9, 10, 11, 24
"""CARLA's semantic tags."""
FAR_M = 1000.0
_FINE = 2
"""Samples per pixel along each axis, of the ground."""
_MARK_GREY = 140
"""Halfway between asphalt and paint."""
_SKY_GREY = 150
"""Hills and houses are darker."""
_LEAST_HEIGHT_M = 0.05
_LEAST_FORWARD = 0.35
_WARP = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP


class _Strip(NamedTuple):
    """Rows of the fine picture, some pixels of which are drawn from one level of the ground."""

    level: int
    first_row: int
    last_row: int
    mask: NDArray[np.bool_]


class FreeCamera:
    """Draws from one height and angle; where it stands and which way it faces may change from frame to frame.

    :param height: in pixels.
    :param width: in pixels.
    :param fov_deg: horizontal angle of view.
    :param up_m: height above the ground.
    :param pitch_deg: positive where it looks up.
    :param roll_deg: positive where it leans to the right.
    """

    def __init__(self, height: int, width: int, fov_deg: float, up_m: float, pitch_deg: float, roll_deg: float) -> None:
        self.height, self.width = height, width
        self.focal = 0.5 * width / math.tan(math.radians(0.5 * fov_deg))
        self._up_m = max(_LEAST_HEIGHT_M, up_m)
        self._axes = axes_of(Transform(pitch=pitch_deg, roll=roll_deg))
        forward, right, up = self._rays(1)
        self.is_sky = up >= 0.0
        with np.errstate(divide="ignore"):
            depth = np.where(self.is_sky, FAR_M, self._up_m / -up)
        self._depth_m = np.minimum(depth, FAR_M).astype(np.float32)
        self.distances_m = self._depth_m * np.sqrt(forward**2 + right**2 + up**2).astype(np.float32)
        self.sides = (right / np.maximum(np.abs(forward), 1e-6)).astype(np.float32)
        # As the embedded world's camera has it, a row sees one height of the panorama from edge to edge; a picture so
        # wide that this cannot be goes on as if it were less wide.
        along = np.maximum(forward, _LEAST_FORWARD * np.hypot(forward, right)) + 1e-9
        self._sky_rows = np.clip(PANORAMA_ROWS * (1.0 - up / along) - 0.5, 0, PANORAMA_ROWS - 1).astype(np.float32)
        self._sky_columns = (np.arctan2(-right, forward) / (2.0 * np.pi) * PANORAMA_COLUMNS).astype(np.float32)
        self._strips = self._lay_out()

    def grey(self, scene: LiteMap, place: Transform) -> NDArray[np.uint8]:
        """Return the picture in grey, without what moves: ``(height, width) uint8``."""
        fine = np.full((self.height * _FINE, self.width * _FINE), scene.ground.grey, np.uint8)
        for strip in self._strips:
            rows = fine[strip.first_row : strip.last_row]
            drawn = self._warp(scene, place, strip.level, _FINE, strip.first_row, len(rows))
            np.copyto(rows, drawn, where=strip.mask)
        picture = np.asarray(cv2.resize(fine, (self.width, self.height), interpolation=cv2.INTER_AREA), np.uint8)
        if self.is_sky.any():
            np.copyto(picture, self._panorama(scene.panorama, place, cv2.INTER_LINEAR), where=self.is_sky)
        return picture

    def paved(self, scene: LiteMap, place: Transform) -> NDArray[np.uint8]:
        """Return 255 where the road is seen, elsewhere 0."""
        matrix = scene.ground.from_world(PAVED_LEVEL) @ self._to_world(place, 1, 0)
        seen = cv2.warpPerspective(scene.ground.paved, matrix, (self.width, self.height), flags=_WARP)
        seen[self.is_sky] = 0
        return np.asarray(seen, np.uint8)

    def depth_m(self) -> NDArray[np.float32]:
        """Return how far ground and sky are along the camera's axis, at most ``FAR_M``; a new array."""
        return np.array(self._depth_m)

    def kinds(self, scene: LiteMap, place: Transform) -> NDArray[np.uint8]:
        """Return CARLA's tag of what is seen, without what moves."""
        paved = self.paved(scene, place) > 127
        kinds = np.where(paved, ROAD, TERRAIN).astype(np.uint8)
        kinds[paved & (self.grey(scene, place) >= _MARK_GREY)] = ROAD_LINE
        if self.is_sky.any():
            np.copyto(kinds, self._panorama(_tags_of(scene.name), place, cv2.INTER_NEAREST), where=self.is_sky)
        return kinds

    def _rays(self, fine: int) -> tuple[NDArray[np.float64], ...]:
        """Return forward, right and up of every pixel's ray, whose part along the axis is 1."""
        columns = ((np.arange(self.width * fine) + 0.5) / fine - 0.5 * self.width) / self.focal
        rows = ((np.arange(self.height * fine) + 0.5) / fine - 0.5 * self.height) / self.focal
        axis, right, up = self._axes
        return tuple(axis[i] + columns[None] * right[i] - rows[:, None] * up[i] for i in range(3))

    def _lay_out(self) -> list[_Strip]:
        """Choose for each pixel the level of the ground whose texels are as large as what it sees."""
        _, _, up = self._rays(_FINE)
        with np.errstate(divide="ignore", invalid="ignore"):
            depth = np.where(up < 0.0, self._up_m / -up, np.inf)
            # The longer side of what a sample covers on the ground.
            seen_m = depth / (self.focal * _FINE) * np.maximum(1.0, depth / self._up_m)
            levels = np.clip(np.rint(np.log2(seen_m / TEXEL_M)), 0, 3)
        levels[~(up < 0.0)] = -1
        strips = []
        for level in range(4):
            is_here = levels == level
            rows = np.flatnonzero(is_here.any(axis=1))
            if len(rows):
                first, last = int(rows[0]), int(rows[-1]) + 1
                strips.append(_Strip(level, first, last, is_here[first:last]))
        return strips

    def _to_world(self, place: Transform, fine: int, first_row: int) -> NDArray[np.float64]:
        """Return the matrix from (column, row) samples, rows counted from ``first_row``, to the ground's metres."""
        size = self.focal * fine
        ray = np.array(
            [
                [0.0, 0.0, 1.0],
                [1.0 / size, 0.0, (0.5 - 0.5 * self.width * fine) / size],
                [0.0, 1.0 / size, (0.5 + first_row - 0.5 * self.height * fine) / size],
            ]
        )
        (af, ar, au), (rf, rr, ru), (uf, ur, uu) = self._axes
        up_m = self._up_m
        to_camera = np.array([[up_m * af, up_m * rf, -up_m * uf], [-up_m * ar, -up_m * rr, up_m * ur], [-au, -ru, uu]])
        x, y, yaw = place.pose
        return np.asarray(pose_matrix(x, y, yaw) @ to_camera @ ray)

    def _warp(
        self, scene: LiteMap, place: Transform, level: int, fine: int, first_row: int, n_rows: int
    ) -> NDArray[np.uint8]:
        matrix = scene.ground.from_world(level) @ self._to_world(place, fine, first_row)
        drawn = cv2.warpPerspective(
            scene.ground.levels[level],
            matrix,
            (self.width * fine, n_rows),
            flags=_WARP,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=scene.ground.grey,
        )
        return np.asarray(drawn, np.uint8)

    def _panorama(self, panorama: NDArray[np.uint8], place: Transform, how: int) -> NDArray[np.uint8]:
        turned = np.float32(place.pose.yaw_rad / (2.0 * math.pi) % 1.0 * PANORAMA_COLUMNS)
        columns = (self._sky_columns + turned) % np.float32(PANORAMA_COLUMNS)
        return np.asarray(cv2.remap(panorama, columns, self._sky_rows, how, borderMode=cv2.BORDER_WRAP), np.uint8)


@lru_cache(maxsize=6)
def free_camera(height: int, width: int, fov_deg: float, up_m: float, pitch_deg: float, roll_deg: float) -> FreeCamera:
    """Return a camera, whose geometry is kept for the next frames."""
    return FreeCamera(height, width, fov_deg, up_m, pitch_deg, roll_deg)


def axes_of(place: Transform) -> NDArray[np.float64]:
    """Return forward, right and up of something that is turned so, as rows, in CARLA's coordinates."""
    pitch, yaw, roll = (math.radians(angle) for angle in (place.pitch, place.yaw, place.roll))
    cp, sp, cy, sy, cr, sr = (f(a) for a in (pitch, yaw, roll) for f in (math.cos, math.sin))
    return np.array(
        [
            [cp * cy, cp * sy, sp],
            [cy * sp * sr - sy * cr, sy * sp * sr + cy * cr, -cp * sr],
            [-(cy * sp * cr + sy * sr), cy * sr - sy * sp * cr, cp * cr],
        ]
    )


@cache
def _tags_of(map_name: str) -> NDArray[np.uint8]:
    """Return the panorama as tags: the hills, all of one grey, are taken for woods, what else is dark for houses."""
    panorama = load_map(map_name).panorama
    dark = panorama[panorama < _SKY_GREY]
    hills = int(np.bincount(dark).argmax()) if len(dark) else 0
    tags = np.where(panorama < _SKY_GREY, BUILDING, SKY).astype(np.uint8)
    tags[panorama == hills] = VEGETATION
    return tags
