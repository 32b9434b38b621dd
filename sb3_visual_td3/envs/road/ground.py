"""Paint a map: the ground with its marks as a raster, and the panorama around it.

Both are painted once per map. A camera only warps the raster and cuts its view from the panorama.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.envs.road.network import Paint, RoadNetwork

TEXEL_M = 0.1
"""Side of a texel, which is a pixel of the raster. A coarser raster makes the edges of marks uneven."""
N_LEVELS = 4
"""Number of levels (resolutions) of the raster. Each level has half the resolution of the one before."""
PAVED_LEVEL = 2
"""The mask of the road, ``Ground.paved``, is stored at this level only: at a quarter of the finest resolution."""
_MARGIN_M = 45.0
"""Width of the land around the road's bounding box."""
_SHOULDER_M = 0.4
"""Width of the asphalt beyond the outer lines."""
_MARK_M = 0.2
_DASH_PERIOD_M = 6.0
"""Length of a dash together with the gap after it; both are equally long."""
_DASH_POINTS = 7
_LINE_SPACING_M = 0.5
_TILE = 1024
"""Side of the noise tiles in texels."""
_SUBPIXEL_BITS = 4
"""Fractional bits of OpenCV's fixed-point coordinates: texels are multiplied by 2^4 and rounded to integers."""


class Ground(NamedTuple):
    """Hold the ground, including the roads, as a raster; its rows run along y, its columns along x."""

    levels: tuple[NDArray[np.uint8], ...]
    """Grey ``(height, width) uint8`` rasters; each level has half the resolution of the one before."""
    paved: NDArray[np.uint8]
    """Mask of the road at the resolution of level ``PAVED_LEVEL``: 255 on the road, otherwise 0."""
    x0_m: float
    """World x of the outer corner of texel (0, 0)."""
    y0_m: float
    """World y of the outer corner of texel (0, 0)."""
    grey: int
    """Mean grey of the land. Cameras draw everything outside the raster in this grey."""

    def from_world(self, level: int) -> NDArray[np.float64]:
        """Return the 3x3 matrix that maps metres of the world to pixels (texels) of a level of the raster.

        :param level: index in ``levels``
        :return: the matrix, for homogeneous coordinates
        """
        # Half a texel is subtracted, because integer texel coordinates are centres, while x0 and y0 belong to a corner.
        texel_m = TEXEL_M * 2**level
        return np.array(
            [[1 / texel_m, 0.0, -self.x0_m / texel_m - 0.5], [0.0, 1 / texel_m, -self.y0_m / texel_m - 0.5], [0, 0, 1]]
        )


class Strip(NamedTuple):
    """Describe a strip to paint along a line: the asphalt of a road or lane, or a lane mark."""

    line_m: NDArray[np.float64]
    """``(n, 2)``: x and y of the strip's centre line; a closed line repeats its first point."""
    width_m: float


class GroundPlan(NamedTuple):
    """Hold the strips to paint on the ground of a map: the asphalt of the roads, and the lane marks."""

    paved: tuple[Strip, ...]
    marks: tuple[Strip, ...]


def ground_plan(network: RoadNetwork) -> GroundPlan:
    """Return the strips to paint for the roads of a network: their asphalt and their lane marks."""
    paved, marks = [], []
    for road in network.roads:
        left_m, right_m = network.border_m(road.n_left), network.border_m(-road.n_right)
        # The asphalt runs along the road's middle, which is not the reference line if one side has more lanes.
        middle = road.line_m(0.5 * (left_m + right_m), _LINE_SPACING_M)
        paved.append(Strip(middle, left_m - right_m + 2.0 * _SHOULDER_M))
        for border in range(-road.n_right, road.n_left + 1):
            line = road.line_m(network.border_m(border), _LINE_SPACING_M)
            marks += mark_strips(line, road.mark(border), road.length_m)
    return GroundPlan(tuple(paved), tuple(marks))


