"""``visual-td3 plot-from-file``: rl-zoo's comparisons of what ``all-plots -o`` has written."""

from __future__ import annotations

from collections.abc import Sequence

from sb3_visual_td3.zoo.plots import run_plot


def main(arguments: Sequence[str] | None = None) -> int:
    """Plot as ``rl_zoo3 plot_from_file`` does.

    :param arguments: rl-zoo's flags; those of the command line by default
    :return: the exit code
    """
    return run_plot("plot-from-file", arguments, "plot_from_file")
