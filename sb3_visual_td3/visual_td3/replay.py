"""Which replay buffer a model gets, where Stable-Baselines3's own choice falls short."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from gymnasium import spaces
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_visual_td3.buffers.n_step_dict_replay_buffer import NStepDictReplayBuffer


@contextmanager
def n_steps_handed_over(model: OffPolicyAlgorithm) -> Iterator[None]:
    """Choose the n-step buffer of Dict observations before Stable-Baselines3 refuses them; to set a model up within.

    :param model: the model that is being set up; it gets the buffer's class and arguments, if it was given no class
    """
    if model.replay_buffer_class is None and model.n_steps > 1 and isinstance(model.observation_space, spaces.Dict):
        model.replay_buffer_class = NStepDictReplayBuffer
        n_step_kwargs = {"n_steps": model.n_steps, "gamma": model.gamma}
        model.replay_buffer_kwargs = {**model.replay_buffer_kwargs, **n_step_kwargs}
    with warnings.catch_warnings():
        if model.replay_buffer_kwargs.get("n_steps") == model.n_steps:
            # It takes every class that is set (by us, or by an earlier save) for one that is not told of n_steps.
            warnings.filterwarnings("ignore", message=r"`n_steps=\d+` is ignored")
        yield


def origin_of_buffer(model: OffPolicyAlgorithm) -> str:
    """:return: ``"td3"`` or ``"n_steps"`` where the buffer's class follows from these, else ``"argument"``"""
    is_dict = isinstance(model.observation_space, spaces.Dict)
    n_step_class: type[ReplayBuffer] = NStepDictReplayBuffer if is_dict else NStepReplayBuffer
    plain_class: type[ReplayBuffer] = DictReplayBuffer if is_dict else ReplayBuffer
    if model.replay_buffer_class is not (n_step_class if model.n_steps > 1 else plain_class):
        return "argument"
    return "n_steps" if model.n_steps > 1 else "td3"
