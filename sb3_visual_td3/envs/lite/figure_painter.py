"""Draw traffic lights with their stop lines, and pedestrians.

``paint_scene`` draws them together with the cars.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.envs.lite.car_painter import Colour, Lens, Point, clip_to_near_plane, paint_cars
from sb3_visual_td3.envs.lite.weather import Sky
from sb3_visual_td3.envs.road.collision import OrientedBox
from sb3_visual_td3.envs.road.light_cycle import LightColour

POLE_WIDTH_M = 0.14
HEAD_LOW_M, HEAD_HIGH_M, HEAD_SIZE_M = 2.3, 3.5, 0.42
"""Lower edge, upper edge and width of a traffic light's head, the box that contains the lamps."""
LAMP_SIZE_M = 0.3
POLE_COLOUR, HEAD_COLOUR, DARK_LAMP = (95, 98, 100), (28, 30, 32), (60, 60, 60)
LAMP_COLOURS: dict[LightColour, Colour] = {"red": (255, 40, 30), "yellow": (255, 190, 30), "green": (40, 235, 90)}
LAMPS: tuple[LightColour, ...] = ("red", "yellow", "green")
"""Colours of the lamps of a traffic light, from top to bottom."""
CLOTHES = ((150, 90, 60), (70, 110, 160), (170, 60, 80), (90, 130, 80))
_SKIN = (215, 170, 140)
PERSON_HEIGHT_M, PERSON_WIDTH_M = 1.75, 0.45
_HEAD_FROM_M = 1.5
_BAR_COLOUR = (235, 235, 230)
_BAR_DEPTH_M = 0.4
_FARTHEST_M = 80.0
_SUBPIXEL_BITS = 4
"""Fractional bits of OpenCV's fixed-point coordinates: pixels are multiplied by 2^4 and rounded to integers."""


class Post(NamedTuple):
    """Describe a traffic light: the place of its pole, and the direction of the traffic that it stops."""

    x_m: float
    y_m: float
    yaw_rad: float
    colour: LightColour


class Person(NamedTuple):
    """Describe a pedestrian to draw."""

    x_m: float
    y_m: float
    clothes: int = 0
    """Index into ``CLOTHES``."""


class Figures(NamedTuple):
    """Hold the traffic lights, pedestrians and stop lines to draw."""

    posts: Sequence[Post] = ()
    people: Sequence[Person] = ()
    stop_bars: Sequence[NDArray[np.float64]] = ()
    """Stop lines, each ``(2, 2)``: x and y of the left end, then of the right end."""


NO_FIGURES = Figures()


def lamp_low_m(lamp: LightColour) -> float:
    """Return how high a lamp's lower edge is above the ground, in metres.

    :param lamp: colour of the lamp
    """
    slot_m = (HEAD_HIGH_M - HEAD_LOW_M) / len(LAMPS)
    return HEAD_HIGH_M - slot_m * (LAMPS.index(lamp) + 1) + 0.5 * (slot_m - LAMP_SIZE_M)


def paint_scene(
    frame: NDArray[np.uint8],
    boxes: Sequence[OrientedBox],
    paints: Sequence[int],
    figures: Figures,
    pose: tuple[float, float, float],
    lens: Lens,
    sky: Sky | None = None,
) -> None:
    """Draw cars, traffic lights and pedestrians onto ``frame``, in place.

    :param frame: ``(height, width) uint8`` grey or ``(height, width, 3) uint8`` RGB
    :param boxes: place and size of the cars
    :param paints: index into ``PAINTS`` for each car
    :param figures: traffic lights, stop lines and pedestrians
    :param pose: x, y and yaw of the vehicle that carries the camera
    :param lens: the camera's projection
    :param sky: effect of the weather on light and colours; ``None`` on a clear day
    """
    painter = _Painter(frame, pose, lens, sky)
    for bar in figures.stop_bars:
        painter.draw_bar(bar)
    # (distance, kind, number), the farthest first: 0 for cars, 1 for lights, 2 for people.
    order: list[tuple[float, int, int]] = []
    places = (
        [(box.x_m, box.y_m) for box in boxes],
        [(post.x_m, post.y_m) for post in figures.posts],
        [(person.x_m, person.y_m) for person in figures.people],
    )
    for kind, of_kind in enumerate(places):
        order += [(math.dist(place, pose[:2]), kind, number) for number, place in enumerate(of_kind)]
    for _, kind, number in sorted(order, reverse=True):
        if kind == 0:
            paint_cars(frame, boxes[number : number + 1], paints[number : number + 1], pose, lens, sky)
        elif kind == 1:
            painter.draw_post(figures.posts[number])
        else:
            painter.draw_person(figures.people[number])


