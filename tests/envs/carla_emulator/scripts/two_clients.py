"""Use two clients: one ticks and drives; the other, in its own process, observes through its own sensor."""

import argparse
import queue
import subprocess
import sys

import carla


def look_on(client):
    """Find the first client's car and follow it with a camera, as the second client."""
    world = client.get_world()
    world.wait_for_tick()
    vehicles = world.get_actors().filter("vehicle.*")
    assert [vehicle.attributes["role_name"] for vehicle in vehicles] == ["hero"], list(vehicles)
    hero = vehicles[0]
    bp = world.get_blueprint_library().find("sensor.camera.rgb")
    bp.set_attribute("image_size_x", "64")
    bp.set_attribute("image_size_y", "48")
    camera = world.spawn_actor(bp, carla.Transform(carla.Location(x=-6, z=3)), attach_to=hero)
    images = queue.Queue()
    camera.listen(images.put)
    before = hero.get_location()
    frames = [images.get(timeout=60.0).frame for _ in range(40)]
    assert frames == list(range(frames[0], frames[0] + 40))
    assert hero.get_location().distance(before) > 0.5
    camera.stop()
    assert camera.destroy()
    print("seen", len(frames))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", default=2000, type=int)
    parser.add_argument("--looks-on", action="store_true")
    args = parser.parse_args()
    client = carla.Client(args.host, args.port)
    client.set_timeout(60.0)
    if args.looks_on:
        look_on(client)
        return
    world = client.get_world()
    world.apply_settings(carla.WorldSettings(synchronous_mode=True, fixed_delta_seconds=0.05))
    bp = world.get_blueprint_library().find("vehicle.tesla.model3")
    bp.set_attribute("role_name", "hero")
    hero = world.spawn_actor(bp, world.get_map().get_spawn_points()[0])
    hero.apply_control(carla.VehicleControl(throttle=0.5))
    world.tick()
    other = subprocess.Popen([sys.executable, __file__, "--port", str(args.port), "--looks-on"], stdout=subprocess.PIPE)
    n_ticks = 0
    while other.poll() is None:
        world.tick()
        n_ticks += 1
        assert n_ticks < 200_000
    assert other.returncode == 0, other.returncode
    assert b"seen 40" in other.communicate()[0]
    world.tick()
    assert [actor.type_id for actor in world.get_actors().filter("sensor.*")] == []
    assert hero.is_alive
    hero.destroy()
    world.apply_settings(carla.WorldSettings(synchronous_mode=False))
    print("done", n_ticks)


if __name__ == "__main__":
    main()
