"""Listen to collision, lane invasion, GNSS and IMU sensors on a car that drives into another one."""

import argparse
import math
import queue

import carla


def reading_at(frame, heard):
    """Wait for the first measurement of ``frame`` or a later frame: measurements can arrive several ticks late."""
    while (reading := heard.get(timeout=60.0)).frame < frame:
        pass
    return reading


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", default=2000, type=int)
    args = parser.parse_args()
    client = carla.Client(args.host, args.port)
    client.set_timeout(60.0)
    world = client.get_world()
    settings = world.get_settings()
    settings.synchronous_mode = True
    settings.fixed_delta_seconds = 0.05
    world.apply_settings(settings)
    library = world.get_blueprint_library()
    start = world.get_map().get_waypoint(world.get_map().get_spawn_points()[0].location)
    transform = start.transform
    transform.location.z += 0.5
    ego = world.spawn_actor(library.find("vehicle.audi.tt"), transform)
    ahead = transform.get_forward_vector()
    other_at = carla.Transform(transform.location + carla.Location(ahead.x * 9.0, ahead.y * 9.0), transform.rotation)
    other = world.spawn_actor(library.find("vehicle.lincoln.mkz_2020"), other_at)
    sensors = {}
    heard = {}
    for name in ("collision", "lane_invasion", "gnss", "imu"):
        sensors[name] = world.spawn_actor(library.find(f"sensor.other.{name}"), carla.Transform(), attach_to=ego)
        heard[name] = queue.Queue()
        sensors[name].listen(heard[name].put)
    for _ in range(20):  # until every subscription has arrived
        world.tick()
        if not heard["imu"].empty() and not heard["gnss"].empty():
            break

    # Full throttle into the car ahead.
    ego.apply_control(carla.VehicleControl(throttle=1.0))
    speeds = []
    for _ in range(80):
        frame = world.tick()
        speeds.append(ego.get_velocity().length())
    assert max(speeds) > 3.0
    assert speeds[-1] < 0.5, "the struck car holds it up"
    event = heard["collision"].get(timeout=60.0)
    assert event.actor.id == ego.id
    assert event.other_actor.id == other.id
    impulse = event.normal_impulse
    assert math.sqrt(impulse.x**2 + impulse.y**2 + impulse.z**2) > 1000.0
    assert impulse.x * ahead.x + impulse.y * ahead.y < 0.0, "it pushes the ego vehicle back"
    gap = ego.get_location().distance(other.get_location())
    assert 4.0 < gap < 4.6, gap

    # The inertial unit: still now, gravity upwards; the compass counts from the north (-y).
    reading = reading_at(frame, heard["imu"])
    assert abs(reading.accelerometer.z - 9.81) < 0.01
    assert abs(reading.gyroscope.z) < 0.01
    compass = (math.radians(ego.get_transform().rotation.yaw) + math.pi / 2) % (2 * math.pi)
    assert abs(reading.compass - compass) < 1e-3

    # Over the line in the middle of the road: the client itself finds that out.
    other.destroy()
    ego.set_transform(transform)
    ego.set_target_velocity(carla.Vector3D(ahead.x * 6.0, ahead.y * 6.0, 0.0))
    ego.apply_control(carla.VehicleControl(throttle=0.5, steer=-0.2))
    for _ in range(40):
        frame = world.tick()
    crossed = heard["lane_invasion"].get(timeout=60.0)
    assert [str(mark.type) for mark in crossed.crossed_lane_markings] == ["Broken"]

    # Turning to the left in CARLA's coordinates: negative.
    reading = reading_at(frame, heard["imu"])
    assert reading.gyroscope.z < -0.1, reading.gyroscope
    assert reading.accelerometer.y < -0.3, reading.accelerometer
    fix = reading_at(frame, heard["gnss"])
    expected = world.get_map().transform_to_geolocation(ego.get_location())
    assert abs(fix.latitude - expected.latitude) < 1e-7
    assert abs(fix.longitude - expected.longitude) < 1e-7
    for sensor in sensors.values():
        sensor.stop()
    for sensor in sensors.values():
        sensor.destroy()
    ego.destroy()
    settings.synchronous_mode = False
    world.apply_settings(settings)
    print("done")


if __name__ == "__main__":
    main()
