"""Which parts of an observation are camera frames."""

from __future__ import annotations

from typing import Any

from gymnasium import spaces

from sb3_visual_td3.common.pictures import channels_are_last, pictures_in


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
    cameras = pictures_in(space)
    if not cameras:
        kind = "DictReplayBuffer" if isinstance(space, spaces.Dict) else "ReplayBuffer"
        raise ValueError(
            f"{space}: expected uint8 images (channels, height, width) in [0, 255], which FrameReplayBuffer stores "
            f"once each. For others use Stable-Baselines3's {kind}, or NStepReplayBuffer for n_steps above 1"
        )
    for key, camera in cameras.items():
        if channels_are_last(camera):
            raise ValueError(
                f"{key} is {camera.shape}: expected channels first, (channels, height, width). Wrap the environment in "
                "VecTransposeImage, as Stable-Baselines3's algorithms do"
            )
    if frame_stack < 1:
        raise ValueError(f"frame_stack={frame_stack}: expected 1 (not known, or none) or more frames")
    stacks = {key: frame_stack if camera.shape[0] % frame_stack == 0 else 1 for key, camera in cameras.items()}
    if frame_stack > 1 and set(stacks.values()) == {1}:
        channels = ", ".join(f"{key} has {camera.shape[0]} channels" for key, camera in cameras.items())
        raise ValueError(f"frame_stack={frame_stack}: {channels}, expected a multiple. 1 shares whole observations")
    return stacks
