"""Core concepts, first steps: world, blueprints, spawn points, a vehicle, destroy."""

import random
import sys

import carla

client = carla.Client("localhost", int(sys.argv[1]))
client.set_timeout(10.0)
print(client.get_available_maps())
world = client.load_world("Town01")
assert world.get_map().name.endswith("Town01")

blueprint_library = world.get_blueprint_library()
bp = random.choice(blueprint_library.filter("vehicle.*.*"))
if bp.has_attribute("color"):
    bp.set_attribute("color", random.choice(bp.get_attribute("color").recommended_values))
assert len([b for b in blueprint_library.filter("vehicle") if int(b.get_attribute("number_of_wheels")) == 4]) >= 15

spawn_points = world.get_map().get_spawn_points()
vehicle = world.spawn_actor(bp, spawn_points[0])
assert world.try_spawn_actor(bp, spawn_points[0]) is None
refused = ""
try:
    world.spawn_actor(bp, spawn_points[0])
except RuntimeError as error:
    refused = str(error)
assert "collision at spawn position" in refused

world.wait_for_tick()
assert vehicle.get_location().distance(spawn_points[0].location) < 1.0
assert vehicle.type_id == bp.id
vehicle.apply_control(carla.VehicleControl(throttle=1.0))
for _ in range(20):
    world.wait_for_tick()
assert vehicle.get_velocity().length() > 1.0
assert vehicle.get_control().throttle == 1.0

spectator = world.get_spectator()
transform = vehicle.get_transform()
spectator.set_transform(carla.Transform(transform.location + carla.Location(z=50), carla.Rotation(pitch=-90)))
world.wait_for_tick()
assert abs(spectator.get_transform().location.z - 50) < 1.0

weather = carla.WeatherParameters(cloudiness=80.0, precipitation=30.0, sun_altitude_angle=70.0)
world.set_weather(weather)
world.wait_for_tick()
assert abs(world.get_weather().precipitation - 30.0) < 1e-3
world.set_weather(carla.WeatherParameters.WetCloudySunset)

assert vehicle.destroy()
world.wait_for_tick()
assert not list(world.get_actors().filter("vehicle.*"))
