"""How many milliseconds does an update of VisualTD3 take, compared with Stable-Baselines3's TD3?

Networks, batches and threads are the same.

Every arm runs in its own process, so that arms do not share the state of the memory allocator. Each round measures all
arms, and divides the time of SB3's TD3 by the time of each arm. The table shows medians over the rounds. Run nothing
else on the machine: other work distorts the times.

    python benchmarks/update_speed.py                  # all of it, some minutes on two cores
    python benchmarks/update_speed.py --batch-size 256 --rounds 12
    python benchmarks/update_speed.py --device cuda
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import resource
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from result_rows import read_json
from stable_baselines3 import TD3
from stable_baselines3.common.logger import configure
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from sb3_visual_td3 import VisualTD3
from sb3_visual_td3.runs.durable_files import write_atomically
from sb3_visual_td3.visual_td3.precision import keep_freed_memory

RESULTS = Path(__file__).parent / "results" / "update_speed.json"
HEADS = [400, 300]
N_STORED = 1_000
ALL_OFF: dict[str, Any] = {
    "preset": "visual",
    "random_shift": 0,
    "actor_objective": "q1",
    "pre_tanh_penalty": 0.0,
    "target_q_clamp": False,
    "scale_rewards": False,
    "max_grad_norm": {},
}
"""Settings that switch off what the preset adds to an update of TD3, except ``policy_average``, which stays on. The
arms of VisualTD3 then differ from each other only in the encoder and the precision."""


class Arm(NamedTuple):
    """One of the compared algorithms."""

    encoder: str = ""
    """Encoder of VisualTD3; empty for Stable-Baselines3's TD3."""
    precision: str = "fp32"
    keeps_memory: bool = False
    """Whether Stable-Baselines3's TD3 uses the same settings of the memory allocator as VisualTD3."""


ARMS = {
    "SB3 TD3": Arm(),
    "SB3 TD3, our allocator": Arm(keeps_memory=True),
    "separate, fp32": Arm("separate", "fp32"),
    "separate, bf16": Arm("separate", "bf16"),
    "shared, fp32": Arm("shared", "fp32"),
    "shared, bf16": Arm("shared", "bf16"),
}
END_TO_END = {"SB3 TD3, end to end": Arm(), "preset visual, end to end": Arm("preset", "auto")}


