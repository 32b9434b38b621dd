"""Is the report right about short training runs with one fault each, and about healthy runs?

The runs are real, and the report reads their event files. For each fault, the table counts which diagnosis the report
lists at the top. The rules were tuned on seeds 0 to 2; seeds 3 to 5 are the test. No healthy run may be judged NO-GO.

    python benchmarks/fault_bench.py                           # everything, an hour or two on two cores
    python benchmarks/fault_bench.py --seeds 3 4 5 --jobs 2    # the test
    python benchmarks/fault_bench.py --only leak 'one critic'
    python benchmarks/fault_bench.py --judge-again             # apply the current rules to the existing event files

Results are kept by run, and existing ones are not repeated, so the bench can be stopped and continued.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing as mp
import shutil
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from faulty_trainings import FAULTS, HEALTHY, LITE, PENDULUM, Training
from result_rows import read_json
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack, VecNormalize
from tqdm import tqdm

from sb3_visual_td3 import (
    DrivingEvalCallback,
    DrivingMetricsCallback,
    ExplosionAlertCallback,
    GradientNormCallback,
    RunRecorderCallback,
)
from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.criteria import judge, load_criteria
from sb3_visual_td3.diagnosis.ranking import LIKELY_FROM, diagnose
from sb3_visual_td3.diagnosis.series import SeriesSet
from sb3_visual_td3.diagnosis.verdict import decide
from sb3_visual_td3.report.discovery import find_runs
from sb3_visual_td3.report.event_reader import read_run
from sb3_visual_td3.runs.durable_files import write_atomically
from sb3_visual_td3.visual_td3.step_guard import NonFiniteUpdateError

RESULTS = Path(__file__).parent / "results" / "fault_bench.json"
TRAININGS = {**FAULTS, **HEALTHY}
TRAINED = "trained"
"""The name of an empty file in the folder of a run that has ended. An interrupted run does not have it."""
RANDOM_PENDULUM = -1_000.0
"""A return that random actions hardly ever reach; their average is about -1,200."""


def environment(training: Training, seed: int) -> VecEnv:
    """Return a training's environment."""
    env_kwargs = {**training.env_kwargs, **_camera(training)}
    env: VecEnv = make_vec_env(
        training.env, 1, seed=seed, env_kwargs=env_kwargs or None, wrapper_class=training.wrapper
    )
    if training.frame_stack > 1:
        env = VecFrameStack(env, training.frame_stack)
    if training.normalize_reward:
        env = VecNormalize(env, norm_obs=False)
    return env


def _camera(training: Training) -> dict[str, int]:
    if training.image_size is None or training.env != LITE:
        return {}
    return {"image_size": training.image_size}


def callbacks(training: Training, folder: Path) -> list[BaseCallback]:
    """Return the callbacks that the hyperparameter files use."""
    chosen: list[BaseCallback] = [
        RunRecorderCallback(folder),
        GradientNormCallback(),
        DrivingMetricsCallback(),
    ]
    if training.watches_alerts:
        chosen.append(ExplosionAlertCallback(run_dir=folder, verbose=0))
    if training.env == LITE and training.is_evaluated:
        evaluation = DrivingEvalCallback(
            LITE,
            n_eval_episodes=4,
            eval_freq=training.n_timesteps // 2,
            verbose=0,
            eval_env_kwargs={"maps": "held_out", **_camera(training)},
        )
        chosen.append(evaluation)
    return chosen


def train(name: str, seed: int, folder: Path, device: str = "cpu") -> float:
    """Train one run.

    :return: the seconds that it took
    """
    training = TRAININGS[name]
    shutil.rmtree(folder, ignore_errors=True)  # leftovers of an interrupted bench
    begin = time.perf_counter()
    th.set_num_threads(1)
    set_random_seed(seed)
    policy = "MlpPolicy" if training.env == PENDULUM else "CnnPolicy"
    model = training.algorithm(
        policy,
        environment(training, seed),
        seed=seed,
        device=device,
        tensorboard_log=str(folder / "tb"),
        **training.settings,
    )
    # If an update is not finite, VisualTD3 raises an error, which ends the run. The event files are judged as usual.
    with contextlib.suppress(NonFiniteUpdateError):
        model.learn(training.n_timesteps, callback=callbacks(training, folder))
    (folder / TRAINED).touch()
    return time.perf_counter() - begin


