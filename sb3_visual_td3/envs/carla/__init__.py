"""Connect the driving task to CARLA, through CARLA's official client.

``carla_env`` is the environment, ``backend`` its world on a server, ``ego`` the driven vehicle, and ``server`` finds or
starts the simulator. The module ``carla`` is imported only when an environment connects.
"""