def mark_strips(line_m: NDArray[np.float64], kind: Paint, length_m: float) -> list[Strip]:
    """Return the strips to paint for one lane mark: one for a solid mark, one per dash for a broken mark.

    :param line_m: evenly spaced points of the mark, ``(n, 2)``
    :param kind: paint of the mark
    :param length_m: length of the road; all marks of a road get equally many dashes
    :return: the strips to paint; empty for the paint ``"none"``
    """
    if kind == "none":
        return []
    if kind == "solid":
        return [Strip(line_m, _MARK_M)]
    n_dashes = max(1, round(length_m / _DASH_PERIOD_M))
    # (n_dashes, _DASH_POINTS): points along each dash, which spans the middle half of its period. Their positions are
    # counted in ``periods``, and then converted to indices ``at`` of the line's points. Interpolating x and y at these
    # indices gives (n_dashes, _DASH_POINTS, 2).
    periods = np.arange(n_dashes)[:, None] + np.linspace(0.25, 0.75, _DASH_POINTS)
    at = periods * (len(line_m) - 1) / n_dashes
    dashes = np.stack([np.interp(at, np.arange(len(line_m)), axis) for axis in line_m.T], axis=2)
    return [Strip(dash, _MARK_M) for dash in dashes]


def build_ground(plan: GroundPlan, rng: np.random.Generator) -> Ground:
    """Paint the ground of a map: the roads, their marks and the land around them.

    :param plan: the asphalt and the marks to paint
    :param rng: generator of the brightness and the texture
    """
    # The order of the random numbers must not change, because the same seed must give the same picture.
    points = np.concatenate([strip.line_m for strip in plan.paved])
    x0_m, y0_m = (points.min(axis=0) - _MARGIN_M).tolist()
    extent_m = np.ptp(points, axis=0) + 2 * _MARGIN_M
    block = 2 ** (N_LEVELS - 1)  # every level halves without a remainder
    width, height = (int(np.ceil(side / TEXEL_M / block)) * block for side in extent_m)
    grey = int(rng.integers(85, 120))
    land = _noise_tile(rng, grey, ((80, 14.0), (20, 12.0), (5, 7.0)))
    asphalt = _noise_tile(rng, int(rng.integers(52, 72)), ((50, 4.0), (6, 4.0)))

    paved = np.zeros((height, width), np.uint8)
    # The road is first painted into a mask; the asphalt's texture is then copied onto the land through this mask.
    for strip in plan.paved:
        _draw(paved, strip, 255, x0_m, y0_m)
    raster = _tiled(land, height, width)
    cv2.copyTo(_tiled(asphalt, height, width), paved, raster)
    mark_grey = int(rng.integers(205, 235))
    for strip in plan.marks:
        _draw(raster, strip, mark_grey, x0_m, y0_m)
    levels = _halvings(raster, N_LEVELS)
    return Ground(levels, _halvings(paved, PAVED_LEVEL + 1)[PAVED_LEVEL], x0_m, y0_m, grey)


def _draw(raster: NDArray[np.uint8], strip: Strip, grey: int, x0_m: float, y0_m: float) -> None:
    """Paint a strip into ``raster``, in place, with smooth edges; the raster begins at ``x0_m`` and ``y0_m``."""
    texels = (strip.line_m - (x0_m, y0_m)) / TEXEL_M - 0.5  # the same conversion as in Ground.from_world
    fixed = (texels * 2**_SUBPIXEL_BITS).round().astype(np.int32)
    cv2.polylines(raster, [fixed], False, grey, max(1, round(strip.width_m / TEXEL_M)), cv2.LINE_AA, _SUBPIXEL_BITS)


