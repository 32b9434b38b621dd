"""What surrounds ``learn`` under rl-zoo: when it begins, what ended it, and ``-i``, n more steps of a saved model."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, ProgressBarCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv


class BeginningCallback(BaseCallback):
    """Stands first in rl-zoo's list, and says when training begins.

    Whatever happens, rl-zoo ends the first callback of the list, to take a progress bar from the screen. A bar that has
    not begun, since the environment could not be reset, fails at that, and what happened is not seen any more. Another
    callback must not be ended where training was left by an exception: it would take the run for a whole one.

    :param first: what would stand first
    :param on_begin: called when the environment is there and the callbacks are ready
    """

    def __init__(self, first: BaseCallback | None, on_begin: Callable[[], None]) -> None:
        super().__init__()
        self._first = first
        self._on_begin = on_begin
        self._has_begun = False

    def _on_training_start(self) -> None:
        self._has_begun = True
        self._on_begin()

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        if self._has_begun and isinstance(self._first, ProgressBarCallback):
            bar, self._first = self._first, None  # this is called again by rl-zoo after a good end
            bar.on_training_end()


_CHECKPOINT = re.compile(r"(?P<prefix>.+)_(?P<step>\d+)_steps\.zip")


class Beside(NamedTuple):
    """Where replay and VecNormalize of a model would lie; whether they do is another question."""

    replay_buffer: Path
    vecnormalize: Path


def beside(model_path: str | Path, env_name: str) -> Beside:
    """Say where they would lie.

    :param model_path: of the zip file: a run's last or best model, or a checkpoint, which has its own
    :param env_name: as in the name of the run's folder
    :return: the paths
    """
    path = Path(model_path)
    checkpoint = _CHECKPOINT.fullmatch(path.name)
    if checkpoint:
        prefix, step = checkpoint["prefix"], checkpoint["step"]
        own = Beside(
            path.parent / f"{prefix}_replay_buffer_{step}_steps.pkl",
            path.parent / f"{prefix}_vecnormalize_{step}_steps.pkl",
        )
        # An earlier version's checkpoints came without: those of the run's end are the best there is.
        return own if own.vecnormalize.exists() or own.replay_buffer.exists() else _of_run(path, env_name)
    return _of_run(path, env_name)


def _of_run(path: Path, env_name: str) -> Beside:
    return Beside(path.parent / "replay_buffer.pkl", path.parent / env_name / "vecnormalize.pkl")


class Continued:
    """A model whose ``learn`` counts on from where it was saved.

    Steps, updates and schedules go on: after 1,000 steps and with 500 more, training is at two thirds when it starts.
    What the learner has no transitions for it collects first, as at the start of a run.

    :param model: just loaded
    """

    def __init__(self, model: BaseAlgorithm) -> None:
        self._model = model

    @property
    def env(self) -> VecEnv | None:
        """The environments, which rl-zoo closes."""
        return self._model.env

    def learn(self, total_timesteps: int, **kwargs: Any) -> BaseAlgorithm:
        """Make so many steps more.

        :param total_timesteps: how many
        :param kwargs: of the model's own ``learn``
        :return: the model
        """
        model = self._model
        if isinstance(model, OffPolicyAlgorithm):
            filled = model.replay_buffer is not None and model.replay_buffer.size() > 0
            if not filled:
                model.learning_starts += model.num_timesteps
            replay = "with its replay buffer" if filled else "without a replay buffer: warm-up first"
            print(f"Going on from step {model.num_timesteps:,}, {replay}")
        model.learn(total_timesteps, reset_num_timesteps=False, **kwargs)
        return model


class Learner:
    """A model that remembers the exception that left its ``learn``: rl-zoo passes over some, and others get lost.

    :param model: to train
    """

    def __init__(self, model: BaseAlgorithm | Continued) -> None:
        self._model = model
        self.error: BaseException | None = None

    @property
    def env(self) -> VecEnv | None:
        """The environments, which rl-zoo closes."""
        return self._model.env

    def learn(self, total_timesteps: int, **kwargs: Any) -> BaseAlgorithm:
        """Train; the parameters are those of the model's own ``learn``.

        :return: the model
        """
        try:
            return self._model.learn(total_timesteps, **kwargs)
        except BaseException as error:
            self.error = error
            raise
