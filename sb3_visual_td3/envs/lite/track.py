"""A closed two-lane road, given by the centre line of its right-hand lane."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LANE_WIDTH_M = 3.5
RIGHT_LINE_M = -0.5 * LANE_WIDTH_M
"""Offset of the outer line on the right from the lane's centre; the dashed line lies opposite."""
LEFT_LINE_M = 1.5 * LANE_WIDTH_M
"""Offset of the outer line on the left, beyond the oncoming lane."""

MIN_LENGTH_M, MAX_LENGTH_M = 450.0, 800.0
MAX_CURVATURE_PER_M = 1.0 / 14.0
MIN_SHARPEST_PER_M = 1.0 / 25.0
"""A road whose sharpest bend is gentler than this is too easy to be kept."""
MIN_GAP_M = 30.0
"""Two stretches of the road that are no neighbours keep at least so far apart."""
_SPACING_M = 0.5
_HARMONICS = np.arange(2, 7)


class LanePosition(NamedTuple):
    """A place with respect to the lane."""

    nearest: int
    """Index of the closest point of the centre line."""
    along_m: float
    """Metres along the lane from its first point, about [0, length)."""
    lateral_offset_m: float
    """From the lane's centre, positive to the left."""
    heading_rad: float
    """Direction of the lane here."""


@dataclass(frozen=True, eq=False)
class Track:
    """The centre line as evenly spaced points, in driving order.

    :param points_m: ``(n, 2) float64``, x and y.
    """

    points_m: NDArray[np.float64]

    @cached_property
    def spacing_m(self) -> float:
        """Distance between neighbouring points."""
        return self.length_m / len(self.points_m)

    @cached_property
    def length_m(self) -> float:
        """Length of one lap."""
        return float(np.linalg.norm(np.roll(self.points_m, -1, axis=0) - self.points_m, axis=1).sum())

    @cached_property
    def headings_rad(self) -> NDArray[np.float64]:
        """Direction of travel at each point, ``(n,)``, in [-pi, pi]."""
        ahead = np.roll(self.points_m, -1, axis=0) - np.roll(self.points_m, 1, axis=0)
        return np.arctan2(ahead[:, 1], ahead[:, 0])

    @cached_property
    def curvatures_per_m(self) -> NDArray[np.float64]:
        """Signed curvature at each point, ``(n,)``, positive where the road bends to the left."""
        turn = np.roll(self.headings_rad, -1) - np.roll(self.headings_rad, 1)
        return _wrap(turn) / (2.0 * self.spacing_m)

    @cached_property
    def _rows(self) -> list[tuple[float, float, float, float]]:
        # Plain floats: indexing numpy scalars one by one would cost more than the rest of a step.
        columns = (self.points_m[:, 0], self.points_m[:, 1], self.headings_rad, self.curvatures_per_m)
        return list(zip(*(column.tolist() for column in columns), strict=True))

    def offset_line_m(self, offset_m: float) -> NDArray[np.float64]:
        """Return the line ``offset_m`` to the left of the lane's centre, ``(n, 2)``."""
        left = np.stack([-np.sin(self.headings_rad), np.cos(self.headings_rad)], axis=1)
        return self.points_m + offset_m * left

    def pose_at(self, index: int, lateral_offset_m: float) -> tuple[float, float, float]:
        """Return x and y in metres and the lane's direction in radians, beside the point ``index``."""
        x, y, heading, _ = self._rows[index]
        return x - lateral_offset_m * math.sin(heading), y + lateral_offset_m * math.cos(heading), heading

    def locate(self, x_m: float, y_m: float, near: int) -> LanePosition:
        """Return where a place lies on the lane, walking from the point ``near`` to the closest one."""
        rows, n = self._rows, len(self._rows)
        index, best = near, self._distance2(x_m, y_m, near)
        for direction in (1, -1):
            while (closer := self._distance2(x_m, y_m, (index + direction) % n)) < best:
                index, best = (index + direction) % n, closer
        x, y, heading, curvature = rows[index]
        dx, dy = x_m - x, y_m - y
        ahead = dx * math.cos(heading) + dy * math.sin(heading)
        left = dy * math.cos(heading) - dx * math.sin(heading)
        return LanePosition(index, index * self.spacing_m + ahead, left, heading + curvature * ahead)

    def _distance2(self, x_m: float, y_m: float, index: int) -> float:
        x, y, _, _ = self._rows[index]
        return (x_m - x) * (x_m - x) + (y_m - y) * (y_m - y)


def build_track(seed: int, is_clockwise: bool) -> Track:
    """Return the road of ``seed``: closed, 450 to 800 m long, no bend sharper than 14 m of radius.

    :param is_clockwise: drive it so that right turns prevail.
    """
    rng = np.random.default_rng(seed)
    while True:
        track = Track(_random_points_m(rng, is_clockwise))
        sharpest = np.abs(track.curvatures_per_m).max()
        if MIN_SHARPEST_PER_M <= sharpest <= MAX_CURVATURE_PER_M and _keeps_apart(track):
            return track


def _random_points_m(rng: np.random.Generator, is_clockwise: bool) -> NDArray[np.float64]:
    """Return a closed line: a circle whose radius swings by a few random harmonics, so it cannot cross itself."""
    angle = np.linspace(0.0, 2.0 * np.pi, 4096, endpoint=False)
    amplitude = rng.uniform(0.0, 1.0, _HARMONICS.size) / _HARMONICS
    phase = rng.uniform(0.0, 2.0 * np.pi, _HARMONICS.size)
    radius = 1.0 + 0.75 * amplitude @ np.cos(np.outer(_HARMONICS, angle) + phase[:, None])
    length_m = rng.uniform(MIN_LENGTH_M, MAX_LENGTH_M)
    line = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    line = line[::-1] if is_clockwise else line
    closed = np.vstack([line, line[:1]])
    arc = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(closed, axis=0), axis=1))])
    even = np.linspace(0.0, arc[-1], round(length_m / _SPACING_M), endpoint=False)
    points = np.stack([np.interp(even, arc, closed[:, axis]) for axis in (0, 1)], axis=1)
    return np.asarray(points * (length_m / arc[-1]))


def _keeps_apart(track: Track) -> bool:
    stride = 4
    points = track.points_m[::stride]
    gaps = np.linalg.norm(points[:, None] - points[None], axis=2)
    steps = np.abs(np.arange(len(points))[:, None] - np.arange(len(points))[None])
    along_m = np.minimum(steps, len(points) - steps) * stride * track.spacing_m
    return bool(gaps[along_m > np.pi * MIN_GAP_M].min() >= MIN_GAP_M)


def _wrap(angle_rad: NDArray[np.float64]) -> NDArray[np.float64]:
    return (angle_rad + np.pi) % (2.0 * np.pi) - np.pi
