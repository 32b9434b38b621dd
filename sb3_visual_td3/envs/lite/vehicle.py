"""A car that moves by the kinematic bicycle model, in plain floats."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import NamedTuple

from sb3_visual_td3.envs.arguments import coerce_quantity
from sb3_visual_td3.envs.backend import BodySize, Control


class Motion(NamedTuple):
    """Where the car's centre is and how it moves; ``wheel_rad`` is positive to the left, as yaw is."""

    x_m: float
    y_m: float
    yaw_rad: float
    speed_mps: float
    wheel_rad: float


@dataclass(frozen=True)
class VehicleSettings:
    """What the car can do: ``max_throttle_mps2 / drag_per_s`` is its top speed, 12 m/s by default.

    :raises ValueError: if a value is not positive.
    """

    length_m: float = 4.4
    width_m: float = 1.8
    wheelbase_m: float = 2.9
    max_wheel_rad: float = math.radians(20.0)
    steering_lag_s: float = 0.1
    max_throttle_mps2: float = 3.0
    max_brake_mps2: float = 7.0
    drag_per_s: float = 0.25
    max_lateral_mps2: float = 7.0

    def __post_init__(self) -> None:
        for setting in fields(self):
            coerce_quantity(self, setting.name, 1e-6, 1e3, "SI units")

    @property
    def body(self) -> BodySize:
        """Outer size of the car and the place of its wheels."""
        return BodySize(self.length_m, self.width_m, self.wheelbase_m)


def advance(motion: Motion, control: Control, dt_s: float, settings: VehicleSettings) -> Motion:
    """Return the motion ``dt_s`` seconds later.

    The wheels follow the steering with a first-order lag. Above the speed at which the tyres would have to carry
    more than ``max_lateral_mps2`` the car turns less than its wheels ask. It never rolls backwards.

    Source: Kong et al. 2015, "Kinematic and dynamic vehicle models for autonomous driving control design", eq. 1.
    """
    target_rad = -control.steer * settings.max_wheel_rad
    wheel_rad = motion.wheel_rad + (target_rad - motion.wheel_rad) * -math.expm1(-dt_s / settings.steering_lag_s)
    acceleration = (
        settings.max_throttle_mps2 * control.throttle
        - settings.max_brake_mps2 * control.brake
        - settings.drag_per_s * motion.speed_mps
    )
    speed = max(0.0, motion.speed_mps + acceleration * dt_s)
    tan_wheel = math.tan(wheel_rad)
    grip = settings.max_lateral_mps2 * settings.wheelbase_m
    if abs(tan_wheel) * speed * speed > grip:
        tan_wheel = math.copysign(grip / (speed * speed), tan_wheel)
    slip_rad = math.atan(0.5 * tan_wheel)  # the centre lies midway between the axles
    yaw = motion.yaw_rad + speed * math.cos(slip_rad) * tan_wheel / settings.wheelbase_m * dt_s
    course = yaw + slip_rad
    x = motion.x_m + speed * math.cos(course) * dt_s
    y = motion.y_m + speed * math.sin(course) * dt_s
    return Motion(x, y, yaw, speed, wheel_rad)
