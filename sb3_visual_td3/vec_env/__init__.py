"""Run environments on other machines, with a Stable-Baselines3 VecEnv on Ray (extra ``ray``)."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sb3_visual_td3.vec_env.ray_vec_env import RayVecEnv

__all__ = ["RayVecEnv"]


def __getattr__(name: str) -> Any:
    """Import RayVecEnv when it is first used.

    Importing it in each Ray actor would also import torch, which costs two seconds and 300 MB.
    """
    if name != "RayVecEnv":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sb3_visual_td3.vec_env.ray_vec_env import RayVecEnv

    return RayVecEnv
