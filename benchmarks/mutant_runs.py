"""Is the verdict right on stock algorithms with one wrong setting?

The tasks and the algorithms:

- Pendulum-v1: TD3, SAC, PPO (SB3), TQC (sb3-contrib)
- LiteDriving-v0 with images of 40 x 40: TD3, SAC (SB3)

Each algorithm is trained with correct settings, and with one setting that is wrong by up to three orders of magnitude:
learning rate, gamma, tau, batch size, warm-up, training frequency, reward scale, entropy. A training run with a wrong
setting is called a mutant. The event files contain only the tags that SB3 writes. They are judged like those of any
other run.

Each training run gets a label: healthy, failed, or between. The label depends on the final policy, not on the settings:
a mutant that learns in spite of its wrong setting is healthy. The final policy is evaluated in 20 episodes, with a seed
that was not used in training. The mean return gives the label:

- Pendulum-v1: healthy above -300, failed below -800. A random policy gets -1,200, and a good policy gets -150.
- LiteDriving-v0: healthy above 100, failed below 40. A random policy gets about 10, and a good policy gets 400.

Training runs with an even number in the column `number` of the results were used to choose thresholds; those with an
odd number are the test. A training run takes one to three minutes on one core. Results are kept in
benchmarks/results/mutant_runs.csv, and existing ones are not repeated. With --judge, nothing is trained: the event
files in --logs are judged again.
"""

from __future__ import annotations

import argparse
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import result_rows
import torch as th
from sb3_contrib import TQC
from stable_baselines3 import PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.noise import NormalActionNoise

from sb3_visual_td3.diagnosis.ranking import LIKELY_FROM, diagnose
from sb3_visual_td3.diagnosis.two_questions import ask
from sb3_visual_td3.report.discovery import find_runs
from sb3_visual_td3.report.event_reader import read_run

RESULTS = Path(__file__).parent / "results" / "mutant_runs.csv"
LOGS = Path("logs") / "mutant_runs"
COLUMNS = (
    "number",
    "algorithm",
    "fault",
    "seed",
    "examined",
    "label",
    "verdict",
    "stable",
    "learning",
    "state",
    "signs",
    "cause",
)
PENDULUM, LITE = "Pendulum-v1", "LiteDriving-v0"
LIMITS = {PENDULUM: (-800.0, -300.0), LITE: (40.0, 100.0)}
"""Two limits on the mean return for each environment. Below the first limit, a policy has failed. Above the second
limit, a policy is healthy. Pendulum-v1 has 200 steps, each of which costs 0 to 16."""
EVALUATED_SEED = 10_000
N_EVALUATED = 20


class Mutant(NamedTuple):
    """A training run of this benchmark: a mutant, or a run with correct settings.

    :param fault: the wrong setting and its value; "none" for a training run with correct settings.
    :param settings: constructor arguments that replace the correct settings of the algorithm.
    :param reward_scale: factor on every reward.
    :param task: the environment.
    """

    number: int
    algorithm: str
    fault: str
    seed: int
    settings: Mapping[str, Any] = {}
    reward_scale: float = 1.0
    task: str = PENDULUM

    @property
    def name(self) -> str:
        """Return the name of the training run, which is also the name of its log folder."""
        of_task = "" if self.task == PENDULUM else f"_{self.task}"
        return f"{self.number:03d}_{self.algorithm}{of_task}_{self.fault.replace('=', '_')}_{self.seed}"


