"""Does a LiteDriving-v0 policy drive as well in CarlaDriving-v0, and how many steps/s does CarlaDriving-v0 run?

The script starts `visual-td3 carla-emulator` for CarlaDriving-v0. The policy drives the same held-out maps from the
same places in LiteDriving-v0 and in CarlaDriving-v0. Requirements: mean return and mean distance differ by at most 5 %
between the environments, and CarlaDriving-v0 runs 10,000 steps at 500 steps per second or more. Client and server share
one core: the process pins itself and the server to that core.

    visual-td3 train --env LiteDriving-v0
    python benchmarks/carla_transfer.py logs/visual_td3/LiteDriving-v0_1/best_model.zip
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3.common.env_util import make_vec_env

from sb3_visual_td3 import VisualTD3
from sb3_visual_td3.callbacks.drives import drive_episodes, mean_of, trained_policy
from sb3_visual_td3.envs.carla_emulator.process import EmulatorProcess
from sb3_visual_td3.envs.drivers import PurePursuitDriver

RESULTS = Path(__file__).parent / "results" / "carla_transfer.json"
MAPS = ("held_out_0", "held_out_1")
SEED = 1_000


def compare(model: VisualTD3, port: int, n_episodes: int) -> dict[str, Any]:
    """Return the mean results in each environment, and their relative differences."""
    means: dict[str, dict[str, float]] = {}
    for env_id, kwargs in (("LiteDriving-v0", {}), ("CarlaDriving-v0", {"port": port})):
        drives = []
        for name in MAPS:
            env = make_vec_env(env_id, 1, seed=SEED, env_kwargs={"maps": [name], **kwargs})
            drives += drive_episodes(trained_policy(model), env, SEED, n_episodes)
            env.close()
        means[env_id] = mean_of(drives)._asdict()
    lite, carla = means["LiteDriving-v0"], means["CarlaDriving-v0"]
    return {
        **means,
        "difference": {name: carla[name] / lite[name] - 1.0 for name in ("reward", "distance_m", "length")},
    }


def speed(port: int, n_steps: int) -> float:
    """Return environment steps per second with a driver whose own cost is negligible."""
    env = gym.make("CarlaDriving-v0", port=port).unwrapped
    driver = PurePursuitDriver()
    env.reset(seed=SEED)
    begin_s = time.perf_counter()
    for step in range(n_steps):
        *_, terminated, truncated, _ = env.step(driver.act(env))
        if terminated or truncated or step % 500 == 499:
            env.reset()
    rate = n_steps / (time.perf_counter() - begin_s)
    env.close()
    return rate


def main() -> int:
    """Run both measurements; return 0 if both meet their requirement, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="zip file of a model trained on LiteDriving-v0")
    parser.add_argument("--episodes", type=int, default=20, help="episodes on each map (default: 20)")
    parser.add_argument("--steps", type=int, default=10_000, help="steps of the speed measurement (default: 10,000)")
    parser.add_argument("--output", type=Path, default=RESULTS)
    settings = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    th.set_num_threads(1)
    model = VisualTD3.load(settings.model, device="cpu", buffer_size=1)
    with EmulatorProcess("train_0") as emulator:
        result = compare(model, emulator.port, settings.episodes)
        result |= {
            "episodes": settings.episodes * len(MAPS),
            "steps_per_s_on_one_core": speed(emulator.port, settings.steps),
        }
    print(json.dumps(result, indent=2))
    settings.output.write_text(json.dumps(result, indent=2) + "\n")
    is_close = np.abs([result["difference"][name] for name in ("reward", "distance_m")]).max() <= 0.05
    return 0 if is_close and result["steps_per_s_on_one_core"] >= 500.0 else 1


if __name__ == "__main__":
    sys.exit(main())
