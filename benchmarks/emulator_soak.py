"""Does the emulator leak memory, actors or connections when vehicles are spawned and destroyed a thousand times?

CARLA's client connects to `visual-td3 carla-emulator`, which this script starts. Each episode spawns a vehicle with a
camera, a collision sensor and an IMU at the next spawn point of a map, drives some ticks, and destroys the vehicle and
its sensors. Requirements: after the last episode, the server has as many actors, file descriptors and connections as
after the first tenth of the episodes, and at most 2 % more memory.

    python benchmarks/emulator_soak.py --maps OpenDrive --map Town02
    python benchmarks/emulator_soak.py --map streets_0 --episodes 200

Results are added to benchmarks/results/emulator_soak.json.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import sys
import time
from pathlib import Path
from typing import Any

import carla

from sb3_visual_td3.envs.carla_emulator.process import EmulatorControl, EmulatorProcess

RESULTS = Path(__file__).parent / "results" / "emulator_soak.json"
SENSORS = ("sensor.camera.rgb", "sensor.other.collision", "sensor.other.imu")
IMAGE_SIZE = "64"
ALLOWED_GROWTH = 1.02
TIMEOUT_S = 120.0


def drive_episode(world: carla.World, start: carla.Transform, n_ticks: int) -> float:
    """Spawn a vehicle and its sensors, drive, and destroy them.

    :param world: the world, in synchronous mode.
    :param start: a free place.
    :param n_ticks: ticks to drive.
    :return: the distance from the start, in metres.
    """
    library = world.get_blueprint_library()
    car = world.spawn_actor(library.find("vehicle.tesla.model3"), start)
    measurements: queue.Queue[Any] = queue.Queue()
    sensors = []
    for type_id in SENSORS:
        blueprint = library.find(type_id)
        if type_id == "sensor.camera.rgb":
            blueprint.set_attribute("image_size_x", IMAGE_SIZE)
            blueprint.set_attribute("image_size_y", IMAGE_SIZE)
        place = carla.Transform(carla.Location(x=2.0, z=1.5))
        sensors.append(world.spawn_actor(blueprint, place, attach_to=car))
        sensors[-1].listen(measurements.put)
    car.apply_control(carla.VehicleControl(throttle=0.6))
    for _ in range(n_ticks):
        world.tick()
    while not isinstance(measurements.get(timeout=TIMEOUT_S), carla.Image):
        pass  # a subscription is asynchronous: before the first image it may not have begun
    distance_m = float(car.get_location().distance(start.location))
    for sensor in sensors:
        sensor.stop()
        sensor.destroy()
    car.destroy()
    world.tick()
    return distance_m


def settled_status(control: EmulatorControl) -> dict[str, Any]:
    """Return the emulator's status once the streams of the last episode are closed."""
    status = control.status()
    deadline = time.monotonic() + TIMEOUT_S
    # The world's own stream remains.
    while status["n_stream_connections"] > 1 and time.monotonic() < deadline:
        time.sleep(0.1)
        status = control.status()
    return status


def soak(emulator: EmulatorProcess, n_episodes: int, n_ticks: int) -> dict[str, Any]:
    """Drive the episodes, and measure the server's actors, file descriptors, connections and memory.

    The measurements come after the first episode, after a tenth of the episodes, and after all of them.

    :param emulator: a running emulator.
    :param n_episodes: number of episodes.
    :param n_ticks: ticks in each episode.
    :return: the entry for the results file. ``is_fine`` says whether the numbers after the last episode meet the
        requirements, compared with those after a tenth of the episodes.
    """
    client = carla.Client(emulator.host, emulator.port)
    client.set_timeout(TIMEOUT_S)
    world = client.get_world()
    world.apply_settings(carla.WorldSettings(synchronous_mode=True, fixed_delta_seconds=0.05))
    points = world.get_map().get_spawn_points()
    statuses = {}
    distances_m = []
    for number in range(n_episodes):
        if number in (1, n_episodes // 10):
            statuses[number] = settled_status(emulator.control)
        distances_m.append(drive_episode(world, points[number % len(points)], n_ticks))
    statuses[n_episodes] = settled_status(emulator.control)
    early, late = statuses[n_episodes // 10], statuses[n_episodes]
    kept = ("n_actors", "n_file_descriptors", "n_stream_connections", "n_clients")
    return {
        "map": late["map"],
        "episodes": n_episodes,
        "ticks_of_an_episode": n_ticks,
        "mean_distance_m": sum(distances_m) / n_episodes,
        "after_episodes": {
            str(number): {name: status[name] for name in (*kept, "rss_mb")} for number, status in statuses.items()
        },
        "memory_growth": late["rss_mb"] / early["rss_mb"] - 1.0,
        "is_fine": all(early[name] == late[name] for name in kept)
        and late["rss_mb"] <= early["rss_mb"] * ALLOWED_GROWTH,
    }


def main() -> int:
    """Run the soak; return 0 if every requirement holds, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--map", default="Town02")
    parser.add_argument("--maps", help="folder of OpenDRIVE files (default: our own roads)")
    parser.add_argument("--episodes", type=int, default=1_000)
    parser.add_argument("--ticks", type=int, default=20, help="ticks in each episode (default: 20)")
    parser.add_argument("--output", type=Path, default=RESULTS)
    settings = parser.parse_args()
    folder = [] if settings.maps is None else ["--maps", settings.maps]
    with EmulatorProcess(settings.map, *folder) as emulator:
        result = soak(emulator, settings.episodes, settings.ticks)
    print(json.dumps(result, indent=2))
    known = json.loads(settings.output.read_text()) if settings.output.exists() else []
    settings.output.write_text(json.dumps([*known, result], indent=2) + "\n")
    return 0 if result["is_fine"] else 1


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    # CARLA's client may still have threads of closed streams. What they do at a normal exit of the interpreter is not
    # defined, so end the process directly.
    os._exit(code)
