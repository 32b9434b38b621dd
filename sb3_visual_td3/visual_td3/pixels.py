"""A batch of images as the encoders compute with it, converted once for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space, preprocess_obs
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, NatureCNN

from sb3_visual_td3.visual_td3.batches import Observations, Prepared
from sb3_visual_td3.visual_td3.encoders import Convolutions

PIXEL_MAX = 255.0


class Preparation:
    """Turns observations into what every network's features extractor takes.

    Stable-Baselines3 does so once for each network that looks at them.

    :param space: what is observed
    :param extractor: one that is going to read it; images for an unknown kind stay contiguous
    :param normalize_images: whether pixels are scaled to [0, 1]
    :param dtype: of the images; all else becomes float32
    """

    def __init__(
        self, space: spaces.Space[Any], extractor: BaseFeaturesExtractor, normalize_images: bool, dtype: th.dtype
    ) -> None:
        self._space = space
        self._normalize_images = normalize_images
        self._dtype = dtype
        is_known = isinstance(extractor, NatureCNN | Convolutions | CombinedExtractor)
        self._layout = th.channels_last if is_known else th.contiguous_format

    def __call__(self, observations: Observations) -> Prepared:
        """:return: the same observations; images are ``(batch, channels, height, width)`` in [0, 1]"""
        if isinstance(observations, Mapping):
            assert isinstance(self._space, spaces.Dict)
            return Prepared({key: self._part(value, self._space[key]) for key, value in observations.items()})
        return Prepared(self._part(observations, self._space))

    def _part(self, values: th.Tensor, space: spaces.Space[Any]) -> th.Tensor:
        if not (self._normalize_images and is_image_space(space)):
            part = preprocess_obs(values, space, self._normalize_images)
            assert isinstance(part, th.Tensor)
            return part
        # The bytes are moved before they are widened: there are fewer of them then.
        return values.contiguous(memory_format=self._layout).to(self._dtype).div_(PIXEL_MAX)
