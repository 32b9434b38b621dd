"""Simulate the actors of the emulated world: vehicles, walkers and sensors.

Transforms and velocities are in CARLA's left-handed coordinates (y to the right). ``Motion``, ``Pose`` and
``OrientedBox`` are in this package's right-handed coordinates (y to the left).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from sb3_visual_td3.envs.backend import Control
from sb3_visual_td3.envs.carla_emulator.protocol import (
    ZERO,
    AckermannControl,
    Transform,
    Vector,
    VehicleControl,
    velocity_along,
)
from sb3_visual_td3.envs.carla_emulator.vehicle_models import Handling, VehicleModel, handling_of, model_of
from sb3_visual_td3.envs.lite.car_painter import PAINTS
from sb3_visual_td3.envs.lite.vehicle import Motion, VehicleSettings, advance
from sb3_visual_td3.envs.road.collision import OrientedBox, boxes_overlap
from sb3_visual_td3.envs.road.shapes import Pose


class StoredState(NamedTuple):
    """Hold the packed state of an actor at rest, and the values from which it was packed."""

    place: Transform
    velocity: Vector
    acceleration: Vector
    yaw_rate_rad_s: float
    type_state: bytes
    packed: bytes


@dataclass(eq=False)
class Actor:
    """Hold an actor that does not move by itself: the spectator or a sensor."""

    id: int
    description: list[Any]
    """CARLA's ``ActorDescription`` as the client sent it: ``[uid, type_id, [[attribute, type, value]...]]``."""
    transform: Transform
    """The transform relative to the parent, or in the world if there is no parent."""
    parent: Actor | None = None
    stream_id: int | None = None
    """Id of the stream that sends a sensor's measurements; None if the server sends no measurements of this actor."""
    stream_port: int = 0
    next_measurement_s: float = 0.0
    """The simulated time of a sensor's next measurement."""

    last_state: StoredState | None = field(default=None, init=False, repr=False)
    """The packed state of the last tick, sent again while the actor stands still; None while the actor moves."""

    velocity = ZERO
    acceleration = ZERO
    yaw_rate_rad_s = 0.0
    """The yaw rate, positive to the left."""

    @cached_property
    def type_id(self) -> str:
        """Return the id of the actor's blueprint, such as ``"vehicle.tesla.model3"``."""
        return str(self.description[1])

    @cached_property
    def attributes(self) -> dict[str, str]:
        """Return the names and values of the blueprint attributes that the client set when it spawned the actor."""
        return {name: value for name, _, value in self.description[2]}

    def float_attribute(self, name: str, default: float) -> float:
        """Return an attribute as a number, or ``default`` if the client has not set it."""
        return float(self.attributes.get(name, default))

    @property
    def extent_m(self) -> Vector:
        """Return half of the actor's length, width and height, in metres."""
        return ZERO

    @property
    def semantic_tags(self) -> bytes:
        """Return CARLA's semantic tags of the actor, one byte each; empty if semantic cameras do not show it."""
        return b""

    @property
    def box(self) -> OrientedBox | None:
        """Return the rectangle that the actor occupies on the ground; None if nothing can collide with it."""
        return None

    @property
    def world_transform(self) -> Transform:
        """Return the actor's transform in world coordinates."""
        if self.parent is None:
            return self.transform
        return attached_transform(self.parent.world_transform, self.transform)

    def set_transform(self, transform: Transform) -> None:
        """Teleport the actor. As in CARLA, an attached actor stays attached, and is moved relative to its parent."""
        self.transform = transform

    def set_velocity(self, velocity: Vector) -> None:
        """Ignore the velocity: this actor does not move by itself."""

    def bounding_box(self) -> list[Any]:
        """Return the msgpack form of the bounding box: centre, half sizes, rotation, actor id."""
        centre = [0.0, 0.0, self.extent_m[2]]  # relative to the actor's origin, which lies on the ground
        return [centre, list(self.extent_m), [0.0, 0.0, 0.0], self.id]

    def world_box(self) -> list[Any]:
        """Return the msgpack form of the bounding box in world coordinates."""
        centre, half_sizes, _, number = self.bounding_box()
        place = attached_transform(self.world_transform, Transform(*centre))
        return [[place.x, place.y, place.z], half_sizes, [0.0, place.yaw, 0.0], number]


