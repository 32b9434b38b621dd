"""Define the encoders, which turn pixels into features, and the trunks, which connect an encoder to the heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_flattened_obs_dim
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, NatureCNN
from torch import nn

from sb3_visual_td3.common.pictures import channels_are_last, is_picture

EncoderArch = str | type[BaseFeaturesExtractor]


class Convolutions(BaseFeaturesExtractor):
    """Apply a stack of convolutions without a dense layer, for use with a trunk.

    Weights are channels-last, which is fast on CPUs and tensor cores.

    :param observation_space: a uint8 Box ``(channels, height, width)``. If ``normalized_image`` is True, any dtype, any
        bounds and the shape ``(height, width, channels)`` are also allowed
    :param layers: (filters, kernel, stride) of each convolution; a ReLU follows each
    :param offset: number added to the pixels, which are within [0, 1]
    :param normalized_image: True if the images are scaled already
    :raises ValueError: if the space holds no images, or if they are too small for the layers
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        layers: Sequence[tuple[int, int, int]],
        offset: float = 0.0,
        normalized_image: bool = False,
    ) -> None:
        if not isinstance(observation_space, spaces.Box) or not is_picture(observation_space, normalized_image):
            raise ValueError(
                f"observation space {observation_space}: expected a Box of channel-first uint8 images; choose another "
                "encoder for other observations"
            )
        channels_last = normalized_image and channels_are_last(observation_space)
        n_channels, height, width = _channels_first(observation_space.shape, channels_last)
        modules: list[nn.Module] = []
        for n_filters, kernel, stride in layers:
            modules += [nn.Conv2d(n_channels, n_filters, kernel, stride), nn.ReLU()]
            n_channels = n_filters
            height, width = (height - kernel) // stride + 1, (width - kernel) // stride + 1
            if min(height, width) < 1:
                _, *size = _channels_first(observation_space.shape, channels_last)
                smallest = _smallest_size(layers)
                raise ValueError(
                    f"images of {size[0]} x {size[1]} pixels are too small for {type(self).__name__}: expected at "
                    f"least {smallest} x {smallest}. Render or resize them larger"
                )
        super().__init__(observation_space, features_dim=n_channels * height * width)
        self.offset = offset
        self.channels_last = channels_last
        self.cnn = nn.Sequential(*modules, nn.Flatten()).to(memory_format=th.channels_last)  # type: ignore[call-overload]

    def forward(self, observations: th.Tensor) -> th.Tensor:
        """Return the features of images; all features are non-negative.

        :param observations: the images, ``(batch, channels, height, width)``; channels are last if they are last
            in the observation space
        :return: the features, ``(batch, features_dim)``
        """
        if self.channels_last:
            observations = observations.permute(0, 3, 1, 2)
        images = observations + self.offset if self.offset else observations
        features: th.Tensor = self.cnn(images.contiguous(memory_format=th.channels_last))
        return features


def _smallest_size(layers: Sequence[tuple[int, int, int]]) -> int:
    """Return the smallest image width in pixels for which the last layer's output is at least one pixel wide."""
    size = 1
    for _, kernel, stride in reversed(layers):
        size = (size - 1) * stride + kernel
    return size


def _channels_first(shape: tuple[int, ...], channels_last: bool) -> tuple[int, ...]:
    if channels_last:
        return (shape[2], *shape[:2])
    return shape


class ChannelsLastNatureCNN(NatureCNN):
    """Apply Stable-Baselines3's NatureCNN to scaled images ``(height, width, channels)``.

    Stable-Baselines3 transposes only uint8 images. Its NatureCNN would take the height of other images as channels.

    :param observation_space: Box ``(height, width, channels)``
    :param features_dim: width of the dense layer after the convolutions
    :param normalized_image: True, because the images are scaled already
    """

    def __init__(self, observation_space: spaces.Box, features_dim: int = 512, normalized_image: bool = True) -> None:
        low, high = (np.moveaxis(bound, 2, 0) for bound in (observation_space.low, observation_space.high))
        transposed = spaces.Box(low, high, dtype=observation_space.dtype)
        super().__init__(transposed, features_dim, normalized_image)
        self._observation_space = observation_space

    def forward(self, observations: th.Tensor) -> th.Tensor:
        """Return the features of images whose channels are last.

        :param observations: the images, ``(batch, height, width, channels)``
        :return: the features, ``(batch, features_dim)``
        """
        return super().forward(observations.permute(0, 3, 1, 2))


