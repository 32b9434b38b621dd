"""Speed up updates by bfloat16 arithmetic, a single conversion of images, and reuse of memory.

None of this is used if updates must equal those of Stable-Baselines3 bit for bit (:attr:`Arithmetic.is_exact`).
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any, Literal

import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, NatureCNN
from torch import nn
from torch.nn import functional as F

from sb3_visual_td3.common.pictures import THE_ONLY_PART, channels_are_last
from sb3_visual_td3.visual_td3.batches import Observations, Prepared
from sb3_visual_td3.visual_td3.encoders import Convolutions

Precision = Literal["fp32", "bf16", "auto"]

# Parameters of mallopt(3), from glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_LARGEST_KEPT = 2**28
"""Size of the largest freed block that is kept for reuse, in bytes (256 MiB)."""
_PAD = 2**26


@lru_cache(maxsize=1)
def keep_freed_memory() -> bool:
    """Make glibc keep large freed blocks for reuse until the process ends.

    :return: whether the C library accepted the settings

    Source: mallopt(3).
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_M_MMAP_THRESHOLD, _LARGEST_KEPT), (_M_TRIM_THRESHOLD, 2 * _LARGEST_KEPT), (_M_TOP_PAD, _PAD))
    taken = [bool(mallopt(name, value)) for name, value in settings]
    return all(taken)


def has_fast_bf16(device: th.device) -> bool:
    """Return whether the machine multiplies bfloat16 in hardware.

    :param device: the device of the networks
    :return: True for AVX512_BF16 or AMX on a CPU, and for Ampere or newer on a GPU
    """
    if device.type == "cuda":
        return bool(th.cuda.is_bf16_supported(including_emulation=False))
    capabilities = th.cpu.get_capabilities()
    return device.type == "cpu" and bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


class Arithmetic:
    """Decide how the networks compute during an update.

    :param precision: ``"fp32"``, ``"bf16"`` or ``"auto"``. ``"auto"`` uses bfloat16 if the hardware supports it
    :param device: the device of the networks
    :param is_stock: True if results in float32 must equal those of Stable-Baselines3 bit for bit
    """

    def __init__(self, precision: Precision, device: th.device, is_stock: bool) -> None:
        self._device = device
        is_fast = precision == "bf16"
        if precision == "auto":
            is_fast = has_fast_bf16(device)
        self.dtype = th.bfloat16 if is_fast else th.float32
        self.is_exact = is_stock and precision == "fp32"

    def autocast(self) -> AbstractContextManager[None]:
        """Return a context in which matrix products and convolutions use ``self.dtype``; weights stay in float32."""
        # Autocast's cache would keep weights that were cast under no_grad. A later forward pass that needs their
        # gradient would reuse them.
        return th.autocast(self._device.type, self.dtype, enabled=self.dtype != th.float32, cache_enabled=False)


# ---- Images as blocks: a first convolution of stride 4 on (batch, 4, 84, 84) is the same sum as one of stride 1 on
# (batch, 4 * 4 * 4, 21, 21), whose channels are the 4 x 4 pixels of a block. On CPUs a first layer with few input
# channels is slow in bfloat16, above all in the backward pass. Blocks have 16 times as many channels as images.

SIDE = 4
"""Height and width of a block in pixels: the stride of NatureCNN's first convolution. It must be 4, because
:func:`blocks_of` moves four uint8 pixels as one 32-bit number."""
PIXEL_MAX = 255.0


def can_use_blocks(convolution: nn.Module, height: int, width: int) -> bool:
    """Return whether :func:`convolve_blocks` can compute a layer for images of a given size."""
    # Spectral and weight normalisation remove the weight from the parameters, and compute it in each forward pass.
    if type(convolution) is not nn.Conv2d or "weight" not in convolution._parameters:
        return False
    is_plain = convolution.padding == (0, 0) and convolution.dilation == (1, 1) and convolution.groups == 1
    kernel = convolution.kernel_size
    is_square = convolution.stride == (SIDE, SIDE) and kernel[0] == kernel[1]
    # The kernel and the image must consist of whole blocks.
    return is_plain and is_square and kernel[0] % SIDE == height % SIDE == width % SIDE == 0


