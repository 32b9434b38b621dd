"""How well does VisualTD3 learn on public tasks, compared with stock SB3 TD3 and SAC and with published curves?

CarRacing-v3 has the observations and hyperparameters of its block in zoo_configs/: frame skip 2, 64 x 64 grey, four
frames stacked. Training episodes end after two seconds without a positive reward; evaluations drive whole episodes.
DeepMind Control's tasks have DrQ-v2's observations: action repeat 2, 84 x 84 RGB, three frames stacked. So in every
task, the agent makes one decision every two frames. All algorithms get the same number of decisions, the same batch
size, the same number of updates, and the same kind of replay buffer.

    python benchmarks/public_tasks.py --tasks CarRacing-v3 --seeds 0 1 2
    python benchmarks/public_tasks.py --tasks CarRacing-v3 --algorithms 'SB3 TD3' 'SB3 SAC' --seeds 0 -n 30000
    MUJOCO_GL=osmesa python benchmarks/public_tasks.py --tasks cartpole_swingup walker_walk --seeds 0 1
    python benchmarks/public_tasks.py --table                       # print the results and run nothing

The script needs the extra bench (pip install -e '.[bench]'). DeepMind Control renders with OpenGL. With an NVIDIA GPU,
set MUJOCO_GL=egl. On a machine that has neither a GPU nor a display, install Debian's libosmesa6 (apt-get install
libosmesa6) and set MUJOCO_GL=osmesa. Software rendering makes 30 to 50 decisions per second, so that a run takes an
hour or more on one core.

Every evaluation is written to benchmarks/results/public_tasks.csv as a row as soon as it is done. The last evaluation
of a run has more episodes than the others. A run is not repeated if the file has the row of its last evaluation, after
the same number of decisions. An interrupted run continues from its last snapshot. The column "minutes" is the processor
time since the run began, evaluations included.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from learning_arms import Arm, block_of, constructor_arguments
from result_rows import Row, add, read, write
from rl_zoo3.utils import get_wrapper_class
from stable_baselines3 import SAC, TD3
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack, VecNormalize

from sb3_visual_td3 import FrameReplayBuffer, SnapshotCallback, VisualTD3
from sb3_visual_td3.callbacks.evaluation import lift_idle_limits

RESULTS = Path(__file__).parent / "results" / "public_tasks.csv"
COLUMNS = ("task", "algorithm", "seed", "frames", "return", "episodes", "minutes")
FRAMES_PER_DECISION = 2
EVAL_SEED = 10_000
ALGORITHMS = {"visual_td3": VisualTD3, "SB3 TD3": TD3, "SB3 SAC": SAC}
_ZOO_NAMES = {"visual_td3": "visual_td3", "SB3 TD3": "td3", "SB3 SAC": "sac"}
CAR_RACING = "CarRacing-v3"


@dataclass(frozen=True)
class Task:
    """A task, the length of its runs, and its evaluation.

    :param n_decisions: number of decisions (agent steps of two frames each) in a run
    :param eval_freq: number of decisions between two evaluations
    :param n_last: number of episodes of the last evaluation
    :param changes: changes of the hyperparameters, for all algorithms
    """

    n_decisions: int = 50_000
    eval_freq: int = 5_000
    n_last: int = 10
    changes: dict[str, Any] = field(default_factory=dict)


N_EPISODES = 5
"""Number of episodes of each evaluation except the last."""
_DRQ_V2 = {"normalize": False, "batch_size": 256, "learning_starts": 2_000, "train_freq": 2, "gradient_steps": 1}
TASKS = {
    CAR_RACING: Task(100_000, 10_000, 20),
    **dict.fromkeys(("cartpole_swingup", "cheetah_run", "finger_spin", "reacher_easy"), Task(changes=_DRQ_V2)),
    "walker_walk": Task(changes={**_DRQ_V2, "n_steps": 1}),
}
_OURS = {"noise_schedule": "lin_1.0_0.1"}
"""DrQ-v2's exploration, on DeepMind Control's tasks."""

PUBLISHED: dict[str, dict[str, dict[int, float]]] = {
    "cartpole_swingup": {
        "DrQ-v2": {100_000: 626, 200_000: 807},
        "MR.Q": {100_000: 477, 200_000: 815},
        "CURL": {100_000: 551, 200_000: 760},
        "DreamerV3": {100_000: 598, 200_000: 789},
        "SAC, no augmentation": {100_000: 354, 200_000: 562},
    },
    "walker_walk": {
        "DrQ-v2": {100_000: 170, 200_000: 428},
        "MR.Q": {100_000: 568, 200_000: 856},
        "CURL": {100_000: 516, 200_000: 552},
        "DreamerV3": {100_000: 601, 200_000: 835},
        "SAC, no augmentation": {100_000: 83, 200_000: 54},
    },
    "cheetah_run": {
        "DrQ-v2": {100_000: 273, 200_000: 479},
        "MR.Q": {100_000: 254, 200_000: 473},
        "CURL": {100_000: 260, 200_000: 275},
        "DreamerV3": {100_000: 300, 200_000: 483},
        "SAC, no augmentation": {100_000: 95, 200_000: 82},
    },
    "finger_spin": {
        "DrQ-v2": {100_000: 325, 200_000: 544},
        "MR.Q": {100_000: 744, 200_000: 845},
        "CURL": {100_000: 798, 200_000: 853},
        "DreamerV3": {100_000: 502, 200_000: 544},
        "SAC, no augmentation": {100_000: 330, 200_000: 350},
    },
    "reacher_easy": {
        "DrQ-v2": {100_000: 250, 200_000: 353},
        "MR.Q": {100_000: 449, 200_000: 778},
        "CURL": {100_000: 297, 200_000: 439},
        "DreamerV3": {100_000: 313, 200_000: 462},
        "SAC, no augmentation": {100_000: 109, 200_000: 86},
    },
    CAR_RACING: {"PPO (rl-zoo)": {8_000_000: 154}, "PPO-LSTM (rl-zoo)": {8_000_000: 862}},
}
"""Published mean returns by task, algorithm and number of frames.

