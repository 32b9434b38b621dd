"""The driving score of leaderboard 2.1 on each suite, for pure pursuit and for trained policies.

    python benchmarks/route_scores.py                                     # pure pursuit on lite-routes
    python benchmarks/route_scores.py --suites town01-train town02-test --towns PATH
    python benchmarks/route_scores.py --suites town01-train --towns PATH --cars 8 --walkers 4 --lights --routes 20
    python benchmarks/route_scores.py --model MODEL.zip --name VisualTD3  # a policy of route_learning.py instead
    python benchmarks/route_scores.py --model MODEL.zip --name 'SB3 TD3' --algo td3
    python benchmarks/route_scores.py --table                             # print the results and run nothing

A suite is a named set of routes, and a part of a suite has routes on one map. A row of
benchmarks/results/route_scores.csv has the results of one driver on one part of a suite. Existing rows with the same
number of routes are not measured again.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import result_rows
import route_learning
from stable_baselines3.common.env_util import make_vec_env

from sb3_visual_td3.callbacks.drives import Drive, Policy, drive_episodes, trained_policy
from sb3_visual_td3.callbacks.driving_score import INFRACTIONS
from sb3_visual_td3.envs.drivers import PurePursuitDriver
from sb3_visual_td3.zoo.suites import SuitePart, suite_parts

RESULTS = Path(__file__).parent / "results" / "route_scores.csv"
SEED = 1_000
COLUMNS = (
    "driver",
    "suite",
    "part",
    "episodes",
    "success",
    "route completion",
    "driving score",
    "speed m/s",
    *(f"{name} per km" for name in INFRACTIONS),
)
KEY = ("driver", "suite", "part", "episodes")
"""The columns that name a measurement. Each route is an episode."""
_TOWNS = {"town01-train": "Town01.xodr", "town02-test": "Town02.xodr"}


_ARMS = {"visual_td3": "visual", "td3": "SB3 TD3"}
"""The arm of route_learning.py for each algorithm."""


def drive(
    part: SuitePart,
    driver_of: Callable[[gym.Env[Any, Any]], Policy],
    observed: dict[str, Any],
) -> list[Drive]:
    """Drive the routes of a part, one after another.

    :param part: the part of a suite
    :param driver_of: returns the driver of an environment
    :param observed: arguments of the environment that decide what the driver observes
    """
    env = make_vec_env(route_learning.ENV, 1, env_kwargs={**part.env_kwargs, **observed})
    driver = driver_of(env.envs[0])  # type: ignore[attr-defined]
    drives = []
    for number in range(part.n_routes):
        drives += drive_episodes(driver, env, SEED + number, options=[{"route": number}])
    env.close()
    return drives


def pure_pursuit(env: gym.Env[Any, Any]) -> Policy:
    """Return the driver that follows the route by its waypoints."""
    driver, world = PurePursuitDriver(), env.unwrapped
    return lambda *_: driver.act(world)[None]  # type: ignore[arg-type]


def busier(part: SuitePart, n_cars: int, n_walkers: int, has_lights: bool) -> SuitePart:
    """Add traffic to a part of a suite, and name the traffic in the part's label.

    :param part: the part without traffic
    :param n_cars: number of other cars
    :param n_walkers: number of pedestrians
    :param has_lights: whether there are traffic lights
    :return: the part with traffic; its label names only the traffic that is there
    """
    names = {f"{n_cars} cars": n_cars, f"{n_walkers} walkers": n_walkers, "lights": has_lights}
    label = ", ".join([part.label, *(name for name, is_there in names.items() if is_there)])
    others = {"n_cars": n_cars, "n_walkers": n_walkers, "traffic_lights": has_lights}
    return part._replace(label=label, env_kwargs={**part.env_kwargs, **others})


def row_of(name: str, suite: str, part: SuitePart, drives: Sequence[Drive]) -> result_rows.Row:
    """Return the row of a driver's routes."""
    km = sum(drive.distance_m for drive in drives) / 1_000.0
    row: result_rows.Row = {
        "driver": name,
        "suite": suite,
        "part": part.label,
        "episodes": len(drives),
        "success": round(float(np.mean([drive.success_rate for drive in drives])), 3),
        "route completion": round(float(np.mean([drive.route_completion for drive in drives])), 3),
        "driving score": round(float(np.mean([drive.driving_score for drive in drives])), 1),
        "speed m/s": round(float(np.mean([drive.speed_mps for drive in drives])), 2),
    }
    for kind in INFRACTIONS:
        row[f"{kind} per km"] = round(sum(getattr(drive, kind) for drive in drives) / max(km, 1e-9), 3)
    return row


def main() -> None:
    """Measure what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suites", nargs="+", default=["lite-routes"], help="suites to drive (default: lite-routes)")
    parser.add_argument("--towns", type=Path, help="folder of Town01.xodr and Town02.xodr, for suites on these towns")
    parser.add_argument("--model", type=Path, help="model to drive with (default: pure pursuit)")
    parser.add_argument(
        "--algo", choices=_ARMS, default="visual_td3", help="the model's algorithm (default: visual_td3)"
    )
    parser.add_argument("--name", default="pure pursuit", help="name of the driver in the table (default: %(default)s)")
    parser.add_argument("--cars", type=int, default=0, help="number of other cars (default: %(default)s)")
    parser.add_argument("--walkers", type=int, default=0, help="number of pedestrians (default: %(default)s)")
    parser.add_argument("--lights", action="store_true", help="with traffic lights")
    parser.add_argument("--routes", type=int, help="routes in each part of a suite (default: set by the suite)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="file of the results (default: %(default)s)")
    parser.add_argument("--table", action="store_true", help="print the results and run nothing")
    settings = parser.parse_args()
    driver_of = pure_pursuit
    observed: dict[str, Any] = {}
    if settings.model is not None:
        arm: Any = route_learning.arms(None)[_ARMS[settings.algo]].arm
        observed = route_learning.observed(arm)
        model = arm.algorithm.load(settings.model, device="cpu", buffer_size=1)
        driver_of = lambda _: trained_policy(model)  # noqa: E731
    done = {tuple(row[column] for column in KEY) for row in result_rows.read(settings.output)}
    for suite in [] if settings.table else settings.suites:
        maps = None
        if suite in _TOWNS:
            if settings.towns is None:
                parser.error(f"--suites {suite} also needs --towns DIR: the folder that contains {_TOWNS[suite]}")
            maps = [str(settings.towns / _TOWNS[suite])]
        for each in suite_parts(suite, maps, settings.routes):
            part = busier(each, settings.cars, settings.walkers, settings.lights)
            if (settings.name, suite, part.label, part.n_routes) not in done:
                row = row_of(settings.name, suite, part, drive(part, driver_of, observed))
                result_rows.add(row, settings.output, COLUMNS)
    rows = result_rows.read(settings.output)
    print("| " + " | ".join(COLUMNS) + " |")
    print("| --- " * len(COLUMNS) + "|")
    for row in rows:
        print("| " + " | ".join(f"{row[column]}" for column in COLUMNS) + " |")


if __name__ == "__main__":
    main()
