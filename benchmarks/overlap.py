"""Does overlap=True hide the updates behind a slow simulator?

LiteDriving-v0, in a separate process, is slowed to 20 steps per second, like CARLA: each step sleeps until 50 ms have
passed, which costs no processor time. VisualTD3 makes one update per step. A round measures first without and then with
overlap. The table has a line for each round, and a line with the medians. The expected duration of a step:

- Without overlap: the sum of 50 ms and the time of the update.
- With overlap: 50 ms or the time of the update, whichever is longer, plus what cannot be hidden: choosing the action,
  and the communication with the other process.

The training can reach 95 % of the simulator's 20 steps/s only if an update takes less than 50 ms.

Rounds are kept in benchmarks/results/overlap.json, under a key that names the settings. Stored rounds are not measured
again, so the benchmark can be stopped and continued. After a change of the code use --again. With the defaults the
benchmark takes three minutes.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch as th
from paced_env import PacedEnv
from result_rows import read_json, save_json, torch_versions
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import SubprocVecEnv
from tqdm import tqdm

from sb3_visual_td3 import VisualTD3
from sb3_visual_td3.envs import LITE_DRIVING_ID, register_envs

RESULTS = Path(__file__).parent / "results" / "overlap.json"
MAP = "train_0"
"""A single map, built before the measurement: the first reset to a new map takes longer than a step."""
Round = dict[str, Any]
"""The measurements "off" and "on", and the version of torch."""


class TimedTD3(VisualTD3):
    """Record the duration of each update, in the thread that makes it."""

    update_s: list[float]

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        """Train, and record the time."""
        begin = time.perf_counter()
        super().train(gradient_steps, batch_size)
        self.update_s.append(time.perf_counter() - begin)


class StepClock(BaseCallback):
    """Record when each step ends."""

    def __init__(self, bar: tqdm[Any]) -> None:
        super().__init__()
        self.bar = bar
        self.done_s: list[float] = []

    def _on_step(self) -> bool:
        self.done_s.append(time.perf_counter())
        self.bar.update()
        return True


def make_model(overlap: bool, settings: argparse.Namespace) -> TimedTD3:
    """Return a model that has made its first updates.

    Its simulator runs in another process, at full speed during these updates and slowed to ``--rate`` afterwards.
    """
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
    model.learn(settings.batch_size + 4)  # warm-up: the first updates allocate memory
    env.env_method("set_step_s", 1.0 / settings.rate)
    return model


def measure(model: TimedTD3, n_steps: int, bar: tqdm[Any]) -> dict[str, float]:
    """Train for ``n_steps`` steps; return the steps per second and the median duration of an update in milliseconds."""
    clock = StepClock(bar)
    model.update_s = []
    model.learn(n_steps, callback=clock, reset_num_timesteps=False)
    return {
        "steps_per_s": (n_steps - 1) / (clock.done_s[-1] - clock.done_s[0]),
        "update_ms": 1e3 * statistics.median(model.update_s),
    }


def table(rounds: list[Round], rate: float) -> str:
    """Return the rounds and their medians as Markdown. A "share" is a speed divided by the simulator's rate."""
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
    """Measure the rounds that are not stored yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=20.0, help="steps per second of the simulator (default: 20)")
    parser.add_argument("--batch-size", type=int, default=64, help="transitions per update (default: 64)")
    parser.add_argument(
        "--encoder", choices=["separate", "shared"], default="shared", help="encoder of the policy (default: shared)"
    )
    parser.add_argument("--num-threads", type=int, default=1, help="threads of torch (default: 1)")
    parser.add_argument(
        "--rounds", type=int, default=5, help="number of rounds; each measures with and without overlap (default: 5)"
    )
    parser.add_argument(
        "--steps",
        type=int,
        default=200,
        help="environment steps of one measurement; a round has two, without and with overlap (default: 200)",
    )
    parser.add_argument(
        "--again", action="store_true", help="discard the rounds stored for the same settings and measure again"
    )
    settings = parser.parse_args()
    th.set_num_threads(settings.num_threads)
    register_envs()
    key = f"{settings.encoder} encoder, batch {settings.batch_size}, {settings.rate:g} steps/s"
    key += f", {settings.num_threads} thread(s), {settings.steps} steps"
    results: dict[str, list[Round]] = read_json(RESULTS)
    rounds = results[key] = [] if settings.again else results.get(key, [])
    n_missing = max(0, settings.rounds - len(rounds))
    if n_missing:
        models = {name: make_model(overlap, settings) for name, overlap in (("off", False), ("on", True))}
        with tqdm(total=2 * n_missing * settings.steps, unit="step", smoothing=0.0, disable=None) as bar:
            for _ in range(n_missing):
                measured = {name: measure(model, settings.steps, bar) for name, model in models.items()}
                rounds.append({"torch": th.__version__, **measured})
                save_json(results, RESULTS)
        for model in models.values():
            assert model.env is not None
            model.env.close()
    shown = rounds[: settings.rounds]
    print(f"{key}; torch {torch_versions(shown)}\n")
    print(table(shown, settings.rate))


if __name__ == "__main__":
    main()