def attached_transform(carrier: Transform, relative: Transform) -> Transform:
    """Return the world transform of an object that is rigidly attached to another object, its carrier.

    The carrier's pitch and roll are ignored.

    :param carrier: the carrier's transform in the world
    :param relative: offset forward, right and up, and rotation, relative to the carrier
    """
    yaw = math.radians(carrier.yaw)
    x = carrier.x + relative.x * math.cos(yaw) - relative.y * math.sin(yaw)
    y = carrier.y + relative.x * math.sin(yaw) + relative.y * math.cos(yaw)
    return Transform(x, y, carrier.z + relative.z, relative.pitch, carrier.yaw + relative.yaw, relative.roll)


# Half sizes of CARLA's pedestrians, in metres.
_WALKER_EXTENT_M = (0.19, 0.19, 0.93)
# CARLA 0.9.16's semantic tags.
_PEDESTRIAN_TAG = bytes([12])
_STATIC_TAG = bytes([20])


@dataclass(eq=False)
class Walker(Actor):
    """Simulate a pedestrian: it walks as the client last commanded, or the client places it in each tick."""

    def __post_init__(self) -> None:
        self._is_placed = self._was_placed = False
        # CARLA's walkers have their origin in the middle of the body; they stand on the ground.
        self.transform = self.transform._replace(z=_WALKER_EXTENT_M[2])

    @property
    def extent_m(self) -> Vector:
        """Return half of the actor's length, width and height, in metres."""
        return _WALKER_EXTENT_M

    def bounding_box(self) -> list[Any]:
        """Return the msgpack form of the bounding box, whose centre is the middle of the body."""
        return [[0.0, 0.0, 0.0], list(self.extent_m), [0.0, 0.0, 0.0], self.id]

    @property
    def semantic_tags(self) -> bytes:
        """Return CARLA's semantic tag for pedestrians, as one byte."""
        return _PEDESTRIAN_TAG

    @property
    def box(self) -> OrientedBox:
        """Return the rectangle that the walker occupies on the ground."""
        return OrientedBox(*self.world_transform.pose, 2.0 * _WALKER_EXTENT_M[0], 2.0 * _WALKER_EXTENT_M[1])

    def set_velocity(self, velocity: Vector) -> None:
        """Walk with this velocity from the next tick onwards."""
        self.velocity = velocity

    def walk(self, direction: Vector, speed_mps: float) -> None:
        """Walk in a direction from the next tick onwards.

        :param direction: in world coordinates, of any length; a zero vector stops the walker
        :param speed_mps: speed in m/s
        """
        self._is_placed = self._was_placed = False
        x, y, _ = direction
        length = math.hypot(x, y)
        if length > 0.0:
            self.velocity = (x / length * speed_mps, y / length * speed_mps, 0.0)
        else:
            self.velocity = ZERO

    def place(self, transform: Transform, speed_mps: float) -> None:
        """Put the walker at the place that the client's navigation has computed for this tick.

        The walker stops if the next tick brings no new place. It is detached from its parent.

        :param transform: place and direction on the ground, in world coordinates
        :param speed_mps: speed that the walker reports, in m/s
        """
        self.transform, self.parent = transform._replace(z=self.extent_m[2]), None
        yaw = math.radians(transform.yaw)
        self.velocity = (speed_mps * math.cos(yaw), speed_mps * math.sin(yaw), 0.0)
        self._is_placed = True

    def drive(self, dt_s: float) -> None:
        """Move the actor for one tick of ``dt_s`` seconds."""
        if self._is_placed:
            self._is_placed = False
            self._was_placed = True
            return
        if self._was_placed:
            self._was_placed = False
            self.velocity = ZERO
        x, y, _ = self.velocity
        if x or y:
            yaw = math.degrees(math.atan2(y, x))
            self.transform = self.transform._replace(
                x=self.transform.x + x * dt_s, y=self.transform.y + y * dt_s, yaw=yaw
            )


# Half sizes of props in metres. Props that matter on a road have their own sizes; all other props have the same size.
_PROP_EXTENTS_M = {
    "static.prop.trafficcone01": (0.24, 0.24, 0.37),
    "static.prop.trafficcone02": (0.24, 0.24, 0.37),
    "static.prop.constructioncone": (0.17, 0.17, 0.29),
    "static.prop.streetbarrier": (0.18, 0.61, 0.54),
    "static.prop.trafficwarning": (1.17, 1.44, 1.78),
    "static.prop.container": (0.97, 1.93, 1.03),
    "static.prop.busstop": (1.92, 1.0, 1.4),
}
_OTHER_PROP_EXTENT_M = (0.35, 0.35, 0.4)


