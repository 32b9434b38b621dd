import math

import numpy as np
import pytest

from sb3_visual_td3.envs.road.network import SIDE_ROAD_M, crossed_network, loop_network
from sb3_visual_td3.envs.road.shapes import random_loop, rounded_polygon, total_length_m

SQUARE = rounded_polygon(np.array([(0.0, 0.0), (140.0, 0.0), (140.0, 140.0), (0.0, 140.0)]), np.full(4, 20.0))
"""Its first line runs from (20, 0) to (120, 0)."""


def networks():
    winding = random_loop(np.random.default_rng(3), is_clockwise=True, min_radius_m=17.0)
    return {
        "two lanes": loop_network(winding),
        "four lanes": loop_network(SQUARE, n_left=2, n_right=2),
        "crossing": crossed_network(SQUARE, sides=(1, -1)),
        "T": crossed_network(SQUARE, sides=(-1,)),
    }


NETWORKS = networks()


def lane_end(network, road, lane, end):
    """Return the pose at an end of a lane, in the direction of its traffic."""
    pose = (road.start if end == "start" else road.end).beside(network.centre_m(lane))
    return pose if lane < 0 else pose.reversed()


@pytest.mark.parametrize("name", NETWORKS)
def test_every_lane_continues_smoothly_on_the_linked_road(name):
    network = NETWORKS[name]
    n_checked = 0
    for road in network.roads:
        for end, neighbour in (("start", road.predecessor), ("end", road.successor)):
            if neighbour is None or neighbour.kind == "junction":
                continue
            for lane in road.lanes:
                beyond = lane if neighbour.lane is None else neighbour.lane
                here = lane_end(network, road, lane, end)
                there = lane_end(network, network.road(neighbour.id), beyond, neighbour.contact)
                assert there[:2] == pytest.approx(here[:2], abs=1e-9)
                assert math.remainder(there.heading_rad - here.heading_rad, 2.0 * math.pi) == pytest.approx(0, abs=1e-9)
                n_checked += 1
    assert n_checked == {"two lanes": 16, "four lanes": 32, "crossing": 12 + 24, "T": 12 + 12}[name]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_route_is_closed_and_keeps_the_rightmost_lane(name):
    network = NETWORKS[name]
    roads = [network.road(number) for number in network.route]
    for road, following in zip(roads, roads[1:] + roads[:1], strict=True):
        assert following.start[:2] == pytest.approx(road.end[:2], abs=1e-9)
        assert math.remainder(following.start.heading_rad - road.end.heading_rad, 2 * math.pi) == pytest.approx(0)
        assert -road.n_right == network.route_lane
    assert len([road for road in roads if road.junction is None]) >= 3, "CARLA's client needs three"


def test_the_roads_of_a_ring_together_form_the_loop():
    network = NETWORKS["four lanes"]
    assert sum(road.length_m for road in network.roads) == pytest.approx(total_length_m(SQUARE.pieces))
    assert [piece for road in network.roads for piece in road.pieces] == list(SQUARE.pieces)
    lengths = [road.length_m for road in network.roads]
    assert max(lengths) < 2.0 * min(lengths)


def test_lanes_and_marks_of_a_wide_road_are_where_they_belong():
    network = NETWORKS["four lanes"]
    road = network.roads[0]
    assert road.lanes == (2, 1, -1, -2)
    assert [network.centre_m(lane) for lane in road.lanes] == [5.25, 1.75, -1.75, -5.25]
    assert [network.border_m(lane) for lane in (2, 0, -2)] == [7.0, 0.0, -7.0]
    assert [road.mark(border) for border in (2, 1, 0, -1, -2)] == ["solid", "broken", "solid", "broken", "solid"]
    two_lanes = NETWORKS["two lanes"].roads[0]
    assert [two_lanes.mark(border) for border in (1, 0, -1)] == ["solid", "broken", "solid"]


def test_a_crossing_lies_in_the_middle_of_the_first_straight():
    network = NETWORKS["crossing"]
    ring = [network.road(number) for number in network.route]
    assert ring[0].start == pytest.approx((80.0, 0.0, 0.0))
    assert ring[-1].start == pytest.approx((60.0, 0.0, 2.0 * math.pi), abs=1e-9)
    assert (ring[-1].junction, ring[-1].length_m) == (network.junctions[0].id, 20.0)
    left, right = network.roads[4:6]
    assert left.start == pytest.approx((70.0, 10.0, math.pi / 2))
    assert right.end == pytest.approx((70.0, -10.0 - SIDE_ROAD_M, -math.pi / 2))


@pytest.mark.parametrize(("name", "n_arms"), [("crossing", 4), ("T", 3)])
def test_a_junction_leads_from_every_arm_to_every_other(name, n_arms):
    network = NETWORKS[name]
    (junction,) = network.junctions
    ways = [network.road(connection.connecting_road) for connection in junction.connections]
    pairs = {(way.predecessor.id, way.successor.id) for way in ways}
    assert len(ways) == len(pairs) == n_arms * (n_arms - 1)
    assert all(first != second for first, second in pairs)
    for way, connection in zip(ways, junction.connections, strict=True):
        assert way.junction == junction.id
        assert way.mark(0) == way.mark(-1) == "none"
        assert (way.predecessor.id, way.predecessor.lane) == (connection.incoming_road, connection.incoming_lane)
        assert way.length_m == pytest.approx(20.0) or way.length_m == pytest.approx(5.0 * math.pi)


def test_a_short_straight_gets_no_crossing():
    small = rounded_polygon(np.array([(0.0, 0.0), (70.0, 0.0), (70.0, 70.0), (0.0, 70.0)]), np.full(4, 20.0))
    assert crossed_network(small, sides=(1,)) is None


def test_a_side_road_that_would_run_into_the_loop_is_not_built():
    flat = rounded_polygon(np.array([(0.0, 0.0), (140.0, 0.0), (140.0, 60.0), (0.0, 60.0)]), np.full(4, 20.0))
    assert crossed_network(flat, sides=(1,)) is None
    assert crossed_network(flat, sides=(-1,)) is not None
