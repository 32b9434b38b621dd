"""Implement ``visual-td3 doctor``: examine environment, settings and learner of a training run before it starts.

The command takes all flags of ``visual-td3 train``.
"""

from __future__ import annotations

import argparse
import io
import json
import shlex
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress
from functools import partial
from pathlib import Path
from typing import Any

from rl_zoo3 import train as zoo_train
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from sb3_visual_td3.common.errors import ExitCode, UsageError
from sb3_visual_td3.preflight.doctor import doctor, print_examination, write_page
from sb3_visual_td3.preflight.findings import Examination
from sb3_visual_td3.runs.durable_files import write_atomically
from sb3_visual_td3.zoo.flags import command_line, replaced
from sb3_visual_td3.zoo.mistakes import answer
from sb3_visual_td3.zoo.plugin import VisualExperimentManager, register
from sb3_visual_td3.zoo.train import DEFAULTS


class ExaminedExperiment(VisualExperimentManager):
    """Set an experiment up, and examine it instead of training; no file is written.

    :param settings: the doctor's own arguments
    :param examinations: list to which the result is appended
    """

    def __init__(
        self, *args: Any, settings: argparse.Namespace, examinations: list[Examination], **kwargs: Any
    ) -> None:
        self._settings = settings
        self._examinations = examinations
        super().__init__(*args, **kwargs)
        if self.optimize_hyperparameters:
            raise UsageError("-optimize: the doctor examines one set of hyperparameters; leave the flag out")

    def create_log_folder(self) -> None:
        """Create no folder, because the doctor starts no run."""

    def create_callbacks(self) -> None:
        """Create no callbacks, because the doctor does not train."""

    def _save_config(self, saved_hyperparams: dict[str, Any]) -> None:
        """Save no configuration, because the doctor starts no run."""

    def create_envs(self, n_envs: int, eval_env: bool = False, no_log: bool = False) -> VecEnv:  # noqa: ARG002
        """Create the environments as for a training run, without monitor files."""
        return super().create_envs(n_envs, eval_env, no_log=True)

    def learn(self, model: BaseAlgorithm) -> None:
        """Examine the model instead of training it.

        :param model: the model that would be trained
        """
        try:
            examination = doctor(
                model,
                n_timesteps=int(self.n_timesteps),
                n_steps=self._settings.roll_out_steps,
                probes=self._settings.probes,
                progress_bar=sys.stderr.isatty(),
                name=f"{self.algo} on {self.env_name.gym_id}",
            )
        finally:
            assert model.env is not None
            with suppress(EOFError, ConnectionError):  # an exception of the environment ends its worker process
                model.env.close()
        self._examinations.append(examination)

    def save_trained_model(self, model: BaseAlgorithm) -> None:
        """Save no model, because the doctor does not train."""


def run(settings: argparse.Namespace, flags: Sequence[str]) -> int:
    """Examine the training run that ``visual-td3 train`` would start with these flags.

    :param settings: the doctor's own arguments
    :param flags: flags of ``visual-td3 train``
    :return: 0 for no problem, 1 for a problem, 2 for bad usage, 4 for an internal error
    """
    examinations: list[Examination] = []
    try:
        _examine(settings, flags, examinations)
        if not examinations:
            raise UsageError(
                f"the doctor has nothing to examine, because 'visual-td3 train {shlex.join(flags)}' does not train: "
                "give flags that start a training run (see 'visual-td3 train --help')"
            )
        (examination,) = examinations
        print_examination(examination)
        _write(settings, examination)
    except Exception as error:
        return answer("doctor", error)
    return ExitCode.NO_GO if examination.has_problem else ExitCode.GO


def _examine(settings: argparse.Namespace, flags: Sequence[str], examinations: list[Examination]) -> None:
    register()
    manager = partial(ExaminedExperiment, settings=settings, examinations=examinations)
    arguments = [*DEFAULTS, *flags]
    try:
        with (
            # rl-zoo would print the seed and all hyperparameters before the doctor's output.
            redirect_stdout(io.StringIO()),
            # --track would start a run of Weights & Biases, but the doctor starts no run.
            command_line("doctor", arguments, makes_environments=True, trains=True, overrides={"track": False}),
            replaced(zoo_train, "ExperimentManager", manager),
        ):
            zoo_train.train()
    except MemoryError as error:
        # The replay buffer is allocated when the model is made, before anything else can be examined.
        examination = Examination(subject="the model could not be created")
        examination.found("buffer_memory", " ".join(str(error).split()) or "the memory could not be allocated")
        examinations.append(examination)


def _write(settings: argparse.Namespace, examination: Examination) -> None:
    if settings.json is not None:
        text = json.dumps(examination.as_json(), indent=2, default=str)
        write_atomically(Path(settings.json), text.encode())
    if settings.html is not None:
        write_page(examination, Path(settings.html), write_atomically)
        print(f"Page: {settings.html}")
