"""rl-zoo with ``--algo visual_td3``."""

from sb3_visual_td3.zoo.plugin import register

__all__ = ["register"]
