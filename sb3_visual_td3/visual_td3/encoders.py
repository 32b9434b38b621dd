"""From pixels to features: the convolution stack and the trunk behind it."""

from __future__ import annotations

from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, NatureCNN
from torch import nn

EncoderArch = str | type[BaseFeaturesExtractor]


class NatureConvolutions(BaseFeaturesExtractor):
    """The three convolutions of NatureCNN without its dense layer, for use with a trunk.

    Weights are kept channels-last, which is the fast layout for convolutions on CPUs and tensor cores.

    :param observation_space: Box ``(channels, height, width)`` uint8, channel first
    :param normalized_image: whether the images come in already scaled (no dtype and bounds checks then)
    :raises ValueError: if the space holds no channel-first images of at least 36 x 36 pixels

    Source: Mnih et al. 2015, "Human-level control through deep reinforcement learning", Methods.
    """

    def __init__(self, observation_space: spaces.Space[Any], normalized_image: bool = False) -> None:
        if not isinstance(observation_space, spaces.Box) or not is_image_space(
            observation_space, check_channels=False, normalized_image=normalized_image
        ):
            raise ValueError(f"expected channel-first uint8 images, got {observation_space}")
        n_channels, height, width = observation_space.shape
        if min(height, width) < 36:
            raise ValueError(f"images of {height} x {width} pixels are too small for NatureCNN: 36 x 36 at least")
        convolutions = nn.Sequential(
            nn.Conv2d(n_channels, 32, kernel_size=8, stride=4),
            nn.ReLU(),
            nn.Conv2d(32, 64, kernel_size=4, stride=2),
            nn.ReLU(),
            nn.Conv2d(64, 64, kernel_size=3, stride=1),
            nn.ReLU(),
            nn.Flatten(),
        )
        with th.no_grad():
            n_features = convolutions(th.zeros(1, n_channels, height, width)).shape[1]
        super().__init__(observation_space, features_dim=n_features)
        self.cnn = convolutions.to(memory_format=th.channels_last)  # type: ignore[call-overload]

    def forward(self, observations: th.Tensor) -> th.Tensor:
        """:return: ``(batch, features_dim)`` non-negative features of ``(batch, channels, height, width)`` images"""
        features: th.Tensor = self.cnn(observations.contiguous(memory_format=th.channels_last))
        return features


class Trunk(nn.Sequential):
    """Linear -> LayerNorm -> Tanh: keeps features in (-1, 1) whatever the encoder does.

    Source: Yarats et al. 2021, "Mastering Visual Continuous Control" (DrQ-v2), its published code.
    """

    def __init__(self, features_dim: int, trunk_dim: int) -> None:
        super().__init__(nn.Linear(features_dim, trunk_dim), nn.LayerNorm(trunk_dim), nn.Tanh())


def features_extractor_for(encoder_arch: EncoderArch, trunk_dim: int | None) -> type[BaseFeaturesExtractor]:
    """Find the encoder class of a name.

    :param encoder_arch: ``"nature"`` or a features extractor class of your own
    :param trunk_dim: width of the trunk; with one, ``"nature"`` is its convolutions alone, without one it is
        Stable-Baselines3's NatureCNN with its dense layer of 512
    :return: the class
    :raises ValueError: if the name is unknown
    """
    if isinstance(encoder_arch, type) and issubclass(encoder_arch, BaseFeaturesExtractor):
        return encoder_arch
    if encoder_arch == "nature":
        return NatureCNN if trunk_dim is None else NatureConvolutions
    raise ValueError(f"encoder_arch={encoder_arch!r}: expected 'nature' or a subclass of BaseFeaturesExtractor")
