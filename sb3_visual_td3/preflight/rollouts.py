"""Record short rollouts of a vectorized environment for the checks."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnvWrapper

Observations = NDArray[Any] | dict[str, NDArray[Any]]


@dataclass
class Rollout:
    """Hold the steps of a vectorized environment in order; each entry holds one step of all environments.

    :ivar observations: the observations of ``reset()`` and of each step; at the end of an episode, the first
        observation of the next episode
    :ivar next_observations: the observations after each step; at the end of an episode, its terminal observation
    :ivar actions: the actions of each step, ``(n_envs, *action_shape)``
    :ivar rewards: ``(n_envs,)`` per step
    :ivar dones: ``(n_envs,)`` per step
    :ivar infos: one dict per environment and step
    :ivar seconds: duration of all steps in seconds
    """

    observations: list[Observations]
    next_observations: list[Observations] = field(default_factory=list)
    actions: list[NDArray[Any]] = field(default_factory=list)
    rewards: list[NDArray[np.float64]] = field(default_factory=list)
    dones: list[NDArray[np.bool_]] = field(default_factory=list)
    infos: list[list[dict[str, Any]]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def n_steps(self) -> int:
        """Return the number of vectorized steps; a step of all parallel environments counts as one."""
        return len(self.rewards)

    def all_rewards(self) -> NDArray[np.float64]:
        """Return the rewards of all steps and environments as one array."""
        return np.asarray(self.rewards, np.float64).ravel()

    def parts(self) -> dict[str, list[NDArray[Any]]]:
        """Return the observations in temporal order, by key; if the space is not a Dict, the key is ``""``."""
        if not isinstance(self.observations[0], Mapping):
            return {"": [np.asarray(each) for each in self.observations]}
        return {key: [np.asarray(each[key]) for each in self.observations] for key in self.observations[0]}

    def episodes(self) -> list[tuple[int, bool]]:
        """Return the length of each finished episode, and whether it was truncated."""
        lengths: list[tuple[int, bool]] = []
        n_envs = len(self.dones[0]) if self.dones else 0
        for env in range(n_envs):
            begin = 0
            for step, dones in enumerate(self.dones):
                if dones[env]:
                    is_truncated = bool(self.infos[step][env].get("TimeLimit.truncated", False))
                    lengths.append((step + 1 - begin, is_truncated))
                    begin = step + 1
        return lengths

    def is_same_as(self, other: Rollout) -> bool:
        """Return whether both rollouts have the same observations and the same rewards."""
        if self.n_steps != other.n_steps:
            return False
        rewards_are_same = np.array_equal(self.all_rewards(), other.all_rewards(), equal_nan=True)
        return rewards_are_same and self.first_difference(other) is None

    def first_difference(self, other: Rollout) -> int | None:
        """Return the first step at which two rollouts have different observations; None if there is no such step.

        Step 0 is the observation after the reset.
        """
        mine, others = self.parts(), other.parts()
        for step in range(min(len(self.observations), len(other.observations))):
            for key, values in mine.items():
                if not np.array_equal(values[step], others[key][step], equal_nan=_has_nan(values[step])):
                    return step
        return None


def _has_nan(values: NDArray[Any]) -> bool:
    # equal_nan is refused for arrays of integers in some releases of NumPy.
    return bool(np.issubdtype(values.dtype, np.floating))


def copied(observations: Any) -> Observations:
    """Return a copy of observations, because environments may write the next observation into the same array."""
    if isinstance(observations, Mapping):
        return {key: np.array(value) for key, value in observations.items()}
    return np.array(observations)


def _wrappers_of(env: VecEnv) -> Iterator[VecEnv]:
    yield env
    while isinstance(env, VecEnvWrapper):
        env = env.venv
        yield env


def _monitors_of(env: VecEnv) -> Iterator[Monitor]:
    """Yield the Monitors of the environments in this process."""
    for each in _wrappers_of(env):
        if isinstance(each, DummyVecEnv):
            for inner in each.envs:
                wrapped: Any = inner
                while isinstance(wrapped, gym.Wrapper):
                    if isinstance(wrapped, Monitor):
                        yield wrapped
                    wrapped = wrapped.env


@contextmanager
def unobserved(env: VecEnv) -> Iterator[None]:
    """Keep steps from having side effects: VecNormalize does not update its statistics, Monitor writes no episode.

    A Monitor also accepts resets in the middle of an episode, which its user may have forbidden.

    Monitors in other processes still write episodes.

    :param env: the vectorized environments
    """
    normalizers = [each for each in _wrappers_of(env) if isinstance(each, VecNormalize)]
    monitors = list(_monitors_of(env))
    names = ("training", "norm_obs", "norm_reward")
    kept = [{name: getattr(each, name) for name in names} for each in normalizers]
    written = [copy.copy(monitor.__dict__) for monitor in monitors]
    for normalizer in normalizers:
        for name in names:
            setattr(normalizer, name, False)
    for monitor in monitors:
        monitor.results_writer = None
        monitor.allow_early_resets = True
        for name in ("episode_returns", "episode_lengths", "episode_times"):
            setattr(monitor, name, list(getattr(monitor, name)))
    try:
        yield
    finally:
        for normalizer, values in zip(normalizers, kept, strict=True):
            for name, value in values.items():
                setattr(normalizer, name, value)
        for monitor, values in zip(monitors, written, strict=True):
            monitor.__dict__.update(values)


def gym_env_of(env: VecEnv) -> gym.Env[Any, Any] | None:
    """Return the first Gymnasium environment inside a VecEnv; None if it runs in another process."""
    *_, innermost = _wrappers_of(env)
    if isinstance(innermost, DummyVecEnv):
        return innermost.envs[0]
    return None


def random_actions(env: VecEnv, n_steps: int, seed: int) -> list[NDArray[Any]]:
    """Draw actions from a copy of the action space, so that the random state of the original does not change.

    :return: one array ``(n_envs, *action_shape)`` for each step
    """
    space = type(env.action_space)(**_arguments_of(env.action_space))
    space.seed(seed)
    return [np.array([space.sample() for _ in range(env.num_envs)]) for _ in range(n_steps)]


def _arguments_of(space: gym.spaces.Space[Any]) -> dict[str, Any]:
    if not isinstance(space, gym.spaces.Box):
        raise ValueError(
            f"the action space is {space}: expected a Box of continuous actions. For other actions, use "
            "an algorithm that supports them"
        )
    return {"low": space.low, "high": space.high, "dtype": space.dtype}


class EnvironmentFailedError(Exception):
    """Report that ``reset()`` or ``step()`` of an environment raised an exception, which is the cause."""


@contextmanager
def environment_called() -> Iterator[None]:
    """Mark exceptions of the environment, to distinguish them from errors in a check.

    :raises EnvironmentFailedError: if the body raises an exception
    """
    try:
        yield
    except Exception as error:
        raise EnvironmentFailedError from error


def roll_out(
    env: VecEnv,
    actions: Sequence[NDArray[Any]],
    seed: int | None = None,
    is_enough: Callable[[Rollout], bool] = lambda rollout: False,  # noqa: ARG005
) -> Rollout:
    """Reset the environments, play the given actions, and record the steps.

    :param env: the vectorized environments
    :param actions: the actions of each step, ``(n_envs, *action_shape)``
    :param seed: seed of the reset; None for no seed
    :param is_enough: function called after each step; True ends the rollout early
    :return: the recorded steps
    :raises EnvironmentFailedError: if an environment raises an exception
    """
    if seed is not None:
        env.seed(seed)
    with environment_called():
        first = env.reset()
    rollout = Rollout([copied(first)])
    begin = time.perf_counter()
    for each in actions:
        # The actions are copied, because VecEnvs pass the array to the environment, which might change it.
        with environment_called():
            observations, rewards, dones, infos = env.step(each.copy())
        seen = copied(observations)
        rollout.observations.append(seen)
        rollout.next_observations.append(_with_terminal_observations(seen, dones, infos))
        rollout.actions.append(each)
        rollout.rewards.append(np.array(rewards, np.float64))
        rollout.dones.append(np.array(dones, bool))
        rollout.infos.append(list(infos))
        rollout.seconds = time.perf_counter() - begin
        if is_enough(rollout):
            break
    return rollout


def _with_terminal_observations(
    observations: Observations, dones: NDArray[np.bool_], infos: Sequence[Mapping[str, Any]]
) -> Observations:
    """Return the observations after a step, with the terminal observation of each episode that ended.

    A VecEnv returns the first observation of the next episode instead.
    """
    if not np.any(dones):
        return observations
    replaced = copied(observations)
    for env in map(int, np.flatnonzero(dones)):
        terminal = infos[env].get("terminal_observation")
        if terminal is None:
            continue
        if isinstance(replaced, dict):
            for key in replaced:
                replaced[key][env] = terminal[key]
        else:
            replaced[env] = terminal
    return replaced


def transitions(rollout: Rollout) -> Iterator[tuple[Any, Any, Any, Any, Any, Any]]:
    """Yield the arguments of ``ReplayBuffer.add`` for each step of a rollout."""
    for step in range(rollout.n_steps):
        yield (
            rollout.observations[step],
            rollout.next_observations[step],
            rollout.actions[step],
            rollout.rewards[step],
            rollout.dones[step],
            rollout.infos[step],
        )
