"""Driving environments: one task and one reward over exchangeable worlds.

Importing this package is cheap: the worlds, and the image library they draw with, load when an environment is
made. ``register_envs()`` makes the ids known to gymnasium.
"""

from sb3_visual_td3.envs.registration import CARLA_DRIVING_ID, LITE_DRIVING_ID, register_envs

__all__ = ["CARLA_DRIVING_ID", "LITE_DRIVING_ID", "register_envs"]
