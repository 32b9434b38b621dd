"""Single episodes of an environment without wrappers, driven by a function of the environment."""

from typing import Any, NamedTuple

import numpy as np


class Episode(NamedTuple):
    episode_return: float
    n_steps: int
    distance_m: float
    mean_speed_mps: float
    max_abs_offset_m: float
    last_info: dict[str, Any]


def drive_episode(env, act, seed, max_steps=500):
    """Drive one episode and return its result; ``act`` maps the environment to an action."""
    _, info = env.reset(seed=seed)
    total, speeds, offsets = 0.0, [], []
    for _ in range(max_steps):
        _, reward, terminated, truncated, info = env.step(act(env))
        total += reward
        speeds.append(info["speed_mps"])
        offsets.append(abs(info["lateral_offset_m"]))
        if terminated or truncated:
            break
    return Episode(total, len(speeds), info["distance_m"], sum(speeds) / len(speeds), max(offsets), info)


def hold(steer, pedal):
    """Return a driver that holds one action."""
    action = np.array([steer, pedal], np.float32)
    return lambda _: action
