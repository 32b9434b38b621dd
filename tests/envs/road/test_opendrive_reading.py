import copy
import gc
import importlib.util
import math
import re
import subprocess
import weakref
from xml.etree import ElementTree

import numpy as np
import pytest

from sb3_visual_td3.envs.backend import Control, Start
from sb3_visual_td3.envs.lite.world import LiteWorld
from sb3_visual_td3.envs.road import opendrive_reading
from sb3_visual_td3.envs.road.graph_reading import read_graph
from sb3_visual_td3.envs.road.maps import MAP_GROUPS, load_map
from sb3_visual_td3.envs.road.opendrive_reading import check_opendrive, client_number, load_opendrive, read_route
from sb3_visual_td3.envs.road.opendrive_writing import to_opendrive
from sb3_visual_td3.envs.road.route_maps import load_route_map
from sb3_visual_td3.envs.road.route_settings import RouteSettings
from sb3_visual_td3.envs.road.street_life import StreetLife
from tests.towns import needs_carla

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


def with_shape(tag, **attributes):
    def change(root):
        geometry = root.find("road/planView/geometry")
        geometry.remove(geometry[0])
        ElementTree.SubElement(geometry, tag, attributes)

    return change


def renamed(kind, new_ids):
    """Return a change of a map: other ids for roads or junctions, also in the links to them."""

    def change(root):
        names = {"id": root.findall(kind)}
        entries = [*root.findall("road/link/predecessor"), *root.findall("road/link/successor")]
        names["elementId"] = [entry for entry in entries if entry.get("elementType") == kind]
        if kind == "road":
            names["incomingRoad"] = names["connectingRoad"] = root.findall("junction/connection")
        else:
            names["junction"] = root.findall("road")
        for name, elements in names.items():
            for element in elements:
                element.set(name, new_ids.get(element.get(name), element.get(name)))

    return change


def without_roads(root):
    for road in root.findall("road"):
        root.remove(road)


def with_controller(root):
    controller = ElementTree.SubElement(root, "controller", id="5")
    ElementTree.SubElement(controller, "control", signalId="77")
    ElementTree.SubElement(controller, "control")


