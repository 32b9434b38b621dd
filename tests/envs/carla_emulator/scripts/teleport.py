"""Teleport actors: physics off, target velocities, impulses, children of a moving parent."""

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
    world = client.get_world()
    world.apply_settings(carla.WorldSettings(synchronous_mode=True, fixed_delta_seconds=0.1))
    library = world.get_blueprint_library()
    start = world.get_map().get_spawn_points()[0]
    car = world.spawn_actor(library.find("vehicle.tesla.model3"), start)
    mast = world.spawn_actor(
        library.find("sensor.other.gnss"), carla.Transform(carla.Location(x=1.0, y=2.0, z=3.0)), attach_to=car
    )
    world.tick()

    # Without physics it stays where it is, whatever the pedals say, and moves only by transforms.
    car.set_simulate_physics(False)
    car.apply_control(carla.VehicleControl(throttle=1.0))
    place = car.get_transform()
    for _ in range(10):
        world.tick()
    assert car.get_location().distance(place.location) < 1e-4
    assert car.get_velocity().length() == 0.0
    for number in range(1, 6):
        target = carla.Transform(place.location + carla.Location(x=0.5 * number), carla.Rotation(yaw=30.0))
        client.apply_batch_sync([carla.command.ApplyTransform(car, target)], False)
        world.tick()
        assert car.get_location().distance(target.location) < 1e-3
        assert abs(car.get_transform().rotation.yaw - 30.0) < 1e-3
        velocity = car.get_velocity()
        assert abs(velocity.x - 5.0) < 0.05, velocity  # 0.5 m in 0.1 s
        assert abs(velocity.y) < 0.01, velocity
    child = mast.get_location()
    cos, sin = math.cos(math.radians(30.0)), math.sin(math.radians(30.0))
    assert abs(child.x - (target.location.x + cos - 2.0 * sin)) < 1e-3
    assert abs(child.y - (target.location.y + sin + 2.0 * cos)) < 1e-3
    assert abs(child.z - 3.0) < 1e-3
    car.set_target_velocity(carla.Vector3D(7.0, 0.0, 0.0))
    world.tick()
    world.tick()
    assert abs(car.get_velocity().x - 7.0) < 0.01, "a kinematic actor reports the velocity that it was given"
    assert car.get_location().distance(target.location) < 1e-3

    # With physics it drives on from there.
    car.set_simulate_physics(True)
    car.set_transform(start)
    ahead = start.get_forward_vector()
    car.set_target_velocity(carla.Vector3D(8.0 * ahead.x, 8.0 * ahead.y, 0.0))
    car.apply_control(carla.VehicleControl())
    world.tick()
    speed = car.get_velocity().length()
    assert 7.5 < speed < 8.0, speed
    assert abs(car.get_location().distance(carla.Location(start.location.x, start.location.y, 0.0)) - 0.78) < 0.05
    car.apply_control(carla.VehicleControl(hand_brake=True))
    for _ in range(20):
        world.tick()
    assert car.get_velocity().length() == 0.0
    before = car.get_location()
    car.apply_control(carla.VehicleControl(throttle=0.5, reverse=True))
    for _ in range(20):
        world.tick()
    back = car.get_location() - before
    assert back.x * ahead.x + back.y * ahead.y < -1.0, "it rolls back"
    velocity = car.get_velocity()
    assert velocity.x * ahead.x + velocity.y * ahead.y < -1.0
    car.destroy()
    world.tick()
    assert mast.is_alive, "what was fixed to a destroyed actor stays"
    assert world.get_snapshot().find(mast.id) is not None
    mast.destroy()
    world.apply_settings(carla.WorldSettings(synchronous_mode=False))
    print("done")


if __name__ == "__main__":
    main()
