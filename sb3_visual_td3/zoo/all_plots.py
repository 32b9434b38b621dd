"""``visual-td3 all-plots``: rl-zoo's curves and table of evaluations."""

from __future__ import annotations

from collections.abc import Sequence

from sb3_visual_td3.zoo.plots import run_plot
from sb3_visual_td3.zoo.plugin import ALGO


def main(arguments: Sequence[str] | None = None) -> int:
    """Plot evaluations as ``rl_zoo3 all_plots`` does; ``-o`` writes what ``plot-from-file`` reads.

    :param arguments: rl-zoo's flags; those of the command line by default
    :return: the exit code
    """
    return run_plot("all-plots", arguments, "all_plots", ("-a", ALGO, "-e", "LiteDriving-v0", "-f", "logs"))
