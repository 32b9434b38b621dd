"""The emulator's world: actors, time, and who hears of what."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import Any

from sb3_visual_td3.envs.carla_emulator import cameras, measurements
from sb3_visual_td3.envs.carla_emulator.actors import Actor, Vehicle
from sb3_visual_td3.envs.carla_emulator.blueprints import BLUEPRINTS
from sb3_visual_td3.envs.carla_emulator.faults import Fault, Trouble
from sb3_visual_td3.envs.carla_emulator.maps import scene_of, spawn_points_of
from sb3_visual_td3.envs.carla_emulator.protocol import CallError, packed
from sb3_visual_td3.envs.carla_emulator.records import (
    COLLISION_SENSOR,
    WORLD_SENSOR,
    Transform,
    actor_state,
    sensor_header,
    token,
    vehicle_state,
    velocity_of,
    world_body,
)
from sb3_visual_td3.envs.carla_emulator.streaming import StreamServer
from sb3_visual_td3.envs.carla_emulator.weather import CLEAR_NOON, sky_of
from sb3_visual_td3.envs.lite.collision import boxes_overlap

WORLD_STREAM = 1
DEFAULT_STEP_S = 0.05
_MASS_KG = 1_500.0
_HIGH_M = 5.0
"""What is spawned so far above the ground meets nobody there."""
_TIME_SLACK_S = 1e-6


class Simulation:
    """One world, whose map can be changed.

    :param map_name: short name of the first map.
    :param streams: where measurements go.
    :param stream_port: where they are to be had.
    :param faults: what goes wrong at which tick.
    """

    def __init__(self, map_name: str, streams: StreamServer, stream_port: int, faults: Sequence[Fault] = ()) -> None:
        self._streams, self._stream_port, self._faults = streams, stream_port, tuple(faults)
        self.trouble = Trouble()
        self.frame = 0
        self.n_ticks = 0
        self.seconds = 0.0
        self.episode_id = 0
        self.is_synchronous = False
        self.step_s: float | None = None
        self.load(map_name, reset_settings=True)

    def load(self, map_name: str, *, reset_settings: bool) -> None:
        """Begin a new episode on a map, without any actors."""
        for actor in getattr(self, "actors", {}).values():
            if actor.stream_id is not None:
                self._streams.end(actor.stream_id)
        self.map_name = map_name
        self.episode_id += 1
        self.actors: dict[int, Actor] = {}
        self._numbers = itertools.count(1)
        self.weather: Sequence[float] = CLEAR_NOON
        self.scene = scene_of(map_name)
        if reset_settings:
            self.is_synchronous, self.step_s = False, None
        high = spawn_points_of(map_name)[0]._replace(z=20.0, pitch=-30.0)
        self.spectator = self._add(Actor(next(self._numbers), [0, "spectator", []], high))

    @property
    def vehicles(self) -> list[Vehicle]:
        """All cars."""
        return [actor for actor in self.actors.values() if isinstance(actor, Vehicle)]

    def actor(self, number: int) -> Actor:
        """Return the actor of this number.

        :raises CallError: if there is none.
        """
        if number not in self.actors:
            raise CallError(f"unable to find actor {number}: trying to operate on a destroyed actor")
        return self.actors[number]

    def vehicle(self, number: int) -> Vehicle:
        """Return the vehicle of this number.

        :raises CallError: if there is none.
        """
        actor = self.actor(number)
        if not isinstance(actor, Vehicle):
            raise CallError(f"actor {number} ({actor.type_id}) is no vehicle")
        return actor

    def spawn(self, description: list[Any], place: Transform, parent_number: int | None = None) -> Actor:
        """Make an actor.

        :param description: ``[uid, id, attributes]`` as the client sent it.
        :param place: in the world, or relative to the parent.
        :param parent_number: of the actor that it is fixed to.
        :raises CallError: if it cannot be made.
        """
        type_id = description[1]
        if type_id not in BLUEPRINTS:
            raise CallError(f"invalid actor description '{type_id}'")
        if self.trouble.refuses_spawn():
            raise CallError("Spawn failed because of collision at spawn position")
        parent = None if parent_number is None else self.actor(parent_number)
        number = next(self._numbers)
        if type_id.startswith("vehicle."):
            return self._add_vehicle(Vehicle(number, description, place, parent))
        has_stream = type_id.startswith("sensor.") and type_id != "sensor.other.lane_invasion"
        stream_id = WORLD_STREAM + number if has_stream else None
        return self._add(Actor(number, description, place, parent, stream_id, self._stream_port, self.seconds))

    def _add_vehicle(self, vehicle: Vehicle) -> Vehicle:
        boxes = [other.box for other in self.vehicles if other.is_on_ground]
        if vehicle.place.z < _HIGH_M and any(boxes_overlap(vehicle.box, box) for box in boxes):
            raise CallError("Spawn failed because of collision at spawn position")
        self._add(vehicle)
        return vehicle

    def _add(self, actor: Actor) -> Actor:
        self.actors[actor.number] = actor
        return actor

    def destroy(self, number: int) -> bool:
        """Remove an actor and return whether there was one; what is fixed to it stays where it is."""
        actor = self.actors.get(number)
        if actor is None or actor is self.spectator:
            return False
        for other in self.actors.values():
            if other.parent is actor:
                other.place, other.parent = other.world_place, None
        del self.actors[number]
        if actor.stream_id is not None:
            self._streams.end(actor.stream_id)
        return True

    def record(self, actor: Actor) -> list[Any]:
        """Return an actor as the client reads it."""
        stream = b"" if actor.stream_id is None else token(actor.stream_id, actor.port)
        parent = 0 if actor.parent is None else actor.parent.number
        return [actor.number, parent, actor.description, actor.bounding_box(), actor.tags, stream]

    def tick(self) -> int:
        """Let a tick pass, tell all who listen, and return the number of the frame."""
        self.n_ticks += 1
        for fault in self._faults:
            if fault.is_due(self.n_ticks):
                self.trouble.begin(fault.kind)
        self.trouble.wait()
        step_s = self.step_s or DEFAULT_STEP_S
        vehicles = self.vehicles
        for vehicle in vehicles:
            vehicle.drive(step_s)
        self.frame += 1
        self.seconds += step_s
        hits = self._collide(vehicles)
        self._streams.send(WORLD_STREAM, self._world_state(step_s))
        self._tell_collisions(hits)
        self._measure(vehicles)
        return self.frame

    def _collide(self, vehicles: Sequence[Vehicle]) -> list[tuple[Vehicle, Actor, float]]:
        """Stop those that touch; return who touches whom, and how fast."""
        hits: list[tuple[Vehicle, Actor, float]] = []
        solid = [each for each in self.actors.values() if each.box is not None]
        for vehicle in vehicles:
            if not vehicle.has_physics and vehicle.velocity_mps == 0.0:
                continue
            for other in solid:
                if other is vehicle or (isinstance(other, Vehicle) and not other.is_on_ground):
                    continue
                box = other.box
                assert box is not None
                if abs(box.x_m - vehicle.motion.x_m) + abs(box.y_m - vehicle.motion.y_m) > 10.0:
                    continue
                if vehicle.is_on_ground and boxes_overlap(vehicle.box, box):
                    hits.append((vehicle, other, vehicle.velocity_mps))
        for vehicle, other, speed_mps in tuple(hits):
            vehicle.stop()
            if isinstance(other, Vehicle) and not any(hit[0] is other for hit in hits):
                hits.append((other, vehicle, speed_mps))
        return hits

    def _tell_collisions(self, hits: Sequence[tuple[Vehicle, Actor, float]]) -> None:
        sensors = [each for each in self.actors.values() if each.type_id == "sensor.other.collision"]
        for vehicle, other, speed_mps in hits:
            for sensor in sensors:
                if sensor.parent is vehicle and self._is_heard(sensor):
                    impulse = [-_MASS_KG * part for part in velocity_of(vehicle.pose, speed_mps)]
                    body = packed([self.record(vehicle), self.record(other), impulse])
                    self._send(sensor, COLLISION_SENSOR, body)

    def _measure(self, vehicles: Sequence[Vehicle]) -> None:
        seen = [vehicle for vehicle in vehicles if vehicle.is_on_ground]
        sky = sky_of(self.weather)
        for sensor in tuple(self.actors.values()):
            kind = cameras.KINDS.get(sensor.type_id)
            if (kind is None and sensor.type_id not in measurements.KINDS) or not self._is_heard(sensor):
                continue
            if self.seconds + _TIME_SLACK_S < sensor.next_s:
                continue
            sensor.next_s = self.seconds + float(sensor.attributes.get("sensor_tick", 0.0))
            if kind is None:
                self._send(sensor, measurements.KINDS[sensor.type_id], measurements.measurement(sensor))
            elif not self.trouble.drops_frame():
                body = cameras.image_message(sensor, self.scene, sky, seen, self.n_ticks)
                self._send(sensor, kind, self.trouble.cut(body))

    def _is_heard(self, sensor: Actor) -> bool:
        return sensor.stream_id is not None and self._streams.has_subscriber(sensor.stream_id)

    def _send(self, sensor: Actor, kind: int, body: bytes) -> None:
        assert sensor.stream_id is not None
        self._streams.send(sensor.stream_id, sensor_header(kind, self.frame, self.seconds, sensor.world_place) + body)

    def _world_state(self, step_s: float) -> bytes:
        states = [_state_of(actor) for actor in self.actors.values()]
        header = sensor_header(WORLD_SENSOR, self.frame, self.seconds, Transform())
        return header + world_body(self.episode_id, time.time(), step_s, states)


def _state_of(actor: Actor) -> bytes:
    if not isinstance(actor, Vehicle):
        return actor_state(actor.number, actor.world_place)
    velocity = velocity_of(actor.pose, actor.velocity_mps)
    acceleration = velocity_of(actor.pose, actor.acceleration_mps2)
    turn_deg_s = -actor.turn_rad_s * 57.29577951308232
    return actor_state(
        actor.number, actor.world_place, velocity, acceleration, turn_deg_s, vehicle_state(actor.control)
    )
