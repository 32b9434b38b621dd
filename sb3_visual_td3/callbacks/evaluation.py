"""Provide the base class of both evaluation callbacks: when they evaluate, and how they write their results."""

from __future__ import annotations

import os
import warnings
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any, Generic

import gymnasium as gym
import numpy as np
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import (
    VecEnv,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
    is_vecenv_wrapped,
    unwrap_vec_normalize,
)

from sb3_visual_td3.callbacks.drives import Policy, Result, trained_policy
from sb3_visual_td3.callbacks.event_writer import EventWriter
from sb3_visual_td3.callbacks.saving import BEST_MODEL, Saver, save_arrays
from sb3_visual_td3.training_state.callback_state import stoppers_in
from sb3_visual_td3.training_state.random_state import random_states_kept

SERVER_ADDRESS = "server_address"
"""Attribute of environments that drive on a simulator server."""


def needs_server(env: VecEnv) -> bool:
    """Return whether the environments drive on a simulator server, which only one environment can use at a time.

    :param env: the environments
    """
    return env.has_attr(SERVER_ADDRESS)


def lift_idle_limits(env: VecEnv) -> None:
    """Let environments play whole episodes: turn off every ``IdleLimit`` (see ``sb3_visual_td3.envs.idle_limit``).

    :param env: the environments, which will be used for an evaluation
    """
    if env.has_attr("lift_idle_limit"):
        env.env_method("lift_idle_limit")