@dataclass(eq=False)
class Prop(Actor):
    """Hold a prop, which stands where it was put. Vehicles collide with it and do not move it."""

    @property
    def extent_m(self) -> Vector:
        """Return half of the actor's length, width and height, in metres."""
        return _PROP_EXTENTS_M.get(self.type_id, _OTHER_PROP_EXTENT_M)

    @property
    def semantic_tags(self) -> bytes:
        """Return CARLA's semantic tag for static objects, as one byte."""
        return _STATIC_TAG

    @property
    def box(self) -> OrientedBox | None:
        """Return the rectangle that the prop occupies on the ground; None if it is attached to an actor."""
        if self.parent is not None:
            return None
        return OrientedBox(*self.world_transform.pose, 2.0 * self.extent_m[0], 2.0 * self.extent_m[1])


# A vehicle without physics counts as on the ground up to this height: clients place vehicles some decimetres above the
# road and let them drop.
_ON_GROUND_BELOW_M = 2.0
# If a client moves a vehicle without physics faster than this, the move counts as a teleport and gives no velocity.
_TELEPORT_MPS = 100.0


@dataclass(eq=False)
class Vehicle(Actor):
    """Simulate a vehicle. Without physics it stays where it was last put.

    ``transform`` is the pose in which the vehicle was last put. Only its height, pitch and roll count, and only without
    physics: ``motion`` has the current place.
    """

    motion: Motion = field(default_factory=lambda: Motion(0.0, 0.0, 0.0, 0.0, 0.0))
    control: VehicleControl = field(default_factory=VehicleControl)
    ackermann: AckermannControl | None = None
    """Steering angle and speed that the vehicle keeps; None if the client controls pedals and steering itself."""
    has_physics: bool = True
    constant_mps: float | None = None
    """The speed that the vehicle keeps regardless of its pedals, negative backwards; None if the pedals control it."""
    lights: int = 0
    physics: list[Any] | None = None
    """The engine and wheels that a client has set. The client can read them back; they have no other effect."""
    steers_like_carla: bool = False
    """True if a ``vehicle.tesla.model3`` steers as in CARLA, False if it steers like the car of ``LiteDriving-v0``. All
    other vehicles always steer as in CARLA."""
    is_server_traffic: bool = False
    """Whether the emulator's own traffic drives the vehicle."""

    def __post_init__(self) -> None:
        self._requested_velocity: Vector | None = None
        self._placed: tuple[Motion, float, Transform] | None = None
        # The last tick that changed nothing: its motion, control, constant speed and length.
        self._at_rest: tuple[Motion, VehicleControl, float | None, float] | None = None
        self._is_reversing = False
        self.set_transform(self.transform)
        self.previous_motion = self.motion
        """The motion one tick ago."""

    @property
    def extent_m(self) -> Vector:
        """Return half of the actor's length, width and height, in metres."""
        return self.model.extent_m

    @cached_property
    def model(self) -> VehicleModel:
        """Return size and kind of the vehicle."""
        return model_of(self.type_id)

    @cached_property
    def handling(self) -> Handling:
        """Return the vehicle's mass and its limits of steering, acceleration and speed."""
        return handling_of(self.model, steers_like_carla=self.steers_like_carla)

    @property
    def semantic_tags(self) -> bytes:
        """Return CARLA's semantic tag for this kind of vehicle, as one byte."""
        return bytes([self.model.semantic_tag])

    @property
    def pose(self) -> Pose:
        """Return position and heading in this package's right-handed coordinates."""
        x, y, yaw, _, _ = self.motion
        return Pose(x, y, yaw)

    @property
    def box(self) -> OrientedBox:
        """Return the rectangle that the vehicle occupies on the ground."""
        x, y, yaw, _, _ = self.motion
        return OrientedBox(x, y, yaw, self.model.length_m, self.model.width_m)

    @cached_property
    def colour(self) -> tuple[int, int, int]:
        """Return the vehicle's colour: red, green and blue, 0 to 255."""
        red, green, blue = (int(part) for part in self.attributes.get("color", "225,225,220").split(",")[:3])
        return red, green, blue

    @cached_property
    def paint(self) -> int:
        """Return the index of the colour in ``PAINTS`` that is closest to the vehicle's colour.

        ``PAINTS`` holds the colours in which ``LiteDriving-v0`` draws cars.
        """
        squared_distances = []
        for paint in PAINTS:
            squared_distances.append(sum((a - b) ** 2 for a, b in zip(paint, self.colour, strict=True)))
        return squared_distances.index(min(squared_distances))

    @property
    def altitude_m(self) -> float:
        """Return the height above the ground in metres; 0 if the vehicle counts as on the ground.

        A vehicle with physics always counts as on the ground. A vehicle without physics counts as on the ground up
        to a height of 2 m.
        """
        if self.has_physics or self.transform.z <= _ON_GROUND_BELOW_M:
            return 0.0
        return self.transform.z

    @cached_property
    def radius_m(self) -> float:
        """Return the radius of the circle around the rectangle that the vehicle occupies on the ground."""
        return 0.5 * math.hypot(self.model.length_m, self.model.width_m)

    @property
    def is_on_ground(self) -> bool:
        """Return whether the vehicle is low enough for other actors to touch it and for cameras to show it."""
        return self.altitude_m == 0.0

    @property
    def world_transform(self) -> Transform:
        """Return the actor's transform in world coordinates."""
        # The result is cached, because each sensor on the vehicle reads it. A motion is replaced, never changed.
        altitude_m = self.altitude_m
        if self._placed is None or self._placed[0] is not self.motion or self._placed[1] != altitude_m:
            self._placed = (self.motion, altitude_m, Transform.from_pose(self.pose, altitude_m))
        return self._placed[2]

    def set_transform(self, transform: Transform) -> None:
        """Teleport the vehicle and straighten its wheels; it keeps its speed."""
        self.transform = transform
        self.motion = Motion(*transform.pose, self.motion.speed_mps, 0.0)

    def place(self, pose: Pose) -> None:
        """Put the vehicle at a pose without a change of height; it keeps its speed."""
        self.motion = Motion(pose.x_m, pose.y_m, pose.heading_rad, self.motion.speed_mps, 0.0)

    def set_velocity(self, velocity: Vector) -> None:
        """Set the velocity. A vehicle with physics takes only the component along its length."""
        if not self.has_physics:
            self._requested_velocity = velocity
            return
        x, y, _ = velocity
        speed = x * math.cos(self.motion.yaw_rad) - y * math.sin(self.motion.yaw_rad)
        self.motion, self._is_reversing = self.motion._replace(speed_mps=abs(speed)), speed < 0.0
        self.velocity = velocity_along(self.pose, speed)

    def set_physics(self, enabled: bool) -> None:
        """Enable or disable physics. Without physics the vehicle stops and stays where it is."""
        self.has_physics, self._requested_velocity = enabled, None
        # A new object makes the cached state outdated: the reported height and angles depend on the physics.
        self.motion = self.motion._replace()
        if not enabled:
            self.stop()

    def drive(self, dt_s: float) -> None:
        """Move the actor for one tick of ``dt_s`` seconds."""
        if self._rests(dt_s):
            self.acceleration = ZERO
            return
        if self.has_physics:
            before, velocity_before = self.motion, self.velocity
            if self.transform.z or self.transform.pitch or self.transform.roll:
                self.transform = self.transform._replace(z=0.0, pitch=0.0, roll=0.0)
            if self.ackermann is not None:
                self.control = self._pedals_for(self.ackermann, dt_s)
            self._drive_by_pedals(dt_s)
            signed_mps = self.motion.speed_mps
            if self._is_reversing:
                signed_mps = -signed_mps
            self.velocity = velocity_along(self.pose, signed_mps)
            (x, y, z), (x_before, y_before, z_before) = self.velocity, velocity_before
            self.acceleration = ((x - x_before) / dt_s, (y - y_before) / dt_s, (z - z_before) / dt_s)
            self.previous_motion = before
            if self.motion == before and self.velocity == velocity_before and self.ackermann is None:
                # The next tick would compute the same values. The old object is kept, because it is the key of the
                # cached transform.
                self.motion = before
                self._at_rest = (before, self.control, self.constant_mps, dt_s)
        else:
            # The client moves the vehicle, so its velocity follows from its places in the last two ticks.
            before = self.previous_motion
            self.velocity = self._requested_velocity or _velocity_between(before, self.motion, dt_s)
            self.acceleration = ZERO
            self.previous_motion = self.motion
        self.yaw_rate_rad_s = math.remainder(self.motion.yaw_rad - before.yaw_rad, 2.0 * math.pi) / dt_s

    def _rests(self, dt_s: float) -> bool:
        """Return whether the vehicle stays at rest: the last tick changed nothing, and no input has changed since."""
        if self._at_rest is None or not self.has_physics or self.ackermann is not None:
            return False
        motion, control, constant_mps, last_dt_s = self._at_rest
        # Motions and controls are replaced, never changed.
        is_same = self.motion is motion and self.control is control
        return is_same and self.constant_mps == constant_mps and dt_s == last_dt_s

    def _pedals_for(self, wanted: AckermannControl, dt_s: float) -> VehicleControl:
        """Return the pedals that bring the vehicle to the wanted speed in this tick, or as close to it as possible."""
        settings, speed_mps = self.handling.settings, self.motion.speed_mps
        is_reverse, target_mps = wanted.speed_mps < 0.0, abs(wanted.speed_mps)
        if is_reverse != self._is_reversing and speed_mps > 0.0:
            # The vehicle stops before it changes direction.
            target_mps = 0.0
        limit_mps2 = wanted.acceleration_mps2 or math.inf
        acceleration_mps2 = max(-limit_mps2, min(limit_mps2, (target_mps - speed_mps) / dt_s))
        # The vehicle moves as in ``LiteDriving-v0``. The throttle must compensate the drag in this model of motion.
        push_mps2 = acceleration_mps2 + settings.drag_per_s * speed_mps
        throttle = max(0.0, min(1.0, push_mps2 / settings.max_throttle_mps2))
        brake = max(0.0, min(1.0, -push_mps2 / settings.max_brake_mps2))
        steer = max(-1.0, min(1.0, wanted.steer_rad / settings.max_wheel_rad))
        return VehicleControl(throttle, steer, brake, reverse=is_reverse)

    def _drive_by_pedals(self, dt_s: float) -> None:
        control, settings = self.control, self.handling.settings
        # The car of ``LiteDriving-v0`` has no hand brake, so the hand brake counts as a fully pressed brake.
        pedals = Control(control.steer, control.throttle, max(control.brake, float(control.hand_brake)))
        is_reverse_gear = control.reverse
        if control.manual_gear_shift:  # as in CARLA, only the gear then sets the direction
            is_reverse_gear = control.gear < 0
            if control.gear == 0:
                pedals = pedals._replace(throttle=0.0)
        if self.constant_mps is not None:
            self._is_reversing = self.constant_mps < 0.0
            self.motion = self.motion._replace(speed_mps=abs(self.constant_mps))
        elif is_reverse_gear != self._is_reversing and self.motion.speed_mps > 0.0:
            # The engine works against the movement: the car brakes to a stop before it changes direction.
            pedals = Control(pedals.steer, 0.0, max(pedals.brake, pedals.throttle))
        else:
            self._is_reversing = is_reverse_gear
        if self._is_reversing:
            self.motion = _advance_in_reverse(self.motion, pedals, dt_s, settings)
        else:
            self.motion = advance(self.motion, pedals, dt_s, settings)
        if self.constant_mps is not None:
            self.motion = self.motion._replace(speed_mps=abs(self.constant_mps))

    def stop(self) -> None:
        """Stop the vehicle where it is."""
        self.motion = self.motion._replace(speed_mps=0.0)
        self.velocity = ZERO

    def stop_at_previous_motion(self) -> None:
        """Stop the vehicle where it was one tick ago."""
        self.motion = self.previous_motion._replace(speed_mps=0.0)
        self.velocity = ZERO


