"""What is drawn of a map: the ground with its marks as a raster, and the panorama around it."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.envs.road.network import Paint, RoadNetwork

TEXEL_M = 0.1
"""Twice a texel is the width of a mark: coarser marks wobble, finer ones gain nothing."""
N_LEVELS = 4
PAVED_LEVEL = 2
_MARGIN_M = 45.0
_SHOULDER_M = 0.4
_MARK_M = 0.2
_DASH_PERIOD_M = 6.0
_DASH_POINTS = 7
_LINE_SPACING_M = 0.5
_TILE = 1024
_SUBPIXEL_BITS = 4


class Ground(NamedTuple):
    """What lies on the ground around a road; row and column grow with y and x."""

    levels: tuple[NDArray[np.uint8], ...]
    """Grey ``(h, w) uint8`` rasters; each level halves the one before."""
    paved: NDArray[np.uint8]
    """255 where the ground is road, else 0, in the resolution of level ``PAVED_LEVEL``."""
    x0_m: float
    y0_m: float
    """World coordinates of the corner of texel (0, 0)."""
    grey: int
    """The mean of the ground off the road, for what lies outside the raster."""

    def from_world(self, level: int) -> NDArray[np.float64]:
        """Return the 3x3 matrix from homogeneous world metres to texel centres of ``level``."""
        texel_m = TEXEL_M * 2**level
        return np.array(
            [[1 / texel_m, 0.0, -self.x0_m / texel_m - 0.5], [0.0, 1 / texel_m, -self.y0_m / texel_m - 0.5], [0, 0, 1]]
        )


class Strip(NamedTuple):
    """A paved strip or a solid mark: a line that is drawn ``width_m`` wide."""

    line_m: NDArray[np.float64]
    """``(n, 2)``; a closed one repeats its first point."""
    width_m: float


class GroundPlan(NamedTuple):
    """What is painted on the land."""

    paved: tuple[Strip, ...]
    marks: tuple[Strip, ...]


def ground_plan(network: RoadNetwork) -> GroundPlan:
    """Return where a network's roads are paved and marked."""
    paved, marks = [], []
    for road in network.roads:
        left_m, right_m = network.border_m(road.n_left), network.border_m(-road.n_right)
        middle = road.line_m(0.5 * (left_m + right_m), _LINE_SPACING_M)
        paved.append(Strip(middle, left_m - right_m + 2.0 * _SHOULDER_M))
        for border in range(-road.n_right, road.n_left + 1):
            line = road.line_m(network.border_m(border), _LINE_SPACING_M)
            marks += mark_strips(line, road.mark(border), road.length_m)
    return GroundPlan(tuple(paved), tuple(marks))


def mark_strips(line_m: NDArray[np.float64], kind: Paint, length_m: float) -> list[Strip]:
    """Return the strips of one mark.

    A dash lies in the middle of each period, so that dashes go on evenly from one road to the next.

    :param line_m: ``(n, 2)``, evenly spaced.
    :param length_m: of the road, from which the number of dashes follows: neighbouring lines keep in step.
    """
    if kind == "none":
        return []
    if kind == "solid":
        return [Strip(line_m, _MARK_M)]
    n_dashes = max(1, round(length_m / _DASH_PERIOD_M))
    periods = np.arange(n_dashes)[:, None] + np.linspace(0.25, 0.75, _DASH_POINTS)
    at = periods * (len(line_m) - 1) / n_dashes
    dashes = np.stack([np.interp(at, np.arange(len(line_m)), axis) for axis in line_m.T], axis=2)
    return [Strip(dash, _MARK_M) for dash in dashes]


