"""Lines and arcs, the two pieces that roads are put together from, as in OpenDRIVE's plan view."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Pose(NamedTuple):
    """A place and a direction; headings are counter-clockwise from x."""

    x_m: float
    y_m: float
    heading_rad: float

    def beside(self, left_m: float) -> Pose:
        """Return the pose ``left_m`` to the left of this one, facing the same way."""
        x = self.x_m - left_m * math.sin(self.heading_rad)
        return Pose(x, self.y_m + left_m * math.cos(self.heading_rad), self.heading_rad)

    def turned_back(self) -> Pose:
        """Return the same place, facing the other way."""
        return Pose(self.x_m, self.y_m, math.remainder(self.heading_rad + math.pi, 2.0 * math.pi))


class Piece(NamedTuple):
    """A line (curvature 0) or an arc."""

    length_m: float
    curvature_per_m: float
    """Positive where it bends to the left."""

    def from_pose(self, start: Pose, along_m: float) -> Pose:
        """Return the pose after ``along_m`` on this piece, if it begins at ``start``."""
        half_turn = 0.5 * self.curvature_per_m * along_m
        chord_m = along_m * float(np.sinc(half_turn / math.pi))
        towards = start.heading_rad + half_turn
        return Pose(
            start.x_m + chord_m * math.cos(towards),
            start.y_m + chord_m * math.sin(towards),
            start.heading_rad + 2.0 * half_turn,
        )

    def beside(self, left_m: float) -> Piece:
        """Return the piece that runs parallel to this one, ``left_m`` to its left.

        :raises ValueError: if the parallel lies at or beyond the arc's centre.
        """
        stretch = 1.0 - self.curvature_per_m * left_m
        if stretch <= 0.0:
            raise ValueError(
                f"left_m={left_m:g}: expected to stay on this side of the arc's centre, "
                f"{1.0 / self.curvature_per_m:g} m to the left; widen the bend"
            )
        return Piece(self.length_m * stretch, self.curvature_per_m / stretch)


def total_length_m(pieces: Sequence[Piece]) -> float:
    """Return the length of the pieces one after another."""
    return math.fsum(piece.length_m for piece in pieces)


def joints(start: Pose, pieces: Sequence[Piece]) -> list[Pose]:
    """Return where each piece begins and, last, where the last one ends: ``len(pieces) + 1`` poses."""
    poses = [start]
    for piece in pieces:
        poses.append(piece.from_pose(poses[-1], piece.length_m))
    return poses


def sample(start: Pose, pieces: Sequence[Piece], along_m: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return x, y and heading ``(n, 3)`` at ``along_m``, metres from ``start``; headings are not wrapped."""
    begins_m = np.concatenate([[0.0], np.cumsum([piece.length_m for piece in pieces])])
    index = np.clip(np.searchsorted(begins_m, along_m, side="right") - 1, 0, len(pieces) - 1)
    first = np.array(joints(start, pieces)[:-1])[index]
    curvature = np.array([piece.curvature_per_m for piece in pieces])[index]
    rest_m = along_m - begins_m[index]
    half_turn = 0.5 * curvature * rest_m
    chord_m = rest_m * np.sinc(half_turn / np.pi)
    towards = first[:, 2] + half_turn
    x = first[:, 0] + chord_m * np.cos(towards)
    y = first[:, 1] + chord_m * np.sin(towards)
    return np.stack([x, y, first[:, 2] + 2.0 * half_turn], axis=1)