class Images(gym.Env[np.ndarray, np.ndarray]):
    """An environment of random frame stacks: the content does not affect the time of an update."""

    observation_space = spaces.Box(0, 255, (4, 84, 84), np.uint8)
    action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(self, *, seed: int | None = None, **_: Any) -> tuple[np.ndarray, dict[str, Any]]:
        """Return a random stack."""
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, _: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Return a random stack, without a reward or an end."""
        return self.observation_space.sample(), 0.0, False, False, {}


def build(arm: Arm, batch_size: int, device: str) -> TD3:
    """Return a model with a filled buffer, ready to train."""
    settings: dict[str, Any] = {"buffer_size": N_STORED, "batch_size": batch_size, "device": device, "seed": 0}
    model: TD3
    if arm.encoder == "":
        model = TD3("CnnPolicy", Images(), policy_kwargs={"net_arch": HEADS}, **settings)
    else:
        policy_kwargs = {"net_arch": HEADS, "encoder": arm.encoder, "trunk_dim": None}
        settings |= {**ALL_OFF, "precision": arm.precision}
        model = VisualTD3("CnnPolicy", Images(), policy_kwargs=policy_kwargs, **settings)
    model.set_logger(configure(None, []))
    rng = np.random.default_rng(0)
    assert model.replay_buffer is not None
    for _ in range(N_STORED):
        images = rng.integers(0, 256, (2, 1, 4, 84, 84), np.uint8)
        action = rng.uniform(-1.0, 1.0, (1, 2)).astype(np.float32)
        model.replay_buffer.add(images[0], images[1], action, rng.normal(size=1), np.zeros(1), [{}])
    return model


def driver(arm: Arm, batch_size: int, device: str) -> Callable[[int], None]:
    """Return a function that takes some steps of LiteDriving-v0, with one update each."""
    settings: dict[str, Any] = {"buffer_size": 20_000, "learning_starts": 50, "batch_size": batch_size, "seed": 0}
    make = TD3 if arm.encoder == "" else VisualTD3
    model = make("CnnPolicy", "LiteDriving-v0", device=device, **settings)
    model.learn(50)
    return lambda n: model.learn(n, reset_num_timesteps=False) and None


def serve(arm: Arm, is_end_to_end: bool, batch_size: int, n_threads: int, device: str, connection: Connection) -> None:
    """Answer the requests that arrive on a connection, in a separate process.

    A number ``n`` asks for the seconds that ``n`` updates take, ``"flops"`` for the floating-point operations of one
    update, and ``"memory"`` for the peak memory in bytes. ``"stop"`` ends the process.
    """
    th.set_num_threads(n_threads)
    if arm.keeps_memory:
        keep_freed_memory()
    work: Callable[[int], None]
    if is_end_to_end:
        work = driver(arm, batch_size, device)
    else:
        model = build(arm, batch_size, device)
        work = lambda n: model.train(n, batch_size)  # noqa: E731
    work(4)  # warm-up: the first updates allocate memory
    connection.send("ready")
    while (request := connection.recv()) != "stop":
        if request == "flops":
            with FlopCounterMode(display=False) as counter:
                work(4)
            connection.send(counter.get_total_flops() / 4)
        elif request == "memory":
            peak = 1024 * maximum_resident_kilobytes()
            if device == "cuda":
                peak = th.cuda.max_memory_allocated()
            connection.send(peak)
        else:
            connection.send(seconds(lambda n=request: work(n), device))


def maximum_resident_kilobytes() -> int:
    """Return the peak resident memory of this process in kilobytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def seconds(work: Callable[[], None], device: str) -> float:
    """Return the seconds that ``work`` takes."""
    begin = time.perf_counter()
    work()
    if device == "cuda":
        th.cuda.synchronize()  # kernels run asynchronously: wait for them before reading the clock
    return time.perf_counter() - begin


def peak_flops(dtype: th.dtype, n_threads: int, device: str) -> float:
    """Return the floating-point operations per second of a large matrix product or convolution, whichever is faster."""
    th.set_num_threads(n_threads)
    one, two = (th.randn(2_048, 2_048, device=device).to(dtype) for _ in range(2))
    images = th.randn(8, 256, 28, 28, device=device).to(dtype).contiguous(memory_format=th.channels_last)
    filters = th.randn(256, 256, 3, 3, device=device).to(dtype).contiguous(memory_format=th.channels_last)
    rates = []
    for _ in range(10):
        # A multiplication and an addition per element of the inner dimension.
        rates.append(2.0 * 2_048**3 / seconds(lambda: one @ two, device))
        n_outputs = 8 * 256 * 26 * 26
        rates.append(2.0 * n_outputs * 256 * 9 / seconds(lambda: th.conv2d(images, filters), device))
    return max(rates)


