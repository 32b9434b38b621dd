"""Cars as boxes in perspective: a body, a cabin upon it, and its shadow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.envs.lite.weather import Sky
from sb3_visual_td3.envs.road.collision import OrientedBox

PAINTS = ((225, 75, 60), (80, 135, 220), (225, 225, 220), (16, 18, 22), (215, 170, 50), (150, 160, 165))
"""Red, green and blue of each paint; in grey, too, each stands out from asphalt."""
CAR_HEIGHT_M = 1.45
MAX_DISTANCE_M = 90.0
_SMALLEST_PX = 1.0
"""A car whose height is less is not drawn."""
_NEAR_M = 0.25
_SHIFT = 4
_DETAIL_PX = 9.0
"""A car whose height is fewer pixels is one plain box without a shadow, its lights on by night only."""
_GLASS, _SHADOW = (38, 44, 52), (28, 28, 30)
_REAR_LIGHT, _HEAD_LIGHT = (255, 70, 55), (255, 250, 225)
_WINDOW_PX = 4.0
"""A plain box of at least this height has a window towards the camera."""
_DARK = 0.5
_SIDES = ((0, 1), (1, 2), (2, 3), (3, 0))
"""Corners of the front, the left, the rear and the right side; corner 0 is front right, then counter-clockwise."""
_SHADES = (0.92, 0.78, 0.85, 0.70)

Point = tuple[float, float, float]
Colour = tuple[int, int, int]


class Lens(NamedTuple):
    """How a camera maps metres to pixels."""

    height: int
    width: int
    ahead_m: float
    """The camera's place before the vehicle's centre."""
    height_m: float

    @property
    def focal(self) -> float:
        """Focal length in pixels: the picture is 90 degrees wide."""
        return self.width / 2.0


def paint_cars(
    frame: NDArray[np.uint8],
    boxes: Sequence[OrientedBox],
    paints: Sequence[int],
    pose: tuple[float, float, float],
    lens: Lens,
    sky: Sky | None = None,
) -> None:
    """Draw the cars that are seen onto ``frame``, in place, the farthest first.

    :param frame: ``(height, width) uint8`` grey or ``(height, width, 3) uint8`` RGB.
    :param boxes: where the cars are.
    :param paints: index into ``PAINTS`` for each.
    :param pose: x, y and yaw of the vehicle that carries the camera.
    :param lens: of the camera.
    :param sky: the light; ``None`` on a clear day.
    """
    x, y, yaw = pose
    cos, sin = math.cos(yaw), math.sin(yaw)
    farthest_m = min(MAX_DISTANCE_M, lens.focal * CAR_HEIGHT_M / _SMALLEST_PX)
    limit_m2 = 2.0 * (farthest_m + lens.ahead_m + 20.0) ** 2  # the corner of what a camera 90 degrees wide sees
    seen = []
    for number, box in enumerate(boxes):
        dx, dy = box.x_m - x, box.y_m - y
        if dx * dx + dy * dy > limit_m2:
            continue
        forward, left = dx * cos + dy * sin - lens.ahead_m, dy * cos - dx * sin
        if -box.length_m < forward < farthest_m and abs(left) < forward + 2.0 * box.length_m:
            seen.append((forward * forward + left * left, number, forward, left))
    seen.sort(reverse=True)
    for _, number, forward, left in seen:
        turn_rad = boxes[number].yaw_rad - yaw
        _CarPainter(frame, lens, sky, forward, left, turn_rad, boxes[number], PAINTS[paints[number]]).draw()


class _CarPainter:
    """One car in one picture; forward and left are metres from the camera."""

    def __init__(
        self,
        frame: NDArray[np.uint8],
        lens: Lens,
        sky: Sky | None,
        forward_m: float,
        left_m: float,
        turn_rad: float,
        box: OrientedBox,
        paint: Colour,
    ) -> None:
        self._frame, self._lens = frame, lens
        self._forward, self._left = forward_m, left_m
        self._cos, self._sin = math.cos(turn_rad), math.sin(turn_rad)
        self._length, self._width, self._paint = box.length_m, box.width_m, paint
        self._may_reach_the_lens = forward_m < box.length_m
        unit = 2.0**_SHIFT
        self._unit_focal = lens.focal * unit
        self._middle, self._horizon = (lens.width / 2.0 - 0.5) * unit, (lens.height // 2 - 0.5) * unit
        self._gain, self._veil = 1.0, 0.0
        if sky is not None:
            distance = max(_NEAR_M, math.hypot(forward_m, left_m))
            self._gain, self._veil = sky.gain_and_veil(distance, left_m / max(1.0, forward_m))
        self._is_dark = sky is not None and sky.ambient < _DARK
        self._size_px = lens.focal * CAR_HEIGHT_M / max(_NEAR_M, forward_m)

    def draw(self) -> None:
        length, width = self._length, self._width
        if self._size_px < _DETAIL_PX:
            self._block(length, width, 0.0, 0.0, CAR_HEIGHT_M, self._paint, has_top=False, has_lights=self._is_dark)
            if self._size_px > _WINDOW_PX:
                end = math.copysign(length / 2, -self._forward * self._cos - self._left * self._sin)
                self._wall((end, -0.4 * width), (end, 0.4 * width), 0.85, CAR_HEIGHT_M - 0.1, _GLASS, 1.0)
            return
        self._fill([self._at(a, b, 0.0) for a, b in _rectangle(length + 0.2, width + 0.2, 0.0)], _SHADOW, 1.0)
        self._block(length, width, 0.0, 0.2, 0.85, self._paint, has_lights=True)
        self._block(0.55 * length, 0.88 * width, -0.06 * length, 0.85, CAR_HEIGHT_M - 0.06, _GLASS)
        roof = [self._at(a, b, CAR_HEIGHT_M) for a, b in _rectangle(0.5 * length, 0.86 * width, -0.06 * length)]
        if self._lens.height_m > CAR_HEIGHT_M:
            self._fill(roof, self._paint, 1.0)

    def _block(
        self,
        length: float,
        width: float,
        shift: float,
        low: float,
        high: float,
        paint: Colour,
        has_top: bool = True,
        has_lights: bool = False,
    ) -> None:
        corners = _rectangle(length, width, shift)
        # The camera in the car's own coordinates tells which sides face it.
        ahead = -self._forward * self._cos - self._left * self._sin - shift
        aside = self._forward * self._sin - self._left * self._cos
        faces = (ahead > length / 2, aside > width / 2, ahead < -length / 2, aside < -width / 2)
        for number, (first, last) in enumerate(_SIDES):
            if faces[number]:
                self._wall(corners[first], corners[last], low, high, paint, _SHADES[number])
        if has_top and self._lens.height_m > high:
            self._fill([self._at(a, b, high) for a, b in corners], paint, 1.0)
        if has_lights:
            if faces[2]:
                self._lights(-length / 2, width, _REAR_LIGHT)
            elif faces[0]:
                self._lights(length / 2, width, _HEAD_LIGHT)

    def _lights(self, along: float, width: float, colour: Colour) -> None:
        for side in (-1.0, 1.0):
            outer, inner = 0.46 * width * side, 0.26 * width * side
            quad = [self._at(along, across, up) for across, up in ((outer, 0.55), (inner, 0.55), (inner, 0.75))]
            self._fill([*quad, self._at(along, outer, 0.75)], colour, 1.0, shines=True)

    def _at(self, along: float, across: float, up: float) -> Point:
        """Return depth, left and up in metres from the camera, of a place on the car."""
        return (
            self._forward + along * self._cos - across * self._sin,
            self._left + along * self._sin + across * self._cos,
            up - self._lens.height_m,
        )

    def _wall(
        self,
        one: tuple[float, float],
        two: tuple[float, float],
        low: float,
        high: float,
        paint: Colour,
        shade: float,
    ) -> None:
        """Fill the upright rectangle over the line from ``one`` to ``two``."""
        depth1, left1, up1 = self._at(*one, low)
        depth2, left2, _ = self._at(*two, low)
        up2 = up1 + high - low
        if self._may_reach_the_lens:
            self._fill(
                [(depth1, left1, up1), (depth2, left2, up1), (depth2, left2, up2), (depth1, left1, up2)], paint, shade
            )
            return
        # Most cars stand wholly before the lens: two corners then give all four.
        scale1, scale2 = self._unit_focal / depth1, self._unit_focal / depth2
        column1, column2 = round(self._middle - left1 * scale1), round(self._middle - left2 * scale2)
        pixels = [
            (column1, round(self._horizon - up1 * scale1)),
            (column2, round(self._horizon - up1 * scale2)),
            (column2, round(self._horizon - up2 * scale2)),
            (column1, round(self._horizon - up2 * scale1)),
        ]
        self._fill_pixels(pixels, paint, shade * self._gain, self._veil)

    def _fill(self, corners: Sequence[Point], colour: Colour, shade: float, *, shines: bool = False) -> None:
        if self._may_reach_the_lens:
            corners = clip_to_near_plane(corners)
            if len(corners) < 3:
                return
        focal, middle, horizon = self._unit_focal, self._middle, self._horizon
        pixels = [
            (round(middle - left * focal / depth), round(horizon - up * focal / depth)) for depth, left, up in corners
        ]
        gain, veil = (1.0, 0.0) if shines else (shade * self._gain, self._veil)
        self._fill_pixels(pixels, colour, gain, veil)

    def _fill_pixels(self, pixels: list[tuple[int, int]], colour: Colour, gain: float, veil: float) -> None:
        red, green, blue = colour
        if self._frame.ndim == 3:
            value: Any = (red * gain + veil, green * gain + veil, blue * gain + veil)
        else:
            value = (0.299 * red + 0.587 * green + 0.114 * blue) * gain + veil
        cv2.fillConvexPoly(self._frame, np.array(pixels, np.int32), value, cv2.LINE_AA, _SHIFT)


def _rectangle(length: float, width: float, shift: float) -> tuple[tuple[float, float], ...]:
    front, rear, side = shift + length / 2, shift - length / 2, width / 2
    return (front, -side), (front, side), (rear, side), (rear, -side)


def clip_to_near_plane(corners: Sequence[Point]) -> list[Point]:
    """Return the part of a convex polygon that lies at least ``_NEAR_M`` before the camera.

    Source: Sutherland, Hodgman 1974, "Reentrant polygon clipping", for one plane.
    """
    kept: list[Point] = []
    for one, two in zip(corners, [*corners[1:], corners[0]], strict=True):
        if one[0] >= _NEAR_M:
            kept.append(one)
        if (one[0] >= _NEAR_M) != (two[0] >= _NEAR_M):
            part = (_NEAR_M - one[0]) / (two[0] - one[0])
            kept.append((_NEAR_M, one[1] + part * (two[1] - one[1]), one[2] + part * (two[2] - one[2])))
    return kept
