"""What does a replay buffer of camera stacks cost: memory, and time to sample?

Fills FrameReplayBuffer with --transitions observations of 4 x 84 x 84 uint8, and prints by how much the resident memory
of the process grew. One process uses episodes of 200 steps, another uses episodes of 10. Frames are random, from a pool
that is allocated before the measurement. Stable-Baselines3's ReplayBuffer would need 56.5 GB for a million transitions.
Therefore the script fills that buffer with only --stock-transitions, in a process of its own, and scales the growth of
its memory to --transitions.

Then the speed of sampling is measured with n_steps 1 and 3. FrameReplayBuffer and SB3's buffer hold --speed-transitions
each, and sample batches of 256 transitions alternately, --rounds times. In a round, FrameReplayBuffer and SB3's buffer
draw the same transitions. The result is the median of the rounds' ratios (FrameReplayBuffer's time / SB3's time).
A ratio below 1 means that FrameReplayBuffer is faster, although it builds the stacks when it samples.

Results are kept in benchmarks/results/replay_memory.json. Stored measurements of the same size are not made again, so
the benchmark can be stopped and continued. After a change of the code use --again.
A million transitions need 7.9 GB of free memory and a few minutes; try --transitions 100000 first.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch as th
from gymnasium import spaces
from result_rows import read_json, save_json
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer
from tqdm import tqdm

from sb3_visual_td3 import FrameReplayBuffer

RESULTS = Path(__file__).parent / "results" / "replay_memory.json"
STACK = 4
SPACE = spaces.Box(0, 255, (STACK, 84, 84), np.uint8)
ACTIONS = spaces.Box(-1, 1, (2,), np.float32)
BATCH = 256
N_WARM_UP = 5
"""Number of samples before the measurement: the first ones allocate memory."""
Result = dict[str, float]


def make(kind: str, n: int, n_steps: int = 1) -> ReplayBuffer:
    """Return an empty buffer for n transitions.

    :param kind: ``"ours"`` for FrameReplayBuffer, ``"sb3"`` for SB3's buffer
    """
    if kind == "ours":
        return FrameReplayBuffer(n, SPACE, ACTIONS, "cpu", frame_stack=STACK, n_steps=n_steps)
    if n_steps > 1:
        return NStepReplayBuffer(n, SPACE, ACTIONS, "cpu", n_steps=n_steps)
    return ReplayBuffer(n, SPACE, ACTIONS, "cpu")


def fill(buffer: ReplayBuffer, n: int, episode: int, pool: np.ndarray, label: str) -> None:
    """Add n transitions with frames of the pool, in episodes of ``episode`` transitions."""
    random = np.random.default_rng(0)
    numbers = random.integers(len(pool), size=n + n // episode + 1)
    action, reward, infos = np.zeros((1, 2), np.float32), np.ones(1, np.float32), [{"TimeLimit.truncated": False}]
    taken = 0
    for step in tqdm(range(n), desc=label, unit="transition", unit_scale=True, disable=None):
        if step % episode == 0:
            obs = np.repeat(pool[numbers[taken]][None, None], STACK, axis=1)
            taken += 1
        next_obs = np.concatenate([obs[:, 1:], pool[numbers[taken]][None, None]], axis=1)
        taken += 1
        buffer.add(obs, next_obs, action, reward, np.array([step % episode == episode - 1]), infos)
        obs = next_obs


def make_pool() -> np.ndarray:
    """Return random frames from which observations are drawn."""
    return np.random.default_rng(1).integers(1, 256, (1024, 84, 84), dtype=np.uint8)


def sample_ms(buffer: ReplayBuffer) -> float:
    """Return the milliseconds that sampling one batch takes."""
    begin = time.perf_counter()
    buffer.sample(BATCH)
    return 1e3 * (time.perf_counter() - begin)


def measure_memory(kind: str, n: int, episode: int, label: str) -> Result:
    """Fill a buffer; return the growth of this process's memory and the time of a sample. Needs a fresh process."""
    th.set_num_threads(1)
    pool = make_pool()
    before = psutil.Process().memory_info().rss
    buffer = make(kind, n)
    fill(buffer, n, episode, pool, label)
    growth = psutil.Process().memory_info().rss - before
    times = [sample_ms(buffer) for _ in range(N_WARM_UP + 30)][N_WARM_UP:]
    return {"n": buffer.size(), "growth_bytes": growth, "sample_ms": statistics.median(times)}


