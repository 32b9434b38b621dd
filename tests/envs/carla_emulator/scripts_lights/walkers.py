"""Walkers that the client's own navigation leads along pavements and over crossings."""

import argparse
import math

import carla


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=2000)
    client = carla.Client("127.0.0.1", parser.parse_args().port)
    client.set_timeout(60.0)
    world = client.get_world()
    world.apply_settings(carla.WorldSettings(synchronous_mode=True, fixed_delta_seconds=0.05))
    world.set_pedestrians_seed(1)
    world.set_pedestrians_cross_factor(1.0)
    world.tick()
    road_map = world.get_map()
    for _ in range(50):
        place = world.get_random_location_from_navigation()
        nearest = road_map.get_waypoint(place)
        gap = place.distance(nearest.transform.location)
        assert 0.5 * nearest.lane_width < gap < 12.0, (gap, place.x, place.y)
    library = world.get_blueprint_library()
    walkers, controllers = [], []
    while len(walkers) < 8:
        place = world.get_random_location_from_navigation()
        walker = world.try_spawn_actor(
            library.filter("walker.pedestrian.*")[0], carla.Transform(carla.Location(place.x, place.y, place.z + 1.0))
        )
        if walker is not None:
            walkers.append(walker)
            controllers.append(
                world.spawn_actor(library.find("controller.ai.walker"), carla.Transform(), attach_to=walker)
            )
    world.tick()
    for controller in controllers:
        controller.start()
        controller.go_to_location(world.get_random_location_from_navigation())
        controller.set_max_speed(1.4)
    starts = [walker.get_location() for walker in walkers]
    walked = [0.0] * len(walkers)
    for _ in range(400):
        before = [walker.get_location() for walker in walkers]
        world.tick()
        for number, walker in enumerate(walkers):
            step = walker.get_location().distance(before[number])
            assert step < 0.5, step
            walked[number] += step
    assert sum(way > 10.0 for way in walked) >= 6, walked
    assert all(math.isfinite(walker.get_location().x) for walker in walkers)
    assert sum(walker.get_location().distance(start) > 5.0 for walker, start in zip(walkers, starts, strict=True)) >= 5
    for controller in controllers:
        controller.stop()
    world.tick()
    still = [walker.get_location() for walker in walkers]
    for _ in range(20):
        world.tick()
    assert all(walker.get_location().distance(place) < 0.3 for walker, place in zip(walkers, still, strict=True))
    client.apply_batch_sync([carla.command.DestroyActor(each) for each in [*controllers, *walkers]], False)
    world.tick()
    print("done:", [round(way) for way in walked])


if __name__ == "__main__":
    main()
