"""``visual-td3 train``: rl-zoo's training command."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rl_zoo3 import train as zoo_train

from sb3_visual_td3.callbacks.ending_signals import DEFAULT_SIGNALS, PUT_ASIDE, PutAside
from sb3_visual_td3.runs.snapshot_error import SnapshotError
from sb3_visual_td3.zoo.environments import environments_found
from sb3_visual_td3.zoo.mistakes import INTERRUPTED, SAVE_FAILED, complain, mistakes
from sb3_visual_td3.zoo.plugin import ALGO, SaveError, VisualExperimentManager, register
from sb3_visual_td3.zoo.script import command_line
from sb3_visual_td3.zoo.vec_envs import all_choices

DEFAULT_ENV = "LiteDriving-v0"
DEFAULTS = ("--algo", ALGO, "--env", DEFAULT_ENV)
"""What is trained unless the command line, which comes after it, says otherwise."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Train as ``python -m rl_zoo3.train`` does, by default ``visual_td3`` on ``LiteDriving-v0``.

    :param arguments: rl-zoo's flags; those of the command line by default
    :return: the exit code
    """
    return train_or_complain(sys.argv[1:] if arguments is None else arguments, "train")


def train_or_complain(arguments: Sequence[str], command: str) -> int:
    """Train; a mistake in what was asked for becomes one line on stderr.

    What goes wrong once training has started is raised as it is: it is no mistake of the command line.

    :param arguments: rl-zoo's flags
    :param command: our subcommand, for the line
    :return: the exit code: 0, or as :data:`~sb3_visual_td3.zoo.vec_envs.EXIT_CODES` says
    """
    VisualExperimentManager.has_started = False
    VisualExperimentManager.signals = DEFAULT_SIGNALS
    try:
        train(arguments)
    except PutAside:
        return PUT_ASIDE
    except SaveError as error:
        print(f"visual-td3 {command}: {' '.join(str(error).split())}", file=sys.stderr)
        return SAVE_FAILED
    except mistakes() as error:
        if VisualExperimentManager.has_started and not isinstance(error, SnapshotError):
            raise
        return complain(command, error)
    finally:
        VisualExperimentManager.signals = ()
    return INTERRUPTED if VisualExperimentManager.last_end == "interrupted" else 0


def train(arguments: Sequence[str]) -> Path | None:
    """Train.

    :param arguments: rl-zoo's flags
    :return: RUN_DIR; None where a hyperparameter search was run
    """
    register()
    n_runs = len(VisualExperimentManager.run_dirs)
    with all_choices(), environments_found(), command_line("train", [*DEFAULTS, *arguments]):
        zoo_train.train()
    new_runs = VisualExperimentManager.run_dirs[n_runs:]
    return new_runs[-1] if new_runs else None