# Settings that learn Pendulum. The learning rates are rl-zoo's. PPO also has rl-zoo's other settings, but with one
# environment instead of four. The other algorithms have smaller networks and smaller replay buffers than in rl-zoo.
SMALL = {"net_arch": [64, 64]}
BASE: Mapping[str, Mapping[str, Any]] = {
    "TD3": {
        "learning_rate": 1e-3,
        "gamma": 0.98,
        "learning_starts": 1_000,
        "buffer_size": 20_000,
        "batch_size": 128,
        "policy_kwargs": SMALL,
    },
    "SAC": {
        "learning_rate": 1e-3,
        "gamma": 0.98,
        "learning_starts": 1_000,
        "buffer_size": 20_000,
        "batch_size": 128,
        "policy_kwargs": SMALL,
    },
    "TQC": {
        "learning_rate": 1e-3,
        "gamma": 0.98,
        "learning_starts": 1_000,
        "buffer_size": 20_000,
        "batch_size": 128,
        "policy_kwargs": SMALL,
    },
    "PPO": {
        "learning_rate": 1e-3,
        "gamma": 0.9,
        "n_steps": 1_024,
        "batch_size": 64,
        "use_sde": True,
        "sde_sample_freq": 4,
    },
}
BASE_OF_PICTURES: Mapping[str, Any] = {
    "learning_rate": 1e-4,
    "learning_starts": 500,
    "buffer_size": 10_000,
    "batch_size": 32,
    "policy_kwargs": {"net_arch": [64, 64]},
}
"""Settings for LiteDriving-v0. ``train`` adds ``train_freq=2``, because updates with an image encoder are slow."""
STEPS = {"TD3": 15_000, "SAC": 15_000, "PPO": 80_000, "TQC": 15_000}
STEPS_OF_PICTURES = 10_000
"""Environment steps of a training run on LiteDriving-v0, about 75 episodes. The report can answer "not learning"
only for a run of at least 50 episodes."""
CLASSES: Mapping[str, type[BaseAlgorithm]] = {"TD3": TD3, "SAC": SAC, "PPO": PPO, "TQC": TQC}

OFF_POLICY_FAULTS: Mapping[str, Mapping[str, Any]] = {
    "learning_rate=0": {"learning_rate": 0.0},
    "learning_rate=1e-6": {"learning_rate": 1e-6},
    "learning_rate=0.03": {"learning_rate": 0.03},
    "learning_rate=1": {"learning_rate": 1.0},
    "gamma=0": {"gamma": 0.0},
    "gamma=1": {"gamma": 1.0},
    "tau=0": {"tau": 0.0},
    "tau=1": {"tau": 1.0},
    "batch_size=2": {"batch_size": 2},
    "learning_starts=14000": {"learning_starts": 14_000},
    "train_freq=500": {"train_freq": 500, "gradient_steps": 1},
    "buffer_size=200": {"buffer_size": 200},
}
FAULTS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "TD3": OFF_POLICY_FAULTS,
    "SAC": {**OFF_POLICY_FAULTS, "ent_coef=10": {"ent_coef": 10.0}, "ent_coef=1000": {"ent_coef": 1_000.0}},
    "PPO": {
        "learning_rate=0": {"learning_rate": 0.0},
        "learning_rate=1e-6": {"learning_rate": 1e-6},
        "learning_rate=0.1": {"learning_rate": 0.1},
        "gamma=0": {"gamma": 0.0},
        "gamma=0.9999": {"gamma": 0.9999, "gae_lambda": 1.0},
        "ent_coef=1": {"ent_coef": 1.0},
        "ent_coef=10": {"ent_coef": 10.0},
        "clip_range=1e-5": {"clip_range": 1e-5},
        "n_epochs=200": {"n_epochs": 200},
        "batch_size=2": {"n_steps": 64, "batch_size": 2, "n_epochs": 1},
    },
}
FEW_FAULTS: Mapping[str, Mapping[str, Any]] = {
    "learning_rate=1": {"learning_rate": 1.0},
    "tau=0": {"tau": 0.0},
    "learning_starts=14000": {"learning_starts": 14_000},
}
"""The wrong settings for TQC."""
FAULTS_OF_PICTURES: Mapping[str, Mapping[str, Any]] = {
    "learning_rate=0": {"learning_rate": 0.0},
    "learning_rate=0.1": {"learning_rate": 0.1},
    "tau=0": {"tau": 0.0},
}
SCALES = {"reward*1000": 1_000.0, "reward*0.001": 0.001}


