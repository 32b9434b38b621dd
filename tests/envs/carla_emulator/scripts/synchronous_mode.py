"""Run CARLA's synchronous_mode.py without its window: several sensors, one queue each, matched by frame."""

import argparse
import queue
import random

import carla
import numpy as np


class CarlaSyncMode:
    """Context manager to synchronize output from different sensors."""

    def __init__(self, world, *sensors, **kwargs):
        self.world = world
        self.sensors = sensors
        self.frame = None
        self.delta_seconds = 1.0 / kwargs.get("fps", 20)
        self._queues = []
        self._settings = None

    def __enter__(self):
        self._settings = self.world.get_settings()
        self.frame = self.world.apply_settings(
            carla.WorldSettings(no_rendering_mode=False, synchronous_mode=True, fixed_delta_seconds=self.delta_seconds)
        )

        def make_queue(register_event):
            q = queue.Queue()
            register_event(q.put)
            self._queues.append(q)

        make_queue(self.world.on_tick)
        for sensor in self.sensors:
            make_queue(sensor.listen)
        return self

    def tick(self, timeout):
        self.frame = self.world.tick()
        data = [self._retrieve_data(q, timeout) for q in self._queues]
        assert all(x.frame == self.frame for x in data)
        return data

    def __exit__(self, *args, **kwargs):
        self.world.apply_settings(self._settings)

    def _retrieve_data(self, sensor_queue, timeout):
        while True:
            data = sensor_queue.get(timeout=timeout)
            if data.frame == self.frame:
                return data


def draw_image(image):
    array = np.frombuffer(image.raw_data, dtype=np.dtype("uint8"))
    array = np.reshape(array, (image.height, image.width, 4))
    return array[:, :, :3][:, :, ::-1].copy()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", default=2000, type=int)
    args = parser.parse_args()
    actor_list = []
    client = carla.Client(args.host, args.port)
    client.set_timeout(60.0)
    world = client.get_world()
    try:
        m = world.get_map()
        start_pose = random.choice(m.get_spawn_points())
        waypoint = m.get_waypoint(start_pose.location)
        blueprint_library = world.get_blueprint_library()
        vehicle = world.spawn_actor(random.choice(blueprint_library.filter("vehicle.*")), start_pose)
        actor_list.append(vehicle)
        vehicle.set_simulate_physics(False)

        camera_rgb = world.spawn_actor(
            blueprint_library.find("sensor.camera.rgb"),
            carla.Transform(carla.Location(x=-5.5, z=2.8), carla.Rotation(pitch=-15)),
            attach_to=vehicle,
        )
        actor_list.append(camera_rgb)
        camera_semseg = world.spawn_actor(
            blueprint_library.find("sensor.camera.semantic_segmentation"),
            carla.Transform(carla.Location(x=-5.5, z=2.8), carla.Rotation(pitch=-15)),
            attach_to=vehicle,
        )
        actor_list.append(camera_semseg)
        gnss = world.spawn_actor(blueprint_library.find("sensor.other.gnss"), carla.Transform(), attach_to=vehicle)
        actor_list.append(gnss)

        with CarlaSyncMode(world, camera_rgb, camera_semseg, gnss, fps=30) as sync_mode:
            for _ in range(5):  # the first image may come a tick late
                world.tick()
            before, seconds = None, None
            for _ in range(30):
                snapshot, image_rgb, image_semseg, fix = sync_mode.tick(timeout=60.0)
                waypoint = random.choice(waypoint.next(1.5))
                vehicle.set_transform(waypoint.transform)
                tags = np.unique(draw_image(image_semseg)[..., 0])
                assert 1 in tags, tags  # the road
                assert {14, 15, 16, 18, 19} & set(tags.tolist()), tags  # the vehicle with the camera
                image_semseg.convert(carla.ColorConverter.CityScapesPalette)
                picture = draw_image(image_rgb)
                assert picture.shape == (600, 800, 3)
                assert picture.std() > 10.0
                assert abs(snapshot.timestamp.delta_seconds - 1.0 / 30.0) < 1e-6
                if seconds is not None:
                    assert abs(snapshot.timestamp.elapsed_seconds - seconds - 1.0 / 30.0) < 1e-6
                    moved = vehicle.get_location().distance(before)
                    assert 1.0 < moved < 2.0, moved
                    expected = m.transform_to_geolocation(vehicle.get_location())
                    assert abs(fix.latitude - expected.latitude) < 2e-7
                    assert abs(fix.longitude - expected.longitude) < 2e-7
                before, seconds = vehicle.get_location(), snapshot.timestamp.elapsed_seconds
        assert not world.get_settings().synchronous_mode
    finally:
        for actor in actor_list[1:]:
            actor.stop()
        for actor in actor_list:
            actor.destroy()
    print("done")


if __name__ == "__main__":
    main()
