"""The ground seen from above, as a grey raster in several resolutions."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.envs.lite.track import LEFT_LINE_M, RIGHT_LINE_M, Track

TEXEL_M = 0.1
"""Twice a texel is the width of a mark: coarser marks wobble, finer ones gain nothing."""
N_LEVELS = 4
PAVED_LEVEL = 2
_MARGIN_M = 45.0
_SHOULDER_M = 0.4
_MARK_M = 0.2
_DASH_PERIOD_M = 6.0
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


def build_ground(track: Track, rng: np.random.Generator) -> Ground:
    """Paint the road of ``track``, its marks and the land around it."""
    x0_m, y0_m = (track.points_m.min(axis=0) - _MARGIN_M).tolist()
    extent_m = np.ptp(track.points_m, axis=0) + 2 * _MARGIN_M
    block = 2 ** (N_LEVELS - 1)  # every level halves without a remainder
    width, height = (int(np.ceil(side / TEXEL_M / block)) * block for side in extent_m)
    grey = int(rng.integers(85, 120))
    land = _noise_tile(rng, grey, ((80, 14.0), (20, 12.0), (5, 7.0)))
    asphalt = _noise_tile(rng, int(rng.integers(52, 72)), ((50, 4.0), (6, 4.0)))

    paved = np.zeros((height, width), np.uint8)
    middle_m = 0.5 * (LEFT_LINE_M + RIGHT_LINE_M)
    paved_m = LEFT_LINE_M - RIGHT_LINE_M + 2 * _SHOULDER_M
    _draw(paved, _texels(track, middle_m, x0_m, y0_m), 255, paved_m, is_closed=True)
    raster = _tiled(land, height, width)
    cv2.copyTo(_tiled(asphalt, height, width), paved, raster)
    _draw_marks(raster, track, x0_m, y0_m, int(rng.integers(205, 235)))
    levels = _halvings(raster, N_LEVELS)
    return Ground(levels, _halvings(paved, PAVED_LEVEL + 1)[PAVED_LEVEL], x0_m, y0_m, grey)


def _draw_marks(raster: NDArray[np.uint8], track: Track, x0_m: float, y0_m: float, grey: int) -> None:
    for offset_m in (LEFT_LINE_M, RIGHT_LINE_M):
        _draw(raster, _texels(track, offset_m, x0_m, y0_m), grey, _MARK_M, is_closed=True)
    middle = _texels(track, 0.5 * (LEFT_LINE_M + RIGHT_LINE_M), x0_m, y0_m)
    n_dashes = round(track.length_m / _DASH_PERIOD_M)
    edges = np.linspace(0, len(middle), 2 * n_dashes + 1).round().astype(int)
    for first, last in zip(edges[:-1:2], edges[1::2], strict=True):
        _draw(raster, middle[first : last + 1], grey, _MARK_M, is_closed=False)


def _texels(track: Track, offset_m: float, x0_m: float, y0_m: float) -> NDArray[np.int32]:
    texels = (track.offset_line_m(offset_m) - (x0_m, y0_m)) / TEXEL_M - 0.5
    return np.asarray((texels * 2**_SUBPIXEL_BITS).round(), dtype=np.int32)


def _draw(raster: NDArray[np.uint8], line: NDArray[np.int32], grey: int, width_m: float, *, is_closed: bool) -> None:
    cv2.polylines(raster, [line], is_closed, grey, max(1, round(width_m / TEXEL_M)), cv2.LINE_AA, _SUBPIXEL_BITS)


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
