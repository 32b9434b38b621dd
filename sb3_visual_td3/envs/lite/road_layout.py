"""From a closed line to a network: cut into roads, given lanes, crossed by other roads."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from sb3_visual_td3.envs.lite.crossing import REACH_M, Arm, connect
from sb3_visual_td3.envs.lite.loop_shape import LoopShape
from sb3_visual_td3.envs.lite.road_network import Neighbour, Paint, Road, RoadNetwork
from sb3_visual_td3.envs.lite.road_pieces import Piece, Pose, joints, sample, total_length_m
from sb3_visual_td3.envs.lite.track import LANE_WIDTH_M

N_ROADS = 4
"""Roads that a loop is cut into; CARLA's client finds no way round a loop of fewer than three."""
APPROACH_M = 8.0
"""Straight road on either side of a crossing."""
SIDE_ROAD_M = 42.0
_CLEARANCE_M = 14.0


def loop_network(shape: LoopShape, *, n_left: int = 1, n_right: int = 1) -> RoadNetwork:
    """Return a ring of four roads; the route keeps the rightmost lane.

    The line between the directions is broken on a road of two lanes and solid on a wider one.

    :param n_left: lanes of the oncoming traffic, 1 or more.
    :param n_right: lanes in the direction of the route, 1 or more.
    """
    roads = _roads_along(shape.start, shape.pieces, n_left, n_right)
    ids = [road.id for road in roads]
    linked = [
        road._replace(
            predecessor=Neighbour("road", ids[i - 1], "end"),
            successor=Neighbour("road", ids[(i + 1) % len(ids)], "start"),
        )
        for i, road in enumerate(roads)
    ]
    return RoadNetwork(tuple(linked), (), tuple(ids), -n_right, LANE_WIDTH_M)


def crossed_network(shape: LoopShape, *, sides: Sequence[int]) -> RoadNetwork | None:
    """Return a ring of two-lane roads that is crossed in the middle of its longest line, or ``None`` without room.

    :param shape: a loop whose first line is at least ``2 * (REACH_M + APPROACH_M)`` long.
    :param sides: where side roads begin: 1 for the left, -1 for the right, or both.
    """
    line = shape.pieces[0]
    half_m = 0.5 * line.length_m - REACH_M
    if half_m < APPROACH_M:
        return None
    leave = shape.pieces[0].from_pose(shape.start, 0.5 * line.length_m + REACH_M)
    pieces = (Piece(half_m, 0.0), *shape.pieces[1:], Piece(half_m, 0.0))
    ring = _roads_along(leave, pieces, 1, 1)
    middle = line.from_pose(shape.start, 0.5 * line.length_m)
    side_roads = [_side_road(middle, side, len(ring) + i) for i, side in enumerate(sides)]
    if not all(_is_clear(road, shape) for road in side_roads):
        return None
    return _joined(ring, side_roads)


def _joined(ring: list[Road], side_roads: list[Road]) -> RoadNetwork:
    ids = [road.id for road in ring]
    number = 100
    crossing = Neighbour("junction", number)
    linked = [
        road._replace(
            predecessor=Neighbour("road", road.id - 1, "end") if road.id else crossing,
            successor=Neighbour("road", road.id + 1, "start") if road.id < ids[-1] else crossing,
        )
        for road in ring
    ]
    arms = [Arm(ids[-1], "end", ring[-1].end), Arm(ids[0], "start", ring[0].start.turned_back())]
    arms += [Arm(road.id, "start", road.start.turned_back()) for road in side_roads]
    junction, ways = connect(number, arms, first_road=number + 1)
    side_roads = [road._replace(predecessor=crossing) for road in side_roads]
    return RoadNetwork((*linked, *side_roads, *ways), (junction,), (*ids, ways[0].id), -1, LANE_WIDTH_M)


def _roads_along(start: Pose, pieces: Sequence[Piece], n_left: int, n_right: int) -> list[Road]:
    """Cut the line where pieces meet, into roads of about one length."""
    ends_m = np.cumsum([piece.length_m for piece in pieces])
    targets_m = total_length_m(pieces) * np.arange(1, N_ROADS) / N_ROADS
    cuts = [0, *(int(np.argmin(np.abs(ends_m - target))) + 1 for target in targets_m), len(pieces)]
    poses = joints(start, pieces)
    centre: Paint = "broken" if n_left + n_right == 2 else "solid"
    return [
        Road(i, poses[first], tuple(pieces[first:last]), n_left, n_right, centre)
        for i, (first, last) in enumerate(itertools.pairwise(cuts))
    ]


def _side_road(middle: Pose, side: int, number: int) -> Road:
    heading = math.remainder(middle.heading_rad + side * 0.5 * math.pi, 2.0 * math.pi)
    start = Piece(REACH_M, 0.0).from_pose(Pose(middle.x_m, middle.y_m, heading), REACH_M)
    return Road(number, start, (Piece(SIDE_ROAD_M, 0.0),), 1, 1, "broken")


def _is_clear(side_road: Road, shape: LoopShape) -> bool:
    """Return whether the side road's far part keeps away from the loop."""
    around = sample(shape.start, shape.pieces, np.arange(0.0, total_length_m(shape.pieces), 1.0))[:, :2]
    line = side_road.line_m(0.0, 1.0)
    line = line[round(_CLEARANCE_M) :]
    gaps = np.linalg.norm(line[:, None] - around[None], axis=2)
    return bool(gaps.min() >= _CLEARANCE_M)
