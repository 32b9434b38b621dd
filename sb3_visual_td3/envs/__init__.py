"""Driving environments: one task and one reward over exchangeable worlds.

Importing this package is cheap. The worlds, and OpenCV, with which they draw, are loaded when an environment is made.
"""

from __future__ import annotations

import gymnasium as gym
from gymnasium.envs.registration import WrapperSpec

LITE_DRIVING_ID = "LiteDriving-v0"
LITE_ROUTES_ID = "LiteRoutes-v0"
CARLA_DRIVING_ID = "CarlaDriving-v0"


class RegisteredLimit(int):
    """A number of steps that comes from the registration, and not from ``gym.make(..., max_episode_steps=N)``.

    On a route the registered limit gives way to the route's own. A limit that the user asks for stays, even if it is
    the same number.
    """


MAX_EPISODE_STEPS = RegisteredLimit(500)
"""Steps after which gymnasium truncates an episode; ``gym.make(..., max_episode_steps=N)`` changes it."""

# Called last by ``gym.make``: routes to a goal have a time limit of their own.
_OWN_LIMIT = WrapperSpec("without_step_limit", "sb3_visual_td3.envs.driving_env:without_step_limit", {})

_ENTRY_POINTS = {
    LITE_DRIVING_ID: "sb3_visual_td3.envs.lite.lite_env:LiteDrivingEnv",
    LITE_ROUTES_ID: "sb3_visual_td3.envs.lite.lite_env:LiteRoutesEnv",
    CARLA_DRIVING_ID: "sb3_visual_td3.envs.carla.carla_env:CarlaDrivingEnv",
}


def register_envs() -> None:
    """Register every environment of this package; a second call changes nothing."""
    for env_id, entry_point in _ENTRY_POINTS.items():
        # Entry points are strings: gymnasium imports a world only when one is made.
        if env_id not in gym.registry:
            gym.register(
                id=env_id,
                entry_point=entry_point,
                max_episode_steps=MAX_EPISODE_STEPS,
                additional_wrappers=(_OWN_LIMIT,),
            )
