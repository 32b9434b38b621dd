"""Remote procedure calls about actors: vehicles, walkers, sensors."""

from __future__ import annotations

import math
from typing import Any

from sb3_visual_td3.envs.carla_emulator.protocol import NOTHING, CallError, number_of, shortened
from sb3_visual_td3.envs.carla_emulator.records import Transform, VehicleControl, vector_of
from sb3_visual_td3.envs.carla_emulator.simulation import Simulation
from sb3_visual_td3.envs.carla_emulator.vehicles import CAR, MASS_KG, Vehicle

_WHEEL_RADIUS_M = 0.35
_TOP_GEAR = 10
_FAST_MPS = 1e4
_N_LIGHT_STATES = 2**32
_FRONT = 2
"""Wheels that steer: the first two of four."""


class ActorCalls:
    """Each method ``on_X`` answers the call X.

    :param simulation: the world.
    """

    def __init__(self, simulation: Simulation) -> None:
        self._sim = simulation

    def on_get_actors_by_id(self, numbers: list[int]) -> list[Any]:
        """Return the records of those that there are."""
        return [self._sim.record(self._sim.actors[n]) for n in numbers if n in self._sim.actors]

    def on_get_spectator(self) -> list[Any]:
        """Return the spectator's record."""
        return self._sim.record(self._sim.spectator)

    def on_spawn_actor(self, description: list[Any], place: list[Any]) -> list[Any]:
        """Make an actor."""
        return self._sim.record(self._sim.spawn(description, Transform.of_wire(place)))

    def on_spawn_actor_with_parent(self, description: list[Any], place: list[Any], parent: int, *_: Any) -> list[Any]:
        """Make an actor that is fixed to another."""
        return self._sim.record(self._sim.spawn(description, Transform.of_wire(place), parent))

    def on_destroy_actor(self, number: int) -> bool:
        """Remove an actor."""
        return self._sim.destroy(number)

    def on_get_actor_bounding_box(self, number: int) -> list[Any]:
        """Return its box."""
        return self._sim.actor(number).bounding_box()

    def on_set_actor_transform(self, number: int, place: list[Any]) -> Any:
        """Put it somewhere."""
        self._sim.actor(number).put(Transform.of_wire(place))
        return NOTHING

    def on_set_actor_location(self, number: int, location: list[float]) -> Any:
        """Put it somewhere, as it is turned."""
        rotation = self._sim.actor(number).world_place.wire()[1]
        return self.on_set_actor_transform(number, [location, rotation])

    def on_set_actor_target_velocity(self, number: int, velocity: list[float]) -> Any:
        """Give it a velocity."""
        self._sim.actor(number).push(vector_of(velocity, _FAST_MPS))
        return NOTHING

    def on_set_actor_simulate_physics(self, number: int, enabled: bool) -> Any:
        """Let it move by itself, or not."""
        actor = self._sim.actor(number)
        if isinstance(actor, Vehicle) and not actor.is_of_the_server:
            actor.set_physics(enabled)
        return NOTHING

    def on_enable_actor_constant_velocity(self, number: int, velocity: list[float]) -> Any:
        """Let a vehicle keep a speed: what of the velocity, which is in its own axes, points forward."""
        self._sim.vehicle(number).constant_mps = max(0.0, number_of(velocity[0], _FAST_MPS))
        return NOTHING

    def on_disable_actor_constant_velocity(self, number: int) -> Any:
        """Let it drive by its pedals again."""
        self._sim.vehicle(number).constant_mps = None
        return NOTHING

    def on_apply_control_to_vehicle(self, number: int, control: list[Any]) -> Any:
        """Hold the pedals and the wheel; out of range they are held at its end, and what is no number is 0."""
        throttle, steer, brake, hand_brake, reverse, manual, gear = control[:7]
        limits = ((throttle, 0.0), (steer, -1.0), (brake, 0.0))
        throttle, steer, brake = (min(1.0, max(low, part)) if math.isfinite(part) else 0.0 for part, low in limits)
        self._sim.vehicle(number).control = VehicleControl(
            throttle, steer, brake, bool(hand_brake), bool(reverse), bool(manual), min(_TOP_GEAR, max(-1, int(gear)))
        )
        return NOTHING

    def on_apply_control_to_walker(self, number: int, control: list[Any]) -> Any:
        """Let a walker walk."""
        direction, speed_mps = control[:2]
        self._sim.walker(number).walk(vector_of(direction, _FAST_MPS), number_of(speed_mps, _FAST_MPS))
        return NOTHING

    def on_set_walker_state(self, number: int, place: list[Any], speed_mps: float) -> Any:
        """Put a walker somewhere, walking on as it is turned."""
        transform = Transform.of_wire(place)
        walker = self._sim.walker(number)
        walker.put(transform._replace(z=walker.extent_m[2]))
        yaw = math.radians(transform.yaw)
        walker.walk((math.cos(yaw), math.sin(yaw), 0.0), number_of(speed_mps, _FAST_MPS))
        return NOTHING

    def on_set_vehicle_light_state(self, number: int, state: list[int] | int) -> Any:
        """Remember which lights are on; cameras do not show them."""
        lights = state if isinstance(state, int) else state[0]
        if not isinstance(lights, int) or not 0 <= lights < _N_LIGHT_STATES:
            raise CallError(f"{shortened(state)} is not a state of lights")
        self._sim.vehicle(number).lights = lights
        return NOTHING

    def on_get_vehicle_light_state(self, number: int) -> list[int]:
        """Return which lights are on."""
        return [self._sim.vehicle(number).lights]

    def on_get_vehicle_light_states(self) -> list[Any]:
        """Return which lights are on, of all vehicles."""
        return [[vehicle.number, vehicle.lights] for vehicle in self._sim.vehicles]

    def on_get_wheel_steer_angle(self, number: int, wheel: int) -> float:
        """Return where a wheel points, in degrees, positive to the right."""
        vehicle = self._sim.vehicle(number)
        return -math.degrees(vehicle.motion.wheel_rad) if wheel < _FRONT else 0.0

    def on_apply_physics_control(self, number: int, physics: list[Any]) -> Any:
        """Remember what was set, so that it can be read; every vehicle goes on driving alike."""
        if not isinstance(physics, list):
            raise CallError(f"{shortened(physics)} is not a physics control")
        self._sim.vehicle(number).physics = physics
        return NOTHING

    def on_get_physics_control(self, number: int) -> list[Any]:
        """Return what was set, or what describes the one car that there is."""
        vehicle = self._sim.vehicle(number)
        return vehicle.physics or _physics_of(vehicle)


