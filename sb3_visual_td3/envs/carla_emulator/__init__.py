"""A server that speaks CARLA 0.9.16's protocol around the embedded world.

CARLA's own client and the scripts that use it run against it without Unreal and without a GPU. The files, from the wire
inwards: ``protocol`` packs bytes, ``server`` and ``streaming`` hold the connections, ``calls`` answers calls,
``simulation`` holds the world of ``actors``, and ``sensing``, ``cameras`` and ``free_camera`` measure it. ``catalogue``
lists maps and blueprints, ``command`` is the command line, and ``process`` runs the server from tests.

The package never imports CARLA's client. Beyond this project it needs msgpack, which the extra ``carla`` installs.
"""
