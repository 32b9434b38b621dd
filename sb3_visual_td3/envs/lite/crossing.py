"""A junction of roads that meet at right angles, every turn of it one arc."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from sb3_visual_td3.envs.lite.road_network import Connection, End, Junction, Neighbour, Road
from sb3_visual_td3.envs.lite.road_pieces import Piece, Pose

REACH_M = 10.0
"""From the middle of the crossing to where its arms begin; the radius of the turns' reference lines."""


class Arm(NamedTuple):
    """A road that ends at the crossing."""

    road: int
    contact: End
    """The end of the road that touches the crossing."""
    gate: Pose
    """Where it touches, facing the crossing's middle."""

    @property
    def lane_in(self) -> int:
        """The lane that leads into the crossing."""
        return -1 if self.contact == "end" else 1

    @property
    def lane_out(self) -> int:
        """The lane that leads away from it."""
        return -self.lane_in


def connect(number: int, arms: Sequence[Arm], first_road: int) -> tuple[Junction, tuple[Road, ...]]:
    """Return the junction of ``arms`` and a road of one lane for every way through it, but no U-turn.

    :param number: of the junction.
    :param arms: with gates ``REACH_M`` from one point, at right angles to each other.
    :param first_road: number of the first of the roads; the others count on.
    """
    roads: list[Road] = []
    connections = []
    for into in arms:
        for out in arms:
            if out is into:
                continue
            road = Road(
                id=first_road + len(roads),
                start=into.gate,
                pieces=(_way(into.gate, out.gate),),
                n_left=0,
                n_right=1,
                centre_mark="none",
                edge_mark="none",
                predecessor=Neighbour("road", into.road, into.contact, into.lane_in),
                successor=Neighbour("road", out.road, out.contact, out.lane_out),
                junction=number,
            )
            roads.append(road)
            connections.append(Connection(into.road, into.lane_in, road.id))
    return Junction(number, tuple(connections)), tuple(roads)


def _way(into: Pose, out: Pose) -> Piece:
    turn = math.remainder(out.heading_rad + math.pi - into.heading_rad, 2.0 * math.pi)
    if abs(turn) < 1e-6:
        return Piece(2.0 * REACH_M, 0.0)
    return Piece(0.5 * math.pi * REACH_M, math.copysign(1.0 / REACH_M, turn))
