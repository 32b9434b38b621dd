"""Images converted once for all networks of an update, in the layout that is fast for the first convolution.

The same sum in another order. On CPUs a first layer with few input channels is slow in bfloat16, above all its
gradient; on blocks it has 16 times as many.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, NatureCNN
from torch import nn
from torch.nn import functional as F

from sb3_visual_td3.common.pictures import THE_ONLY_PART, channels_are_last
from sb3_visual_td3.visual_td3.batches import Observations, Prepared
from sb3_visual_td3.visual_td3.encoders import Convolutions

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


PIXEL_MAX = 255.0


class Preparation:
    """Turns observations into what every network's features extractor takes.

    Stable-Baselines3 does so once for each network that looks at them.

    :param space: what is observed
    :param pictures: the pictures in it, by key
    :param extractor: one that is going to read it; images for an unknown kind stay contiguous
    :param normalize_images: whether pixels are scaled to [0, 1]
    :param dtype: of the images; all else becomes float32
    """

    def __init__(
        self,
        space: spaces.Space[Any],
        pictures: Mapping[str, spaces.Box],
        extractor: BaseFeaturesExtractor,
        normalize_images: bool,
        dtype: th.dtype,
    ) -> None:
        self._space = space
        self._pictures = pictures
        self._extractor = extractor
        self._normalize_images = normalize_images
        self._dtype = dtype

    def __call__(self, observations: Observations) -> Prepared:
        """:return: the same observations; images in [0, 1], or as blocks of whole numbers where that is faster"""
        if not isinstance(observations, Mapping):
            picture = self._pictures.get(THE_ONLY_PART)
            return Prepared(self._part(observations, self._space, picture, self._extractor))
        assert isinstance(self._space, spaces.Dict)
        return Prepared(
            {
                key: self._part(value, self._space[key], self._pictures.get(key), _reader_of(key, self._extractor))
                for key, value in observations.items()
            }
        )

    def _part(
        self, values: th.Tensor, space: spaces.Space[Any], picture: spaces.Box | None, reader: nn.Module
    ) -> th.Tensor:
        is_known = _is_known(reader, NatureCNN) or _is_known(reader, Convolutions)
        if picture is None or not (self._normalize_images or is_known):
            part = preprocess_obs(values, space, self._normalize_images)
            assert isinstance(part, th.Tensor)
            return part
        if not is_known:
            return values.to(self._dtype).div_(PIXEL_MAX)
        if not self._normalize_images:  # they come in scaled
            images = values.permute(0, 3, 1, 2) if channels_are_last(picture) else values
            return images.to(self._dtype).contiguous(memory_format=th.channels_last)
        if self._sees_blocks(values, reader):
            return blocks_of(values).to(self._dtype)
        # The bytes are moved before they are widened: there are fewer of them then.
        return (values.contiguous(memory_format=th.channels_last) / PIXEL_MAX).to(self._dtype)

    def _sees_blocks(self, images: th.Tensor, reader: nn.Module) -> bool:
        is_slow_otherwise = self._dtype == th.bfloat16 and images.device.type == "cpu"
        shifts_pixels = getattr(reader, "offset", 0.0) != 0.0
        assert isinstance(reader.cnn, nn.Sequential)
        return is_slow_otherwise and not shifts_pixels and can_see_blocks(reader.cnn[0], *images.shape[2:])


def _is_known(extractor: nn.Module, kind: type[nn.Module]) -> bool:
    """:return: whether an extractor does what ``kind`` does; a subclass may do something else"""
    return type(extractor).forward is kind.forward


def _reader_of(key: str, extractor: nn.Module) -> nn.Module:
    if not _is_known(extractor, CombinedExtractor):
        return extractor
    assert isinstance(extractor.extractors, nn.ModuleDict)
    return extractor.extractors[key]


def encoded(extractor: nn.Module, observations: Observations) -> th.Tensor:
    """Do what a features extractor does, with observations that were prepared.

    :param extractor: of actor or critic
    :param observations: what :class:`Preparation` made
    :return: ``(batch, features)``
    """
    if _is_known(extractor, CombinedExtractor):
        assert isinstance(observations, Mapping)
        assert isinstance(extractor.extractors, nn.ModuleDict)
        parts = [encoded(part, observations[key]) for key, part in extractor.extractors.items()]
        return th.cat(parts, dim=1)
    if not (_is_known(extractor, NatureCNN) or _is_known(extractor, Convolutions)):
        features: th.Tensor = extractor(observations)
        return features
    assert isinstance(observations, th.Tensor)
    assert isinstance(extractor.cnn, nn.Sequential)
    offset = getattr(extractor, "offset", 0.0)
    features = _convolved(extractor.cnn, observations + offset if offset else observations)
    return extractor.linear(features) if isinstance(extractor, NatureCNN) else features


def _convolved(layers: nn.Sequential, images: th.Tensor) -> th.Tensor:
    first = layers[0]
    assert isinstance(first, nn.Conv2d)
    is_blocks = images.shape[1] != first.in_channels
    maps = convolve_blocks(first, images, 1.0 / PIXEL_MAX) if is_blocks else first(images)
    for layer in list(layers)[1:-1]:
        maps = maps.relu_() if isinstance(layer, nn.ReLU) else layer(maps)
    if maps.requires_grad:
        # The gradient comes back flat, channels first, and every layer before would be slow on it.
        maps.register_hook(lambda gradient: gradient.contiguous(memory_format=th.channels_last))
    features: th.Tensor = layers[-1](maps)
    return features
