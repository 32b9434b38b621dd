"""How well does VisualTD3 learn to drive, which of its parts matter, and how do stock algorithms compare?

Every arm trains on the eight training maps of LiteDriving-v0, with batch 128 and one update per two steps. A run has
10,000 steps if the roads are empty, and 30,000 steps if there are 8 other cars. During training the policy is evaluated
regularly on the *training* maps, and the policy with the highest return is kept.

After the training, the kept policy drives 100 episodes on the two held-out maps, which no training uses. The roads are
empty, or have 6 to 10 other cars if the training had other cars. The last policy drives the same 100 episodes, and the
kept policy drives them again with black camera images. If the policy is an average of the recent actors, the last actor
drives them too ("last_actor" in the results).

    python benchmarks/learning_study.py                                       # the preset, five seeds on empty roads
    python benchmarks/learning_study.py --arms ablations stock --seeds 0 1 2
    python benchmarks/learning_study.py --worlds traffic --arms visual 'SB3 TD3' --device cuda --n-jobs 8
    python benchmarks/learning_study.py --table                               # print the results and run nothing

Results are kept in benchmarks/results/learning.json. Runs that are in it are not repeated, so the study can be stopped
and continued. Models and event files are in the log folder.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import fault_bench
import numpy as np
import torch as th
from learning_arms import ABLATIONS, ARMS, ENV, STOCK, TRIED, WORLDS, Arm, World, arguments_of, block_of
from learning_table import brief, table
from result_rows import read_json
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from tqdm import tqdm

from sb3_visual_td3 import (
    DrivingEvalCallback,
    DrivingMetricsCallback,
    ExplosionAlertCallback,
    GradientNormCallback,
    RunRecorderCallback,
)
from sb3_visual_td3.callbacks.drives import Drive, Policy, drive_episodes, mean_of
from sb3_visual_td3.envs import MAX_EPISODE_STEPS
from sb3_visual_td3.envs.road.maps import MAP_GROUPS

RESULTS = Path(__file__).parent / "results" / "learning.json"
N_TEST_EPISODES = 100
TEST_SEED = 10_000
"""The seed of the final evaluation's starting places: the same for every policy, and different from training."""
GROUPS = {"ablations": list(ABLATIONS), "stock": list(STOCK), "tried": list(TRIED)}


class Job(NamedTuple):
    """One run: a world, an arm and a seed."""

    world: str
    arm: str
    seed: int
    device: str
    logs: Path

    @property
    def key(self) -> str:
        """Return the key of the run in the results."""
        return f"{self.world}, {self.arm}, seed {self.seed}"

    @property
    def folder(self) -> Path:
        """Return the folder for its model and event files."""
        return self.logs / self.world.replace(" ", "_") / self.arm.replace(" ", "_") / str(self.seed)


def watchers(job: Job) -> list[BaseCallback]:
    """Return the callbacks of a run, which are the same for every arm."""
    world = WORLDS[job.world]
    kept = str(job.folder)
    return [
        RunRecorderCallback(job.folder),
        GradientNormCallback(),
        ExplosionAlertCallback(run_dir=job.folder, verbose=0),
        DrivingMetricsCallback(),
        DrivingEvalCallback(
            ENV,
            n_eval_episodes=16,
            eval_freq=world.eval_freq,
            log_path=kept,
            best_model_save_path=kept,
            verbose=0,
            eval_env_kwargs={"maps": "train", "n_cars": world.n_cars},
            best_by="reward",
        ),
    ]


def learner(arm: Arm, world: World, seed: int, device: str, tensorboard_log: str | None = None) -> OffPolicyAlgorithm:
    """Return an arm's untrained model, with its own environment."""
    set_random_seed(seed)
    env: VecEnv = make_vec_env(ENV, 1, seed=seed, env_kwargs={"n_cars": world.n_cars})
    settings = {**arguments_of(arm), "buffer_size": world.n_timesteps}  # keep every transition
    if block_of(arm)["normalize"]:
        # The zoo, too, gives VecNormalize the algorithm's discount.
        env = VecNormalize(env, **{"gamma": settings.get("gamma", 0.99), **block_of(arm)["normalize"]})
    return arm.algorithm("CnnPolicy", env, seed=seed, device=device, tensorboard_log=tensorboard_log, **settings)


def train(job: Job) -> tuple[BaseAlgorithm, float]:
    """Train one run.

    :return: the final model, and the seconds that the training took, evaluations included
    """
    shutil.rmtree(job.folder, ignore_errors=True)  # leftovers of an interrupted run
    job.folder.mkdir(parents=True)
    world = WORLDS[job.world]
    begin = time.perf_counter()
    model = learner(ARMS[job.arm], world, job.seed, job.device, f"{job.folder}/tb")
    model.learn(world.n_timesteps, callback=watchers(job))
    seconds = time.perf_counter() - begin
    model.save(job.folder / "last_model")
    return model, seconds


def examine(driver: Policy, world: str, maps: str = "held_out") -> dict[str, Any]:
    """Evaluate a policy in 100 episodes on held-out maps, or 96 on the training maps, and return the summary."""
    places = [(name, n_cars) for name in MAP_GROUPS[maps] for n_cars in WORLDS[world].test_n_cars]
    n_episodes = N_TEST_EPISODES // len(places)
    drives: list[Drive] = []
    for name, n_cars in places:
        env = make_vec_env(ENV, n_episodes, env_kwargs={"maps": [name], "n_cars": n_cars})
        drives += drive_episodes(driver, env, TEST_SEED)
        env.close()
    return summary(drives)