def _physics_of(vehicle: Vehicle) -> list[Any]:
    max_wheel_deg = math.degrees(CAR.max_wheel_rad)
    wheels = []
    for ahead, aside, angle_deg in ((1, -1, max_wheel_deg), (1, 1, max_wheel_deg), (-1, -1, 0.0), (-1, 1, 0.0)):
        yaw = vehicle.motion.yaw_rad
        along, left = 0.5 * ahead * CAR.wheelbase_m, -0.5 * aside * CAR.width_m
        x = vehicle.motion.x_m + along * math.cos(yaw) - left * math.sin(yaw)
        y = -(vehicle.motion.y_m + along * math.sin(yaw) + left * math.cos(yaw))
        # CARLA gives the wheels' places in centimetres, and their radius too.
        place_cm = [100.0 * x, 100.0 * y, 100.0 * _WHEEL_RADIUS_M]
        wheels.append([3.5, 0.25, angle_deg, 100.0 * _WHEEL_RADIUS_M, 1500.0, 3000.0, 3.0, 17.0, 1000.0, place_cm])
    torque, steering = [[0.0, 400.0], [5000.0, 400.0]], [[0.0, 1.0], [100.0, 1.0]]
    engine = [torque, 5000.0, 1.0, 0.15, 2.0, 0.35, True, 0.5, 10.0, 4.0, []]
    return [*engine, MASS_KG, 0.3, [0.0, 0.0, 0.0], steering, wheels, False]
