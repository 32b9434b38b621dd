"""Synchronise several sensors through one queue, as in PythonAPI's sensor_synchronization.py."""

import argparse
from queue import Empty, Queue

import carla

parser = argparse.ArgumentParser()
parser.add_argument("--host", default="localhost")
parser.add_argument("--port", default=2000, type=int)
args = parser.parse_args()
client = carla.Client(args.host, args.port)
client.set_timeout(60.0)
world = client.get_world()
original_settings = world.get_settings()
settings = world.get_settings()
settings.fixed_delta_seconds = 0.1
settings.synchronous_mode = True
world.apply_settings(settings)

sensor_queue = Queue()
actors = []
try:
    library = world.get_blueprint_library()
    vehicle = world.spawn_actor(library.find("vehicle.audi.tt"), world.get_map().get_spawn_points()[0])
    actors.append(vehicle)
    names = []
    for name in ("camera.rgb", "camera.depth", "camera.semantic_segmentation", "other.gnss", "other.imu"):
        blueprint = library.find(f"sensor.{name}")
        if "camera" in name:
            blueprint.set_attribute("image_size_x", "160")
            blueprint.set_attribute("image_size_y", "120")
        sensor = world.spawn_actor(blueprint, carla.Transform(carla.Location(x=1.5, z=2.4)), attach_to=vehicle)
        sensor.listen(lambda data, name=name: sensor_queue.put((data.frame, name, data)))
        actors.append(sensor)
        names.append(name)
    for _ in range(10):  # subscriptions take a moment
        world.tick()
    while True:
        try:
            sensor_queue.get(timeout=0.3)
        except Empty:
            break
    for _ in range(30):
        vehicle.apply_control(carla.VehicleControl(throttle=0.6, steer=0.05))
        frame = world.tick()
        got = [sensor_queue.get(True, 2.0) for _ in names]
        assert sorted(name for _, name, _ in got) == sorted(names)
        assert all(each_frame == frame for each_frame, _, _ in got)
    by_name = {name: data for _, name, data in got}
    assert (by_name["camera.rgb"].width, by_name["camera.rgb"].height) == (160, 120)
    assert abs(by_name["other.imu"].accelerometer.z - 9.81) < 0.1
    assert by_name["other.imu"].gyroscope.z > 0.0  # turning right, as CARLA's yaw does
    expected = world.get_map().transform_to_geolocation(actors[-1].get_location())
    assert abs(by_name["other.gnss"].latitude - expected.latitude) < 1e-8
    assert abs(by_name["other.gnss"].longitude - expected.longitude) < 1e-8
    by_name["camera.semantic_segmentation"].convert(carla.ColorConverter.CityScapesPalette)
    colours = {tuple(by_name["camera.semantic_segmentation"].raw_data[i : i + 3]) for i in range(0, 160 * 120 * 4, 4)}
    assert (128, 64, 128) in colours, "no road in CityScapes' palette"
    by_name["camera.depth"].convert(carla.ColorConverter.LogarithmicDepth)
finally:
    world.apply_settings(original_settings)
    for actor in reversed(actors):
        if hasattr(actor, "stop"):
            actor.stop()
    world.wait_for_tick()
    for actor in reversed(actors):
        actor.destroy()
print("done")