def _advance_in_reverse(motion: Motion, pedals: Control, dt_s: float, settings: VehicleSettings) -> Motion:
    """Return the motion after the car has driven backwards for one tick.

    The model only drives forwards, so the car is turned around, driven, and turned back.
    """
    mirrored = motion._replace(yaw_rad=motion.yaw_rad + math.pi, wheel_rad=-motion.wheel_rad)
    after = advance(mirrored, pedals._replace(steer=-pedals.steer), dt_s, settings)
    return after._replace(yaw_rad=after.yaw_rad - math.pi, wheel_rad=-after.wheel_rad)


def _velocity_between(before: Motion, after: Motion, dt_s: float) -> Vector:
    x, y = (after.x_m - before.x_m) / dt_s, -(after.y_m - before.y_m) / dt_s
    if math.hypot(x, y) >= _TELEPORT_MPS:
        return ZERO
    return (x, y, 0.0)


class Hit(NamedTuple):
    """Describe a collision of two actors as an event for one of them; the other actor gets its own event."""

    actor: Actor
    other: Actor
    impulse: Vector
    """The impulse on ``actor`` in kg m/s, in CARLA's coordinates."""


class Collisions:
    """Find the collisions of each tick and stop the vehicles that cause them.

    A vehicle that drives into another actor stops. If the vehicle drives into the same actor again in the next tick,
    for example because its throttle is still pressed, it is moved back to where it was one tick ago. Each of these
    ticks gives new collision events.
    """

    def __init__(self) -> None:
        self._touching: set[tuple[int, int]] = set()
        """Pairs (id of the moving vehicle, id of the other actor) that touched in the last tick."""

    def resolve(self, solid: Sequence[Actor]) -> list[Hit]:
        """Stop the vehicles that drive into something, and return the collision events of this tick.

        :param solid: all actors that something can collide with, including all vehicles
        :return: for each collision two events, one for each actor
        """
        touches = _touches(solid)
        hits: dict[tuple[int, int], Hit] = {}
        for vehicle, other in touches:
            if not _approaches(vehicle, other):
                continue
            # The impulse that would bring the vehicle to the other's velocity.
            x, y = (
                vehicle.handling.mass_kg * (theirs - own)
                for own, theirs in zip(vehicle.velocity[:2], other.velocity[:2], strict=True)
            )
            hits.setdefault((vehicle.id, other.id), Hit(vehicle, other, (x, y, 0.0)))
            hits.setdefault((other.id, vehicle.id), Hit(other, vehicle, (-x, -y, 0.0)))

        # Vehicles are stopped after all impulses are known, because stopping changes the velocities in the impulses.
        for vehicle, other in touches:
            pair = (vehicle.id, other.id)
            if pair in hits and _approaches(vehicle, other):
                if vehicle.has_physics and pair in self._touching:
                    vehicle.stop_at_previous_motion()
                else:
                    vehicle.stop()
        self._touching = {(vehicle.id, other.id) for vehicle, other in touches}
        return list(hits.values())


