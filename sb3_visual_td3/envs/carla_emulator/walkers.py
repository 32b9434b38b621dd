"""People on foot: they walk straight on, through anything, and cars hit them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sb3_visual_td3.envs.carla_emulator.actors import Actor
from sb3_visual_td3.envs.carla_emulator.records import STILL, Vector
from sb3_visual_td3.envs.road.collision import OrientedBox

_EXTENT_M = (0.19, 0.19, 0.93)
_TAG = bytes([12])


@dataclass(eq=False)
class Walker(Actor):
    """Somebody who stands, or walks in the direction of the last command."""

    def __post_init__(self) -> None:
        self.place = self.place._replace(z=_EXTENT_M[2])

    @property
    def extent_m(self) -> Vector:
        """Half of its size."""
        return _EXTENT_M

    @property
    def tags(self) -> bytes:
        """What the semantic camera takes it for."""
        return _TAG

    @property
    def box(self) -> OrientedBox:
        """What it takes up on the ground."""
        return OrientedBox(*self.world_place.pose, 2.0 * _EXTENT_M[0], 2.0 * _EXTENT_M[1])

    def push(self, velocity: Vector) -> None:
        """Let it walk with this velocity."""
        self.velocity = velocity

    def walk(self, direction: Vector, speed_mps: float) -> None:
        """Let it walk: the direction, which need not be a unit vector, is in the world's axes."""
        x, y, _ = direction
        length = math.hypot(x, y)
        self.velocity = (x / length * speed_mps, y / length * speed_mps, 0.0) if length > 0.0 else STILL

    def drive(self, dt_s: float) -> None:
        """Let a tick pass."""
        x, y, _ = self.velocity
        if x or y:
            yaw = math.degrees(math.atan2(y, x))
            self.place = self.place._replace(x=self.place.x + x * dt_s, y=self.place.y + y * dt_s, yaw=yaw)