class NatureConvolutions(Convolutions):
    """Apply the three convolutions of NatureCNN, to images of at least 36 x 36 pixels.

    Source: Mnih et al. 2015, "Human-level control through deep reinforcement learning", Methods.
    """

    def __init__(self, observation_space: spaces.Space[Any], normalized_image: bool = False) -> None:
        layers = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
        super().__init__(observation_space, layers, normalized_image=normalized_image)


class DrqConvolutions(Convolutions):
    """Apply DrQ-v2's four convolutions of 3 x 3, which see finer detail than NatureCNN's and are slower.

    Source: Yarats et al. 2021, "Mastering Visual Continuous Control" (DrQ-v2), its published code.
    """

    def __init__(self, observation_space: spaces.Space[Any], normalized_image: bool = False) -> None:
        layers = ((32, 3, 2), (32, 3, 1), (32, 3, 1), (32, 3, 1))
        super().__init__(observation_space, layers, offset=-0.5, normalized_image=normalized_image)


class CombinedEncoder(CombinedExtractor):
    """Extend Stable-Baselines3's CombinedExtractor by a choice of the image encoder; vectors pass unchanged.

    :param observation_space: Dict of channels-first images and of vectors
    :param image_encoder: class of each image's encoder
    :param normalized_image: True if the images are scaled already
    :raises ValueError: if the images are too small for the encoder
    """

    def __init__(
        self, observation_space: spaces.Dict, image_encoder: type[BaseFeaturesExtractor], normalized_image: bool = False
    ) -> None:
        extractors: dict[str, nn.Module] = {}
        features_dim = 0
        for key, part in observation_space.spaces.items():
            if is_picture(part, normalized_image):
                assert isinstance(part, spaces.Box)
                encoder = _encoder_of(part, image_encoder, normalized_image, key)
                extractors[key], n_features = encoder, encoder.features_dim
            else:
                extractors[key], n_features = nn.Flatten(), get_flattened_obs_dim(part)
            features_dim += n_features
        # This skips CombinedExtractor's own constructor, which would first build a NatureCNN for each image.
        super(CombinedExtractor, self).__init__(observation_space, features_dim)
        self.extractors = nn.ModuleDict(extractors)


def _encoder_of(
    picture: spaces.Box, image_encoder: type[BaseFeaturesExtractor], normalized_image: bool, key: str
) -> BaseFeaturesExtractor:
    """Build the encoder for one image of a Dict observation."""
    if image_encoder is NatureCNN and normalized_image and channels_are_last(picture):
        image_encoder = ChannelsLastNatureCNN
    try:
        return image_encoder(picture, normalized_image=normalized_image)  # type: ignore[call-arg]
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error


class Trunk(nn.Sequential):
    """Keep features within (-1, 1) by Linear -> LayerNorm -> Tanh, whatever the encoder outputs.

    Source: Yarats et al. 2021, "Mastering Visual Continuous Control" (DrQ-v2), its published code.
    """

    def __init__(self, features_dim: int, trunk_dim: int) -> None:
        super().__init__(nn.Linear(features_dim, trunk_dim), nn.LayerNorm(trunk_dim), nn.Tanh())


