"""How well does a policy learn to drive random routes, and does it take the turn that it is told to?

An arm of this experiment is an algorithm and the maps that it trains on. The training uses the hyperparameters and the
environment arguments of the algorithm's block for LiteRoutes-v0 in zoo_configs/. After the training, the policy drives
100 held-out routes of 200 to 800 m without other cars. Then it drives the same routes with shuffled commands: at each
junction, the observation has a random command (*straight*, *left* or *right*), which does not depend on the route. The
distance to the junction in the observation is still correct. A policy that ignores the commands drives as well with
shuffled commands as with correct ones. The evaluation uses only those environment arguments of the block that determine
the observation.

    python benchmarks/route_learning.py                                  # VisualTD3 and stock TD3, seed 0
    python benchmarks/route_learning.py --arms 'Town01 to Town02' --towns PATH --seeds 0 1 2
    python benchmarks/route_learning.py --table                          # print the results and run nothing

When a run ends, its row is added to benchmarks/results/route_learning.csv. Runs that have a row are not repeated.
Models are kept in the log folder. A complete model in this folder is not trained again, only evaluated.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import result_rows
import torch as th
from learning_arms import Arm, block_of, constructor_arguments
from stable_baselines3 import TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecNormalize

from sb3_visual_td3 import VisualTD3
from sb3_visual_td3.callbacks.drives import Drive, Policy, drive_episodes, mean_of, trained_policy
from sb3_visual_td3.envs.observation import COMMANDS
from sb3_visual_td3.envs.road.maps import ROUTE_MAP_GROUPS

ENV = "LiteRoutes-v0"
RESULTS = Path(__file__).parent / "results" / "route_learning.csv"
OBSERVED = ("observation", "image_size", "grayscale", "frame_stack")
"""Arguments of the training environment that the evaluation must have too, because the policy was made for them."""
N_ROUTES = 100
N_ENVS = 25
TEST_SEED = 10_000
COLUMNS = (
    "arm",
    "seed",
    "steps",
    "episodes",
    "success",
    "success shuffled",
    "route completion",
    "driving score",
    "driving score shuffled",
    "speed m/s",
    "lane invasions per km",
    "return",
    "minutes",
)
_JUNCTION_COMMANDS = [COMMANDS.index(name) for name in ("straight", "left", "right")]


class RouteArm(NamedTuple):
    """An algorithm, its training maps and its test maps."""

    arm: Arm
    train_maps: tuple[str, ...]
    test_maps: tuple[str, ...]


def arms(towns: Path | None) -> dict[str, RouteArm]:
    """Return the arms by name.

    :param towns: folder of Town01.xodr and Town02.xodr; None for the arms on our own maps only
    """
    ours = (ROUTE_MAP_GROUPS["train"], ROUTE_MAP_GROUPS["held_out"])
    visual, stock = Arm(VisualTD3, "visual_td3"), Arm(TD3, "td3")
    listed = {"visual": RouteArm(visual, *ours), "SB3 TD3": RouteArm(stock, *ours)}
    if towns is not None:
        here, there = (str(towns / f"{name}.xodr") for name in ("Town01", "Town02"))
        listed["Town01 to Town02"] = RouteArm(visual, (here,), (there,))
        listed["SB3 TD3, Town01 to Town02"] = RouteArm(stock, (here,), (there,))
    return listed


def learner(chosen: RouteArm, seed: int) -> OffPolicyAlgorithm:
    """Return an arm's untrained model with its environment."""
    set_random_seed(seed)
    block = block_of(chosen.arm, ENV)
    arguments = constructor_arguments(block, action_dim=2)
    env_kwargs = {**block.get("env_kwargs", {}), "maps": list(chosen.train_maps)}
    env = make_vec_env(ENV, 1, seed=seed, env_kwargs=env_kwargs)
    env = VecNormalize(env, gamma=arguments["gamma"], **block["normalize"])  # type: ignore[assignment]
    return chosen.arm.algorithm(block["policy"], env, seed=seed, device="cpu", **arguments)


def train(name: str, chosen: RouteArm, seed: int, logs: Path) -> tuple[BaseAlgorithm, int, float]:
    """Return the trained model, its number of steps, and the minutes that the training took."""
    model_file = logs / name.replace(" ", "_") / str(seed) / "model.zip"
    minutes_file = model_file.with_name("minutes.txt")
    algorithm: Any = chosen.arm.algorithm
    if not minutes_file.is_file():  # written last
        begin = time.perf_counter()
        model = learner(chosen, seed)
        model.learn(block_of(chosen.arm, ENV)["n_timesteps"])
        model_file.parent.mkdir(parents=True, exist_ok=True)
        model.save(model_file)
        minutes_file.write_text(f"{(time.perf_counter() - begin) / 60:.1f}")
    trained = algorithm.load(model_file, device="cpu", buffer_size=1)
    return trained, trained.num_timesteps, float(minutes_file.read_text())


