"""Traffic lights, signs and crosswalks of a map, and the cycle of the lights."""

import math

import numpy as np
import pytest

from sb3_visual_td3.envs.road.graph_cache import CACHE_VARIABLE
from sb3_visual_td3.envs.road.graph_reading import graph_from_network, read_graph
from sb3_visual_td3.envs.road.lane_graph import graph_from_arrays
from sb3_visual_td3.envs.road.light_cycle import GREEN_S, RED_S, YELLOW_S, LightCycles
from sb3_visual_td3.envs.road.maps import load_map
from sb3_visual_td3.envs.road.opendrive_writing import to_opendrive
from sb3_visual_td3.envs.road.road_signs import LIGHT_TYPE, RoadSigns, lights_of
from sb3_visual_td3.envs.road.sign_reading import (
    STOP_LINE_M,
    place_lights,
    signs_of_survey,
    speed_limits_mps,
    stop_bar_m,
)
from tests.towns import TOWNS, needs_carla, needs_towns

carla = pytest.mark.carla


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    read_graph.cache_clear()


def lit_graph(seed=0):
    graph = graph_from_network(load_map("streets_0").network)
    return graph, place_lights(graph, seed)


SIGNALS = """<signals>
    <signal id="900" name="light" s="1.0" t="-4" zOffset="0" hOffset="0" roll="0" pitch="0" orientation="+"
      dynamic="yes" country="OpenDRIVE" type="1000001" subtype="-1" value="-1" height="1" width="0.5">
      <validity fromLane="1" toLane="1"/></signal>
    <signal id="901" name="stop" s="2.0" t="4" zOffset="0" hOffset="0" roll="0" pitch="0" orientation="-"
      dynamic="no" country="OpenDRIVE" type="206" subtype="-1" value="-1" height="1" width="0.5">
      <validity fromLane="-1" toLane="-1"/></signal></signals>"""
CROSSWALK = """<objects><object id="7" name="Crosswalk" s="20" t="0" zOffset="0" hdg="0" roll="0" pitch="0"
    orientation="+" type="crosswalk" width="3" length="8"><outline>
    <cornerLocal u="-1.5" v="-4" z="0"/><cornerLocal u="1.5" v="-4" z="0"/><cornerLocal u="1.5" v="4" z="0"/>
    <cornerLocal u="-1.5" v="4" z="0"/><cornerLocal u="-1.5" v="-4" z="0"/></outline></object></objects>"""


def signed_text():
    """Return junction_0 with a light, a stop sign, a speed limit and a crosswalk on its road 0."""
    head, tail = to_opendrive(load_map("junction_0")).split("</road>", 1)
    text = f"{head}{CROSSWALK}{SIGNALS}</road>{tail}"
    assert '<speed max="50" unit="km/h"' in text
    text = text.replace('<speed max="50" unit="km/h"', '<speed max="25" unit="mph"', 1)
    return text.replace(
        "</OpenDRIVE>", '<controller id="5" name="c"><control signalId="900" type=""/></controller></OpenDRIVE>'
    )


@carla
@needs_carla
def test_signals_crosswalks_and_limits_of_a_file_are_read():
    graph = read_graph(signed_text(), "signed")
    by_id = {signal.id: signal for signal in graph.signs.signals}
    assert by_id["900"].is_light
    assert not by_id["901"].is_light
    (light_stop,) = by_id["900"].stops
    segment = graph.segments[light_stop.segment]
    assert segment.key == (0, 0, 1)
    # Lane 1 is driven against the road: s = 1 lies 1 m before its end.
    assert segment.length_m - light_stop.along_m == pytest.approx(1.0, abs=0.6)
    (sign_stop,) = by_id["901"].stops
    assert graph.segments[sign_stop.segment].key == (0, 0, -1)
    assert sign_stop.along_m == pytest.approx(2.0, abs=0.6)
    ((corners),) = graph.signs.crosswalks
    assert len(corners) == 4
    sides = sorted(math.dist(corners[i], corners[(i + 1) % 4]) for i in range(4))
    assert sides == pytest.approx([3.0, 3.0, 8.0, 8.0], abs=0.05)
    assert segment.speed_limit_mps == pytest.approx(25 * 0.44704)
    assert graph.segments[-1].speed_limit_mps == pytest.approx(50 / 3.6)
    # A light without a junction's controller is a cycle of its own.
    number = graph.signs.signals.index(by_id["900"])
    assert graph.signs.cycles == (((number,),),)


@carla
@needs_carla
def test_signs_are_kept_on_disk():
    first = read_graph(signed_text(), "signed")
    read_graph.cache_clear()
    second = read_graph(signed_text(), "signed")
    assert second is not first
    assert second.signs == first.signs
    assert [each.footway_m for each in second.segments] == [each.footway_m for each in first.segments]
    copy = graph_from_arrays(first.to_arrays())
    assert copy.signs == first.signs


