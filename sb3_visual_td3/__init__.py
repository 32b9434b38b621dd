"""Train TD3 from camera pixels with Stable-Baselines3, and report why a training run fails."""

from __future__ import annotations

from importlib import import_module
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from sb3_visual_td3.common.moved_modules import find_moved_modules
from sb3_visual_td3.envs import register_envs

if TYPE_CHECKING:
    from sb3_visual_td3.buffers.frame_replay_buffer import FrameReplayBuffer
    from sb3_visual_td3.buffers.valid_transitions import ValidReplayBuffer
    from sb3_visual_td3.callbacks.driving_eval import DrivingEvalCallback
    from sb3_visual_td3.callbacks.driving_metrics import DrivingMetricsCallback
    from sb3_visual_td3.callbacks.explosion_alert import ExplosionAlertCallback
    from sb3_visual_td3.callbacks.gradient_norm import GradientNormCallback
    from sb3_visual_td3.callbacks.policy_eval import PolicyEvalCallback
    from sb3_visual_td3.callbacks.run_recorder import RunRecorderCallback
    from sb3_visual_td3.callbacks.snapshot import SnapshotCallback
    from sb3_visual_td3.preflight.doctor import doctor
    from sb3_visual_td3.vec_env.ray_vec_env import RayVecEnv
    from sb3_visual_td3.visual_td3.visual_td3 import VisualTD3

__version__ = files(__name__).joinpath("version.txt").read_text(encoding="utf-8").strip()

_HOMES = {
    "FrameReplayBuffer": "buffers.frame_replay_buffer",
    "RayVecEnv": "vec_env.ray_vec_env",
    "ValidReplayBuffer": "buffers.valid_transitions",
    "VisualTD3": "visual_td3.visual_td3",
    "DrivingEvalCallback": "callbacks.driving_eval",
    "DrivingMetricsCallback": "callbacks.driving_metrics",
    "ExplosionAlertCallback": "callbacks.explosion_alert",
    "GradientNormCallback": "callbacks.gradient_norm",
    "PolicyEvalCallback": "callbacks.policy_eval",
    "RunRecorderCallback": "callbacks.run_recorder",
    "SnapshotCallback": "callbacks.snapshot",
    "doctor": "preflight.doctor",
}

__all__ = [
    "DrivingEvalCallback",
    "DrivingMetricsCallback",
    "ExplosionAlertCallback",
    "FrameReplayBuffer",
    "GradientNormCallback",
    "PolicyEvalCallback",
    "RayVecEnv",
    "RunRecorderCallback",
    "SnapshotCallback",
    "ValidReplayBuffer",
    "VisualTD3",
    "__version__",
    "doctor",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that ``visual-td3 report`` does not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


find_moved_modules()
register_envs()
