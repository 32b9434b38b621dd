import numpy as np
import pytest

from sb3_visual_td3.envs.road.ground import GroundPlan, Strip, build_ground, ground_plan, mark_strips
from sb3_visual_td3.envs.road.maps import MAP_GROUPS, load_map
from sb3_visual_td3.envs.road.network import crossed_network, loop_network
from sb3_visual_td3.envs.road.shapes import rounded_polygon

NAMES = [name for group in MAP_GROUPS.values() for name in group]
SQUARE = rounded_polygon(np.array([(0.0, 0.0), (140.0, 0.0), (140.0, 140.0), (0.0, 140.0)]), np.full(4, 20.0))
BRIGHT = 140
"""Grey value between that of the lightest asphalt and that of the darkest lane mark.

Marks are painted with a grey of at least 205. A mark of two texels may be darker, because its edges are antialiased.
"""


def greys(ground, points_m, level=0):
    """Return the grey of the texel under each point."""
    texels = (np.c_[points_m, np.ones(len(points_m))] @ ground.from_world(level).T)[:, :2].round().astype(int)
    raster = ground.levels[level]
    return raster[texels[:, 1], texels[:, 0]].astype(int)


def is_paved(ground, points_m):
    texels = (np.c_[points_m, np.ones(len(points_m))] @ ground.from_world(2).T)[:, :2].round().astype(int)
    return ground.paved[texels[:, 1], texels[:, 0]] == 255


@pytest.mark.parametrize("name", NAMES)
def test_every_lane_is_paved_and_has_no_mark_in_its_middle(name):
    scene = load_map(name)
    for road in scene.network.roads:
        for lane in road.lanes:
            line = road.line_m(scene.network.centre_m(lane), 0.5)
            assert is_paved(scene.ground, line).all()
            assert greys(scene.ground, line).max() < BRIGHT, f"a mark in the middle of lane {lane} of road {road.id}"


@pytest.mark.parametrize("name", NAMES)
def test_every_solid_mark_runs_without_a_gap_also_where_roads_meet(name):
    scene = load_map(name)
    for road in scene.network.roads:
        for border in range(-road.n_right, road.n_left + 1):
            if road.mark(border) == "solid":
                line = road.line_m(scene.network.border_m(border), 0.1)
                assert greys(scene.ground, line).min() > BRIGHT, f"border {border} of road {road.id}"


def test_the_dashes_of_a_ring_are_even_all_the_way_round():
    network = loop_network(SQUARE)
    ground = build_ground(ground_plan(network), np.random.default_rng(0))
    ring = np.concatenate([road.line_m(0.0, 0.1)[:-1] for road in network.roads])
    is_dash = greys(ground, ring) > BRIGHT
    changes = np.flatnonzero(is_dash != np.roll(is_dash, 1))
    runs_m = 0.1 * np.diff(np.append(changes, changes[0] + len(ring)))
    assert len(runs_m) == pytest.approx(2 * (400.0 + 40.0 * np.pi) / 6.0, abs=4)
    assert 2.5 < runs_m.min() <= runs_m.max() < 3.5


def test_marks_end_where_the_junction_begins():
    network = crossed_network(SQUARE, sides=(1, -1))
    ground = build_ground(ground_plan(network), np.random.default_rng(0))
    metres = np.arange(-9.5, 9.6, 0.1)
    x, y = (grid.ravel() for grid in np.meshgrid(70.0 + metres, metres))
    inside = np.stack([x, y], axis=1)
    paved = is_paved(ground, inside)
    assert greys(ground, inside)[paved].max() < BRIGHT
    for x, y in ((59.5, -3.5), (80.5, -3.5), (59.5, 3.5), (66.5, 10.5), (73.5, -10.5)):
        assert greys(ground, [(x, y)])[0] > BRIGHT, "the marks begin right beyond it"


def test_the_corners_of_a_junction_are_rounded():
    network = crossed_network(SQUARE, sides=(-1,))
    ground = build_ground(ground_plan(network), np.random.default_rng(0))
    # The right turn's outer edge has a radius of 10 - 3.5 - 0.4 m about the point 10 m south and 10 m west.
    middle, turn = np.array((70.0, 0.0)), np.array((60.0, -10.0))
    towards = (middle - turn) / np.linalg.norm(middle - turn)
    assert is_paved(ground, [turn + (6.1 + 0.8) * towards, middle]).all()
    assert not is_paved(ground, [turn + (6.1 - 0.6) * towards, (70.0, 6.0)]).any()


@pytest.mark.parametrize(("kind", "n_strips"), [("none", 0), ("solid", 1), ("broken", 10)])
def test_a_solid_mark_is_one_strip_and_a_broken_one_has_dashes(kind, n_strips):
    line = np.stack([np.arange(0.0, 60.5, 0.5), np.zeros(121)], axis=1)
    strips = mark_strips(line, kind, 60.0)
    assert len(strips) == n_strips
    if kind == "broken":
        assert [(strip.line_m[0, 0], strip.line_m[-1, 0]) for strip in strips[:2]] == [(1.5, 4.5), (7.5, 10.5)]


def test_a_strip_has_its_width():
    line = np.array([(0.0, 0.0), (20.0, 0.0)])
    ground = build_ground(GroundPlan((Strip(line, 8.0),), (Strip(line, 0.2),)), np.random.default_rng(1))
    assert is_paved(ground, [(10.0, 3.5), (10.0, -3.5)]).all()
    assert not is_paved(ground, [(10.0, 4.4), (10.0, -4.4)]).any()
    assert greys(ground, [(10.0, 0.0)])[0] > BRIGHT > greys(ground, [(10.0, 0.4), (10.0, -0.4)]).max()


def test_a_ground_is_painted_from_its_seed_alone():
    plan = ground_plan(loop_network(SQUARE))
    one, two, other = (build_ground(plan, np.random.default_rng(seed)) for seed in (5, 5, 6))
    for first, second in zip(one.levels, two.levels, strict=True):
        np.testing.assert_array_equal(first, second)
    assert (one.levels[0] != other.levels[0]).any()
