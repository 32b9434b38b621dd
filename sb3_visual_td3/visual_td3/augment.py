"""Random shift, the augmentation that off-policy learning from pixels needs most."""

from __future__ import annotations

import numpy as np
import torch as th


def random_shift(images: th.Tensor, pad: int) -> th.Tensor:
    """Shift every image by its own random whole number of pixels, repeating the edge.

    All channels of one image (a frame stack) move together. Draws from torch's global generator.

    :param images: ``(batch, channels, height, width)``, any dtype
    :param pad: largest shift in pixels, either way and in both directions; 0 returns the images unchanged
    :return: a tensor of the same shape and dtype

    Source: Kostrikov et al. 2020 (DrQ); Yarats et al. 2021 (DrQ-v2) use the same shift of 4 pixels.
    """
    if pad == 0:
        return images
    offsets = th.randint(-pad, pad + 1, (2, images.shape[0]), device=images.device)
    return shift_by(images, offsets[0], offsets[1])


def shift_by(images: th.Tensor, rows: th.Tensor, columns: th.Tensor) -> th.Tensor:
    """Shift image ``i`` so that its pixel ``(y, x)`` shows what stood at ``(y + rows[i], x + columns[i])``.

    :param images: ``(batch, channels, height, width)``
    :param rows: ``(batch,)`` whole pixels, positive moves the picture up
    :param columns: ``(batch,)`` whole pixels, positive moves the picture to the left
    :return: a tensor of the same shape and dtype; beyond the edge the edge is repeated
    """
    if images.device.type == "cpu":
        return _windows(images, rows, columns)
    batch, _, height, width = images.shape
    y = (th.arange(height, device=images.device) + rows[:, None]).clamp_(0, height - 1)
    x = (th.arange(width, device=images.device) + columns[:, None]).clamp_(0, width - 1)
    index = th.arange(batch, device=images.device)[:, None, None]
    # Indexing the pixels of a channel-last view moves whole frame stacks at once: one gather, not one per channel.
    shifted = images.permute(0, 2, 3, 1)[index, y[:, :, None], x[:, None, :]]
    return shifted.permute(0, 3, 1, 2)


def _windows(images: th.Tensor, rows: th.Tensor, columns: th.Tensor) -> th.Tensor:
    """Cut the same pictures out of padded ones, row by row of memory: on a CPU six times faster than by pixels."""
    pad = int(max(rows.abs().max(), columns.abs().max()))
    padded = np.pad(images.numpy(), ((0, 0), (0, 0), (pad, pad), (pad, pad)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, images.shape[2:], axis=(2, 3))
    chosen = windows.transpose(0, 2, 3, 1, 4, 5)[np.arange(len(images)), rows.numpy() + pad, columns.numpy() + pad]
    return th.from_numpy(chosen)