def judged(folder: Path) -> dict[str, Any]:
    """Return the verdict and the diagnoses of a run, from its event files.

    :return: a row of the results. ``"verdict"``, ``"found"`` (the diagnoses) and ``"first"`` (the id of the top
        diagnosis) use all tags of the run. ``"first_with_seed_names"`` uses only ``SEED_NAMES``, the 39 tags of the
        CARLA run with which this project began ("seed" means that run, not a random seed).
    """
    (files,) = find_runs(folder)
    series = read_run(files.path, files.files).series
    found = diagnose(series)
    # The same rules on the tags of the original run only: the difference shows the value of the additional tags.
    seed_only = SeriesSet({name: s for name, s in series.series.items() if name in SEED_NAMES})
    with_seed_names = [d.id for d in diagnose(seed_only) if d.confidence >= LIKELY_FROM]
    return {
        "verdict": decide(judge(load_criteria(), series)).value,
        "first": found[0].id if found and found[0].confidence >= LIKELY_FROM else None,
        "found": [[d.id, d.role, d.confidence, d.first_step] for d in found],
        "first_with_seed_names": with_seed_names[0] if with_seed_names else None,
        "is_better_than_random": is_better_than_random(series),
        "saturation": last(series, tags.ACTION_SATURATION),
        "critical_alerts": critical_alerts(folder),
    }


def critical_alerts(folder: Path) -> list[str]:
    """Return the rules that raised a critical alert during the training."""
    path = folder / "alerts.jsonl"
    if not path.is_file():
        return []
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return sorted({line["rule"] for line in lines if line["level"] == "critical"})


def is_better_than_random(series: SeriesSet) -> bool | None:
    """Return whether the policy earns more than random actions; None if the logs do not show it."""
    distance, random = last(series, tags.EVAL_DISTANCE), last(series, tags.EVAL_RANDOM_DISTANCE)
    if distance is not None and random is not None:
        return distance > random
    returns = series[tags.EPISODE_REWARD].finite.values
    if returns.size < 10:
        return None
    return bool(np.mean(returns[-10:]) > RANDOM_PENDULUM)


def last(series: SeriesSet, tag: str) -> float | None:
    """Return the last finite value."""
    values = series[tag].finite.values
    return float(values[-1]) if values.size else None


def run(job: tuple[str, int, Path, bool]) -> tuple[str, dict[str, Any]]:
    """Return the run's key and its row."""
    name, seed, logs, judge_only = job
    folder = logs / name.replace(" ", "_").replace(",", "") / str(seed)
    # An exception becomes the result of this run, so that it does not end the other training runs.
    try:
        row = {} if judge_only else {"seconds": round(train(name, seed, folder), 1)}
        return key(name, seed), {**row, **judged(folder)}
    except Exception:
        return key(name, seed), {"error": traceback.format_exc(limit=3)}


def key(name: str, seed: int) -> str:
    """Return the key of a run in the results file."""
    return f"{name} / seed {seed}"


def is_right(name: str, row: dict[str, Any]) -> bool:
    """Return whether the report diagnosed a run correctly."""
    training = TRAININGS[name]
    if name in HEALTHY:
        return bool(row["verdict"] != "NO-GO")
    found_ids = {found[0] for found in row["found"]}
    return row["first"] == training.diagnosis and set(training.also) <= found_ids


def is_examined(name: str, row: dict[str, Any]) -> bool:
    """Return whether a run counts in the table.

    A run that ended with an exception does not count. A run without a fault counts only if its policy is better than
    random actions, and if less than half of its actions are saturated (at the limits of their range).
    """
    if "error" in row:
        return False
    return name not in HEALTHY or bool(row["is_better_than_random"] and (row["saturation"] or 0.0) < 0.5)


