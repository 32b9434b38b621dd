"""What a policy may be shown."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecNormalize

from sb3_visual_td3.common.errors import InvalidSettingError
from sb3_visual_td3.common.pictures import is_picture, parts_of


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
        scaled = _pictures_scaled_by(normalizer)
        if scaled:
            raise InvalidSettingError(
                f"VecNormalize scales the pixels of {', '.join(sorted(scaled))}, which the policy does already. "
                "Normalise rewards only: {norm_obs: false, norm_reward: true}, or name the vectors in norm_obs_keys"
            )


def _pictures_scaled_by(normalizer: VecNormalize) -> set[str]:
    """:return: the keys of the pictures that VecNormalize scales

    Around a Dict, VecNormalize replaces the space of each picture that it scales by a Box within its own limits, in the
    very Dict that the environment below holds. So the space says no more that there was a picture, and what the
    environment's observations are made of is asked.
    """
    found = set()
    replaced = parts_of(normalizer.observation_space)
    for key, part in parts_of(normalizer.venv.observation_space).items():
        if normalizer.norm_obs_keys is not None and key not in normalizer.norm_obs_keys:
            continue
        if is_picture(part) or (_is_limit(replaced[key], normalizer.clip_obs) and _was_uint8(normalizer, key)):
            found.add(key)
    return found


def _is_limit(space: spaces.Space[Any], limit: float) -> bool:
    """:return: whether a space is what VecNormalize puts in the place of a picture's"""
    if not isinstance(space, spaces.Box) or not is_picture(space, is_scaled=True) or space.dtype != np.float32:
        return False
    return bool(np.all(space.low == np.float32(-limit)) and np.all(space.high == np.float32(limit)))


def _was_uint8(normalizer: VecNormalize, key: str) -> bool:
    """:return: whether the environment gives bytes under this key, as far as it can be found out; else True"""
    env = normalizer.unwrapped
    # DummyVecEnv made room for observations before VecNormalize changed the space that both of them hold.
    room = getattr(env, "buf_obs", None)
    if isinstance(room, dict) and key in room:
        return bool(room[key].dtype == np.uint8)
    try:  # environments in other processes have spaces of their own
        space = parts_of(env.get_attr("observation_space", 0)[0]).get(key)
    except (AttributeError, NotImplementedError):  # a user's VecEnv without this method
        return True
    return space is None or bool(space.dtype == np.uint8)


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
    given = parts_of(normalizer.venv.observation_space)
    for key, part in parts_of(space).items():
        if key not in given or given[key].shape == part.shape:
            continue
        if is_picture(part) and part.shape == (given[key].shape[2], *given[key].shape[:2]):  # type: ignore[index]
            raise InvalidSettingError(
                f"{key} is {given[key].shape} inside VecNormalize and {part.shape} where the policy sees it: "
                "Stable-Baselines3 transposes it outside, and replay would hold the untransposed one. Put "
                f"VecTransposeImage inside: VecNormalize(VecTransposeImage(env), norm_obs_keys="
                f"{sorted(set(normalizer.norm_obs_keys or given) - {key})!r}), or have the environment give channels "
                "first"
            )
        if normalizer.norm_obs_keys is None or key in normalizer.norm_obs_keys:
            raise InvalidSettingError(
                f"VecNormalize scales {key} of shape {given[key].shape}, and the policy sees {part.shape}: it lies "
                "inside a VecFrameStack or another wrapper that changes the shape, and replay would hold the wrong "
                "one. Put VecNormalize outside, or normalise rewards only: {norm_obs: false, norm_reward: true}"
            )
        raise InvalidSettingError(
            f"{key} is {given[key].shape} inside VecNormalize and {part.shape} where the policy sees it: a wrapper "
            "outside VecNormalize changes its shape, and replay would hold the one inside. Put VecNormalize outside, "
            "or normalise rewards only: {norm_obs: false, norm_reward: true}"
        )
