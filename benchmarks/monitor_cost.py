"""What does monitoring a training run cost? Compares updates of the same model with the monitor on and off.

The monitor consists of GradientNormCallback and ExplosionAlertCallback with their default settings, in a training run
with one update per step. It measures one update in 10, receives the images and rewards of every step, checks the run
every 50 steps, and writes a point to the event file every 100 steps. A block of 100 updates contains all of this work.
Blocks are measured in pairs, one block with and one without the monitor, in alternating order. Each pair gives the time
that the monitor adds, relative to the block without it. The median should be at most 2 %.

The table shows wall-clock time and processor time. Other work on the machine disturbs the processor time less. The last
column is the processor time inside the monitor's own calls, relative to that of the updates. It leaves out the effect
of the monitor on caches.

Pairs are kept in benchmarks/results/monitor_cost.json. Pairs with the same settings are not measured again, so the
benchmark can be stopped and continued. After a change of the code use --again. With the defaults the benchmark takes
ten minutes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch as th
from result_rows import read_json, torch_versions
from stable_baselines3.common.callbacks import CallbackList
from stable_baselines3.common.logger import configure
from tqdm import tqdm

from sb3_visual_td3 import ExplosionAlertCallback, GradientNormCallback, VisualTD3
from sb3_visual_td3.common.types import NetworkUpdate, UpdateObserver
from sb3_visual_td3.runs.durable_files import write_atomically

RESULTS = Path(__file__).parent / "results" / "monitor_cost.json"
N_STORED = 1_000
N_FRAMES = 50
Pair = dict[str, Any]
"""The measurements "on" and "off", and the version of torch."""


class Case(NamedTuple):
    """One training run for which the monitor is measured."""

    batch_size: int
    settings: dict[str, Any]


CASES = {
    "preset visual, batch 128": Case(128, {}),
    "separate encoders, batch 256": Case(256, {"policy_kwargs": {"encoder": "separate"}}),
    "preset visual, batch 64": Case(64, {}),
}


class Stopwatch:
    """Add up the processor time that this thread spends in the wrapped functions."""

    def __init__(self) -> None:
        self.total_s = 0.0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function wrapped so that its time is added up."""

        def timed(*args: Any) -> Any:
            begin = time.thread_time()
            try:
                return function(*args)
            finally:
                self.total_s += time.thread_time() - begin

        return timed


class Timed:
    """An observer whose time is measured."""

    def __init__(self, observer: UpdateObserver, watch: Stopwatch) -> None:
        self.after_backward: Callable[[NetworkUpdate], None] = watch.around(observer.after_backward)
        self.after_clipping: Callable[[NetworkUpdate], None] = watch.around(observer.after_clipping)
        self.after_step: Callable[[NetworkUpdate], None] = watch.around(observer.after_step)


class Training:
    """A model that makes updates, with a monitor that can be removed and restored.

    :param case: the batch size, and the settings of the model
    :param device: the torch device
    :param folder: the folder for event files
    """

    def __init__(self, case: Case, device: str, folder: str) -> None:
        self.batch_size = case.batch_size
        settings = {"buffer_size": N_STORED, "batch_size": case.batch_size, "device": device, "seed": 0}
        self.model = VisualTD3("CnnPolicy", "LiteDriving-v0", **settings, **case.settings)
        self.model.set_logger(configure(folder, ["tensorboard"]))
        rng = np.random.default_rng(0)
        self._frames = rng.integers(0, 256, (N_FRAMES, 1, 4, 84, 84), np.uint8)
        self._rewards = rng.normal(size=(N_FRAMES, 1)).astype(np.float32)
        self._fill(rng)
        self.watch = Stopwatch()
        self._callbacks = CallbackList([GradientNormCallback(), ExplosionAlertCallback(verbose=0)])
        self._callbacks.init_callback(self.model)
        self._callbacks.on_training_start({}, {})
        self._observers = [Timed(observer, self.watch) for observer in self.model.observers]
        self._step_timed = self.watch.around(self._step)

    def _fill(self, rng: np.random.Generator) -> None:
        assert self.model.replay_buffer is not None
        for index in range(N_STORED):
            first, second = self._frames[index % N_FRAMES], self._frames[(index + 1) % N_FRAMES]
            action = rng.uniform(-1.0, 1.0, (1, 2)).astype(np.float32)
            self.model.replay_buffer.add(first, second, action, rng.normal(size=1), np.zeros(1), [{}])

    def _step(self) -> None:
        """Call the monitor as a step of the environment does."""
        self.model.num_timesteps += 1
        index = self.model.num_timesteps % N_FRAMES
        action = np.zeros((1, 2), np.float32)
        self._callbacks.on_rollout_start()
        self._callbacks.update_locals(
            {"new_obs": self._frames[index], "rewards": self._rewards[index], "actions": action}
        )
        self._callbacks.on_step()

    def block(self, n_updates: int, is_watched: bool) -> dict[str, float]:
        """Time a block of updates.

        :return: wall-clock time, processor time, and processor time inside the monitor's calls, in seconds
        """
        # In place: the model's parts hold this very list.
        self.model.observers[:] = self._observers if is_watched else []
        self.watch.total_s = 0.0
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(n_updates):
            if is_watched:
                self._step_timed()
            self.model.train(1, self.batch_size)
        if self.model.device.type == "cuda":
            th.cuda.synchronize()
        return {
            "wall_s": time.perf_counter() - wall,
            "cpu_s": time.process_time() - cpu,
            "inside_s": self.watch.total_s,
        }


