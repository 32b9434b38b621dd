"""Drive in asynchronous mode, the default of a new server: it ticks by itself, and the client waits for ticks."""

import argparse
import math
import time

import carla
import numpy as np

IM_WIDTH, IM_HEIGHT = 160, 120


class CarEnv:
    """An environment as in the well-known tutorial on reinforcement learning in CARLA."""

    front_camera = None

    def __init__(self, host, port):
        self.client = carla.Client(host, port)
        self.client.set_timeout(60.0)
        self.world = self.client.get_world()
        self.blueprint_library = self.world.get_blueprint_library()
        self.model_3 = self.blueprint_library.filter("model3")[0]

    def reset(self):
        self.collision_hist = []
        self.actor_list = []
        self.transform = self.world.get_map().get_spawn_points()[7]
        self.vehicle = self.world.spawn_actor(self.model_3, self.transform)
        self.actor_list.append(self.vehicle)
        self.rgb_cam = self.blueprint_library.find("sensor.camera.rgb")
        self.rgb_cam.set_attribute("image_size_x", f"{IM_WIDTH}")
        self.rgb_cam.set_attribute("image_size_y", f"{IM_HEIGHT}")
        self.rgb_cam.set_attribute("fov", "110")
        transform = carla.Transform(carla.Location(x=2.5, z=0.7))
        self.sensor = self.world.spawn_actor(self.rgb_cam, transform, attach_to=self.vehicle)
        self.actor_list.append(self.sensor)
        self.sensor.listen(lambda data: self.process_img(data))
        self.vehicle.apply_control(carla.VehicleControl(throttle=0.0, brake=0.0))
        time.sleep(0.2)
        colsensor = self.blueprint_library.find("sensor.other.collision")
        self.colsensor = self.world.spawn_actor(colsensor, transform, attach_to=self.vehicle)
        self.actor_list.append(self.colsensor)
        self.colsensor.listen(lambda event: self.collision_hist.append(event))
        deadline = time.time() + 5.0
        while self.front_camera is None:
            assert time.time() < deadline, "no image"
            time.sleep(0.01)
        self.vehicle.apply_control(carla.VehicleControl(throttle=0.0, brake=0.0))
        return self.front_camera

    def process_img(self, image):
        i = np.array(image.raw_data)
        self.front_camera = i.reshape((IM_HEIGHT, IM_WIDTH, 4))[:, :, :3]

    def step(self, steer):
        self.vehicle.apply_control(carla.VehicleControl(throttle=1.0, steer=steer))
        self.world.wait_for_tick(2.0)
        v = self.vehicle.get_velocity()
        kmh = int(3.6 * math.sqrt(v.x**2 + v.y**2 + v.z**2))
        return self.front_camera, kmh, bool(self.collision_hist)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", default=2000, type=int)
    args = parser.parse_args()
    env = CarEnv(args.host, args.port)
    for _ in range(2):
        first = env.reset()
        assert first.shape == (IM_HEIGHT, IM_WIDTH, 3)
        begin = env.world.get_snapshot().timestamp.elapsed_seconds
        real = time.monotonic()
        for _ in range(20):
            image, kmh, has_collided = env.step(0.0)
        passed = env.world.get_snapshot().timestamp.elapsed_seconds - begin
        assert abs(passed - (time.monotonic() - real)) < 0.3, "asynchronous time is real time"
        assert 6 <= kmh <= 12, kmh  # 3 m/s2 for a second
        assert not has_collided
        assert np.abs(image.astype(int) - first).mean() > 0.2
        for actor in env.actor_list[1:]:
            actor.stop()
        time.sleep(0.1)
        for actor in env.actor_list:
            actor.destroy()
        env.front_camera = None
    print("done")


if __name__ == "__main__":
    main()