@carla
@needs_carla
@needs_towns
def test_lights_of_town01_stop_the_lanes_before_their_junctions():
    graph = read_graph((TOWNS / "Town01.xodr").read_text(), "Town01")
    lights = [signal for signal in graph.signs.signals if signal.is_light]
    assert len(lights) == 36
    assert sorted(light for cycle in graph.signs.cycles for stage in cycle for light in stage) == sorted(
        number for number, signal in enumerate(graph.signs.signals) if signal.is_light
    )
    assert all(len(stages) == 3 for stages in graph.signs.cycles), "three arms take turns at each of the junctions"
    for light in lights:
        (stop,) = light.stops
        segment = graph.segments[stop.segment]
        assert segment.junction == -1
        assert all(graph.segments[after].junction >= 0 for after in segment.successors)
        assert segment.length_m - stop.along_m == pytest.approx(STOP_LINE_M)
        assert math.hypot(*(segment.points_m[-1] - (light.x_m, light.y_m))) < 6.0
    assert sum(segment.footway_m is not None for segment in graph.segments) > 50


def test_lights_are_placed_at_junctions_by_seed():
    graph, signs = lit_graph()
    assert signs == place_lights(graph, 0)
    assert signs != place_lights(graph, 1)
    assert signs.cycles
    for number, signal in enumerate(signs.signals):
        (stop,) = signal.stops
        segment = graph.segments[stop.segment]
        assert segment.junction == -1
        assert any(graph.segments[after].junction >= 0 for after in segment.successors)
        # The pole stands beyond the junction on no lane, where a vehicle before the stop line sees it.
        left, right = stop_bar_m(segment, stop.along_m)
        dx, dy = np.array((signal.x_m, signal.y_m)) - 0.5 * (left + right)
        cos, sin = math.cos(signal.yaw_rad), math.sin(signal.yaw_rad)
        ahead_m, left_m = dx * cos + dy * sin, dy * cos - dx * sin
        assert 8.0 < ahead_m < 40.0
        assert abs(left_m) < 0.7 * ahead_m
        for gap_m, place in graph.places_near(signal.x_m, signal.y_m, 5.0):
            assert gap_m > 0.5 * graph.segments[place.segment].width_m[0]
        assert math.dist(left, right) == pytest.approx(float(segment.width_m[-1]), abs=1e-6)
        assert sum(number in stage for stages in signs.cycles for stage in stages) == 1
    placed = graph_from_arrays({**graph.to_arrays(), "signs": np.array(signs.to_json())})
    assert place_lights(placed, 7) == signs, "a map with lights keeps its own"


def survey_of(lights):
    """Return an answer of CARLA's client with lights, each given by its id and the lanes to which it applies."""
    rows = []
    for name, places in lights.items():
        row = {"id": name, "type": LIGHT_TYPE, "value": -1.0, "x_m": 0.0, "y_m": 0.0, "z_m": 0.0, "yaw_rad": 0.0}
        rows.append({**row, "places": [(*place, 0.0, 0.0) for place in places]})
    return {"signals": rows, "crosswalks": []}


def crossing():
    """Return the lanes of streets_0, a lane before a crossroads, and the lanes from it to the left, ahead and right."""
    graph, signs = lit_graph()
    for signal in signs.signals:
        number = signal.stops[0].segment
        ways = sorted(graph.junction_ways(number), key=lambda way: -way.turn_rad)
        if [round(way.turn_rad / (0.5 * math.pi)) for way in ways] == [1, 0, -1]:
            return graph.segments, number, [way.segments[0] for way in ways]
    raise AssertionError("no crossroads with a light")


def test_an_arrow_stops_only_the_vehicles_that_follow_it():
    segments, number, (left, ahead, right) = crossing()
    answer = survey_of({"main": [segments[ahead].key], "arrow": [segments[left].key]})
    signs = signs_of_survey(answer, segments, "<OpenDRIVE/>")
    main, arrow = (signal.stops for signal in signs.signals)
    assert [(stop.segment, stop.ways) for stop in main] == [(number, tuple(sorted((ahead, right))))]
    assert [(stop.segment, stop.ways) for stop in arrow] == [(number, (left,))]
    assert RoadSigns.from_json(signs.to_json()) == signs
    lights = LightCycles(signs)
    lights.set_colour(0, "green")
    lights.set_colour(1, "red")
    along_m = segments[number].length_m - STOP_LINE_M
    assert lights.stop_ahead_m(number, way=[left]) == pytest.approx(along_m)
    assert lights.stop_ahead_m(number, way=[ahead]) is None
    assert lights.stop_ahead_m(number, way=[right]) is None
    assert lights.stop_ahead_m(number) == pytest.approx(along_m), "some way is closed"


