"""The two lanes of a road as lines that cars follow by the metre."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.envs.lite.track import Track


class LaneLine:
    """A closed line, driven in the order of its points.

    :param points_m: ``(n, 2) float64``, x and y: one beside each point of the track.
    :param is_oncoming: whether it is driven against the order of the track's points.
    """

    def __init__(self, points_m: NDArray[np.float64], *, is_oncoming: bool) -> None:
        points_m = points_m[::-1] if is_oncoming else points_m
        steps = np.roll(points_m, -1, axis=0) - points_m
        lengths = np.linalg.norm(steps, axis=1)
        starts = np.concatenate([[0.0], np.cumsum(lengths)])
        self.length_m = float(starts[-1])
        self._spacing_m = self.length_m / len(points_m)
        closed = np.vstack([points_m, points_m[:1]])
        even = np.arange(len(points_m)) * self._spacing_m
        points = np.stack([np.interp(even, starts, closed[:, axis]) for axis in (0, 1)], axis=1)
        ahead = np.roll(points, -1, axis=0) - points
        headings = np.arctan2(ahead[:, 1], ahead[:, 0])
        turns = (np.roll(headings, -1) - headings + np.pi) % (2.0 * np.pi) - np.pi
        columns = (points[:, 0], points[:, 1], ahead[:, 0], ahead[:, 1], headings, turns)
        self._rows: list[tuple[float, ...]] = list(map(tuple, np.stack(columns, axis=1).tolist()))
        self._along_m: list[float] = (starts[-2::-1] if is_oncoming else starts[:-1]).tolist()

    def along_at(self, index: int) -> float:
        """Return the metres along this line beside the track's point of this index."""
        return self._along_m[index]

    def pose_at(self, along_m: float) -> tuple[float, float, float]:
        """Return x and y in metres and the direction in radians, ``along_m`` metres from the first point."""
        place = along_m % self.length_m / self._spacing_m
        whole = int(place)
        part = place - whole
        x, y, dx, dy, heading, turn = self._rows[whole % len(self._rows)]
        # Half a point back, because a heading belongs to the middle of its stretch.
        return x + part * dx, y + part * dy, heading + (part - 0.5) * turn


@lru_cache(maxsize=64)
def lane_lines(track: Track) -> tuple[LaneLine, ...]:
    """Return the own lane and the nearest oncoming one, if any, each in its own driving direction."""
    own = LaneLine(track.points_m, is_oncoming=False)
    if track.oncoming_lane_m is None:
        return (own,)
    return own, LaneLine(track.offset_line_m(track.oncoming_lane_m), is_oncoming=True)
