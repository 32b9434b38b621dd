"""Describe roads for all worlds: shapes, lanes, routes, the ground, other traffic, and OpenDRIVE."""
