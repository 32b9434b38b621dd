"""``visual-td3 plot-from-file``: rl-zoo's comparisons of what ``all-plots -o`` has written."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

import numpy as np

from sb3_visual_td3.zoo.plots import run_plot


def main(arguments: Sequence[str] | None = None) -> int:
    """Plot as ``rl_zoo3 plot_from_file`` does.

    :param arguments: rl-zoo's flags; those of the command line by default
    :return: the exit code
    """
    load = pickle.load

    def load_results(file: Any, *args: Any, **kwargs: Any) -> Any:
        return _with_axis_of_runs(load(file, *args, **kwargs))

    with patch.object(pickle, "load", load_results):
        return run_plot("plot-from-file", arguments, "plot_from_file")


def _with_axis_of_runs(results: Any) -> Any:
    """Give the results of a single run the axis of runs that all-plots (rl_zoo3 2.9) has squeezed away."""
    if not isinstance(results, dict) or "results_table" not in results:
        return results
    for env, by_key in results.items():
        for entry in by_key.values() if env != "results_table" else ():
            if np.ndim(entry["last_evals"]) == 0:
                entry["last_evals"] = np.atleast_1d(entry["last_evals"])
            if np.ndim(entry.get("mean_per_eval", np.zeros((1, 1)))) == 1:
                entry["mean_per_eval"] = np.asarray(entry["mean_per_eval"])[:, None]
    return results
