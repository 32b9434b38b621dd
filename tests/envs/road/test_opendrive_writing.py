import functools
import json
import math
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from sb3_visual_td3.envs.road.maps import MAP_GROUPS, MapPlan, build_map, load_map
from sb3_visual_td3.envs.road.opendrive_writing import to_opendrive
from sb3_visual_td3.envs.road.shapes import Piece, Pose
from tests.towns import needs_carla

NAMES = [name for group in MAP_GROUPS.values() for name in group]
PROBE = Path(__file__).parents[1] / "carla" / "probe.py"


def document(name):
    return ElementTree.fromstring(to_opendrive(load_map(name)).encode())


@pytest.mark.parametrize("name", NAMES)
def test_a_document_has_what_the_standard_requires(name):
    root = document(name)
    header = root.find("header")
    assert (root.tag, header.get("revMajor"), header.get("revMinor")) == ("OpenDRIVE", "1", "4")
    roads = root.findall("road")
    assert len({road.get("id") for road in roads}) == len(roads)
    assert len([road for road in roads if road.get("junction") == "-1"]) >= 3
    for road in roads:
        assert road.find("lanes/laneSection/center/lane").get("id") == "0"
        for lane in road.findall("lanes/laneSection/*/lane"):
            assert lane.get("type") == ("none" if lane.get("id") == "0" else "driving")


@pytest.mark.parametrize("name", NAMES)
def test_geometries_join_and_add_up_to_the_road(name):
    for road in document(name).findall("road"):
        s, here = 0.0, None
        for geometry in road.findall("planView/geometry"):
            x, y, heading, length = (float(geometry.get(key)) for key in ("x", "y", "hdg", "length"))
            assert float(geometry.get("s")) == pytest.approx(s)
            if here is not None:
                assert (x, y, heading) == pytest.approx(here, abs=1e-9)
            arc = geometry.find("arc")
            assert (arc is None) != (geometry.find("line") is None)
            piece = Piece(length, 0.0 if arc is None else float(arc.get("curvature")))
            s, here = s + length, piece.from_pose(Pose(x, y, heading), length)
        assert float(road.get("length")) == pytest.approx(s)


def test_a_turn_within_a_junction_names_the_lanes_it_joins():
    root = document("junction_0")
    roads = {road.get("id"): road for road in root.findall("road")}
    ways = [road for road in roads.values() if road.get("junction") != "-1"]
    assert len(ways) == len(root.findall("junction/connection")) == 12
    for way in ways:
        lane = way.find("lanes/laneSection/right/lane")
        for end, contact in (("predecessor", "end"), ("successor", "start")):
            link = way.find(f"link/{end}")
            # Into the junction one drives on the right of a road that ends there, on the left of one that begins.
            expected = "-1" if link.get("contactPoint") == contact else "1"
            assert lane.find(f"link/{end}").get("id") == expected
            assert link.get("elementId") in roads
    for connection in root.findall("junction/connection"):
        assert roads[connection.get("connectingRoad")].get("junction") == root.find("junction").get("id")


def test_the_same_map_gives_the_same_text():
    assert to_opendrive(build_map("a", MapPlan(3))) == to_opendrive(build_map("a", MapPlan(3)))
    assert to_opendrive(build_map("a", MapPlan(3))) != to_opendrive(build_map("a", MapPlan(4)))


def test_a_map_without_roads_cannot_be_exported():
    with pytest.raises(ValueError, match="was read from a file and cannot be exported; choose a built-in map"):
        to_opendrive(load_map("train_0")._replace(network=None))


