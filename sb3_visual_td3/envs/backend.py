"""Define the interface between the driving task and a world, which is a simulator with one vehicle to drive.

The two worlds are ``envs.lite`` and CARLA. All quantities are in SI units.

Coordinates are right-handed: x and y in metres, yaw counter-clockwise from x, offsets positive to the LEFT. Only
steering is positive to the RIGHT, as in CARLA.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

MarkKind = Literal["solid", "broken"]
PictureView = Literal["front", "chase"]
CollidedWith = Literal["", "vehicle", "walker", "layout"]
Command = Literal["follow", "straight", "left", "right", "change_left", "change_right"]
"""A command on a route: follow the lane, go straight through a junction, turn at a junction, or change lanes."""

# The policy's camera is mounted at the same place in all worlds, so that a policy trained in one sees the same in
# another. Distances are measured forward from the vehicle's centre and upward from the ground.
CAMERA_AHEAD_M = 2.0
"""Distance of the policy's camera ahead of the vehicle's centre."""
CAMERA_HEIGHT_M = 1.5
"""Height of the policy's camera above the ground."""
CHASE_AHEAD_M = -8.0
"""Distance of the chase camera ahead of the vehicle's centre; negative, because this camera is behind the vehicle."""
CHASE_HEIGHT_M = 3.4
"""Height of the chase camera above the ground."""


class Control(NamedTuple):
    """Describe the driver's controls during a tick: steer in [-1, 1], +1 full right; throttle and brake in [0, 1]."""

    steer: float
    throttle: float
    brake: float


class Start(NamedTuple):
    """Describe the place and the motion with which an episode begins."""

    map_name: str
    position: float
    """Position along the lane as a fraction of its length, [0, 1)."""
    lateral_offset_m: float
    heading_error_rad: float
    speed_mps: float
    scene_seed: int = 0
    """Seed of the parts of the scene that vary: traffic, weather, noise."""
    route_seed: int | None = None
    """Seed of a random route, or index of a given route; None on a closed route. With a route seed, ``position`` is
    ignored."""


class BodySize(NamedTuple):
    """Describe the vehicle's outer size.

    The wheels are at its sides, half a wheelbase ahead of and behind its centre.
    """

    length_m: float
    width_m: float
    wheelbase_m: float


class LaneMark(NamedTuple):
    """Describe a painted line along the road."""

    offset_m: float
    """Distance from the centre of the vehicle's lane to the middle of the painted line, positive to the left."""
    kind: MarkKind


class VehicleState(NamedTuple):
    """Describe the vehicle after a tick, in the world and relative to the lane that it should keep."""

    x_m: float
    y_m: float
    yaw_rad: float
    speed_mps: float
    """Speed of the vehicle, >= 0; the direction of the motion does not matter."""
    lateral_offset_m: float
    """Distance of the vehicle's centre from the centre of its lane, positive to the left."""
    heading_error_rad: float
    """Yaw minus the direction of the lane, in [-pi, pi)."""
    distance_m: float
    """Signed distance along the lane since the reset."""
    lane_width_m: float
    road_left_m: float
    """Offset of the road's left outer line from the centre of the vehicle's lane, positive."""
    road_right_m: float
    """Offset of the road's right outer line from the centre of the vehicle's lane, negative."""
    marks: tuple[LaneMark, ...]
    """All marks of the road beside the vehicle; empty within a junction."""
    route_length_m: float
    """Length of the route; on a closed road, the length of one lap."""
    has_collided: bool = False
    """True if the vehicle has collided since the reset."""
    has_goal: bool = False
    """True on a route to a goal, False on a closed route. ``distance_m`` reaches ``route_length_m`` at the goal."""
    command: Command = "follow"
    """The next command on a route. It is given 50 m before the place where it applies."""
    command_distance_m: float = 0.0
    """Distance to the place where the command applies. For ``"follow"``: distance to the goal, limited to 50 m."""
    n_red_lights: int | None = None
    """Number of red lights that the vehicle has run since the reset; None in a world without traffic lights."""
    collided_with: CollidedWith = ""
    """What the vehicle has collided with; empty without a collision, or if the world does not report it."""
    stop_ahead_m: float = math.inf
    """Distance along the lane from the vehicle's centre to the nearest place where the vehicle must stop. This is the
    stop line of a red or yellow light, a pedestrian on the road, or a junction in which other cars cross the vehicle's
    way."""
    vehicle_ahead_m: float = math.inf
    """On a route, distance along the lanes from the vehicle's centre to the rear of the next car ahead."""
    vehicle_ahead_mps: float = 0.0
    """Speed of the next car ahead."""


class Backend(Protocol):
    """Define the methods of a world: a simulator with one vehicle to drive and one camera."""

    @property
    def map_groups(self) -> Mapping[str, Sequence[str]]:
        """Return the names of the maps, by group (``"train"``, ``"held_out"``)."""

    @property
    def map_file_suffix(self) -> str | None:
        """Return the suffix of map files that this world can read; None if this world reads no map files."""

    @property
    def map_name(self) -> str:
        """Return the name of the current map."""

    @property
    def body(self) -> BodySize:
        """Return the vehicle's outer size.

        The size is exact only after a reset.
        """

    @property
    def tick_s(self) -> float:
        """Return the length of one tick in seconds."""

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Return the shape of ``camera_frame()``: ``(height, width)`` in grey, ``(3, height, width)`` in colour."""

    @property
    def has_varying_scenes(self) -> bool:
        """Return True if ``Start.scene_seed`` changes the scene."""

    @property
    def has_routes(self) -> bool:
        """Return True if each episode follows a route to a goal, which ``Start.route_seed`` selects."""

    @property
    def state(self) -> VehicleState:
        """Return the current state of the vehicle."""

    def reset(self, start: Start) -> VehicleState:
        """Begin an episode at ``start``; the same start and the same controls give the same episode."""

    def step(self, control: Control, n_ticks: int) -> VehicleState:
        """Apply ``control`` during ``n_ticks`` ticks and return the resulting state."""

    def camera_frame(self) -> NDArray[np.uint8]:
        """Return the camera's view as a new ``uint8`` array of ``frame_shape``; a second call returns the same view."""

    def picture(self, height: int, width: int, view: PictureView = "front") -> NDArray[np.uint8]:
        """Return an image of the scene for human viewers, as a new array ``(height, width, 3) uint8``, RGB.

        :param height: height of the picture in pixels
        :param width: width of the picture in pixels
        :param view: ``"front"`` through the camera, ``"chase"`` from behind and above the vehicle
        """

    def waypoints_m(self, ahead_m: Sequence[float]) -> list[tuple[float, float]]:
        """Return points of the lane's centre, (x, y) in metres, at the distances ``ahead_m`` ahead of the vehicle."""

    def close(self) -> None:
        """Release the resources of the simulator."""


class RestorableBackend(Backend, Protocol):
    """Extend a world with methods that save and restore its state in the middle of an episode."""

    def get_state(self) -> dict[str, Any]:
        """Return everything that the rest of the episode depends on, as plain Python values and NumPy arrays."""

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that ``get_state`` returned in this world or in a world with the same settings."""
