"""Does ``preset="visual"`` train stably and learn to drive, with every seed, and which of its parts matter?

Trains on LiteDriving-v0 with the zoo's hyperparameters (batch 128), a constant learning rate and one update per two
steps. For each run the table shows the size and the growth of the gradient norms (measured before clipping), the
largest ratio of Q to its bound, saturation, metres driven on held-out maps, and the report's verdict. Every update is
measured.

    python benchmarks/visual_preset.py                                    # five seeds of the preset, some minutes each
    python benchmarks/visual_preset.py --arms td3 'without shift'         # other arms: --help lists them
    python benchmarks/visual_preset.py --arms fp32 bf16 --seeds 0 1 2 -n 10000      # is learning the same in bfloat16?

Results are kept in benchmarks/results/visual_preset.json. Runs that are in it are not repeated, so the benchmark can be
stopped and continued.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from result_rows import read_json
from tqdm import tqdm

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.criteria import judge, load_criteria
from sb3_visual_td3.diagnosis.series import Series, SeriesSet
from sb3_visual_td3.diagnosis.trends import theil_sen_slope
from sb3_visual_td3.diagnosis.verdict import decide
from sb3_visual_td3.report.discovery import find_runs
from sb3_visual_td3.report.event_reader import read_run
from sb3_visual_td3.runs.durable_files import write_atomically
from sb3_visual_td3.zoo.train import train

RESULTS = Path(__file__).parent / "results" / "visual_preset.json"
STEPS_PER_UPDATE = 2
LEARNING_RATE = 1e-4
"""The constant learning rate of this benchmark. zoo_configs/visual_td3.yml had this rate when the preset was chosen,
and now has a falling rate for LiteDriving-v0; learning_study.py compares these two rates."""
PACKAGE = "sb3_visual_td3.callbacks"
CALLBACKS = [
    f"{PACKAGE}.run_recorder.RunRecorderCallback",
    {f"{PACKAGE}.gradient_norm.GradientNormCallback": {"sample_freq": 1, "log_freq": 100}},
    f"{PACKAGE}.explosion_alert.ExplosionAlertCallback",
    f"{PACKAGE}.driving_metrics.DrivingMetricsCallback",
    {
        f"{PACKAGE}.driving_eval.DrivingEvalCallback": {
            "eval_env": "LiteDriving-v0",
            "eval_freq": 1_000,
            "n_eval_episodes": 10,
        }
    },
]
PARTS: dict[str, dict[str, Any]] = {
    "without shift": {"random_shift": 0},
    "without target clamp": {"target_q_clamp": False},
    "without clipping": {"max_grad_norm": {}},
    "without trunk": {"policy_kwargs": {"trunk_dim": None}},
    "separate encoders": {"policy_kwargs": {"encoder": "separate"}},
    "actor on Q1": {"actor_objective": "q1"},
    "1-step returns": {"n_steps": 1},
    "Huber loss": {"critic_loss": "huber"},
    "LayerNorm heads": {"policy_kwargs": {"layer_norm": True}},
    "adaptive clipping": {"grad_clip": "adaptive"},
    "fp32": {"precision": "fp32"},
    "bf16": {"precision": "bf16"},
}
"""Changes of the preset; each removes, replaces or adds one part."""
ARMS: dict[str, dict[str, Any]] = {
    "visual": {},
    "td3": {"preset": "td3", "n_steps": 1},
    "without pre-tanh penalty": {"pre_tanh_penalty": 0.0},
    "penalty 1e-3": {"pre_tanh_penalty": 1e-3},
    "penalty 2e-2": {"pre_tanh_penalty": 2e-2},
    **PARTS,
    # The preset had this penalty when its parts were first compared.
    **{f"penalty 2e-2, {name}": {"pre_tanh_penalty": 2e-2, **part} for name, part in PARTS.items()},
}
COLUMNS = {
    "verdict": "verdict",
    "largest_norm": "largest norm before clipping",
    "steepest_log_norm_slope": "steepest slope of log-norm per 1,000 updates, last half",
    "q_over_bound": "largest \\|Q\\| / bound",
    "saturation": "saturation at the end",
    "distance_m": "metres, last evaluation",
    "mean_distance_m": "metres, mean of evaluations",
    "random_distance_m": "random driver",
}


def log_slope_per_1000_updates(norms: Series) -> float:
    """Return how fast the natural logarithm of a gradient norm grows per 1,000 updates.

    The result is a robust slope (Theil-Sen) over the last half of the updates.
    """
    half = norms.tail(0.5)
    return 1_000 * theil_sen_slope(half.steps / STEPS_PER_UPDATE, np.log(np.maximum(half.values, 1e-12)))


def measure(series: SeriesSet) -> dict[str, Any]:
    """Return one row of the table, and the distances of the evaluations in metres."""
    norms = [series[tag] for tag in tags.GRADIENT_NORM.values() if tag in series]
    bound = dict(zip(series[tags.Q_BOUND].steps.tolist(), series[tags.Q_BOUND].values.tolist(), strict=True))
    q_tags = (tags.Q1_VALUE, tags.Q2_VALUE, tags.POLICY_Q_VALUE)
    q_points = [point for tag in q_tags for point in zip(series[tag].steps, series[tag].values, strict=True)]
    distances = [float(value) for value in series[tags.EVAL_DISTANCE].values]
    return {
        "verdict": decide(judge(load_criteria(), series)).value,
        "largest_norm": max(norm.abs_max() for norm in norms),
        "steepest_log_norm_slope": max(log_slope_per_1000_updates(norm) for norm in norms),
        "q_over_bound": max(abs(value) / bound[int(step)] for step, value in q_points),
        "saturation": float(series[tags.ACTION_SATURATION].values[-1]),
        "distance_m": distances[-1],
        "mean_distance_m": statistics.fmean(distances),
        "distances_m": distances,
        "random_distance_m": float(series[tags.EVAL_RANDOM_DISTANCE].values[-1]),
        "n_not_finite": sum(not math.isfinite(v) for norm in norms for v in norm.values),
    }


def table(rows: Iterable[tuple[str, dict[str, Any]]]) -> str:
    """Return the rows as Markdown."""
    lines = ["| arm, seed | " + " | ".join(COLUMNS.values()) + " |", "| --- " * (len(COLUMNS) + 1) + "|"]
    for name, row in rows:
        cells = [value if isinstance(value, str) else f"{value:.3g}" for value in (row[column] for column in COLUMNS)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def run(arm: str, seed: int, settings: argparse.Namespace) -> dict[str, Any]:
    """Return the row of one training run."""
    common = {"train_freq": STEPS_PER_UPDATE, "learning_rate": LEARNING_RATE, "callback": CALLBACKS}
    hyperparameters = {**common, **ARMS[arm]}
    arguments = ["--env", "LiteDriving-v0", "--seed", str(seed), "-n", str(settings.n_timesteps), "--verbose", "0"]
    arguments += ["-f", str(Path(settings.log_folder) / arm.replace(" ", "_"))]
    arguments += ["-params", *(f"{key}:{value!r}" for key, value in hyperparameters.items())]
    run_dir = train(arguments).run_dir
    assert run_dir is not None
    (files,) = find_runs(run_dir)
    return measure(read_run(files.path, files.files).series)


def keep(results: dict[str, Any], output: Path) -> None:
    """Add results to the results file, which other processes may write to as well."""
    output.parent.mkdir(exist_ok=True)
    merged = {**(read_json(output)), **results}
    write_atomically(output, json.dumps(dict(sorted(merged.items())), indent=2) + "\n")


def main() -> None:
    """Run the missing training runs and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--arms",
        nargs="+",
        default=["visual"],
        choices=ARMS,
        metavar="ARM",
        help=f"arms to run, of {', '.join(map(repr, ARMS))} (default: visual)",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        default=[0, 1, 2, 3, 4],
        help="train each arm once with each of these seeds (default: seeds 0 to 4)",
    )
    parser.add_argument(
        "-n", "--n-timesteps", type=int, default=5_000, help="environment steps of each run (default: 5000)"
    )
    parser.add_argument(
        "-f", "--log-folder", default="logs/visual_preset", help="folder for the runs (default: %(default)s)"
    )
    parser.add_argument("--num-threads", type=int, default=1, help="threads of torch (default: 1)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="file of the results (default: %(default)s)")
    settings = parser.parse_args()
    th.set_num_threads(settings.num_threads)
    wanted = {
        f"{arm}, {settings.n_timesteps} steps, seed {seed}": (arm, seed)
        for arm in settings.arms
        for seed in settings.seeds
    }
    results = read_json(settings.output)
    for name, (arm, seed) in tqdm(wanted.items(), unit="run", disable=None):
        if name not in results:
            results[name] = run(arm, seed, settings)
            keep({name: results[name]}, settings.output)
    print(table((name, results[name]) for name in wanted))


if __name__ == "__main__":
    main()
