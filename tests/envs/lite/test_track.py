import math

import numpy as np
import pytest

from sb3_visual_td3.envs.lite.maps import MAP_GROUPS, load_map
from sb3_visual_td3.envs.lite.track import Track, build_track

NAMES = [name for group in MAP_GROUPS.values() for name in group]


@pytest.fixture(scope="module")
def circle():
    """A lane of 50 m radius, driven counter-clockwise."""
    angle = np.linspace(0.0, 2.0 * np.pi, 600, endpoint=False)
    return Track(50.0 * np.stack([np.cos(angle), np.sin(angle)], axis=1))


def test_there_are_eight_maps_to_train_on_and_two_held_out():
    assert MAP_GROUPS["train"] == tuple(f"train_{i}" for i in range(8))
    assert MAP_GROUPS["held_out"] == ("held_out_0", "held_out_1")


@pytest.mark.parametrize("name", NAMES)
def test_a_road_is_closed_even_and_without_a_kink(name):
    track = load_map(name).track
    gaps = np.linalg.norm(np.roll(track.points_m, -1, axis=0) - track.points_m, axis=1)
    assert 450.0 <= track.length_m <= 801.0
    assert gaps.max() < 1.02 * gaps.min(), "the last point joins the first like any other"
    assert np.abs(track.curvatures_per_m).max() <= 1.0 / 14.0
    assert track.curvatures_per_m.max() > 1.0 / 100.0, "there is a bend to the left"
    assert track.curvatures_per_m.min() < -1.0 / 100.0, "there is a bend to the right"


@pytest.mark.parametrize("name", NAMES)
def test_a_road_turns_round_once(name):
    turned = float(load_map(name).track.curvatures_per_m.sum() * load_map(name).track.spacing_m)
    assert abs(turned) == pytest.approx(2.0 * np.pi, abs=1e-6)


def test_each_group_has_roads_of_both_directions():
    for names in MAP_GROUPS.values():
        signs = {np.sign(load_map(name).track.curvatures_per_m.sum()) for name in names}
        assert signs == {-1.0, 1.0}


def test_a_seed_gives_one_road_and_another_seed_another():
    first, again, other = build_track(3, False), build_track(3, False), build_track(4, False)
    np.testing.assert_array_equal(first.points_m, again.points_m)
    assert first.points_m.shape != other.points_m.shape or not np.allclose(first.points_m, other.points_m)


def test_no_two_maps_share_a_road():
    assert len({load_map(name).track.points_m.tobytes() for name in NAMES}) == len(NAMES)


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


def test_walking_from_a_near_point_finds_the_nearest_of_all():
    track = load_map("train_1").track
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


def test_an_unknown_map_is_refused_with_the_names_that_there_are():
    with pytest.raises(ValueError, match="held_out_0"):
        load_map("town_7")
