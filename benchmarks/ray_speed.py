"""What does RayVecEnv cost compared with SubprocVecEnv, and does it keep 8 simulators of 20 steps/s busy?

LiteDriving-v0 runs in separate processes, with random actions and without a learner. Each round measures three kinds of
VecEnv, one after another:

  subproc  SubprocVecEnv;
  calls    RayVecEnv(direct=False): every step is a Ray call, with the observation in the response or the object store;
  ray      RayVecEnv: every step goes over a connection with the environment.

Each kind is measured at two speeds:

  free     environments at full speed: the milliseconds of one VecEnv step, in which every environment makes a step;
  paced    each environment slowed to 20 steps per second by sleeping, as CARLA runs: the total steps per second, and
           their share of the simulators' maximum.

With --observation 12 320 240 the environment returns a constant image of that shape, so that only the transport is
measured. Rounds are kept in benchmarks/results/ray_speed.json, under a key that names the settings. Stored rounds are
not measured again, so the benchmark can be stopped and continued. After a change of the code use --again. With the
defaults the benchmark takes five minutes. It needs the extra ray.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from paced_env import PacedEnv
from result_rows import read_json, save_json
from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv
from tqdm import tqdm

from sb3_visual_td3.envs import LITE_DRIVING_ID, register_envs
from sb3_visual_td3.vec_env import RayVecEnv

RESULTS = Path(__file__).parent / "results" / "ray_speed.json"
KINDS: dict[str, Callable[..., VecEnv]] = {
    "subproc": SubprocVecEnv,
    "calls": partial(RayVecEnv, direct=False),
    "ray": RayVecEnv,
}
WARM_UP_STEPS = 50
Round = dict[str, dict[str, float]]


class PictureEnv(gym.Env[np.ndarray, np.ndarray]):
    """An environment that always returns the same image.

    :param shape: the shape of the image, uint8
    """

    def __init__(self, shape: Sequence[int]) -> None:
        self.observation_space = spaces.Box(0, 255, tuple(shape), np.uint8)
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self._picture = np.random.default_rng(0).integers(0, 256, shape, np.uint8)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Return the image."""
        super().reset(seed=seed, options=options)
        return self._picture, {}

    def step(self, _: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Return the image with reward 0."""
        return self._picture, 0.0, False, False, {}


def make_env(shape: Sequence[int] | None = None) -> PacedEnv:
    """Return one environment with a single map, because the first reset to a new map takes longer than a step."""
    if shape is not None:
        return PacedEnv(PictureEnv(shape))
    register_envs()
    return PacedEnv(gym.make(LITE_DRIVING_ID, maps="train_0"))


def seconds_per_step(env: VecEnv, n_steps: int) -> float:
    """Return the wall time of one step of all environments."""
    random = np.random.default_rng(0)
    actions = random.uniform(-1, 1, (n_steps, env.num_envs, 2)).astype(np.float32)
    begin = time.perf_counter()
    for action in actions:
        env.step(action)
    return (time.perf_counter() - begin) / n_steps


def measure(env: VecEnv, rate: float, n_steps: int) -> dict[str, float]:
    """Measure a VecEnv at full speed and at a limited speed.

    :param rate: steps per second of each environment at the limited speed
    :param n_steps: number of steps at the limited speed; at full speed twice as many
    :return: milliseconds of one step at full speed, and total steps per second at the limited speed
    """
    env.env_method("set_step_s", 0.0)
    env.reset()
    seconds_per_step(env, WARM_UP_STEPS)
    free_s = seconds_per_step(env, 2 * n_steps)
    env.env_method("set_step_s", 1.0 / rate)
    return {"free_ms": 1e3 * free_s, "paced_steps_per_s": env.num_envs / seconds_per_step(env, n_steps)}


def table(rounds_of: dict[int, list[Round]], rate: float) -> str:
    """Return medians over the rounds as Markdown."""
    columns = [*(f"{kind}, free, ms/step" for kind in KINDS), "ray takes more than subproc", "of it per environment"]
    columns += [f"{kind} at {rate:g}/s" for kind in KINDS]
    lines = ["| environments | " + " | ".join(columns) + " |", "| --- " * (len(columns) + 1) + "|"]
    for n_envs, rounds in rounds_of.items():
        free = {kind: statistics.median(row[kind]["free_ms"] for row in rounds) for kind in KINDS}
        paced = {kind: statistics.median(row[kind]["paced_steps_per_s"] for row in rounds) for kind in KINDS}
        more = free["ray"] - free["subproc"]
        cells = [*(f"{free[kind]:.2f}" for kind in KINDS), f"{more:.2f}", f"{more / n_envs:.2f}"]
        cells += [f"{paced[kind]:.1f} ({paced[kind] / (n_envs * rate):.1%})" for kind in KINDS]
        lines.append(f"| {n_envs} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def add_rounds(rounds: list[Round], n_envs: int, settings: argparse.Namespace, results: dict[str, list[Round]]) -> None:
    """Measure the rounds that are not stored yet."""
    n_missing = max(0, settings.rounds - len(rounds))
    if not n_missing:
        return
    envs = {name: kind([partial(make_env, settings.observation)] * n_envs) for name, kind in KINDS.items()}
    try:
        for _ in tqdm(range(n_missing), desc=f"{n_envs} environments", unit="round", disable=None):
            rounds.append({name: measure(env, settings.rate, settings.steps) for name, env in envs.items()})
            save_json(results, RESULTS)
    finally:
        for env in envs.values():
            env.close()


def main() -> None:
    """Measure the rounds that are not stored yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=20.0, help="steps per second of a simulator (default: 20)")
    parser.add_argument("--n-envs", type=int, nargs="+", default=[1, 8], help="numbers of environments (default: 1 8)")
    parser.add_argument(
        "--rounds", type=int, default=3, help="number of rounds; each measures every kind of VecEnv (default: 3)"
    )
    parser.add_argument(
        "--observation",
        type=int,
        nargs="+",
        metavar="N",
        help="use an environment with one constant image of this shape instead of LiteDriving-v0",
    )
    parser.add_argument(
        "--steps",
        type=int,
        default=200,
        help="number of steps at the speed of --rate; twice as many are made at full speed (default: 200)",
    )
    parser.add_argument(
        "--again", action="store_true", help="discard the rounds stored for the same settings and measure again"
    )
    settings = parser.parse_args()
    results: dict[str, list[Round]] = read_json(RESULTS)
    rounds_of = {}
    for n_envs in settings.n_envs:
        key = f"{n_envs} environments, {settings.rate:g} steps/s, {settings.steps} steps"
        if settings.observation is not None:
            key += f", observation {' x '.join(map(str, settings.observation))}"
        rounds = results[key] = [] if settings.again else results.get(key, [])
        add_rounds(rounds, n_envs, settings, results)
        rounds_of[n_envs] = rounds[: settings.rounds]
    print(table(rounds_of, settings.rate))


if __name__ == "__main__":
    main()
