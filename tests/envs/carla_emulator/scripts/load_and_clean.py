"""Change the map, reload it, and destroy all actors with one batch."""

import argparse
import contextlib
import queue

import carla


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", default=2000, type=int)
    args = parser.parse_args()
    client = carla.Client(args.host, args.port)
    client.set_timeout(60.0)
    world = client.get_world()
    first_id = world.id
    settings = world.get_settings()
    settings.synchronous_mode = True
    settings.fixed_delta_seconds = 0.05
    world.apply_settings(settings)
    names = {"Town01", "Town04"}
    for number, town in enumerate(sorted(names)):
        world = client.load_world(town, reset_settings=False)
        assert world.id == first_id + 1 + number
        assert world.get_settings().synchronous_mode
        assert world.get_settings().fixed_delta_seconds == 0.05
        assert world.get_map().name.endswith(town)
        world.tick()
        assert [actor.type_id for actor in world.get_actors()] == ["spectator"]
        car = world.spawn_actor(world.get_blueprint_library().filter("vehicle.*")[0], carla.Transform())
        frame = world.tick()
        assert world.get_snapshot().frame == frame
        assert world.get_snapshot().find(car.id) is not None
    lanes = {w.lane_id for w in world.get_map().generate_waypoints(10.0)}
    assert lanes == {-2, -1, 1, 2}, lanes

    with contextlib.suppress(RuntimeError):
        client.load_world("Town99")
        raise AssertionError("there is no such town")

    library = world.get_blueprint_library()
    points = world.get_map().get_spawn_points()
    everything = [world.spawn_actor(library.filter("vehicle.*")[n], points[n]) for n in range(10)]
    received = queue.Queue()
    sensors = []
    for vehicle in list(everything)[:4]:
        sensor = world.spawn_actor(library.find("sensor.other.imu"), carla.Transform(), attach_to=vehicle)
        assert sensor.parent.id == vehicle.id
        sensor.listen(received.put)
        sensors.append(sensor)
    for _ in range(10):
        world.tick()
    assert received.get(timeout=60.0)
    for sensor in sensors:
        sensor.stop()
    batch = [carla.command.DestroyActor(actor) for actor in [*sensors, *world.get_actors().filter("vehicle.*")]]
    responses = client.apply_batch_sync(batch, False)  # True would deadlock while Python sensors listen
    world.tick()
    assert not any(response.error for response in responses), [response.error for response in responses]
    assert len(responses) == 4 + 11
    assert [actor.type_id for actor in world.get_actors()] == ["spectator"]
    with contextlib.suppress(RuntimeError):
        everything[0].set_simulate_physics(True)
        raise AssertionError("it was destroyed")

    world = client.reload_world()
    assert not world.get_settings().synchronous_mode
    assert world.get_settings().fixed_delta_seconds is None
    assert world.get_map().name.endswith("Town04")
    print("done")


if __name__ == "__main__":
    main()
