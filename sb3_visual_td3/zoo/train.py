"""Run rl-zoo's training for ``visual-td3 train`` and for the short run of ``visual-td3 validate``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch as th
from rl_zoo3 import train as zoo_train

from sb3_visual_td3.callbacks.ending_signals import DEFAULT_SIGNALS, TrainingInterrupted
from sb3_visual_td3.common.errors import CODE_FAULTS, ExitCode, report_bug
from sb3_visual_td3.runs.snapshot import SnapshotError
from sb3_visual_td3.zoo.flags import (
    ALGO,
    DEFAULT_ENV,
    PACKAGES_FLAG,
    VALIDATION_TIMESTEPS,
    command_line,
    replaced,
)
from sb3_visual_td3.zoo.mistakes import SearchStoppedError, answer, complain, save_failed
from sb3_visual_td3.zoo.plugin import RunOptions, RunResult, SaveError, VisualExperimentManager, register

DEFAULTS = ("--algo", ALGO, "--env", DEFAULT_ENV)
"""Default flags. They stand before the user's flags, which override them."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Train as ``python -m rl_zoo3.train`` does, by default ``visual_td3`` on ``LiteDriving-v0``.

    :param arguments: rl-zoo's flags; None for ``sys.argv[1:]``
    :return: the exit code
    """
    return train_and_report_errors(sys.argv[1:] if arguments is None else arguments, "train")[0]


def train_and_report_errors(
    arguments: Sequence[str], command: str, options: RunOptions | None = None
) -> tuple[int, RunResult]:
    """Train, and print errors on stderr: a mistake of the user in one line, a bug with its traceback.

    Before training has started, every error is printed. After that, four kinds of errors are printed: a failed save of
    the model, a failed snapshot, a search without a result, and an error that only a bug causes, such as an
    AttributeError. All others are raised.

    :param arguments: rl-zoo's flags
    :param command: our subcommand, for the printed line
    :param options: options; by default, ``DEFAULT_SIGNALS`` end training with a snapshot
    :return: the exit code, see :data:`~sb3_visual_td3.zoo.flags.EXIT_CODES`, and the result of the run
    """
    result = RunResult()
    try:
        train(arguments, options or RunOptions(signals=DEFAULT_SIGNALS), result)
    except TrainingInterrupted:
        return ExitCode.RESUMABLE, result
    except SaveError as error:
        return save_failed(command, error), result
    except SearchStoppedError as error:
        complain(command, error)
        return ExitCode.CRASHED, result
    except Exception as error:
        # A failed snapshot counts as an error before the start: the first snapshot is saved when the training starts,
        # and the user may have to correct the cause of the failure.
        has_started = result.has_started and not isinstance(error, SnapshotError)
        if has_started and isinstance(error, CODE_FAULTS):
            return report_bug(command, error), result
        if has_started:
            raise
        return answer(command, error), result
    return (ExitCode.INTERRUPTED if result.end == "interrupted" else ExitCode.GO), result


def train(arguments: Sequence[str], options: RunOptions | None = None, result: RunResult | None = None) -> RunResult:
    """Run rl-zoo's training.

    :param arguments: rl-zoo's flags
    :param options: options in addition to the flags
    :param result: object whose fields are set while the training runs, so that they survive an exception
    """
    register()
    if result is None:
        result = RunResult()
    # rl-zoo parses ``sys.argv`` and creates the manager itself, so options and result can be passed only in this way.
    manager = partial(VisualExperimentManager, options=options, result=result)
    with (
        command_line("train", [*DEFAULTS, *arguments], makes_environments=True, trains=True),
        replaced(zoo_train, "ExperimentManager", manager),
    ):
        zoo_train.train()
    return result


def run_validation(settings: argparse.Namespace) -> Path | int:
    """Train for a short while with a fixed seed.

    :param settings: the parsed arguments of ``visual-td3 validate``
    :return: RUN_DIR, or the exit code if the training failed
    """
    arguments = ["--algo", settings.algo, "--env", settings.env, "--seed", str(settings.seed)]
    arguments += ["--log-folder", settings.log_folder, "--verbose", str(settings.verbose)]
    n_timesteps = settings.n_timesteps
    if settings.conf_file is not None:
        arguments += ["--conf-file", settings.conf_file]
    elif n_timesteps is None:
        n_timesteps = VALIDATION_TIMESTEPS
    if n_timesteps is not None:
        arguments += ["--n-timesteps", str(n_timesteps)]
    if settings.eval_freq is not None:
        arguments += ["--eval-freq", str(settings.eval_freq)]
    for flag, values in (
        (PACKAGES_FLAG, settings.gym_packages),
        ("--env-kwargs", settings.env_kwargs),
        ("--eval-env-kwargs", settings.eval_env_kwargs),
        ("--hyperparams", settings.hyperparams),
    ):
        if values:
            arguments += [flag, *values]
    print(f"Training on {th.get_num_threads()} threads: python train.py {' '.join(arguments)}", flush=True)
    options = RunOptions(signals=DEFAULT_SIGNALS, is_validation=True)
    code, result = train_and_report_errors(arguments, "validate", options)
    if code:
        return code
    assert result.run_dir is not None
    return result.run_dir
