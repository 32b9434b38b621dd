"""``visual-td3 plot-train``: rl-zoo's learning curves of training."""

from __future__ import annotations

from collections.abc import Sequence

from sb3_visual_td3.zoo.plots import run_plot
from sb3_visual_td3.zoo.plugin import ALGO


def main(arguments: Sequence[str] | None = None) -> int:
    """Plot episodes as ``rl_zoo3 plot_train`` does, one curve a run that has a window (``-w``) of them.

    :param arguments: rl-zoo's flags; those of the command line by default
    :return: the exit code
    """
    return run_plot("plot-train", arguments, "plot_train", ("-a", ALGO, "-e", "LiteDriving-v0", "-f", "logs"))
