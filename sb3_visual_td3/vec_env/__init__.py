"""Environments on other machines: a Stable-Baselines3 VecEnv on Ray (extra ``ray``)."""

from sb3_visual_td3.vec_env.ray_vec_env import RayVecEnv

__all__ = ["RayVecEnv"]
