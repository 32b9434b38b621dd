"""Turn a replay buffer's sample into the batch of an update; shift and convert its images.

The critics and the actor use the same batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.type_aliases import DictReplayBufferSamples, ReplayBufferSamples

from sb3_visual_td3.common.pictures import THE_ONLY_PART, channels_are_last


def random_shift(images: th.Tensor, pad: int) -> th.Tensor:
    """Shift every image by a random number of whole pixels, drawn for each image, and repeat the edge.

    All channels of one image (a frame stack) move together. The shifts are drawn from torch's global generator.

    :param images: the images, ``(batch, channels, height, width)``, of any dtype
    :param pad: largest shift in pixels in each direction; 0 returns the images unchanged

    Source: Kostrikov et al. 2020 (DrQ); Yarats et al. 2021 (DrQ-v2) use the same shift of 4 pixels.
    """
    if pad == 0:
        return images
    offsets = th.randint(-pad, pad + 1, (2, images.shape[0]), device=images.device)
    return shift_by(images, offsets[0], offsets[1])


def shift_by(images: th.Tensor, rows: th.Tensor, columns: th.Tensor) -> th.Tensor:
    """Shift image ``i``: its new pixel ``(y, x)`` is the old pixel ``(y + rows[i], x + columns[i])``.

    :param images: the images, ``(batch, channels, height, width)``
    :param rows: vertical shift of each image in pixels, ``(batch,)``; a positive number moves the picture up
    :param columns: horizontal shift in pixels, ``(batch,)``; a positive number moves the picture to the left
    :return: the shifted images, with the edge repeated
    """
    if images.device.type == "cpu":
        return _windows(images, rows, columns)
    batch, _, height, width = images.shape
    # Where each output pixel comes from: (batch, height) rows and (batch, width) columns, clamped to the edge.
    y = (th.arange(height, device=images.device) + rows[:, None]).clamp_(0, height - 1)
    x = (th.arange(width, device=images.device) + columns[:, None]).clamp_(0, width - 1)
    index = th.arange(batch, device=images.device)[:, None, None]
    # Indexing the pixels of a channels-last view moves whole frame stacks: one gather instead of one per channel.
    shifted = images.permute(0, 2, 3, 1)[index, y[:, :, None], x[:, None, :]]
    return shifted.permute(0, 3, 1, 2)


def _windows(images: th.Tensor, rows: th.Tensor, columns: th.Tensor) -> th.Tensor:
    """Shift images on a CPU by cutting windows out of padded images, which is six times faster than indexing pixels."""
    pad = int(max(rows.abs().max(), columns.abs().max()))
    padded = np.pad(images.numpy(), ((0, 0), (0, 0), (pad, pad), (pad, pad)), mode="edge")
    # The view has the shape (batch, channels, 2 * pad + 1, 2 * pad + 1, height, width) and contains all windows. Only
    # one window of each image is copied.
    windows = np.lib.stride_tricks.sliding_window_view(padded, images.shape[2:], axis=(2, 3))
    chosen = windows.transpose(0, 2, 3, 1, 4, 5)[np.arange(len(images)), rows.numpy() + pad, columns.numpy() + pad]
    return th.from_numpy(chosen)


Observations: TypeAlias = th.Tensor | dict[str, th.Tensor]


class Prepared(NamedTuple):
    """Hold observations that were converted for all networks; features extractors take them without preprocessing."""

    observations: Observations


class Batch(NamedTuple):
    """Hold transitions in the form that the losses take.

    Images are ``(batch, channels, height, width)``, actions ``(batch, action_dim)`` in [-1, 1], dones and rewards
    ``(batch, 1)``. ``discounts`` are ``(batch, 1)`` for n-step returns and one number otherwise. The rewards were
    divided by ``reward_divisor``. ``replayed`` are the observations as the replay buffer gave them.
    """

    observations: Observations | Prepared
    actions: th.Tensor
    next_observations: Observations | Prepared
    dones: th.Tensor
    rewards: th.Tensor
    reward_divisor: float
    discounts: th.Tensor | float
    replayed: Observations


def augmented(observations: Observations, pad: int, pictures: Mapping[str, spaces.Box]) -> Observations:
    """Shift images randomly; other parts of the observation stay as they are.

    :param observations: one tensor, or one for each key
    :param pad: largest shift in pixels; 0 is off
    :param pictures: the spaces of the images, by key
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
    reward_divisor: float = 1.0,
) -> Batch:
    """Make the batch of an update from a sample of a replay buffer.

    :param data: transitions that the replay buffer has sampled
    :param gamma: discount of a step, used if the buffer returns no discounts
    :param pad: largest random shift of images, in pixels
    :param pictures: the spaces of the images, by key
    :param prepare: function that converts the observations for all networks; None lets each network convert them
    :param reward_divisor: number by which rewards, or n-step sums of them, are divided
    """
    shifted, next_shifted = (augmented(each, pad, pictures) for each in (data.observations, data.next_observations))
    observations: Observations | Prepared = shifted
    next_observations: Observations | Prepared = next_shifted
    actions = data.actions
    if prepare is not None:
        observations, next_observations = prepare(shifted), prepare(next_shifted)
        # The actions have the dtype of the action space, and autocast cannot combine float16 with bfloat16. Without
        # ``prepare`` they keep this dtype, because Stable-Baselines3 draws its smoothing noise in it.
        actions = actions.float()
    # For n-step replay, the discount is gamma**n_steps (when no early termination)
    discounts = gamma if data.discounts is None else data.discounts
    rewards = data.rewards if reward_divisor == 1.0 else data.rewards / reward_divisor
    return Batch(
        observations=observations,
        actions=actions,
        next_observations=next_observations,
        dones=data.dones,
        rewards=rewards,
        reward_divisor=reward_divisor,
        discounts=discounts,
        replayed=data.observations,
    )
