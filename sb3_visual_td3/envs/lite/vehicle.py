"""Move a car by the kinematic bicycle model.

The module uses plain Python floats, which for a single car are several times faster than NumPy's arrays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import NamedTuple

from sb3_visual_td3.envs.arguments import coerce_quantity
from sb3_visual_td3.envs.backend import BodySize, Control


class Motion(NamedTuple):
    """Hold position, heading and speed of the car's centre, and the angle of its front wheels.

    ``wheel_rad`` is positive to the left, but the steering of a ``Control`` is positive to the right.
    """

    x_m: float
    y_m: float
    yaw_rad: float
    speed_mps: float
    wheel_rad: float


@dataclass(frozen=True)
class VehicleSettings:
    """Hold size and limits of the car. Its top speed is ``max_throttle_mps2 / drag_per_s``, 12 m/s by default.

    :raises ValueError: if a value is not positive
    """

    length_m: float = 4.4
    width_m: float = 1.8
    wheelbase_m: float = 2.9
    max_wheel_rad: float = math.radians(20.0)
    steering_lag_s: float = 0.1
    """The wheels follow the steering with this time constant."""
    max_throttle_mps2: float = 3.0
    max_brake_mps2: float = 7.0
    drag_per_s: float = 0.25
    """Drag divided by the speed: the deceleration in m/s^2 per m/s of speed."""
    max_lateral_mps2: float = 7.0
    """Largest lateral acceleration that the tyres can produce; about 0.7 g, as on dry asphalt."""

    def __post_init__(self) -> None:
        for setting in fields(self):
            coerce_quantity(self, setting.name, 1e-6, 1e3, "SI units")

    @property
    def body(self) -> BodySize:
        """Return the outer size of the car and the position of its wheels."""
        return BodySize(self.length_m, self.width_m, self.wheelbase_m)


def advance(motion: Motion, control: Control, dt_s: float, settings: VehicleSettings) -> Motion:
    """Return the motion ``dt_s`` seconds later, by one step of the kinematic bicycle model.

    If the car is too fast for its tyres in a bend (``max_lateral_mps2``), it turns less than the angle of its wheels.
    The car never rolls backwards.

    Source: Kong et al. 2015, "Kinematic and dynamic vehicle models for autonomous driving control design", eq. 1, with
    the centre midway between the axles (l_f = l_r = wheelbase / 2) and semi-implicit Euler steps.

    :param motion: the motion now
    :param control: the driver's controls, held during the step
    :param dt_s: length of the step in seconds
    :param settings: size and limits of the car
    """
    # Steering is positive to the right, wheel angles are positive to the left. The exponential is the exact solution of
    # lag * d(wheel)/dt = target - wheel, so the lag does not depend on the length of the step.
    target_rad = -control.steer * settings.max_wheel_rad
    wheel_rad = motion.wheel_rad + (target_rad - motion.wheel_rad) * -math.expm1(-dt_s / settings.steering_lag_s)
    acceleration_mps2 = (
        settings.max_throttle_mps2 * control.throttle
        - settings.max_brake_mps2 * control.brake
        - settings.drag_per_s * motion.speed_mps
    )
    speed_mps = max(0.0, motion.speed_mps + acceleration_mps2 * dt_s)
    # A bicycle turns with the curvature tan(wheel) / wheelbase. The lateral acceleration curvature * speed^2 stays
    # within the limit where |tan(wheel)| * speed^2 <= limit * wheelbase.
    tan_wheel = math.tan(wheel_rad)
    grip = settings.max_lateral_mps2 * settings.wheelbase_m
    if abs(tan_wheel) * speed_mps * speed_mps > grip:
        tan_wheel = math.copysign(grip / (speed_mps * speed_mps), tan_wheel)
    # Eq. 1: slip = atan(l_r / (l_f + l_r) tan(wheel)) and d(yaw)/dt = speed / l_r sin(slip). With l_r = wheelbase / 2
    # and sin(slip) = cos(slip) tan(wheel) / 2, d(yaw)/dt is speed cos(slip) tan(wheel) / wheelbase.
    slip_rad = math.atan(0.5 * tan_wheel)
    yaw_rad = motion.yaw_rad + speed_mps * math.cos(slip_rad) * tan_wheel / settings.wheelbase_m * dt_s
    # The centre moves in the direction yaw + slip, with the new yaw and speed.
    course_rad = yaw_rad + slip_rad
    x_m = motion.x_m + speed_mps * math.cos(course_rad) * dt_s
    y_m = motion.y_m + speed_mps * math.sin(course_rad) * dt_s
    return Motion(x_m, y_m, yaw_rad, speed_mps, wheel_rad)
