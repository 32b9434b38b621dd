import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

from sb3_visual_td3.envs.road.maps import MAP_GROUPS, MapPlan, build_map, build_network, load_map

NAMES = [name for group in MAP_GROUPS.values() for name in group]
HASH_IN_A_NEW_PROCESS = """
from tests.envs.road.test_maps import digest
from sb3_visual_td3.envs.road.maps import load_map
print(digest(load_map("junction_0")))
"""


def digest(scene) -> str:
    arrays = (scene.track.points_m, *scene.ground.levels, scene.ground.paved, scene.panorama)
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def test_the_names_of_the_maps_stay_the_same():
    assert MAP_GROUPS["train"] == tuple(f"train_{i}" for i in range(8))
    assert MAP_GROUPS["held_out"] == ("held_out_0", "held_out_1")
    assert MAP_GROUPS["junction"] == ("junction_0", "junction_1")
    assert MAP_GROUPS["wide"] == ("three_lanes_0", "four_lanes_0")
    assert MAP_GROUPS["streets"] == tuple(f"streets_{i}" for i in range(6))
    assert MAP_GROUPS["streets_held_out"] == ("streets_held_out_0", "streets_held_out_1")
    assert len(set(NAMES)) == len(NAMES)


def test_each_group_has_roads_of_both_directions():
    for names in MAP_GROUPS.values():
        signs = {np.sign(load_map(name).track.curvatures_per_m.sum()) for name in names}
        assert signs == {-1.0, 1.0}


def test_no_two_maps_share_a_road():
    assert len({load_map(name).track.points_m.tobytes() for name in NAMES}) == len(NAMES)


@pytest.mark.parametrize(
    ("name", "lanes", "n_arms"),
    [
        ("train_0", (1, -1), 0),
        ("held_out_1", (1, -1), 0),
        ("junction_0", (1, -1), 4),
        ("junction_1", (1, -1), 3),
        ("three_lanes_0", (1, -1, -2), 0),
        ("four_lanes_0", (2, 1, -1, -2), 0),
    ],
)
def test_a_map_has_the_lanes_and_junction_arms_that_its_name_implies(name, lanes, n_arms):
    network = load_map(name).network
    assert {road.lanes for road in network.roads if road.junction is None} == {lanes}
    arms = {connection.incoming_road for junction in network.junctions for connection in junction.connections}
    assert len(arms) == n_arms


def test_the_same_plan_gives_the_same_bytes_and_another_seed_others():
    one, two, other = (build_map("a", MapPlan(seed)) for seed in (3, 3, 4))
    assert digest(one) == digest(two)
    assert digest(one) != digest(other)


def test_another_process_builds_the_same_bytes():
    env = {**os.environ, "PYTHONHASHSEED": "77"}
    command = [sys.executable, "-c", HASH_IN_A_NEW_PROCESS]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    assert answer.stdout.strip() == digest(load_map("junction_0"))


@pytest.mark.parametrize("seed", range(100, 112))
@pytest.mark.parametrize("lanes", [(1, 1), (1, 2), (2, 2)], ids=str)
def test_route_lane_has_no_curve_tighter_than_14_m_for_any_seed(seed, lanes):
    network = build_network(MapPlan(seed, n_left=lanes[0], n_right=lanes[1]))
    offset_m = network.centre_m(network.route_lane)
    for road in network.roads:
        for piece in road.pieces:
            assert abs(piece.beside(offset_m).curvature_per_m) <= 1.0 / 14.0


@pytest.mark.parametrize("seed", range(100, 106))
def test_any_seed_finds_room_for_a_crossing(seed):
    assert len(build_network(MapPlan(seed, sides=(1, -1))).junctions) == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_map_takes_little_memory(name):
    ground = load_map(name).ground
    assert sum(level.nbytes for level in (*ground.levels, ground.paved)) < 25e6


def test_a_map_is_built_once():
    assert load_map("train_0") is load_map("train_0")


def test_an_unknown_map_is_refused_with_the_known_names():
    with pytest.raises(ValueError, match=r"held_out_0.*xodr"):
        load_map("town_7")


def test_a_path_is_read_as_an_opendrive_file():
    with pytest.raises(ValueError, match=r"nowhere.xodr.*no such file exists"):
        load_map("nowhere.xodr")
