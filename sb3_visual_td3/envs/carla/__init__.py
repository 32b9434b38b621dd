"""Connect the driving task to CARLA, through CARLA's official client.

``carla_env`` is the environment, ``backend`` implements the interface ``envs.backend.Backend`` on a server, ``ego``
is the driven vehicle with its sensors, ``spawning`` places the other cars, ``connection`` wraps the client, and
``server`` finds or starts the simulator. The module ``carla`` is imported when an environment connects, not before.
"""
