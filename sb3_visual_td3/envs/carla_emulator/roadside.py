"""Simulate the traffic lights and signs of the emulated world.

The colours come from ``light_cycle``, which ``LiteDriving-v0`` uses too. Vehicles do not collide with poles.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.envs.carla_emulator.actors import Actor, Vehicle
from sb3_visual_td3.envs.carla_emulator.protocol import (
    TYPE_STATE_BYTES,
    VOID,
    CallError,
    Transform,
    Vector,
    actor_state,
    checked_number,
    shortened,
)
from sb3_visual_td3.envs.lite.figure_painter import HEAD_HIGH_M, HEAD_LOW_M, HEAD_SIZE_M, Post
from sb3_visual_td3.envs.road.lane_graph import LaneGraph
from sb3_visual_td3.envs.road.light_cycle import LightColour, LightCycles
from sb3_visual_td3.envs.road.road_signs import SPEED_TYPE, STOP_TYPE, YIELD_TYPE, Signal
from sb3_visual_td3.envs.road.shapes import Pose
from sb3_visual_td3.envs.road.sign_reading import stop_bar_m

COLOURS: tuple[LightColour, ...] = ("red", "yellow", "green", "off", "unknown")
"""Colours in the order of ``rpc::TrafficLightState``."""
# sensor/data/ActorDynamicState.h, the union of a traffic light: 32 bytes id in the map, f32 green, yellow, red and
# elapsed time, u32 index of the pole in its group, bool whether it is frozen, u8 state. For a sign only the id is set.
_LIGHT = struct.Struct("<32s4fI?B")
_LIGHT_PADDING = bytes(TYPE_STATE_BYTES - _LIGHT.size)
_SIGN = struct.Struct("<32s")
PLATE_WIDTH_M, PLATE_LOW_M, PLATE_HIGH_M, PLATE_DEPTH_M = 0.7, 1.9, 2.6, 0.04
"""Width, lower and upper edge, and thickness of a sign's plate."""
_LIGHT_TAG, _SIGN_TAG = bytes([7]), bytes([8])  # carla.CityObjectLabel of 0.9.16
_MAX_TIME_S = 1e6
# A vehicle is at a light if its front is at most this far before the stop line, until its centre has passed the line.
_AT_LIGHT_M = 8.0
# Stop lines are looked up by squares of the ground. The side of a square exceeds half the longest vehicle's length plus
# _AT_LIGHT_M, so only lights of the vehicle's own square and of the eight squares around it need to be checked.
_SQUARE_M = 20.0
# The trigger volume reaches this far before and behind the stop line, and over most of the lanes' width.
_TRIGGER_HALF_M, _TRIGGER_WIDTH_SHARE = 1.0, 0.9
_TRIGGER_HEIGHT_M = 1.0
# A vehicle's speed limit is looked up again after it has moved by this much.
_LIMIT_STEP_M = 4.0
_LIMIT_REACH_M = 6.0


@dataclass(eq=False)
class RoadSign(Actor):
    """Hold a traffic light or a sign of the map, which clients cannot create, move or destroy."""

    number: int = 0
    """Number of the actor's signal in the map."""
    signal: Signal | None = None
    colour: LightColour = "unknown"
    """The colour of a light."""
    trigger: tuple[Vector, Vector] = ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    """Centre and half sizes of the trigger volume in the actor's own coordinates."""

    @property
    def is_light(self) -> bool:
        """Return whether this is a traffic light."""
        return self.signal is not None and self.signal.is_light

    @property
    def semantic_tags(self) -> bytes:
        """Return CARLA's semantic tag for a traffic light, or for a traffic sign, as one byte."""
        return _LIGHT_TAG if self.is_light else _SIGN_TAG

    def set_transform(self, transform: Transform) -> None:
        """Ignore the transform, because clients cannot move lights and signs."""

    def bounding_box(self) -> list[Any]:
        """Return the trigger volume in its msgpack form; CARLA's client reads it as the actor's bounding box."""
        centre, half_sizes = self.trigger
        return [list(centre), list(half_sizes), [0.0, 0.0, 0.0], self.id]

    def world_box(self) -> list[Any]:
        """Return the msgpack form of the box around a light's head or a sign's plate, in world coordinates."""
        half_width_m, low_m, high_m = 0.5 * PLATE_WIDTH_M, PLATE_LOW_M, PLATE_HIGH_M
        if self.is_light:
            half_width_m, low_m, high_m = 0.5 * HEAD_SIZE_M, HEAD_LOW_M, HEAD_HIGH_M
        place = self.world_transform
        # The actor's x axis points across the road, along the plate.
        half_depth_m = half_width_m if self.is_light else 0.5 * PLATE_DEPTH_M
        centre = [place.x, place.y, 0.5 * (low_m + high_m)]
        half_sizes = [half_width_m, half_depth_m, 0.5 * (high_m - low_m)]
        return [centre, half_sizes, [0.0, place.yaw, 0.0], self.id]


