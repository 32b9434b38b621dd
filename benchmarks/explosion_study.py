"""What made the gradients of the CARLA run that started this project explode, and which cure works?

In the following, that CARLA run is the "original run", and "the report" is the report that its author wrote. An arm is
one variant of the training. The arms use the settings of the original run, on LiteDriving-v0, with rewards of 10 to 20
per step. 16 arms combine four choices:

- the actor's loss: the critic receives the ACTOR's features (original run), or its own features (correct loss);
- clipping: none (original run), or to norm 1.0 on the actor (recommended in the report);
- the learning rate of the actor's encoder: 1e-5 (original run), or 1e-4 (recommended in the report);
- the rewards: raw (original run), or normalised by VecNormalize (recommended in the report).

A further arm is `preset="visual"`. Five arms run on CarRacing-v3 as well. A run has 5,000 steps, batch 64, and one
update per step after step 1,000. The table shows the verdict of `visual-td3 report`, and gradient norms, which are
measured before clipping.

    python benchmarks/explosion_study.py                            # everything: 66 runs of some minutes, two at a time
    python benchmarks/explosion_study.py --seeds 0 --arms visual 'leak, clip 1, cnn 1e-4, raw'
    python benchmarks/explosion_study.py --table                    # print the existing results and run nothing

Results are kept in benchmarks/results/explosion_study.json. Runs that are in it are not repeated, so the study can be
stopped and continued.
"""

from __future__ import annotations

import argparse
import os
import re
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import fault_bench
from explosion_arms import ARMS
from explosion_table import brief, table
from result_rows import read_json
from tqdm import tqdm

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.series import SeriesSet
from sb3_visual_td3.report.discovery import find_runs
from sb3_visual_td3.report.event_reader import read_run

RESULTS = Path(__file__).parent / "results" / "explosion_study.json"


def measured(folder: Path) -> dict[str, Any]:
    """Return a row of the table, measured from one run's event files."""
    (files,) = find_runs(folder)
    series = read_run(files.path, files.files).series
    norms = {group: _summary(series, tag) for group, tag in tags.GRADIENT_NORM.items()}
    return {
        "norms": norms,
        "actor_loss": fault_bench.last(series, tags.ACTOR_LOSS),
        "saturation": fault_bench.last(series, tags.ACTION_SATURATION),
        "distance_m": fault_bench.last(series, tags.EVAL_DISTANCE),
        "random_distance_m": fault_bench.last(series, tags.EVAL_RANDOM_DISTANCE),
    }


def _summary(series: SeriesSet, tag: str) -> dict[str, float] | None:
    if tag not in series or not series[tag].finite.values.size:
        return None
    values = series[tag].finite.values
    return {"mean": float(values.mean()), "max": float(values.max()), "last": float(values[-1])}


def run(job: tuple[str, int, Path, str]) -> tuple[str, dict[str, Any]]:
    """Return the run's key and its row."""
    arm, seed, logs, device = job
    fault_bench.TRAININGS[arm] = ARMS[arm]
    folder = logs / re.sub(r"\W+", "_", arm) / str(seed)
    seconds = fault_bench.train(arm, seed, folder, device)
    judged = fault_bench.judged(folder)
    return key(arm, seed), {
        "verdict": judged["verdict"],
        "first": judged["first"],
        "found": judged["found"],
        **measured(folder),
        "device": device,
        "seconds": round(seconds, 1),
    }


def key(arm: str, seed: int) -> str:
    """Return the key of a run in the results."""
    return f"{arm}, seed {seed}"


def main() -> int:
    """Run what is missing and print the table.

    :return: 1 if a run ended with an exception, else 0
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--arms", nargs="+", default=list(ARMS), choices=ARMS, metavar="ARM", help="arms to run (default: all)"
    )
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        default=[0, 1, 2],
        help="train each arm once with each of these seeds (default: seeds 0, 1, 2)",
    )
    parser.add_argument(
        "-f",
        "--log-folder",
        type=Path,
        default=Path("logs/explosion_study"),
        help="folder for the runs (default: %(default)s)",
    )
    parser.add_argument(
        "--n-jobs", type=int, default=2, help="number of parallel runs, one CPU thread each (default: 2)"
    )
    parser.add_argument("--device", default="cpu", help="device of the networks, cpu or cuda (default: cpu)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="file of the results (default: %(default)s)")
    parser.add_argument("--table", action="store_true", help="print the table and run nothing")
    parser.add_argument("--brief", action="store_true", help="print the table of docs/why.md and run nothing")
    settings = parser.parse_args()
    results = read_json(settings.output)
    # All arms of a seed come before the next seed, so that a study that is stopped early compares all arms.
    jobs = [(arm, seed, settings.log_folder, settings.device) for seed in settings.seeds for arm in settings.arms]
    missing = [] if settings.table or settings.brief else [job for job in jobs if key(*job[:2]) not in results]
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    n_failed = 0
    with ProcessPoolExecutor(settings.n_jobs, mp_context=get_context("spawn")) as pool:
        running = {pool.submit(run, job): key(*job[:2]) for job in missing}
        for done in tqdm(as_completed(running), total=len(running), unit="run", disable=None):
            if done.exception() is not None:
                tqdm.write(f"{running[done]}: {done.exception()!r}")
                n_failed += 1
                continue
            name, row = done.result()
            results[name] = row
            fault_bench.keep({name: row}, settings.output)
    print(brief(results) if settings.brief else table(results))
    if n_failed:
        print(fault_bench.failed(n_failed))
    return int(n_failed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
