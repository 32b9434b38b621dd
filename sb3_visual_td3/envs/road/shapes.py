"""Describe the shapes of roads as sequences of lines and arcs, and generate random closed loops.

A parallel to an arc is an arc too, so the lanes of a road need no approximation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Pose(NamedTuple):
    """Describe a place and a direction; the heading is counter-clockwise from x."""

    x_m: float
    y_m: float
    heading_rad: float

    def beside(self, left_m: float) -> Pose:
        """Return the pose ``left_m`` to the left of this pose, with the same heading."""
        x_m = self.x_m - left_m * math.sin(self.heading_rad)
        return Pose(x_m, self.y_m + left_m * math.cos(self.heading_rad), self.heading_rad)

    def reversed(self) -> Pose:
        """Return the pose at the same place with the opposite heading."""
        return Pose(self.x_m, self.y_m, math.remainder(self.heading_rad + math.pi, 2.0 * math.pi))


class Piece(NamedTuple):
    """Describe a line (curvature 0) or a circular arc."""

    length_m: float
    curvature_per_m: float
    """Curvature of the piece, positive where it bends to the left."""

    def from_pose(self, start: Pose, along_m: float) -> Pose:
        """Return the pose at a distance along this piece.

        :param start: the pose at which the piece begins
        :param along_m: distance along the piece
        :return: a pose whose heading can be outside of [-pi, pi]
        """
        # An arc that turns by t = curvature * along has the radius along / t. Its chord is 2 radius sin(t / 2)
        # = along * sin(t / 2) / (t / 2) long and points in the mean direction, heading + t / 2. NumPy's sinc(x) is
        # sin(pi x) / (pi x), which is 1 for a line: the same formula serves both.
        half_turn_rad = 0.5 * self.curvature_per_m * along_m
        chord_m = along_m * float(np.sinc(half_turn_rad / math.pi))
        direction_rad = start.heading_rad + half_turn_rad
        return Pose(
            start.x_m + chord_m * math.cos(direction_rad),
            start.y_m + chord_m * math.sin(direction_rad),
            start.heading_rad + 2.0 * half_turn_rad,
        )

    def beside(self, left_m: float) -> Piece:
        """Return the piece that runs parallel to this piece, ``left_m`` to its left.

        :param left_m: distance to the left; negative to the right
        :raises ValueError: if the parallel piece would lie at or beyond the arc's centre
        """
        # The centre is 1 / curvature to the left. The parallel piece has the radius 1 / curvature - left, which is the
        # arc's radius times 1 - curvature * left. The length changes by the same factor, because the angle is the same.
        stretch = 1.0 - self.curvature_per_m * left_m
        if stretch <= 0.0:
            raise ValueError(
                f"left_m={left_m:g}: expected a parallel piece that does not reach the arc's centre, which is at "
                f"left_m={1.0 / self.curvature_per_m:g}; widen the bend"
            )
        return Piece(self.length_m * stretch, self.curvature_per_m / stretch)


def total_length_m(pieces: Sequence[Piece]) -> float:
    """Return the sum of the pieces' lengths."""
    return math.fsum(piece.length_m for piece in pieces)


def joints(start: Pose, pieces: Sequence[Piece]) -> list[Pose]:
    """Return the pose at which each piece begins, and the pose at which the last piece ends.

    :param start: the pose at which the first piece begins
    :param pieces: the pieces, joined end to end
    :return: ``len(pieces) + 1`` poses
    """
    poses = [start]
    for piece in pieces:
        poses.append(piece.from_pose(poses[-1], piece.length_m))
    return poses


