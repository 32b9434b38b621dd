import math

import numpy as np
import pytest

from sb3_visual_td3.envs.backend import LaneMark
from sb3_visual_td3.envs.road.maps import MAP_GROUPS, load_map
from sb3_visual_td3.envs.road.network import crossed_network, loop_network
from sb3_visual_td3.envs.road.shapes import rounded_polygon
from sb3_visual_td3.envs.road.track import Track, route_track

NAMES = [name for group in MAP_GROUPS.values() for name in group]
RINGS = [name for name in NAMES if not name.startswith("streets")]
SQUARE = rounded_polygon(np.array([(0.0, 0.0), (140.0, 0.0), (140.0, 140.0), (0.0, 140.0)]), np.full(4, 20.0))


@pytest.fixture(scope="module")
def circle():
    """Return a lane of 50 m radius, driven counter-clockwise."""
    angle = np.linspace(0.0, 2.0 * np.pi, 600, endpoint=False)
    return Track(50.0 * np.stack([np.cos(angle), np.sin(angle)], axis=1))


@pytest.mark.parametrize("name", RINGS)
def test_a_route_is_closed_even_and_without_a_kink(name):
    track = load_map(name).track
    gaps = np.linalg.norm(np.roll(track.points_m, -1, axis=0) - track.points_m, axis=1)
    assert 400.0 <= track.length_m <= 820.0
    assert gaps.max() < 1.02 * gaps.min(), "the last point joins the first like any other"
    assert track.spacing_m == pytest.approx(0.5, rel=0.01)
    assert np.abs(track.curvatures_per_m).max() <= 1.0 / 14.0
    assert track.curvatures_per_m.max() > 1.0 / 100.0, "there is a bend to the left"
    assert track.curvatures_per_m.min() < -1.0 / 100.0, "there is a bend to the right"


@pytest.mark.parametrize("name", NAMES)
def test_a_route_turns_by_360_degrees_in_total(name):
    turned = float(load_map(name).track.curvatures_per_m.sum() * load_map(name).track.spacing_m)
    assert abs(turned) == pytest.approx(2.0 * np.pi, abs=1e-6)


@pytest.mark.parametrize(("n_right", "inset_m"), [(1, 1.75), (2, 5.25)])
def test_the_route_of_a_square_lies_outside_its_line_by_half_a_lane_or_more(n_right, inset_m):
    track = route_track(loop_network(SQUARE, n_right=n_right))
    radius_m = 20.0 + inset_m  # counter-clockwise, the right-hand lane is the outer one
    assert track.length_m == pytest.approx(4 * 100.0 + 2 * math.pi * radius_m, rel=1e-4)
    assert track.points_m[0] == pytest.approx((20.0, -inset_m))
    assert track.points_m.min(axis=0) == pytest.approx((-inset_m, -inset_m), abs=0.01)
    assert track.points_m.max(axis=0) == pytest.approx((140.0 + inset_m, 140.0 + inset_m), abs=0.01)
    assert np.abs(track.curvatures_per_m).max() == pytest.approx(1.0 / radius_m, rel=1e-3)


def test_a_route_knows_the_lines_lanes_and_marks_beside_it():
    two, four = (route_track(loop_network(SQUARE, n_left=n, n_right=n)) for n in (1, 2))
    assert (two.left_line_m, two.right_line_m, two.oncoming_lane_m) == (5.25, -1.75, 3.5)
    assert two.marks == (LaneMark(-1.75, "solid"), LaneMark(1.75, "broken"), LaneMark(5.25, "solid"))
    assert (four.left_line_m, four.right_line_m, four.oncoming_lane_m) == (12.25, -1.75, 7.0)
    assert [mark.offset_m for mark in four.marks] == [-1.75, 1.75, 5.25, 8.75, 12.25]
    assert [mark.kind for mark in four.marks] == ["solid", "broken", "solid", "broken", "solid"]
    plain = Track(two.points_m)
    assert (plain.marks, plain.left_line_m, plain.right_line_m) == (two.marks, two.left_line_m, two.right_line_m)


def test_a_route_knows_where_it_leads_through_a_junction():
    assert route_track(loop_network(SQUARE)).in_junction is None
    track = route_track(crossed_network(SQUARE, sides=(-1,)))
    x = track.points_m[track.in_junction]
    assert track.in_junction.sum() in (39, 40), "20 m"
    assert (x[:, 0].min(), x[:, 0].max()) == pytest.approx((60.0, 80.0), abs=0.51)
    np.testing.assert_allclose(x[:, 1], -1.75, atol=1e-9)


def test_a_circle_has_the_curvature_of_its_radius(circle):
    assert circle.length_m == pytest.approx(2.0 * np.pi * 50.0, rel=1e-4)
    np.testing.assert_allclose(circle.curvatures_per_m, 1.0 / 50.0, rtol=1e-3)


@pytest.mark.parametrize("radius", [46.0, 49.0, 50.0, 51.0, 52.0])
@pytest.mark.parametrize("angle", [0.0, 0.0007, 1.0, 2.5, 4.0, 6.28])
def test_a_place_beside_a_circle_is_located_exactly(circle, radius, angle):
    place = circle.locate(radius * math.cos(angle), radius * math.sin(angle), near=int(angle / 6.2832 * 600))
    assert place.lateral_offset_m == pytest.approx(50.0 - radius, abs=2e-3)
    assert math.remainder(place.heading_rad - (angle + math.pi / 2), 2.0 * math.pi) == pytest.approx(0.0, abs=2e-3)
    along = math.remainder(place.along_m - 50.0 * angle, circle.length_m)
    assert along == pytest.approx(0.0, abs=0.03)


@pytest.mark.parametrize("name", ["train_1", "junction_0", "four_lanes_0"])
def test_locate_from_a_nearby_point_finds_the_nearest_of_all_points(name):
    track = load_map(name).track
    rng = np.random.default_rng(0)
    for _ in range(300):
        index = int(rng.integers(len(track.points_m)))
        x, y, _ = track.pose_at(index, float(rng.uniform(-2.0, 5.5)))
        slow = int(np.argmin(((track.points_m - (x, y)) ** 2).sum(axis=1)))
        near = (index + int(rng.integers(-6, 7))) % len(track.points_m)
        assert track.locate(x, y, near).nearest == slow


def test_pose_at_is_the_inverse_of_locate():
    track = load_map("train_2").track
    for offset in (-1.5, 0.0, 0.4, 3.0):
        x, y, heading = track.pose_at(17, offset)
        place = track.locate(x, y, 17)
        assert (place.lateral_offset_m, place.heading_rad) == pytest.approx((offset, heading), abs=1e-9)
