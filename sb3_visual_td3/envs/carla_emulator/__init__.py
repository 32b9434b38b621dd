"""Emulate a CARLA 0.9.16 server: serve this package's own simulator (the embedded world) in CARLA's network protocol.

CARLA's own client, and scripts that use the client, run with this server without Unreal and without a GPU. The files,
from the network inwards: ``protocol`` packs bytes, ``server`` and ``streaming`` hold the connections, ``calls`` answers
calls, ``simulation`` holds the world of ``actors``, and ``sensing``, ``cameras`` and ``free_camera`` compute the
measurements of sensors. ``catalogue`` lists the blueprints, ``served_maps`` provides the maps, ``command`` is the
command line, and ``process`` runs the server from tests.

The package never imports CARLA's client. Beyond this project it needs msgpack, which the extra ``carla`` installs.
"""
