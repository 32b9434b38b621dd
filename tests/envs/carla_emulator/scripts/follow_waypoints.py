"""Keep the lane with a driver of ten lines that follows the map's waypoints."""

import argparse
import math

import carla


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", default=2000, type=int)
    args = parser.parse_args()
    client = carla.Client(args.host, args.port)
    client.set_timeout(60.0)
    world = client.load_world("Town03")  # with a junction
    settings = world.get_settings()
    settings.synchronous_mode = True
    settings.fixed_delta_seconds = 0.05
    world.apply_settings(settings)
    town = world.get_map()
    assert len(town.get_topology()) > 10
    assert len(town.generate_waypoints(2.0)) > 500
    vehicle = world.spawn_actor(world.get_blueprint_library().filter("vehicle.*")[0], town.get_spawn_points()[0])
    world.tick()
    here = vehicle.get_location()
    assert town.get_waypoint(here).transform.location.distance(here) < 0.1
    driven, worst = 0.0, 0.0
    for _ in range(1200):
        transform = vehicle.get_transform()
        waypoint = town.get_waypoint(transform.location, project_to_road=True, lane_type=carla.LaneType.Driving)
        ways = waypoint.next(6.0)  # several before a junction: straight on
        yaw = waypoint.transform.rotation.yaw
        straight = min(ways, key=lambda way: abs((way.transform.rotation.yaw - yaw + 180.0) % 360.0 - 180.0))
        target = straight.transform.location
        bearing = math.degrees(math.atan2(target.y - transform.location.y, target.x - transform.location.x))
        error = (bearing - transform.rotation.yaw + 180.0) % 360.0 - 180.0
        speed = vehicle.get_velocity().length()
        throttle = 0.6 if speed < 6.0 else 0.0
        vehicle.apply_control(carla.VehicleControl(throttle=throttle, steer=max(-1.0, min(1.0, error / 25.0))))
        world.tick()
        driven += speed * 0.05
        worst = max(worst, waypoint.transform.location.distance(transform.location))
    assert driven > 250.0, driven
    assert worst < 1.2, worst
    vehicle.destroy()
    settings.synchronous_mode = False
    world.apply_settings(settings)
    print("done", round(driven), round(worst, 2))


if __name__ == "__main__":
    main()
