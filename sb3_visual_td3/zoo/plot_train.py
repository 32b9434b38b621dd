"""``visual-td3 plot-train``: rl-zoo's learning curves of training."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sb3_visual_td3.zoo.plots import run_plot
from sb3_visual_td3.zoo.plugin import ALGO

WINDOW = 100
"""Episodes that rl-zoo averages; it draws no curve at all of a run that has fewer."""
DEFAULTS = ("-a", ALGO, "-e", "LiteDriving-v0", "-f", "logs")


def main(arguments: Sequence[str] | None = None) -> int:
    """Plot episodes as ``rl_zoo3 plot_train`` does, one curve for each run.

    :param arguments: rl-zoo's flags; those of the command line by default
    :return: the exit code
    """
    given = sys.argv[1:] if arguments is None else arguments
    return run_plot("plot-train", given, "plot_train", (*DEFAULTS, *_window([*DEFAULTS, *given])))


def _window(arguments: Sequence[str]) -> list[str]:
    """:return: a flag with a smaller window where a run has fewer episodes than rl-zoo's, and none was asked for"""
    parser = argparse.ArgumentParser(add_help=False)
    for flags in (("-a", "--algo"), ("-f", "--exp-folder"), ("-w", "--episode-window")):
        parser.add_argument(*flags)
    parser.add_argument("-e", "--env", nargs="+")
    try:
        settings = parser.parse_known_args(arguments)[0]
    except SystemExit:  # rl-zoo's own parser says what is wrong
        return []
    if settings.episode_window is not None:
        return []
    folder = Path(settings.exp_folder, settings.algo)
    runs = [run for run in folder.glob("*") if any(env in run.name for env in settings.env)]
    n_episodes = [n for n in map(_count_episodes, runs) if n]
    if not n_episodes or min(n_episodes) >= WINDOW:
        return []
    window = max(1, min(n_episodes) // 5)
    print(f"The shortest run has {min(n_episodes)} episodes: they are averaged over {window} of them, -w sets how many")
    return ["-w", str(window)]


def _count_episodes(run: Path) -> int:
    """:return: the number of episodes of a run, without the two lines of heading in each of its files"""
    n_episodes = 0
    for path in run.glob("*.monitor.csv"):
        with open(path, encoding="utf-8", errors="replace") as file:
            n_episodes += max(sum(1 for line in file if line.strip()) - 2, 0)
    return n_episodes