The returns on DeepMind Control are means over about ten seeds. Source: the result files of facebookresearch/drqv2,
facebookresearch/MRQ and danijar/dreamerv3.

Each return on CarRacing comes from a single run, after 4 million decisions. Source: rl-zoo's benchmark.
"""


def block(task: str, algorithm: str) -> dict[str, Any]:
    """Return the hyperparameters of a task, as the zoo reads them from its file."""
    arm = Arm(ALGORITHMS[algorithm], _ZOO_NAMES[algorithm])
    if task == CAR_RACING:
        return block_of(arm, CAR_RACING)
    found = {**block_of(arm, ".pixels"), **TASKS[task].changes}
    if algorithm == "visual_td3":
        return {**found, **_OURS}
    return {key: value for key, value in found.items() if key != "n_steps"}


def environment(task: str, settings: dict[str, Any], seed: int) -> VecEnv:
    """Return one environment of the task, without reward scaling."""
    make: str | Callable[[], gym.Env[Any, Any]] = task
    if task != CAR_RACING:
        from dmc_env import PixelSuiteEnv  # from the extra bench; MUJOCO_GL is read at this import

        make = partial(PixelSuiteEnv, task)
    env: VecEnv = make_vec_env(make, 1, seed, wrapper_class=get_wrapper_class(dict(settings)))
    return VecFrameStack(env, settings["frame_stack"]) if "frame_stack" in settings else env


def learner(task: str, algorithm: str, seed: int, n_decisions: int) -> OffPolicyAlgorithm:
    """Return the untrained model of an algorithm on a task."""
    settings = block(task, algorithm)
    set_random_seed(seed)
    env = environment(task, settings, seed)
    if settings["normalize"]:
        env = VecNormalize(env, **settings["normalize"])
    arguments = constructor_arguments(settings, env.action_space.shape[0])  # type: ignore[index]
    arguments["buffer_size"] = n_decisions  # keep every transition
    if algorithm != "visual_td3":
        # The same transitions as from Stable-Baselines3's own buffer, in a fraction of its memory.
        frame_stack = settings.get("frame_stack") or env.get_attr("frame_stack")[0]
        arguments.update(replay_buffer_class=FrameReplayBuffer, replay_buffer_kwargs={"frame_stack": frame_stack})
    return ALGORITHMS[algorithm]("CnnPolicy", env, seed=seed, device="auto", **arguments)


class Evaluator(BaseCallback):
    """Evaluates the policy every ``eval_freq`` decisions and at the end of the run.

    Each evaluation adds a row to the results.
    """

    def __init__(self, key: Row, output: Path, eval_freq: int) -> None:
        super().__init__()
        self._key, self._output, self._eval_freq = key, output, eval_freq
        self._env = environment(key["task"], block(key["task"], key["algorithm"]), EVAL_SEED)
        lift_idle_limits(self._env)
        self._begin: float | None = None

    @property
    def frames(self) -> int:
        """Return the number of frames that the policy has been trained on."""
        return FRAMES_PER_DECISION * self.num_timesteps

    def _on_step(self) -> bool:
        if self._begin is None:
            self._go_on_from_earlier_rows()
        is_last = self.num_timesteps >= self.model._total_timesteps
        if self.num_timesteps % self._eval_freq == 0 and not is_last:
            self._evaluate(N_EPISODES)
        return True

    def get_state(self) -> dict[str, Any]:
        """Return an empty state: a resumed run reads everything that it needs from the results file."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Do nothing: the first step of a resumed run finds out where it continues."""

    def _go_on_from_earlier_rows(self) -> None:
        """Drop the rows that an interrupted run wrote after its last snapshot.

        The rows of finished runs are kept. The clock continues from the minutes of the interrupted run's last row.
        """
        rows = read(self._output)
        own = unfinished(rows, self._key)
        kept = [row for row in own if row["frames"] < self.frames]
        if own:
            write([row for row in rows if row not in own or row in kept], self._output, COLUMNS)
        self._begin = time.process_time() - 60.0 * max((row["minutes"] for row in kept), default=0.0)

    def _on_training_end(self) -> None:
        if self._begin is None:  # the run was killed in its last evaluation, so there was no step left to train
            self._go_on_from_earlier_rows()
        self._evaluate(TASKS[self._key["task"]].n_last)
        self._env.close()

    def _evaluate(self, n_episodes: int) -> None:
        assert self._begin is not None
        self._env.seed(EVAL_SEED)
        returns, _ = evaluate_policy(self.model, self._env, n_episodes, return_episode_rewards=True)
        row = {
            **self._key,
            "frames": self.frames,
            "return": round(float(np.mean(returns)), 1),
            "episodes": len(returns),
            "minutes": round((time.process_time() - self._begin) / 60, 1),
        }
        add(row, self._output, COLUMNS)
        print(row, flush=True)


