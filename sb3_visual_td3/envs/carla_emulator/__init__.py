"""A server that speaks CARLA 0.9.16's protocol around the embedded world: client code runs without Unreal and a GPU.

It never imports CARLA's client; what it needs beyond this package is msgpack, of the extra ``carla``.
"""
