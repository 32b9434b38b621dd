"""Drivers that learn nothing: what a policy's metres and returns are to be compared with.

Each acts on the state of the environment, not on its pixels.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.envs.driving_env import DrivingEnv
from sb3_visual_td3.envs.observation import to_vehicle_frame

Action = NDArray[np.float32]


class Driver(Protocol):
    """Whoever can be put behind the wheel."""

    def act(self, env: DrivingEnv) -> Action:
        """Return steer and pedal, ``(2,) float32`` in [-1, 1], for the environment as it is now."""


class PurePursuitDriver:
    """Steers along the arc to a point of the lane some metres ahead, and holds the target speed.

    Source: Coulter 1992, "Implementation of the pure pursuit path tracking algorithm", section 2: the curvature of
    the arc is twice the goal's sideways distance over the square of its distance.

    :param near_m: how far ahead the goal lies at standstill.
    :param ahead_s: by how many seconds of driving it lies farther at speed.
    :param wheelbase_m: of the vehicle, from axle to axle.
    :param max_wheel_rad: angle of the wheels at full lock.
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

    def act(self, env: DrivingEnv) -> Action:
        """Return steer and pedal, ``(2,) float32`` in [-1, 1]."""
        state, target_mps = env.vehicle, env.settings.target_speed_mps
        (goal,) = env.waypoints_m([self.near_m + self.ahead_s * state.speed_mps])
        forward, left = to_vehicle_frame(state, *goal)
        wheel_rad = math.atan(2.0 * left / (forward * forward + left * left) * self.wheelbase_m)
        pedal = target_mps / 12.0 + (target_mps - state.speed_mps) / 1.5
        return np.array([_within_reach(-wheel_rad / self.max_wheel_rad), _within_reach(pedal)], np.float32)


class ConstantDriver:
    """Holds one action, whatever happens.

    :param steer: in [-1, 1], positive to the right.
    :param pedal: in [-1, 1], positive is throttle.
    """

    def __init__(self, steer: float, pedal: float) -> None:
        self._action: Action = np.array([steer, pedal], np.float32)

    def act(self, env: DrivingEnv) -> Action:  # noqa: ARG002  this driver does not look
        """Return steer and pedal, ``(2,) float32`` in [-1, 1]."""
        return np.array(self._action)


class StraightThrottleDriver(ConstantDriver):
    """Never steers, with the throttle that in the end holds about 30 km/h."""

    def __init__(self) -> None:
        super().__init__(0.0, 0.7)


class FullThrottleDriver(ConstantDriver):
    """Never steers, all the way down."""

    def __init__(self) -> None:
        super().__init__(0.0, 1.0)


class FullBrakeDriver(ConstantDriver):
    """Brakes, always."""

    def __init__(self) -> None:
        super().__init__(0.0, -1.0)


class RandomDriver:
    """Draws every action uniformly.

    :param seed: of its own random stream.
    """

    def __init__(self, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)

    def act(self, env: DrivingEnv) -> Action:  # noqa: ARG002  this driver does not look
        """Return steer and pedal, ``(2,) float32`` in [-1, 1]."""
        return self._rng.uniform(-1.0, 1.0, 2).astype(np.float32)


def _within_reach(value: float) -> float:
    return min(1.0, max(-1.0, value))


class Episode(NamedTuple):
    """What a driver achieved."""

    episode_return: float
    n_steps: int
    distance_m: float
    mean_speed_mps: float
    max_abs_offset_m: float
    last_info: dict[str, Any]


def drive_episode(env: DrivingEnv, driver: Driver, seed: int, max_steps: int = 500) -> Episode:
    """Drive one episode and tell what came of it.

    :param env: without gymnasium's wrappers (``gym.make(...).unwrapped``).
    :param driver: who acts.
    :param seed: of the episode's start.
    :param max_steps: the time limit in decisions, > 0.
    """
    _, info = env.reset(seed=seed)
    total, speeds, offsets = 0.0, [], []
    for _ in range(max_steps):
        _, reward, terminated, truncated, info = env.step(driver.act(env))
        total += reward
        speeds.append(info["speed_mps"])
        offsets.append(abs(info["lateral_offset_m"]))
        if terminated or truncated:
            break
    return Episode(total, len(speeds), info["distance_m"], sum(speeds) / len(speeds), max(offsets), info)