def _touches(solid: Sequence[Actor]) -> list[tuple[Vehicle, Actor]]:
    """Return all pairs of a moving vehicle and an actor that it touches."""
    if not any(isinstance(actor, Vehicle) and (actor.velocity[0] or actor.velocity[1]) for actor in solid):
        return []
    # Two rectangles touch only if the circles around them do. The circles are sorted by their left ends, and each is
    # compared only with those that begin before it ends. With many vehicles, comparing all pairs would be too slow.
    circles: list[tuple[float, float, float, float, int]] = []  # left end, x, y, radius, index of the actor
    for index, actor in enumerate(solid):
        if isinstance(actor, Vehicle):
            if actor.is_on_ground:
                x_m, y_m, _, _, _ = actor.motion
                circles.append((x_m - actor.radius_m, x_m, y_m, actor.radius_m, index))
            continue
        box = actor.box
        if box is not None:
            radius_m = 0.5 * math.hypot(box.length_m, box.width_m)
            circles.append((box.x_m - radius_m, box.x_m, box.y_m, radius_m, index))
    circles.sort()
    close: list[tuple[int, int]] = []
    for number, (_, x_m, y_m, radius_m, index) in enumerate(circles, start=1):
        right_m = x_m + radius_m
        for left_m, other_x_m, other_y_m, other_radius_m, other_index in itertools.islice(circles, number, None):
            if left_m > right_m:
                break
            reach_m = radius_m + other_radius_m
            dx, dy = other_x_m - x_m, other_y_m - y_m
            if dx * dx + dy * dy <= reach_m * reach_m:
                close += [(index, other_index), (other_index, index)]
    touches: list[tuple[Vehicle, Actor]] = []
    for index, other_index in sorted(close):
        vehicle, other = solid[index], solid[other_index]
        if not isinstance(vehicle, Vehicle) or not (vehicle.velocity[0] or vehicle.velocity[1]):
            continue
        box = other.box
        assert box is not None
        if boxes_overlap(vehicle.box, box):
            touches.append((vehicle, other))
    return touches


def _approaches(vehicle: Vehicle, other: Actor) -> bool:
    """Return whether a vehicle moves towards the centre of another actor."""
    box = other.box
    assert box is not None
    x, y, _ = vehicle.velocity
    return x * (box.x_m - vehicle.motion.x_m) - y * (box.y_m - vehicle.motion.y_m) > 0.0
