"""One client that ticks and one that watches."""

import subprocess
import sys

import carla

port = int(sys.argv[1])
client = carla.Client("localhost", port)
client.set_timeout(5.0)
world = client.get_world()
settings = world.get_settings()
settings.synchronous_mode, settings.fixed_delta_seconds = True, 0.05
world.apply_settings(settings)
blueprint = world.get_blueprint_library().find("vehicle.tesla.model3")
blueprint.set_attribute("role_name", "hero")
vehicle = world.spawn_actor(blueprint, world.get_map().get_spawn_points()[5])
world.tick()
watcher = f"""
import carla
client = carla.Client("localhost", {port})
client.set_timeout(5.0)
world = client.get_world()
snapshot = world.wait_for_tick(5.0)
hero = [a for a in world.get_actors().filter("vehicle.*") if a.attributes["role_name"] == "hero"][0]
assert snapshot.find(hero.id) is not None
print(hero.id)
"""
process = subprocess.Popen([sys.executable, "-c", watcher], stdout=subprocess.PIPE, text=True)
while process.poll() is None:
    world.tick()
assert process.returncode == 0
assert int(process.stdout.read()) == vehicle.id
assert vehicle.destroy()
refused = ""
try:
    vehicle.set_simulate_physics(True)
except RuntimeError as error:
    refused = str(error)
assert "destroyed" in refused
settings.synchronous_mode, settings.fixed_delta_seconds = False, None
world.apply_settings(settings)
