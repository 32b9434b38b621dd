"""What an update is made of: transitions, their images augmented and their discounts spelled out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import torch as th
from gymnasium import spaces
from stable_baselines3.common.type_aliases import DictReplayBufferSamples, ReplayBufferSamples

from sb3_visual_td3.common.pictures import THE_ONLY_PART, channels_are_last
from sb3_visual_td3.visual_td3.augment import random_shift

Observations: TypeAlias = th.Tensor | dict[str, th.Tensor]


class Prepared(NamedTuple):
    """Observations that a features extractor takes as they are."""

    observations: Observations


class Batch(NamedTuple):
    """Transitions as the losses need them.

    Images are ``(batch, channels, height, width)``, as they were replayed where they are not prepared; actions
    ``(batch, action_dim)`` in [-1, 1]; dones, rewards and discounts ``(batch, 1)``, where a discount that is the same
    for all may be a number. ``replayed`` are the observations as the replay buffer gave them, for who watches.
    """

    observations: Observations | Prepared
    actions: th.Tensor
    next_observations: Observations | Prepared
    dones: th.Tensor
    rewards: th.Tensor
    discounts: th.Tensor | float
    replayed: Observations


def augmented(observations: Observations, pad: int, pictures: Mapping[str, spaces.Box]) -> Observations:
    """Shift pictures randomly; what is no picture stays as it is.

    :param observations: one tensor, or one for each key
    :param pad: largest shift in pixels; 0 is off
    :param pictures: the pictures among them, by key
    :return: observations of the same shape
    """
    if pad == 0:
        return observations
    if isinstance(observations, dict):
        return {key: _shifted(value, pad, pictures.get(key)) for key, value in observations.items()}
    return _shifted(observations, pad, pictures.get(THE_ONLY_PART))


def _shifted(values: th.Tensor, pad: int, picture: spaces.Box | None) -> th.Tensor:
    if picture is None:
        return values
    if channels_are_last(picture):
        return random_shift(values.permute(0, 3, 1, 2), pad).permute(0, 2, 3, 1)
    return random_shift(values, pad)


def batch_of(
    data: ReplayBufferSamples | DictReplayBufferSamples,
    gamma: float,
    pad: int,
    pictures: Mapping[str, spaces.Box],
    prepare: Callable[[Observations], Prepared] | None,
) -> Batch:
    """Make of what a replay buffer gave what an update takes.

    :param data: the sample
    :param gamma: discount where the buffer gives none
    :param pad: largest random shift of pictures, in pixels
    :param pictures: the pictures among the observations, by key
    :param prepare: what converts the observations for all networks; None leaves that to each of them
    :return: the batch
    """
    shown = [augmented(observations, pad, pictures) for observations in (data.observations, data.next_observations)]
    observations, next_observations = shown if prepare is None else map(prepare, shown)
    discounts = gamma if data.discounts is None else data.discounts
    # The buffer keeps the environment's dtype, and autocast does not join float16 with bfloat16. Without ``prepare``
    # the update is Stable-Baselines3's, which draws its smoothing noise in that dtype.
    actions = data.actions if prepare is None else data.actions.float()
    return Batch(observations, actions, next_observations, data.dones, data.rewards, discounts, data.observations)
