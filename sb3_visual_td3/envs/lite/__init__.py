"""The embedded world: a seeded road, a kinematic car, and a camera, all in the process of the environment."""