def measure(training: Training, pairs: list[Pair], options: argparse.Namespace, name: str, save: Any) -> None:
    """Measure the missing pairs."""
    for is_watched in (True, False):
        training.block(12, is_watched)  # warm-up: lazy initialisation and allocation
    with tqdm(total=options.pairs, initial=len(pairs), desc=name, unit="pair", smoothing=0.0, disable=None) as bar:
        while len(pairs) < options.pairs:
            # The order alternates, so that a drift of the machine's speed cancels out.
            order = ("on", "off") if len(pairs) % 2 else ("off", "on")
            measured = {which: training.block(options.updates, which == "on") for which in order}
            pairs.append({"torch": th.__version__, **measured})
            save()
            bar.update()


def spread(values: Sequence[float]) -> str:
    """Return the median and the quartiles of the monitor's relative costs, in percent."""
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{median:+.2%} ({low:+.2%} to {high:+.2%})"


def table(results: dict[str, list[Pair]], n_updates: int) -> str:
    """Return the cases as Markdown."""
    columns = ["ms/update, off", "wall clock", "processor time", "processor time inside the monitor"]
    lines = ["| what | pairs | " + " | ".join(columns) + " |", "| --- " * (len(columns) + 2) + "|"]
    for name, pairs in results.items():
        update_ms = 1e3 * statistics.median(pair["off"]["wall_s"] for pair in pairs) / n_updates
        added = [
            spread([pair["on"][clock] / pair["off"][clock] - 1.0 for pair in pairs]) for clock in ("wall_s", "cpu_s")
        ]
        # Relative to the updates alone: the time inside the monitor is taken out of the denominator.
        inside = spread([pair["on"]["inside_s"] / (pair["on"]["cpu_s"] - pair["on"]["inside_s"]) for pair in pairs])
        lines.append(f"| {name} | {len(pairs)} | " + " | ".join([f"{update_ms:.1f}", *added, inside]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure the missing pairs and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--pairs",
        type=int,
        default=12,
        help="pairs of blocks of updates, one block with and one without the monitor (default: 12)",
    )
    parser.add_argument("--updates", type=int, default=100, help="gradient updates in a block (default: 100)")
    parser.add_argument(
        "--cases",
        nargs="+",
        choices=list(CASES),
        default=list(CASES),
        metavar="CASE",
        help="cases to measure (default: all)",
    )
    parser.add_argument("--num-threads", type=int, default=1, help="threads of torch (default: 1)")
    parser.add_argument("--device", default="cpu", help="device of the networks (default: cpu)")
    parser.add_argument(
        "--output",
        type=Path,
        default=RESULTS,
        help="file of the results (default: benchmarks/results/monitor_cost.json)",
    )
    parser.add_argument(
        "--again", action="store_true", help="discard the stored results of the selected cases and measure again"
    )
    options = parser.parse_args()
    th.set_num_threads(options.num_threads)
    key = f"{options.device}, {options.num_threads} thread(s), blocks of {options.updates}"
    results: dict[str, dict[str, list[Pair]]] = read_json(options.output)
    here = results.setdefault(key, {})

    def save() -> None:
        options.output.parent.mkdir(exist_ok=True)
        write_atomically(options.output, json.dumps(results, indent=2) + "\n")

    for name in options.cases:
        pairs = here[name] = [] if options.again else here.get(name, [])
        if len(pairs) < options.pairs:
            with tempfile.TemporaryDirectory() as folder:
                measure(Training(CASES[name], options.device, folder), pairs, options, name, save)
    shown = {name: here[name] for name in options.cases}
    print(f"{key}; torch {torch_versions(pair for pairs in shown.values() for pair in pairs)}\n")
    print(table(shown, options.updates))


if __name__ == "__main__":
    main()