def grid() -> list[Mutant]:
    """Return all training runs: for every algorithm, four with correct settings, and each fault with two seeds."""
    found: list[Mutant] = []

    def add(
        algorithm: str, fault: str, settings: Mapping[str, Any], scale: float, n_seeds: int, task: str = PENDULUM
    ) -> None:
        for _ in range(n_seeds):
            # Even numbers are for tuning, odd numbers are the test. With consecutive numbers, each fault is in both.
            found.append(Mutant(len(found), algorithm, fault, len(found), settings, scale, task))

    for algorithm in ("TD3", "SAC", "PPO"):
        add(algorithm, "none", {}, 1.0, 4)
        for fault, settings in FAULTS[algorithm].items():
            add(algorithm, fault, settings, 1.0, 2)
        for fault, scale in SCALES.items():
            add(algorithm, fault, {}, scale, 2)
    # New training runs are added at the end, so that every run keeps its number.
    for fault, settings in {"none": {}, **FEW_FAULTS}.items():
        add("TQC", fault, settings, 1.0, 2)
    for algorithm in ("TD3", "SAC"):
        for fault, settings in {"none": {}, **FAULTS_OF_PICTURES}.items():
            add(algorithm, fault, settings, 1.0, 2, LITE)
    return found


def environment(task: str, scale: float) -> gym.Env[Any, Any]:
    """Return the environment with scaled rewards. Monitor logs the scaled returns, as in a user's own training."""
    # CnnPolicy's convolutions need at least 36 pixels. An episode has at most 200 steps, so a run of 10,000 steps has
    # at least 50 episodes.
    small = {"image_size": 40, "max_episode_steps": 200} if task == LITE else {}
    env: gym.Env[Any, Any] = gym.make(task, **small)
    if scale != 1.0:
        env = gym.wrappers.TransformReward(env, lambda reward: scale * float(reward))
    return Monitor(env)


