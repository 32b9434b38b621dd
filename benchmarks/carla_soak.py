"""Does an environment on CARLA outlive its simulator? VisualTD3 fills its replay buffer while servers hang and die.

The simulator is `visual-td3 carla-emulator`, started by the environment itself. Every so many steps it is made to die
or to hang for ever, by turns. What is asked for at the end: every episode accounted for, no invalid transition in the
replay buffer, no more threads, file descriptors or memory than a tenth of the way in (5 %), and exit code 0.

    python benchmarks/carla_soak.py                                 100,000 steps, a fault every 2,000
    python benchmarks/carla_soak.py --steps 5000 --every 500        a short one

Results are added to benchmarks/results/carla_soak.json, a line to each soak.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env

from sb3_visual_td3 import VisualTD3
from sb3_visual_td3.envs.carla_emulator.control import EmulatorControl

RESULTS = Path(__file__).parent / "results" / "carla_soak.json"
COMMAND = f"{sys.executable} -m sb3_visual_td3.envs.carla_emulator --port {{port}}"
N_STORED = 2_000
ALLOWED_GROWTH = 1.05


def resources() -> dict[str, float]:
    """:return: what this process holds"""
    with open("/proc/self/statm", encoding="ascii") as memory:
        pages = int(memory.read().split()[1])
    return {
        "threads": len(os.listdir("/proc/self/task")),
        "file_descriptors": len(os.listdir("/proc/self/fd")),
        "rss_mb": pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
    }


class Saboteur(BaseCallback):
    """Makes the simulator fail, and keeps the books.

    :param every: steps between two faults
    :param measure_at: the step at which resources are measured for the first time
    """

    def __init__(self, every: int, measure_at: int) -> None:
        super().__init__()
        self.every, self.measure_at = every, measure_at
        self.n_episodes = self.n_invalid = self.n_faults = self.n_steps_of_episodes = self._length = 0
        self.early: dict[str, float] = {}

    def _on_step(self) -> bool:
        info = self.locals["infos"][0]
        self._length += 1
        self.n_invalid += bool(info.get("invalid_transition"))
        if self.locals["dones"][0]:
            self.n_episodes += 1
            self.n_steps_of_episodes += self._length
            self._length = 0
        if self.num_timesteps == self.measure_at:
            self.early = resources()
        if self.num_timesteps % self.every == 0:
            (_, port), *_ = self.training_env.get_attr("server_address")
            EmulatorControl(port).fault(("die", "hang")[self.n_faults % 2])
            self.n_faults += 1
        return True


def soak(n_steps: int, every: int, port: int, seed: int) -> dict[str, Any]:
    """:return: what happened, and whether all is as it should be"""
    kwargs = {"command": COMMAND, "port": port, "timeout_s": 1.0, "n_cars": 4}
    env = make_vec_env("CarlaDriving-v0", 1, seed=seed, env_kwargs=kwargs)
    model = VisualTD3("CnnPolicy", env, buffer_size=N_STORED, learning_starts=n_steps + 1, seed=seed, verbose=0)
    saboteur = Saboteur(every, max(N_STORED + 1, n_steps // 10))
    begin_s = time.monotonic()
    model.learn(n_steps, saboteur)
    wall_s = time.monotonic() - begin_s
    late = resources()
    assert model.replay_buffer is not None
    n_valid = n_steps - saboteur.n_invalid
    n_failures = env.get_attr("n_simulator_failures")[0]
    env.close()
    grown = {name: late[name] / saboteur.early[name] for name in late}
    return {
        "steps": n_steps,
        "fault_every": every,
        "seed": seed,
        "faults": saboteur.n_faults,
        "failures_seen": n_failures,
        "episodes": saboteur.n_episodes,
        "steps_of_episodes": saboteur.n_steps_of_episodes,
        "steps_of_the_last": saboteur._length,
        "invalid_steps": saboteur.n_invalid,
        "only_valid_steps_are_stored": model.replay_buffer.pos == n_valid % N_STORED,
        "early": saboteur.early,
        "late": late,
        "steps_per_s": n_steps / wall_s,
        "is_fine": saboteur.n_steps_of_episodes + saboteur._length == n_steps
        and saboteur.n_invalid >= saboteur.n_faults - 1
        and model.replay_buffer.pos == n_valid % N_STORED
        and max(grown.values()) <= ALLOWED_GROWTH,
    }


def main() -> int:
    """:return: 0 where all is as it should be, else 1"""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--every", type=int, default=2_000, help="steps between two faults")
    parser.add_argument("--port", type=int, default=2600, help="the first that is tried")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=RESULTS)
    settings = parser.parse_args()
    th.set_num_threads(1)
    result = soak(settings.steps, settings.every, settings.port, settings.seed)
    print(json.dumps(result, indent=2))
    known = json.loads(settings.output.read_text()) if settings.output.exists() else []
    settings.output.write_text(json.dumps([*known, result], indent=2) + "\n")
    return 0 if result["is_fine"] else 1


if __name__ == "__main__":
    sys.exit(main())
