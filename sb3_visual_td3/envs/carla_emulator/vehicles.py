"""The emulator's cars: every vehicle drives as the embedded world's one car does."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from sb3_visual_td3.envs.backend import Control
from sb3_visual_td3.envs.carla_emulator.actors import Actor
from sb3_visual_td3.envs.carla_emulator.records import STILL, Transform, Vector, VehicleControl, velocity_of
from sb3_visual_td3.envs.lite.car_painter import CAR_HEIGHT_M, PAINTS
from sb3_visual_td3.envs.lite.vehicle import Motion, VehicleSettings, advance
from sb3_visual_td3.envs.road.carla_coordinates import Pose
from sb3_visual_td3.envs.road.collision import OrientedBox

CAR = VehicleSettings()
MASS_KG = 1_500.0
_TAG = bytes([14])
_EXTENT_M = (0.5 * CAR.length_m, 0.5 * CAR.width_m, 0.5 * CAR_HEIGHT_M)
_LOW_M = 2.0
_JUMP_MPS = 100.0
"""What seems to move faster was put somewhere else."""


@dataclass(eq=False)
class Vehicle(Actor):
    """A car; without physics it is where it was last put."""

    motion: Motion = field(default_factory=lambda: Motion(0.0, 0.0, 0.0, 0.0, 0.0))
    control: VehicleControl = field(default_factory=VehicleControl)
    has_physics: bool = True
    constant_mps: float | None = None
    """Forward speed that it keeps whatever its pedals say."""
    lights: int = 0
    physics: list[Any] | None = None
    """What a client has set for its engine and wheels, which changes nothing."""
    is_of_the_server: bool = False
    """Whether the emulator's own traffic drives it."""

    def __post_init__(self) -> None:
        self._asked: Vector | None = None
        self._backs = False
        self.put(self.place)
        self.before = self.motion
        """As it was one tick ago."""

    @property
    def extent_m(self) -> Vector:
        """Half of its size."""
        return _EXTENT_M

    @property
    def tags(self) -> bytes:
        """What the semantic camera takes it for."""
        return _TAG

    @property
    def pose(self) -> Pose:
        """Where it is, in the embedded world's coordinates."""
        return Pose(*self.motion[:3])

    @property
    def box(self) -> OrientedBox:
        """What it takes up on the ground."""
        return OrientedBox(*self.motion[:3], CAR.length_m, CAR.width_m)

    @cached_property
    def colour(self) -> tuple[int, int, int]:
        """Red, green and blue, 0 to 255."""
        red, green, blue = (int(part) for part in self.attributes.get("color", "225,225,220").split(",")[:3])
        return red, green, blue

    @cached_property
    def paint(self) -> int:
        """Which of the embedded world's paints comes closest to its colour."""
        colour = self.colour
        return min(range(len(PAINTS)), key=lambda n: sum((a - b) ** 2 for a, b in zip(PAINTS[n], colour, strict=True)))

    @property
    def altitude_m(self) -> float:
        """How high it hangs: on the ground as soon as it has physics, and where it was put low."""
        return self.place.z if not self.has_physics and self.place.z > _LOW_M else 0.0

    @property
    def is_on_ground(self) -> bool:
        """Whether others can touch it, and cameras see it."""
        return self.altitude_m == 0.0

    @property
    def world_place(self) -> Transform:
        """Where it is in the world."""
        return Transform.of_pose(self.pose, self.altitude_m)

    def put(self, place: Transform) -> None:
        """Put it there, its wheels straight; it keeps its speed."""
        self.place = place
        self.motion = Motion(*place.pose, self.motion.speed_mps, 0.0)

    def push(self, velocity: Vector) -> None:
        """Give it a velocity, with physics as far as that is along its heading."""
        if not self.has_physics:
            self._asked = velocity
            return
        x, y, _ = velocity
        speed = max(0.0, x * math.cos(self.motion.yaw_rad) - y * math.sin(self.motion.yaw_rad))
        self.motion, self._backs = self.motion._replace(speed_mps=speed), False
        self.velocity = velocity_of(self.pose, speed)

    def set_physics(self, enabled: bool) -> None:
        """Let it drive, or hold it where it is."""
        self.has_physics, self._asked = enabled, None
        if not enabled:
            self.stop()

    def drive(self, dt_s: float) -> None:
        """Let a tick pass."""
        before, velocity_before = self.before, self.velocity
        if self.has_physics:
            before = self.motion
            self.place = self.place._replace(z=0.0)
            self._drive_on(dt_s)
            self.velocity = velocity_of(self.pose, -self.motion.speed_mps if self._backs else self.motion.speed_mps)
            x, y, z = ((now - then) / dt_s for now, then in zip(self.velocity, velocity_before, strict=True))
            self.acceleration = (x, y, z)
        else:
            self.velocity = self._asked or _moved(before, self.motion, dt_s)
            self.acceleration = STILL
        self.turn_rad_s = math.remainder(self.motion.yaw_rad - before.yaw_rad, 2.0 * math.pi) / dt_s
        self.before = before if self.has_physics else self.motion

    def _drive_on(self, dt_s: float) -> None:
        control, constant_mps = self.control, self.constant_mps
        if constant_mps is not None:
            self._backs = False
            self.motion = advance(self.motion._replace(speed_mps=constant_mps), _pedals(control), dt_s, CAR)
            self.motion = self.motion._replace(speed_mps=constant_mps)
            return
        pedals = _pedals(control)
        if control.reverse != self._backs and self.motion.speed_mps > 0.0:
            # The engine pulls the other way: it brakes before it turns round.
            pedals = Control(pedals.steer, 0.0, max(pedals.brake, pedals.throttle))
        else:
            self._backs = control.reverse
        self.motion = (_reversed if self._backs else advance)(self.motion, pedals, dt_s, CAR)

    def stop(self) -> None:
        """Bring it to a stand."""
        self.motion = self.motion._replace(speed_mps=0.0)
        self.velocity = STILL

    def hold(self) -> None:
        """Bring it to a stand where it was one tick ago."""
        self.motion = self.before._replace(speed_mps=0.0)
        self.velocity = STILL


def _pedals(control: VehicleControl) -> Control:
    return Control(control.steer, control.throttle, max(control.brake, float(control.hand_brake)))


def _reversed(motion: Motion, pedals: Control, dt_s: float, settings: VehicleSettings) -> Motion:
    """Drive backwards: the embedded world's car never does, but seen in a mirror it goes ahead."""
    mirrored = motion._replace(yaw_rad=motion.yaw_rad + math.pi, wheel_rad=-motion.wheel_rad)
    after = advance(mirrored, pedals._replace(steer=-pedals.steer), dt_s, settings)
    return after._replace(yaw_rad=after.yaw_rad - math.pi, wheel_rad=-after.wheel_rad)


def _moved(before: Motion, after: Motion, dt_s: float) -> Vector:
    x, y = (after.x_m - before.x_m) / dt_s, -(after.y_m - before.y_m) / dt_s
    return (x, y, 0.0) if math.hypot(x, y) < _JUMP_MPS else STILL