def summary(drives: Sequence[Drive]) -> dict[str, Any]:
    """Return the summary of some episodes."""
    mean = mean_of(drives)
    return {
        "n_episodes": len(drives),
        "driven_to_the_end": float(np.mean([drive.length == MAX_EPISODE_STEPS for drive in drives])),
        "without_collision": float(np.mean([drive.collisions == 0 for drive in drives])),
        "success_rate": mean.success_rate,
        "route_completion": mean.route_completion,
        "return": mean.reward,
        "distance_m": mean.distance_m,
        "speed_mps": mean.speed_mps,
        "lane_invasions": mean.lane_invasions,
    }


def driver_of(model: BaseAlgorithm, is_blind: bool = False) -> Policy:
    """Return a driver that uses the policy without exploration; a blind one sees black images."""

    def drive(observations: np.ndarray, _starts: np.ndarray) -> np.ndarray:
        if is_blind:
            observations = np.zeros_like(observations)
        return model.predict(observations, deterministic=True)[0]

    return drive


def run(job: Job) -> dict[str, Any]:
    """Return one run's row."""
    th.set_num_threads(1)
    last, seconds = train(job)
    kept = ARMS[job.arm].algorithm.load(job.folder / "best_model", device=job.device)  # type: ignore[attr-defined]
    evaluations = np.load(job.folder / "evaluations.npz")
    judged = fault_bench.judged(job.folder)
    row = {
        "kept": examine(driver_of(kept), job.world),
        "last": examine(driver_of(last), job.world),
        "blind": examine(driver_of(kept, is_blind=True), job.world),
        "kept_at_step": int(evaluations["timesteps"][evaluations["results"].mean(axis=1).argmax()]),
        "evaluation_returns": [round(float(value), 1) for value in evaluations["results"].mean(axis=1)],
        "verdict": judged["verdict"],
        "first": judged["first"],
        "saturation": judged["saturation"],
        "seconds": round(seconds, 1),
        "device": th.cuda.get_device_name() if job.device == "cuda" else "cpu, 1 thread",
    }
    if getattr(last.policy, "averaged_actor", None) is not None:
        with last.policy.without_average():  # type: ignore[operator]
            row["last_actor"] = examine(driver_of(last), job.world)
    return row


def parsed() -> argparse.Namespace:
    """Return the command's parsed options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*ARMS, *GROUPS]
    parser.add_argument(
        "--worlds", nargs="+", default=["empty road"], choices=WORLDS, help="worlds to train in (default: 'empty road')"
    )
    parser.add_argument(
        "--arms",
        nargs="+",
        default=["visual"],
        choices=names,
        metavar="ARM",
        help="arms or groups of arms to run; an arm is an algorithm or a changed preset; "
        f"choose from {', '.join(map(repr, names))} (default: visual)",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        default=[0, 1, 2, 3, 4],
        help="train each arm once with each of these seeds (default: seeds 0 to 4)",
    )
    parser.add_argument(
        "--n-jobs", type=int, default=2, help="number of parallel runs, one CPU thread each (default: 2)"
    )
    parser.add_argument("--device", default="cpu", help="device of the networks, cpu or cuda (default: cpu)")
    parser.add_argument(
        "-f",
        "--log-folder",
        type=Path,
        default=Path("logs/learning"),
        help="folder for the runs (default: %(default)s)",
    )
    parser.add_argument("--output", type=Path, default=RESULTS, help="file of the results (default: %(default)s)")
    parser.add_argument("--table", action="store_true", help="print the table and run nothing")
    parser.add_argument("--brief", action="store_true", help="print the README's table and run nothing")
    return parser.parse_args()


def main() -> int:
    """Run the missing training runs and print the table.

    :return: 1 if a run ended with an exception, else 0
    """
    settings = parsed()
    results = read_json(settings.output)
    arms = [arm for name in settings.arms for arm in GROUPS.get(name, [name])]
    # All arms of a seed come before the next seed, so that a benchmark that is stopped early compares all arms.
    jobs = [
        Job(world, arm, seed, settings.device, settings.log_folder)
        for seed in settings.seeds
        for world in settings.worlds
        for arm in arms
    ]
    missing = [] if settings.table or settings.brief else [job for job in jobs if job.key not in results]
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    n_failed = 0
    with ProcessPoolExecutor(settings.n_jobs, mp_context=get_context("spawn")) as pool:
        running = {pool.submit(run, job): job for job in missing}
        for done in tqdm(as_completed(running), total=len(running), unit="run", disable=None):
            key, error = running[done].key, done.exception()
            if error is not None:
                tqdm.write(f"{key}: {error!r}")
                n_failed += 1
                continue
            results[key] = done.result()
            fault_bench.keep({key: results[key]}, settings.output)
    if settings.brief:
        print(brief(results))
        return 0
    for world in settings.worlds:
        print(f"\n{world}, {WORLDS[world].n_timesteps:,} steps\n\n{table(results, world, ARMS)}")
    if n_failed:
        print(fault_bench.failed(n_failed))
    return int(n_failed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
