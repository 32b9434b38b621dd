"""Roads, shared by all worlds: shapes, lanes, routes, the ground, other traffic, and OpenDRIVE."""
