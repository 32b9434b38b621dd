import math

import numpy as np
import pytest

from sb3_visual_td3.envs.road.shapes import (
    LoopShape,
    Piece,
    Pose,
    joints,
    keeps_apart,
    random_loop,
    rounded_polygon,
    sample,
    total_length_m,
)

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
def test_a_straight_or_arc_ends_at_the_pose_computed_by_hand(piece, end):
    assert piece.from_pose(ORIGIN, piece.length_m) == pytest.approx(end, abs=1e-12)


def test_a_piece_begins_at_its_start_pose():
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


def test_sampled_poses_match_a_numerical_integration():
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


# Closed loops

SQUARE = np.array([(0.0, 0.0), (40.0, 0.0), (40.0, 40.0), (0.0, 40.0)])


def assert_closed(shape, turns):
    first, last = shape.start, joints(shape.start, shape.pieces)[-1]
    assert last[:2] == pytest.approx(first[:2], abs=1e-9)
    assert last.heading_rad - first.heading_rad == pytest.approx(turns * 2.0 * math.pi, abs=1e-9)


def test_a_square_is_rounded_by_quarter_circles():
    shape = rounded_polygon(SQUARE, np.full(4, 10.0))
    assert shape.start == pytest.approx((10.0, 0.0, 0.0))
    assert np.array(shape.pieces) == pytest.approx(np.array([(20.0, 0.0), (5.0 * math.pi, 0.1)] * 4))
    assert_closed(shape, 1)


def test_a_corner_to_the_other_side_bends_the_other_way():
    notched = np.array([(0.0, 0.0), (60.0, 0.0), (60.0, 60.0), (30.0, 30.0), (0.0, 60.0)])
    arcs = rounded_polygon(notched, np.full(5, 5.0)).pieces[1::2]
    assert [math.copysign(1.0, arc.curvature_per_m) for arc in arcs] == [1.0, 1.0, -1.0, 1.0, 1.0]
    assert arcs[2].length_m == pytest.approx(5.0 * math.pi / 2)
    assert_closed(rounded_polygon(notched, np.full(5, 5.0)), 1)


def test_arcs_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="smaller radii"):
        rounded_polygon(SQUARE, np.array([25.0, 16.0, 5.0, 5.0]))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("is_clockwise", [False, True])
def test_a_random_loop_is_closed_smooth_and_meets_its_conditions(seed, is_clockwise):
    rng = np.random.default_rng(seed)
    shape = random_loop(rng, is_clockwise=is_clockwise, min_radius_m=17.0, min_straight_m=30.0)
    assert_closed(shape, -1 if is_clockwise else 1)
    assert 450.0 <= total_length_m(shape.pieces) <= 800.0
    curvatures = np.array([piece.curvature_per_m for piece in shape.pieces])
    assert 1.0 / 23.0 <= np.abs(curvatures).max() <= 1.0 / 17.0
    assert curvatures.min() < 0.0 < curvatures.max(), "there are bends to both sides"
    lines = [piece.length_m for piece in shape.pieces if piece.curvature_per_m == 0.0]
    assert shape.pieces[0].length_m == max(lines) >= 30.0
    assert min(piece.length_m for piece in shape.pieces) > 0.0
    turned = sum(piece.length_m * abs(piece.curvature_per_m) for piece in shape.pieces)
    assert turned >= 3.2 * math.pi, "a loop without S-bends would turn by 2 pi"


def test_impossible_conditions_on_a_loop_are_refused():
    with pytest.raises(ValueError, match="min_radius_m=22"):
        random_loop(np.random.default_rng(0), is_clockwise=False, min_radius_m=22.0)


@pytest.mark.parametrize(("width_m", "is_apart"), [(29.0, False), (31.0, True)])
def test_a_narrow_hairpin_is_too_close_to_itself(width_m, is_apart):
    half_turn = Piece(0.5 * width_m * math.pi, 2.0 / width_m)
    line = Piece(200.0, 0.0)
    assert keeps_apart(LoopShape(Pose(0.0, 0.0, 0.0), (line, half_turn, line, half_turn))) is is_apart
