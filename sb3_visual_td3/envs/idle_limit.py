"""End the training episodes of an agent that is stuck, so that the replay buffer does not fill with useless steps.

A car that has left the track of CarRacing-v3 gets no reward for the rest of the episode, often hundreds of steps. This
happens in most episodes at the start of a training.
"""

from __future__ import annotations

import time
from typing import Any, SupportsFloat

import gymnasium as gym
from gymnasium.core import ActType, ObsType
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv

from sb3_visual_td3.common.numbers import to_integer

_LIMIT = "max_idle_steps"


class IdleLimit(gym.Wrapper[ObsType, ActType, ObsType, ActType]):
    """Truncate an episode after a number of steps in a row without a positive reward.

    The episode is truncated, not terminated, so a critic does not learn that getting stuck ends the costs. Use this
    wrapper for training only: a return over whole episodes needs ``max_idle_steps = None``. ``visual-td3`` turns the
    limit off in evaluations.

    In a hyperparameter file, the position in ``env_wrapper`` decides what a step is. After ``FrameSkip``, a step is a
    decision of the policy.

    :param env: the environment. A :class:`stable_baselines3.common.monitor.Monitor` inside it records the truncated
        episode
    :param max_idle_steps: number of steps without a positive reward after which the episode is truncated; None for no
        limit
    :raises ValueError: if ``max_idle_steps`` is not a positive integer
    """

    def __init__(self, env: gym.Env[ObsType, ActType], max_idle_steps: int | None) -> None:
        super().__init__(env)
        if max_idle_steps is not None:
            max_idle_steps = to_integer(_LIMIT, max_idle_steps, 1, "an integer >= 1 (steps), or None")
        self.max_idle_steps = max_idle_steps
        self.idle_steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[ObsType, dict[str, Any]]:
        """Begin an episode."""
        self.idle_steps = 0
        return self.env.reset(seed=seed, options=options)

    def step(self, action: ActType) -> tuple[ObsType, SupportsFloat, bool, bool, dict[str, Any]]:
        """Make a step, and truncate the episode at the limit."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.idle_steps = 0 if float(reward) > 0.0 else self.idle_steps + 1
        is_stuck = self.max_idle_steps is not None and self.idle_steps >= self.max_idle_steps
        if is_stuck and not (terminated or truncated):
            truncated = True
            self._record_episode(info)
        return observation, reward, terminated, truncated, info

    def _record_episode(self, info: dict[str, Any]) -> None:
        """Record the truncated episode in the Monitor, which is closer to the environment and sees no end.

        Otherwise the log would show only those episodes in which the agent does not get stuck.
        """
        env: gym.Env[Any, Any] = self.env
        while isinstance(env, gym.Wrapper) and not isinstance(env, Monitor):
            env = env.env
        if not isinstance(env, Monitor):
            return
        episode = {
            "r": round(sum(env.rewards), 6),
            "l": len(env.rewards),
            "t": round(time.time() - env.t_start, 6),
            **{key: info[key] for key in env.info_keywords},
            **env.current_reset_info,
        }
        env.needs_reset = True
        env.episode_returns.append(sum(env.rewards))
        env.episode_lengths.append(len(env.rewards))
        env.episode_times.append(time.time() - env.t_start)
        if env.results_writer is not None:
            env.results_writer.write_row(episode)
        info["episode"] = episode


def lift_idle_limit(env: VecEnv) -> None:
    """Turn off the :class:`IdleLimit` of environments, if they have one.

    :param env: the environments, which will be used for an evaluation
    """
    if env.has_attr(_LIMIT):
        env.env_method("set_wrapper_attr", _LIMIT, None)
