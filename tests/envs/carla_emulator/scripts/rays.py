"""Measure a car 12 m ahead, which then drives away, with lidar, radar and obstacle detector."""

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
    start = world.get_map().get_spawn_points()[0]
    ahead = start.get_forward_vector()
    ego = world.spawn_actor(library.find("vehicle.tesla.model3"), start)
    place = carla.Location(start.location.x + 12.0 * ahead.x, start.location.y + 12.0 * ahead.y, 0.5)
    other = world.spawn_actor(library.find("vehicle.audi.tt"), carla.Transform(place, start.rotation))

    lidar_bp = library.find("sensor.lidar.ray_cast")
    lidar_bp.set_attribute("channels", "16")
    lidar_bp.set_attribute("range", "30")
    lidar_bp.set_attribute("rotation_frequency", "20")
    lidar_bp.set_attribute("points_per_second", "160000")
    obstacle_bp = library.find("sensor.other.obstacle")
    obstacle_bp.set_attribute("distance", "20")
    sensors, heard = [], []
    for bp, transform in (
        (lidar_bp, carla.Transform(carla.Location(z=1.8))),
        (library.find("sensor.other.radar"), carla.Transform(carla.Location(x=2.0, z=0.7))),
        (obstacle_bp, carla.Transform(carla.Location(x=2.2, z=0.7))),
    ):
        sensor = world.spawn_actor(bp, transform, attach_to=ego)
        heard.append(queue.Queue())
        sensor.listen(heard[-1].put)
        sensors.append(sensor)

    def latest(q, frame):
        while (data := q.get(timeout=60.0)).frame < frame:
            pass
        return data

    for _ in range(8):
        frame = world.tick()
    rear = 12.0 - other.bounding_box.extent.x
    scan = latest(heard[0], frame)
    assert scan.channels == 16
    points = np.frombuffer(scan.raw_data, np.float32).reshape(-1, 4)
    assert len(points) == len(scan) == sum(scan.get_point_count(n) for n in range(16))
    on_ground = np.abs(points[:, 2] + 1.8) < 0.02
    assert on_ground.mean() > 0.7
    struck = points[~on_ground]
    assert len(struck) > 20
    assert abs(struck[:, 0].min() - rear) < 0.05, struck[:, 0].min()
    assert abs(struck[:, 1]).max() < other.bounding_box.extent.y + 0.05
    assert ((points[:, 3] > 0.8) & (points[:, 3] <= 1.0)).all()

    sweep = latest(heard[1], frame)
    detections = np.frombuffer(sweep.raw_data, np.float32).reshape(-1, 4)
    assert 30 <= len(detections) <= 75
    near = detections[np.abs(detections[:, 3] - (rear - 2.0)) < 0.4]
    assert len(near) > 5
    assert abs(near[:, 0]).max() < 0.01, "it stands"
    assert next(iter(sweep)).depth == detections[0, 3]

    report = latest(heard[2], frame)
    assert report.other_actor.id == other.id
    assert abs(report.distance - (rear - 2.2 - 0.5)) < 0.05, report.distance

    other.apply_control(carla.VehicleControl(throttle=1.0))
    for _ in range(20):
        frame = world.tick()
    speed = other.get_velocity().length()
    sweep = latest(heard[1], frame)
    fastest = max(detection.velocity for detection in sweep)
    assert abs(fastest - speed) < 0.1 * speed, (fastest, speed)  # away from the radar: positive
    for sensor in sensors:
        sensor.stop()
    client.apply_batch_sync([carla.command.DestroyActor(x) for x in [*sensors, ego, other]])
    world.apply_settings(carla.WorldSettings(synchronous_mode=False))
    print("done")


if __name__ == "__main__":
    main()
