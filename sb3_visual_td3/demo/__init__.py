"""Implement ``visual-td3 demo``: a trained policy drives, without torch and without training."""