def _noise_tile(rng: np.random.Generator, grey: int, layers: tuple[tuple[int, float], ...]) -> NDArray[np.uint8]:
    """Return a tile of value noise that repeats without a seam, ``(1024, 1024) uint8``.

    :param layers: for each layer of noise, the side of a grid cell in texels and the standard deviation of the random
        values
    """
    tile = np.full((_TILE, _TILE), grey, np.float32)
    pad = 2  # a cubic depends on two values on either side
    for cell, amplitude in layers:
        n = round(_TILE / cell)
        # The interpolation uses values of the opposite side, so that the tile repeats without a seam. The added margin
        # is cut off afterwards.
        nodes = np.pad(rng.normal(0.0, amplitude, (n, n)).astype(np.float32), pad, mode="wrap")
        side = round(_TILE * (n + 2 * pad) / n)
        first = round(_TILE * pad / n)
        smooth = cv2.resize(nodes, (side, side), interpolation=cv2.INTER_CUBIC)
        tile += smooth[first : first + _TILE, first : first + _TILE]
    return np.clip(tile, 0, 255).astype(np.uint8)


def _tiled(tile: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Repeat a tile side by side until it covers ``(height, width)``, and return the result."""
    n_down, n_across = -(-height // _TILE), -(-width // _TILE)  # rounded up
    repeated = np.tile(tile, (n_down, n_across))
    return np.ascontiguousarray(repeated[:height, :width])


def _halvings(raster: NDArray[np.uint8], n_levels: int) -> tuple[NDArray[np.uint8], ...]:
    """Return the raster at decreasing resolutions: each level has half the resolution of the one before."""
    levels = [raster]
    while len(levels) < n_levels:
        levels.append(cv2.resize(levels[-1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
    return tuple(levels)


PANORAMA_ROWS = 240
PANORAMA_COLUMNS = 2048


def build_panorama(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Paint the surroundings of the map: a sky, clouds, hills, and some blocks that look like houses.

    The columns cover 360 degrees, counter-clockwise. The rows are proportional to the tangent of the elevation: the
    last row is the horizon, and the first row is 45 degrees above it.

    :param rng: generator of the panorama's random values
    :return: ``(240, 2048) uint8``
    """
    # The order of the random numbers must not change, because the same seed must give the same picture.
    panorama = np.linspace(rng.uniform(195, 215), rng.uniform(160, 180), PANORAMA_ROWS)[:, None] + _clouds(rng)
    # Hills: (2048,) heights in rows, a sum of waves with whole periods per turn, so that they close without a step.
    turn = np.linspace(0.0, 2.0 * np.pi, PANORAMA_COLUMNS, endpoint=False)
    waves = [rng.uniform(2, 9) * np.sin(n * turn + rng.uniform(0.0, 2.0 * np.pi)) for n in (2, 3, 5, 9)]
    hills = np.clip(30.0 + np.sum(waves, axis=0), 5.0, 90.0)
    rows_up = np.arange(PANORAMA_ROWS, 0, -1)[:, None]
    panorama[rows_up <= hills] = rng.uniform(110, 130)
    # Blocks of random width, height and grey, some of them across the seam.
    for _ in range(int(rng.integers(20, 40))):
        left, width, up = int(rng.integers(PANORAMA_COLUMNS)), int(rng.integers(6, 32)), int(rng.integers(18, 86))
        columns = np.arange(left, left + width) % PANORAMA_COLUMNS
        panorama[-up:, columns] = rng.uniform(60, 150)
    return np.asarray(np.clip(panorama, 0, 255), dtype=np.uint8)


def _clouds(rng: np.random.Generator) -> NDArray[np.float64]:
    """Return smooth noise, ``(240, 2048)``, whose left and right edges join without a seam."""
    # Three copies of the noise are interpolated side by side, and the middle copy is returned. So its left and right
    # edges join without a seam.
    nodes = np.tile(rng.normal(0.0, 6.0, (12, 32)), 3)
    turns = cv2.resize(nodes, (3 * PANORAMA_COLUMNS, PANORAMA_ROWS), interpolation=cv2.INTER_CUBIC)
    return np.asarray(turns[:, PANORAMA_COLUMNS : 2 * PANORAMA_COLUMNS])
