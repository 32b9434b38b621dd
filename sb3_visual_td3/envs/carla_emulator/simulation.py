"""The emulated world: its actors, its clock, its weather, and what happens at each tick."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence
from typing import Any

from sb3_visual_td3.envs.carla_emulator.actors import Actor, Walker
from sb3_visual_td3.envs.carla_emulator.blueprints import BLUEPRINTS
from sb3_visual_td3.envs.carla_emulator.city_traffic import CityTraffic
from sb3_visual_td3.envs.carla_emulator.collisions import Collisions, Hit
from sb3_visual_td3.envs.carla_emulator.faults import Fault, Trouble, check_fault
from sb3_visual_td3.envs.carla_emulator.maps import scene_of, spawn_points_of
from sb3_visual_td3.envs.carla_emulator.protocol import CallError, number_of, packed, shortened
from sb3_visual_td3.envs.carla_emulator.records import (
    COLLISION_SENSOR,
    WORLD_SENSOR,
    Transform,
    actor_state,
    sensor_header,
    token,
    vehicle_state,
    world_body,
)
from sb3_visual_td3.envs.carla_emulator.sensing import Scenery, body_of, kind_of
from sb3_visual_td3.envs.carla_emulator.streaming import StreamServer
from sb3_visual_td3.envs.carla_emulator.vehicles import Vehicle
from sb3_visual_td3.envs.lite.weather import Sky
from sb3_visual_td3.envs.road.collision import boxes_overlap

CLEAR_NOON = (10.0, 0.0, 0.0, 10.0, 250.0, 60.0, 0.0, 0.75, 0.1, 0.0, 0.03, 0.03, 0.0331, 0.0)
"""Cloudiness, precipitation, deposits, wind, azimuth and altitude of the sun, fog: density, distance, falloff; wetness,
scattering, Mie, Rayleigh, dust."""
_DAY_DEG = 15.0
_SEED = 0


def sky_of(weather: Sequence[float]) -> Sky | None:
    """Return the light of a weather; None where it is a clear day.

    :param weather: CARLA's parameters, in the order of ``CLEAR_NOON``.
    """
    cloudiness, precipitation, fog, sun_deg = weather[0], weather[1], weather[6], weather[5]
    day = min(1.0, max(0.0, sun_deg / _DAY_DEG))
    if day == 1.0 and precipitation <= 0.0 and fog <= 0.0 and cloudiness <= 50.0:
        return None
    gloom = 1.0 - 0.25 * max(precipitation, cloudiness) / 100.0
    ambient = (0.18 + 0.82 * day) * gloom
    haze_per_m = 0.02 * precipitation / 100.0 + 0.03 * fog / 100.0
    streaks = 0.5 * precipitation / 100.0
    return Sky(ambient, 1.1 * (1.0 - day), haze_per_m, 105.0 * day, ambient, streaks, _SEED)


WORLD_STREAM = 1
DEFAULT_STEP_S = 0.05
SPAWN_TAKEN = "Spawn failed because of collision at spawn position"
_HIGH_M = 5.0
"""What is spawned so far above the ground meets nobody there."""
_TIME_SLACK_S = 1e-6
_MAX_DEPTH = 16
_MAX_ATTRIBUTES = 100
_NUMBERS = {
    "sensor_tick": (0.0, 1e6),
    "image_size_x": (1, 8192),
    "image_size_y": (1, 8192),
    "fov": (0.01, 179.9),
    "channels": (1, 512),
    "points_per_second": (1, 1e7),
    "rotation_frequency": (0.0, 1e4),
    "range": (0.0, 1e6),
    "upper_fov": (-90.0, 90.0),
    "lower_fov": (-90.0, 90.0),
    "horizontal_fov": (0.01, 360.0),
    "vertical_fov": (0.01, 360.0),
    "atmosphere_attenuation_rate": (0.0, 1e3),
    "distance": (0.0, 1e6),
    "hit_radius": (0.0, 1e3),
}
"""Attributes of sensors that are worked with, and between which numbers they make sense."""
_WHOLE = {"image_size_x", "image_size_y", "channels"}
_MAX_PIXELS = 8192 * 4320


class Simulation:
    """One world, whose map can be changed.

    :param map_name: short name of the first map.
    :param streams: where measurements go.
    :param stream_port: where they are to be had.
    :param faults: what goes wrong at which tick.
    :param traffic: the server's own cars; None: there are none.
    """

    def __init__(
        self,
        map_name: str,
        streams: StreamServer,
        stream_port: int,
        faults: Sequence[Fault] = (),
        traffic: CityTraffic | None = None,
    ) -> None:
        self._streams, self._stream_port, self._faults = streams, stream_port, tuple(faults)
        self._traffic = CityTraffic(0, 0) if traffic is None else traffic
        self.trouble = Trouble()
        for fault in self._faults:
            check_fault(fault.kind, fault.amount)
            if fault.is_from_the_start:
                self.trouble.begin(fault.kind, fault.amount)
        self.frame = 0
        self.n_ticks = 0
        self.seconds = 0.0
        self.episode_id = 0
        self.is_synchronous = False
        self.step_s: float | None = None
        self.has_cameras_off = False
        self.n_clients = 0
        self.actors: dict[int, Actor] = {}
        self.complaints: list[str] = []
        """Lines for the console, which the server takes out."""
        self._numbers = itertools.count(1)  # never used twice: a handle of an earlier episode means nobody
        self.load(map_name, reset_settings=True)

    def load(self, map_name: str, *, reset_settings: bool) -> None:
        """Begin a new episode on a map, without the actors of the last."""
        self.scene = scene_of(map_name)
        for actor in self.actors.values():
            if actor.stream_id is not None:
                self._streams.end(actor.stream_id)
        self.map_name = map_name
        self._streams.keep(WORLD_STREAM, None)
        self.episode_id += 1
        self.actors = {}
        self._collisions = Collisions()
        self.weather: Sequence[float] = CLEAR_NOON
        if reset_settings:
            self.is_synchronous, self.step_s, self.has_cameras_off = False, None, False
        high = spawn_points_of(map_name)[0]._replace(z=20.0, pitch=-30.0)
        self.spectator = self._add(Actor(next(self._numbers), [0, "spectator", []], high))
        self._traffic.enter(self.scene.track, self._spawn_vehicle)

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

    def walker(self, number: int) -> Walker:
        """Return the walker of this number.

        :raises CallError: if there is none.
        """
        actor = self.actor(number)
        if not isinstance(actor, Walker):
            raise CallError(f"actor {number} ({actor.type_id}) is no walker")
        return actor

    def spawn(self, description: list[Any], place: Transform, parent_number: int | None = None) -> Actor:
        """Make an actor.

        :param description: ``[uid, id, attributes]`` as the client sent it.
        :param place: in the world, or relative to the parent.
        :param parent_number: of the actor that it is fixed to.
        :raises CallError: if it cannot be made.
        """
        type_id = _checked_type(description)
        if self.trouble.refuses_spawn():
            raise CallError(SPAWN_TAKEN)
        parent = None if parent_number is None else self.actor(parent_number)
        if parent is not None and _depth(parent) >= _MAX_DEPTH:
            raise CallError(f"Spawn failed: {_MAX_DEPTH} actors carry each other already")
        if type_id.startswith("vehicle."):
            return self._spawn_vehicle(description, place, parent)
        number = next(self._numbers)
        if type_id.startswith("walker."):
            return self._add(Walker(number, description, place, parent))
        stream_id = None if kind_of(type_id) is None else WORLD_STREAM + number
        return self._add(Actor(number, description, place, parent, stream_id, self._stream_port, self.seconds))

    def _spawn_vehicle(self, description: list[Any], place: Transform, parent: Actor | None = None) -> Vehicle:
        vehicle = Vehicle(next(self._numbers), description, place, parent)
        if place.z < _HIGH_M and any(
            boxes_overlap(vehicle.box, other.box) for other in self.vehicles if other.is_on_ground
        ):
            raise CallError(SPAWN_TAKEN)
        self.actors[vehicle.number] = vehicle
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
        if isinstance(actor, Vehicle):
            self._traffic.remove(actor)
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
                self.trouble.begin(fault.kind, fault.amount)
        self.trouble.wait()
        step_s = self.step_s or DEFAULT_STEP_S
        vehicles = self.vehicles
        self._traffic.advance(step_s, vehicles)
        moving = [actor for actor in self.actors.values() if isinstance(actor, Vehicle | Walker)]
        for actor in moving:
            actor.drive(step_s)
        self.frame += 1
        self.seconds += step_s
        hits = self._collisions.resolve(vehicles, moving)
        for hit in hits:
            if isinstance(hit.actor, Vehicle) and hit.actor.is_of_the_server:
                self._traffic.halt(hit.actor)
        state = self._world_state(step_s)
        self._streams.send(WORLD_STREAM, state)
        self._streams.keep(WORLD_STREAM, state)  # a client may tick before its subscription has arrived
        self._measure(Scenery(self.scene, sky_of(self.weather), moving, hits, step_s, self.n_ticks))
        return self.frame

    def _measure(self, scenery: Scenery) -> None:
        for sensor in tuple(self.actors.values()):
            if sensor.stream_id is None or not self._streams.has_subscriber(sensor.stream_id):
                continue
            kind = kind_of(sensor.type_id)
            assert kind is not None
            if kind == COLLISION_SENSOR:
                self._tell_collisions(sensor, scenery.hits)
                continue
            if self.seconds + _TIME_SLACK_S < sensor.next_s:
                continue
            sensor.next_s = self.seconds + sensor.number_of("sensor_tick", 0.0)
            is_camera = sensor.type_id.startswith("sensor.camera.")
            if is_camera and (self.has_cameras_off or self.trouble.drops_frame()):
                continue
            try:
                body = body_of(sensor, scenery, self.record)
            except Exception as error:  # what a client asked of one sensor ends no server
                self.complaints.append(f"{sensor.type_id} {sensor.number} measures no more: {shortened(error)}")
                self._streams.end(sensor.stream_id)
                sensor.stream_id = None
                continue
            if body is None:
                continue
            if is_camera:
                body = self.trouble.cut(body)
            self._send(sensor, kind, body)

    def _tell_collisions(self, sensor: Actor, hits: Sequence[Hit]) -> None:
        for hit in hits:
            if hit.actor is sensor.parent:
                body = packed([self.record(hit.actor), self.record(hit.other), list(hit.impulse)])
                self._send(sensor, COLLISION_SENSOR, body)

    def _send(self, sensor: Actor, kind: int, body: bytes) -> None:
        assert sensor.stream_id is not None
        self._streams.send(sensor.stream_id, sensor_header(kind, self.frame, self.seconds, sensor.world_place) + body)

    def _world_state(self, step_s: float) -> bytes:
        states = [_state_of(actor) for actor in self.actors.values()]
        header = sensor_header(WORLD_SENSOR, self.frame, self.seconds, Transform())
        return header + world_body(self.episode_id, time.time(), step_s, states)


def _checked_type(description: Any) -> str:
    """Return the id of what is to be spawned, when its description is one that can be worked with.

    What is wrong is refused here, where it is asked for: later, every tick would meet it.

    :raises CallError: if it is not.
    """
    match description:
        case [int(), str(type_id), [*attributes], *_] if len(attributes) <= _MAX_ATTRIBUTES:
            pass
        case _:
            raise CallError(f"invalid actor description {shortened(description)}")
    if type_id not in BLUEPRINTS:
        raise CallError(f"invalid actor description '{shortened(type_id).strip(chr(39))}'")
    n_pixels = 1.0
    for attribute in attributes:
        match attribute:
            case [str(name), int(), str(value), *_]:
                pass
            case _:
                raise CallError(f"{type_id}: {shortened(attribute)} is not an attribute")
        if name in _NUMBERS and type_id.startswith("sensor."):
            number = _checked_number(type_id, name, value)
            n_pixels *= number if name.startswith("image_size") else 1.0
        if name == "color":
            _check_colour(type_id, value)
    if n_pixels > _MAX_PIXELS:
        raise CallError(f"{type_id}: an image of {n_pixels:g} pixels is too large")
    return type_id


def _checked_number(type_id: str, name: str, value: str) -> float:
    low, high = _NUMBERS[name]
    try:
        number = number_of(float(value), high)
        is_fine = low <= number and (name not in _WHOLE or number == int(number))
    except (ValueError, CallError):
        is_fine = False
    if not is_fine:
        raise CallError(f"{type_id}: {name}={shortened(value)} is not a number between {low:g} and {high:g}")
    return number


def _check_colour(type_id: str, value: str) -> None:
    parts = value.split(",")
    if len(parts) < 3 or not all(part.strip().isascii() and part.strip().isdecimal() for part in parts[:3]):
        raise CallError(f"{type_id}: color={shortened(value)} is not three numbers such as '255,0,0'")


def _depth(actor: Actor) -> int:
    depth = 1
    while actor.parent is not None:
        depth, actor = depth + 1, actor.parent
    return depth


def _state_of(actor: Actor) -> bytes:
    more = vehicle_state(actor.control) if isinstance(actor, Vehicle) else b""
    turn_deg_s = -math.degrees(actor.turn_rad_s)
    return actor_state(actor.number, actor.world_place, actor.velocity, actor.acceleration, turn_deg_s, more)
