"""Wrap the model, the callbacks and the environments of a training run, to change what rl-zoo does with them.

The experiment manager in ``zoo.plugin`` uses these wrappers.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from rl_zoo3.callbacks import SaveVecNormalizeCallback
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, ProgressBarCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, unwrap_vec_normalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from sb3_visual_td3.callbacks.saving import Saver


class BeginningCallback(BaseCallback):
    """Call a function when training begins.

    This callback is inserted at the start of rl-zoo's list of callbacks. After ``learn``, even if it has failed, rl-zoo
    (2.9) calls ``on_training_end`` of the list's first callback to remove a progress bar. ``BeginningCallback`` passes
    the call on to ``first`` only if ``first`` is a progress bar and training has begun.

    :param first: the callback that was at the start of the list before; None if the list was empty
    :param on_begin: function that is called when the first rollout begins, after the start of all callbacks. Callbacks
        find some mistakes of the user only when they start
    """

    def __init__(self, first: BaseCallback | None, on_begin: Callable[[], None]) -> None:
        super().__init__()
        self._first = first
        self._on_begin = on_begin
        self._has_begun = False

    def _on_training_start(self) -> None:
        self._has_begun = True

    def _on_rollout_start(self) -> None:
        self._on_begin()

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        if self._has_begun and isinstance(self._first, ProgressBarCallback):
            # After a regular end of training, Stable-Baselines3 and rl-zoo both call this.
            bar, self._first = self._first, None
            bar.on_training_end()


_CHECKPOINT = re.compile(r"(?P<prefix>.+)_(?P<step>\d+)_steps\.zip")


class CompanionFiles(NamedTuple):
    """Name the files of a model's replay buffer and VecNormalize; they need not exist."""

    replay_buffer: Path
    vecnormalize: Path


def companion_files(model_path: str | Path, env_name: str) -> CompanionFiles:
    """Return the paths of a saved model's replay buffer and VecNormalize.

    :param model_path: the model's zip file, which may be a checkpoint
    :param env_name: the environment's id as folder names contain it, with ``-`` instead of ``/``
    """
    path = Path(model_path)
    of_run = CompanionFiles(path.parent / "replay_buffer.pkl", path.parent / env_name / "vecnormalize.pkl")
    checkpoint = _CHECKPOINT.fullmatch(path.name)
    if checkpoint is None:
        return of_run
    prefix, step = checkpoint["prefix"], checkpoint["step"]
    own = CompanionFiles(
        path.parent / f"{prefix}_replay_buffer_{step}_steps.pkl",
        path.parent / f"{prefix}_vecnormalize_{step}_steps.pkl",
    )
    # Earlier versions saved no such files with a checkpoint. The files from the end of the run are used instead.
    if own.vecnormalize.exists() or own.replay_buffer.exists():
        return own
    return of_run


class ContinuedModel:
    """Wrap a loaded model, so that ``learn(n)`` trains it n more steps (rl-zoo's ``-i``).

    rl-zoo (2.9) would start its step count and schedules again
    (https://github.com/DLR-RM/rl-baselines3-zoo/issues/490). Without a replay buffer the model first collects
    transitions, as at the start of a run.

    :param model: a model that has just been loaded
    """

    def __init__(self, model: BaseAlgorithm) -> None:
        self._model = model

    @property
    def env(self) -> VecEnv | None:
        """Return the environments; rl-zoo closes them."""
        return self._model.env

    @property
    def policy(self) -> BasePolicy:
        """Return the policy; rl-zoo gives it to the worker processes of ARS."""
        return self._model.policy

    def learn(self, total_timesteps: int, **kwargs: Any) -> BaseAlgorithm:
        """Continue the training of the loaded model.

        :param total_timesteps: number of further environment steps
        :param kwargs: passed to the model's own ``learn``
        """
        model = self._model
        if not isinstance(model, OffPolicyAlgorithm):
            return model.learn(total_timesteps, reset_num_timesteps=False, **kwargs)
        learning_starts = model.learning_starts
        if model.replay_buffer is not None and model.replay_buffer.size() > 0:
            replay = "with its replay buffer"
        else:
            model.learning_starts += model.num_timesteps
            replay = "without a replay buffer: warm-up first"
        print(f"Continuing from step {model.num_timesteps:,}, {replay}")
        try:
            return model.learn(total_timesteps, reset_num_timesteps=False, **kwargs)
        finally:
            # rl-zoo saves the model next, and a further run adds its own steps.
            model.learning_starts = learning_starts


class Learner:
    """Wrap a model, and store the exception that ends its ``learn``, because rl-zoo may drop or hide it.

    :param model: the model to train
    :param continues: True continues from the model's step count, False starts at step 0
    :ivar error: the exception; None if there was none
    """

    def __init__(self, model: BaseAlgorithm, continues: bool = False) -> None:
        self._model = ContinuedModel(model) if continues else model
        self.error: BaseException | None = None

    @property
    def env(self) -> VecEnv | None:
        """Return the environments; rl-zoo closes them."""
        return self._model.env

    @property
    def policy(self) -> BasePolicy:
        """Return the policy; rl-zoo gives it to the worker processes of ARS."""
        return self._model.policy

    def learn(self, total_timesteps: int, **kwargs: Any) -> BaseAlgorithm:
        """Train the model; an exception that ends the training is stored in ``error`` and raised again.

        :param total_timesteps: number of environment steps
        :param kwargs: passed to the model's own ``learn``
        """
        try:
            return self._model.learn(total_timesteps, **kwargs)
        except BaseException as error:
            self.error = error
            raise


class AtomicVecNormalizeCallback(SaveVecNormalizeCallback):  # type: ignore[misc]
    """Save VecNormalize with each new best model, as rl-zoo's callback does, but atomically."""

    # A snapshot saves the state of this callback under the name of rl-zoo's class.
    state_class: ClassVar[type] = SaveVecNormalizeCallback
    _saver: Saver | None = None

    def _on_step(self) -> bool:
        normalizer = self.model.get_vec_normalize_env()
        if self.n_calls % self.save_freq == 0 and normalizer is not None:
            if self._saver is None:
                self._saver = Saver()
            path = os.path.join(self.save_path, "vecnormalize.pkl")
            self._saver.save(path, lambda temporary: normalizer.save(str(temporary)))
        return True


class StoredObservations(VecEnvWrapper):
    """Let a stock off-policy algorithm store what its policy sees, if VecNormalize scales the rewards.

    Stable-Baselines3 (2.9) would store the observation that VecNormalize received, which is neither stacked nor
    transposed (https://github.com/DLR-RM/stable-baselines3/issues/693). VisualTD3 does not need this class.

    :param venv: the environments in all their wrappers; one wrapper is a VecNormalize with ``norm_obs=False``
    """

    def reset(self) -> VecEnvObs:
        """Reset all environments."""
        observations = self.venv.reset()
        self._keep(observations)
        return observations

    def step_wait(self) -> VecEnvStepReturn:
        """Wait for the step of all environments."""
        observations, rewards, dones, infos = self.venv.step_wait()
        self._keep(observations)
        return observations, rewards, dones, infos

    def _keep(self, observations: VecEnvObs) -> None:
        # The normalizer is not kept as an attribute, because a wrapper with an attribute of its own counts as one with
        # state. A resumed run would then report that this state is not restored.
        normalizer = unwrap_vec_normalize(self.venv)
        assert normalizer is not None
        normalizer.old_obs = observations  # type: ignore[assignment]
