"""Follow the first steps of CARLA's documentation: a client, a town, the weather, an actor."""

import argparse
import random

import carla


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("-p", "--port", default=2000, type=int)
    args = parser.parse_args()

    client = carla.Client(args.host, args.port)
    client.set_timeout(60.0)
    assert client.get_server_version() == client.get_client_version() == "0.9.16"
    assert any(name.endswith("/Town02") for name in client.get_available_maps())
    world = client.load_world("Town02")
    assert world.get_map().name == "Carla/Maps/Town02"
    assert world.id == client.get_world().id

    weather = carla.WeatherParameters(cloudiness=80.0, precipitation=30.0, sun_altitude_angle=70.0)
    world.set_weather(weather)
    assert world.get_weather() == weather

    blueprint_library = world.get_blueprint_library()
    collision_sensor_bp = blueprint_library.find("sensor.other.collision")
    assert collision_sensor_bp.has_tag("sensor")
    assert len(blueprint_library.filter("vehicle.*")) >= 15
    bikes = [x for x in blueprint_library.filter("vehicle") if int(x.get_attribute("number_of_wheels")) == 2]
    cars = [x for x in blueprint_library.filter("vehicle.*.*") if x.get_attribute("base_type") == "car"]
    assert bikes
    assert cars
    vehicle_bp = random.choice(cars)
    for attribute in vehicle_bp:
        if attribute.is_modifiable and attribute.recommended_values:
            vehicle_bp.set_attribute(attribute.id, random.choice(attribute.recommended_values))
    vehicle_bp.set_attribute("role_name", "hero")
    vehicle_bp.set_attribute("color", "255,0,0")

    spawn_points = world.get_map().get_spawn_points()
    assert len(spawn_points) >= 30
    transform = random.choice(spawn_points)
    vehicle = world.try_spawn_actor(vehicle_bp, transform)
    assert vehicle is not None
    assert world.try_spawn_actor(vehicle_bp, transform) is None
    try:
        world.spawn_actor(vehicle_bp, transform)
    except RuntimeError as error:
        assert str(error) == "Spawn failed because of collision at spawn position", error
    else:
        raise AssertionError("two vehicles at one place")

    world.wait_for_tick()
    assert vehicle.type_id == vehicle_bp.id
    assert vehicle.attributes["role_name"] == "hero"
    assert vehicle.attributes["color"] == "255,0,0"
    assert vehicle.get_location().distance(transform.location) < 0.6
    assert abs(vehicle.get_transform().rotation.yaw - transform.rotation.yaw) % 360.0 < 0.01
    location = vehicle.get_location()
    location.x += 10.0
    vehicle.set_location(location)
    world.wait_for_tick()
    world.wait_for_tick()
    assert abs(vehicle.get_location().x - location.x) < 0.01

    box = vehicle.bounding_box
    assert box.contains(vehicle.get_location() + carla.Location(z=0.5), vehicle.get_transform())
    assert 1.0 < box.extent.x < 2.8
    assert len(world.get_actors().filter("vehicle.*")) == 1
    assert world.get_actor(vehicle.id).id == vehicle.id
    assert vehicle.destroy()
    world.wait_for_tick()
    assert len(world.get_actors().filter("vehicle.*")) == 0
    assert world.get_snapshot().find(vehicle.id) is None
    print("done")


if __name__ == "__main__":
    main()