def is_of(row: Row, key: Row) -> bool:
    """Return whether a row belongs to a run with this task, algorithm and seed."""
    return all(row[column] == value for column, value in key.items())


def is_last(row: Row) -> bool:
    """Return whether a row is the last evaluation of its run."""
    return bool(row["episodes"] == TASKS[row["task"]].n_last)


def is_finished(rows: list[Row], key: Row, n_decisions: int) -> bool:
    """Return whether the results file contains the last evaluation of this run."""
    # The last rollout can end one decision late, because train_freq is 1 or 2.
    n_frames = {FRAMES_PER_DECISION * n_decisions, FRAMES_PER_DECISION * (n_decisions + 1)}
    return any(is_of(row, key) and is_last(row) and row["frames"] in n_frames for row in rows)


def unfinished(rows: list[Row], key: Row) -> list[Row]:
    """Return the rows of this run that come after its latest "last evaluation"; all rows if there is none."""
    own = [row for row in rows if is_of(row, key)]
    n_finished = max((number for number, row in enumerate(own, 1) if is_last(row)), default=0)
    return own[n_finished:]


def run(key: Row, n_decisions: int, output: Path, logs: Path) -> None:
    """Make a run, or continue an interrupted one, and add its rows to the results."""
    folder = logs / "_".join(str(value).replace(" ", "_") for value in key.values())
    task = TASKS[key["task"]]
    model = learner(key["task"], key["algorithm"], key["seed"], n_decisions)
    watchers = [
        Evaluator(key, output, min(task.eval_freq, n_decisions)),
        SnapshotCallback(save_freq=task.eval_freq, run_dir=folder, keep=1, resume=True),
    ]
    model.learn(n_decisions, callback=watchers)
    assert model.env is not None
    model.env.close()
    shutil.rmtree(folder)


