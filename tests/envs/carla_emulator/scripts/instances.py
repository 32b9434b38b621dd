"""Find another vehicle by its id in an instance segmentation image and in a semantic lidar's points."""

import argparse
import queue

import carla
import numpy as np

parser = argparse.ArgumentParser()
parser.add_argument("--host", default="localhost")
parser.add_argument("--port", default=2000, type=int)
args = parser.parse_args()
client = carla.Client(args.host, args.port)
client.set_timeout(60.0)
world = client.get_world()
world.apply_settings(carla.WorldSettings(synchronous_mode=True, fixed_delta_seconds=0.05))
library = world.get_blueprint_library()
start = world.get_map().get_spawn_points()[0]
car = world.spawn_actor(library.find("vehicle.tesla.model3"), start)
ahead = start.location + 12.0 * start.get_forward_vector()
other = world.spawn_actor(library.find("vehicle.audi.tt"), carla.Transform(ahead, start.rotation))

camera_blueprint = library.find("sensor.camera.instance_segmentation")
camera_blueprint.set_attribute("image_size_x", "160")
camera_blueprint.set_attribute("image_size_y", "120")
lidar_blueprint = library.find("sensor.lidar.ray_cast_semantic")
lidar_blueprint.set_attribute("range", "40")
lidar_blueprint.set_attribute("rotation_frequency", "20")
place = carla.Transform(carla.Location(x=0.5, z=2.0))
sensors, queues = [], []
for blueprint in (camera_blueprint, lidar_blueprint):
    sensor = world.spawn_actor(blueprint, place, attach_to=car)
    queues.append(queue.Queue())
    sensor.listen(queues[-1].put)
    sensors.append(sensor)
for _ in range(20):  # a subscription is asynchronous
    frame = world.tick()
measurements = []
for each in queues:
    while (measurement := each.get(timeout=10.0)).frame < frame:
        pass
    measurements.append(measurement)
image, scan = measurements

pixels = np.frombuffer(image.raw_data, np.uint8).reshape(120, 160, 4).astype(int)
ids = pixels[..., 1] + 256 * pixels[..., 0]
is_other = ids == other.id % 2**16
assert is_other.sum() > 50, is_other.sum()
assert set(np.unique(pixels[is_other][:, 2])) == {int(carla.CityObjectLabel.Car)}
assert int(carla.CityObjectLabel.Roads) in np.unique(pixels[~is_other][:, 2])
rows, columns = np.nonzero(is_other)
assert abs(columns.mean() - 79.5) < 10.0, "it drives ahead in the same lane"

hits = [point for point in scan if point.object_idx == other.id]
assert hits, "the lidar does not see the other car"
assert {point.object_tag for point in hits} == {int(carla.CityObjectLabel.Car)}
# The rear of the Audi TT, which is 4.2 m long, seen from 0.5 m ahead of the middle of the own car.
assert abs(min(point.point.x for point in hits) - (12.0 - 2.1 - 0.5)) < 0.3
assert max(point.cos_inc_angle for point in hits) > 0.9
ground = [point for point in scan if point.object_idx == 0]
tags = {point.object_tag for point in ground}
assert {int(carla.CityObjectLabel.Roads), int(carla.CityObjectLabel.Terrain)} <= tags, tags
assert all(abs(point.point.z + 2.0) < 0.01 for point in ground)

for sensor in sensors:
    sensor.stop()
world.tick()
for actor in (*sensors, other, car):
    actor.destroy()
world.tick()
print("done")
