"""Overlap: the simulator steps while the learner trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar, cast

import numpy as np
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import MaybeCallback, RolloutReturn, TrainFreq
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from sb3_visual_td3.buffers.valid_transitions import ValidTransitions, end_segments
from sb3_visual_td3.visual_td3.grouped_td3 import GroupedTD3
from sb3_visual_td3.visual_td3.replay import check_fits

SelfOverlappedTD3 = TypeVar("SelfOverlappedTD3", bound="OverlappedTD3")


def check_can_overlap(env: VecEnv) -> None:
    """Refuse an environment whose steps cannot be left under way.

    :param env: the environment to train on, with its wrappers
    :raises ValueError: if it steps in the learner's own process and only when its reply is asked for (DummyVecEnv), or
        if a wrapper has a ``step`` of its own, which sending the action and fetching the reply apart would pass by
    """
    if type(env.unwrapped).step_async is DummyVecEnv.step_async:
        raise ValueError(
            f"overlap=True on a {type(env.unwrapped).__name__}, which does not step before its reply is asked for: "
            "nothing would overlap. Use a SubprocVecEnv, also for one environment: --vec-env subproc with rl-zoo's "
            "commands, make_vec_env(..., vec_env_cls=SubprocVecEnv) in Python"
        )
    while isinstance(env, VecEnvWrapper):
        if type(env).step is not VecEnv.step:
            raise ValueError(
                f"overlap=True sends actions with step_async() and fetches replies with step_wait(), but "
                f"{type(env).__name__} has a step() of its own: put what it does into step_wait()"
            )
        env = env.venv


class OverlappedEnv(VecEnvWrapper):
    """An environment whose ``step`` lets the learner work until the reply is asked for.

    A reply is under way within :meth:`step` alone: whoever runs around it, such as Stable-Baselines3's loop and all
    its callbacks, may reset the environment and call its methods as ever. One thread does it all, so nothing that
    the work reads can change meanwhile: VecNormalize and VecFrameStack look at a reply when it is fetched.

    :param venv: the environment, with its wrappers
    :param work: what to do while a step is under way; it must not call the environment
    :raises ValueError: as :func:`check_can_overlap`
    """

    def __init__(self, venv: VecEnv, work: Callable[[], None]) -> None:
        check_can_overlap(venv)
        super().__init__(venv)
        self.work = work

    def step(self, actions: np.ndarray) -> VecEnvStepReturn:
        """Send the actions, work, and fetch the reply, also where the work fails: the environment stays usable.

        :param actions: ``(n_envs, action_dim)`` float32, unscaled
        :return: observations, rewards, dones and infos
        """
        self.step_async(actions)
        try:
            self.work()
        except BaseException:
            # The Ctrl-C that stopped the work may have ended the simulator too. That it sends no reply then must not
            # hide the KeyboardInterrupt: rl-zoo saves the model on it.
            with suppress(Exception):
                self.step_wait()
            raise
        return self.step_wait()

    def step_wait(self) -> VecEnvStepReturn:
        """:return: observations, rewards, dones and infos of the step under way"""
        return self.venv.step_wait()

    def reset(self) -> VecEnvObs:
        """:return: first observations"""
        return self.venv.reset()


class PendingTransition:
    """Stands in for a replay buffer: keeps the transition that it is given until there is time to store it."""

    def __init__(self) -> None:
        self._arguments: tuple[Any, ...] | None = None

    def add(self, *arguments: Any) -> None:
        """Take what a replay buffer's ``add`` takes."""
        self._arguments = arguments

    def store_in(self, replay_buffer: ReplayBuffer) -> None:
        """Hand the transition over, if there is one and it is valid."""
        arguments, self._arguments = self._arguments, None
        if arguments is not None:
            ValidTransitions(replay_buffer).add(*arguments)