FAULTS = {
    "no header": (without("header"), "header"),
    "another major version": (with_value("header", "revMajor", "2"), "revMajor='1'"),
    "no roads": (without_roads, "no <road>"),
    "a second road of the same number": (with_value("road[2]", "id", "0"), "same id"),
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
    "a bend without a curvature": (lambda root: root.find(".//arc").attrib.clear(), "curvature=None"),
    "a bend of no curvature": (with_value(".//arc", "curvature", "0"), "curvature='0'"),
    "a spiral of no curvature": (with_shape("spiral", curvStart="0", curvEnd="0.0"), "<spiral>.*of 0"),
    "half a spiral": (with_shape("spiral", curvStart="0"), "curvEnd=None"),
    "a curve that is no number": (with_shape("paramPoly3", bU="wide"), "paramPoly3 bU='wide'"),
    "coordinates of a whole country": (with_value("road/planView/geometry", "y", "5400000"), "y=5400000"),
    "roads with names for their numbers": (renamed("road", {"1": "road_1"}), "road road_1.*id='road_1'.* for '0'"),
    "roads of 33 bits": (renamed("road", {"1": "4294967295", "2": "4294967296"}), "id='4294967296'"),
    "a negative road": (renamed("road", {"1": "-5"}), "id='0'.* for '-5'"),
    "a hexadecimal road": (renamed("road", {"1": "0x2"}), "id='2'.* for '0x2'"),
    "a road 02": (with_value("road[2]", "id", "02"), "the same id"),
    "a junction with a name for its number": (renamed("junction", {"100": "J1"}), "link to junction 'J1'.* road"),
    "a junction with the number of a road": (renamed("junction", {"100": "03"}), "link to junction '03'.* road"),
    "a negative junction": (renamed("junction", {"100": "-2"}), "link to junction '-2'.* road"),
    "a junction of 32 bits": (renamed("junction", {"100": "2147483648"}), "'2147483648'.* does not find"),
    "the junction that no road is in": (
        lambda root: ElementTree.SubElement(ElementTree.SubElement(root, "junction", id="-1"), "controller"),
        "junction -1.* for 'no junction'"),
    "roads in two named junctions": (lambda root: (root.find("road[@junction='100']").set("junction", "J1"),
        root.find("road[@junction='100']").set("junction", "J2")), "junction J2.* for 'J1'"),
    "a link without an id": (lambda root: root.find("road/link/successor").attrib.pop("elementId"),
        "link to road None"),
    "an arc of a tiny curvature": (with_value(".//arc", "curvature", "-9e-7"), "curvature='-9e-7'"),
    "a spiral of almost one curvature": (
        with_shape("spiral", curvStart="0.001", curvEnd="0.0010000000000000013"), "<spiral>.*of 0.001 and"),
    "a controller of no signal": (lambda root: (with_controller(root), ElementTree.SubElement(
        root.find("junction"), "controller", id="5")), "<controller> of signal '77'"),
    "a reference to no signal": (lambda root: ElementTree.SubElement(
        ElementTree.SubElement(root.find("road"), "signals"), "signalReference", id="77"), "Reference> of signal '77'"),
    "a lane of no number": (with_value("road/lanes/laneSection/right/lane", "id", "x"), "id='x'"),
    "a lane of no width": (with_value("road/lanes/laneSection/right/lane/width", "a", "wide"), "a='wide'"),
    "a link to nowhere": (with_value("road/link/successor", "elementId", "77"), "link to road '77'"),
    "a junction of nowhere": (with_value("junction/connection", "incomingRoad", "77"), "incomingRoad='77'"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_an_error_in_a_map_is_named(name):
    change, message = FAULTS[name]
    root = ElementTree.fromstring(to_opendrive(load_map("junction_0")).encode())
    change(root)
    with pytest.raises(ValueError, match=rf"a\.xodr.*{message}.*expected.*; "):
        check_opendrive(ElementTree.tostring(root, encoding="unicode"), "a.xodr")


UNUSUAL = {
    "a controller of no signal that no junction names": with_controller,
    "polynomials without all coefficients": with_shape("paramPoly3", bU="1", pRange="arcLength"),
    "a polynomial without coefficients": with_shape("poly3"),
    "a road in the junction ''": with_value("road", "junction", ""),
    "a road in the junction ' -1'": with_value("road", "junction", " -1"),
    "a road in the junction ' 100'": with_value("road[@junction='100']", "junction", " 100"),
    "one road with a name": renamed("road", {"0": "main"}),
    "roads with zeros before their numbers": lambda root: root.find("road[@id='1']").set("id", "0000000000001"),
    "a negative road": renamed("road", {"0": "-3"}),
    "a road of 33 bits": renamed("road", {"0": "4294967296"}),
    "a road in a named junction": with_value("road[@junction='100']", "junction", "J1"),
    "a road in a negative junction": with_value("road[@junction='100']", "junction", "-2"),
    "a junction 0077": renamed("junction", {"100": "0077"}),
    "a junction of 31 bits": renamed("junction", {"100": "2147483647"}),
    "an unused junction with a name": lambda root: ElementTree.SubElement(root, "junction", id="-1"),
    "an unused junction without an id": lambda root: ElementTree.SubElement(root, "junction"),
    "an arc of a small curvature": with_shape("arc", curvature="1.1e-6"),
    "a spiral from a tiny curvature": with_shape("spiral", curvStart="0", curvEnd="1e-30"),
    "a spiral of little change": with_shape("spiral", curvStart="0", curvEnd="1e-9"),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_an_unusual_map_is_accepted(name, file_of):
    check_opendrive(file_of("junction_0", UNUSUAL[name]).read_text(), "a.xodr")


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
def test_a_text_that_is_not_a_map_is_refused(text, message):
    with pytest.raises(ValueError, match=rf"a\.xodr: got .*{message}"):
        check_opendrive(text, "a.xodr")


NAMESPACES = {
    "default": lambda text: text.replace("<OpenDRIVE>", "<OpenDRIVE x='1' xmlns='http://code.asam.net/x'>"),
    "after a comment": lambda text: text.replace(
        "<OpenDRIVE>", "<!-- <OpenDRIVE xmlns='a'> -->\n<OpenDRIVE\n xmlns = 'http://code.asam.net/x'>"
    ),
    "prefix": lambda text: re.sub(r"(</?)(\w)", r"\1od:\2", text).replace(
        "<od:OpenDRIVE>", "<od:OpenDRIVE xmlns:od='http://code.asam.net/x'>"
    ),
    "unused": lambda text: text.replace("<OpenDRIVE>", "<OpenDRIVE xmlns:xsi='http://www.w3.org/2001/XMLSchema'>"),
}


@pytest.mark.parametrize("name", NAMESPACES)
def test_a_namespace_is_accepted(name):
    text = NAMESPACES[name](to_opendrive(load_map("junction_0")))
    assert "xmlns" in text
    check_opendrive(text, "a.xodr")


def test_elements_of_other_namespaces_are_ignored():
    text = NAMESPACES["prefix"](to_opendrive(load_map("junction_0")))
    text = text.replace("<od:header", "<v:road xmlns:v='http://vendor'/><od:header")
    check_opendrive(text, "a.xodr")


def with_shift(metres):
    def change(root):
        for geometry in root.iter("geometry"):
            geometry.set("x", str(float(geometry.get("x")) + metres))

    return change


@pytest.mark.parametrize(("shift_m", "n_warnings"), [(9e4, 0), (7e5, 1)])
def test_a_map_far_from_its_origin_gives_a_warning(shift_m, n_warnings, file_of, caplog):
    check_opendrive(file_of("junction_0", with_shift(shift_m)).read_text(), "a.xodr")
    assert caplog.text.count("km from the origin") == n_warnings


def test_half_a_document_is_refused():
    text = to_opendrive(load_map("train_0"))
    with pytest.raises(ValueError, match="broken XML"):
        check_opendrive(text[: len(text) // 2], "a.xodr")


# Files, which CARLA's client reads

carla = pytest.mark.carla


@pytest.fixture
def file_of(tmp_path):
    """Write a built-in map as a file, changed by a function of its root element."""

    def write(name, change=lambda root: None):
        root = ElementTree.fromstring(to_opendrive(load_map(name)).encode())
        change(root)
        path = tmp_path / f"{name}.xodr"
        path.write_text(ElementTree.tostring(root, encoding="unicode"))
        return path

    return write


@carla
@needs_carla
@pytest.mark.parametrize("name", ["train_0", "held_out_1", "junction_0", "junction_1", "three_lanes_0"])
def test_an_exported_map_comes_back_as_the_same_route(name, file_of):
    built, read = load_map(name).track, load_opendrive(file_of(name)).track
    assert read.length_m == pytest.approx(built.length_m, abs=0.1)
    near = 0
    for x, y in read.points_m:
        near = built.locate(x, y, near).nearest
        assert abs(built.locate(x, y, near).lateral_offset_m) < 0.01
    # The same way round: the next point lies ahead.
    ahead = built.locate(*read.points_m[10], 0).along_m - built.locate(*read.points_m[0], 0).along_m
    assert ahead % built.length_m == pytest.approx(5.0, abs=0.1)
    assert (read.lane_width_m, read.left_line_m, read.right_line_m) == pytest.approx(
        (3.5, built.left_line_m, built.right_line_m)
    )
    assert [mark.kind for mark in read.marks] == [mark.kind for mark in built.marks]
    assert [mark.offset_m for mark in read.marks] == pytest.approx([mark.offset_m for mark in built.marks])
    assert read.oncoming_lane_m == pytest.approx(built.oncoming_lane_m)
    assert (read.in_junction is None) == (built.in_junction is None)
    assert built.in_junction is None or abs(int(read.in_junction.sum()) - int(built.in_junction.sum())) <= 2


def with_sections(*starts_m):
    """Return a change of a map: in each road, copies of the lane section begin at these distances."""

    def change(root):
        for lanes in root.findall("road/lanes"):
            for start_m in starts_m:
                section = copy.deepcopy(lanes[0])
                section.set("s", str(start_m))
                lanes.append(section)

    return change


@carla
@needs_carla
# A section of 0.3 m is shorter than the distance between two surveyed points.
@pytest.mark.parametrize("starts_m", [(10.0,), (4.0, 4.3, 10.1)])
def test_lane_sections_do_not_change_the_route(starts_m, file_of):
    whole = load_map("train_0").track
    path = file_of("train_0", with_sections(*starts_m))
    for track in (load_opendrive(path).track, read_route(path.read_text(), "train_0")):
        assert track.length_m == pytest.approx(whole.length_m, abs=0.1)
        near = 0
        for x, y in track.points_m:
            near = whole.locate(x, y, near).nearest
            assert abs(whole.locate(x, y, near).lateral_offset_m) < 0.01


@carla
@needs_carla
def test_the_route_on_a_ring_of_one_road_is_one_lap(file_of):
    def ring(root):
        for road in root.findall("road")[1:]:
            root.remove(road)
        road = root.find("road")
        plan = road.find("planView")
        plan[:] = plan[:1]
        length = str(80.0 * math.pi)
        plan[0].attrib.update(length=length, s="0")
        plan[0].remove(plan[0][0])
        ElementTree.SubElement(plan[0], "arc", curvature="0.025")
        road.set("length", length)
        for entry in road.find("link"):
            entry.set("elementId", road.get("id"))

    track = load_opendrive(file_of("train_0", ring)).track
    assert track.length_m == pytest.approx(2.0 * math.pi * (40.0 + track.lane_width_m / 2.0), abs=0.1)


@carla
@needs_carla
def test_a_warning_that_the_client_prints_does_not_mix_with_the_answer(file_of):
    def border(root):  # has no width
        ElementTree.SubElement(root.find("road/lanes/laneSection/right"), "lane", id="-2", type="border")

    track = load_opendrive(file_of("train_0", border)).track
    assert track.length_m == pytest.approx(load_map("train_0").track.length_m, abs=0.1)


@carla
@needs_carla
@pytest.mark.parametrize("name", UNUSUAL)
def test_the_client_reads_an_unusual_map(name, file_of):
    track, built = load_opendrive(file_of("junction_0", UNUSUAL[name])).track, load_map("junction_0").track
    assert track.length_m == pytest.approx(built.length_m, abs=0.1)


@carla
@needs_carla
@pytest.mark.parametrize("name", NAMESPACES)
def test_the_client_reads_a_map_with_a_namespace(name, file_of):
    path = file_of("junction_0")
    plain = read_route(path.read_text(), "a.xodr")
    path.write_text(NAMESPACES[name](path.read_text()))
    assert read_route(path.read_text(), "a.xodr").points_m.tobytes() == plain.points_m.tobytes()
    assert load_route_map(str(path)).graph.segments[0].points_m.shape[1] == 2


@carla
@needs_carla
def test_the_client_reads_a_map_far_from_its_origin(file_of):
    built = load_map("junction_0").track
    near = 0
    for x, y in load_opendrive(file_of("junction_0", with_shift(7e5))).track.points_m - (7e5, 0.0):
        place = built.locate(x, y, near)
        near = place.nearest
        assert abs(place.lateral_offset_m) < 0.1


@carla
@needs_carla
@pytest.mark.parametrize(
    "name",
    ["7", "main", "-3", "007", "0x10", "0xg", "x5", " 12 ", "12abc", "+5", "4294967296", "9" * 40, "1.5", "\u0661"],
)
def test_ids_are_the_numbers_that_the_client_reads(name, file_of):
    def alone(root):
        for road in root.findall("road")[1:]:
            root.remove(road)
        road = root.find("road")
        road.remove(road.find("link"))
        road.set("id", name)

    text = file_of("train_0", alone).read_text()
    assert {key[0] for key in (segment.key for segment in read_graph(text, name).segments)} == {client_number(name)}


@carla
@needs_carla
def test_a_shape_for_which_the_client_computes_no_number_is_refused(file_of):
    zeros = dict.fromkeys(("aU", "bU", "cU", "dU", "aV", "bV", "cV", "dV"), "0")
    with pytest.raises(ValueError, match=r"train_0\.xodr: got .* computes as NaN, expected finite numbers"):
        load_opendrive(file_of("train_0", with_shape("paramPoly3", **zeros)))


@carla
@needs_carla
def test_the_ground_of_a_file_shows_the_marks_of_its_roads(file_of):
    scene, built = load_opendrive(file_of("junction_0")), load_map("junction_0")
    texels = scene.ground.from_world(0)
    for road in built.network.roads:
        for border in range(-road.n_right, road.n_left + 1):
            line = road.line_m(built.network.border_m(border), 0.5)
            column, row = (np.c_[line, np.ones(len(line))] @ texels.T)[:, :2].round().astype(int).T
            greys = scene.ground.levels[0][row, column].astype(int)
            if road.mark(border) == "solid":
                assert greys.min() > 140, f"border {border} of road {road.id}"
            elif road.mark(border) == "broken":
                assert 0.35 < (greys > 140).mean() < 0.65


@carla
@needs_carla
def test_marks_within_a_junction_are_not_painted(file_of):
    def mark(root):
        for element in root.iter("roadMark"):
            element.attrib.update(type="solid", width="0.2")

    scene, built = load_opendrive(file_of("junction_1", mark)), load_map("junction_1").track
    inside = np.flatnonzero(built.in_junction)[3:-3]
    places = built.offset_line_m(built.left_line_m - 3.5)[inside]
    column, row = (np.c_[places, np.ones(len(places))] @ scene.ground.from_world(0).T)[:, :2].round().astype(int).T
    assert scene.ground.levels[0][row, column].max() < 140
    assert [kind for _, kind in scene.track.marks] == ["solid"] * 3, "the road before it has them"


@carla
@needs_carla
def test_the_world_drives_on_a_file(file_of):
    path = str(file_of("train_6"))
    assert load_map(path) is load_map(path)
    world = LiteWorld()
    state = world.reset(Start(path, 0.2, 0.3, 0.0, 8.0))
    assert state.lateral_offset_m == pytest.approx(0.3, abs=0.01)
    assert world.step(Control(0.0, 0.2, 0.0), 20).distance_m > 5.0
    assert world.camera_frame().std() > 10.0


@carla
@needs_carla
def test_a_file_read_twice_gives_the_same_bytes(file_of):
    path = file_of("train_6")
    one, two = load_opendrive(path), load_opendrive(str(path))
    assert one.track.points_m.tobytes() == two.track.points_m.tobytes()
    assert one.ground.levels[0].tobytes() == two.ground.levels[0].tobytes()


@carla
@needs_carla
def test_a_changed_file_is_read_again_and_a_removed_file_stays_usable(file_of):
    path = file_of("train_6")
    former, former_route_map = load_map(str(path)), load_route_map(str(path))
    path.write_text(to_opendrive(load_map("junction_0")))
    scene, route_map = load_map(str(path)), load_route_map(str(path))
    for now, before in ((scene, former), (route_map, former_route_map)):
        assert now.name != before.name, "cameras use the name as a cache key"
        assert now.ground.levels[0].shape != before.ground.levels[0].shape
    assert scene.track.length_m == pytest.approx(load_map("junction_0").track.length_m, abs=0.1)
    path.unlink()
    assert load_map(str(path)) is scene
    assert load_route_map(str(path)) is route_map


@carla
@needs_carla
def test_former_versions_of_a_file_are_not_kept(file_of):
    path = file_of("train_6")
    former = [weakref.ref(load(str(path)).panorama) for load in (load_map, load_route_map)]
    path.write_text(path.read_text() + "\n")
    for load in (load_map, load_route_map):
        load(str(path))
    gc.collect()
    assert [panorama() for panorama in former] == [None, None]


@carla
@needs_carla
@pytest.mark.parametrize("has_goals", [False, True])
def test_a_world_keeps_its_map_if_the_file_changes(file_of, has_goals):
    path = file_of("streets_0")
    settings = {"routes": RouteSettings(kind="random") if has_goals else None, "street_life": StreetLife(n_walkers=2)}
    start = Start(str(path), 0.2, 0.0, 0.0, 0.0, route_seed=3 if has_goals else None)
    world = LiteWorld(**settings)
    world.reset(start)
    frame = world.camera_frame().tobytes()
    whole = path.read_text()
    for text in (whole[: len(whole) // 2], "", to_opendrive(load_map("streets_1"))):
        path.write_text(text)
        world.reset(start)
        assert world.camera_frame().tobytes() == frame
    new = LiteWorld(**settings)
    new.reset(start)
    assert new.camera_frame().tobytes() != frame


@carla
@needs_carla
def test_roads_without_a_loop_are_refused(file_of):
    def cut(root):
        for road in root.findall("road"):
            if road.get("id") != "1":
                root.remove(road)
        for link in root.findall("road/link"):
            link.clear()

    with pytest.raises(ValueError, match=r"no closed route.*loop of three roads"):
        load_opendrive(file_of("train_0", cut))


@carla
@needs_carla
def test_a_map_that_crashes_the_client_is_a_clear_error(file_of):
    def orphan(root):  # passes the check: nothing says that a road needs lanes on this side
        lanes = root.find("road/lanes/laneSection")
        lanes.remove(lanes.find("right"))

    with pytest.raises(ValueError, match=r"train_0\.xodr: CARLA's client cannot read the map \(exit -11"):
        load_opendrive(file_of("train_0", orphan))


def test_a_malformed_file_never_reaches_the_client(file_of, monkeypatch):
    def no_process(*args, **kwargs):
        raise AssertionError("the client was asked")

    monkeypatch.setattr(subprocess, "run", no_process)
    with pytest.raises(ValueError, match="planView"):
        load_opendrive(file_of("train_0", lambda root: root.find("road").remove(root.find("road/planView"))))


def test_without_carlas_client_the_error_says_how_to_install_it(file_of, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"needs CARLA's client: pip install carla=="):
        load_opendrive(file_of("train_0"))


def test_a_missing_or_binary_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no such file exists"):
        load_opendrive(tmp_path / "a.xodr")
    (tmp_path / "b.xodr").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not UTF-8"):
        load_opendrive(tmp_path / "b.xodr")


def test_a_client_that_takes_too_long_is_stopped(file_of, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(opendrive_reading, "_TIME_LIMIT_S", 0.001)
    with pytest.raises(ValueError, match="did not read the map in"):
        load_opendrive(file_of("train_0"))