@pytest.mark.parametrize("names", [["near"], ["near", "far"]])
def test_a_light_for_one_lane_of_the_junction_stops_all_lanes_without_a_light(names):
    segments, number, (_, ahead, _) = crossing()
    signs = signs_of_survey(survey_of({name: [segments[ahead].key] for name in names}), segments, "<OpenDRIVE/>")
    assert [[(stop.segment, stop.ways) for stop in signal.stops] for signal in signs.signals] == [
        [(number, ())] for _ in names
    ]


def test_a_stop_line_of_an_earlier_version_stops_all_vehicles():
    text = '[[["1", "1000001", -1.0, 0.0, 0.0, 0.0, 0.0, [[3, 20.5]]]], [], []]'
    (stop,) = RoadSigns.from_json(text).signals[0].stops
    assert stop == (3, 20.5, ())


def test_the_stages_of_a_junction_take_turns():
    _, signs = lit_graph()
    lights = LightCycles(signs)
    stages = signs.cycles[0]
    seen = []
    for _ in range(int((GREEN_S + YELLOW_S + RED_S) * len(stages) / 0.5)):
        colours = [lights.colours[stage[0]] for stage in stages]
        assert sum(colour != "red" for colour in colours) <= 1, "two arms that cross are never open at once"
        if not seen or seen[-1] != colours:
            seen.append(colours)
        lights.advance(0.5)
    greens = [colours.index("green") for colours in seen if "green" in colours]
    assert greens == list(range(len(stages)))
    assert len(seen) == 3 * len(stages), "each stage is green, then yellow, then all are red"


def test_the_stop_line_ahead_is_reported_at_red_and_yellow_but_not_at_green():
    graph, signs = lit_graph()
    lights = LightCycles(signs)
    open_light, closed_light = signs.cycles[0][0][0], signs.cycles[0][1][0]
    open_stop, closed_stop = signs.signals[open_light].stops[0], signs.signals[closed_light].stops[0]
    assert lights.stop_ahead_m(open_stop.segment) is None
    assert lights.stop_ahead_m(closed_stop.segment) == closed_stop.along_m
    assert lights.stop_ahead_m(closed_stop.segment, closed_stop.along_m + 0.1) is None, "a line behind does not count"
    lights.advance(GREEN_S)
    assert lights.colours[open_light] == "yellow"
    assert lights.stop_ahead_m(open_stop.segment) == open_stop.along_m
    without = next(number for number in range(len(graph.segments)) if not lights.lights_on(number))
    assert lights.stop_ahead_m(without) is None


def test_lights_are_set_frozen_and_reset():
    _, signs = lit_graph()
    lights = LightCycles(signs)
    first, second = signs.cycles[0][0][0], signs.cycles[0][1][0]
    lights.times_of(first).green_s = 1.0
    lights.freeze(True, first)
    lights.advance(50.0)
    assert lights.colours[first] == "green"
    assert lights.is_frozen(second), "the whole junction is frozen"
    assert not lights.is_frozen(signs.cycles[1][0][0])
    lights.freeze(False, first)
    lights.advance(1.0)
    assert lights.colours[first] == "yellow"
    lights.set_colour(second, "green")
    assert lights.colours[second] == "green"
    saved = lights.get_state()
    lights.reset()
    assert (lights.colours[first], lights.colours[second]) == ("green", "red")
    lights.set_state(saved)
    assert (lights.colours[first], lights.colours[second]) == ("yellow", "green")
    assert sorted(lights.group_of(first)) == sorted(light for stage in signs.cycles[0] for light in stage)


def test_the_limit_of_a_road_is_found_by_the_number_that_the_client_reads():
    road = "<road id='{}'><type><speed max='{}'/></type></road>"
    roads = [road.format("main", 10), road.format("07", 20), road.format("8", "no limit")]
    assert speed_limits_mps(f"<OpenDRIVE>{''.join(roads)}</OpenDRIVE>") == {0: 10.0, 7: 20.0}


def test_a_state_of_other_lights_is_refused():
    _, signs = lit_graph()
    state, n_lights = LightCycles(signs).get_state(), len(lights_of(signs))
    message = rf"saved with {n_lights} traffic lights at {len(signs.cycles)} junctions, but this world has 0 at 0: .*; "
    with pytest.raises(ValueError, match=message):
        LightCycles(RoadSigns()).set_state(state)
    # The same number of lights, one of them with another number.
    state["colours"][0][0] = 999
    lights = LightCycles(signs)
    with pytest.raises(ValueError, match=r"found other lights"):
        lights.set_state(state)
    assert 999 not in lights.colours
