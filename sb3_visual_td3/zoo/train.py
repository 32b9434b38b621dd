"""``visual-td3 train``: rl-zoo's training command; and the short run of ``visual-td3 validate``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch as th
from rl_zoo3 import train as zoo_train

from sb3_visual_td3.callbacks.ending_signals import DEFAULT_SIGNALS, EXIT_RESUMABLE, TrainingInterrupted
from sb3_visual_td3.common.errors import CODE_FAULTS, report_bug
from sb3_visual_td3.runs.snapshot_error import SnapshotError
from sb3_visual_td3.zoo.environments import FLAG, add_packages_argument
from sb3_visual_td3.zoo.flags import all_choices, command_line, environments_found, replaced
from sb3_visual_td3.zoo.mistakes import INTERRUPTED, answer, save_failed
from sb3_visual_td3.zoo.plugin import ALGO, RunOptions, RunResult, SaveError, VisualExperimentManager, register

DEFAULT_ENV = "LiteDriving-v0"
DEFAULTS = ("--algo", ALGO, "--env", DEFAULT_ENV)
"""What is trained unless the command line, which comes after it, says otherwise."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Train as ``python -m rl_zoo3.train`` does, by default ``visual_td3`` on ``LiteDriving-v0``.

    :param arguments: rl-zoo's flags; those of the command line by default
    :return: the exit code
    """
    return train_or_complain(sys.argv[1:] if arguments is None else arguments, "train")[0]


def train_or_complain(
    arguments: Sequence[str], command: str, options: RunOptions | None = None
) -> tuple[int, RunResult]:
    """Train; a mistake in what was asked for becomes one line on stderr.

    What goes wrong once training has started is not a mistake of the command line. An exception that only wrong code
    raises, such as an AttributeError, is printed with its traceback; any other is raised as it is.

    :param arguments: rl-zoo's flags
    :param command: our subcommand, for the line
    :param options: what is asked beside the flags; by default, that signals end the training in order
    :return: the exit code: 0, or as :data:`~sb3_visual_td3.zoo.hyperparameters.EXIT_CODES` says; and what became of
        the run
    """
    result = RunResult()
    try:
        train(arguments, options or RunOptions(signals=DEFAULT_SIGNALS), result)
    except TrainingInterrupted:
        return EXIT_RESUMABLE, result
    except SaveError as error:
        return save_failed(command, error), result
    except Exception as error:
        has_started = result.has_started and not isinstance(error, SnapshotError)
        if has_started and isinstance(error, CODE_FAULTS):
            return report_bug(command, error), result
        if has_started:
            raise
        return answer(command, error), result
    return (INTERRUPTED if result.end == "interrupted" else 0), result


def train(arguments: Sequence[str], options: RunOptions | None = None, result: RunResult | None = None) -> RunResult:
    """Train.

    :param arguments: rl-zoo's flags
    :param options: what is asked beside the flags
    :param result: is filled in while the training runs, for a caller that looks at it after an exception
    :return: what became of the run
    """
    register()
    result = RunResult() if result is None else result
    manager = partial(VisualExperimentManager, options=options, result=result)
    with (
        all_choices(),
        environments_found(),
        command_line("train", [*DEFAULTS, *arguments]),
        replaced(zoo_train, "ExperimentManager", manager),
    ):
        zoo_train.train()
    return result


def add_validation_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``visual-td3 validate``."""
    parser.add_argument("--env", default="LiteDriving-v0", help="environment to train on (default: %(default)s)")
    parser.add_argument(
        "-n", "--n-timesteps", type=_count, help="environment steps (default: the hyperparameter file's, 5,000)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the run (default: %(default)s)")
    parser.add_argument("-f", "--log-folder", default="logs", help="where runs are kept (default: %(default)s)")
    parser.add_argument("-conf", "--conf-file", help="hyperparameter file of your own, in rl-zoo's format")
    add_packages_argument(parser)
    parser.add_argument("--verbose", type=int, default=0, help="1 shows Stable-Baselines3's tables (default: 0)")


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number of steps >= 1, got {text!r}")
    return int(text)


def run_validation(settings: argparse.Namespace) -> Path | int:
    """Train for a short while, with the default hyperparameters and a fixed seed.

    :param settings: the parsed arguments
    :return: RUN_DIR; the exit code where the training did not come to its end, which was said on stderr
    """
    arguments = ["--algo", ALGO, "--env", settings.env, "--seed", str(settings.seed)]
    arguments += ["--log-folder", settings.log_folder, "--verbose", str(settings.verbose)]
    if settings.n_timesteps is not None:
        arguments += ["--n-timesteps", str(settings.n_timesteps)]
    if settings.conf_file is not None:
        arguments += ["--conf-file", settings.conf_file]
    if settings.gym_packages:
        arguments += [FLAG, *settings.gym_packages]
    print(f"Training on {th.get_num_threads()} threads: python train.py {' '.join(arguments)}", flush=True)
    code, result = train_or_complain(arguments, "validate")
    if code:
        return code
    assert result.run_dir is not None
    return result.run_dir
