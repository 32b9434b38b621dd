"""Describe roads for all simulators: shapes, lanes, routes, the ground, other traffic, and OpenDRIVE."""