def build_ground(plan: GroundPlan, rng: np.random.Generator) -> Ground:
    """Paint the roads of ``plan``, their marks and the land around them."""
    points = np.concatenate([strip.line_m for strip in plan.paved])
    x0_m, y0_m = (points.min(axis=0) - _MARGIN_M).tolist()
    extent_m = np.ptp(points, axis=0) + 2 * _MARGIN_M
    block = 2 ** (N_LEVELS - 1)  # every level halves without a remainder
    width, height = (int(np.ceil(side / TEXEL_M / block)) * block for side in extent_m)
    grey = int(rng.integers(85, 120))
    land = _noise_tile(rng, grey, ((80, 14.0), (20, 12.0), (5, 7.0)))
    asphalt = _noise_tile(rng, int(rng.integers(52, 72)), ((50, 4.0), (6, 4.0)))

    paved = np.zeros((height, width), np.uint8)
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
    texels = (strip.line_m - (x0_m, y0_m)) / TEXEL_M - 0.5
    fixed = (texels * 2**_SUBPIXEL_BITS).round().astype(np.int32)
    cv2.polylines(raster, [fixed], False, grey, max(1, round(strip.width_m / TEXEL_M)), cv2.LINE_AA, _SUBPIXEL_BITS)


def _noise_tile(rng: np.random.Generator, grey: int, layers: tuple[tuple[int, float], ...]) -> NDArray[np.uint8]:
    """Return a ``(1024, 1024) uint8`` tile that repeats without a seam: ``layers`` are (cell in texels, amplitude)."""
    tile = np.full((_TILE, _TILE), grey, np.float32)
    pad = 2
    for cell, amplitude in layers:
        n = round(_TILE / cell)
        nodes = np.pad(rng.normal(0.0, amplitude, (n, n)).astype(np.float32), pad, mode="wrap")
        side = round(_TILE * (n + 2 * pad) / n)
        first = round(_TILE * pad / n)
        smooth = cv2.resize(nodes, (side, side), interpolation=cv2.INTER_CUBIC)
        tile += smooth[first : first + _TILE, first : first + _TILE]
    return np.clip(tile, 0, 255).astype(np.uint8)


def _tiled(tile: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    repeated = np.tile(tile, (-(-height // _TILE), -(-width // _TILE)))
    return np.ascontiguousarray(repeated[:height, :width])


def _halvings(raster: NDArray[np.uint8], n_levels: int) -> tuple[NDArray[np.uint8], ...]:
    levels = [raster]
    while len(levels) < n_levels:
        levels.append(cv2.resize(levels[-1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
    return tuple(levels)


PANORAMA_ROWS = 240
PANORAMA_COLUMNS = 2048


def build_panorama(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return ``(240, 2048) uint8``: columns are directions, one turn to the left; the last row is the horizon.

    A row's height above the horizon is the tangent of its elevation; the first row is 45 degrees up.
    """
    panorama = np.linspace(rng.uniform(195, 215), rng.uniform(160, 180), PANORAMA_ROWS)[:, None] + _clouds(rng)
    turn = np.linspace(0.0, 2.0 * np.pi, PANORAMA_COLUMNS, endpoint=False)
    waves = [rng.uniform(2, 9) * np.sin(n * turn + rng.uniform(0.0, 2.0 * np.pi)) for n in (2, 3, 5, 9)]
    hills = np.clip(30.0 + np.sum(waves, axis=0), 5.0, 90.0)
    rows_up = np.arange(PANORAMA_ROWS, 0, -1)[:, None]
    panorama[rows_up <= hills] = rng.uniform(110, 130)
    for _ in range(int(rng.integers(20, 40))):
        left, width, up = int(rng.integers(PANORAMA_COLUMNS)), int(rng.integers(6, 32)), int(rng.integers(18, 86))
        columns = np.arange(left, left + width) % PANORAMA_COLUMNS
        panorama[-up:, columns] = rng.uniform(60, 150)
    return np.asarray(np.clip(panorama, 0, 255), dtype=np.uint8)


def _clouds(rng: np.random.Generator) -> NDArray[np.float64]:
    nodes = np.tile(rng.normal(0.0, 6.0, (12, 32)), 3)
    turns = cv2.resize(nodes, (3 * PANORAMA_COLUMNS, PANORAMA_ROWS), interpolation=cv2.INTER_CUBIC)
    return np.asarray(turns[:, PANORAMA_COLUMNS : 2 * PANORAMA_COLUMNS])  # the middle turn closes without a seam
