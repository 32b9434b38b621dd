"""Who touches whom, and what that does to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sb3_visual_td3.envs.carla_emulator.actors import Actor
from sb3_visual_td3.envs.carla_emulator.records import Vector
from sb3_visual_td3.envs.carla_emulator.vehicles import MASS_KG, Vehicle
from sb3_visual_td3.envs.road.collision import boxes_overlap

_REACH_M = 4.8
"""The centres of two cars that touch are no farther apart."""


class Hit(NamedTuple):
    """One of the two events of a touch: the other has its own."""

    actor: Actor
    other: Actor
    impulse: Vector
    """What ``actor`` suffers, in kg m/s."""


class Collisions:
    """Finds the touches of each tick.

    Whoever drives into another stops: at first where it is; in the ticks that follow it comes no closer. So a car
    that pushes on sends an event each tick, and one that backs off is free.
    """

    def __init__(self) -> None:
        self._touching: set[tuple[int, int]] = set()

    def resolve(self, vehicles: Sequence[Vehicle], solid: Sequence[Actor]) -> list[Hit]:
        """Stop those that drive into another, and return the events of this tick.

        :param vehicles: all of them.
        :param solid: everything that can be touched, the vehicles among it.
        """
        touches = [
            (vehicle, other)
            for vehicle in vehicles
            if vehicle.is_on_ground and (vehicle.velocity[0] or vehicle.velocity[1])
            for other in solid
            if other is not vehicle and _overlap(vehicle, other)
        ]
        hits: dict[tuple[int, int], Hit] = {}
        for vehicle, other in touches:
            if not _closes_in(vehicle, other):
                continue
            x, y = (
                MASS_KG * (theirs - own) for own, theirs in zip(vehicle.velocity[:2], other.velocity[:2], strict=True)
            )
            pair = (vehicle.number, other.number)
            hits.setdefault(pair, Hit(vehicle, other, (x, y, 0.0)))
            hits.setdefault((other.number, vehicle.number), Hit(other, vehicle, (-x, -y, 0.0)))
        for vehicle, other in touches:
            if (vehicle.number, other.number) in hits and _closes_in(vehicle, other):
                if vehicle.has_physics and (vehicle.number, other.number) in self._touching:
                    vehicle.hold()
                else:
                    vehicle.stop()
        self._touching = {(vehicle.number, other.number) for vehicle, other in touches}
        return list(hits.values())


def _overlap(vehicle: Vehicle, other: Actor) -> bool:
    box = other.box
    if box is None or (isinstance(other, Vehicle) and not other.is_on_ground):
        return False
    if abs(box.x_m - vehicle.motion.x_m) > _REACH_M or abs(box.y_m - vehicle.motion.y_m) > _REACH_M:
        return False
    return boxes_overlap(vehicle.box, box)


def _closes_in(vehicle: Vehicle, other: Actor) -> bool:
    """Return whether a vehicle moves towards the middle of another."""
    box = other.box
    assert box is not None
    x, y, _ = vehicle.velocity
    return x * (box.x_m - vehicle.motion.x_m) - y * (box.y_m - vehicle.motion.y_m) > 0.0
