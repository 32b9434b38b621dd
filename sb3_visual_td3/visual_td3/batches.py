"""What an update is made of: transitions, their images augmented and their discounts spelled out."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch as th
from stable_baselines3.common.type_aliases import DictReplayBufferSamples, ReplayBufferSamples

from sb3_visual_td3.visual_td3.augment import random_shift

Observations: TypeAlias = th.Tensor | dict[str, th.Tensor]


class Prepared(NamedTuple):
    """Observations that a features extractor takes as they are."""

    observations: Observations


class Batch(NamedTuple):
    """Transitions as the losses need them.

    Images are ``(batch, channels, height, width)``, uint8 where they are not prepared; actions
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


def augmented(observations: Observations, pad: int) -> Observations:
    """Shift images randomly; what is no image stays as it is.

    :param observations: one tensor, or one for each key
    :param pad: largest shift in pixels; 0 is off
    :return: observations of the same shape
    """
    if pad == 0:
        return observations
    if isinstance(observations, dict):
        return {key: random_shift(value, pad) if value.dim() == 4 else value for key, value in observations.items()}
    return random_shift(observations, pad) if observations.dim() == 4 else observations


def batch_of(
    data: ReplayBufferSamples | DictReplayBufferSamples,
    gamma: float,
    pad: int,
    prepare: Callable[[Observations], Prepared] | None,
) -> Batch:
    """Make of what a replay buffer gave what an update takes.

    :param data: the sample
    :param gamma: discount where the buffer gives none
    :param pad: largest random shift of images, in pixels
    :param prepare: what converts the observations for all networks; None leaves that to each of them
    :return: the batch
    """
    shown = [augmented(observations, pad) for observations in (data.observations, data.next_observations)]
    observations, next_observations = shown if prepare is None else map(prepare, shown)
    discounts = gamma if data.discounts is None else data.discounts
    return Batch(observations, data.actions, next_observations, data.dones, data.rewards, discounts, data.observations)