def table(rows: list[Row], tasks: Collection[str]) -> str:
    """Return a Markdown table with one row per task and algorithm, for our results and the published ones."""
    heads = (
        "task",
        "algorithm",
        "seeds",
        "return of the last policies",
        "by seed",
        "frames",
        "minutes of one processor",
    )
    lines = ["| " + " | ".join(heads) + " |", "| --- " * len(heads) + "|"]
    for task in tasks:
        for algorithm in ALGORITHMS:
            last = [row for row in rows if is_of(row, {"task": task, "algorithm": algorithm}) and is_last(row)]
            for frames in sorted({row["frames"] for row in last}):
                there = [row for row in last if row["frames"] == frames]
                returns = [row["return"] for row in there]
                by_seed = ", ".join(f"{value:.0f}" for value in returns)
                minutes = np.median([row["minutes"] for row in there])
                cells = (
                    task,
                    algorithm,
                    len(there),
                    f"{np.mean(returns):.0f}",
                    by_seed,
                    f"{frames:,}",
                    f"{minutes:.0f}",
                )
                lines.append("| " + " | ".join(map(str, cells)) + " |")
        for algorithm, curve in PUBLISHED.get(task, {}).items():
            for frames, value in curve.items():
                lines.append(f"| {task} | {algorithm}, published | | {value:.0f} | | {frames:,} | |")
    return "\n".join(lines)


def main() -> None:
    """Make the runs that are missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--tasks",
        nargs="+",
        default=[CAR_RACING],
        choices=TASKS,
        help="tasks to train on, or to print in the table (default: CarRacing-v3)",
    )
    parser.add_argument(
        "--algorithms",
        nargs="+",
        default=["visual_td3"],
        choices=ALGORITHMS,
        help="algorithms to train (default: visual_td3)",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        default=[0],
        help="train each algorithm once with each of these seeds (default: seed 0)",
    )
    parser.add_argument(
        "-n",
        "--n-decisions",
        type=int,
        help="environment steps of each run (default: 100,000 for CarRacing-v3, 50,000 for other tasks)",
    )
    parser.add_argument(
        "-f",
        "--log-folder",
        type=Path,
        default=Path("logs/public_tasks"),
        help="folder for snapshots (default: %(default)s)",
    )
    parser.add_argument(
        "--num-threads",
        type=int,
        default=1,
        help="threads of PyTorch; with two, a run is 1.5 times as fast if nothing else runs (default: %(default)s)",
    )
    parser.add_argument("--output", type=Path, default=RESULTS, help="file of the results (default: %(default)s)")
    parser.add_argument("--table", action="store_true", help="print the table and run nothing")
    settings = parser.parse_args()
    th.set_num_threads(settings.num_threads)
    keys = [
        {"task": task, "algorithm": algorithm, "seed": seed}
        for seed in settings.seeds
        for task in settings.tasks
        for algorithm in settings.algorithms
    ]
    for key in keys if not settings.table else []:
        n_decisions = settings.n_decisions or TASKS[key["task"]].n_decisions
        if not is_finished(read(settings.output), key, n_decisions):
            run(key, n_decisions, settings.output, settings.log_folder)
    print(table(read(settings.output), settings.tasks))


if __name__ == "__main__":
    main()
