"""Drive random routes with pure pursuit, and measure how many routes are completed and how fast the environment is.

``python benchmarks/routes.py MAP [MAP ...]`` appends a row for each MAP to ``benchmarks/results/routes.csv``. MAP is
the path of an OpenDRIVE file, the name of a built-in map, or the name of a group of built-in maps.

Decisions per second are environment steps per second of processor time, which includes pure pursuit and the resets.
There is no traffic. Without ``--camera``, every camera frame is an empty one, so that drawing takes no time.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections import Counter
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

import sb3_visual_td3
from sb3_visual_td3.envs.drivers import PurePursuitDriver
from sb3_visual_td3.envs.driving_env import DrivingEnv
from sb3_visual_td3.envs.lite.world import LiteWorld
from sb3_visual_td3.envs.road.maps import MAP_GROUPS

RESULTS = Path(__file__).resolve().parent / "results" / "routes.csv"


def drive(maps: list[str], n_routes: int, turns: tuple[int, int], *, with_camera: bool) -> dict[str, Any]:
    """Drive routes and return a row of results.

    :param maps: names or paths.
    :param n_routes: number of routes, with the seeds 0, 1, …
    :param turns: least and greatest number of turns.
    :param with_camera: whether the camera's frames are drawn.
    :return: the row.
    """
    env = gym.make("LiteDriving-v0", maps=maps, route="random", route_turns=turns)
    world = env.unwrapped
    assert isinstance(world, DrivingEnv)
    if not with_camera:
        blank = np.zeros((84, 84), np.uint8)
        assert isinstance(world._backend, LiteWorld)
        world._backend.camera_frame = lambda: blank  # type: ignore[method-assign]
    driver = PurePursuitDriver()
    endings: Counter[str] = Counter()
    lengths_m, n_steps = [], 0
    env.reset(seed=0)  # loads the map
    begin_s = time.process_time()
    for number in range(n_routes):
        env.reset(seed=number, options={"route": number})
        is_over = False
        while not is_over:
            _, _, terminated, truncated, info = env.step(driver.act(world))
            n_steps += 1
            is_over = terminated or truncated
        endings[info["termination"]] += 1
        lengths_m.append(info["route_length_m"])
        if info["termination"] != "goal":
            print(f"  route {number} on {info['map']}: {info['termination']} after {info['distance_m']:.0f} m")
    seconds = time.process_time() - begin_s
    env.close()
    return {
        "version": sb3_visual_td3.__version__,
        "maps": " ".join(Path(name).stem for name in maps),
        "routes": n_routes,
        "least turns": turns[0],
        "completed": endings["goal"],
        "other endings": " ".join(f"{name}:{count}" for name, count in sorted(endings.items()) if name != "goal"),
        "mean length m": round(float(np.mean(lengths_m))),
        "camera": "yes" if with_camera else "no",
        "decisions": n_steps,
        "decisions per cpu second": round(n_steps / seconds),
    }


def main() -> None:
    """Drive on the maps of the command line and append the rows."""
    parser = argparse.ArgumentParser(description="drive random routes with pure pursuit")
    parser.add_argument("maps", nargs="+")
    parser.add_argument("--routes", type=int, default=100)
    parser.add_argument("--turns", type=int, nargs=2, default=(2, 8))
    parser.add_argument("--camera", action="store_true", help="draw the camera's frames")
    parser.add_argument("--output", type=Path, default=RESULTS, help="file of the results (default: %(default)s)")
    parser.add_argument("--no-row", action="store_true", help="print the results without writing them to the file")
    arguments = parser.parse_args()
    for name in arguments.maps:
        maps = list(MAP_GROUPS.get(name, (name,)))
        try:
            row = drive(maps, arguments.routes, tuple(arguments.turns), with_camera=arguments.camera)
        except ValueError as error:
            print(f"{name}: refused: {error}")
            continue
        print(row)
        if not arguments.no_row:
            is_new = not arguments.output.is_file()
            with arguments.output.open("a", newline="") as file:
                writer = csv.DictWriter(file, row)
                if is_new:
                    writer.writeheader()
                writer.writerow(row)


if __name__ == "__main__":
    main()
