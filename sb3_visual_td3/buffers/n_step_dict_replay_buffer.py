"""n-step returns for Dict observations, which Stable-Baselines3 has for Box observations only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer
from stable_baselines3.common.type_aliases import DictReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize

from sb3_visual_td3.buffers.observation_store import step_actions, step_parts
from sb3_visual_td3.common.numbers import to_float, to_integer


class IndexableParts(dict[str, np.ndarray]):
    """Arrays of one length by key, which numpy's indices go through: ``parts[rows, columns]`` picks from each."""

    def __getitem__(self, index: Any) -> Any:
        """:return: the array of a key; for indices of numpy's kind, what they pick from every array, by key"""
        return super().__getitem__(index) if isinstance(index, str) else {k: v[index] for k, v in self.items()}


class NStepDictReplayBuffer(NStepReplayBuffer, DictReplayBuffer):
    """Stable-Baselines3's n-step replay buffer, for Dict observations.

    The arithmetic (discounted sums, cut where an episode ends and at the write head) is NStepReplayBuffer's own, and
    the storage is DictReplayBuffer's. Where Stable-Baselines3 has such a buffer, this one can go.

    :param buffer_size: transitions to hold, over all environments
    :param observation_space: a Dict of boxes
    :param action_space: the actions
    :param device: where samples are put
    :param n_envs: environments that write side by side
    :param optimize_memory_usage: not supported
    :param handle_timeout_termination: whether a truncated episode still bootstraps from its last observation
    :param n_steps: rewards to sum, >= 1
    :param gamma: discount of each step
    :raises ValueError: if ``n_steps`` or ``gamma`` is out of its range
    :raises AssertionError: if the observations are no Dict, or ``optimize_memory_usage`` is asked for

    Source: Sutton 1988; Hessel et al. 2018 (Rainbow), "Multi-step learning".
    """

    observations: IndexableParts
    next_observations: IndexableParts

    def __init__(self, *args: Any, n_steps: int = 3, gamma: float = 0.99, **kwargs: Any) -> None:
        n_steps = to_integer("n_steps", n_steps, 1, "1 (no sum) or more rewards to sum")
        gamma = to_float("gamma", gamma, 0.0, 1.0, expected="a discount from 0 to 1")
        super().__init__(*args, n_steps=n_steps, gamma=gamma, **kwargs)
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
        """Store one transition of each environment, as DictReplayBuffer does.

        :param obs: by key, ``(n_envs, *part)``
        :param next_obs: the same after the step
        :param action: ``(n_envs, action_dim)``
        :param reward: ``(n_envs,)``
        :param done: ``(n_envs,)``, whether the episode ended or was truncated
        :param infos: of each environment
        :raises ValueError: if an observation or the actions have another shape
        """
        kinds = {key: (part.shape[1:], part.dtype) for key, part in self.observations.items()}
        parts = step_parts(kinds, obs, next_obs, is_dict=True)
        actions = step_actions(action, self.action_space, (self.n_envs, self.action_dim), self.actions.dtype)
        before, after = ({key: pair[moment] for key, pair in parts.items()} for moment in (0, 1))
        super().add(before, after, actions, reward, done, infos)

    def to_torch(self, array: np.ndarray | Mapping[str, np.ndarray], copy: bool = True) -> Any:
        """:return: a tensor on the buffer's device, or one for each key"""
        if isinstance(array, Mapping):
            return {key: super(NStepDictReplayBuffer, self).to_torch(part, copy) for key, part in array.items()}
        return super().to_torch(array, copy)

    def _get_samples(  # type: ignore[override]
        self, batch_inds: np.ndarray, env: VecNormalize | None = None
    ) -> DictReplayBufferSamples:
        samples: tuple[Any, ...] = super()._get_samples(batch_inds, env)
        return DictReplayBufferSamples(*samples)
