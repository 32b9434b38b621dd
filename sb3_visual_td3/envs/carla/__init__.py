"""Connect the driving task to CARLA, through CARLA's official client.

``carla_env`` defines the environment. ``backend`` implements the environment's world on a CARLA server, ``ego``
controls the driven vehicle, and ``server`` finds or starts the simulator. The module ``carla`` is imported only when an
environment connects.
"""
