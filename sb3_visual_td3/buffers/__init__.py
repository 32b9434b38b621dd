"""Replay buffers that Stable-Baselines3 lacks."""
