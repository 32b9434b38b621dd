"""Emulate a CARLA 0.9.16 server: serve this package's own simulator in CARLA's network protocol.

CARLA's own client runs with this server without Unreal and without a GPU. ``protocol`` packs bytes, ``server`` and
``streaming`` hold the connections, ``calls`` answers calls, and ``simulation`` holds the world. The package never
imports CARLA's client.
"""