class _Line(NamedTuple):
    """Describe a stop line: its middle, the direction of the traffic, half its width, and its traffic light."""

    x_m: float
    y_m: float
    cos: float
    sin: float
    half_width_m: float
    light: int
    """Number of the traffic light's signal in the map."""


class Roadside:
    """Simulate all traffic lights and signs of one map.

    :param graph: the lanes of the map, with its signals
    """

    def __init__(self, graph: LaneGraph) -> None:
        self.graph = graph
        self.lights = LightCycles(graph.signs)
        self.actors: dict[int, RoadSign] = {}
        """The actors by the numbers of their signals."""
        self.posts: list[Post] = []
        """All lights in their present colours, for the camera of ``LiteDriving-v0``."""
        self.stop_bars: list[NDArray[np.float64]] = []
        """The stop lines of all lights, by their two ends, ``(2, 2)``."""
        self._light_states: list[tuple[RoadSign, bytes, bytes, int]] = []
        """For each light, the constant part of its state: the first bytes, its id, and the index of its pole."""
        self._sign_states: list[bytes] = []
        self._lines_near: dict[tuple[int, int], list[_Line]] = {}
        """The stop lines in and around each square of the ground, by the square's column and row."""
        for line in _stop_lines(graph):
            column, row = _square_of(line.x_m, line.y_m)
            for beside in range(column - 1, column + 2):
                for above in range(row - 1, row + 2):
                    self._lines_near.setdefault((beside, above), []).append(line)
        self._has_limits = any(not math.isnan(segment.speed_limit_mps) for segment in graph.segments)
        self._limits: dict[int, tuple[float, float, float]] = {}
        """For each vehicle the place where its speed limit was looked up, and the limit in km/h."""

    def spawn(self, ids: Iterator[int]) -> list[RoadSign]:
        """Create an actor for each traffic light and each sign of the map, and return these actors.

        :param ids: iterator over the ids that the actors get
        """
        for number, signal in enumerate(self.graph.signs.signals):
            # CARLA turns the pole by 90 degrees: its x axis points across the road, to the right of the traffic.
            place = Transform.from_pose(Pose(signal.x_m, signal.y_m, signal.yaw_rad - 0.5 * math.pi))
            description = [0, _type_id(signal), []]
            actor = RoadSign(next(ids), description, place, number=number, signal=signal)
            actor.trigger = self._trigger_of(signal, place)
            self.actors[number] = actor
            name = signal.id.encode()[:31]
            state = actor_state(actor.id, place, type_state=_SIGN.pack(name))
            if signal.is_light:
                segments = self.graph.segments
                self.stop_bars += [stop_bar_m(segments[stop.segment], stop.along_m) for stop in signal.stops]
                pole = self.lights.group_of(number).index(number)
                self._light_states.append((actor, state[:-TYPE_STATE_BYTES], name, pole))
            else:
                self._sign_states.append(state)
        self.show()
        return list(self.actors.values())

    def advance(self, dt_s: float) -> None:
        """Advance the cycles of all lights.

        :param dt_s: duration in seconds
        """
        if self.lights.advance(dt_s):
            self.show()

    def states(self) -> list[bytes]:
        """Return the packed state of each light and sign, 119 bytes each, for the message of the world's state."""
        states = list(self._sign_states)
        for actor, beginning, name, pole in self._light_states:
            number = actor.number
            times = self.lights.times_of(number)
            state = _LIGHT.pack(
                name,
                times.green_s,
                times.yellow_s,
                times.red_s,
                self.lights.elapsed_s(number),
                pole,
                self.lights.is_frozen(number),
                COLOURS.index(actor.colour),
            )
            states.append(beginning + state + _LIGHT_PADDING)
        return states

    def light_at(self, vehicle: Vehicle) -> RoadSign | None:
        """Return the traffic light whose stop line is close ahead of a vehicle; None if there is no such light.

        :param vehicle: the vehicle
        """
        if not self._lines_near or not vehicle.is_on_ground:
            return None
        x, y, yaw, _, _ = vehicle.motion
        lines = self._lines_near.get(_square_of(x, y))
        if lines is None:
            return None
        found, reach_m = None, vehicle.extent_m[0] + _AT_LIGHT_M
        for line in lines:
            dx, dy = line.x_m - x, line.y_m - y
            ahead_m, aside_m = dx * line.cos + dy * line.sin, abs(dy * line.cos - dx * line.sin)
            if 0.0 < ahead_m < reach_m and aside_m < line.half_width_m:
                is_along_lane = math.cos(yaw) * line.cos + math.sin(yaw) * line.sin > 0.5
                if is_along_lane:
                    found, reach_m = self.actors[line.light], ahead_m
        return found

    def speed_limit_kmh(self, vehicle: Vehicle, default_kmh: float) -> float:
        """Return the speed limit at a vehicle, in km/h; off the road, the limit of the last road.

        :param vehicle: the vehicle
        :param default_kmh: limit before the vehicle has been on a road with a limit, in km/h
        """
        if not self._has_limits:
            return default_kmh
        x, y, _, _, _ = vehicle.motion
        before = self._limits.get(vehicle.id)
        if before is not None and abs(before[0] - x) + abs(before[1] - y) < _LIMIT_STEP_M:
            return before[2]
        limit_kmh = default_kmh if before is None else before[2]
        for _, place in self.graph.places_near(x, y, _LIMIT_REACH_M):
            here_mps = self.graph.segments[place.segment].speed_limit_mps
            if not math.isnan(here_mps):
                limit_kmh = 3.6 * here_mps
                break
        self._limits[vehicle.id] = (x, y, limit_kmh)
        return limit_kmh

    def forget(self, vehicle: Vehicle) -> None:
        """Drop the stored data of a vehicle that is destroyed.

        :param vehicle: the vehicle
        """
        self._limits.pop(vehicle.id, None)

    def show(self) -> None:
        """Copy the colours from the light cycles to the actors of the traffic lights."""
        self.posts = []
        for number, colour in self.lights.colours.items():
            actor = self.actors[number]
            actor.colour = colour
            signal = actor.signal
            assert signal is not None
            self.posts.append(Post(signal.x_m, signal.y_m, signal.yaw_rad, colour))

    def _trigger_of(self, signal: Signal, place: Transform) -> tuple[Vector, Vector]:
        """Return the centre and the half sizes of a signal's trigger volume, which is a box over its stop lines.

        The centre and the sizes are in the coordinates of the signal's actor. Without stop lines, all values are 0.

        :param place: position and rotation of the signal's actor
        """
        if not signal.stops:
            return (0.0, 0.0, 0.0), (0.0, 0.0, 0.0)
        ends = np.concatenate([stop_bar_m(self.graph.segments[stop.segment], stop.along_m) for stop in signal.stops])
        yaw = math.radians(place.yaw)
        dx, dy = ends[:, 0] - place.x, -ends[:, 1] - place.y
        # The actor's x axis points across the road and its y axis along it.
        across, along = dx * math.cos(yaw) + dy * math.sin(yaw), dy * math.cos(yaw) - dx * math.sin(yaw)
        centre = (0.5 * float(across.min() + across.max()), 0.5 * float(along.min() + along.max()), 0.0)
        half_width = 0.5 * _TRIGGER_WIDTH_SHARE * float(np.ptp(across))
        return centre, (half_width, 0.5 * float(np.ptp(along)) + _TRIGGER_HALF_M, _TRIGGER_HEIGHT_M)


