"""The embedded world: a seeded two-lane road, a kinematic car and a camera, all in this process."""
