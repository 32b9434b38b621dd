"""Measure the contrast of the camera's frames, and their change from step to step.

The frames of a covered lens have no contrast, and the frames of a frozen camera do not change.

With several environments, the contrast is that of the environment with the least, because one covered lens among many
would hardly change the mean. The change is the mean over the environments, because the frames of a single car that
stands still do not change either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th
from gymnasium import spaces

from sb3_visual_td3.common import tags
from sb3_visual_td3.common.numbers import to_integer
from sb3_visual_td3.common.pictures import THE_ONLY_PART, channels_are_last, is_picture
from sb3_visual_td3.common.types import Points


def frame_std(frames: th.Tensor) -> th.Tensor:
    """Return the smallest contrast of the given frames.

    The contrast of a frame is the standard deviation of the pixels of a channel, averaged over the channels.

    :param frames: ``(batch, channels, height, width)`` uint8
    :return: a scalar >= 0 in grey levels; 0 if each channel of a frame has a single colour
    """
    return frames.flatten(start_dim=2).float().std(dim=2, correction=0).mean(dim=1).min()


def frame_change(frames: th.Tensor, previous: th.Tensor) -> th.Tensor:
    """Return the mean absolute difference between frames and the frames one step earlier.

    :param frames: frames or frame stacks, ``(batch, channels, height, width)`` uint8
    :param previous: the frames or frame stacks one step earlier, of the same shape
    :return: a scalar in [0, 255] grey levels; exactly 0 if no pixel changed
    """
    # Bytes are unsigned, so the smaller value is subtracted from the larger one.
    difference = th.maximum(frames, previous) - th.minimum(frames, previous)
    return difference.float().mean()


Images = npt.NDArray[Any]
Observed = npt.NDArray[Any] | Mapping[str, npt.NDArray[Any]]


class CameraMonitor:
    """Measure standard deviation and change of the frames that the environment returns.

    The change is measured at every step, and the standard deviation once every ``sample_freq`` steps. The change at a
    reset is included: if the car stands still, this change shows that the camera is not frozen.

    :param sample_freq: number of steps between two recorded values
    :param pictures: the image spaces by key, from :func:`~sb3_visual_td3.common.pictures.pictures_in`; None treats
        every uint8 array ``(n_envs, channels, height, width)`` as an image
    :raises ValueError: if ``sample_freq`` is not an integer >= 1
    """

    def __init__(self, sample_freq: int = 10, pictures: Mapping[str, spaces.Box] | None = None) -> None:
        self.sample_freq = to_integer("sample_freq", sample_freq, 1)
        self._grey_levels = None if pictures is None else _grey_levels(pictures)
        self._previous: list[Images] = []
        self._unseen: list[list[Images]] = []
        self._changes: list[float] = []
        self._points: dict[str, list[tuple[int, float]]] = {}
        self._unread: dict[str, list[float]] = {}

    def see(self, observations: Observed, n_updates: int) -> None:
        """Measure the images among the observations of one step of the environments.

        :param observations: images ``(n_envs, channels, height, width)``, or a dict that contains such images; other
            parts are ignored
        :param n_updates: gradient updates made so far, recorded with each value
        """
        # Copied, because an environment may write its next frame into the same array.
        self._unseen.append([image.copy() for image in self._images_in(observations)])
        if len(self._changes) + len(self._unseen) >= self.sample_freq:
            self._measure_changes()
        if len(self._changes) >= self.sample_freq:
            self._add(tags.FRAME_CHANGE, n_updates, sum(self._changes) / len(self._changes))
            self._add(tags.FRAME_STD, n_updates, min(float(frame_std(_tensor(image))) for image in self._previous))
            self._changes.clear()

    def _images_in(self, observations: Observed) -> list[Images]:
        """Return the images, ``(n, channels, height, width)``, scaled so that black and white differ by 255."""
        if self._grey_levels is None:
            return images_in(observations)
        by_key = observations if isinstance(observations, Mapping) else {THE_ONLY_PART: observations}
        return [in_grey_levels(by_key[key]) for key, in_grey_levels in self._grey_levels.items() if key in by_key]

    def _measure_changes(self) -> None:
        """Measure the change from each collected frame to the next one, for all steps since the last call."""
        for images in self._unseen:
            if [image.shape for image in images] == [image.shape for image in self._previous] and images:
                pairs = zip(images, self._previous, strict=True)
                # With several cameras the one with the least change counts, because a single camera may have frozen.
                self._changes.append(min(float(frame_change(_tensor(new), _tensor(old))) for new, old in pairs))
            self._previous = images
        self._unseen.clear()

    def _add(self, tag: str, n_updates: int, value: float) -> None:
        self._points.setdefault(tag, []).append((n_updates, value))
        self._unread.setdefault(tag, []).append(value)

    def read(self) -> dict[str, float]:
        """Return the means of the measurements since the last call, by tag; empty if there was no image."""
        unread, self._unread = self._unread, {}
        return {tag: sum(values) / len(values) for tag, values in unread.items()}

    def read_points(self) -> Points:
        """Return each single measurement since the last call, for the alerts in training; ``read`` returns means."""
        points, self._points = self._points, {}
        return points

    def get_state(self) -> dict[str, Any]:
        """Return the last frames and all measurements that have not been read yet, as plain data."""
        self._measure_changes()
        return {
            "previous": list(self._previous),
            "changes": list(self._changes),
            "points": {tag: [list(point) for point in points] for tag, points in self._points.items()},
            "unread": {tag: list(values) for tag, values in self._unread.items()},
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore the state that ``get_state`` returned."""
        self._unseen.clear()
        self._previous = [np.array(image) for image in state["previous"]]
        self._changes = list(state["changes"])
        self._points = {tag: [(n, value) for n, value in points] for tag, points in state["points"].items()}
        self._unread = {tag: list(values) for tag, values in state["unread"].items()}


def images_in(observations: Observed) -> list[Images]:
    """Return the ``(n, channels, height, width)`` uint8 arrays among the observations."""
    values = list(observations.values()) if isinstance(observations, Mapping) else [observations]
    return [value for value in values if value.ndim == 4 and value.dtype == np.uint8]


def _grey_levels(pictures: Mapping[str, spaces.Box]) -> dict[str, Callable[[Images], Images]]:
    """Return, for each image space, a function that converts images to channels-first grey levels.

    The values are scaled so that black and white differ by 255. A space without finite bounds is left out.
    """
    found: dict[str, Callable[[Images], Images]] = {}
    for key, picture in pictures.items():
        if is_picture(picture):
            found[key] = lambda images: images
            continue
        low, high = float(picture.low.min()), float(picture.high.max())
        if not np.isfinite(high - low) or high <= low:
            continue
        order = (0, 3, 1, 2) if channels_are_last(picture) else (0, 1, 2, 3)
        scale = 255.0 / (high - low)
        found[key] = lambda images, order=order, scale=scale: images.transpose(order) * np.float32(scale)  # type: ignore[misc]
    return found


def _tensor(image: Images) -> th.Tensor:
    return th.from_numpy(np.ascontiguousarray(image))
