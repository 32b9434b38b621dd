"""Evaluate a policy in any environment, on held-out seeds, and compare it with a random policy."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import (
    VecCheckNan,
    VecEnv,
    VecExtractDictObs,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
    VecVideoRecorder,
)
from stable_baselines3.common.vec_env.stacked_observations import StackedObservations

from sb3_visual_td3.callbacks.drives import Episode, Policy, play_episodes, random_policy
from sb3_visual_td3.callbacks.evaluation import EvaluationCallback, needs_server
from sb3_visual_td3.common import tags
from sb3_visual_td3.common.numbers import to_integer
from sb3_visual_td3.training_state.vec_layer_state import layers_of

EVALUATION_SEED = 1_000_000
"""Seed of the first evaluation episode, far from the small seeds that are usual in training."""


class PolicyEvalCallback(EvaluationCallback[Episode]):
    """Evaluate the policy in any environment, and compare it with a random policy and the untrained policy.

    It is Stable-Baselines3's :class:`~stable_baselines3.common.callbacks.EvalCallback` with these differences:

    - Every evaluation plays the same episodes, with seeds that the training environments do not use.
    - Before the first step, a random policy and the untrained policy play these episodes. Their returns are logged as
      ``eval/random_reward`` and ``eval/untrained_reward``. Only a return above both shows learning.
    - The best evaluation is logged as ``eval/best_reward``, with its step (``eval/best_step``).
    - ``eval_freq`` counts environment steps instead of calls, and there is an evaluation at the end, unless an alert
      has ended the training.
    - An episode in which the simulator failed is repeated with the same seed.
    - If ``info`` has ``is_success`` only in some episodes, the others count as failures.
    - A run makes the same updates with and without this callback.

    For driving environments, :class:`~sb3_visual_td3.DrivingEvalCallback` also measures distance and accidents.

    :param eval_env: an environment or VecEnv with the same wrappers as the training environment, or the id of an
        environment. From an id, the callback creates the environment, and adds the VecEnv wrappers of the training
        environment.
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
    :param eval_env_kwargs: arguments of the environment if ``eval_env`` is an id
    :param seed: seed of the first evaluation episode; the second episode uses ``seed + 1``, and so on. If the training
        environments use one of these seeds, the evaluation begins at the first seed above the training's seeds.
    :raises ValueError: in the constructor, if a number is out of range, or if ``eval_env_kwargs`` is given although
        ``eval_env`` is not an id; when training starts, if ``eval_env`` does not fit the training environment, or if
        ``eval_env`` needs a simulator server
    """

    # A run can be resumed with this callback even if its snapshot was taken with Stable-Baselines3's EvalCallback.
    state_class: ClassVar[type] = EvalCallback

    def __init__(
        self,
        eval_env: str | gym.Env[Any, Any] | VecEnv,
        callback_on_new_best: BaseCallback | None = None,
        callback_after_eval: BaseCallback | None = None,
        n_eval_episodes: int = 5,
        eval_freq: int = 10_000,
        log_path: str | Path | None = None,
        best_model_save_path: str | Path | None = None,
        deterministic: bool = True,
        render: bool = False,
        verbose: int = 1,
        warn: bool = True,
        *,
        eval_env_kwargs: Mapping[str, Any] | None = None,
        seed: int = EVALUATION_SEED,
    ) -> None:
        n_eval_episodes = to_integer("n_eval_episodes", n_eval_episodes, 1)
        eval_freq = to_integer("eval_freq", eval_freq, 1)
        seed = to_integer("seed", seed, 0)
        self._is_made_here = isinstance(eval_env, str)
        if isinstance(eval_env, str):
            kwargs = dict(eval_env_kwargs or {})
            eval_env = make_vec_env(eval_env, 1, seed, env_kwargs=kwargs)
        elif eval_env_kwargs is not None:
            raise ValueError(
                "eval_env_kwargs was given, but eval_env is not the id of an environment: give an id, or leave "
                "eval_env_kwargs out"
            )
        super().__init__(
            eval_env,
            callback_on_new_best,
            callback_after_eval,
            n_eval_episodes,
            eval_freq,
            log_path,
            best_model_save_path,
            deterministic,
            render,
            verbose,
            warn,
            seed,
        )
        self.random_reward: float | None = None
        """Mean return of the random policy; None before training."""
        self.untrained_reward: float | None = None
        """Mean return of the policy before its first update; None before training, or if the policy had been trained
        before."""
        self.best_step: int | None = None
        """Environment steps at which the best evaluation was made; None before the first one."""
        self._is_wrapped = False

    def _init_callback(self) -> None:
        if self._is_made_here and not self._is_wrapped:
            self.eval_env = wrapped_alike(self.eval_env, self.training_env)
            self._is_wrapped = True
        with warnings.catch_warnings():
            # The types may differ. The spaces and VecNormalize are checked when training starts.
            warnings.filterwarnings("ignore", message="Training and eval env are not of the same type")
            super()._init_callback()
        self._warn_without_monitor()

    def _on_training_start(self) -> None:
        if self.eval_env.unwrapped is self.training_env.unwrapped:
            raise ValueError(
                "the evaluation environment is the training environment, so an evaluation would interrupt the training "
                "episodes: give a separate environment, or the id of an environment"
            )
        if needs_server(self.eval_env):
            raise ValueError(
                "the evaluation environment needs a simulator server, which only one environment can use at a time. "
                "Use DrivingEvalCallback, which shares the server of the training"
            )
        super()._on_training_start()

    def _on_rollout_start(self) -> None:
        # This is not done in _on_training_start(): a snapshot restores the random policy's result after that method,
        # but before this one.
        if self.random_reward is not None:
            return
        episodes = self._play_aside(random_policy(self.eval_env, self.seed), "random policy")
        self.random_reward = float(np.mean([episode.reward for episode in episodes]))
        baselines = {tags.EVAL_RANDOM_REWARD: self.random_reward}
        told = f"Random policy on the evaluation episodes: episode_reward={self.random_reward:.2f}"
        if self.model.num_timesteps == 0 and self.model._n_updates == 0:
            episodes = self._play_aside(self._policy(), "untrained policy")
            self.untrained_reward = float(np.mean([episode.reward for episode in episodes]))
            baselines[tags.EVAL_UNTRAINED_REWARD] = self.untrained_reward
            told += f"; untrained policy: {self.untrained_reward:.2f}"
        self._writer.write(baselines, self.model.num_timesteps)
        if self.verbose >= 1:
            print(told)

    def _play(self, policy: Policy, description: str) -> list[Episode]:
        return play_episodes(
            policy,
            self.eval_env,
            self._first_seed(),
            self.n_eval_episodes,
            description,
            quiet=not self.verbose,
            render=self.render,
        )

    def _first_seed(self) -> int:
        """Return the seed of the first evaluation episode; evaluation and training have no seed in common."""
        first = self.model.seed
        if first is None:
            return self.seed
        # Stable-Baselines3 seeds environment i of the training with the model's seed + i.
        end = first + self.training_env.num_envs
        if first < self.seed + self.n_eval_episodes and self.seed < end:
            return end
        return self.seed

    def evaluate(self) -> float:
        """Evaluate the current policy, log the result, and save the model if it is the best so far.

        :return: mean return over the episodes
        """
        self._evaluate()
        return self.last_mean_reward

    def _rate(self, episodes: Sequence[Episode]) -> bool:
        self.last_mean_reward = float(np.mean([episode.reward for episode in episodes]))
        is_best = self.last_mean_reward > self.best_mean_reward
        if is_best:
            self.best_mean_reward, self.best_step = self.last_mean_reward, self.num_timesteps
        return is_best

    def _log(self, episodes: Sequence[Episode]) -> None:
        if self.verbose >= 1:
            text = f"Eval num_timesteps={self.num_timesteps}, episode_reward={self.last_mean_reward:.2f} "
            text += f"+/- {np.std([episode.reward for episode in episodes]):.2f}"
            if self.random_reward is not None:
                text += f" (random {self.random_reward:.2f}, best {self.best_mean_reward:.2f} at step {self.best_step})"
            print(text)
        # These are the names that Stable-Baselines3's callback logs; like that callback, this one uses the logger.
        self.logger.record(tags.EVAL_REWARD, self.last_mean_reward)
        self.logger.record("eval/mean_ep_length", float(np.mean([episode.length for episode in episodes])))
        if self._is_success_buffer:
            self.logger.record(tags.EVAL_SUCCESS_RATE, float(np.mean(self._is_success_buffer)))
        if self.random_reward is not None:
            self.logger.record(tags.EVAL_RANDOM_REWARD, self.random_reward)
        if self.untrained_reward is not None:
            self.logger.record(tags.EVAL_UNTRAINED_REWARD, self.untrained_reward)
        if self.best_step is not None:
            self.logger.record(tags.EVAL_BEST_REWARD, self.best_mean_reward)
            self.logger.record(tags.EVAL_BEST_STEP, self.best_step)
        # The values are written now, so they are logged at the step of the evaluation.
        self.logger.record("time/total_timesteps", self.num_timesteps, exclude="tensorboard")
        self.logger.dump(self.num_timesteps)

    def get_state(self) -> dict[str, Any]:
        """Return the state that this class adds to EvalCallback; EvalCallback's own attributes are saved separately."""
        return {
            "random_reward": self.random_reward,
            "untrained_reward": self.untrained_reward,
            "best_step": self.best_step,
            "last_evaluated": self._last_evaluated,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore the results of earlier evaluations; call this after training has started.

        :param state: the state returned by ``get_state``
        """
        self.random_reward = state["random_reward"]
        self.untrained_reward = state.get("untrained_reward")  # states of earlier versions have none
        self.best_step = state["best_step"]
        self._last_evaluated = state["last_evaluated"]


def _channels_order(stack: StackedObservations[Any]) -> Any:
    """Return the ``channels_order`` with which a VecFrameStack stacks observations."""
    if isinstance(stack.observation_space, gym.spaces.Dict):
        return {key: _channels_order(part) for key, part in stack.sub_stacked_observations.items()}
    return "first" if stack.channels_first else "last"


def wrapped_alike(env: VecEnv, training_env: VecEnv) -> VecEnv:
    """Wrap an evaluation environment in the same VecEnv wrappers as the training environment.

    A new VecNormalize leaves rewards as they are and does not update its statistics. Wrappers that only record or check
    are left out. Environments that are created from an id have a Monitor.

    :param env: the evaluation environment, without VecEnv wrappers
    :param training_env: the training environment
    :raises ValueError: if the training environment has a wrapper other than Stable-Baselines3's
    """
    for layer in reversed(layers_of(training_env)):
        if isinstance(layer, VecNormalize):
            env = VecNormalize(
                env,
                training=False,
                norm_obs=layer.norm_obs,
                norm_reward=False,
                clip_obs=layer.clip_obs,
                gamma=layer.gamma,
                epsilon=layer.epsilon,
                norm_obs_keys=layer.norm_obs_keys,
            )
        elif isinstance(layer, VecFrameStack):
            env = VecFrameStack(env, layer.stacked_obs.n_stack, _channels_order(layer.stacked_obs))
        elif isinstance(layer, VecTransposeImage):
            env = VecTransposeImage(env, skip=layer.skip)
        elif isinstance(layer, VecExtractDictObs):
            env = VecExtractDictObs(env, layer.key)
        elif not isinstance(layer, VecMonitor | VecCheckNan | VecVideoRecorder):
            raise ValueError(
                f"eval_env is an id, but the training environment is wrapped in {type(layer).__name__}: give an "
                "evaluation environment that is wrapped in the same way"
            )
    return env
