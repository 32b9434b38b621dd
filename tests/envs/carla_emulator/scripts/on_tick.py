"""Use world.on_tick with snapshots, in synchronous and in asynchronous mode."""

import argparse
import queue
import time

import carla


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", default=2000, type=int)
    args = parser.parse_args()
    client = carla.Client(args.host, args.port)
    client.set_timeout(60.0)
    world = client.get_world()
    vehicle = world.spawn_actor(
        world.get_blueprint_library().find("vehicle.mini.cooper_s"), world.get_map().get_spawn_points()[1]
    )
    snapshots = queue.Queue()
    callback_id = world.on_tick(snapshots.put)
    begin = time.monotonic()
    free = [snapshots.get(timeout=60.0).timestamp for _ in range(20)]
    assert time.monotonic() - begin > 0.6  # 20 a second of real time; a busy machine takes longer
    passed = free[-1].elapsed_seconds - free[0].elapsed_seconds
    assert abs(passed - (free[-1].frame - free[0].frame) * 0.05) < 1e-3

    settings = world.get_settings()
    settings.synchronous_mode = True
    settings.fixed_delta_seconds = 0.02
    world.apply_settings(settings)
    frame = world.tick()
    while snapshots.get(timeout=60.0).frame < frame:
        pass
    time.sleep(0.3)
    assert snapshots.empty(), "nothing moves without a tick"
    vehicle.apply_control(carla.VehicleControl(throttle=0.5))
    frames = [world.tick() for _ in range(50)]
    seen = [snapshots.get(timeout=60.0) for _ in frames]
    assert [snapshot.frame for snapshot in seen] == frames
    assert frames == list(range(frames[0], frames[0] + 50))
    passed = seen[-1].timestamp.elapsed_seconds - seen[0].timestamp.elapsed_seconds
    assert abs(passed - 49 * 0.02) < 1e-6
    speeds = [snapshot.find(vehicle.id).get_velocity().length() for snapshot in seen]
    assert speeds == sorted(speeds)
    assert 1.0 < speeds[-1] < 2.0  # 1.5 m/s2 for a second, less the drag
    gained = (speeds[-1] - speeds[-11]) / 0.2
    assert abs(seen[-1].find(vehicle.id).get_acceleration().length() - gained) < 0.1
    assert seen[-1].has_actor(vehicle.id)
    assert not seen[-1].has_actor(987_654)
    assert vehicle.get_control().throttle == 0.5
    world.remove_on_tick(callback_id)
    world.tick()
    time.sleep(0.1)
    assert snapshots.empty()
    settings.synchronous_mode = False
    world.apply_settings(settings)
    vehicle.destroy()
    print("done")


if __name__ == "__main__":
    main()
