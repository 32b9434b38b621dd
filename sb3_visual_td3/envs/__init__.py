"""Register the driving environments ``LiteDriving-v0``, ``LiteRoutes-v0`` and ``CarlaDriving-v0`` with gymnasium.

Task and reward are the same in all of them. The simulators and OpenCV are imported only when an environment is made.
"""

from __future__ import annotations

import gymnasium as gym
from gymnasium.envs.registration import WrapperSpec

LITE_DRIVING_ID = "LiteDriving-v0"
LITE_ROUTES_ID = "LiteRoutes-v0"
CARLA_DRIVING_ID = "CarlaDriving-v0"


class RegisteredLimit(int):
    """Distinguish the registered ``max_episode_steps`` from a limit that the user passes to ``gym.make``.

    On a route to a goal, the route's own time limit replaces the registered limit, but not the user's limit.
    """


MAX_EPISODE_STEPS = RegisteredLimit(500)
"""Steps after which gymnasium truncates an episode; ``gym.make(..., max_episode_steps=N)`` changes it."""

# ``gym.make`` applies this wrapper last: it removes the registered limit where routes have their own time limit.
_OWN_LIMIT = WrapperSpec("without_step_limit", "sb3_visual_td3.envs.driving_env:without_step_limit", {})

_ENTRY_POINTS = {
    LITE_DRIVING_ID: "sb3_visual_td3.envs.lite.lite_env:LiteDrivingEnv",
    LITE_ROUTES_ID: "sb3_visual_td3.envs.lite.lite_env:LiteRoutesEnv",
    CARLA_DRIVING_ID: "sb3_visual_td3.envs.carla.carla_env:CarlaDrivingEnv",
}


def register_envs() -> None:
    """Register every environment of this package; a second call changes nothing."""
    for env_id, entry_point in _ENTRY_POINTS.items():
        # Entry points are strings, so that gymnasium imports a world only when an environment is made.
        if env_id not in gym.registry:
            gym.register(
                id=env_id,
                entry_point=entry_point,
                max_episode_steps=MAX_EPISODE_STEPS,
                additional_wrappers=(_OWN_LIMIT,),
            )