class EvaluationCallback(EvalCallback, Generic[Result]):
    """Evaluate the policy every ``eval_freq`` environment steps and at the end, and write files atomically.

    There is no evaluation at the end if a callback, such as ExplosionAlertCallback, has ended the training.

    A subclass implements ``_play``, which plays episodes, ``_rate``, which compares their results with earlier ones,
    and ``_log``, which logs them.

    :param eval_env: the evaluation environment
    :param callback_on_new_best: called when there is a new best model
    :param callback_after_eval: called after every evaluation
    :param n_eval_episodes: episodes of each evaluation
    :param eval_freq: environment steps between evaluations
    :param log_path: folder for ``evaluations.npz``; None writes no file
    :param best_model_save_path: folder for ``best_model.zip``; None saves no model
    :param deterministic: whether the policy acts without randomness
    :param render: whether to render each step
    :param verbose: verbosity level; 0 prints nothing
    :param warn: whether to warn if the environment has no Monitor
    :param seed: seed of the episodes
    """

    def __init__(
        self,
        eval_env: gym.Env[Any, Any] | VecEnv,
        callback_on_new_best: BaseCallback | None,
        callback_after_eval: BaseCallback | None,
        n_eval_episodes: int,
        eval_freq: int,
        log_path: str | Path | None,
        best_model_save_path: str | Path | None,
        deterministic: bool,
        render: bool,
        verbose: int,
        warn: bool,
        seed: int,
    ) -> None:
        super().__init__(
            eval_env,
            callback_on_new_best,
            callback_after_eval,
            n_eval_episodes,
            eval_freq,
            None if log_path is None else str(log_path),
            None if best_model_save_path is None else str(best_model_save_path),
            deterministic,
            render,
            verbose,
            warn,
        )
        self.seed = seed
        self._saver = Saver()
        self._is_new_best = False
        self._last_evaluated = 0

    def _init_callback(self) -> None:
        # The model may have wrapped the training environment in this wrapper.
        is_transposed = is_vecenv_wrapped(self.training_env, VecTransposeImage)
        if is_transposed and not is_vecenv_wrapped(self.eval_env, VecTransposeImage):
            # It refuses images with channels first. Then the spaces differ, which is an error when training starts.
            with suppress(AssertionError):
                self.eval_env = VecTransposeImage(self.eval_env)
        super()._init_callback()

    @abstractmethod
    def evaluate(self) -> object:
        """Evaluate the current policy, log the result, and save the model if it is the best so far."""

    @abstractmethod
    def _play(self, policy: Policy, description: str) -> list[Result]:
        """Play the episodes of an evaluation.

        :param policy: function that chooses the actions
        :param description: label of the progress bar
        :return: results of the episodes
        """

    @abstractmethod
    def _rate(self, episodes: Sequence[Result]) -> bool:
        """Set ``last_mean_reward`` and the best results so far.

        :param episodes: results of an evaluation
        :return: whether this evaluation is the best so far
        """

    @abstractmethod
    def _log(self, episodes: Sequence[Result]) -> None:
        """Log and print the results of an evaluation."""

    def _policy(self) -> Policy:
        """Return the current policy as a function."""
        return trained_policy(self.model, self.deterministic)

    def _play_aside(self, policy: Policy, description: str) -> list[Result]:
        """Play the episodes of an evaluation without changing the random numbers of the training."""
        with random_states_kept():
            return self._play(policy, description)

    def _evaluate(self) -> list[Result]:
        """Evaluate the current policy, log the result, and save the model if it is the best so far."""
        self._last_evaluated = self.num_timesteps
        self._sync_normalization()
        episodes = self._play_aside(self._policy(), "policy")
        self._keep_record(episodes)
        self._is_new_best = self._rate(episodes)
        self._log(episodes)
        if self._is_new_best and self.best_model_save_path is not None:
            self._saver.save(os.path.join(self.best_model_save_path, BEST_MODEL), self.model.save)
        return episodes

    def _on_training_start(self) -> None:
        super()._on_training_start()
        if self.eval_env.unwrapped is not self.training_env.unwrapped:
            lift_idle_limits(self.eval_env)
        self._writer = EventWriter.of(self)
        # A second call of learn() continues the step count of the first.
        self._last_evaluated = self.num_timesteps
        self._require_same_spaces()
        # The check is made here as well as before each evaluation, so that an error comes before training and not hours
        # later.
        self._sync_normalization()

    def _require_same_spaces(self) -> None:
        for name in ("observation_space", "action_space"):
            here, there = getattr(self.eval_env, name), getattr(self.training_env, name)
            if _size_of(here) != _size_of(there):
                raise ValueError(
                    f"the evaluation environment has the {name} {here}, but the training environment has {there}: give "
                    "an environment with the same wrappers and arguments"
                )

    def _sync_normalization(self) -> None:
        """Copy VecNormalize's statistics, so that evaluations normalise observations as the training does."""
        trained = self.model.get_vec_normalize_env()
        if trained is None:
            return
        own = unwrap_vec_normalize(self.eval_env)
        if own is not None and own.norm_obs:
            is_alike = trained.norm_obs and _shapes_in(own) == _shapes_in(trained)
        else:
            is_alike = not trained.norm_obs
        if not is_alike:
            raise ValueError(
                "the training environment is wrapped in VecNormalize, but the evaluation environment's wrappers differ"
                ": wrap it in VecNormalize too, in the same place, or give the id of an environment"
            )
        if own is not None:
            if trained.norm_obs:
                own.obs_rms = deepcopy(trained.obs_rms)
            own.ret_rms = deepcopy(trained.ret_rms)

    def _on_step(self) -> bool:
        # Environment steps are counted instead of calls, because with several environments there are fewer calls than
        # steps.
        if self.num_timesteps - self._last_evaluated < self.eval_freq:
            return True
        return self._evaluate_and_call_callbacks()

    def _on_training_end(self) -> None:
        # The final policy is evaluated too, unless the last step was evaluated already.
        if self._last_evaluated == self.num_timesteps:
            return
        # A callback that ended the training has found a problem, such as NaN weights. The actions of this policy could
        # raise an error in the environment.
        if not stoppers_in(self.locals.get("callback", self)):
            self._evaluate_and_call_callbacks()

    def _evaluate_and_call_callbacks(self) -> bool:
        """Evaluate, trigger the user's callbacks, and return whether training continues."""
        self.evaluate()
        continues = True
        if self._is_new_best and self.callback_on_new_best is not None:
            continues = self.callback_on_new_best.on_step()
        # _on_event() calls callback_after_eval. It comes first, because it must run even if continues is False.
        return self._on_event() and continues

    def _keep_record(self, episodes: Sequence[Result]) -> None:
        """Add an evaluation to ``evaluations.npz``, in the format of the files that SB3's EvalCallback writes."""
        rates = [episode.success_rate for episode in episodes]
        # Some environments set ``is_success`` only at the goal. So once an episode had the key, each episode without it
        # counts as a failure.
        if self._is_success_buffer or not np.isnan(rates).all():
            self._is_success_buffer = [rate > 0 for rate in rates]  # NaN > 0 is False
        if self.log_path is None:
            return
        self.evaluations_timesteps.append(self.num_timesteps)
        self.evaluations_results.append([episode.reward for episode in episodes])
        self.evaluations_length.append([int(episode.length) for episode in episodes])
        record: dict[str, Any] = {
            "timesteps": self.evaluations_timesteps,
            "results": self.evaluations_results,
            "ep_lengths": self.evaluations_length,
        }
        if self._is_success_buffer:
            # Evaluations before the first episode with ``is_success`` have no row of successes yet. In snapshots of
            # version 0.3.0, rows may be too short.
            n_missing = len(self.evaluations_length) - 1 - len(self.evaluations_successes)
            rows: list[list[bool]] = [[]] * n_missing + self.evaluations_successes + [self._is_success_buffer]
            self.evaluations_successes = [
                row + [False] * (len(lengths) - len(row))
                for row, lengths in zip(rows, self.evaluations_length, strict=True)
            ]
            record["successes"] = self.evaluations_successes
        self._saver.save(f"{self.log_path}.npz", lambda temporary: save_arrays(temporary, record))

    def _warn_without_monitor(self) -> None:
        """Warn if the evaluation environment has no Monitor: without one, wrappers may change the recorded rewards."""
        if not self.warn or is_vecenv_wrapped(self.eval_env, VecMonitor) or self.eval_env.env_is_wrapped(Monitor)[0]:
            return
        warnings.warn(
            "the evaluation environment is not wrapped in a Monitor, so its wrappers may change the rewards and "
            "lengths. Wrap it in Stable-Baselines3's Monitor",
            stacklevel=3,
        )


def _shapes_in(normalizer: VecNormalize) -> Any:
    """Return the shapes of the statistics with which VecNormalize normalises observations, by key if there are keys."""
    statistics: Any = normalizer.obs_rms  # annotated too narrowly in Stable-Baselines3 2.9
    if isinstance(statistics, dict):
        return {key: part.mean.shape for key, part in statistics.items()}
    return statistics.mean.shape


def _size_of(space: gym.Space[Any]) -> Any:
    """Return what two spaces must have in common so that one policy fits both: their shapes and numbers of choices."""
    if isinstance(space, gym.spaces.Dict):
        return {name: _size_of(part) for name, part in space.spaces.items()}
    choices = getattr(space, "n", getattr(space, "nvec", None))  # Discrete and MultiBinary have n
    return space.shape, None if choices is None else np.asarray(choices).tolist()
