"""Repair the centre lines of lanes where they bend too sharply for a car to follow.

Some maps draw a bend as straight pieces. On the inside of the bend, the pieces of a lane overlap, and the points of the
lane step backwards, against the traffic.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_REPEATED_M = 0.05
"""A point is removed if it is closer than this to the point before it."""
_SHARPEST_PER_M = 0.35
"""A line with a sharper bend than this (3 m radius) is smoothed."""
_SMOOTHING_M = 6.0
_FINE_M = 0.25


def along_line_m(points_m: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return for each point of a line its distance from the first point, measured along the line, ``(n,)``.

    :param points_m: ``(n, 2)``: x and y in metres
    """
    return np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points_m, axis=0), axis=1))])


def forward_points(points_m: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the indices of the points that are left if repeated points and backward steps are removed.

    :param points_m: ``(n, 2)``, in driving order
    :return: indices in ascending order; the first point is always kept
    """
    # Usually the line has no backward steps, only repeated points where two lanes join.
    lengths = np.linalg.norm(np.diff(points_m, axis=0), axis=1)
    apart = np.concatenate([[0], np.flatnonzero(lengths >= _REPEATED_M) + 1])
    steps = np.diff(points_m[apart], axis=0)
    if (np.einsum("ij,ij->i", steps[:-1], steps[1:]) > 0.0).all():
        return apart
    places = points_m.tolist()
    kept = [0]
    direction = None
    for index in range(1, len(places)):
        dx, dy = places[index][0] - places[kept[-1]][0], places[index][1] - places[kept[-1]][1]
        length = math.hypot(dx, dy)
        if length < _REPEATED_M:
            continue
        # A step that turns by more than about 80 degrees counts as a backward step; real backward steps turn by far
        # more.
        if direction is not None and dx * direction[0] + dy * direction[1] < 0.2 * length:
            continue
        kept.append(index)
        direction = (dx / length, dy / length)
    return np.array(kept)


def mended(points_m: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a line whose corners are rounded if any bend is too sharp for a car, otherwise the same line.

    :param points_m: ``(n, 2)``, in driving order, without backward steps
    :return: ``(n, 2)``; the ends do not move
    """
    if _sharpest_per_m(points_m) <= _SHARPEST_PER_M:
        return points_m
    along_m = along_line_m(points_m)
    fine = np.arange(0.0, float(along_m[-1]), _FINE_M)
    n = round(_SMOOTHING_M / _FINE_M) // 2
    window = np.ones(2 * n + 1) / (2 * n + 1)
    result = np.empty_like(points_m)
    for axis in (0, 1):
        values = np.interp(fine, along_m, points_m[:, axis])
        # The line is continued at either end by its reflection in the end point, so that the mean at an end is the end
        # point.
        padded = np.pad(values, n, mode="edge")
        if len(values) > n:
            padded = np.pad(values, n, mode="reflect", reflect_type="odd")
        result[:, axis] = np.interp(along_m, fine, np.convolve(padded, window, mode="valid"))
    return result


def _sharpest_per_m(points_m: NDArray[np.float64]) -> float:
    """Return the largest curvature of a line in 1/m, measured over about 2 m."""
    along_m = along_line_m(points_m)
    even = np.arange(0.0, float(along_m[-1]), 1.0)
    if len(even) < 3:
        return 0.0
    x, y = (np.interp(even, along_m, points_m[:, axis]) for axis in (0, 1))
    headings = np.unwrap(np.arctan2(np.diff(y), np.diff(x)))
    return float(np.abs(np.diff(headings)).max())
