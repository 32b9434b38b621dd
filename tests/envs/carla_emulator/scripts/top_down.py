"""Place the spectator and an unattached camera above a car."""

import argparse
import queue

import carla
import numpy as np


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
    start = world.get_map().get_spawn_points()[2]
    bp = library.find("vehicle.tesla.model3")
    bp.set_attribute("color", "255,0,0")
    vehicle = world.spawn_actor(bp, start)
    world.tick()

    spectator = world.get_spectator()
    transform = vehicle.get_transform()
    above = carla.Transform(transform.location + carla.Location(z=40), carla.Rotation(pitch=-90))
    spectator.set_transform(above)
    world.tick()
    assert spectator.get_transform().location.distance(above.location) < 0.01

    camera_bp = library.find("sensor.camera.rgb")
    camera_bp.set_attribute("image_size_x", "400")
    camera_bp.set_attribute("image_size_y", "400")
    camera = world.spawn_actor(camera_bp, spectator.get_transform())
    images = queue.Queue()
    camera.listen(images.put)
    frame = 0

    def picture():
        frame = world.tick()
        while (image := images.get(timeout=60.0)).frame < frame:
            pass
        return np.frombuffer(image.raw_data, np.uint8).reshape(400, 400, 4)[..., :3].astype(int)

    for _ in range(10):
        frame = world.tick()
    assert frame
    seen = picture()
    is_red = (seen[..., 2] > 1.6 * seen[..., 1]) & (seen[..., 2] > 120)
    rows, columns = np.nonzero(is_red)
    # 40 m up and 90 degrees wide: 5 pixels a metre; the car has about 4.4 x 1.8 m.
    assert abs(rows.mean() - 199.5) < 3.0
    assert abs(columns.mean() - 199.5) < 3.0
    metres2 = len(rows) / 25.0
    assert 6.0 < metres2 < 14.0, metres2
    # North (-x up the picture, for a camera with yaw 0 looks along +x at the top): the car drives towards +x.
    vehicle.set_simulate_physics(False)
    vehicle.set_transform(carla.Transform(transform.location + carla.Location(x=10.0), transform.rotation))
    seen = picture()
    is_red = (seen[..., 2] > 1.6 * seen[..., 1]) & (seen[..., 2] > 120)
    rows, columns = np.nonzero(is_red)
    assert abs(rows.mean() - 149.5) < 4.0, rows.mean()
    assert abs(columns.mean() - 199.5) < 3.0
    camera.stop()
    camera.destroy()
    vehicle.destroy()
    world.apply_settings(carla.WorldSettings(synchronous_mode=False))
    print("done")


if __name__ == "__main__":
    main()
