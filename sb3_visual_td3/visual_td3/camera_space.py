"""What a policy may be shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.vec_env import VecNormalize

from sb3_visual_td3.common.errors import InvalidSettingError


def parts_of(space: spaces.Space[Any]) -> Mapping[str, spaces.Space[Any]]:
    """:return: the parts of a Dict space by key; a space of its own under the key ``"observation"``"""
    return space.spaces if isinstance(space, spaces.Dict) else {"observation": space}


def sees_images(space: spaces.Space[Any]) -> bool:
    """:return: whether the space, or a part of it, holds images"""
    return any(is_image_space(part) for part in parts_of(space).values())


def check_camera(space: spaces.Space[Any], normalizer: VecNormalize | None) -> None:
    """Refuse what no encoder here can read.

    :param space: what the policy is shown
    :param normalizer: the VecNormalize around the environment, if any
    :raises InvalidSettingError: for stacks with an axis of their own, and for pixels that VecNormalize scales
    """
    for key, part in parts_of(space).items():
        if isinstance(part, spaces.Box) and len(part.shape) == 4 and part.dtype == np.uint8:
            raise InvalidSettingError(
                f"{key} is {part.shape}: a stack of images with an axis of its own. Put the frames into the channels: "
                "stack with VecFrameStack, or make the frames grey and without a channel axis "
                "(GrayscaleObservation(keep_dim=False)) before FrameStackObservation"
            )
    if normalizer is not None and normalizer.norm_obs:
        images = {key for key, part in parts_of(normalizer.venv.observation_space).items() if is_image_space(part)}
        scaled = images if normalizer.norm_obs_keys is None else images & set(normalizer.norm_obs_keys)
        if scaled:
            raise InvalidSettingError(
                f"VecNormalize scales the pixels of {', '.join(sorted(scaled))}, which the policy does already. "
                "Normalise rewards only: {norm_obs: false, norm_reward: true}, or name the vectors in norm_obs_keys"
            )


def check_normalizer(space: spaces.Space[Any], normalizer: VecNormalize | None) -> None:
    """Refuse a VecNormalize whose observations are not those that the policy sees.

    Replay holds observations as they were before they were scaled, and scales them when they are sampled: both are
    VecNormalize's, of its own shape.

    :param space: what the policy is shown
    :param normalizer: the VecNormalize around the environment, if any
    :raises InvalidSettingError: if observations are scaled and then stacked or transposed
    """
    if normalizer is None or not normalizer.norm_obs:
        return
    scaled = parts_of(normalizer.venv.observation_space)
    for key, part in parts_of(space).items():
        if key in scaled and scaled[key].shape != part.shape:
            raise InvalidSettingError(
                f"VecNormalize scales {key} of shape {scaled[key].shape}, and the policy sees {part.shape}: it lies "
                "inside a VecFrameStack or another wrapper that changes the shape, and replay would hold the wrong "
                "one. Put VecNormalize outside, or normalise rewards only: {norm_obs: false, norm_reward: true}"
            )
