"""Drivers that need no learning, and one episode of each."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from sb3_visual_td3.envs.driving_env import DrivingEnv
from sb3_visual_td3.envs.lite.maps import load_map
from sb3_visual_td3.envs.registration import MAX_EPISODE_STEPS

TARGET_MPS = 30 / 3.6
WHEELBASE_M = 2.9
MAX_WHEEL_RAD = math.radians(20.0)

Driver = Callable[[DrivingEnv, dict[str, Any]], np.ndarray]


class Episode(NamedTuple):
    """What a driver achieved."""

    episode_return: float
    n_steps: int
    max_abs_offset_m: float
    mean_speed_mps: float
    last_info: dict[str, Any]


def drive(env: DrivingEnv, driver: Driver, seed: int) -> Episode:
    _, info = env.reset(seed=seed)
    total, offsets, speeds = 0.0, [], []
    for _ in range(MAX_EPISODE_STEPS):
        _, reward, terminated, _, info = env.step(driver(env, info))
        total += reward
        offsets.append(abs(info["lateral_offset_m"]))
        speeds.append(info["speed_mps"])
        if terminated:
            break
    return Episode(total, len(speeds), max(offsets), sum(speeds) / len(speeds), info)


def pure_pursuit(env: DrivingEnv, info: dict[str, Any]) -> np.ndarray:
    """Steer along the arc to a point of the lane some metres ahead, and hold the target speed."""
    world = env._backend
    state, track = world._state(), load_map(info["map"]).track
    near = int(np.argmin(((track.points_m - (state.x_m, state.y_m)) ** 2).sum(axis=1)))
    ahead = round((2.0 + 0.4 * state.speed_mps) / track.spacing_m)
    to = track.points_m[(near + ahead) % len(track.points_m)] - (state.x_m, state.y_m)
    bearing = math.atan2(to[1], to[0]) - state.yaw_rad
    wheel_rad = math.atan(2.0 * math.sin(bearing) / math.hypot(*to) * WHEELBASE_M)
    pedal = (0.25 * TARGET_MPS + 2.0 * (TARGET_MPS - state.speed_mps)) / 3.0
    return np.clip([-wheel_rad / MAX_WHEEL_RAD, pedal], -1.0, 1.0).astype(np.float32)


def full_brake(env: DrivingEnv, info: dict[str, Any]) -> np.ndarray:
    return np.array([0.0, -1.0], np.float32)
