"""Implement the embedded world: a small simulator of roads, a car and its camera, inside the Python process."""
