"""Space to depth: a convolution whose stride divides its kernel, as one of stride 1 on blocks of pixels.

The same sum in another order. On CPUs a first layer with few input channels is slow in bfloat16, above all its
gradient; on blocks it has 16 times as many.
"""

from __future__ import annotations

import torch as th
from torch import nn
from torch.nn import functional as F

SIDE = 4
"""Pixels of a block, each way: NatureCNN's first stride, and as many bytes as a 32-bit number has."""


def can_see_blocks(convolution: nn.Module, height: int, width: int) -> bool:
    """:return: whether blocks of ``SIDE`` pixels do for this layer on images of this size"""
    if not isinstance(convolution, nn.Conv2d):
        return False
    plain = convolution.padding == (0, 0) and convolution.dilation == (1, 1) and convolution.groups == 1
    square = convolution.stride == (SIDE, SIDE) and convolution.kernel_size[0] == convolution.kernel_size[1]
    return plain and square and convolution.kernel_size[0] % SIDE == height % SIDE == width % SIDE == 0


def blocks_of(images: th.Tensor) -> th.Tensor:
    """Move each block's pixels into the channels.

    :param images: ``(batch, channels, height, width)`` uint8, height and width multiples of ``SIDE``
    :return: ``(batch, channels * SIDE * SIDE, height / SIDE, width / SIDE)`` uint8, channels last in memory; channels
        are ordered by channel, row and column
    """
    batch, channels, height, width = images.shape
    # Four pixels of a row are moved as one number.
    rows = images.contiguous().view(th.int32).view(batch, channels, height // SIDE, SIDE, width // SIDE)
    moved = rows.permute(0, 2, 4, 1, 3).contiguous().view(th.uint8)
    return moved.view(batch, height // SIDE, width // SIDE, channels * SIDE * SIDE).permute(0, 3, 1, 2)


def convolve_blocks(convolution: nn.Conv2d, blocks: th.Tensor, scale: float) -> th.Tensor:
    """Apply a layer to blocks of pixels.

    :param convolution: a layer for which :func:`can_see_blocks` holds
    :param blocks: what :func:`blocks_of` gave, in a floating dtype
    :param scale: factor on the pixels, which the weights take over: the pixels stay whole numbers, and those up to 255
        are exact in bfloat16
    :return: ``(batch, filters, height, width)``: what the layer gives for the scaled images
    """
    filters, channels, kernel, _ = convolution.weight.shape
    side = kernel // SIDE
    weight = (scale * convolution.weight).view(filters, channels, side, SIDE, side, SIDE)
    weight = weight.permute(0, 1, 3, 5, 2, 4).reshape(filters, channels * SIDE * SIDE, side, side)
    return F.conv2d(blocks, weight.contiguous(memory_format=th.channels_last), convolution.bias)