def _type_id(signal: Signal) -> str:
    """Return the type of a signal's actor in CARLA."""
    if signal.is_light:
        return "traffic.traffic_light"
    if signal.type == STOP_TYPE:
        return "traffic.stop"
    if signal.type == YIELD_TYPE:
        return "traffic.yield"
    if signal.type == SPEED_TYPE:
        return f"traffic.speed_limit.{signal.value:.0f}"
    return "traffic.unknown"


def _square_of(x_m: float, y_m: float) -> tuple[int, int]:
    return math.floor(x_m / _SQUARE_M), math.floor(y_m / _SQUARE_M)


def _stop_lines(graph: LaneGraph) -> Iterator[_Line]:
    for number, signal in enumerate(graph.signs.signals):
        if not signal.is_light:
            continue
        for stop in signal.stops:
            left, right = stop_bar_m(graph.segments[stop.segment], stop.along_m)
            middle, across = 0.5 * (left + right), left - right
            half_m = 0.5 * float(np.hypot(*across))
            # The traffic drives at a right angle to the line. ``left`` is the line's end on the left of the traffic.
            cos, sin = across[1] / (2.0 * half_m), -across[0] / (2.0 * half_m)
            yield _Line(float(middle[0]), float(middle[1]), float(cos), float(sin), half_m, number)


