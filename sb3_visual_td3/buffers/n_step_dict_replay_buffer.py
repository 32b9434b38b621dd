"""Compute n-step returns for Dict observations; Stable-Baselines3 computes them for Box observations only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer
from stable_baselines3.common.type_aliases import DictReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize

from sb3_visual_td3.buffers.observation_store import AFTER, BEFORE, step_actions, step_parts
from sb3_visual_td3.common.numbers import to_float, to_integer


class IndexableParts(dict[str, np.ndarray]):
    """Hold arrays of the same length by key, and index them like one array: ``parts[rows, columns]``."""

    def __getitem__(self, index: Any) -> Any:
        """Return one array for a key; for a NumPy index, return the indexed part of every array, by key."""
        if isinstance(index, str):
            return super().__getitem__(index)
        return {key: array[index] for key, array in self.items()}


class NStepDictReplayBuffer(NStepReplayBuffer, DictReplayBuffer):
    """Extend Stable-Baselines3's n-step replay buffer to Dict observations.

    :param buffer_size: number of transitions to hold, over all environments
    :param observation_space: a Dict of boxes
    :param action_space: the action space
    :param device: the device of the samples
    :param n_envs: number of parallel environments
    :param optimize_memory_usage: must be False
    :param handle_timeout_termination: True lets a truncated episode bootstrap from its last observation
    :param n_steps: number of rewards to sum, >= 1
    :param gamma: discount of each step
    :raises ValueError: if ``n_steps`` or ``gamma`` is out of range
    :raises AssertionError: if the observations are not a Dict, or ``optimize_memory_usage`` is set

    Source: Sutton 1988; Hessel et al. 2018 (Rainbow), "Multi-step learning".
    """

    observations: IndexableParts
    next_observations: IndexableParts

    def __init__(self, *args: Any, n_steps: int = 3, gamma: float = 0.99, **kwargs: Any) -> None:
        n_steps = to_integer("n_steps", n_steps, 1)
        gamma = to_float("gamma", gamma, 0.0, 1.0, expected="a number from 0 to 1")
        super().__init__(*args, n_steps=n_steps, gamma=gamma, **kwargs)
        # NStepReplayBuffer indexes the observations as one array.
        self.observations = IndexableParts(self.observations)
        self.next_observations = IndexableParts(self.next_observations)

    def add(  # type: ignore[override]  # as DictReplayBuffer's
        self,
        obs: Mapping[str, np.ndarray],
        next_obs: Mapping[str, np.ndarray],
        action: np.ndarray,
        reward: np.ndarray,
        done: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """Store one transition of each environment, as DictReplayBuffer does, and check the shapes.

        :param obs: observations before the step, arrays ``(n_envs, *part)`` by key
        :param next_obs: observations after the step
        :param action: ``(n_envs, action_dim)``
        :param reward: ``(n_envs,)``
        :param done: ``(n_envs,)``, 1 where the episode ended or was truncated
        :param infos: one dict for each environment
        :raises ValueError: if an observation or the actions have a wrong shape
        """
        kinds = {key: (part.shape[1:], part.dtype) for key, part in self.observations.items()}
        parts = step_parts(kinds, obs, next_obs, is_dict=True)
        actions = step_actions(action, self.action_space, (self.n_envs, self.action_dim), self.actions.dtype)
        before = {key: pair[BEFORE] for key, pair in parts.items()}
        after = {key: pair[AFTER] for key, pair in parts.items()}
        super().add(before, after, actions, reward, done, infos)

    def to_torch(self, array: np.ndarray | Mapping[str, np.ndarray], copy: bool = True) -> Any:
        """Return a tensor on the buffer's device, or one tensor for each key."""
        if isinstance(array, Mapping):
            return {key: super(NStepDictReplayBuffer, self).to_torch(part, copy) for key, part in array.items()}
        return super().to_torch(array, copy)

    def _get_samples(  # type: ignore[override]
        self, batch_inds: np.ndarray, env: VecNormalize | None = None
    ) -> DictReplayBufferSamples:
        # NStepReplayBuffer returns its own tuple type, with the fields in the same order.
        samples: tuple[Any, ...] = super()._get_samples(batch_inds, env)
        return DictReplayBufferSamples(*samples)
