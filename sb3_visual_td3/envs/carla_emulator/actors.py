"""What stands and moves in the emulator's world."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from sb3_visual_td3.envs.backend import Control
from sb3_visual_td3.envs.carla.convert import Pose
from sb3_visual_td3.envs.carla_emulator.records import Transform, VehicleControl
from sb3_visual_td3.envs.lite.car_painter import CAR_HEIGHT_M, PAINTS
from sb3_visual_td3.envs.lite.collision import OrientedBox
from sb3_visual_td3.envs.lite.vehicle import Motion, VehicleSettings, advance

CAR = VehicleSettings()
_WALKER_EXTENT_M = (0.19, 0.19, 0.93)
_CAR_TAG, _WALKER_TAG = 14, 12
_LOW_M = 2.0


@dataclass(eq=False)
class Actor:
    """One that is no vehicle: a sensor, a walker, the spectator."""

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

    @property
    def type_id(self) -> str:
        """CARLA's id of its kind."""
        return str(self.description[1])

    @property
    def attributes(self) -> dict[str, str]:
        """What the client asked for."""
        return {name: value for name, _, value in self.description[2]}

    @property
    def extent_m(self) -> tuple[float, float, float]:
        """Half of its size."""
        return _WALKER_EXTENT_M if self.type_id.startswith("walker.") else (0.0, 0.0, 0.0)

    @property
    def tags(self) -> bytes:
        """What the semantic camera takes it for."""
        return bytes([_WALKER_TAG]) if self.type_id.startswith("walker.") else b""

    @property
    def box(self) -> OrientedBox | None:
        """What it takes up on the ground; None: nothing."""
        if not self.type_id.startswith("walker."):
            return None
        pose = self.world_place.pose
        return OrientedBox(*pose, 2.0 * self.extent_m[0], 2.0 * self.extent_m[1])

    @property
    def world_place(self) -> Transform:
        """Where it is in the world."""
        return self.place if self.parent is None else carried(self.parent.world_place, self.place)

    def bounding_box(self) -> list[Any]:
        """Return the record of its box, in its own axes."""
        return [[0.0, 0.0, self.extent_m[2]], list(self.extent_m), [0.0, 0.0, 0.0], self.number]


@dataclass(eq=False)
class Vehicle(Actor):
    """A car that drives as the embedded world's does."""

    motion: Motion = field(default_factory=lambda: Motion(0.0, 0.0, 0.0, 0.0, 0.0))
    control: VehicleControl = field(default_factory=VehicleControl)
    has_physics: bool = True
    velocity_mps: float = 0.0
    """Along its heading; negative backwards."""
    acceleration_mps2: float = 0.0
    turn_rad_s: float = 0.0
    touching: set[int] = field(default_factory=set)
    """Numbers of those it touches."""

    def __post_init__(self) -> None:
        self.put(self.place)

    @property
    def extent_m(self) -> tuple[float, float, float]:
        """Half of its size."""
        return 0.5 * CAR.length_m, 0.5 * CAR.width_m, 0.5 * CAR_HEIGHT_M

    @property
    def tags(self) -> bytes:
        """What the semantic camera takes it for."""
        return bytes([_CAR_TAG])

    @property
    def pose(self) -> Pose:
        """Where it is, in the embedded world's coordinates."""
        return Pose(*self.motion[:3])

    @property
    def box(self) -> OrientedBox:
        """What it takes up on the ground."""
        return OrientedBox(*self.motion[:3], CAR.length_m, CAR.width_m)

    @property
    def paint(self) -> int:
        """Which of the embedded world's paints comes closest to its colour."""
        asked = [int(part) for part in self.attributes.get("color", "225,225,220").split(",")[:3]]
        return min(range(len(PAINTS)), key=lambda n: sum((a - b) ** 2 for a, b in zip(PAINTS[n], asked, strict=True)))

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
        """Put it there, its wheels straight."""
        self.place = place
        self.motion = Motion(*place.pose, self.motion.speed_mps, 0.0)

    def push(self, velocity: tuple[float, float, float]) -> None:
        """Give it a velocity, as far as that is along its heading."""
        x, y, _ = velocity
        speed = x * math.cos(self.motion.yaw_rad) - y * math.sin(self.motion.yaw_rad)
        self.motion = self.motion._replace(speed_mps=max(0.0, speed))
        self.velocity_mps = max(0.0, speed)

    def drive(self, dt_s: float) -> None:
        """Let a tick pass."""
        before = self.motion
        if self.has_physics:
            self.place = self.place._replace(z=0.0)
            throttle, steer, brake, hand_brake, reverse, *_ = self.control
            if reverse:  # the embedded world's car never rolls backwards: mirrored, it does
                mirrored = before._replace(yaw_rad=before.yaw_rad + math.pi, wheel_rad=-before.wheel_rad)
                after = advance(mirrored, Control(-steer, throttle, max(brake, float(hand_brake))), dt_s, CAR)
                self.motion = after._replace(yaw_rad=after.yaw_rad - math.pi, wheel_rad=-after.wheel_rad)
            else:
                self.motion = advance(before, Control(steer, throttle, max(brake, float(hand_brake))), dt_s, CAR)
            speed = -self.motion.speed_mps if reverse else self.motion.speed_mps
        else:
            speed = 0.0
        self.acceleration_mps2 = (speed - self.velocity_mps) / dt_s if self.has_physics else 0.0
        self.velocity_mps = speed
        self.turn_rad_s = math.remainder(self.motion.yaw_rad - before.yaw_rad, 2.0 * math.pi) / dt_s

    def stop(self) -> None:
        """Bring it to a stand."""
        self.motion = self.motion._replace(speed_mps=0.0)
        self.velocity_mps = 0.0


def carried(carrier: Transform, relative: Transform) -> Transform:
    """Return where something is in the world that is fixed to a carrier, which stands level.

    :param carrier: in the world.
    :param relative: forward, right and up from the carrier; its rotation adds to the carrier's.
    """
    yaw = math.radians(carrier.yaw)
    x = carrier.x + relative.x * math.cos(yaw) - relative.y * math.sin(yaw)
    y = carrier.y + relative.x * math.sin(yaw) + relative.y * math.cos(yaw)
    return Transform(x, y, carrier.z + relative.z, relative.pitch, carrier.yaw + relative.yaw, relative.roll)
