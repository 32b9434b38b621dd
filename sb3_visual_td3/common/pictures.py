"""Find the pictures in an observation space.

All modules use these functions, so a grid of lidar distances or a mask is not mistaken for a camera image.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

THE_ONLY_PART = "observation"
"""Key that stands for the whole observation where the space is not a Dict."""
_MOST_CHANNELS, _LEAST_PIXELS = 16, 16


def parts_of(space: spaces.Space[Any]) -> Mapping[str, spaces.Space[Any]]:
    """Return the parts of a Dict space by key; any other space counts as a single part.

    :param space: space of the observations
    :return: spaces by key; the key of a single part is :data:`THE_ONLY_PART`
    """
    if isinstance(space, spaces.Dict):
        return space.spaces
    return {THE_ONLY_PART: space}


def is_picture(space: spaces.Space[Any], is_scaled: bool = False) -> bool:
    """Return whether a space holds pictures, by the rule of Stable-Baselines3's ``is_image_space``.

    :param space: space of an observation, or of one entry of a Dict
    :param is_scaled: whether the environment has scaled its pictures already (``normalize_images=False``)
    :return: True for a ``uint8`` Box with three axes and bounds 0 and 255; with ``is_scaled``, True for every Box with
        three axes
    """
    if not isinstance(space, spaces.Box) or len(space.shape) != 3:
        return False
    return is_scaled or bool(space.dtype == np.uint8 and np.all(space.low == 0) and np.all(space.high == 255))


def pictures_in(space: spaces.Space[Any], is_scaled: bool = False) -> dict[str, spaces.Box]:
    """Return the pictures of an observation space by key.

    :param space: space of the observations
    :param is_scaled: see :func:`is_picture`
    :return: picture spaces by key, see :func:`parts_of`
    """
    return {
        key: part
        for key, part in parts_of(space).items()
        if isinstance(part, spaces.Box) and is_picture(part, is_scaled)
    }


def pictures_read(
    space: spaces.Space[Any], normalize_images: bool, features_extractor_class: type
) -> dict[str, spaces.Box]:
    """Return the pictures that a policy of Stable-Baselines3 or of this package reads, by key.

    :param space: space of the observations
    :param normalize_images: the policy's argument; False if the environment has scaled its pictures already
    :param features_extractor_class: class of the policy's features extractor
    :return: picture spaces by key, see :func:`parts_of`
    """
    # MlpPolicy flattens its observations, so a float Box with three axes is not a picture there.
    return pictures_in(space, is_scaled=not normalize_images and not flattens(features_extractor_class))


def flattens(features_extractor_class: type) -> bool:
    """Return whether a features extractor makes a vector of the whole observation, as that of MlpPolicy does.

    :param features_extractor_class: class of the policy's features extractor
    """
    # The class is compared by name, because this module must not import Stable-Baselines3.
    return any(cls.__name__ == "FlattenExtractor" for cls in features_extractor_class.__mro__)


def looks_like_picture(space: spaces.Space[Any]) -> bool:
    """Return whether a space has the shape of a camera image, whatever its numbers are.

    :param space: space of an observation, or of one entry of a Dict
    :return: True for a Box with three axes, if the first or the last axis has at most 16 channels and each of the
        other two axes has at least 16 pixels
    """
    if not isinstance(space, spaces.Box) or len(space.shape) != 3:
        return False
    first, middle, last = space.shape
    n_channels, side = min((first, last), (last, first))
    return n_channels <= _MOST_CHANNELS and min(middle, side) >= _LEAST_PIXELS


def channels_are_last(picture: spaces.Box) -> bool:
    """Return whether a picture has the shape ``(height, width, channels)``.

    The channels are assumed to be the smallest axis, as in Stable-Baselines3.
    """
    return picture.shape[2] < min(picture.shape[:2])
