import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_visual_td3.envs.road.collision import OrientedBox, any_overlap, boxes_overlap

CAR = OrientedBox(0.0, 0.0, 0.0, 4.4, 1.8)


@pytest.mark.parametrize(
    ("x", "y", "yaw", "overlap"),
    [
        (0.0, 0.0, 0.0, True),
        (4.39, 0.0, 0.0, True),  # bumper to bumper
        (4.41, 0.0, 0.0, False),
        (0.0, 1.79, 0.0, True),  # side by side
        (0.0, 1.81, 0.0, False),
        (4.0, 1.81, 0.0, False),
        (3.09, 0.0, math.pi / 2, True),  # across the nose: 2.2 + 0.9
        (3.11, 0.0, math.pi / 2, False),
        (0.0, 3.09, math.pi / 2, True),
        (0.0, 3.11, math.pi / 2, False),
        # Turned by 45 degrees its corner reaches (2.2 + 0.9) / sqrt 2 = 2.192 m, 0.919 m to the side.
        (2.2 + 2.19, 0.5, math.pi / 4, True),
        (2.2 + 2.20, 0.5, math.pi / 4, False),
        (2.2 + 2.19, 0.0, math.pi / 4, False),
        # The boxes around both overlap, but a line along the turned one's side lies between them.
        (3.2, 2.6, -math.pi / 4, False),
        (-4.39, 0.0, math.pi, True),
    ],
)
def test_overlap_of_two_cars_is_as_computed_by_hand(x, y, yaw, overlap):
    other = CAR._replace(x_m=x, y_m=y, yaw_rad=yaw)
    assert boxes_overlap(CAR, other) is overlap
    assert boxes_overlap(other, CAR) is overlap


def corners_of(box, grow):
    along, across = np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]]).T * grow
    a, b = 0.5 * box.length_m * along, 0.5 * box.width_m * across
    cos, sin = math.cos(box.yaw_rad), math.sin(box.yaw_rad)
    return np.stack([box.x_m + a * cos - b * sin, box.y_m + a * sin + b * cos], axis=1)


def naive_overlap(one, two, grow):
    """Return whether a corner of one lies in the other, or two edges cross."""

    def inside(point, polygon):
        edges = np.roll(polygon, -1, axis=0) - polygon
        sides = edges[:, 0] * (point[1] - polygon[:, 1]) - edges[:, 1] * (point[0] - polygon[:, 0])
        return (sides >= 0).all() or (sides <= 0).all()

    def side(a, b, c):
        return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])

    p, q = corners_of(one, grow), corners_of(two, grow)
    if any(inside(point, q) for point in p) or any(inside(point, p) for point in q):
        return True
    return any(
        side(a, b, c) * side(a, b, d) < 0 and side(c, d, a) * side(c, d, b) < 0
        for a, b in zip(p, np.roll(p, -1, axis=0), strict=True)
        for c, d in zip(q, np.roll(q, -1, axis=0), strict=True)
    )


PLACE, ANGLE, SIZE = st.floats(-5.0, 5.0), st.floats(-4.0, 4.0), st.floats(0.5, 6.0)
BOX = st.builds(OrientedBox, PLACE, PLACE, ANGLE, SIZE, SIZE)


@settings(max_examples=400)
@given(one=BOX, two=BOX)
def test_boxes_touch_where_edges_cross_or_corners_lie_inside(one, two):
    answer = boxes_overlap(one, two)
    assert answer == boxes_overlap(two, one)
    if naive_overlap(one, two, 0.999):  # between the two sizes lies what rounding may decide
        assert answer
    if not naive_overlap(one, two, 1.001):
        assert not answer


def test_overlap_with_any_of_several_boxes_equals_testing_each_pair():
    rng = np.random.default_rng(0)
    n_touching = 0
    for _ in range(300):
        others = [OrientedBox(*rng.uniform(-6.0, 6.0, 2), rng.uniform(-4.0, 4.0), 4.4, 1.8) for _ in range(2)]
        expected = any(boxes_overlap(CAR, other) for other in others)
        assert any_overlap(CAR, others) is expected
        n_touching += expected
    assert 50 < n_touching < 250
    assert not any_overlap(CAR, [])
