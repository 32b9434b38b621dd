"""Spawn and destroy vehicles and walkers in batches, as CARLA's generate_traffic.py does."""

import argparse
import random

import carla


def main():
    argparser = argparse.ArgumentParser(description=__doc__)
    argparser.add_argument("--host", metavar="H", default="127.0.0.1")
    argparser.add_argument("-p", "--port", metavar="P", default=2000, type=int)
    argparser.add_argument("-n", "--number-of-vehicles", metavar="N", default=20, type=int)
    argparser.add_argument("-w", "--number-of-walkers", metavar="W", default=3, type=int)
    args = argparser.parse_args()

    vehicles_list = []
    client = carla.Client(args.host, args.port)
    client.set_timeout(60.0)
    random.seed(0)
    world = client.get_world()
    settings = world.get_settings()
    settings.synchronous_mode = True
    settings.fixed_delta_seconds = 0.05
    world.apply_settings(settings)

    try:
        blueprints = world.get_blueprint_library().filter("vehicle.*")
        blueprints = [x for x in blueprints if x.get_attribute("base_type") == "car"]
        blueprints = sorted(blueprints, key=lambda bp: bp.id)
        spawn_points = world.get_map().get_spawn_points()
        assert args.number_of_vehicles < len(spawn_points)
        random.shuffle(spawn_points)

        SpawnActor = carla.command.SpawnActor  # noqa: N806
        SetSimulatePhysics = carla.command.SetSimulatePhysics  # noqa: N806
        FutureActor = carla.command.FutureActor  # noqa: N806

        batch = []
        for transform in spawn_points[: args.number_of_vehicles]:
            blueprint = random.choice(blueprints)
            if blueprint.has_attribute("color"):
                blueprint.set_attribute("color", random.choice(blueprint.get_attribute("color").recommended_values))
            if blueprint.has_attribute("driver_id"):
                driver_id = random.choice(blueprint.get_attribute("driver_id").recommended_values)
                blueprint.set_attribute("driver_id", driver_id)
            blueprint.set_attribute("role_name", "autopilot")
            batch.append(SpawnActor(blueprint, transform).then(SetSimulatePhysics(FutureActor, True)))
        batch.append(SpawnActor(blueprint, spawn_points[0]))  # this spawn point is occupied by now
        responses = client.apply_batch_sync(batch, True)
        errors = [response.error for response in responses if response.error]
        assert errors == ["Spawn failed because of collision at spawn position"], errors
        assert responses[-1].has_error()
        vehicles_list = [response.actor_id for response in responses if not response.error]
        assert len(set(vehicles_list)) == args.number_of_vehicles

        blueprintsWalkers = world.get_blueprint_library().filter("walker.pedestrian.*")  # noqa: N806
        batch = []
        for transform in spawn_points[-args.number_of_walkers :]:
            walker_bp = random.choice(blueprintsWalkers)
            if walker_bp.has_attribute("is_invincible"):
                walker_bp.set_attribute("is_invincible", "false")
            batch.append(SpawnActor(walker_bp, transform))
        walkers = [response.actor_id for response in client.apply_batch_sync(batch, True) if not response.error]
        assert len(walkers) == args.number_of_walkers

        actors = world.get_actors(vehicles_list + walkers)
        assert len(actors.filter("vehicle.*")) == args.number_of_vehicles
        assert len(actors.filter("walker.*")) == args.number_of_walkers
        world.tick()
        places = [actor.get_location() for actor in world.get_actors(vehicles_list)]
        for number, place in enumerate(places):
            assert place.distance(spawn_points[number].location) < 0.6

        control = carla.VehicleControl(throttle=1.0)
        client.apply_batch([carla.command.ApplyVehicleControl(x, control) for x in vehicles_list])
        client.apply_batch([carla.command.ApplyWalkerControl(x, carla.WalkerControl(speed=1.4)) for x in walkers])
        for _ in range(10):
            world.tick()
        moved = [a.get_location().distance(b) for a, b in zip(world.get_actors(vehicles_list), places, strict=True)]
        assert min(moved) > 0.2, moved
        snapshot = world.get_snapshot()
        assert all(abs(snapshot.find(x).get_velocity().length() - 1.4) < 0.01 for x in walkers)
    finally:
        settings.synchronous_mode = False
        world.apply_settings(settings)
        client.apply_batch_sync([carla.command.DestroyActor(x) for x in vehicles_list + walkers])
    world.wait_for_tick()
    assert len(world.get_actors().filter("vehicle.*")) == 0
    assert client.apply_batch_sync([carla.command.DestroyActor(vehicles_list[0])])[0].has_error()
    print("done")


if __name__ == "__main__":
    main()
