"""Does overlap=True hide the updates behind a slow simulator?

LiteDriving-v0 in a process of its own is slowed to a CARLA's 20 steps per second: each step sleeps until 50 ms have
passed, which costs no processor time. VisualTD3 makes one update per step, by turns without and with overlap, and each
round stands in one line of the table:

  without overlap a step takes the sum, 50 ms plus the update;
  with overlap it takes the longer of the two, plus what neither hides: choosing the action, and the way to the other
  process and back. 95 % of 20 steps/s and more can only be reached where an update takes less than 50 ms.

Rounds are kept in benchmarks/results/overlap.json, by setting, and those that are there are not measured again: it can
be stopped and continued. After a change of the code ask for --again. With the defaults it takes three minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch as th
from paced_env import PacedEnv
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import SubprocVecEnv
from tqdm import tqdm

from sb3_visual_td3 import VisualTD3
from sb3_visual_td3.envs import LITE_DRIVING_ID, register_envs

RESULTS = Path(__file__).parent / "results" / "overlap.json"
MAP = "train_0"
"""One map, built before the clock runs: the first reset to a new one takes longer than a step."""
Round = dict[str, dict[str, float]]


class TimedTD3(VisualTD3):
    """Notes how long each update takes, where it takes place."""

    update_s: list[float]

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        """Train, and note the time."""
        begin = time.perf_counter()
        super().train(gradient_steps, batch_size)
        self.update_s.append(time.perf_counter() - begin)


class StepClock(BaseCallback):
    """Notes when each step is done."""

    def __init__(self, bar: tqdm[Any]) -> None:
        super().__init__()
        self.bar = bar
        self.done_s: list[float] = []

    def _on_step(self) -> bool:
        self.done_s.append(time.perf_counter())
        self.bar.update()
        return True


def make_model(overlap: bool, settings: argparse.Namespace) -> TimedTD3:
    """:return: a model that has just begun to learn, on a simulator in another process that is slow from now on"""
    env = SubprocVecEnv([lambda: PacedEnv(gym.make(LITE_DRIVING_ID, maps=MAP))], start_method="fork")
    model = TimedTD3(
        "CnnPolicy",
        env,
        buffer_size=10_000,
        learning_starts=settings.batch_size,
        batch_size=settings.batch_size,
        policy_kwargs={"encoder": settings.encoder},
        seed=0,
        overlap=overlap,
    )
    model.update_s = []
    model.learn(settings.batch_size + 4)  # the first updates allocate
    env.env_method("set_step_s", 1.0 / settings.rate)
    return model


def measure(model: TimedTD3, n_steps: int, bar: tqdm[Any]) -> dict[str, float]:
    """:return: steps per second, and the median milliseconds of an update within them"""
    clock = StepClock(bar)
    model.update_s = []
    model.learn(n_steps, callback=clock, reset_num_timesteps=False)
    return {
        "steps_per_s": (n_steps - 1) / (clock.done_s[-1] - clock.done_s[0]),
        "update_ms": 1e3 * statistics.median(model.update_s),
    }


def save(results: dict[str, list[Round]]) -> None:
    """Keep the results; one file takes the other's place at once."""
    RESULTS.parent.mkdir(exist_ok=True)
    temporary = RESULTS.with_suffix(".tmp")
    temporary.write_text(json.dumps(results, indent=2, sort_keys=True) + "\n")
    os.replace(temporary, RESULTS)


def table(rounds: list[Round], rate: float) -> str:
    """:return: the rounds and their medians as Markdown; shares are of the simulator's own rate"""
    columns = ["ms/update", "off, steps/s", "share", "sum predicts", "on, steps/s", "share"]
    lines = ["| round | " + " | ".join(columns) + " |", "| --- " * (len(columns) + 1) + "|"]
    rows = [
        (row["off"]["update_ms"], row["off"]["steps_per_s"], row["on"]["update_ms"], row["on"]["steps_per_s"])
        for row in rounds
    ]
    numbered = [(str(index), row) for index, row in enumerate(rows, start=1)]
    medians = tuple(statistics.median(column) for column in zip(*rows, strict=True))
    for name, (off_ms, off, on_ms, on) in [*numbered, ("median", medians)]:
        predicted = 1.0 / (1.0 / rate + off_ms / 1e3)
        cells = [f"{off_ms:.1f} off, {on_ms:.1f} on", f"{off:.2f}", f"{off / rate:.1%}", f"{predicted:.2f}"]
        lines.append(f"| {name} | " + " | ".join([*cells, f"{on:.2f}", f"{on / rate:.1%}"]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure the rounds that are missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=20.0, help="steps per second of the simulator (default: 20)")
    parser.add_argument("--batch-size", type=int, default=64, help="transitions per update (default: 64)")
    parser.add_argument("--encoder", choices=["separate", "shared"], default="shared", help="(default: shared)")
    parser.add_argument("--num-threads", type=int, default=1, help="of torch (default: 1)")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of off and on (default: 5)")
    parser.add_argument("--steps", type=int, default=200, help="per round, off and on each (default: 200)")
    parser.add_argument("--again", action="store_true", help="forget this setting's rounds and measure anew")
    settings = parser.parse_args()
    th.set_num_threads(settings.num_threads)
    register_envs()
    key = f"{settings.encoder} encoder, batch {settings.batch_size}, {settings.rate:g} steps/s"
    key += f", {settings.num_threads} thread(s), {settings.steps} steps"
    results: dict[str, list[Round]] = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    rounds = results[key] = [] if settings.again else results.get(key, [])
    n_missing = max(0, settings.rounds - len(rounds))
    if n_missing:
        models = {name: make_model(overlap, settings) for name, overlap in (("off", False), ("on", True))}
        with tqdm(total=2 * n_missing * settings.steps, unit="step", smoothing=0.0, disable=None) as bar:
            for _ in range(n_missing):
                rounds.append({name: measure(model, settings.steps, bar) for name, model in models.items()})
                save(results)
        for model in models.values():
            assert model.env is not None
            model.env.close()
    print(f"{key}; torch {th.__version__}\n")
    print(table(rounds[: settings.rounds], settings.rate))


if __name__ == "__main__":
    main()
