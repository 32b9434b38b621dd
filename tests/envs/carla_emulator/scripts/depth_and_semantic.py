"""Measure the depth and the semantic tags of a car at a known distance."""

import argparse
import queue

import carla
import numpy as np


def to_bgra_array(image):
    array = np.frombuffer(image.raw_data, dtype=np.dtype("uint8"))
    return np.reshape(array, (image.height, image.width, 4))


def depth_to_array(image):
    array = to_bgra_array(image).astype(np.float32)
    normalized_depth = np.dot(array[:, :, :3], [65536.0, 256.0, 1.0])
    normalized_depth /= 16777215.0
    return normalized_depth * 1000.0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", default=2000, type=int)
    args = parser.parse_args()
    client = carla.Client(args.host, args.port)
    client.set_timeout(60.0)
    world = client.get_world()
    world.apply_settings(carla.WorldSettings(synchronous_mode=True, fixed_delta_seconds=0.05))
    library = world.get_blueprint_library()
    start = world.get_map().get_spawn_points()[0]
    ahead = start.get_forward_vector()
    ego = world.spawn_actor(library.find("vehicle.tesla.model3"), start)
    place = carla.Location(start.location.x + 20.0 * ahead.x, start.location.y + 20.0 * ahead.y, 0.5)
    other = world.spawn_actor(library.find("vehicle.audi.tt"), carla.Transform(place, start.rotation))
    actors = [ego, other]
    queues = []
    for kind in ("depth", "semantic_segmentation"):
        blueprint = library.find(f"sensor.camera.{kind}")
        blueprint.set_attribute("image_size_x", "160")
        blueprint.set_attribute("image_size_y", "120")
        camera = world.spawn_actor(blueprint, carla.Transform(carla.Location(x=2.0, z=1.2)), attach_to=ego)
        actors.append(camera)
        queues.append(queue.Queue())
        camera.listen(queues[-1].put)
    for _ in range(10):
        frame = world.tick()
    images = []
    for q in queues:
        image = q.get(timeout=60.0)
        while image.frame < frame:
            image = q.get(timeout=60.0)
        images.append(image)
    depth, tags = depth_to_array(images[0]), to_bgra_array(images[1])[..., 2]

    assert set(np.unique(tags)) <= {1, 3, 9, 10, 11, 14, 24}, np.unique(tags)
    is_car = tags == 14
    assert is_car[62, 80], "the car ahead stands in the middle"
    # From the camera at 2.0 m to the rear of the other: 20 - 2 - half a car.
    rear = 20.0 - 2.0 - other.bounding_box.extent.x
    assert abs(depth[62, 80] - rear) < 0.3, (depth[62, 80], rear)
    assert abs(np.median(depth[is_car]) - rear) < 1.0
    columns = np.flatnonzero(is_car.any(axis=0))
    width = (columns[-1] - columns[0] + 1) * rear / 80.0
    assert abs(width - 2.0 * other.bounding_box.extent.y) < 0.5, width
    # A row below the horizon sees flat ground: height * focal length / rows.
    assert tags[100, 40:120].tolist().count(1) > 60
    assert abs(depth[100, 80] - 1.2 * 80.0 / 40.5) < 0.05, depth[100, 80]
    assert (depth[:40] > 900.0).all(), "the sky is far away"
    images[0].convert(carla.ColorConverter.LogarithmicDepth)
    grey = to_bgra_array(images[0])
    assert (grey[..., 0] == grey[..., 1]).all()
    assert grey[5, 80, 0] > grey[110, 80, 0]
    images[1].convert(carla.ColorConverter.CityScapesPalette)
    assert to_bgra_array(images[1])[100, 80, :3].tolist() == [128, 64, 128]
    for sensor in actors[2:]:
        sensor.stop()
    client.apply_batch_sync([carla.command.DestroyActor(x) for x in actors])
    world.apply_settings(carla.WorldSettings(synchronous_mode=False))
    print("done")


if __name__ == "__main__":
    main()
