"""Does a script learn to drive from camera images if only TD3 is replaced by VisualTD3?

A cell is one configuration of this study. Every cell trains `VisualTD3("CnnPolicy", env)` without other cars on the
eight training maps of LiteDriving-v0. The arguments of TD3 keep Stable-Baselines3's defaults: learning rate 1e-3, batch
256, one update per step. The rewards are not normalised by VecNormalize. The cell `defaults` changes nothing. Nine
cells change one thing: the reward's scale, the learning rate, the number of stacked frames, the colours or the size of
the images. Six mixed cells change several of these things. After 10,000 steps the last policy drives 100 episodes on
the two held-out maps.

    python benchmarks/class_swap.py                                    # all 16 cells, seed 0
    python benchmarks/class_swap.py --cells defaults 'reward x 100' 'reward x 100, not scaled'
    python benchmarks/class_swap.py --table                            # print the results and run nothing

Rows are added to benchmarks/results/class_swap.csv, and cells that are there are not run again. `largest_norm` is the
largest gradient norm of any parameter group before clipping. `saturation` is the share of action components with an
absolute value above 0.99, in the 100 test episodes. On each map, 50 environments act until the last of their episodes
ends: an environment whose episode has ended begins another one, and the actions of this episode count too. `minutes` is
processor time; a cell took 6 to 31 minutes.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from learning_arms import ENV
from learning_study import driver_of, summary
from result_rows import Row, add, read
from stable_baselines3.common.callbacks import BaseCallback, ProgressBarCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.utils import set_random_seed

from sb3_visual_td3 import VisualTD3
from sb3_visual_td3.callbacks.drives import Drive, drive_episodes
from sb3_visual_td3.common.types import NetworkUpdate
from sb3_visual_td3.envs.road.maps import MAP_GROUPS

RESULTS = Path(__file__).parent / "results" / "class_swap.csv"
COLUMNS = (
    "cell",
    "seed",
    "steps",
    "driven_to_the_end",
    "distance_m",
    "success_rate",
    "largest_norm",
    "saturation",
    "minutes",
)
N_STEPS = 10_000
N_TEST_EPISODES = 100
TEST_SEED = 10_000
SATURATED = 0.99
DRIVES = 0.9
"""Share of the held-out episodes that a good policy drives to the end."""


@dataclass(frozen=True)
class Cell:
    """Describe one configuration of the study by the arguments that differ from the defaults.

    :param env_kwargs: arguments of the environment, in training and in the test
    :param arguments: arguments of VisualTD3
    """

    env_kwargs: dict[str, Any] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)


def _cell(learning_rate: float | None = None, **env_kwargs: Any) -> Cell:
    if learning_rate is None:
        return Cell(env_kwargs)
    return Cell(env_kwargs, {"learning_rate": learning_rate})


CELLS = {
    "defaults": _cell(),
    "reward x 0.01": _cell(reward_scale=0.01),
    "reward x 100": _cell(reward_scale=100.0),
    "learning rate 1e-4": _cell(1e-4),
    "learning rate 3e-4": _cell(3e-4),
    "1 frame": _cell(frame_stack=1),
    "3 frames": _cell(frame_stack=3),
    "RGB": _cell(grayscale=False),
    "64 x 64": _cell(image_size=64),
    "128 x 128": _cell(image_size=128),
    "reward x 100, learning rate 1e-4": _cell(1e-4, reward_scale=100.0),
    "reward x 0.01, learning rate 3e-4": _cell(3e-4, reward_scale=0.01),
    "reward x 100, RGB, 3 frames": _cell(reward_scale=100.0, grayscale=False, frame_stack=3),
    "reward x 0.01, 64 x 64, 1 frame": _cell(reward_scale=0.01, image_size=64, frame_stack=1),
    "RGB, 64 x 64, learning rate 3e-4": _cell(3e-4, grayscale=False, image_size=64),
    "learning rate 1e-4, 128 x 128, 3 frames": _cell(1e-4, image_size=128, frame_stack=3),
}


def _unscaled(name: str) -> Cell:
    return replace(CELLS[name], arguments={"scale_rewards": False})


COMPARISONS = {
    "defaults, rewards not scaled": _unscaled("defaults"),
    "reward x 0.01, not scaled": _unscaled("reward x 0.01"),
    "reward x 100, not scaled": _unscaled("reward x 100"),
}
"""Configurations with ``scale_rewards=False``, for comparison. The summary below the table does not count them."""
ALL = {**CELLS, **COMPARISONS}


class LargestNorm:
    """An observer of the updates that keeps the largest gradient norm of any group, before clipping."""

    def __init__(self) -> None:
        self.value = 0.0

    def after_backward(self, update: NetworkUpdate) -> None:
        """Compare the norms of this update with the largest one so far."""
        for weights in update.groups.values():
            gradients = [weight.grad for weight in weights if weight.grad is not None]
            if gradients:
                self.value = max(self.value, float(th.nn.utils.get_total_norm(gradients)))

    def after_clipping(self, update: NetworkUpdate) -> None:
        """Do nothing: the norms are those before clipping."""

    def after_step(self, update: NetworkUpdate) -> None:
        """Do nothing: the weights are not measured."""


def trained(cell: Cell, seed: int, n_steps: int) -> tuple[VisualTD3, float]:
    """Train VisualTD3 in one configuration.

    :param cell: the arguments of environment and algorithm that differ from the defaults
    :param seed: the seed of environment and algorithm
    :param n_steps: steps of the training
    :return: the final model, and the largest gradient norm of its training
    """
    set_random_seed(seed)
    env = make_vec_env(ENV, 1, seed=seed, env_kwargs=cell.env_kwargs)
    model = VisualTD3("CnnPolicy", env, seed=seed, **cell.arguments)
    norm = LargestNorm()
    model.observers.append(norm)
    bar: list[BaseCallback] = [ProgressBarCallback()]
    model.learn(n_steps, callback=bar)
    return model, norm.value


def tested(model: VisualTD3, cell: Cell) -> tuple[dict[str, Any], float]:
    """Drive the held-out episodes.

    :param model: the trained model
    :param cell: the configuration, whose environment is used
    :return: the summary of the episodes, and the share of saturated action components
    """
    actions: list[np.ndarray] = []
    drive = driver_of(model)

    def noted(observations: np.ndarray, starts: np.ndarray) -> np.ndarray:
        actions.append(drive(observations, starts))
        return actions[-1]

    drives: list[Drive] = []
    names = MAP_GROUPS["held_out"]
    n_episodes = N_TEST_EPISODES // len(names)
    for name in names:
        env = make_vec_env(ENV, n_episodes, env_kwargs={**cell.env_kwargs, "maps": [name]})
        drives += drive_episodes(noted, env, TEST_SEED)
        env.close()
    saturation = float((np.abs(np.concatenate(actions)) > SATURATED).mean())
    return summary(drives), saturation


def run(name: str, seed: int, n_steps: int) -> Row:
    """Train and test one configuration, and return its row."""
    begin = time.process_time()
    model, largest_norm = trained(ALL[name], seed, n_steps)
    found, saturation = tested(model, ALL[name])
    return {
        "cell": name,
        "seed": seed,
        "steps": n_steps,
        "driven_to_the_end": round(found["driven_to_the_end"], 3),
        "distance_m": round(found["distance_m"], 1),
        "success_rate": round(found["success_rate"], 3),
        "largest_norm": round(largest_norm, 3),
        "saturation": round(saturation, 4),
        "minutes": round((time.process_time() - begin) / 60, 1),
    }


def table(rows: list[Row]) -> str:
    """Return a Markdown table with a row for each run, and a line that counts the runs with a good last policy."""
    lines = [
        "| cell | seed | held-out episodes driven to the end | metres | largest gradient norm | saturation |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name in ALL:
        for row in rows:
            if row["cell"] == name:
                lines.append(
                    f"| {name} | {row['seed']} | {row['driven_to_the_end']:.0%} | {row['distance_m']:.0f} | "
                    f"{row['largest_norm']:.3g} | {row['saturation']:.1%} |"
                )
    counted = [row for row in rows if row["cell"] in CELLS]
    good = sum(row["driven_to_the_end"] >= DRIVES for row in counted)
    share = f"{good} of {len(counted)} runs with scale_rewards"
    lines += ["", f"The last policies of {share} drive at least {DRIVES:.0%} of the episodes to the end."]
    return "\n".join(lines)


def main() -> None:
    """Train and test the configurations that have no results yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--cells",
        nargs="+",
        default=list(CELLS),
        choices=ALL,
        metavar="CELL",
        help="cells (configurations) to run; default: all except the comparisons with scale_rewards=False",
    )
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=[0], help="train once with each of these seeds (default: seed 0)"
    )
    parser.add_argument(
        "-n", "--n-steps", type=int, default=N_STEPS, help=f"environment steps of a run (default: {N_STEPS:,})"
    )
    parser.add_argument(
        "--output", type=Path, default=RESULTS, help=f"file of the results (default: benchmarks/results/{RESULTS.name})"
    )
    parser.add_argument("--table", action="store_true", help="print the results and run nothing")
    arguments = parser.parse_args()
    if not arguments.table:
        th.set_num_threads(1)
        for name in arguments.cells:
            for seed in arguments.seeds:
                done = {(row["cell"], row["seed"], row["steps"]) for row in read(arguments.output)}
                if (name, seed, arguments.n_steps) not in done:
                    row = run(name, seed, arguments.n_steps)
                    add(row, arguments.output, COLUMNS)
                    print(row)
    print(table(read(arguments.output)))


if __name__ == "__main__":
    main()