def sample(start: Pose, pieces: Sequence[Piece], along_m: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the poses at many distances along the pieces, computed as in ``Piece.from_pose``.

    :param start: the pose at which the first piece begins
    :param pieces: the pieces, joined end to end
    :param along_m: ``(n,)``: distances from the start
    :return: ``(n, 3)``: x, y and heading, which can be outside of [-pi, pi]
    """
    # index, (n,): the piece that contains each distance. first, (n, 3): the pose at which that piece begins. rest_m,
    # (n,): the distance along that piece.
    begins_m = np.concatenate([[0.0], np.cumsum([piece.length_m for piece in pieces])])
    index = np.clip(np.searchsorted(begins_m, along_m, side="right") - 1, 0, len(pieces) - 1)
    first = np.array(joints(start, pieces)[:-1])[index]
    curvature = np.array([piece.curvature_per_m for piece in pieces])[index]
    rest_m = along_m - begins_m[index]
    half_turn_rad = 0.5 * curvature * rest_m
    chord_m = rest_m * np.sinc(half_turn_rad / np.pi)
    direction_rad = first[:, 2] + half_turn_rad
    x_m = first[:, 0] + chord_m * np.cos(direction_rad)
    y_m = first[:, 1] + chord_m * np.sin(direction_rad)
    return np.stack([x_m, y_m, first[:, 2] + 2.0 * half_turn_rad], axis=1)


MIN_LENGTH_M, MAX_LENGTH_M = 450.0, 800.0
MIN_GAP_M = 30.0
"""Parts of a loop that do not follow each other are at least this far apart, so that the camera sees only one of
them."""
MAX_SHARPEST_RADIUS_M = 23.0
"""At least one bend of each loop has a radius below this; a loop without a sharp bend would be too easy."""
_MAX_RADIUS_M = 60.0
_MIN_LINE_M = 3.0
"""Smallest length of the line between two arcs."""
_N_CORNERS = (8, 13)
"""Range of the number of corners, the upper end excluded."""
_MIN_TURNING_RAD = 3.2 * np.pi
"""Lower limit for the sum of the absolute turning angles at a loop's corners. If all turns of a loop go to the same
side, the sum is 2 pi. The limit is larger, so that loops turn to both sides."""
_CHECK_SPACING_M = 2.0


class LoopShape(NamedTuple):
    """Describe the course of a closed road, as lines and arcs in driving order.

    ``start`` is the pose at the beginning of the first piece, which is the longest line.
    """

    start: Pose
    pieces: tuple[Piece, ...]


def rounded_polygon(corners_m: NDArray[np.float64], radii_m: NDArray[np.float64]) -> LoopShape:
    """Replace each corner of a polygon by an arc.

    :param corners_m: ``(n, 2)``: the corners in driving order, no three consecutive corners on one line
    :param radii_m: ``(n,)``: radius of the arc at each corner
    :return: the pieces, beginning with the line from corner 0 to corner 1
    :raises ValueError: if the arcs at two neighbouring corners do not fit between these corners
    """
    # Everything is (n,) per corner, or per edge that begins at that corner. An arc of radius r that turns by t touches
    # both edges r tan(|t| / 2) away from the corner; what is left of an edge is a line.
    edges = np.roll(corners_m, -1, axis=0) - corners_m
    headings = np.arctan2(edges[:, 1], edges[:, 0])
    turns = _turns_rad(headings)
    tangents_m = radii_m * np.abs(np.tan(0.5 * turns))
    lines_m = np.linalg.norm(edges, axis=1) - tangents_m - np.roll(tangents_m, -1)
    if lines_m.min() < 0.0:
        raise ValueError(f"radii_m={radii_m}: expected arcs that fit between the corners; take smaller radii")
    first = corners_m[0] + tangents_m[0] * edges[0] / np.linalg.norm(edges[0])
    pieces = []
    for edge in range(len(corners_m)):
        corner = (edge + 1) % len(corners_m)
        radius_m, turn = float(radii_m[corner]), float(turns[corner])
        pieces.append(Piece(float(lines_m[edge]), 0.0))
        pieces.append(Piece(radius_m * abs(turn), float(np.sign(turn)) / radius_m))
    return LoopShape(Pose(float(first[0]), float(first[1]), float(headings[0])), tuple(pieces))


def random_loop(
    rng: np.random.Generator, *, is_clockwise: bool, min_radius_m: float, min_straight_m: float = 0.0
) -> LoopShape:
    """Generate a random closed road, 450 to 800 m long, with bends to both sides and at least 30 m between its parts.

    :param rng: generator of the loop's random values
    :param is_clockwise: True for a loop with more right turns than left turns
    :param min_radius_m: smallest radius of a bend, below 22 m
    :param min_straight_m: the loop has a straight line of at least this length
    :raises ValueError: if ``min_radius_m`` is 22 m or more
    """
    if not min_radius_m < MAX_SHARPEST_RADIUS_M - 1.0:
        raise ValueError(f"min_radius_m={min_radius_m:g}: expected less than 22; choose a smaller radius")
    # Rejection sampling: draw until a loop meets all conditions.
    while True:
        shape = _attempt(rng, is_clockwise, min_radius_m)
        if shape is not None and shape.pieces[0].length_m >= min_straight_m and keeps_apart(shape):
            return shape


def keeps_apart(shape: LoopShape) -> bool:
    """Return whether parts of the loop that do not follow each other are at least ``MIN_GAP_M`` apart."""
    length_m = total_length_m(shape.pieces)
    along_m = np.arange(0.0, length_m, _CHECK_SPACING_M)
    points = sample(shape.start, shape.pieces, along_m)[:, :2]
    # gaps, (n, n): distance between each pair of points in the plane. apart_m, (n, n): their distance along the loop,
    # measured the shorter way round.
    gaps = np.linalg.norm(points[:, None] - points[None], axis=2)
    apart_m = np.abs(along_m[:, None] - along_m[None])
    apart_m = np.minimum(apart_m, length_m - apart_m)
    # A U-turn of diameter MIN_GAP_M is pi / 2 * MIN_GAP_M long. Two points count as neighbours if they are at most
    # twice this length apart along the loop.
    return bool(gaps[apart_m > np.pi * MIN_GAP_M].min() >= MIN_GAP_M)


def _attempt(rng: np.random.Generator, is_clockwise: bool, min_radius_m: float) -> LoopShape | None:
    """Generate one random loop; return None if its arcs, its turns or its length are not allowed."""
    corners = _random_corners(rng, is_clockwise)
    n = len(corners)
    edges = np.roll(corners, -1, axis=0) - corners
    lengths = np.linalg.norm(edges, axis=1)
    turns = _turns_rad(np.arctan2(edges[:, 1], edges[:, 0]))
    # (n,): an arc may take half of the shorter of its two edges, minus half of the shortest permitted line. Its tangent
    # of length r tan(|t| / 2) must fit into this room, which gives the largest radius.
    room_m = 0.5 * np.minimum(lengths, np.roll(lengths, 1)) - 0.5 * _MIN_LINE_M
    largest_m = np.minimum(room_m / np.abs(np.tan(0.5 * turns)), _MAX_RADIUS_M)
    radii = min_radius_m + rng.uniform(0.0, 1.0, n) * (largest_m - min_radius_m)
    # One corner is made sharp in any case.
    sharp = int(rng.integers(n))
    radii[sharp] = min(radii[sharp], rng.uniform(min_radius_m, MAX_SHARPEST_RADIUS_M))
    is_winding = np.abs(turns).sum() >= _MIN_TURNING_RAD
    if largest_m.min() < min_radius_m or not is_winding or np.abs(turns).max() > 0.75 * np.pi:
        return None
    lines_m = lengths - radii * np.abs(np.tan(0.5 * turns))
    lines_m -= np.roll(radii * np.abs(np.tan(0.5 * turns)), -1)
    # The corners are renumbered so that the longest straight line comes first, because crossings are built in its
    # middle.
    first = -int(np.argmax(lines_m))
    shape = rounded_polygon(np.roll(corners, first, axis=0), np.roll(radii, first))
    return shape if MIN_LENGTH_M <= total_length_m(shape.pieces) <= MAX_LENGTH_M else None


def _random_corners(rng: np.random.Generator, is_clockwise: bool) -> NDArray[np.float64]:
    """Generate the corners of a random polygon around the origin, ``(n, 2)``, with a perimeter of 450 to 800 m."""
    n = int(rng.integers(*_N_CORNERS))
    # The directions of the corners from the origin are in order (each stays in its own sector), so edges cannot cross.
    angles = 2.0 * np.pi * (np.arange(n) + rng.uniform(-0.25, 0.25, n)) / n
    radii = rng.uniform(0.45, 1.0, n)
    corners = np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)
    around = np.linalg.norm(np.roll(corners, -1, axis=0) - corners, axis=1).sum()
    corners *= rng.uniform(MIN_LENGTH_M, MAX_LENGTH_M) / around
    return np.asarray(corners[::-1] if is_clockwise else corners)


def _turns_rad(headings: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the change of direction at each corner, ``(n,)`` in [-pi, pi), from the headings of the edges."""
    turns = headings - np.roll(headings, 1)
    return np.asarray((turns + np.pi) % (2.0 * np.pi) - np.pi)
