"""Simulate the emulated world: its actors, time, weather and traffic, tick by tick."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence
from typing import Any

from sb3_visual_td3.common.errors import show_traceback_if_debugging
from sb3_visual_td3.envs.carla_emulator.actors import Actor, Collisions, Hit, Prop, StoredState, Vehicle, Walker
from sb3_visual_td3.envs.carla_emulator.catalogue import check_description
from sb3_visual_td3.envs.carla_emulator.faults import ActiveFaults, Fault, check_fault
from sb3_visual_td3.envs.carla_emulator.navigation import navigation_name
from sb3_visual_td3.envs.carla_emulator.protocol import (
    COLLISION_SENSOR,
    SPEED_LIMIT_KMH,
    WORLD_SENSOR,
    ZERO,
    CallError,
    Transform,
    actor_state,
    packed,
    sensor_header,
    shortened,
    stream_token,
    vehicle_state,
    world_body,
)
from sb3_visual_td3.envs.carla_emulator.roadside import COLOURS as LIGHT_COLOURS
from sb3_visual_td3.envs.carla_emulator.roadside import Roadside, RoadSign
from sb3_visual_td3.envs.carla_emulator.sensing import GRAVITY_MPS2, WorldView, measurement, sensor_number_of
from sb3_visual_td3.envs.carla_emulator.served_maps import MapLibrary
from sb3_visual_td3.envs.carla_emulator.server_traffic import ServerTraffic
from sb3_visual_td3.envs.carla_emulator.streaming import StreamServer
from sb3_visual_td3.envs.lite.weather import Sky
from sb3_visual_td3.envs.road.collision import boxes_overlap

CLEAR_NOON = (10.0, 0.0, 0.0, 10.0, 250.0, 60.0, 0.0, 0.75, 0.1, 0.0, 0.03, 0.03, 0.0331, 0.0)
"""The initial weather: 14 parameters in the order of ``carla.WeatherParameters``.

Cloudiness, precipitation, deposits, wind, sun azimuth, sun altitude, fog density, fog distance, fog falloff, wetness,
scattering intensity, Mie scattering, Rayleigh scattering, dust.
"""
# A sun higher than this gives full daylight; between the horizon and this altitude the light fades.
_FULL_DAYLIGHT_SUN_DEG = 15.0
# In CARLA a vehicle stands on springs and is never exactly level. CARLA's BasicAgent (``is_within_distance`` in
# agents/tools/misc.py) relies on that: it ignores a light that lies at an angle of exactly 0 degrees.
_PITCH_DEG = 0.05
# In CARLA a vehicle's origin is never exactly on the ground. Some environments take a height of 0 as a failed spawn.
_RIDE_HEIGHT_M = 0.002
_RAIN_SEED = 0


def sky_of(weather: Sequence[float]) -> Sky | None:
    """Convert CARLA's weather parameters to the light and haze with which ``LiteDriving-v0`` draws images.

    The weathers ``"rain"`` and ``"night"`` of ``CarlaDriving-v0`` look nearly the same as in ``LiteDriving-v0``.

    :param weather: 14 parameters, in the order of ``CLEAR_NOON``
    :return: the sky; None for a clear day
    """
    cloudiness, precipitation, sun_deg, fog = weather[0], weather[1], weather[5], weather[6]
    daylight = min(1.0, max(0.0, sun_deg / _FULL_DAYLIGHT_SUN_DEG))
    if daylight == 1.0 and precipitation <= 0.0 and fog <= 0.0 and cloudiness <= 50.0:
        return None
    gloom = 1.0 - 0.25 * max(precipitation, cloudiness) / 100.0
    ambient = (0.18 + 0.82 * daylight) * gloom
    haze_per_m = 0.02 * precipitation / 100.0 + 0.03 * fog / 100.0
    streaks = 0.5 * precipitation / 100.0
    return Sky(ambient, 1.1 * (1.0 - daylight), haze_per_m, 105.0 * daylight, ambient, streaks, _RAIN_SEED)


WORLD_STREAM = 1
"""The number of the stream of the world's state. Sensors have larger numbers."""
DEFAULT_STEP_S = 0.05
"""The length of a tick when the client sets none (CARLA's variable time step)."""
UNUSED_SETTINGS: tuple[bool | int | float, ...] = (True, 0.01, 10, 0.0, False, 3000.0, 2000.0, True)
"""CARLA's defaults of the world settings that have no effect in the emulator.

Substepping, maximum length and number of substeps, culling distance, deterministic ragdolls, tile streaming distance,
actor active distance, spectator as ego.
"""
# The text of CARLA's own error, which users and scripts look for.
_SPAWN_COLLISION = "Spawn failed because of collision at spawn position"
# A vehicle that is spawned this far above the ground collides with no other vehicle: some clients spawn vehicles high
# above the map and then switch off their physics, as ``CarlaDriving-v0`` does at 30 m. The limit is above most hills of
# CARLA's maps: the emulator's ground is flat, and a vehicle on a hill would otherwise count as one in the air.
_SPAWN_CLEARANCE_M = 20.0
# Tolerance for sums of tick lengths, so that a sensor with sensor_tick=0.1 measures in every second tick of 0.05 s.
_TIME_TOLERANCE_S = 1e-6
_MAX_ATTACHMENT_DEPTH = 16


