"""The seam between the task and a world: what every backend offers, in SI units.

Coordinates are right-handed: x and y in metres, yaw counter-clockwise from x, offsets positive to the LEFT.
The action alone follows the driver's (and CARLA's) convention: steering is positive to the RIGHT.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

MarkKind = Literal["solid", "broken"]
PictureView = Literal["front", "chase"]

CAMERA_AHEAD_M = 2.0
CAMERA_HEIGHT_M = 1.5
"""Where the policy's camera is mounted: ahead of the vehicle's centre and above the ground, the same in all worlds."""
CHASE_AHEAD_M = -8.0
CHASE_HEIGHT_M = 3.4
"""The same of the chase camera, which films the vehicle for people."""


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
    scene_seed: int = 0
    """Fixes all that varies about the scene: traffic, weather, noise."""


class BodySize(NamedTuple):
    """Outer size of the vehicle; its wheels stand at its flanks, half a wheelbase before and behind its centre."""

    length_m: float
    width_m: float
    wheelbase_m: float


class LaneMark(NamedTuple):
    """A line along the road."""

    offset_m: float
    """Of its middle from the centre of the own lane, positive to the left."""
    kind: MarkKind


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
    marks: tuple[LaneMark, ...]
    """Every mark of the road."""
    route_length_m: float
    """Length of the route; of a closed road: one lap."""
    has_collided: bool = False
    """Whether the vehicle has touched another since the reset."""


class Backend(Protocol):
    """A world with one vehicle and one camera."""

    @property
    def map_groups(self) -> Mapping[str, Sequence[str]]:
        """The names of the maps, by group (``"train"``, ``"held_out"``)."""

    @property
    def map_file_suffix(self) -> str | None:
        """How the names of files end that hold a map this world can read; None where it reads none."""

    @property
    def map_name(self) -> str:
        """The map that is driven on."""

    @property
    def body(self) -> BodySize:
        """Outer size of the vehicle; known for certain after a reset."""

    @property
    def tick_s(self) -> float:
        """Length of one tick in seconds."""

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of ``camera_frame()``: ``(height, width)`` in grey, ``(3, height, width)`` in colour."""

    @property
    def has_varying_scenes(self) -> bool:
        """Whether ``Start.scene_seed`` makes a difference."""

    @property
    def state(self) -> VehicleState:
        """The vehicle as it is now."""

    def reset(self, start: Start) -> VehicleState:
        """Place the vehicle; the same ``start`` gives the same episode for the same controls."""

    def step(self, control: Control, n_ticks: int) -> VehicleState:
        """Hold ``control`` for ``n_ticks`` ticks."""

    def camera_frame(self) -> NDArray[np.uint8]:
        """Return what the camera sees: ``uint8`` of ``frame_shape``, a new array; asking twice gives the same."""

    def picture(self, height: int, width: int, view: PictureView = "front") -> NDArray[np.uint8]:
        """Return the same scene for people: ``(height, width, 3) uint8``, RGB, a new array.

        :param view: ``"front"`` through the camera, ``"chase"`` from behind and above the vehicle.
        """

    def waypoints_m(self, ahead_m: Sequence[float]) -> list[tuple[float, float]]:
        """Return x and y of the lane's centre so many metres along the lane ahead of the vehicle."""

    def close(self) -> None:
        """Let go of what the world holds."""


class RestorableBackend(Backend, Protocol):
    """A world that can be put aside in the midst of an episode."""

    def get_state(self) -> dict[str, Any]:
        """Return all that the episode's future depends on: plain Python values and NumPy arrays."""

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from where ``get_state`` was called, in this or in a world made alike."""
