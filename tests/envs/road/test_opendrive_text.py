from xml.etree import ElementTree

import pytest

from sb3_visual_td3.envs.road.maps import MAP_GROUPS, load_map
from sb3_visual_td3.envs.road.opendrive_reading import check_opendrive
from sb3_visual_td3.envs.road.opendrive_writing import to_opendrive

NAMES = [name for group in MAP_GROUPS.values() for name in group]


@pytest.mark.parametrize("name", NAMES)
def test_our_own_export_passes(name):
    check_opendrive(to_opendrive(load_map(name)), "a.xodr")


def without(path):
    def change(root):
        parent = root if "/" not in path else root.find(path.rsplit("/", 1)[0])
        parent.remove(parent.find(path.rsplit("/", 1)[-1]))

    return change


def with_value(path, name, value):
    return lambda root: root.find(path).set(name, value)


def without_roads(root):
    for road in root.findall("road"):
        root.remove(road)


FAULTS = {
    "no header": (without("header"), "header"),
    "another major version": (with_value("header", "revMajor", "2"), "revMajor='1'"),
    "no roads": (without_roads, "no <road>"),
    "a second road of the same number": (with_value("road[2]", "id", "0"), "same one"),
    "a negative length": (with_value("road", "length", "-5"), "road 0.*length='-5'"),
    "no length": (with_value("road", "length", ""), "road 0.*length=''"),
    "a length that is no number": (with_value("road", "length", "nan"), "length='nan'"),
    "an infinite length": (with_value("road", "length", "inf"), "length='inf'"),
    "no plan view": (without("road/planView"), "planView"),
    "an empty plan view": (lambda root: root.find("road/planView").clear(), "planView"),
    "a negative piece": (with_value("road/planView/geometry", "length", "-1"), "length='-1'"),
    "a piece nowhere": (with_value("road/planView/geometry", "x", "nan"), "x='nan'"),
    "a piece without a shape": (lambda root: root.find("road/planView/geometry").remove(
        root.find("road/planView/geometry")[0]), "0 shapes"),
    "a bend that is no number": (with_value(".//arc", "curvature", "sharp"), "curvature='sharp'"),
    "no lanes": (without("road/lanes"), "laneSection"),
    "no lane section": (without("road/lanes/laneSection"), "laneSection"),
    "no middle": (without("road/lanes/laneSection/center"), "centre lane"),
    "a lane of no number": (with_value("road/lanes/laneSection/right/lane", "id", "x"), "id='x'"),
    "a lane of no width": (with_value("road/lanes/laneSection/right/lane/width", "a", "wide"), "a='wide'"),
    "a link to nowhere": (with_value("road/link/successor", "elementId", "77"), "link to road '77'"),
    "a junction of nowhere": (with_value("junction/connection", "incomingRoad", "77"), "incomingRoad='77'"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named(name):
    change, message = FAULTS[name]
    root = ElementTree.fromstring(to_opendrive(load_map("junction_0")).encode())
    change(root)
    with pytest.raises(ValueError, match=rf"a\.xodr.*{message}.*expected.*; "):
        check_opendrive(ElementTree.tostring(root, encoding="unicode"), "a.xodr")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "broken XML"),
        ("<OpenDRIVE><header", "broken XML"),
        ("not a map at all", "broken XML"),
        ("<html/>", "<html>"),
        ("<OpenDRIVE/>", "header"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><OpenDRIVE/>', "document type"),
    ],
)
def test_a_text_that_is_no_map_is_named(text, message):
    with pytest.raises(ValueError, match=rf"a\.xodr: got .*{message}"):
        check_opendrive(text, "a.xodr")


def test_half_a_document_is_refused():
    text = to_opendrive(load_map("train_0"))
    with pytest.raises(ValueError, match="broken XML"):
        check_opendrive(text[: len(text) // 2], "a.xodr")