def train(mutant: Mutant, folder: Path) -> float:
    """Make a training run with SB3's logging and EvalCallback.

    :return: the mean return of the final policy in the evaluation episodes, in unscaled rewards.
    """
    env = environment(mutant.task, mutant.reward_scale)
    is_pictures = mutant.task == LITE
    settings = {**(BASE_OF_PICTURES if is_pictures else BASE[mutant.algorithm]), **mutant.settings}
    if is_pictures:
        settings["train_freq"] = 2
    if mutant.algorithm == "TD3":
        n_actions = env.action_space.shape[0] if env.action_space.shape else 1
        settings["action_noise"] = NormalActionNoise(np.zeros(n_actions), 0.2 * np.ones(n_actions))
    model = CLASSES[mutant.algorithm](
        "CnnPolicy" if is_pictures else "MlpPolicy",
        env,
        seed=mutant.seed,
        device="cpu",
        tensorboard_log=str(folder),
        **settings,
    )
    steps = STEPS_OF_PICTURES if is_pictures else STEPS[mutant.algorithm]
    evaluation = EvalCallback(environment(mutant.task, mutant.reward_scale), eval_freq=steps // 16, verbose=0)
    model.learn(steps, callback=evaluation, log_interval=1 if mutant.algorithm == "PPO" else 4, tb_log_name="run")
    examined = environment(mutant.task, 1.0)
    examined.reset(seed=EVALUATED_SEED)
    mean, _ = evaluate_policy(model, examined, n_eval_episodes=N_EVALUATED)
    assert isinstance(mean, float)
    return mean


def label_of(mean_return: float, task: str = PENDULUM) -> str:
    """Return the label of a policy with this return: healthy, failed, or between."""
    failed, healthy = LIMITS[task]
    if mean_return > healthy:
        return "healthy"
    # A policy whose mean return is NaN has failed.
    return "between" if mean_return >= failed else "failed"


def judge(mutant: Mutant, folder: Path, mean_return: float) -> result_rows.Row:
    """Judge the event files of a training run, and return its row of the results."""
    (run,) = find_runs(folder)
    series = read_run(run.path, run.files).series
    _, stability, learning, _ = answers = ask(series)
    likely = [found.id for found in diagnose(series) if found.confidence >= LIKELY_FROM]
    return {
        "number": mutant.number,
        "algorithm": mutant.algorithm if mutant.task == PENDULUM else f"{mutant.algorithm} on pictures",
        "fault": mutant.fault,
        "seed": mutant.seed,
        "examined": mean_return,
        "label": label_of(mean_return, mutant.task),
        "verdict": answers.verdict.value,
        "stable": stability.answer,
        "learning": learning.answer,
        "state": learning.curve.state.value if learning.curve else "",
        "signs": " ".join(sign.id for sign in stability.signs),
        "cause": likely[0] if likely else "",
    }


def confusion(rows: list[result_rows.Row]) -> str:
    """Return a Markdown table of verdicts by label, for the tuning half and for the test half of the training runs."""
    verdicts = ("GO", "NO-GO", "INSUFFICIENT")
    lines = [f"| half | label | {' | '.join(verdicts)} |", "| --- | --- |" + " --- |" * len(verdicts)]
    halves: Mapping[str, Callable[[int], bool]] = {
        "tuning": lambda number: number % 2 == 0,
        "test": lambda number: number % 2 == 1,
    }
    for half, belongs in halves.items():
        counts = Counter((row["label"], row["verdict"]) for row in rows if belongs(int(row["number"])))
        for label in ("healthy", "failed", "between"):
            lines.append(f"| {half} | {label} | " + " | ".join(str(counts[label, one]) for one in verdicts) + " |")
    return "\n".join(lines)


def causes(rows: list[result_rows.Row]) -> str:
    """Return a Markdown table of the failed runs: the wrong setting, and the cause that the report names first."""
    runs: dict[tuple[str, str], Counter[str]] = {}
    for row in rows:
        if row["label"] == "failed":
            runs.setdefault((row["fault"], row["cause"] or "no cause"), Counter())[row["algorithm"]] += 1
    lines = ["| wrong setting | failed runs | the report names first |", "| --- | --- | --- |"]
    for (fault, cause), counts in sorted(runs.items()):
        by_algorithm = ", ".join(f"{algorithm} ({n})" for algorithm, n in counts.items())
        lines.append(f"| {fault} | {by_algorithm} | {cause} |")
    return "\n".join(lines)


def main() -> None:
    """Make the missing training runs, judge them, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=RESULTS, help="results file (default: %(default)s)")
    parser.add_argument("--logs", type=Path, default=LOGS, help="folder of the event files (default: %(default)s)")
    parser.add_argument("--only", nargs="*", type=int, help="numbers of the training runs to make (default: all)")
    parser.add_argument("--judge", action="store_true", help="train nothing; judge the event files in --logs again")
    options = parser.parse_args()
    th.set_num_threads(1)
    rows = {int(row["number"]): row for row in result_rows.read(options.output)}
    for mutant in grid():
        folder = options.logs / mutant.name
        known = rows.get(mutant.number)
        if known is None:
            if options.judge or (options.only is not None and mutant.number not in options.only):
                continue
            shutil.rmtree(folder, ignore_errors=True)  # leftovers of an interrupted training
            try:
                mean_return = train(mutant, folder)
            except ValueError as error:
                # SB3 raises an error for NaN actions, for example in PPO's distribution.
                print(f"{mutant.name}: {str(error).splitlines()[0]}")
                mean_return = float("nan")
        elif options.judge and folder.is_dir():
            mean_return = float(known["examined"])
        else:
            continue
        rows[mutant.number] = judge(mutant, folder, mean_return)
        row = rows[mutant.number]
        print(mutant.name, *(row[column] for column in COLUMNS[4:]), flush=True)
        result_rows.write([rows[number] for number in sorted(rows)], options.output, COLUMNS)
    print(confusion(list(rows.values())), causes(list(rows.values())), sep="\n\n")


if __name__ == "__main__":
    main()