class LightCalls:
    """Execute the calls of CARLA's protocol that concern traffic lights.

    :param find: function that returns the :class:`Roadside` of the current map
    """

    def __init__(self, find: Callable[[], Roadside]) -> None:
        self._find = find

    def on_set_traffic_light_state(self, actor_id: int, state: int) -> Any:
        """Set the colour of a light until its cycle changes it."""
        roadside, light = self._light(actor_id)
        if not isinstance(state, int) or not 0 <= state < len(COLOURS):
            raise CallError(f"{shortened(state)}: expected a traffic light state, 0 to {len(COLOURS) - 1}")
        roadside.lights.set_colour(light.number, COLOURS[state])
        roadside.show()
        return VOID

    def on_set_traffic_light_green_time(self, actor_id: int, seconds: float) -> Any:
        """Set how long a light is green. The time also applies to the lights that are green together with it."""
        roadside, light = self._light(actor_id)
        roadside.lights.times_of(light.number).green_s = _seconds(seconds)
        return VOID

    def on_set_traffic_light_yellow_time(self, actor_id: int, seconds: float) -> Any:
        """Set how long a light is yellow. The time also applies to the lights that are yellow together with it."""
        roadside, light = self._light(actor_id)
        roadside.lights.times_of(light.number).yellow_s = _seconds(seconds)
        return VOID

    def on_set_traffic_light_red_time(self, actor_id: int, seconds: float) -> Any:
        """Set how long all lights of a junction are red after this light was yellow, before other lights turn green."""
        roadside, light = self._light(actor_id)
        roadside.lights.times_of(light.number).red_s = _seconds(seconds)
        return VOID

    def on_freeze_traffic_light(self, actor_id: int, is_frozen: bool) -> Any:
        """Freeze the cycle of a light's junction, or continue it."""
        roadside, light = self._light(actor_id)
        roadside.lights.freeze(bool(is_frozen), light.number)
        return VOID

    def on_freeze_all_traffic_lights(self, is_frozen: bool) -> Any:
        """Freeze the cycles of all traffic lights, or continue them."""
        self._find().lights.freeze(bool(is_frozen))
        return VOID

    def on_reset_traffic_light_group(self, actor_id: int) -> Any:
        """Restart the cycle of a light's junction."""
        roadside, light = self._light(actor_id)
        roadside.lights.reset(light.number)
        roadside.show()
        return VOID

    def on_reset_all_traffic_lights(self, *_: Any) -> Any:
        """Restart the cycles of all traffic lights."""
        roadside = self._find()
        roadside.lights.reset()
        roadside.show()
        return VOID

    def on_get_group_traffic_lights(self, actor_id: int) -> list[int]:
        """Return the ids of all traffic lights at the junction of a light."""
        roadside, light = self._light(actor_id)
        return [roadside.actors[number].id for number in roadside.lights.group_of(light.number)]

    def on_get_light_boxes(self, actor_id: int) -> Sequence[Any]:
        """Return one bounding box, in world coordinates, around all lamps of a traffic light."""
        _, light = self._light(actor_id)
        return [light.world_box()]

    def _light(self, actor_id: int) -> tuple[Roadside, RoadSign]:
        roadside = self._find()
        for light in roadside.actors.values():
            if light.id == actor_id and light.is_light:
                return roadside, light
        raise CallError(f"actor {shortened(actor_id)} does not exist or is not a traffic light")


def _seconds(number: float) -> float:
    return max(0.0, checked_number(number, _MAX_TIME_S, "a time in seconds"))
