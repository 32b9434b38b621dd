import math

import numpy as np
import pytest

from sb3_visual_td3.envs.road.shapes import Piece, Pose, joints, sample, total_length_m

ORIGIN = Pose(0.0, 0.0, 0.0)
QUARTER = 5.0 * math.pi
"""Length of a quarter of a circle of 10 m radius."""
S_BEND = (Piece(12.0, 0.0), Piece(QUARTER, 0.1), Piece(7.0, -1.0 / 30.0), Piece(3.0, 0.0))


@pytest.mark.parametrize(
    ("piece", "end"),
    [
        (Piece(7.0, 0.0), (7.0, 0.0, 0.0)),
        (Piece(QUARTER, 0.1), (10.0, 10.0, math.pi / 2)),
        (Piece(QUARTER, -0.1), (10.0, -10.0, -math.pi / 2)),
        (Piece(2 * QUARTER, 0.1), (0.0, 20.0, math.pi)),
        (Piece(4 * QUARTER, -0.1), (0.0, 0.0, -2 * math.pi)),
    ],
)
def test_a_piece_ends_where_the_circle_says(piece, end):
    assert piece.from_pose(ORIGIN, piece.length_m) == pytest.approx(end, abs=1e-12)


def test_a_piece_begins_where_and_as_it_is_put():
    start = Pose(3.0, -2.0, math.pi / 2)
    assert Piece(4.0, 0.0).from_pose(start, 4.0) == pytest.approx((3.0, 2.0, math.pi / 2))
    assert Piece(QUARTER, 0.1).from_pose(start, QUARTER) == pytest.approx((-7.0, 8.0, math.pi))
    assert Piece(QUARTER, 0.1).from_pose(start, 0.0) == start


def test_a_parallel_keeps_the_centre_of_the_arc():
    arc = Piece(QUARTER, 0.1)
    inner = arc.beside(4.0)
    assert inner == pytest.approx((0.6 * QUARTER, 1.0 / 6.0))
    end = inner.from_pose(ORIGIN.beside(4.0), inner.length_m)
    assert end == pytest.approx(arc.from_pose(ORIGIN, QUARTER).beside(4.0), abs=1e-12)
    assert arc.beside(-10.0) == pytest.approx((2.0 * QUARTER, 0.05))
    assert Piece(8.0, 0.0).beside(100.0) == (8.0, 0.0)


@pytest.mark.parametrize("left_m", [10.0, 12.0])
def test_a_parallel_beyond_the_centre_is_refused(left_m):
    with pytest.raises(ValueError, match=r"left_m=1.*widen"):
        Piece(QUARTER, 0.1).beside(left_m)


def test_a_pose_turned_back_twice_is_the_same():
    pose = Pose(1.0, 2.0, 0.7)
    assert pose.reversed() == pytest.approx((1.0, 2.0, 0.7 - math.pi))
    assert pose.reversed().reversed() == pytest.approx(pose)
    assert pose.beside(2.0) == pytest.approx(pose.reversed().beside(-2.0).reversed())


def test_samples_are_those_of_a_walk_in_small_steps():
    along = np.linspace(0.0, total_length_m(S_BEND), 41)
    steps = 20_000
    x, y, heading, walked = 0.0, 0.0, 0.3, [(0.0, 0.0, 0.3)]
    step = total_length_m(S_BEND) / steps
    ends = np.cumsum([piece.length_m for piece in S_BEND])
    for i in range(steps):
        piece = S_BEND[min(int(np.searchsorted(ends, (i + 0.5) * step)), 3)]
        heading += 0.5 * piece.curvature_per_m * step
        x, y = x + step * math.cos(heading), y + step * math.sin(heading)
        heading += 0.5 * piece.curvature_per_m * step
        if (i + 1) % (steps // 40) == 0:
            walked.append((x, y, heading))
    np.testing.assert_allclose(sample(Pose(0.0, 0.0, 0.3), S_BEND, along), walked, atol=3e-3)


def test_samples_at_the_joints_are_the_joints():
    poses = joints(Pose(5.0, 1.0, -2.0), S_BEND)
    along = np.concatenate([[0.0], np.cumsum([piece.length_m for piece in S_BEND])])
    np.testing.assert_allclose(sample(poses[0], S_BEND, along), poses, atol=1e-12)
    assert total_length_m(S_BEND) == pytest.approx(22.0 + QUARTER)
