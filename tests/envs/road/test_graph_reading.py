"""Lane graphs of OpenDRIVE documents, and the cache on disk."""

import copy
import os
from xml.etree import ElementTree

import numpy as np
import pytest

from sb3_visual_td3.envs.road import graph_cache, graph_reading
from sb3_visual_td3.envs.road.graph_cache import CACHE_VARIABLE, cached_path, load_graph, store_graph
from sb3_visual_td3.envs.road.graph_reading import graph_from_network, read_graph
from sb3_visual_td3.envs.road.maps import load_map
from sb3_visual_td3.envs.road.opendrive_reading import read_opendrive
from sb3_visual_td3.envs.road.opendrive_writing import to_opendrive
from sb3_visual_td3.envs.road.sign_reading import place_lights
from tests.towns import TOWNS, needs_carla, needs_towns

carla = pytest.mark.carla
GRAPH = graph_from_network(load_map("streets_0").network)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    read_graph.cache_clear()
    return tmp_path / "cache"


@carla
@needs_carla
@pytest.mark.parametrize("name", ["train_0", "junction_0", "junction_1", "four_lanes_0"])
def test_an_exported_map_has_the_same_graph_as_its_roads(name):
    scene = load_map(name)
    built, read = graph_from_network(scene.network), read_graph(to_opendrive(scene), name)
    assert [segment.key for segment in built.segments] == [segment.key for segment in read.segments]
    for ours, theirs in zip(built.segments, read.segments, strict=True):
        assert (ours.successors, ours.left, ours.right) == (theirs.successors, theirs.left, theirs.right)
        assert ours.junction == theirs.junction
        assert theirs.length_m == pytest.approx(ours.length_m, abs=0.02 if ours.successors else 0.6)
        np.testing.assert_allclose(theirs.points_m[0], ours.points_m[0], atol=0.02)
        # Every surveyed point lies on our lane, at most 0.25 m along the lane from one of its points.
        for point in theirs.points_m:
            assert np.hypot(*(ours.points_m - point).T).min() < 0.27
        if ours.junction == -1:
            for one, two in zip(ours.marks[0].marks, theirs.marks[0].marks, strict=True):
                assert (two.kind, two.offset_m) == (one.kind, pytest.approx(one.offset_m, abs=1e-5))
            assert theirs.left_line_m == pytest.approx(ours.left_line_m[0], abs=1e-5)


@carla
@needs_carla
def test_a_map_that_was_read_before_is_loaded_from_the_disk_cache(monkeypatch):
    text = to_opendrive(load_map("junction_0"))
    first = read_graph(text, "a")
    read_graph.cache_clear()
    monkeypatch.setattr(graph_reading, "survey", lambda *_: pytest.fail("the map was read again"))
    second = read_graph(text, "a")
    assert [segment.marks for segment in first.segments] == [segment.marks for segment in second.segments]
    assert cached_path(text + " ") != cached_path(text), "another document has another file"


@carla
@needs_carla
def test_lanes_of_a_short_section_are_kept():
    root = ElementTree.fromstring(to_opendrive(load_map("train_0")))
    lanes = root.find("road/lanes")
    for start_m in ("4.1", "4.4"):
        lanes.append(copy.deepcopy(lanes[0]))
        lanes[-1].set("s", start_m)
    graph = read_graph(ElementTree.tostring(root, encoding="unicode"), "train_0")
    assert len(graph.segments) == 8 + 2 * 2
    assert all(segment.successors for segment in graph.segments)
    lengths_m = {segment.key: segment.length_m for segment in graph.segments}
    assert lengths_m[0, 1, -1] == pytest.approx(0.3, abs=0.01)
    assert sum(lengths_m.values()) == pytest.approx(
        sum(segment.length_m for segment in graph_from_network(load_map("train_0").network).segments), abs=0.1
    )


@carla
@needs_carla
def test_a_default_namespace_changes_nothing():
    text = to_opendrive(load_map("streets_0"), place_lights(GRAPH, 0), GRAPH.segments)
    plain = read_graph(text, "plain")
    other = read_graph(text.replace("<OpenDRIVE>", '<OpenDRIVE xmlns="http://code.asam.net/x">'), "other")
    assert plain.signs.cycles
    assert other.signs == plain.signs
    assert [each.speed_limit_mps for each in other.segments] == [each.speed_limit_mps for each in plain.segments]


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 cut off", None])
def test_a_damaged_cache_file_is_treated_like_a_missing_one(damage, caplog):
    text, graph = "<OpenDRIVE/>", graph_from_network(load_map("train_0").network)
    store_graph(text, graph)
    path = cached_path(text)
    assert len(load_graph(text).segments) == 8
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    assert load_graph(text) is None
    assert "is damaged" in caplog.text
    store_graph(text, graph)
    assert len(load_graph(text).segments) == 8


def test_no_altered_bit_of_a_cache_file_raises_an_error():
    text = "<OpenDRIVE/>"
    store_graph(text, graph_from_network(load_map("train_0").network))
    path = cached_path(text)
    whole = path.read_bytes()
    for place in np.random.default_rng(0).integers(8 * len(whole), size=300).tolist():
        altered = bytearray(whole)
        altered[place // 8] ^= 1 << place % 8
        path.write_bytes(altered)
        graph = load_graph(text)
        assert graph is None or len(graph.segments) == 8


def test_a_user_without_a_home_folder_has_no_cache(monkeypatch, caplog):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv(CACHE_VARIABLE)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(graph_cache.Path, "home", no_home)
    store_graph("x", graph_from_network(load_map("train_0").network))
    assert load_graph("x") is None
    assert "are not cached" in caplog.text


def test_a_file_with_a_pickle_is_not_executed(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    path = cached_path("x")
    path.parent.mkdir()
    np.savez(path, keys=np.array([Bomb()], dtype=object))
    assert load_graph("x") is None
    assert not (tmp_path / "exploded").exists()


def test_nothing_is_kept_if_the_cache_is_off(monkeypatch, tmp_path):
    monkeypatch.setenv(CACHE_VARIABLE, "off")
    monkeypatch.chdir(tmp_path)
    store_graph("x", graph_from_network(load_map("train_0").network))
    assert load_graph("x") is None
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_no_error(monkeypatch, tmp_path, caplog):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file" / "cache"))
    store_graph("x", graph_from_network(load_map("train_0").network))
    assert "cannot be written" in caplog.text


def test_a_stored_file_leaves_no_temporary_one_behind(cache):
    store_graph("x", graph_from_network(load_map("train_0").network))
    assert [path.suffix for path in cache.iterdir()] == [".npz"]


@carla
@needs_carla
@needs_towns
@pytest.mark.parametrize(
    ("name", "n_lanes"), [("Town01", 124), ("Town02", 88), ("Town07", 282), ("cubetown", 18), ("CulDeSac", 3)]
)
def test_a_town_becomes_a_graph(name, n_lanes):
    graph = read_graph(read_opendrive(TOWNS / f"{name}.xodr"), name)
    assert len(graph.segments) == n_lanes


@carla
@needs_carla
@needs_towns
def test_a_broken_file_is_refused_with_its_reason():
    with pytest.raises(ValueError, match="link to junction '10'"):
        read_graph(read_opendrive(TOWNS / "Issue295a.xodr"), "Issue295a")


def test_left_hand_traffic_raises_an_error_that_names_the_road():
    text = to_opendrive(load_map("train_0")).replace('<road name="road 2"', '<road rule="LHT" name="road 2"')
    with pytest.raises(ValueError, match=r"a\.xodr, road 2: got rule='LHT'"):
        read_graph(text, "a.xodr")
