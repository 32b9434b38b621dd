"""What each kind of sensor makes of the world."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sb3_visual_td3.envs.carla_emulator import cameras, measurements, ray_sensors
from sb3_visual_td3.envs.carla_emulator.actors import Actor
from sb3_visual_td3.envs.carla_emulator.collisions import Hit
from sb3_visual_td3.envs.carla_emulator.protocol import packed
from sb3_visual_td3.envs.carla_emulator.records import COLLISION_SENSOR
from sb3_visual_td3.envs.lite.weather import Sky
from sb3_visual_td3.envs.road.maps import LiteMap

_KINDS = {"sensor.other.collision": COLLISION_SENSOR, **cameras.KINDS, **measurements.KINDS, **ray_sensors.KINDS}


class Scenery(NamedTuple):
    """The world in one frame."""

    scene: LiteMap
    sky: Sky | None
    """None: a clear day."""
    things: Sequence[Actor]
    """Vehicles and walkers."""
    hits: Sequence[Hit]
    step_s: float
    tick: int


def kind_of(type_id: str) -> int | None:
    """Return the number of a kind of sensor on the wire; None where the server measures nothing for it."""
    return _KINDS.get(type_id)


def body_of(sensor: Actor, scenery: Scenery, record: Callable[[Actor], list[Any]]) -> bytes | None:
    """Return what a sensor measures; None where it has nothing to say.

    :param sensor: any but a collision detector.
    :param scenery: the world.
    :param record: gives an actor as the client reads it.
    """
    if sensor.type_id in cameras.KINDS:
        return cameras.image_message(sensor, scenery.scene, scenery.sky, scenery.things, scenery.tick)
    if sensor.type_id in measurements.KINDS:
        return measurements.measurement(sensor)
    if sensor.type_id == ray_sensors.OBSTACLE:
        found = ray_sensors.obstacle(sensor, scenery.things)
        if found is None or sensor.parent is None:
            return None
        return packed([record(sensor.parent), record(found.actor), found.distance_m])
    return ray_sensors.points(sensor, scenery.things, scenery.step_s, scenery.tick)
