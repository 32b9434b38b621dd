"""Which parts of an observation are camera frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

THE_ONLY_PART = "observation"


def parts_of(space: spaces.Space[Any]) -> Mapping[str, spaces.Space[Any]]:
    """:return: the parts of a Dict space by key; another space as the only part"""
    return space.spaces if isinstance(space, spaces.Dict) else {THE_ONLY_PART: space}


def is_camera(space: spaces.Space[Any]) -> bool:
    """:return: whether the space holds uint8 images"""
    return isinstance(space, spaces.Box) and len(space.shape) == 3 and space.dtype == np.uint8


def cameras_in(space: spaces.Space[Any]) -> dict[str, tuple[int, ...]]:
    """:return: by key, the shapes of the images that are there"""
    return {key: part.shape or () for key, part in parts_of(space).items() if is_camera(part)}


def holds_frames(space: spaces.Space[Any]) -> bool:
    """:return: whether a FrameReplayBuffer can hold these observations"""
    try:
        return bool(frame_stacks_of(space, 1))
    except ValueError:
        return False


def frame_stacks_of(space: spaces.Space[Any], frame_stack: int) -> dict[str, int]:
    """Decide how many frames each image holds.

    :param space: of the observations
    :param frame_stack: how many frames are stacked
    :return: by key of an image: ``frame_stack``, or 1 for an image beside them that it does not divide
    :raises ValueError: if there is no uint8 image, one with its channels last, or none that ``frame_stack`` divides
    """
    cameras = cameras_in(space)
    if not cameras:
        kind = "DictReplayBuffer" if isinstance(space, spaces.Dict) else "ReplayBuffer"
        raise ValueError(
            f"{space}: expected uint8 images (channels, height, width), which FrameReplayBuffer stores once each. "
            f"For other observations use Stable-Baselines3's {kind}, or NStepReplayBuffer for n_steps above 1"
        )
    for key, shape in cameras.items():
        if shape[2] < min(shape[:2]):
            raise ValueError(
                f"{key} is {shape}: expected channels first, (channels, height, width). Wrap the environment in "
                "VecTransposeImage, as Stable-Baselines3's algorithms do"
            )
    if frame_stack < 1:
        raise ValueError(f"frame_stack={frame_stack}: expected 1 (not known, or none) or more frames")
    stacks = {key: frame_stack if shape[0] % frame_stack == 0 else 1 for key, shape in cameras.items()}
    if frame_stack > 1 and set(stacks.values()) == {1}:
        channels = ", ".join(f"{key} has {shape[0]} channels" for key, shape in cameras.items())
        raise ValueError(f"frame_stack={frame_stack}: {channels}, expected a multiple. 1 shares whole observations")
    return stacks
