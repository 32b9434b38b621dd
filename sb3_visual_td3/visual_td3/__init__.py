"""Implement VisualTD3, which is TD3 for observations with images."""

from sb3_visual_td3.visual_td3.policies import VisualCnnPolicy, VisualMlpPolicy, VisualMultiInputPolicy
from sb3_visual_td3.visual_td3.visual_td3 import VisualTD3

CnnPolicy = VisualCnnPolicy
MlpPolicy = VisualMlpPolicy
MultiInputPolicy = VisualMultiInputPolicy

__all__ = ["CnnPolicy", "MlpPolicy", "MultiInputPolicy", "VisualTD3"]