class OverlappedTD3(GroupedTD3):
    """TD3 whose updates may be made while the next step is under way.

    With ``overlap`` the updates that Stable-Baselines3 makes between two rollouts are made during the first step of
    the second: as many, from the same replay buffer, which does not hold that step yet. The one difference is that
    this step's action was chosen before them. The updates after the last step overlap with nothing.
    """

    overlap: bool
    _pending: PendingTransition | None = None
    """While overlapped training runs: the transition that is stored once the next step is under way."""
    _n_updates_owed: int = 0
    """While overlapped training runs: the updates that are made once the next step is under way."""

    def get_state(self) -> dict[str, Any]:
        """Say what training depends on beside Stable-Baselines3's own attributes, at the start of a rollout.

        A transition that waits to be stored is stored: nothing looks into the replay buffer before it would have been.

        :return: plain data
        """
        self._record_losses()
        if self._pending is not None:
            assert self.replay_buffer is not None
            self._pending.store_in(self.replay_buffer)
        return {**super().get_state(), "n_updates_owed": self._n_updates_owed}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from where :meth:`get_state` was called; to be called when training has started.

        :param state: as returned there
        """
        super().set_state(state)
        self._n_updates_owed = state["n_updates_owed"]

    def _store_transition(
        self,
        replay_buffer: ReplayBuffer,
        buffer_action: np.ndarray,
        new_obs: np.ndarray | dict[str, np.ndarray],
        reward: np.ndarray,
        dones: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """Note the transition, if it is valid; the simulator waits for the next action, not for the replay buffer."""
        target = ValidTransitions(replay_buffer) if self._pending is None else self._pending
        super()._store_transition(target, buffer_action, new_obs, reward, dones, infos)  # type: ignore[arg-type]

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> tuple[int, BaseCallback]:
        """Do as Stable-Baselines3 does; where that begins with a reset, nothing stored before runs on into it."""
        if self.replay_buffer is not None:
            check_fits(self.replay_buffer, self)
            if (reset_num_timesteps or self._last_obs is None) and not self._is_stock:
                end_segments(self.replay_buffer)
        return super()._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)

    def collect_rollouts(self, env: VecEnv, callback: BaseCallback, *arguments: Any, **keywords: Any) -> RolloutReturn:
        """Collect steps as Stable-Baselines3 does, and store the one at which a callback stops training, too.

        Stable-Baselines3 leaves that step out: the end of an episode is lost, and the next ``learn()`` that does not
        reset stores the observation before it with the observation after the step that follows, a transition that
        never was. Under ``preset="td3"`` it is so here as well.

        :param env: the environments
        :param callback: the callback of ``learn()``
        :param arguments: as in Stable-Baselines3, whose names they keep
        :param keywords: the same
        :return: what was collected
        """
        try:
            rollout = super().collect_rollouts(env, callback, *arguments, **keywords)
        except BaseException:
            if not self._is_stock:
                self._last_obs = None  # a step may have been made and not stored: the next learn() begins with a reset
            raise
        if not rollout.continue_training and not self._is_stock:
            self._finish_step(callback.locals)
        return rollout

    def _finish_step(self, step: dict[str, Any]) -> None:
        """Do what Stable-Baselines3's loop does after the callback; without numbers to learn from, cut instead.

        :param step: the local variables of that loop, as the callback was shown them
        """
        shown = {"infos", "dones", "rewards", "new_obs", "buffer_actions", "replay_buffer"} <= step.keys()
        parts = step["new_obs"] if shown else 0.0
        numbers = [*(parts.values() if isinstance(parts, Mapping) else [parts]), step.get("rewards", 0.0)]
        if not shown or not all(np.isfinite(each).all() for each in numbers):
            self._last_obs = None
            return
        infos, dones = step["infos"], step["dones"]
        self._update_info_buffer(infos, dones)
        self._store_transition(
            step["replay_buffer"], step["buffer_actions"], step["new_obs"], step["rewards"], dones, infos
        )
        self._update_current_progress_remaining(self.num_timesteps, self._total_timesteps)
        self._on_step()
        ended = np.flatnonzero(dones).tolist()
        self._episode_num += len(ended)
        if self.action_noise is not None and ended:
            self.action_noise.reset(**({"indices": ended} if self.n_envs > 1 else {}))

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_pending", "_n_updates_owed"]

    def _check_overlap(self) -> None:
        """:raises ValueError: if there is to be overlap and the environment has no room for it"""
        if self.overlap and self.env is not None:
            check_can_overlap(self.env)

    def learn(
        self: SelfOverlappedTD3,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 4,
        tb_log_name: str = "TD3",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfOverlappedTD3:
        """Train; the parameters are those of :meth:`stable_baselines3.TD3.learn`.

        :return: the model itself
        :raises ValueError: if there is to be overlap and the environment has no room for it
        """
        if not self.overlap:
            return super().learn(
                total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar
            )
        self._check_overlap()
        self._learn_overlapped(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)
        return self

    def _learn_overlapped(
        self,
        total_timesteps: int,
        callback: MaybeCallback,
        log_interval: int,
        tb_log_name: str,
        reset_num_timesteps: bool,
        progress_bar: bool,
    ) -> None:
        """Do what Stable-Baselines3's ``learn`` does; callbacks see its names, and no others."""
        total_timesteps, callback = self._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar
        )
        self._n_updates_owed = 0
        callback.on_training_start(locals(), globals())
        assert self.replay_buffer is not None
        self._pending = PendingTransition()
        try:
            self._collect_and_train(total_timesteps, callback, log_interval)
        except BaseException:
            # The environment may be one step ahead of what was stored: the next learn() begins with a reset.
            self._last_obs = None
            raise
        finally:
            pending, self._pending = self._pending, None
            pending.store_in(self.replay_buffer)
        callback.on_training_end()

    def _collect_and_train(self, total_timesteps: int, callback: BaseCallback, log_interval: int) -> None:
        def train() -> None:
            assert self.replay_buffer is not None
            assert self._pending is not None
            self._pending.store_in(self.replay_buffer)
            gradient_steps, self._n_updates_owed = self._n_updates_owed, 0
            if gradient_steps > 0:
                self.train(gradient_steps=gradient_steps, batch_size=self.batch_size)
                self._rehearse()

        assert self.env is not None
        assert self.replay_buffer is not None
        env = OverlappedEnv(self.env, work=train)
        while self.num_timesteps < total_timesteps:
            if env.venv is not self.env:  # a callback has set another
                env = OverlappedEnv(self.env, work=train)
            rollout = self.collect_rollouts(
                env,
                train_freq=cast(TrainFreq, self.train_freq),  # _setup_model has made it one
                action_noise=self.action_noise,
                callback=callback,
                learning_starts=self.learning_starts,
                replay_buffer=self.replay_buffer,
                log_interval=log_interval,
            )
            if not rollout.continue_training:
                break
            self._n_updates_owed = self._updates_owed(rollout)
        train()

    def _rehearse(self) -> None:
        """Choose an action that nobody takes: a training leaves the cache without what the next choice needs.

        The simulator waits for that next choice, but not for this one.
        """
        if self._last_obs is not None:
            self.predict(self._last_obs, deterministic=True)

    def _updates_owed(self, rollout: RolloutReturn) -> int:
        """:return: how many updates Stable-Baselines3 makes after these steps"""
        if self.num_timesteps <= self.learning_starts:
            return 0
        return self.gradient_steps if self.gradient_steps >= 0 else rollout.episode_timesteps