def measure_speed(n: int, n_steps: int, n_rounds: int, label: str) -> Result:
    """Measure how long both kinds of buffers take to sample a batch. Needs a fresh process.

    :return: medians over the rounds: the milliseconds of ``"ours"`` and ``"sb3"``, and the ratio of these times
    """
    th.set_num_threads(1)
    pool = make_pool()
    buffers = {kind: make(kind, n, n_steps) for kind in ("ours", "sb3")}
    for kind, buffer in buffers.items():
        fill(buffer, n, 200, pool, f"{label}, {kind}")
    rounds: list[dict[str, float]] = []
    for number in range(N_WARM_UP + n_rounds):
        times = {}
        for kind in sorted(buffers, reverse=bool(number % 2)):  # the order alternates from round to round
            np.random.seed(number)
            times[kind] = sample_ms(buffers[kind])
        rounds.append(times)
    kept = rounds[N_WARM_UP:]
    medians = {f"{kind}_ms": statistics.median(times[kind] for times in kept) for kind in buffers}
    return {**medians, "ratio": statistics.median(times["ours"] / times["sb3"] for times in kept)}


def in_a_fresh_process(work: Callable[..., Result], *args: Any) -> Result:
    """Call a function in a fresh process and return its result."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *args).result()


def plan(settings: argparse.Namespace) -> dict[str, tuple[Callable[..., Result], tuple[Any, ...]]]:
    """Return the measurements to make, by name."""
    n, n_stock = settings.transitions, min(settings.stock_transitions, settings.transitions)
    jobs: dict[str, tuple[Callable[..., Result], tuple[Any, ...]]] = {}
    for episode in (200, 10):
        name = f"memory, ours, {n:,} transitions, episodes of {episode}"
        jobs[name] = (measure_memory, ("ours", n, episode, name))
    name = f"memory, SB3, {n_stock:,} transitions"
    jobs[name] = (measure_memory, ("sb3", n_stock, 200, name))
    for n_steps in (1, 3):
        name = f"sampling {BATCH}, n_steps {n_steps}, {settings.speed_transitions:,} transitions"
        jobs[name] = (measure_speed, (settings.speed_transitions, n_steps, settings.rounds, name))
    return jobs


def report(results: dict[str, Result], n: int) -> str:
    """Return the two tables as Markdown."""
    lines = [f"| resident memory | transitions | growth, GB | KB/transition | GB for {n:,} | ms to sample {BATCH} |"]
    lines.append("| --- " * 6 + "|")
    for name, result in results.items():
        if "growth_bytes" in result:
            each = result["growth_bytes"] / result["n"]
            whole = f"{each * n / 1e9:.2f}" + ("" if result["n"] == n else " (scaled)")
            cells = [f"{result['n']:,.0f}", f"{result['growth_bytes'] / 1e9:.2f}", f"{each / 1e3:.2f}", whole]
            lines.append(f"| {name} | " + " | ".join([*cells, f"{result['sample_ms']:.2f}"]) + " |")
    lines += ["", "| time | ours, ms | SB3, ms | median ratio |", "| --- " * 4 + "|"]
    for name, result in results.items():
        if "ratio" in result:
            lines.append(f"| {name} | {result['ours_ms']:.2f} | {result['sb3_ms']:.2f} | {result['ratio']:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Make the measurements that are not stored yet, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--transitions", type=int, default=1_000_000, help="transitions in FrameReplayBuffer (default: 1,000,000)"
    )
    parser.add_argument(
        "--stock-transitions",
        type=int,
        default=50_000,
        help="transitions in SB3's ReplayBuffer (default: 50,000, which take 2.8 GB)",
    )
    parser.add_argument(
        "--speed-transitions",
        type=int,
        default=20_000,
        help="transitions in each buffer when the speed is measured (default: 20,000, which take 1.3 GB)",
    )
    parser.add_argument(
        "--rounds", type=int, default=100, help="number of rounds; each samples from both buffers (default: 100)"
    )
    parser.add_argument(
        "--again", action="store_true", help="discard the stored results of these settings and measure again"
    )
    settings = parser.parse_args()
    results: dict[str, Result] = read_json(RESULTS)
    jobs = plan(settings)
    for name, (work, args) in jobs.items():
        if settings.again or name not in results:
            results[name] = in_a_fresh_process(work, *args)
            save_json(results, RESULTS)
    print(report({name: results[name] for name in jobs}, settings.transitions))


if __name__ == "__main__":
    main()