@functools.cache
def read_back(name):
    """Return points of all lanes, and the waypoints that CARLA's client finds at these points and on the route."""
    scene = load_map(name)
    network = scene.network
    lanes = [
        (road.id, lane, float(s))
        for road in network.roads
        for lane in road.lanes
        for s in np.linspace(0.02, road.length_m - 0.02, 15)
    ]
    length_m = sum(network.road(number).length_m for number in network.route)
    n_steps = round(length_m)
    asked = {
        "text": to_opendrive(scene),
        "places": scene.track.points_m[10::3].tolist(),
        "lanes": lanes,
        "step_m": length_m / n_steps,
        "n_steps": n_steps,
        "route": list(network.route),
    }
    answer = subprocess.run(
        [sys.executable, str(PROBE)], input=json.dumps(asked), capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    return lanes, json.loads(answer.stdout)


@pytest.mark.carla
@needs_carla
@pytest.mark.parametrize("name", NAMES)
def test_carla_finds_the_lane_of_the_route_where_it_lies(name):
    scene = load_map(name)
    inside = scene.track.in_junction if scene.track.in_junction is not None else np.zeros(len(scene.track.points_m))
    marks = [mark.kind.capitalize() for mark in scene.track.marks]
    for index, seen in zip(range(10, len(scene.track.points_m), 3), read_back(name)[1]["near"], strict=True):
        if inside[index] and name.startswith("streets"):
            continue  # the route turns here, across the lanes of other ways, on which CARLA may find the place
        place = scene.track.locate(seen["x"], seen["y"], index)
        assert abs(place.lateral_offset_m) < 0.05
        assert math.hypot(*(scene.track.points_m[index] - (seen["x"], seen["y"]))) < 0.35, "it snaps along the lane"
        assert math.remainder(math.radians(seen["yaw_deg"]) - place.heading_rad, 2 * math.pi) == pytest.approx(
            0, abs=0.02
        )
        if not inside[index]:
            assert seen["lane"] == scene.network.route_lane
            assert (seen["right_mark"], seen["left_mark"]) == tuple(marks[:2])
            assert seen["left_lane"] == (seen["lane"] + 1 or 1)
            assert seen["right_lane"] is None
        assert (seen["type"], seen["width"]) == ("Driving", pytest.approx(3.5))


@pytest.mark.carla
@needs_carla
@pytest.mark.parametrize("name", NAMES)
def test_carla_has_every_lane_of_every_road_to_five_centimetres(name):
    network = load_map(name).network
    lanes, answer = read_back(name)
    for (number, lane, s), seen in zip(lanes, answer["at"], strict=True):
        road = network.road(number)
        at = road.start
        rest_m = s
        for piece in road.pieces:
            step_m = min(rest_m, piece.length_m)
            at, rest_m = piece.from_pose(at, step_m), rest_m - step_m
        at = at.beside(network.centre_m(lane))
        assert math.hypot(at.x_m - seen["x"], at.y_m - seen["y"]) < 0.05
        heading = at.heading_rad if lane < 0 else at.heading_rad + math.pi
        assert math.remainder(math.radians(seen["yaw_deg"]) - heading, 2.0 * math.pi) == pytest.approx(0.0, abs=1e-3)
        assert (seen["lane"], seen["width"]) == (lane, pytest.approx(3.5))
        assert seen["in_junction"] == (road.junction is not None)
        kinds = [road.mark(border).capitalize().replace("None", "NONE") for border in (lane, lane - np.sign(lane))]
        assert [seen["right_mark"], seen["left_mark"]] == kinds


@pytest.mark.carla
@needs_carla
@pytest.mark.parametrize("name", NAMES)
def test_carla_drives_round_the_whole_route(name):
    scene = load_map(name)
    answer = read_back(name)[1]
    first, last = answer["way"][0], answer["way"][-1]
    assert math.hypot(first["x"] - last["x"], first["y"] - last["y"]) < 0.05
    assert {seen["road"] for seen in answer["way"]} == set(scene.network.route)
    near = 10
    for seen in answer["way"]:
        place = scene.track.locate(seen["x"], seen["y"], near)
        near = place.nearest
        assert abs(place.lateral_offset_m) < 0.05
    assert any(seen["in_junction"] for seen in answer["way"]) == bool(scene.network.junctions)
    # At a crossing there are three ways on, at a T-junction two. The route of a district comes by one of them or both.
    choices = set(answer["ways_on"]) - {1}
    assert 1 in answer["ways_on"]
    if name.startswith("streets"):
        assert choices
        assert choices <= {2, 3}
    else:
        assert choices == {"junction_0": {3}, "junction_1": {2}}.get(name, set())
