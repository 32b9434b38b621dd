"""Environments on other machines: Stable-Baselines3's VecEnv on Ray (extra ``ray``)."""

from sb3_visual_td3.vec_env.ray_vec_env import RayVecEnv

__all__ = ["RayVecEnv"]
