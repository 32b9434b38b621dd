"""Does ``preset="visual"`` stay calm and learn to drive, seed after seed?

Trains on LiteDriving-v0 with the zoo's hyperparameters and one update per two steps, and prints a table: growth of the
gradient norms, Q against its bound, saturation, metres driven, and the report's verdict.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from pathlib import Path

import numpy as np
import torch as th

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.criteria import judge, load_criteria
from sb3_visual_td3.diagnosis.series import Series, SeriesSet
from sb3_visual_td3.diagnosis.trends import theil_sen_slope
from sb3_visual_td3.diagnosis.verdict import decide
from sb3_visual_td3.report.discovery import find_runs
from sb3_visual_td3.report.event_reader import read_run
from sb3_visual_td3.zoo.train import train

RESULTS = Path(__file__).parent / "results" / "visual_preset.json"
STEPS_PER_UPDATE = 2
COLUMNS = {
    "verdict": "verdict",
    "largest_norm": "largest norm before clipping",
    "steepest_log_norm_slope": "steepest slope of log-norm per 1,000 updates, last half",
    "q_over_bound": "largest \\|Q\\| / bound",
    "saturation": "saturation at the end",
    "distance_m": "metres, last evaluation",
    "random_distance_m": "random driver",
}


def log_slope_per_1000_updates(norms: Series) -> float:
    """:return: robust slope of the natural log of a norm over the last half of its updates"""
    half = norms.tail(0.5)
    return 1_000 * theil_sen_slope(half.steps / STEPS_PER_UPDATE, np.log(np.maximum(half.values, 1e-12)))


def measure(series: SeriesSet) -> dict[str, float | str]:
    """:return: one row of the table"""
    norms = [series[tag] for tag in tags.GRADIENT_NORM.values() if tag in series]
    bound = dict(zip(series[tags.Q_BOUND].steps.tolist(), series[tags.Q_BOUND].values.tolist(), strict=True))
    q_tags = (tags.Q1_VALUE, tags.Q2_VALUE, tags.POLICY_Q_VALUE)
    q_points = [point for tag in q_tags for point in zip(series[tag].steps, series[tag].values, strict=True)]
    return {
        "verdict": decide(judge(load_criteria(), series)).value,
        "largest_norm": max(norm.abs_max() for norm in norms),
        "steepest_log_norm_slope": max(log_slope_per_1000_updates(norm) for norm in norms),
        "q_over_bound": max(abs(value) / bound[int(step)] for step, value in q_points),
        "saturation": float(series[tags.ACTION_SATURATION].values[-1]),
        "distance_m": float(series[tags.EVAL_DISTANCE].values[-1]),
        "random_distance_m": float(series[tags.EVAL_RANDOM_DISTANCE].values[-1]),
        "n_not_finite": float(sum(not math.isfinite(v) for norm in norms for v in norm.values)),
    }


def table(results: dict[str, dict[str, float | str]]) -> str:
    """:return: the results as Markdown"""
    lines = ["| seed | " + " | ".join(COLUMNS.values()) + " |", "| --- " * (len(COLUMNS) + 1) + "|"]
    for seed, row in sorted(results.items(), key=lambda item: int(item[0])):
        cells = [value if isinstance(value, str) else f"{value:.3g}" for value in (row[column] for column in COLUMNS)]
        lines.append(f"| {seed} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="default: 0 1 2 3 4")
    parser.add_argument("-n", "--n-timesteps", type=int, default=5_000, help="per seed (default: 5000)")
    parser.add_argument("-f", "--log-folder", default="logs/visual_preset", help="where the runs go")
    parser.add_argument("--num-threads", type=int, default=1, help="of torch (default: 1)")
    settings = parser.parse_args()
    th.set_num_threads(settings.num_threads)
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    for seed in settings.seeds:
        if str(seed) in results:
            continue
        arguments = ["--env", "LiteDriving-v0", "--seed", str(seed), "-n", str(settings.n_timesteps), "--verbose", "0"]
        arguments += ["-f", settings.log_folder, "-params", f"train_freq:{STEPS_PER_UPDATE}"]
        run_dir = train(arguments)
        assert run_dir is not None
        (files,) = find_runs(run_dir)
        results[str(seed)] = measure(read_run(files.path, files.files).series)
        RESULTS.parent.mkdir(exist_ok=True)
        temporary = RESULTS.with_suffix(".tmp")
        temporary.write_text(json.dumps(results, indent=2, sort_keys=True) + "\n")
        os.replace(temporary, RESULTS)
    print(table({str(seed): results[str(seed)] for seed in settings.seeds}))


if __name__ == "__main__":
    main()
