"""n-step returns for Dict observations, which Stable-Baselines3 has for Box observations only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer
from stable_baselines3.common.type_aliases import DictReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize


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
    :raises AssertionError: if the observations are no Dict, or ``optimize_memory_usage`` is asked for

    Source: Sutton 1988; Hessel et al. 2018 (Rainbow), "Multi-step learning".
    """

    observations: IndexableParts
    next_observations: IndexableParts

    def __init__(self, *args: Any, n_steps: int = 3, gamma: float = 0.99, **kwargs: Any) -> None:
        super().__init__(*args, n_steps=n_steps, gamma=gamma, **kwargs)
        self.observations = IndexableParts(self.observations)
        self.next_observations = IndexableParts(self.next_observations)

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
