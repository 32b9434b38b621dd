"""The actors of the emulated world: what all of them share, and the walkers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sb3_visual_td3.envs.carla_emulator.records import STILL, Transform, Vector
from sb3_visual_td3.envs.road.collision import OrientedBox


@dataclass(eq=False)
class Actor:
    """One that neither drives nor walks."""

    number: int
    description: list[Any]
    """As the client sent it: ``[uid, id, [[attribute, type, value]...]]``."""
    place: Transform
    """In the world, or relative to the parent."""
    parent: Actor | None = None
    stream_id: int | None = None
    port: int = 0
    next_s: float = 0.0
    """Of a sensor: when it measures next."""

    velocity = STILL
    acceleration = STILL
    turn_rad_s = 0.0
    """To the left."""

    @cached_property
    def type_id(self) -> str:
        """CARLA's id of its kind."""
        return str(self.description[1])

    @cached_property
    def attributes(self) -> dict[str, str]:
        """What the client asked for."""
        return {name: value for name, _, value in self.description[2]}

    def number_of(self, attribute: str, default: float) -> float:
        """Return what the client asked for, as a number."""
        return float(self.attributes.get(attribute, default))

    @property
    def extent_m(self) -> Vector:
        """Half of its size."""
        return STILL

    @property
    def tags(self) -> bytes:
        """What the semantic camera takes it for."""
        return b""

    @property
    def box(self) -> OrientedBox | None:
        """What it takes up on the ground; None: nothing."""
        return None

    @property
    def world_place(self) -> Transform:
        """Where it is in the world."""
        return self.place if self.parent is None else carried(self.parent.world_place, self.place)

    def put(self, place: Transform) -> None:
        """Put it somewhere in the world."""
        self.place, self.parent = place, None

    def push(self, velocity: Vector) -> None:
        """Do nothing: it does not move by itself."""

    def bounding_box(self) -> list[Any]:
        """Return the record of its box, in its own axes."""
        return [[0.0, 0.0, self.extent_m[2]], list(self.extent_m), [0.0, 0.0, 0.0], self.number]


def carried(carrier: Transform, relative: Transform) -> Transform:
    """Return where something is in the world that is fixed to a carrier, which stands level.

    :param carrier: in the world.
    :param relative: forward, right and up from the carrier; its rotation adds to the carrier's.
    """
    yaw = math.radians(carrier.yaw)
    x = carrier.x + relative.x * math.cos(yaw) - relative.y * math.sin(yaw)
    y = carrier.y + relative.x * math.sin(yaw) + relative.y * math.cos(yaw)
    return Transform(x, y, carrier.z + relative.z, relative.pitch, carrier.yaw + relative.yaw, relative.roll)


_EXTENT_M = (0.19, 0.19, 0.93)
_TAG = bytes([12])


@dataclass(eq=False)
class Walker(Actor):
    """A pedestrian, who stands or walks in the direction of the last command."""

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