def blocks_of(images: th.Tensor) -> th.Tensor:
    """Rearrange images so that the pixels of each block of ``SIDE`` x ``SIDE`` pixels become channels.

    :param images: the images, ``(batch, channels, height, width)`` uint8; height and width are multiples of ``SIDE``
    :return: the blocks, ``(batch, channels * SIDE * SIDE, height / SIDE, width / SIDE)`` uint8, with the memory layout
        channels_last. The new channels are ordered by old channel, row and column
    """
    batch, channels, height, width = images.shape
    # Four pixels of a row are moved as one 32-bit number:
    # (batch, channels, height, width / SIDE) -> (batch, channels, block row, row in block, block column).
    rows = images.contiguous().view(th.int32).view(batch, channels, height // SIDE, SIDE, width // SIDE)
    # -> (batch, block row, block column, channels, row in block), whose bytes are the columns in the block.
    moved = rows.permute(0, 2, 4, 1, 3).contiguous().view(th.uint8)
    return moved.view(batch, height // SIDE, width // SIDE, channels * SIDE * SIDE).permute(0, 3, 1, 2)


def convolve_blocks(convolution: nn.Conv2d, blocks: th.Tensor, scale: float) -> th.Tensor:
    """Apply a convolution to images that :func:`blocks_of` has rearranged.

    :param convolution: a layer for which :func:`can_use_blocks` returns True
    :param blocks: output of :func:`blocks_of`, converted to a floating dtype
    :param scale: factor on the pixels
    :return: the layer's output, ``(batch, filters, height, width)``
    """
    filters, channels, kernel, _ = convolution.weight.shape
    side = kernel // SIDE  # of the kernel, in blocks
    # (filters, channels, block row, row in block, block column, column in block)
    weight = (scale * convolution.weight).view(filters, channels, side, SIDE, side, SIDE)
    # The pixels of a block become channels, in the order of blocks_of(). The kernel has side x side blocks.
    weight = weight.permute(0, 1, 3, 5, 2, 4).reshape(filters, channels * SIDE * SIDE, side, side)
    return F.conv2d(blocks, weight.contiguous(memory_format=th.channels_last), convolution.bias)


class Preparation:
    """Convert observations once into the form that the features extractors of all networks take.

    :param space: the observation space
    :param pictures: the pictures in it, by key
    :param extractors: the features extractors of critic and actor, which will read the result
    :param normalize_images: True if pixels are scaled to [0, 1]
    :param dtype: the dtype of the images; everything else becomes float32
    """

    def __init__(
        self,
        space: spaces.Space[Any],
        pictures: Mapping[str, spaces.Box],
        extractors: Sequence[BaseFeaturesExtractor],
        normalize_images: bool,
        dtype: th.dtype,
    ) -> None:
        self._space = space
        self._pictures = pictures
        self._extractors = extractors
        self._normalize_images = normalize_images
        self._dtype = dtype

    def __call__(self, observations: Observations) -> Prepared:
        """Return the observations in the form that the features extractors take.

        Pixels are scaled to [0, 1]. If :func:`convolve_blocks` will compute the first layer, they are rearranged by
        :func:`blocks_of` instead and keep values up to 255.
        """
        if not isinstance(observations, Mapping):
            picture = self._pictures.get(THE_ONLY_PART)
            return Prepared(self._part(observations, self._space, picture, self._extractors[0]))
        assert isinstance(self._space, spaces.Dict)
        parts = {}
        for key, value in observations.items():
            reader = _reader_of(key, self._extractors)
            if reader is not None:
                parts[key] = self._part(value, self._space[key], self._pictures.get(key), reader)
        return Prepared(parts)

    def _part(
        self, values: th.Tensor, space: spaces.Space[Any], picture: spaces.Box | None, reader: nn.Module
    ) -> th.Tensor:
        is_known = _runs_layer_by_layer(reader)
        if picture is None or not (self._normalize_images or is_known):
            part = preprocess_obs(values, space, self._normalize_images)
            assert isinstance(part, th.Tensor)
            return part
        if not is_known:
            return values.to(self._dtype).div_(PIXEL_MAX)
        if not self._normalize_images:  # the environment has scaled them
            if channels_are_last(picture):
                values = values.permute(0, 3, 1, 2)
            return values.to(self._dtype).contiguous(memory_format=th.channels_last)
        if self._uses_blocks(values, reader):
            return blocks_of(values).to(self._dtype)
        # The layout is changed before the conversion to float32, because uint8 values are fewer bytes to move.
        # PyTorch divides float32 in place faster than it divides uint8; the quotients are the same.
        floats = values.contiguous(memory_format=th.channels_last).to(th.float32)
        return floats.div_(PIXEL_MAX).to(self._dtype)

    def _uses_blocks(self, images: th.Tensor, reader: nn.Module) -> bool:
        if self._dtype != th.bfloat16 or images.device.type != "cpu":
            return False  # the plain layout is slow only for bfloat16 on a CPU
        if getattr(reader, "offset", 0.0) != 0.0:
            return False  # the offset is added to scaled pixels, and blocks hold unscaled ones
        assert isinstance(reader.cnn, nn.Sequential)
        return can_use_blocks(reader.cnn[0], *images.shape[2:])


def encode_prepared(extractor: nn.Module, observations: Observations) -> th.Tensor:
    """Return the features that an extractor computes from observations that :class:`Preparation` has converted.

    NatureCNN and our convolutions run layer by layer here, so that :func:`convolve_blocks` can compute the first layer.
    If a subclass has its own ``forward`` or other layers, this function calls ``forward``.

    :param extractor: the features extractor of actor or critic
    :param observations: observations that :class:`Preparation` returned
    :return: the features, ``(batch, features)``
    """
    if _does_the_same(extractor, CombinedExtractor):
        assert isinstance(observations, Mapping)
        assert isinstance(extractor.extractors, nn.ModuleDict)
        parts = [encode_prepared(part, observations[key]) for key, part in extractor.extractors.items()]
        return th.cat(parts, dim=1)
    if not _runs_layer_by_layer(extractor):
        features: th.Tensor = extractor(observations)
        return features
    assert isinstance(observations, th.Tensor)
    assert isinstance(extractor.cnn, nn.Sequential)
    offset = getattr(extractor, "offset", 0.0)
    if offset:
        observations = observations + offset
    features = _convolve(extractor.cnn, observations)
    if isinstance(extractor, NatureCNN):  # it has a dense layer; our convolutions leave that to the trunk
        features = extractor.linear(features)
    return features


def _convolve(layers: nn.Sequential, images: th.Tensor) -> th.Tensor:
    """Apply convolutions, each with its ReLU, and the final Flatten: ``(batch, features)``."""
    first = layers[0]
    assert isinstance(first, nn.Conv2d)
    is_blocks = images.shape[1] != first.in_channels
    maps = convolve_blocks(first, images, 1.0 / PIXEL_MAX) if is_blocks else first(images)
    for layer in list(layers)[1:-1]:
        # In place: no layer needs the values before a ReLU for its gradient.
        maps = maps.relu_() if isinstance(layer, nn.ReLU) else layer(maps)
    if maps.requires_grad:
        # The gradient from Flatten has the memory layout channels first. With this layout, the backward pass of every
        # earlier layer would be slow.
        maps.register_hook(lambda gradient: gradient.contiguous(memory_format=th.channels_last))
    features: th.Tensor = layers[-1](maps)
    return features


def _runs_layer_by_layer(extractor: nn.Module) -> bool:
    """Return whether :func:`_convolve` may run an extractor: it is convolutions, each with a ReLU, and a Flatten."""
    if not (_does_the_same(extractor, NatureCNN) or _does_the_same(extractor, Convolutions)):
        return False
    if type(extractor.cnn) is not nn.Sequential:
        return False
    kinds = [type(layer) for layer in extractor.cnn]
    # _convolve() applies each ReLU in place. A layer of another kind may need the overwritten values for its gradient.
    return len(kinds) >= 3 and kinds == [nn.Conv2d, nn.ReLU] * (len(kinds) // 2) + [nn.Flatten]


def _does_the_same(extractor: nn.Module, kind: type[nn.Module]) -> bool:
    """Return whether an extractor computes the same as class ``kind``: both have the same ``forward``."""
    return type(extractor).forward is kind.forward


def _reader_of(key: str, extractors: Sequence[nn.Module]) -> nn.Module | None:
    """Return the first module that reads an entry of a Dict observation; None if no module does."""
    for extractor in extractors:
        if not _does_the_same(extractor, CombinedExtractor):
            return extractor
        assert isinstance(extractor.extractors, nn.ModuleDict)
        if key in extractor.extractors:
            return extractor.extractors[key]
    return None