class Simulation:
    """Simulate the emulated world: its actors, time, weather and traffic, on a map that clients can change.

    :param map_name: short name of the map to start with
    :param streams: server to which measurements are sent
    :param stream_port: port of that server
    :param faults: planned faults
    :param traffic: cars that the server drives; None for no cars
    :param maps: maps that can be loaded; None for the built-in maps
    :param has_carla_steering: True if ``vehicle.tesla.model3`` steers as in CARLA, False if it steers like the car of
        ``LiteDriving-v0``. All other vehicles always steer as in CARLA.
    :raises CallError: if the map cannot be loaded
    """

    def __init__(
        self,
        map_name: str,
        streams: StreamServer,
        stream_port: int,
        faults: Sequence[Fault] = (),
        traffic: ServerTraffic | None = None,
        maps: MapLibrary | None = None,
        *,
        has_carla_steering: bool = False,
    ) -> None:
        self._has_carla_steering = has_carla_steering
        self._streams, self._stream_port = streams, stream_port
        self.maps = MapLibrary() if maps is None else maps
        self._planned_faults = tuple(faults)
        self._traffic = ServerTraffic(0, 0) if traffic is None else traffic
        self.active_faults = ActiveFaults()
        for fault in self._planned_faults:
            check_fault(fault.kind, fault.amount)
            if fault.is_active_from_start:
                self.active_faults.activate(fault.kind, fault.amount)
        self.frame = 0
        self.n_ticks = 0
        # The number of ticks since the first client connected: only these count for planned faults.
        self._n_fault_ticks = 0
        self.seconds = 0.0
        """The simulated time since the beginning of the episode."""
        self.episode_id = 0
        self.is_synchronous = False
        self.step_s: float | None = None
        self.has_cameras_off = False
        self.unused_settings = UNUSED_SETTINGS
        self.gravity_mps2 = GRAVITY_MPS2
        """The gravity that inertial sensors measure, in m/s^2."""
        self.n_clients = 0
        self.actors: dict[int, Actor] = {}
        # Each tick processes three groups of these actors: all except the map's lights and signs; vehicles, walkers and
        # props; and the sensors whose measurements the server computes.
        self._reported: dict[int, Actor] = {}
        self._solid: dict[int, Vehicle | Walker | Prop] = {}
        self._sensors: dict[int, Actor] = {}
        self.complaints: list[str] = []
        """Lines for the console, which the server prints and removes after each tick."""
        # Ids are never reused, as in CARLA: a handle from an earlier episode must not reach another actor.
        self._ids = itertools.count(1)
        self.load(map_name, reset_settings=True)

    def load(self, map_name: str, *, reset_settings: bool) -> None:
        """Start a new episode on a map; all actors are destroyed.

        :param map_name: short name of the map
        :param reset_settings: whether to return to asynchronous mode with a variable time step
        :raises CallError: if the map cannot be loaded; nothing has changed then
        """
        self.map = self.maps.load(map_name)
        for actor in self.actors.values():
            if actor.stream_id is not None:
                self._streams.end(actor.stream_id)
        # The stream of the world's state continues in the new episode, because the client does not subscribe again. The
        # new episode id in the stream makes the client drop its actors.
        self._streams.keep(WORLD_STREAM, None)
        self.episode_id += 1
        self.seconds, self.gravity_mps2 = 0.0, GRAVITY_MPS2
        self.actors, self._reported, self._solid, self._sensors = {}, {}, {}, {}
        self._collisions = Collisions()
        self.weather = CLEAR_NOON
        if reset_settings:
            self.is_synchronous, self.step_s, self.has_cameras_off = False, None, False
            self.unused_settings = UNUSED_SETTINGS
        above_first_spawn_point = self.map.spawn_points[0]._replace(z=20.0, pitch=-30.0)
        self.spectator = self._add(Actor(next(self._ids), [0, "spectator", []], above_first_spawn_point))
        self.roadside = Roadside(self.map.graph)
        for sign in self.roadside.spawn(self._ids):
            self.actors[sign.id] = sign
        self._traffic.is_closed = self._is_red
        self._traffic.spawn(self.map.graph, self.map.spawn_points[0], self._spawn_vehicle)

    def _is_red(self, segment: int, way: Sequence[int]) -> bool:
        """Return whether vehicles must stop at a light at the end of a lane.

        :param segment: the lane
        :param way: the lanes that the vehicle takes through the junction after the lane
        """
        return self.roadside.lights.stop_ahead_m(segment, way=way) is not None

    @property
    def weather(self) -> Sequence[float]:
        """Return the weather: 14 parameters in the order of ``CLEAR_NOON``."""
        return self._weather

    @weather.setter
    def weather(self, parameters: Sequence[float]) -> None:
        self._weather = parameters
        self._sky = sky_of(parameters)

    @property
    def navigation_file(self) -> bytes:
        """Return the file from which the client plans the routes of walkers on this map."""
        return self.map.navigation_file

    @property
    def navigation_name(self) -> str:
        """Return the name under which clients store the navigation file of this map."""
        return navigation_name(self.map.name, self.map.navigation_file)

    @property
    def vehicles(self) -> list[Vehicle]:
        """Return all vehicles, including the cars of the traffic."""
        return [actor for actor in self._solid.values() if isinstance(actor, Vehicle)]

    def actor(self, actor_id: int) -> Actor:
        """Return the actor with this id.

        :param actor_id: number of the actor
        :raises CallError: if the actor does not exist
        """
        if actor_id not in self.actors:
            raise CallError(f"unable to find actor {actor_id}: trying to operate on a destroyed actor")
        return self.actors[actor_id]

    def vehicle(self, actor_id: int) -> Vehicle:
        """Return the vehicle with this id.

        :param actor_id: number of the actor
        :raises CallError: if the actor does not exist or is not a vehicle
        """
        actor = self.actor(actor_id)
        if not isinstance(actor, Vehicle):
            raise CallError(f"actor {actor_id} ({actor.type_id}) is not a vehicle")
        return actor

    def walker(self, actor_id: int) -> Walker:
        """Return the walker with this id.

        :param actor_id: number of the actor
        :raises CallError: if the actor does not exist or is not a walker
        """
        actor = self.actor(actor_id)
        if not isinstance(actor, Walker):
            raise CallError(f"actor {actor_id} ({actor.type_id}) is not a walker")
        return actor

    def spawn(self, description: list[Any], transform: Transform, parent_id: int | None = None) -> Actor:
        """Create an actor.

        :param description: ``[uid, type_id, attributes]`` as the client sent it
        :param transform: pose in the world, or relative to the parent
        :param parent_id: number of the actor to which the new one is attached; None for none
        :raises CallError: if the actor cannot be created
        """
        type_id = check_description(description)
        if self.active_faults.refuses_spawn():
            raise CallError(_SPAWN_COLLISION)
        parent = None
        if parent_id is not None:
            parent = self.actor(parent_id)
            if _attachment_depth(parent) >= _MAX_ATTACHMENT_DEPTH:
                raise CallError(f"Spawn failed: more than {_MAX_ATTACHMENT_DEPTH} actors would be attached in a chain")
        if type_id.startswith("vehicle."):
            if parent is not None:
                raise CallError(
                    "Spawn failed: the emulator cannot attach a vehicle to another actor; spawn it without attach_to"
                )
            return self._spawn_vehicle(description, transform)
        actor_id = next(self._ids)
        if type_id.startswith("static."):
            return self._add_solid(Prop(actor_id, description, transform, parent), transform)
        if type_id.startswith("walker."):
            return self._add_solid(Walker(actor_id, description, transform, parent), transform)
        # A lane invasion sensor has no stream: CARLA's client detects lane invasions itself.
        stream_id = None
        if sensor_number_of(type_id) is not None:
            stream_id = WORLD_STREAM + actor_id
        return self._add(Actor(actor_id, description, transform, parent, stream_id, self._stream_port, self.seconds))

    def _spawn_vehicle(self, description: list[Any], transform: Transform) -> Vehicle:
        vehicle = Vehicle(next(self._ids), description, transform, steers_like_carla=self._has_carla_steering)
        self._add_solid(vehicle, transform)
        return vehicle

    def _add_solid(self, actor: Vehicle | Walker | Prop, transform: Transform) -> Actor:
        """Add a new actor to the world.

        :param actor: the new actor
        :param transform: where the client spawns it; vehicles and walkers then stand on the ground
        :raises CallError: if the actor would overlap another one
        """
        box = actor.box
        if box is not None and actor.parent is None:
            for other in self._solid.values():
                other_box = other.box
                if other_box is None or not boxes_overlap(box, other_box):
                    continue
                if isinstance(actor, Vehicle) and isinstance(other, Vehicle):
                    has_same_height = transform.z < _SPAWN_CLEARANCE_M and other.is_on_ground
                else:
                    rise_m = _middle_m(actor, transform.z) - _middle_m(other, other.world_transform.z)
                    has_same_height = abs(rise_m) < actor.extent_m[2] + other.extent_m[2]
                if has_same_height:
                    raise CallError(_SPAWN_COLLISION)
        return self._add(actor)

    def _add(self, actor: Actor) -> Actor:
        self.actors[actor.id] = self._reported[actor.id] = actor
        if isinstance(actor, Vehicle | Walker | Prop):
            self._solid[actor.id] = actor
        elif actor.stream_id is not None:
            self._sensors[actor.id] = actor
        return actor

    def destroy(self, actor_id: int) -> bool:
        """Remove an actor. Actors that are attached to it stay where they are.

        :param actor_id: number of the actor
        :return: whether the actor existed
        """
        actor = self.actors.get(actor_id)
        if actor is None or actor is self.spectator or isinstance(actor, RoadSign):
            return False
        for other in self.actors.values():
            if other.parent is actor:
                other.transform, other.parent = other.world_transform, None
        del self.actors[actor_id], self._reported[actor_id]
        self._solid.pop(actor_id, None)
        self._sensors.pop(actor_id, None)
        if isinstance(actor, Vehicle):
            self._traffic.remove(actor)
            self.roadside.forget(actor)
        if actor.stream_id is not None:
            self._streams.end(actor.stream_id)
        return True

    def actor_message(self, actor: Actor) -> list[Any]:
        """Return the msgpack form of an actor: id, parent id, description, bounding box, tags, stream token."""
        token = b""
        if actor.stream_id is not None:
            token = stream_token(actor.stream_id, actor.stream_port)
        parent_id = 0
        if actor.parent is not None:
            parent_id = actor.parent.id
        return [actor.id, parent_id, actor.description, actor.bounding_box(), actor.semantic_tags, token]

    def tick(self) -> int:
        """Simulate one tick and send the world's state and all measurements.

        The client's ``world.tick()`` waits for this state.

        :return: number of the frame
        """
        self.n_ticks += 1
        if self.n_clients or self._n_fault_ticks:
            self._n_fault_ticks += 1
        for fault in self._planned_faults:
            if fault.is_due(self._n_fault_ticks):
                self.active_faults.activate(fault.kind, fault.amount)
        self.active_faults.delay_tick()
        step_s = self.step_s or DEFAULT_STEP_S
        vehicles = self.vehicles
        self.roadside.advance(step_s)
        self._traffic.drive(step_s, vehicles)
        solid = list(self._solid.values())
        for actor in solid:
            if not isinstance(actor, Prop):
                actor.drive(step_s)
        self.frame += 1
        self.seconds += step_s
        hits = self._collisions.resolve(solid)
        for hit in hits:
            if isinstance(hit.actor, Vehicle) and hit.actor.is_server_traffic:
                self._traffic.halt(hit.actor)
        state = self._world_state(step_s)
        self._streams.send(WORLD_STREAM, state)
        # The client subscribes asynchronously, and may tick before its subscription has arrived. Each new subscriber
        # gets the kept frame first; without it, such a client would wait for the frame until a timeout.
        self._streams.keep(WORLD_STREAM, state)
        view = WorldView(self.map.scene, self._sky, solid, hits, step_s, self.n_ticks, self.roadside, self.gravity_mps2)
        self._measure(view)
        return self.frame

    def _measure(self, view: WorldView) -> None:
        for sensor in tuple(self._sensors.values()):
            # Without a subscriber nothing is drawn, because rendering takes the most time.
            if sensor.stream_id is None or not self._streams.has_subscriber(sensor.stream_id):
                continue
            sensor_number = sensor_number_of(sensor.type_id)
            assert sensor_number is not None
            if sensor_number == COLLISION_SENSOR:
                self._send_collisions(sensor, view.hits)
                continue
            if self.seconds + _TIME_TOLERANCE_S < sensor.next_measurement_s:
                continue
            sensor.next_measurement_s = self.seconds + sensor.float_attribute("sensor_tick", 0.0)
            is_camera = sensor.type_id.startswith("sensor.camera.")
            if is_camera and (self.has_cameras_off or self.active_faults.drops_image()):
                continue
            try:
                body = measurement(sensor, view, self.actor_message)
            except Exception as error:  # one client's sensor must not stop the server for all others
                show_traceback_if_debugging(error)
                self.complaints.append(f"stopped {sensor.type_id} {sensor.id}: {shortened(error)}")
                self._streams.end(sensor.stream_id)
                sensor.stream_id = None
                del self._sensors[sensor.id]
                continue
            if body is None:
                continue
            if is_camera:
                body = self.active_faults.truncate(body)
            self._send(sensor, sensor_number, body)

    def _send_collisions(self, sensor: Actor, hits: Sequence[Hit]) -> None:
        for hit in hits:
            if hit.actor is sensor.parent:
                body = packed([self.actor_message(hit.actor), self.actor_message(hit.other), list(hit.impulse)])
                self._send(sensor, COLLISION_SENSOR, body)

    def _send(self, sensor: Actor, sensor_number: int, body: bytes) -> None:
        assert sensor.stream_id is not None
        header = sensor_header(sensor_number, self.frame, self.seconds, sensor.world_transform)
        self._streams.send(sensor.stream_id, header + body)

    def _world_state(self, step_s: float) -> bytes:
        states = self.roadside.states()
        for actor in self._reported.values():
            states.append(self._state_of(actor))
        header = sensor_header(WORLD_SENSOR, self.frame, self.seconds, Transform())
        return header + world_body(self.episode_id, time.time(), step_s, states)

    def _state_of(self, actor: Actor) -> bytes:
        """Return an actor's state as the 119 bytes that the message of the world's state contains for it."""
        type_state, place = b"", actor.world_transform
        if isinstance(actor, Vehicle):
            type_state = self._vehicle_state(actor)
        last = actor.last_state
        # An actor at rest keeps the same Python objects, and comparing them is faster than packing its state again.
        if (
            last is not None
            and place is last.place
            and type_state is last.type_state
            and actor.velocity is last.velocity
            and actor.acceleration is last.acceleration
            and actor.yaw_rate_rad_s == last.yaw_rate_rad_s
        ):
            return last.packed
        shown: tuple[float, float, float, float, float, float] = place
        if isinstance(actor, Vehicle):
            _, _, z, pitch, _, roll = actor.transform
            if actor.has_physics or not (z or pitch or roll):
                z, pitch, roll = _RIDE_HEIGHT_M, _PITCH_DEG, 0.0
            shown = (place.x, place.y, z, pitch, place.yaw, roll)
        # CARLA's yaw is positive to the right.
        yaw_rate_deg_s = -math.degrees(actor.yaw_rate_rad_s)
        state = actor_state(actor.id, shown, actor.velocity, actor.acceleration, yaw_rate_deg_s, type_state)
        actor.last_state = None
        if actor.velocity == ZERO:
            actor.last_state = StoredState(
                place, actor.velocity, actor.acceleration, actor.yaw_rate_rad_s, type_state, state
            )
        return state

    def _vehicle_state(self, vehicle: Vehicle) -> bytes:
        limit_kmh = self.roadside.speed_limit_kmh(vehicle, SPEED_LIMIT_KMH)
        light = self.roadside.light_at(vehicle)
        if light is None:
            return vehicle_state(vehicle.control, limit_kmh)
        return vehicle_state(vehicle.control, limit_kmh, LIGHT_COLOURS.index(light.colour), light.id)


def _middle_m(actor: Actor, z_m: float) -> float:
    """Return the height of the middle of an actor whose origin is at a height of ``z_m``."""
    _, _, above_origin_m = actor.bounding_box()[0]
    return z_m + float(above_origin_m)


def _attachment_depth(actor: Actor) -> int:
    depth = 1
    while actor.parent is not None:
        depth, actor = depth + 1, actor.parent
    return depth
