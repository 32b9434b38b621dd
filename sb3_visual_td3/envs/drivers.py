"""Drive by pure pursuit, without learning; the driver is a strong baseline for a policy's distance and return.

The driver uses the vehicle's exact state, not the camera. The weak baselines, such as random actions, are in
``callbacks.drives``.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.envs.driving_env import DrivingEnv
from sb3_visual_td3.envs.observation import to_vehicle_frame

_PREVIEW_M = tuple(2.5 * number for number in range(11))
"""The driver looks for bends at points of the lane at these distances ahead of the vehicle."""
_BEND_MPS2 = 4.0
"""The driver slows down for a bend if its lateral acceleration would be larger than this."""
_BRAKING_MPS2 = 2.0
"""The driver brakes with this deceleration before a bend, a stop line or a pedestrian."""
_HARD_BRAKING_MPS2 = 5.0
"""When a light turns yellow, the driver stops if this deceleration is enough to stop before the stop line."""
_STOP_BEFORE_M = 4.0
"""Distance from the vehicle's centre to a stop line or a pedestrian when the vehicle stops: half its length and a
margin."""
_FOLLOW_M = 5.0
"""Distance from the vehicle's centre to the rear of the car ahead when both stand still: half the vehicle's length and
a margin."""


class PurePursuitDriver:
    """Steer towards a point of the lane some metres ahead, along a circular arc, and hold the target speed.

    The driver slows down for bends only on a route to a goal.

    Source: Coulter 1992, "Implementation of the pure pursuit path tracking algorithm", section 2.

    :param near_m: distance to the point when the vehicle stands still, in metres
    :param ahead_s: factor on the speed, in seconds: the distance is ``near_m + ahead_s * speed``
    :param wheelbase_m: wheelbase of the vehicle in metres
    :param max_wheel_rad: steering angle at full lock, in radians
    """

    def __init__(
        self,
        near_m: float = 2.0,
        ahead_s: float = 0.4,
        wheelbase_m: float = 2.9,
        max_wheel_rad: float = math.radians(20.0),
    ) -> None:
        self.near_m = near_m
        self.ahead_s = ahead_s
        self.wheelbase_m = wheelbase_m
        self.max_wheel_rad = max_wheel_rad

    def act(self, env: DrivingEnv) -> NDArray[np.float32]:
        """Return the action for the current state of ``env``.

        :param env: environment without gymnasium's wrappers (``gym.make(...).unwrapped``)
        :return: steer and pedal, ``(2,) float32`` in [-1, 1]
        """
        state, target_mps = env.vehicle, env.settings.target_speed_mps
        if state.has_goal:
            target_mps = min(target_mps, self._bend_speed_mps(env))
        # If the vehicle is too close to stop when a light turns yellow, the driver passes the light.
        if state.speed_mps**2 / (2.0 * _HARD_BRAKING_MPS2) < state.stop_ahead_m:
            room_m = max(0.0, state.stop_ahead_m - _STOP_BEFORE_M)
            target_mps = min(target_mps, math.sqrt(2.0 * _BRAKING_MPS2 * room_m))
        # The vehicle keeps a distance from which it can stop if the car ahead stops.
        gap_m = state.vehicle_ahead_m - _FOLLOW_M
        if gap_m < math.inf:
            follow_mps2 = state.vehicle_ahead_mps * abs(state.vehicle_ahead_mps) + 2.0 * _BRAKING_MPS2 * gap_m
            target_mps = min(target_mps, math.sqrt(max(0.0, follow_mps2)))
        (goal,) = env.waypoints_m([self.near_m + self.ahead_s * state.speed_mps])
        forward_m, left_m = to_vehicle_frame(state, *goal)
        curvature_per_m = 2.0 * left_m / (forward_m * forward_m + left_m * left_m)
        # Bicycle model: tan(wheel angle) = curvature * wheelbase.
        wheel_rad = math.atan(curvature_per_m * self.wheelbase_m)
        # Wheel angles are positive to the left, steering is positive to the right.
        steer = -wheel_rad / self.max_wheel_rad
        # The first term holds the target speed against drag (full throttle holds 12 m/s), the second corrects the
        # speed.
        pedal = target_mps / 12.0 + (target_mps - state.speed_mps) / 1.5
        if target_mps == 0.0:
            pedal = -1.0  # full brake holds the vehicle at standstill
        return np.array([min(1.0, max(-1.0, steer)), min(1.0, max(-1.0, pedal))], np.float32)

    @staticmethod
    def _bend_speed_mps(env: DrivingEnv) -> float:
        """Return the highest speed in m/s that lets the vehicle slow down in time for all bends in the next 25 m."""
        points = env.waypoints_m(_PREVIEW_M)
        slowest_mps = math.inf
        for ahead_m, (one, two, three) in zip(
            _PREVIEW_M, zip(points, points[1:], points[2:], strict=False), strict=False
        ):
            # The circle through three points has the curvature 4 area / (product of the sides) (Menger's formula).
            sides = math.dist(one, two) * math.dist(two, three) * math.dist(one, three)
            twice_area = (two[0] - one[0]) * (three[1] - one[1]) - (three[0] - one[0]) * (two[1] - one[1])
            if sides > 0.0 and twice_area:
                # The square of the speed at which this curvature gives the permitted lateral acceleration.
                square_in_bend = _BEND_MPS2 * sides / (2.0 * abs(twice_area))
                slowest_mps = min(slowest_mps, math.sqrt(square_in_bend + 2.0 * _BRAKING_MPS2 * ahead_m))
        return slowest_mps
