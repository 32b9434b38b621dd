"""Encode the vehicle's state and the command as vectors, which a policy can receive in addition to the images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.envs.backend import Command, VehicleState

WAYPOINTS_AHEAD_M = (5.0, 10.0, 15.0, 20.0)
"""Distances of the waypoints ahead of the vehicle, along the lane."""
STATE_SIZE = 3 + 2 * len(WAYPOINTS_AHEAD_M)
STATE_LIMIT = 2.0
"""All entries of the state vector are clipped to [-2, 2]; in ordinary driving they stay within [-1, 1]."""

# Each entry is divided by a typical largest value, so that all inputs of the network have about the same range.
SPEED_UNIT_MPS = 15.0
OFFSET_UNIT_M = 3.5
HEADING_UNIT_RAD = 0.5 * math.pi
WAYPOINT_UNIT_M = WAYPOINTS_AHEAD_M[-1]


COMMANDS: tuple[Command, ...] = get_args(Command)
"""The commands in the order of their entries in ``command_vector``."""
COMMAND_SIZE = len(COMMANDS) + 1
COMMAND_UNIT_M = 50.0


def command_vector(state: VehicleState) -> NDArray[np.float32]:
    """Return the next command on the route and the distance to it, ``(7,) float32`` in [0, 1].

    ======  ==========================================================================================
    entry   meaning
    ======  ==========================================================================================
    0 to 5  the command, one-hot: follow, straight, left, right, change left, change right
    6       distance to where the command applies, 1 for 50 m or more; 0 while it is carried out
    ======  ==========================================================================================

    The commands are those of conditional imitation learning (Codevilla et al. 2018, "End-to-end driving via conditional
    imitation learning", section 3), with lane changes. The command is "follow" until a junction or lane change is less
    than 50 m ahead.

    :param state: the current state of the vehicle
    """
    vector = np.zeros(COMMAND_SIZE, np.float32)
    vector[COMMANDS.index(state.command)] = 1.0
    vector[-1] = min(1.0, max(0.0, state.command_distance_m / COMMAND_UNIT_M))
    return vector


def vehicle_state_vector(state: VehicleState, waypoints_m: Sequence[tuple[float, float]]) -> NDArray[np.float32]:
    """Return speed, position in the lane and the next points of the lane, ``(11,) float32`` in [-2, 2].

    =======  =========================================================  ==========
    entry    meaning                                                    1 means
    =======  =========================================================  ==========
    0        speed                                                      15 m/s
    1        offset from the centre of the lane, to the left            3.5 m
    2        heading error, to the left                                 90 degrees
    3 to 10  coordinates (forward, left) of four points in the          20 m
             vehicle's own frame. The points lie on the lane's centre
             line, at the distances 5, 10, 15 and 20 m ahead.
    =======  =========================================================  ==========

    :param state: the current state of the vehicle
    :param waypoints_m: x and y in the world for each distance of ``WAYPOINTS_AHEAD_M``
    :raises ValueError: if there is not one waypoint for each distance
    """
    if len(waypoints_m) != len(WAYPOINTS_AHEAD_M):
        raise ValueError(
            f"waypoints_m has {len(waypoints_m)} points: expected {len(WAYPOINTS_AHEAD_M)}, one at each of "
            f"{WAYPOINTS_AHEAD_M} m; pass Backend.waypoints_m(WAYPOINTS_AHEAD_M)"
        )
    entries = [
        state.speed_mps / SPEED_UNIT_MPS,
        state.lateral_offset_m / OFFSET_UNIT_M,
        state.heading_error_rad / HEADING_UNIT_RAD,
    ]
    for x_m, y_m in waypoints_m:
        forward_m, left_m = to_vehicle_frame(state, x_m, y_m)
        entries += [forward_m / WAYPOINT_UNIT_M, left_m / WAYPOINT_UNIT_M]
    return np.clip(np.array(entries, np.float32), -STATE_LIMIT, STATE_LIMIT)


def to_vehicle_frame(state: VehicleState, x_m: float, y_m: float) -> tuple[float, float]:
    """Convert a place from world coordinates to distances ahead of the vehicle's centre and to its left, in metres.

    :param state: the current state of the vehicle
    :param x_m: x in the world
    :param y_m: y in the world
    """
    dx_m, dy_m = x_m - state.x_m, y_m - state.y_m
    cos_yaw, sin_yaw = math.cos(state.yaw_rad), math.sin(state.yaw_rad)
    # The rotation by -yaw, which turns the vehicle's direction (cos, sin) to (1, 0).
    return dx_m * cos_yaw + dy_m * sin_yaw, dy_m * cos_yaw - dx_m * sin_yaw
