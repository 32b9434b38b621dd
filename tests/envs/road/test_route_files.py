"""Test route files of CARLA's leaderboard; the examples are handwritten in the documented format."""

import math

import numpy as np
import pytest

from sb3_visual_td3.envs.road.route_files import read_route_file, route_settings
from sb3_visual_td3.envs.road.route_planning import RoutePlace
from sb3_visual_td3.envs.road.route_settings import GivenRoute, RouteSettings, check_given

VERSION_1 = """<?xml version="1.0"?>
<routes>
  <route id="0" town="Town01">
    <weather cloudiness="0" precipitation="0"/>
    <waypoint pitch="0.0" roll="0.0" x="10.0" y="20.0" yaw="-90.0" z="0.0"/>
    <waypoint pitch="0.0" roll="0.0" x="30.0" y="-40.0" yaw="0.0" z="0.0"/>
  </route>
</routes>"""
VERSION_2 = """<routes>
  <route id="7" town="Carla/Maps/Town03">
    <weathers><weather route_percentage="0" cloudiness="5.0"/></weathers>
    <waypoints><position x="1.5" y="2.5" z="0.1"/><position x="3.0" y="4.0" z="0.1"/></waypoints>
    <scenarios>
      <scenario name="A_1" type="AccidentTwoWays"><trigger_point x="1" y="2" z="3" yaw="4"/></scenario>
      <scenario name="A_2" type="AccidentTwoWays"/>
      <scenario name="P_1" type="ParkingExit"/>
    </scenarios>
  </route>
  <route id="8" town="Town01">
    <waypoints><position x="0" y="0"/><position x="5" y="0"/><position x="9" y="0"/></waypoints>
  </route>
</routes>"""


@pytest.fixture
def file_of(tmp_path):
    def write(text):
        path = tmp_path / "routes.xml"
        path.write_text(text)
        return path

    return write


def test_version_1_route_file_is_read_with_y_and_yaw_reversed(file_of):
    (route,) = read_route_file(file_of(VERSION_1))
    assert route.town == "Town01"
    # The signs of CARLA's y and yaw are reversed. A yaw of 0 means that the file gives no direction.
    assert route.places == (RoutePlace(10.0, -20.0, math.pi / 2), RoutePlace(30.0, 40.0, None))


def test_version_2_route_file_gives_positions_and_a_list_of_ignored_parts(file_of, caplog):
    path = file_of(VERSION_2)
    first, second = read_route_file(path)
    assert first == GivenRoute(f"{path}, route 7", (RoutePlace(1.5, -2.5), RoutePlace(3.0, -4.0)), "Town03")
    assert (second.town, len(second.places)) == ("Town01", 3)
    assert caplog.messages == [
        f"{path}: these parts are not simulated and are ignored: "
        "2 scenario AccidentTwoWays, 1 scenario ParkingExit, 1 weathers"
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<routes>", "broken XML"),
        ("<maps/>", "got <maps>, expected <routes>"),
        ("<routes/>", "expected <routes> with at least one <route>"),
        ("<!DOCTYPE a><routes/>", "document type declaration"),
        (VERSION_1.replace('town="Town01"', ""), "route 0: got no town"),
        (VERSION_1.replace('x="10.0"', 'x="east"'), "route 0: got <waypoint x='east'>"),
        (VERSION_1.replace('y="20.0"', 'y="nan"'), "y='nan'"),
        ('<routes><route id="0" town="T"><waypoint x="1" y="2"/></route></routes>', r"too few places \(1\)"),
    ],
)
def test_an_invalid_route_file_is_refused_with_the_reason(file_of, text, words):
    with pytest.raises(ValueError, match=words):
        read_route_file(file_of(text))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere\.xml.*no such file"):
        read_route_file(tmp_path / "nowhere.xml")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("circle", None, (200, 800), (0, 8)), "route='circle': expected 'loop'"),
        (("file", None, (200, 800), (0, 8)), "set both, or neither"),
        (("random", "routes.xml", (200, 800), (0, 8)), "route='file' and route_file go together"),
        (("random", None, (800, 200), (0, 8)), "one of these ranges is reversed"),
        (("random", None, 500, (0, 8)), "route_length_m=500: expected two numbers"),
        (("random", None, (200, 800), (0.5, 8)), "route_turns=0.5"),
        (("random", None, (1, 800), (0, 8)), "route_length_m=1: expected a number from 20"),
        (([], None, (200, 800), (0, 8)), "at least one"),
        (([(1.0, 2.0)], None, (200, 800), (0, 8)), r"route\[0\]"),
        (([((1.0, "two"), (3.0, 4.0))], None, (200, 800), (0, 8)), r"route\[0\]='two'"),
        ((5, None, (200, 800), (0, 8)), "route=5"),
        ((np.array([1, 2]), None, (200, 800), (0, 8)), r"route=array\(\[1, 2\]\): expected 'loop'"),
    ],
)
def test_bad_arguments_say_what_is_expected(arguments, words):
    with pytest.raises(ValueError, match=words):
        route_settings(*arguments)


def test_arguments_become_settings(file_of):
    assert route_settings("loop", None, (200, 800), (0, 8)) == RouteSettings()
    assert route_settings("random", None, [100, 300], (1, 2)) == RouteSettings("random", (100.0, 300.0), (1, 2))
    pair = route_settings([((1, 2), (3, 4, 0.5))], None, (200, 800), (0, 8))
    assert pair.given == (GivenRoute("route[0]", (RoutePlace(1.0, 2.0), RoutePlace(3.0, 4.0, 0.5))),)
    assert len(route_settings("file", file_of(VERSION_1), (200, 800), (0, 8)).given) == 1


def test_routes_belong_to_the_map_of_their_town(file_of, caplog):
    settings = route_settings("file", file_of(VERSION_2), (200, 800), (0, 8))
    caplog.clear()
    assert [route.name[-1] for route in settings.given_on("maps/Town01.xodr")] == ["8"]
    check_given(settings, ["maps/Town01.xodr"])
    assert caplog.messages == ["routes of ['Town03'] are left out: these towns are not among the maps"]
    with pytest.raises(ValueError, match=r"no route for \['train_0'\], the routes are for \['Town01', 'Town03'\]"):
        check_given(settings, ["maps/Town01.xodr", "train_0"])