def measure(arms: dict[str, Arm], batch_size: int, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Return, for each arm, the milliseconds of every round, the floating-point operations and the memory."""
    context = mp.get_context("spawn")
    lines: dict[str, Connection] = {}
    is_end_to_end = arms is END_TO_END
    workers = []
    for name, arm in arms.items():
        lines[name], theirs = context.Pipe()
        settings = (arm, is_end_to_end, batch_size, options.num_threads, options.device, theirs)
        workers.append(context.Process(target=serve, args=settings, daemon=True))
        workers[-1].start()
        lines[name].recv()
    rows: dict[str, dict[str, Any]] = {name: {"ms": []} for name in arms}
    for _ in tqdm(range(options.rounds), desc=f"batch {batch_size}", unit="round", disable=None):
        for name, line in lines.items():
            line.send(options.updates)
            rows[name]["ms"].append(1e3 * line.recv() / options.updates)
            time.sleep(0.05)  # OpenMP threads spin for a while after their work, and would take time from the next arm
    for name, line in lines.items():
        keys = ["memory"]
        if not is_end_to_end:
            keys.append("flops")
        for key in keys:
            line.send(key)
            rows[name][key] = line.recv()
        line.send("stop")
    for worker in workers:
        worker.join()
    return rows


def table(batch_size: str, rows: dict[str, dict[str, Any]], peaks: dict[str, float]) -> str:
    """Return the rows of one batch size as Markdown."""
    lines = [
        f"| batch {batch_size} | ms, median | ms, least | faster than SB3, median | GFLOP | of the peak | memory, GB |"
    ]
    lines.append("| --- " * 7 + "|")
    reference = next(iter(rows.values()))["ms"]
    for name, row in rows.items():
        ratio = statistics.median(theirs / ours for theirs, ours in zip(reference, row["ms"], strict=True))
        typical = statistics.median(row["ms"])
        cells = [name, f"{typical:.1f}", f"{min(row['ms']):.1f}", f"{ratio:.2f}x"]
        if "flops" in row:
            peak = peaks["bf16" if name.endswith("bf16") else "fp32"]
            cells += [f"{row['flops'] / 1e9:.1f}", f"{row['flops'] / (1e-3 * typical) / peak:.0%}"]
        else:
            cells += ["", f"{1e3 / typical:.1f} steps/s"]
        lines.append("| " + " | ".join([*cells, f"{row['memory'] / 1e9:.2f}"]) + " |")
    return "\n".join(lines)


def n_rounds(rows: dict[str, dict[str, Any]]) -> int:
    """Return how many rounds were measured."""
    return min((len(row["ms"]) for row in rows.values()), default=0)


def processor(device: str) -> str:
    """Return the name of the processor or GPU that the networks run on."""
    if device == "cuda":
        return th.cuda.get_device_name()
    return str(th.cpu.get_capabilities()["cpu_name"])


def main() -> None:
    """Measure what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--batch-size", type=int, nargs="+", default=[128, 256], help="batch sizes to measure (default: 128 256)"
    )
    parser.add_argument(
        "--rounds", type=int, default=10, help="number of rounds; each measures every arm (default: 10)"
    )
    parser.add_argument("--updates", type=int, default=8, help="gradient updates of each arm in a round (default: 8)")
    parser.add_argument("--num-threads", type=int, default=2, help="threads of torch (default: 2)")
    parser.add_argument(
        "--device", choices=["cpu", "cuda"], default="cpu", help="device of the networks (default: cpu)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=RESULTS,
        help="file of the results; settings that it contains with as many rounds are not measured again",
    )
    parser.add_argument(
        "--again",
        action="store_true",
        help="discard the stored results of the same device and number of threads, and measure again",
    )
    options = parser.parse_args()
    key = f"{options.device}, {options.num_threads} threads"
    results = read_json(options.output)
    if options.again:
        results.pop(key, None)
    here = results.setdefault(key, {})
    if "peaks" not in here:
        here["torch"] = th.__version__
        here["processor"] = processor(options.device)
        kinds = {"fp32": th.float32, "bf16": th.bfloat16}
        here["peaks"] = {kind: peak_flops(dtype, options.num_threads, options.device) for kind, dtype in kinds.items()}
    wanted = [(str(size), ARMS, size) for size in options.batch_size]
    wanted.append(("128, end to end", END_TO_END, 128))
    for name, arms, size in wanted:
        if n_rounds(here.get(name, {})) < options.rounds:
            here[name] = measure(arms, size, options)
            options.output.parent.mkdir(exist_ok=True)
            write_atomically(options.output, json.dumps(results, indent=2) + "\n")
    device_name, version = (here.get(name, "unknown") for name in ("processor", "torch"))
    peaks = ", ".join(f"{kind} {peak / 1e9:.0f}" for kind, peak in here["peaks"].items())
    print(f"{key} (processor: {device_name}), torch {version}; measured peak in GFLOP/s: {peaks}")
    for name, *_ in wanted:
        print(f"\n{table(name, here[name], here['peaks'])}")


if __name__ == "__main__":
    main()
