"""End the training episodes of an agent that is stuck, so that the replay buffer does not fill with useless steps.

A car that has left the track of CarRacing-v3 gets no positive reward for the rest of the episode, often hundreds of
steps. This happens in most episodes at the start of a training.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, SupportsFloat

import gymnasium as gym
from gymnasium.core import ActType, ObsType

from sb3_visual_td3.common.numbers import to_integer


class IdleLimit(gym.Wrapper[ObsType, ActType, ObsType, ActType]):
    """Truncate an episode after a number of steps in a row without a positive reward.

    The episode is truncated, not terminated, so critics bootstrap from its last observation. The wrapper is for
    training. An evaluation must play whole episodes: ``visual-td3``, PolicyEvalCallback and DrivingEvalCallback turn
    the limit off for their evaluations. In your own evaluations, call :meth:`lift_idle_limit`.

    The limit suits tasks in which progress often gives a positive reward. If all rewards are negative, the limit cuts
    every episode. If all rewards are positive, the limit never acts.

    If ``env_wrapper`` in a hyperparameter file lists IdleLimit after ``FrameSkip``, the limit counts decisions of
    the policy instead of environment steps.

    :param env: the environment. If it contains Stable-Baselines3's ``Monitor``, this wrapper adds the truncated
        episodes to the records of ``Monitor``
    :param max_idle_steps: number of steps without a positive reward after which the episode is truncated; None for no
        limit
    :raises ValueError: if ``max_idle_steps`` is not a positive integer
    """

    def __init__(self, env: gym.Env[ObsType, ActType], max_idle_steps: int | None) -> None:
        super().__init__(env)
        if max_idle_steps is not None:
            max_idle_steps = to_integer("max_idle_steps", max_idle_steps, 1, "an integer >= 1 (steps), or None")
        self.max_idle_steps = max_idle_steps
        self.idle_steps = 0

    def lift_idle_limit(self) -> None:
        """Turn off the limit of this wrapper and of every IdleLimit inside it, for an evaluation."""
        for wrapper in _wrappers_from(self):
            if isinstance(wrapper, IdleLimit):
                wrapper.max_idle_steps = None

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
        """Record the truncated episode in each Monitor inside this wrapper; the Monitor does not see the truncation.

        Otherwise the log would show only those episodes in which the agent does not get stuck.
        """
        for wrapper in _wrappers_from(self.env):
            if not _is_monitor(wrapper):
                continue
            # These are the steps that Monitor.step takes at the end of an episode.
            monitor: Any = wrapper
            total, seconds = sum(monitor.rewards), time.time() - monitor.t_start
            episode = {"r": round(total, 6), "l": len(monitor.rewards), "t": round(seconds, 6)}
            episode |= {key: info[key] for key in monitor.info_keywords}
            episode |= monitor.current_reset_info
            monitor.needs_reset = True
            monitor.episode_returns.append(total)
            monitor.episode_lengths.append(len(monitor.rewards))
            monitor.episode_times.append(seconds)
            if monitor.results_writer is not None:
                monitor.results_writer.write_row(episode)
            info.setdefault("episode", episode)


def _wrappers_from(env: gym.Env[Any, Any]) -> Iterator[gym.Wrapper[Any, Any, Any, Any]]:
    """Yield the wrappers around an environment, from the outermost one inwards."""
    while isinstance(env, gym.Wrapper):
        yield env
        env = env.env


def _is_monitor(wrapper: gym.Wrapper[Any, Any, Any, Any]) -> bool:
    """Return whether a wrapper is Stable-Baselines3's Monitor, without an import of Stable-Baselines3."""
    name = ("stable_baselines3.common.monitor", "Monitor")
    return any((cls.__module__, cls.__name__) == name for cls in type(wrapper).__mro__)
