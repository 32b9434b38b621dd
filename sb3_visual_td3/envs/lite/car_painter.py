"""Draw cars as boxes in perspective: a body, a cabin on top of it, and a shadow beneath.

The farthest car is drawn first (painter's algorithm). Places on a car are given in metres along its length (forward),
across it (to the left) and up.
"""

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
"""Colours of the cars as red, green and blue. Each colour stands out from the asphalt, also in a grey picture."""
CAR_HEIGHT_M = 1.45
MAX_DISTANCE_M = 90.0
"""Cars at this distance or farther away are not drawn."""
_SMALLEST_PX = 1.0
"""A car whose height in the picture is less than this is not drawn."""
_NEAR_M = 0.25
"""Parts of a car closer to the camera than this are cut off (near plane), because the projection divides by depth."""
_SUBPIXEL_BITS = 4
"""Fractional bits of OpenCV's fixed-point coordinates: pixels are multiplied by 2^4 and rounded to integers."""
_DETAIL_PX = 9.0
"""A car whose height in the picture is less than this is drawn as one plain box, without a shadow."""
_GLASS, _SHADOW = (38, 44, 52), (28, 28, 30)
_REAR_LIGHT, _HEAD_LIGHT = (255, 70, 55), (255, 250, 225)
_WINDOW_PX = 4.0
"""A car that is drawn as a plain box has a window if its height in the picture is more than this."""
_DARK = 0.5
"""A car that is drawn as a plain box shows its lights only if the ambient light is less than this."""
_SIDES = ((0, 1), (1, 2), (2, 3), (3, 0))
"""Corners of the front, the left, the rear and the right side; corner 0 is front right, then counter-clockwise."""
_SHADES = (0.92, 0.78, 0.85, 0.70)
"""Brightness of the sides in the order of ``_SIDES``; the values differ so that the box looks solid."""

Point = tuple[float, float, float]
"""Distances of a point from the camera in metres: forward (its depth), to the left, and up."""
Colour = tuple[int, int, int]


class Lens(NamedTuple):
    """Describe how a camera maps metres to pixels."""

    height: int
    width: int
    ahead_m: float
    """Distance of the camera ahead of the vehicle's centre."""
    height_m: float
    """Height of the camera above the ground."""

    @property
    def focal_px(self) -> float:
        """Return the focal length in pixels; for a picture that is 90 degrees wide it is half the width."""
        return self.width / 2.0


def paint_cars(
    frame: NDArray[np.uint8],
    boxes: Sequence[OrientedBox],
    paints: Sequence[int],
    pose: tuple[float, float, float],
    lens: Lens,
    sky: Sky | None = None,
) -> None:
    """Draw the visible cars onto ``frame``, in place.

    :param frame: ``(height, width) uint8`` grey or ``(height, width, 3) uint8`` RGB
    :param boxes: place and size of the cars
    :param paints: index into ``PAINTS`` for each car
    :param pose: x, y and yaw of the vehicle that carries the camera
    :param lens: the camera's projection
    :param sky: effect of the weather; ``None`` on a clear day
    """
    x_m, y_m, yaw_rad = pose
    cos_yaw, sin_yaw = math.cos(yaw_rad), math.sin(yaw_rad)
    # The height of a car in the picture is focal * height / distance, which falls to _SMALLEST_PX at this distance.
    farthest_m = min(MAX_DISTANCE_M, lens.focal_px * CAR_HEIGHT_M / _SMALLEST_PX)
    # A picture 90 degrees wide sees the triangle |left| <= forward <= farthest. Its corner is farthest * sqrt(2) away;
    # 20 m are added for a car that reaches into the picture. This cheap test comes first, because most cars fail it.
    limit_m2 = 2.0 * (farthest_m + lens.ahead_m + 20.0) ** 2
    visible = []
    for number, box in enumerate(boxes):
        dx_m, dy_m = box.x_m - x_m, box.y_m - y_m
        if dx_m * dx_m + dy_m * dy_m > limit_m2:
            continue
        forward_m, left_m = dx_m * cos_yaw + dy_m * sin_yaw - lens.ahead_m, dy_m * cos_yaw - dx_m * sin_yaw
        if -box.length_m < forward_m < farthest_m and abs(left_m) < forward_m + 2.0 * box.length_m:
            visible.append((forward_m * forward_m + left_m * left_m, number, forward_m, left_m))
    visible.sort(reverse=True)  # the farthest first: nearer cars are drawn over it
    for _, number, forward_m, left_m in visible:
        turn_rad = boxes[number].yaw_rad - yaw_rad
        _CarPainter(frame, lens, sky, forward_m, left_m, turn_rad, boxes[number], PAINTS[paints[number]]).draw()


