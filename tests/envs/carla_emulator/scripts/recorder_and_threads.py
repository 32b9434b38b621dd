"""Use the recorder, the clock of asynchronous mode, and several clients at once, as environments for RL do."""

import argparse
import threading
import time

import carla


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("-p", "--port", default=2000, type=int)
    args = parser.parse_args()

    client = carla.Client(args.host, args.port)
    client.set_timeout(60.0)
    world = client.load_world("Town01")
    # A script's settings without a fixed step: the server keeps the time.
    settings = world.get_settings()
    assert not settings.synchronous_mode
    assert settings.fixed_delta_seconds is None

    assert isinstance(client.start_recorder("recording01.log", True), str)
    library = world.get_blueprint_library()
    points = world.get_map().get_spawn_points()
    car = world.spawn_actor(library.find("vehicle.tesla.model3"), points[0])
    car.apply_control(carla.VehicleControl(throttle=1.0))
    begin = world.wait_for_tick(60.0)
    time.sleep(1.0)
    end = world.wait_for_tick(60.0)
    # At least a few ticks in a second of sleep, even on a busy machine.
    assert end.timestamp.frame > begin.timestamp.frame + 3
    assert end.timestamp.elapsed_seconds > begin.timestamp.elapsed_seconds
    for _ in range(200):
        if car.get_velocity().length() > 1.0:
            break
        world.wait_for_tick(60.0)
    assert car.get_velocity().length() > 1.0

    # Other clients watch the same world meanwhile.
    seen = []

    def watch(number):
        other = carla.Client(args.host, args.port)
        other.set_timeout(60.0)
        snapshot = other.get_world().wait_for_tick(60.0)
        seen.append((number, snapshot.find(car.id) is not None))

    watchers = [threading.Thread(target=watch, args=(number,)) for number in range(4)]
    for watcher in watchers:
        watcher.start()
    for watcher in watchers:
        watcher.join()
    assert sorted(seen) == [(number, True) for number in range(4)]

    client.stop_recorder()
    for text in (
        client.show_recorder_file_info("recording01.log", False),
        client.show_recorder_collisions("recording01.log", "a", "a"),
        client.show_recorder_actors_blocked("recording01.log", 10.0, 100.0),
        client.replay_file("recording01.log", 0.0, 0.0, 0),
    ):
        assert isinstance(text, str), text
    client.set_replayer_time_factor(1.0)
    assert car.destroy()
    world.wait_for_tick(60.0)
    print("done")


if __name__ == "__main__":
    main()
