"""What in an observation space is a picture: decided here, and asked by everything that treats pictures differently.

Random shifts, encoders, the preset, the replay buffer and the camera's health measures all ask these functions, so
that none of them takes a grid of lidar distances or a mask for a camera.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

THE_ONLY_PART = "observation"


def parts_of(space: spaces.Space[Any]) -> Mapping[str, spaces.Space[Any]]:
    """Return the parts of a Dict space by key, and any other space as the only part."""
    return space.spaces if isinstance(space, spaces.Dict) else {THE_ONLY_PART: space}


def is_picture(space: spaces.Space[Any], is_scaled: bool = False) -> bool:
    """Tell whether a space holds pictures, by the rule of Stable-Baselines3's ``is_image_space``.

    :param space: of one observation, or of one entry of a Dict
    :param is_scaled: whether pictures come in already scaled (``normalize_images=False``). Nothing but its three axes
        tells such a picture, so every Box with three axes is one
    :return: whether it is a Box with three axes, and of ``uint8`` within exactly [0, 255] unless ``is_scaled``
    """
    if not isinstance(space, spaces.Box) or len(space.shape) != 3:
        return False
    return is_scaled or bool(space.dtype == np.uint8 and np.all(space.low == 0) and np.all(space.high == 255))


def pictures_in(space: spaces.Space[Any], is_scaled: bool = False) -> dict[str, spaces.Box]:
    """Return the pictures of an observation space by key.

    :param space: of the observations
    :param is_scaled: as in :func:`is_picture`
    :return: by key; the key of a space that is no Dict is :data:`THE_ONLY_PART`
    """
    return {
        key: part
        for key, part in parts_of(space).items()
        if isinstance(part, spaces.Box) and is_picture(part, is_scaled)
    }


def channels_are_last(picture: spaces.Box) -> bool:
    """Tell whether a picture is ``(height, width, channels)``: the channels are the smallest of the three axes."""
    return picture.shape[2] < min(picture.shape[:2])
