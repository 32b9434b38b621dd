"""Test two cars for a collision; each car is a rectangle seen from above."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple


class OrientedBox(NamedTuple):
    """Describe a rectangle on the ground by its centre, its direction and its full size."""

    x_m: float
    y_m: float
    yaw_rad: float
    length_m: float
    width_m: float


def boxes_overlap(one: OrientedBox, two: OrientedBox) -> bool:
    """Return whether two rectangles share a point; touching edges count.

    Source: separating axis theorem, Gottschalk, Lin, Manocha 1996, "OBBTree", section 5, in the plane.

    :param one: a rectangle
    :param two: the other rectangle
    """
    dx_m, dy_m = two.x_m - one.x_m, two.y_m - one.y_m
    turn_rad = two.yaw_rad - one.yaw_rad
    # Only the absolute values are needed. They are the same for the turn from ``two`` to ``one``.
    cos_turn, sin_turn = abs(math.cos(turn_rad)), abs(math.sin(turn_rad))
    return _projections_overlap(dx_m, dy_m, one, two, cos_turn, sin_turn) and _projections_overlap(
        dx_m, dy_m, two, one, cos_turn, sin_turn
    )


def any_overlap(one: OrientedBox, others: Iterable[OrientedBox]) -> bool:
    """Return whether a rectangle shares a point with at least one other rectangle.

    :param one: a rectangle
    :param others: the other rectangles
    """
    for other in others:
        # Two boxes whose centres are farther apart than half the sum of their diagonals cannot touch. Length plus width
        # is used in place of the diagonal: it is at least as large, and faster to compute.
        reach_m = 0.5 * (one.length_m + one.width_m + other.length_m + other.width_m)
        dx_m, dy_m = other.x_m - one.x_m, other.y_m - one.y_m
        if dx_m * dx_m + dy_m * dy_m <= reach_m * reach_m and boxes_overlap(one, other):
            return True
    return False


def _projections_overlap(
    dx_m: float, dy_m: float, own: OrientedBox, other: OrientedBox, cos_turn: float, sin_turn: float
) -> bool:
    """Return whether the projections of two rectangles onto both axes of the rectangle ``own`` overlap."""
    # Distance of the centres along and across ``own``.
    along_m = abs(dx_m * math.cos(own.yaw_rad) + dy_m * math.sin(own.yaw_rad))
    across_m = abs(dy_m * math.cos(own.yaw_rad) - dx_m * math.sin(own.yaw_rad))
    # On each axis the projection of ``own`` is as long as one of its sides, and the projection of ``other`` is as long
    # as the sum of its projected sides. The projections overlap if the distance of the centres is at most half the sum
    # of these two lengths. Both sides of this inequality are doubled here.
    return (
        2.0 * along_m <= own.length_m + other.length_m * cos_turn + other.width_m * sin_turn
        and 2.0 * across_m <= own.width_m + other.length_m * sin_turn + other.width_m * cos_turn
    )
