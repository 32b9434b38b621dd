"""The training half of ``visual-td3 validate``: one short run with the default hyperparameters and a fixed seed."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch as th

from sb3_visual_td3.zoo.environments import FLAG, add_packages_argument
from sb3_visual_td3.zoo.plugin import ALGO
from sb3_visual_td3.zoo.train import train_or_complain


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what a validation can be told."""
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


def run(settings: argparse.Namespace) -> Path | int:
    """Train.

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
