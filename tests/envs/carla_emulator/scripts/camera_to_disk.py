"""Save the images of an RGB and a depth camera to disk, as in the first camera example of CARLA's documentation."""

import argparse
import glob
import os
import queue
import tempfile

import carla
import cv2


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", default=2000, type=int)
    args = parser.parse_args()
    client = carla.Client(args.host, args.port)
    client.set_timeout(60.0)
    world = client.get_world()
    folder = tempfile.mkdtemp()
    settings = world.get_settings()
    settings.synchronous_mode = True
    settings.fixed_delta_seconds = 0.05
    world.apply_settings(settings)
    actor_list = []
    try:
        blueprint_library = world.get_blueprint_library()
        bp = blueprint_library.filter("model3")[0]
        vehicle = world.spawn_actor(bp, world.get_map().get_spawn_points()[3])
        actor_list.append(vehicle)

        camera_bp = blueprint_library.find("sensor.camera.rgb")
        camera_bp.set_attribute("image_size_x", "320")
        camera_bp.set_attribute("image_size_y", "240")
        camera_bp.set_attribute("fov", "110")
        camera_bp.set_attribute("sensor_tick", "0.1")
        camera = world.spawn_actor(camera_bp, carla.Transform(carla.Location(x=1.5, z=2.4)), attach_to=vehicle)
        actor_list.append(camera)
        depth_bp = blueprint_library.find("sensor.camera.depth")
        depth_bp.set_attribute("image_size_x", "160")
        depth_bp.set_attribute("image_size_y", "120")
        depth = world.spawn_actor(depth_bp, carla.Transform(carla.Location(x=1.5, z=2.4)), attach_to=vehicle)
        actor_list.append(depth)

        images, depths = queue.Queue(), queue.Queue()
        camera.listen(images.put)
        depth.listen(depths.put)
        vehicle.apply_control(carla.VehicleControl(throttle=1.0))
        for _ in range(30):
            world.tick()
        first = images.get(timeout=60.0)
        assert (first.width, first.height) == (320, 240)
        assert abs(first.fov - 110.0) < 1e-4
        n_images = 1
        while n_images < 13:  # every second tick
            image = images.get(timeout=60.0)
            assert abs(image.timestamp - first.timestamp - 0.1 * n_images) < 1e-4
            image.save_to_disk(os.path.join(folder, f"{image.frame:06d}.png"))
            n_images += 1
        depths.get(timeout=60.0).save_to_disk(os.path.join(folder, "depth.png"), carla.ColorConverter.LogarithmicDepth)
        files = sorted(glob.glob(os.path.join(folder, "0*.png")))
        assert len(files) == 12
        one, last = cv2.imread(files[0]), cv2.imread(files[-1])
        assert one.shape == (240, 320, 3)
        assert abs(one.astype(int) - last).mean() > 0.5  # the car has moved on
        assert cv2.imread(os.path.join(folder, "depth.png")).shape == (120, 160, 3)
    finally:
        for sensor in actor_list[1:]:
            sensor.stop()
        client.apply_batch_sync([carla.command.DestroyActor(x) for x in actor_list[::-1]])
        settings.synchronous_mode = False
        world.apply_settings(settings)
    print("done")


if __name__ == "__main__":
    main()
