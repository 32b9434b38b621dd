"""Simulate the embedded world: a seeded road, a kinematic car, and a camera, in the process of the environment."""
