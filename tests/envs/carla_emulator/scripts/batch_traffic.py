"""Many vehicles by batch, as in PythonAPI's generate_traffic.py, without its Traffic Manager."""

import random
import sys

import carla

SpawnActor = carla.command.SpawnActor
DestroyActor = carla.command.DestroyActor
ApplyVehicleControl = carla.command.ApplyVehicleControl

client = carla.Client("localhost", int(sys.argv[1]))
client.set_timeout(10.0)
world = client.get_world()
settings = world.get_settings()
settings.synchronous_mode, settings.fixed_delta_seconds = True, 0.05
world.apply_settings(settings)

blueprints = sorted(world.get_blueprint_library().filter("vehicle.*"), key=lambda bp: bp.id)
batch = []
spawn_points = world.get_map().get_spawn_points()
for transform in spawn_points[:20]:
    blueprint = random.choice(blueprints)
    blueprint.set_attribute("role_name", "autopilot")
    batch.append(SpawnActor(blueprint, transform))
batch.append(SpawnActor(blueprint, spawn_points[0]))  # taken by then

vehicles, errors = [], []
for response in client.apply_batch_sync(batch, False):
    if response.error:
        errors.append(response.error)
    else:
        vehicles.append(response.actor_id)
world.tick()
assert len(vehicles) == 20, errors
assert len(errors) == 1
assert "collision" in errors[0]
assert len(world.get_actors().filter("vehicle.*")) == 20
assert {actor.attributes["role_name"] for actor in world.get_actors(vehicles)} == {"autopilot"}

client.apply_batch([ApplyVehicleControl(v, carla.VehicleControl(throttle=0.5)) for v in vehicles])
for _ in range(20):
    world.tick()
speeds = [actor.get_velocity().length() for actor in world.get_actors(vehicles)]
assert min(speeds) > 0.3, speeds

client.apply_batch([DestroyActor(v) for v in vehicles])
world.tick()
assert len(world.get_actors().filter("vehicle.*")) == 0
settings.synchronous_mode, settings.fixed_delta_seconds = False, None
world.apply_settings(settings)
