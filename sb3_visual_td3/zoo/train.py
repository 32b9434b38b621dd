"""``visual-td3 train``: rl-zoo's training command."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rl_zoo3 import train as zoo_train

from sb3_visual_td3.zoo.plugin import ALGO, VisualExperimentManager, register

BAD_USAGE = 2
"""Exit code of a mistake that was found before training started."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Train as ``python -m rl_zoo3.train`` does, with ``--algo visual_td3`` by default.

    :param arguments: rl-zoo's flags; those of the command line by default
    :return: the exit code
    """
    return 0 if train_or_complain(sys.argv[1:] if arguments is None else arguments, "train") else BAD_USAGE


def train_or_complain(arguments: Sequence[str], command: str) -> bool:
    """Train; a mistake in what was asked for becomes one line on stderr.

    What goes wrong once training has started is raised as it is: it is no mistake of the command line.

    :param arguments: rl-zoo's flags
    :param command: our subcommand, for the line
    :return: whether there was something to train
    """
    VisualExperimentManager.has_started = False
    try:
        train(arguments)
    except (ValueError, TypeError, AssertionError, OSError) as error:
        if VisualExperimentManager.has_started:
            raise
        print(f"visual-td3 {command}: {' '.join(str(error).split())}", file=sys.stderr)
        return False
    return True


def train(arguments: Sequence[str]) -> Path | None:
    """Train.

    :param arguments: rl-zoo's flags
    :return: RUN_DIR; None where a hyperparameter search was run
    """
    register()
    known = list(arguments)
    if "--algo" not in known and not any(argument.startswith("--algo=") for argument in known):
        known = ["--algo", ALGO, *known]
    n_runs = len(VisualExperimentManager.run_dirs)
    own_argv, sys.argv = sys.argv, ["visual-td3 train", *known]
    try:
        zoo_train.train()
    finally:
        sys.argv = own_argv
    new_runs = VisualExperimentManager.run_dirs[n_runs:]
    return new_runs[-1] if new_runs else None
