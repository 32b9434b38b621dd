"""Hyperparameter files in rl-zoo's format, read by ``importlib.resources.files("sb3_visual_td3.zoo_configs")``."""