class _Painter:
    """Draw traffic lights, stop lines and pedestrians into one picture, in place."""

    def __init__(self, frame: NDArray[np.uint8], pose: tuple[float, float, float], lens: Lens, sky: Sky | None) -> None:
        self._frame, self._pose, self._lens, self._sky = frame, pose, lens, sky
        self._cos, self._sin = math.cos(pose[2]), math.sin(pose[2])
        self._focal_px = lens.focal_px

    def draw_post(self, post: Post) -> None:
        """Draw a traffic light, whose lamps face the traffic that it stops."""
        forward_m, left_m = self._place(post.x_m, post.y_m)
        if not self._is_in_view(forward_m, left_m):
            return
        half_m = 0.5 * POLE_WIDTH_M
        self._fill_upright(forward_m, left_m, half_m, 0.0, HEAD_LOW_M, POLE_COLOUR)
        self._fill_upright(forward_m, left_m, 0.5 * HEAD_SIZE_M, HEAD_LOW_M, HEAD_HIGH_M, HEAD_COLOUR)
        dx, dy = post.x_m - self._pose[0], post.y_m - self._pose[1]
        if dx * math.cos(post.yaw_rad) + dy * math.sin(post.yaw_rad) <= 0.0:
            return
        for lamp in LAMPS:
            low_m = lamp_low_m(lamp)
            is_lit = post.colour == lamp
            colour = LAMP_COLOURS[lamp] if is_lit else DARK_LAMP
            self._fill_upright(forward_m, left_m, 0.5 * LAMP_SIZE_M, low_m, low_m + LAMP_SIZE_M, colour, shines=is_lit)

    def draw_person(self, person: Person) -> None:
        """Draw a pedestrian: a body and a head."""
        forward_m, left_m = self._place(person.x_m, person.y_m)
        if not self._is_in_view(forward_m, left_m):
            return
        clothes = CLOTHES[person.clothes % len(CLOTHES)]
        self._fill_upright(forward_m, left_m, 0.5 * PERSON_WIDTH_M, 0.0, _HEAD_FROM_M, clothes)
        self._fill_upright(forward_m, left_m, 0.12, _HEAD_FROM_M, PERSON_HEIGHT_M, _SKIN)

    def draw_bar(self, bar: NDArray[np.float64]) -> None:
        """Draw a stop line on the ground."""
        (left_x, left_y), (right_x, right_y) = bar.tolist()
        if math.dist((left_x, left_y), self._pose[:2]) > _FARTHEST_M:
            return
        if self._is_out_of_view(self._place(left_x, left_y), self._place(right_x, right_y)):
            return
        # The paint extends from the stop line against the driving direction, towards the approaching traffic.
        length_m = max(1e-9, math.hypot(left_x - right_x, left_y - right_y))
        back_x = -_BAR_DEPTH_M * (left_y - right_y) / length_m
        back_y = _BAR_DEPTH_M * (left_x - right_x) / length_m
        corners = []
        for x_m, y_m in (
            (left_x, left_y),
            (right_x, right_y),
            (right_x + back_x, right_y + back_y),
            (left_x + back_x, left_y + back_y),
        ):
            forward_m, left_m = self._place(x_m, y_m)
            corners.append((forward_m, left_m, -self._lens.height_m))
        middle_m = sum(corner[0] for corner in corners) / len(corners)
        self._fill(corners, _BAR_COLOUR, middle_m, 0.0)

    def _place(self, x_m: float, y_m: float) -> tuple[float, float]:
        """Return how far a place lies ahead of the camera and to its left, in metres."""
        dx, dy = x_m - self._pose[0], y_m - self._pose[1]
        return dx * self._cos + dy * self._sin - self._lens.ahead_m, dy * self._cos - dx * self._sin

    def _is_out_of_view(self, left_end: tuple[float, float], right_end: tuple[float, float]) -> bool:
        """Return whether a stop line is out of view: the whole line is behind the camera or beside the picture."""
        margin_m = 2.0 * _BAR_DEPTH_M
        if max(left_end[0], right_end[0]) < -margin_m:
            return True
        # The picture is 90 degrees wide: its edges are at |left| = forward. One pixel is forward / focal wide.
        edge = 1.0 + 2.0 / self._focal_px
        for side in (1.0, -1.0):
            if all(side * left > edge * max(0.0, forward) + margin_m for forward, left in (left_end, right_end)):
                return True
        return False

    def _is_in_view(self, forward_m: float, left_m: float) -> bool:
        return 0.3 < forward_m < _FARTHEST_M and abs(left_m) < forward_m + 1.0

    def _fill_upright(
        self,
        forward_m: float,
        left_m: float,
        half_width_m: float,
        low_m: float,
        high_m: float,
        colour: Colour,
        *,
        shines: bool = False,
    ) -> None:
        """Fill an upright rectangle that faces the camera and is at least one pixel wide."""
        half_width_m = max(half_width_m, 0.5 * forward_m / self._focal_px)
        low_m, high_m = low_m - self._lens.height_m, high_m - self._lens.height_m
        left_end_m, right_end_m = left_m + half_width_m, left_m - half_width_m
        corners = [
            (forward_m, left_end_m, low_m),
            (forward_m, right_end_m, low_m),
            (forward_m, right_end_m, high_m),
            (forward_m, left_end_m, high_m),
        ]
        self._fill(corners, colour, forward_m, left_m, shines=shines)

    def _fill(
        self, corners: Sequence[Point], colour: Colour, forward_m: float, left_m: float, *, shines: bool = False
    ) -> None:
        """Fill a convex polygon with corners (forward, left, up) in metres from the camera.

        Unless ``shines`` is True, the weather changes ``colour``. This change is computed once for the whole polygon,
        for the place (``forward_m``, ``left_m``).
        """
        kept = clip_to_near_plane(corners)
        if len(kept) < 3:
            return
        unit, focal_px = 2.0**_SUBPIXEL_BITS, self._focal_px
        middle_column, middle_row = self._lens.width / 2.0 - 0.5, self._lens.height // 2 - 0.5
        pixels = []
        for depth, left, up in kept:
            column = middle_column - focal_px * left / depth
            row = middle_row - focal_px * up / depth
            pixels.append((round(column * unit), round(row * unit)))
        gain, veil = 1.0, 0.0
        if self._sky is not None and not shines:
            gain, veil = self._sky.gain_and_veil(max(0.0, forward_m), left_m / max(1.0, forward_m))
        value: tuple[float, ...] = tuple(part * gain + veil for part in colour)
        if self._frame.ndim == 2:
            red, green, blue = value
            value = (0.299 * red + 0.587 * green + 0.114 * blue,)  # ITU-R BT.601, as in lite.camera
        cv2.fillConvexPoly(self._frame, np.array(pixels, np.int32), value, cv2.LINE_AA, _SUBPIXEL_BITS)
