"""The seam between the task and a world: what every backend offers, in SI units.

Coordinates are right-handed: x and y in metres, yaw counter-clockwise from x, offsets positive to the LEFT.
The action alone follows the driver's (and CARLA's) convention: steering is positive to the RIGHT.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Control(NamedTuple):
    """What the driver does during a tick: steer in [-1, 1], +1 full right; throttle and brake in [0, 1]."""

    steer: float
    throttle: float
    brake: float


class Start(NamedTuple):
    """Where and how an episode begins."""

    map_name: str
    position: float
    """Fraction of the lane's length, [0, 1)."""
    lateral_offset_m: float
    heading_error_rad: float
    speed_mps: float


class BodySize(NamedTuple):
    """Outer size of the vehicle."""

    length_m: float
    width_m: float


class VehicleState(NamedTuple):
    """The vehicle after a tick, in the world and with respect to the lane it is to keep."""

    x_m: float
    y_m: float
    yaw_rad: float
    speed_mps: float
    lateral_offset_m: float
    """From the centre of the own lane, positive to the left."""
    heading_error_rad: float
    """Yaw less the direction of the lane, in [-pi, pi)."""
    distance_m: float
    """Signed metres along the lane since the reset."""
    lane_width_m: float
    road_left_m: float
    """Offset of the outer line to the left (positive)."""
    road_right_m: float
    """Offset of the outer line to the right (negative)."""


class Backend(Protocol):
    """A world with one vehicle and one camera."""

    @property
    def map_groups(self) -> Mapping[str, Sequence[str]]:
        """The names of the maps, by group (``"train"``, ``"held_out"``)."""

    @property
    def body(self) -> BodySize:
        """Outer size of the vehicle."""

    @property
    def tick_s(self) -> float:
        """Length of one tick in seconds."""

    @property
    def frame_shape(self) -> tuple[int, int]:
        """Height and width of ``camera_frame()`` in pixels."""

    def reset(self, start: Start) -> VehicleState:
        """Place the vehicle; the same ``start`` gives the same episode for the same controls."""

    def step(self, control: Control, n_ticks: int) -> VehicleState:
        """Hold ``control`` for ``n_ticks`` ticks."""

    def camera_frame(self) -> NDArray[np.uint8]:
        """Return what the camera sees: ``(height, width) uint8``, grey, a new array."""

    def picture(self, height: int, width: int) -> NDArray[np.uint8]:
        """Return the same scene for people: ``(height, width, 3) uint8``, RGB, a new array."""

    def close(self) -> None:
        """Let go of what the world holds."""