class PictureTrunk(nn.Module):
    """Apply a trunk to the features of pictures only; vectors pass unchanged.

    Among thousands of features, the few numbers of a vector would hardly change a trunk's output.

    :param features_extractor: the features extractor, which concatenates the features of its parts
    :param trunk_dim: width of the trunk
    """

    pictures: th.Tensor
    vectors: th.Tensor

    def __init__(self, features_extractor: nn.Module, trunk_dim: int) -> None:
        super().__init__()
        is_picture_column = th.tensor(_picture_columns(features_extractor))
        # The buffers are not saved, because they can be computed from the observation space.
        self.register_buffer("pictures", is_picture_column.nonzero().flatten(), persistent=False)
        self.register_buffer("vectors", (~is_picture_column).nonzero().flatten(), persistent=False)
        self.trunk = Trunk(len(self.pictures), trunk_dim)

    def forward(self, features: th.Tensor) -> th.Tensor:
        """Return the trunk's output for the pictures, followed by the unchanged vectors.

        :param features: ``(batch, features)``
        :return: ``(batch, trunk_dim + vectors)``
        """
        pictures: th.Tensor = self.trunk(features[:, self.pictures])
        return th.cat([pictures, features[:, self.vectors].to(pictures.dtype)], dim=1)


def _picture_columns(features_extractor: nn.Module) -> list[bool]:
    """Return one bool for each feature: whether it comes from a picture. An unknown class of extractor gives ``[]``."""
    if not isinstance(features_extractor, CombinedExtractor):
        return []
    space = features_extractor._observation_space
    assert isinstance(space, spaces.Dict)
    columns: list[bool] = []
    for key, part in features_extractor.extractors.items():
        if isinstance(part, BaseFeaturesExtractor):
            columns += [True] * part.features_dim
        else:
            columns += [False] * get_flattened_obs_dim(space[key])
    return columns


def trunk_for(features_extractor: nn.Module, features_dim: int, trunk_dim: int | None, skip: bool) -> nn.Module:
    """Return the trunk between an encoder and the heads.

    :param features_extractor: the encoder
    :param features_dim: number of features that it returns
    :param trunk_dim: width of the trunk; None returns the identity
    :param skip: True if the vectors of a Dict observation bypass the trunk
    """
    if trunk_dim is None:
        return nn.Identity()
    if skip:
        return PictureTrunk(features_extractor, trunk_dim)
    return Trunk(features_dim, trunk_dim)


def head_input_dim(features_extractor: nn.Module, features_dim: int, trunk_dim: int | None, skip: bool) -> int:
    """Return how many features each head reads: the trunk's output, and the vectors that bypass the trunk.

    The action, which a critic's head also reads, is not counted.

    :param features_extractor: the encoder
    :param features_dim: number of features that it returns
    :param trunk_dim: width of the trunk; None for no trunk
    :param skip: True if the vectors of a Dict observation bypass the trunk
    :raises ValueError: if ``skip`` is True, but there is no trunk, no picture or no vector
    """
    if trunk_dim is None and skip:
        raise ValueError(
            "vectors_skip_trunk=True, trunk_dim=None: expected a trunk; set trunk_dim=50, or drop vectors_skip_trunk"
        )
    if trunk_dim is None:
        return features_dim
    if not skip:
        return trunk_dim
    is_picture_column = _picture_columns(features_extractor)
    n_vectors = len(is_picture_column) - sum(is_picture_column)
    if n_vectors in {0, len(is_picture_column)}:
        raise ValueError(
            f"vectors_skip_trunk=True with {type(features_extractor).__name__}: expected a Dict observation with at "
            "least one picture and one vector, and a features extractor that inherits from CombinedExtractor. "
            "Otherwise remove vectors_skip_trunk"
        )
    return trunk_dim + n_vectors


def features_extractor_for(encoder_arch: EncoderArch, trunk_dim: int | None) -> type[BaseFeaturesExtractor]:
    """Return the features extractor class for an ``encoder_arch``.

    :param encoder_arch: ``"nature"``, ``"drq"`` or the user's features extractor class
    :param trunk_dim: width of the trunk; with None there is no trunk, and ``"nature"`` ends with a dense layer of 512
    :raises ValueError: if the name is unknown
    """
    if isinstance(encoder_arch, type) and issubclass(encoder_arch, BaseFeaturesExtractor):
        return encoder_arch
    if encoder_arch == "nature":
        return NatureCNN if trunk_dim is None else NatureConvolutions
    if encoder_arch == "drq":
        return DrqConvolutions
    raise ValueError(f"encoder_arch={encoder_arch!r}: expected 'nature', 'drq' or a subclass of BaseFeaturesExtractor")
