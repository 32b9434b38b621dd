"""Collision test of two cars: rectangles seen from above."""

from __future__ import annotations

import math
from typing import NamedTuple


class OrientedBox(NamedTuple):
    """A rectangle on the ground, given by its centre, its direction and its full size."""

    x_m: float
    y_m: float
    yaw_rad: float
    length_m: float
    width_m: float


def boxes_overlap(one: OrientedBox, two: OrientedBox) -> bool:
    """Return whether the rectangles share a point; edges that just touch do.

    Two convex shapes are apart exactly where a line along an edge of one of them separates their shadows.

    Source: Gottschalk, Lin, Manocha 1996, "OBBTree", section 5 (separating axis theorem), in the plane.
    """
    dx, dy = two.x_m - one.x_m, two.y_m - one.y_m
    turn = two.yaw_rad - one.yaw_rad
    cos, sin = abs(math.cos(turn)), abs(math.sin(turn))
    return _reaches(dx, dy, one, two, cos, sin) and _reaches(dx, dy, two, one, cos, sin)


def _reaches(dx: float, dy: float, own: OrientedBox, other: OrientedBox, cos: float, sin: float) -> bool:
    """Return whether the shadows on both axes of ``own`` overlap; the centres lie ``dx, dy`` apart."""
    along = abs(dx * math.cos(own.yaw_rad) + dy * math.sin(own.yaw_rad))
    across = abs(dy * math.cos(own.yaw_rad) - dx * math.sin(own.yaw_rad))
    return (
        2.0 * along <= own.length_m + other.length_m * cos + other.width_m * sin
        and 2.0 * across <= own.width_m + other.length_m * sin + other.width_m * cos
    )