class _CarPainter:
    """Draw one car into one picture.

    :param sky: effect of the weather; ``None`` on a clear day
    :param forward_m: distance of the car's centre ahead of the camera
    :param left_m: distance of the car's centre to the left of the camera
    :param turn_rad: direction of the car relative to the camera's
    """

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
        self._frame = frame
        self._lens = lens
        self._forward_m, self._left_m = forward_m, left_m
        self._cos_turn, self._sin_turn = math.cos(turn_rad), math.sin(turn_rad)
        self._length_m, self._width_m, self._paint = box.length_m, box.width_m, paint
        self._may_cross_near_plane = forward_m < box.length_m
        # OpenCV's fixed-point coordinates: lengths in pixels are multiplied by 2^_SUBPIXEL_BITS. The optical axis meets
        # the picture's middle. Half a pixel is subtracted, because OpenCV puts (0, 0) into the centre of the first
        # pixel.
        unit = 2.0**_SUBPIXEL_BITS
        self._focal_units = lens.focal_px * unit
        self._middle_units = (lens.width / 2.0 - 0.5) * unit
        self._horizon_units = (lens.height // 2 - 0.5) * unit
        # The whole car has the same light, computed for its centre.
        self._gain, self._veil = 1.0, 0.0
        self._is_dark = False
        if sky is not None:
            distance_m = max(_NEAR_M, math.hypot(forward_m, left_m))
            self._gain, self._veil = sky.gain_and_veil(distance_m, left_m / max(1.0, forward_m))
            self._is_dark = sky.ambient < _DARK
        self._size_px = lens.focal_px * CAR_HEIGHT_M / max(_NEAR_M, forward_m)

    def draw(self) -> None:
        """Draw the car, in less detail when it is far away."""
        length_m, width_m = self._length_m, self._width_m
        if self._size_px < _DETAIL_PX:
            self._draw_block(
                length_m, width_m, 0.0, 0.0, CAR_HEIGHT_M, self._paint, has_top=False, has_lights=self._is_dark
            )
            if self._size_px > _WINDOW_PX:
                # The window is drawn on the end of the car (front or rear) that faces the camera. The sign of the
                # camera's position along the car's axis selects this end.
                end_m = math.copysign(length_m / 2, -self._forward_m * self._cos_turn - self._left_m * self._sin_turn)
                left_end, right_end = (end_m, -0.4 * width_m), (end_m, 0.4 * width_m)
                self._fill_wall(left_end, right_end, 0.85, CAR_HEIGHT_M - 0.1, _GLASS, 1.0)
            return
        shadow = [self._at(along, across, 0.0) for along, across in _rectangle(length_m + 0.2, width_m + 0.2, 0.0)]
        self._fill(shadow, _SHADOW, 1.0)
        # First the body, then the cabin of glass on it, a little behind the middle, and a roof if the camera is above
        # the car.
        self._draw_block(length_m, width_m, 0.0, 0.2, 0.85, self._paint, has_lights=True)
        self._draw_block(0.55 * length_m, 0.88 * width_m, -0.06 * length_m, 0.85, CAR_HEIGHT_M - 0.06, _GLASS)
        if self._lens.height_m > CAR_HEIGHT_M:
            outline = _rectangle(0.5 * length_m, 0.86 * width_m, -0.06 * length_m)
            self._fill([self._at(along, across, CAR_HEIGHT_M) for along, across in outline], self._paint, 1.0)

    def _draw_block(
        self,
        length_m: float,
        width_m: float,
        shift_m: float,
        low_m: float,
        high_m: float,
        paint: Colour,
        has_top: bool = True,
        has_lights: bool = False,
    ) -> None:
        """Draw a box from ``low_m`` to ``high_m`` above the ground, ``shift_m`` ahead of the car's centre."""
        corners = _rectangle(length_m, width_m, shift_m)
        # The camera in the box's own coordinates. A side is visible if the camera is beyond its plane. The box is
        # convex, so visible sides never hide each other and can be drawn in any order.
        camera_along_m = -self._forward_m * self._cos_turn - self._left_m * self._sin_turn - shift_m
        camera_across_m = self._forward_m * self._sin_turn - self._left_m * self._cos_turn
        is_visible = (
            camera_along_m > length_m / 2,
            camera_across_m > width_m / 2,
            camera_along_m < -length_m / 2,
            camera_across_m < -width_m / 2,
        )
        for number, (first, last) in enumerate(_SIDES):
            if is_visible[number]:
                self._fill_wall(corners[first], corners[last], low_m, high_m, paint, _SHADES[number])
        if has_top and self._lens.height_m > high_m:
            self._fill([self._at(along, across, high_m) for along, across in corners], paint, 1.0)
        if has_lights and is_visible[2]:
            self._draw_lights(-length_m / 2, width_m, _REAR_LIGHT)
        elif has_lights and is_visible[0]:
            self._draw_lights(length_m / 2, width_m, _HEAD_LIGHT)

    def _draw_lights(self, along_m: float, width_m: float, colour: Colour) -> None:
        """Draw two lights, 0.55 to 0.75 m high, at one end of the body."""
        for side in (-1.0, 1.0):
            outer_m, inner_m = 0.46 * width_m * side, 0.26 * width_m * side
            outline = ((outer_m, 0.55), (inner_m, 0.55), (inner_m, 0.75), (outer_m, 0.75))
            corners = [self._at(along_m, across_m, up_m) for across_m, up_m in outline]
            self._fill(corners, colour, 1.0, shines=True)

    def _at(self, along_m: float, across_m: float, up_m: float) -> Point:
        """Return where a point of the car lies relative to the camera."""
        return (
            self._forward_m + along_m * self._cos_turn - across_m * self._sin_turn,
            self._left_m + along_m * self._sin_turn + across_m * self._cos_turn,
            up_m - self._lens.height_m,
        )

    def _fill_wall(
        self,
        one: tuple[float, float],
        two: tuple[float, float],
        low_m: float,
        high_m: float,
        paint: Colour,
        shade: float,
    ) -> None:
        """Fill an upright rectangle of the car's body between two corners, from ``low_m`` to ``high_m``.

        A corner is (forward, left) from the car's centre in metres.
        """
        depth1_m, left1_m, bottom_m = self._at(*one, low_m)
        depth2_m, left2_m, _ = self._at(*two, low_m)
        top_m = bottom_m + high_m - low_m
        if self._may_cross_near_plane:
            corners = [
                (depth1_m, left1_m, bottom_m),
                (depth2_m, left2_m, bottom_m),
                (depth2_m, left2_m, top_m),
                (depth1_m, left1_m, top_m),
            ]
            self._fill(corners, paint, shade)
            return
        # Most cars are entirely ahead of the near plane and need no clipping. The upper corners are then in the same
        # columns as the lower ones, which saves half of the divisions.
        scale1, scale2 = self._focal_units / depth1_m, self._focal_units / depth2_m
        column1, column2 = round(self._middle_units - left1_m * scale1), round(self._middle_units - left2_m * scale2)
        pixels = [
            (column1, round(self._horizon_units - bottom_m * scale1)),
            (column2, round(self._horizon_units - bottom_m * scale2)),
            (column2, round(self._horizon_units - top_m * scale2)),
            (column1, round(self._horizon_units - top_m * scale1)),
        ]
        self._fill_pixels(pixels, paint, shade * self._gain, self._veil)

    def _fill(self, corners: Sequence[Point], colour: Colour, shade: float, *, shines: bool = False) -> None:
        """Fill a convex polygon; ``shines=True`` is for a lamp, whose colour does not depend on daylight and haze."""
        if self._may_cross_near_plane:
            corners = clip_to_near_plane(corners)
            if len(corners) < 3:
                return
        # The pinhole projection: column = middle - focal * left / depth, row = horizon - focal * up / depth.
        focal, middle, horizon = self._focal_units, self._middle_units, self._horizon_units
        pixels = [
            (round(middle - left * focal / depth), round(horizon - up * focal / depth)) for depth, left, up in corners
        ]
        if shines:
            self._fill_pixels(pixels, colour, 1.0, 0.0)
        else:
            self._fill_pixels(pixels, colour, shade * self._gain, self._veil)

    def _fill_pixels(self, pixels: list[tuple[int, int]], colour: Colour, gain: float, veil: float) -> None:
        """Fill a polygon with ``gain * colour + veil``, in grey or in colour; ``veil`` is the grey that haze adds."""
        red, green, blue = colour
        if self._frame.ndim == 3:
            value: Any = (red * gain + veil, green * gain + veil, blue * gain + veil)
        else:
            value = (0.299 * red + 0.587 * green + 0.114 * blue) * gain + veil  # ITU-R BT.601, as in lite.camera
        cv2.fillConvexPoly(self._frame, np.array(pixels, np.int32), value, cv2.LINE_AA, _SUBPIXEL_BITS)


def _rectangle(length_m: float, width_m: float, shift_m: float) -> tuple[tuple[float, float], ...]:
    """Return the corners (along, across) of a rectangle, beginning front right, counter-clockwise."""
    front_m, rear_m, side_m = shift_m + length_m / 2, shift_m - length_m / 2, width_m / 2
    return (front_m, -side_m), (front_m, side_m), (rear_m, side_m), (rear_m, -side_m)


def clip_to_near_plane(corners: Sequence[Point]) -> list[Point]:
    """Return the part of a convex polygon that is at least ``_NEAR_M`` ahead of the camera.

    Source: Sutherland, Hodgman 1974, "Reentrant polygon clipping", for one plane.

    :param corners: corners in order around the polygon
    :return: corners of the clipped polygon; fewer than three if nothing is left
    """
    kept: list[Point] = []
    for one, two in zip(corners, [*corners[1:], corners[0]], strict=True):
        if one[0] >= _NEAR_M:
            kept.append(one)
        if (one[0] >= _NEAR_M) != (two[0] >= _NEAR_M):
            # This edge crosses the plane: the crossing divides it in proportion to the depths of its ends.
            part = (_NEAR_M - one[0]) / (two[0] - one[0])
            kept.append((_NEAR_M, one[1] + part * (two[1] - one[1]), one[2] + part * (two[2] - one[2])))
    return kept
