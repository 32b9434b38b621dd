"""Let the simulator step while the learner trains.

With ``overlap=True`` the updates that are due after one rollout are made during the first step of the next::

    Stable-Baselines3    step 1 | updates 1 | step 2 | updates 2 | ...
    overlapped           step 1 | step 2            | step 3            | ...
                                | updates 1         | updates 2         |

The updates see the same replay buffer in both cases, because the running step is not yet stored. The one difference is
that the action of the running step is chosen before the updates.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext, suppress
from functools import partial
from typing import Any, cast

import numpy as np
from stable_baselines3 import TD3
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import RolloutReturn, TrainFreq
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from sb3_visual_td3.buffers.valid_transitions import ValidTransitions


def check_can_overlap(env: VecEnv) -> None:
    """Refuse an environment that cannot step while the learner works.

    :param env: the environment, with its wrappers
    :raises ValueError: if the environment is a DummyVecEnv, or if a wrapper has its own ``step``
    """
    if type(env.unwrapped).step_async is DummyVecEnv.step_async:
        raise ValueError(
            f"overlap=True on a {type(env.unwrapped).__name__}, which steps in the learner's process: nothing would "
            "overlap. Use a SubprocVecEnv, even for a single environment. With rl-zoo's commands: --vec-env subproc. "
            "In Python: make_vec_env(..., vec_env_cls=SubprocVecEnv)"
        )
    while isinstance(env, VecEnvWrapper):
        if type(env).step is not VecEnv.step:
            raise ValueError(
                f"{type(env).__name__} has its own step(), but overlap=True calls only step_async() and step_wait(): "
                "move the work of this step() into step_wait()"
            )
        env = env.venv


class OverlappedEnv(VecEnvWrapper):
    """Run the learner's updates within ``step``, while the simulator computes its reply.

    No step is pending outside :meth:`step`, so callbacks may reset the environment and call its methods as usual.

    :param venv: the environment, with its wrappers
    :param work: function that is called while the simulator steps; it must not call the environment
    :raises ValueError: as :func:`check_can_overlap`
    """

    def __init__(self, venv: VecEnv, work: Callable[[], None]) -> None:
        check_can_overlap(venv)
        super().__init__(venv)
        self.work = work

    def step(self, actions: np.ndarray) -> VecEnvStepReturn:
        """Send the actions, call ``work``, and fetch the reply, even if ``work`` raises an error.

        :param actions: the actions, ``(n_envs, action_dim)`` float32, in the range of the environment
        :return: observations, rewards, dones and infos
        """
        self.step_async(actions)
        try:
            self.work()
        except BaseException:
            # Fetching the reply keeps the environment usable. The Ctrl-C that stopped the work may have ended the
            # simulator too. Its missing reply must not hide the KeyboardInterrupt, on which rl-zoo saves the model.
            with suppress(Exception):
                self.step_wait()
            raise
        return self.step_wait()

    def step_wait(self) -> VecEnvStepReturn:
        """Return observations, rewards, dones and infos of the running step."""
        return self.venv.step_wait()

    def reset(self) -> VecEnvObs:
        """Reset the environments and return the first observations."""
        return self.venv.reset()


class PendingTransition:
    """Take the place of the replay buffer in the rollout, and store each transition one step later.

    Otherwise the simulator would wait while the transition is stored.
    """

    def __init__(self) -> None:
        self._arguments: tuple[Any, ...] | None = None

    def add(self, *arguments: Any) -> None:
        """Keep a transition for :meth:`store_in`; the arguments are those of a replay buffer's ``add``."""
        self._arguments = arguments

    def store_in(self, replay_buffer: ReplayBuffer) -> None:
        """Store the kept transition, unless it is invalid."""
        arguments, self._arguments = self._arguments, None
        if arguments is not None:
            ValidTransitions(replay_buffer).add(*arguments)


class OverlappedLoop:
    """Run the collect-and-train loop of ``learn()``, with updates during the simulator's next step.

    The model refers to the loop. The loop does not refer to the model, because a cycle would keep both in memory.
    """

    def __init__(self) -> None:
        self.n_updates_owed = 0
        """Number of updates to make during the next step."""
        self.pending: PendingTransition | None = None
        """Holds the transition to store during the next step; None while no loop runs."""

    def run(self, model: TD3, total_timesteps: int, callback: BaseCallback, log_interval: int) -> None:
        """Collect and train until all steps are made or a callback ends the training.

        :param model: the model to train
        :param total_timesteps: environment steps at which training ends
        :param callback: the callback of ``learn()``, initialized
        :param log_interval: episodes between two logs
        """
        assert model.replay_buffer is not None
        self.pending = PendingTransition()
        try:
            self._collect_and_train(model, total_timesteps, callback, log_interval)
        except BaseException:
            # The environment may be one step ahead of the replay buffer. Without a reset, the next learn() would store
            # a transition that never took place.
            model._last_obs = None
            raise
        finally:
            pending, self.pending = self.pending, None
            pending.store_in(model.replay_buffer)

    def store_pending(self, replay_buffer: ReplayBuffer) -> None:
        """Store the transition that was held back during the last step, if there is one."""
        if self.pending is not None:
            self.pending.store_in(replay_buffer)

    def _collect_and_train(self, model: TD3, total_timesteps: int, callback: BaseCallback, log_interval: int) -> None:
        assert model.env is not None
        assert model.replay_buffer is not None
        train = partial(self._train, model)
        env = OverlappedEnv(model.env, work=train)
        while model.num_timesteps < total_timesteps:
            if env.venv is not model.env:  # a callback has called set_env()
                env = OverlappedEnv(model.env, work=train)
            rollout = model.collect_rollouts(
                env,
                train_freq=cast(TrainFreq, model.train_freq),  # _setup_model has converted it
                action_noise=model.action_noise,
                callback=callback,
                learning_starts=model.learning_starts,
                replay_buffer=model.replay_buffer,
                log_interval=log_interval,
            )
            if not rollout.continue_training:
                break
            self.n_updates_owed = _updates_due(model, rollout)
        # The updates after the last step have nothing to overlap with.
        train()

    def _train(self, model: TD3) -> None:
        """Store the last transition and make the updates that are due."""
        assert model.replay_buffer is not None
        self.store_pending(model.replay_buffer)
        gradient_steps, self.n_updates_owed = self.n_updates_owed, 0
        if gradient_steps == 0:
            return
        model.train(gradient_steps=gradient_steps, batch_size=model.batch_size)
        # The updates have evicted the actor from the CPU's caches. This forward pass, whose result is dropped, reloads
        # it while the simulator is busy. Without it, the simulator would have to wait longer for its next action.
        if model._last_obs is not None:
            with getattr(model.policy, "without_average", nullcontext)():  # explore without averaging
                model.predict(model._last_obs, deterministic=True)


def _updates_due(model: TD3, rollout: RolloutReturn) -> int:
    """Return the number of updates that Stable-Baselines3 makes after a rollout."""
    if model.num_timesteps <= model.learning_starts:
        return 0
    # A negative number stands for as many updates as there were steps.
    return model.gradient_steps if model.gradient_steps >= 0 else rollout.episode_timesteps
