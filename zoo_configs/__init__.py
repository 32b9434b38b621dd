"""rl-zoo hyperparameter files, shipped as package data: ``importlib.resources.files("sb3_visual_td3.zoo_configs")``."""