def table(results: dict[str, dict[str, Any]], seeds: Sequence[int]) -> str:
    """Return the table: a row for every training run, and the counts."""
    lines = [
        "| training | what is wrong | must be first | right | what was first | first diagnosis with 39 tags only |",
        "| --- " * 6 + "|",
    ]
    counts = {"faults": [0, 0], "healthy": [0, 0]}
    alerts: list[str] = []
    for name, training in TRAININGS.items():
        rows = [results[key(name, seed)] for seed in seeds if key(name, seed) in results]
        rows = [row for row in rows if is_examined(name, row)]
        if not rows:
            continue
        n_right = sum(is_right(name, row) for row in rows)
        count = counts["healthy" if name in HEALTHY else "faults"]
        count[0] += n_right
        count[1] += len(rows)
        what = "verdict" if name in HEALTHY else "first"
        firsts = ", ".join(f"{first} x{n}" for first, n in Counter(str(row[what]) for row in rows).most_common())
        alone = Counter(str(row["first_with_seed_names"]) for row in rows).most_common()
        also = "".join(f" + {other}" for other in training.also)
        cells = [name, training.story, training.diagnosis + also or "not NO-GO", f"{n_right} of {len(rows)}", firsts]
        lines.append("| " + " | ".join([*cells, ", ".join(f"{first} x{n}" for first, n in alone)]) + " |")
        if name in HEALTHY:
            alerts.extend(alert for row in rows for alert in row["critical_alerts"])
    for kind, (n_right, n_all) in counts.items():
        if n_all:
            lines.append(f"\n{kind}: {n_right} of {n_all} right ({n_right / n_all:.0%})")
    lines.append(f"\ncritical alerts in healthy runs while they trained: {', '.join(alerts) or 'none'}")
    return "\n".join(lines)


SEED_NAMES = frozenset(
    name
    for name in tags.TAGS
    if name
    in {
        *("train/episode_reward", "train/episode_length", "train/collisions_per_episode"),
        *("train/lane_invasions_per_episode", "train/actor_loss", "train/critic_loss", "train/q1_value"),
        *("train/q2_value", "train/exploration_noise", *tags.GRADIENT_NORM.values()),
        *(tags.ALERT_WARNING, tags.ALERT_CRITICAL, tags.TOTAL_ITERATIONS, tags.IS_TRAINING),
        *(tags.BUFFER_UTILIZATION, *tags.GROUP_LR.values(), *tags.PARAM_MEAN.values(), *tags.PARAM_STD.values()),
        *("progress/buffer_size", "progress/episode_steps", "progress/current_reward", "progress/speed_kmh"),
        *("eval/mean_reward", "eval/success_rate", "eval/avg_collisions", "eval/avg_lane_invasions"),
        "eval/avg_episode_length",
    }
)
"""The 39 tags that the original run logged (the CARLA run with which this project began)."""


def keep(results: dict[str, Any], output: Path) -> None:
    """Add results to the results file."""
    output.parent.mkdir(exist_ok=True)
    merged = read_json(output)
    for name, row in results.items():
        # --judge-again has no training time of its own: keep the earlier one.
        former = merged.get(name, {})
        kept = {}
        if "seconds" in former:
            kept = {"seconds": former["seconds"]}
        merged[name] = {**kept, **row}
    write_atomically(output, json.dumps(dict(sorted(merged.items())), indent=1) + "\n")


def failed(n_runs: int) -> str:
    """Return the line that says how many runs ended with an exception."""
    if n_runs == 1:
        return "\n1 run failed, and the table leaves it out"
    return f"\n{n_runs} runs failed, and the table leaves them out"


def main() -> int:
    """Run the missing training runs and print the table.

    :return: 1 if a run ended with an exception, else 0
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=TRAININGS, metavar="NAME", default=list(TRAININGS))
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        default=list(range(6)),
        help="train once with each of these seeds (default: seeds 0 to 5)",
    )
    parser.add_argument(
        "--jobs", type=int, default=1, help="number of parallel training runs, one CPU thread each (default: 1)"
    )
    parser.add_argument(
        "-f",
        "--log-folder",
        type=Path,
        default=Path("logs/fault_bench"),
        help="folder for the runs (default: %(default)s)",
    )
    parser.add_argument("--judge-again", action="store_true", help="train nothing; judge the existing event files")
    parser.add_argument("--output", type=Path, default=RESULTS, help="file of the results (default: %(default)s)")
    options = parser.parse_args()
    results = read_json(options.output)
    there = {key(name, seed) for name in options.only for seed in options.seeds} & results.keys()
    wanted = [
        (name, seed, options.log_folder, options.judge_again)
        for seed in options.seeds
        for name in options.only
        if seed in TRAININGS[name].seeds and options.judge_again == (key(name, seed) in there)
    ]
    n_failed = 0
    with mp.get_context("spawn").Pool(options.jobs, maxtasksperchild=1) as pool:
        for name, row in tqdm(pool.imap_unordered(run, wanted), total=len(wanted), unit="run", disable=None):
            if "error" in row:
                print(f"{name}: {row['error']}")
                n_failed += 1
            else:
                keep({name: row}, options.output)
    print(table(read_json(options.output), options.seeds))
    if n_failed:
        print(failed(n_failed))
    return int(n_failed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
