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
    total_length_m,
)

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


def test_a_corner_of_the_other_hand_bends_the_other_way():
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
def test_a_random_loop_is_closed_smooth_and_as_asked(seed, is_clockwise):
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


def test_a_loop_that_cannot_be_found_is_refused():
    with pytest.raises(ValueError, match="min_radius_m=22"):
        random_loop(np.random.default_rng(0), is_clockwise=False, min_radius_m=22.0)


@pytest.mark.parametrize(("width_m", "is_apart"), [(29.0, False), (31.0, True)])
def test_a_hairpin_keeps_apart_from_itself_or_does_not(width_m, is_apart):
    half_turn = Piece(0.5 * width_m * math.pi, 2.0 / width_m)
    line = Piece(200.0, 0.0)
    assert keeps_apart(LoopShape(Pose(0.0, 0.0, 0.0), (line, half_turn, line, half_turn))) is is_apart