class ShuffledCommands:
    """Gives a driver a random command at each junction: straight, left or right.

    :param driver: the driver
    :param seed: seed of the commands
    """

    def __init__(self, driver: Policy, seed: int) -> None:
        self._driver = driver
        self._generator = np.random.default_rng(seed)
        self._told = np.zeros(0, np.int64)
        self._is_at_junction = np.zeros(0, bool)

    def __call__(self, observations: dict[str, np.ndarray], starts: np.ndarray) -> np.ndarray:
        """Replace the commands at junctions by random ones, and return the driver's actions."""
        command = observations["command"]
        is_at_junction = command[:, _JUNCTION_COMMANDS].any(axis=1)
        if len(self._told) != len(command):
            self._told = np.zeros(len(command), np.int64)
            self._is_at_junction = np.zeros(len(command), bool)
        # One draw for each junction, because commands that changed with every frame would average out. Two junctions
        # less than 50 m apart, with no "follow" between them, share a draw.
        is_new = is_at_junction & ~self._is_at_junction
        self._told[is_new] = self._generator.choice(_JUNCTION_COMMANDS, is_new.sum())
        self._is_at_junction = is_at_junction
        shuffled = command.copy()
        rows = np.flatnonzero(is_at_junction)
        shuffled[rows, : len(COMMANDS)] = 0.0
        shuffled[rows, self._told[rows]] = 1.0
        return self._driver({**observations, "command": shuffled}, starts)


def observed(arm: Arm) -> dict[str, Any]:
    """Return the environment arguments that determine what an arm's policies observe."""
    env_kwargs = block_of(arm, ENV).get("env_kwargs", {})
    return {name: value for name, value in env_kwargs.items() if name in OBSERVED}


def examine(driver: Policy, maps: Sequence[str], env_kwargs: dict[str, Any]) -> list[Drive]:
    """Drive the held-out routes: the same ones for every driver, equally many on each map."""
    drives: list[Drive] = []
    per_map = N_ROUTES // len(maps)
    for name in maps:
        n_envs = min(N_ENVS, per_map)
        env = make_vec_env(ENV, n_envs, env_kwargs={**env_kwargs, "maps": [name]})
        for first in range(0, per_map, n_envs):
            options = [{"route": first + number} for number in range(n_envs)]
            drives += drive_episodes(driver, env, TEST_SEED + first, options=options)
        env.close()
    return drives


def run(name: str, chosen: RouteArm, seed: int, logs: Path) -> result_rows.Row:
    """Return the row of one run."""
    model, steps, minutes = train(name, chosen, seed, logs)
    driver = trained_policy(model)
    seen = observed(chosen.arm)
    drives = examine(driver, chosen.test_maps, seen)
    told, misled = mean_of(drives), mean_of(examine(ShuffledCommands(driver, seed), chosen.test_maps, seen))
    return {
        "arm": name,
        "seed": seed,
        "steps": steps,
        "episodes": len(drives),
        "success": round(told.success_rate, 3),
        "success shuffled": round(misled.success_rate, 3),
        "route completion": round(told.route_completion, 3),
        "driving score": round(told.driving_score, 1),
        "driving score shuffled": round(misled.driving_score, 1),
        "speed m/s": round(told.speed_mps, 2),
        "lane invasions per km": round(1_000.0 * told.lane_invasions / max(1e-9, told.distance_m), 2),
        "return": round(told.reward, 1),
        "minutes": minutes,
    }


def table(rows: Sequence[result_rows.Row], columns: Sequence[str] = COLUMNS) -> str:
    """Return the results as a Markdown table."""
    lines = ["| " + " | ".join(columns) + " |", "| --- " * len(columns) + "|"]
    lines += ["| " + " | ".join(f"{row[column]}" for column in columns) + " |" for row in rows]
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, one run after another, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="+", default=["visual", "SB3 TD3"], help="arms to run (default: %(default)s)")
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        default=[0],
        help="train each arm once with each of these seeds (default: seed 0)",
    )
    parser.add_argument("--towns", type=Path, help="folder of Town01.xodr and Town02.xodr, for arms on these towns")
    parser.add_argument(
        "-f",
        "--log-folder",
        type=Path,
        default=Path("logs/route_learning"),
        help="folder of the models; a model that is already there is not trained again (default: %(default)s)",
    )
    parser.add_argument("--output", type=Path, default=RESULTS, help="file of the results (default: %(default)s)")
    parser.add_argument("--table", action="store_true", help="print the table and run nothing")
    settings = parser.parse_args()
    th.set_num_threads(1)
    if not settings.table:
        available = arms(settings.towns)
        unknown = [name for name in settings.arms if name not in available]
        if unknown:
            parser.error(f"--arms {unknown}: expected some of {list(available)}; arms on Town01 need --towns")
        done = {(row["arm"], row["seed"]) for row in result_rows.read(settings.output)}
        for seed in settings.seeds:
            for name in settings.arms:
                if (name, seed) not in done:
                    row = run(name, available[name], seed, settings.log_folder)
                    result_rows.add(row, settings.output, COLUMNS)
    print(table(result_rows.read(settings.output)))


if __name__ == "__main__":
    main()
