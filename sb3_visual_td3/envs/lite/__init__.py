"""Simulate the embedded world, a small simulator in the process of the environment: roads, a car and its camera."""
