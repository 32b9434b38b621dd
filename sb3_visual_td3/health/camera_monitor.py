"""Watches what the environment shows, step by step: a replayed batch shows a camera that froze far too late."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch as th

from sb3_visual_td3.common import tags
from sb3_visual_td3.common.types import Points
from sb3_visual_td3.health.frames import frame_change, frame_std

UInt8Array = npt.NDArray[np.uint8]
Observed = npt.NDArray[np.generic] | Mapping[str, npt.NDArray[np.generic]]


class CameraMonitor:
    """Takes standard deviation and change of the frames that the environment gives.

    The change is taken at every step, the deviation at one in ``sample_freq``. The step to the first frame of an
    episode counts: a frozen camera is frozen across resets, a car that stands still is not.

    :param sample_freq: how many steps lie between two points
    :raises ValueError: if ``sample_freq`` is below 1
    """

    def __init__(self, sample_freq: int = 10) -> None:
        if sample_freq < 1:
            raise ValueError(f"sample_freq={sample_freq}: expected a number of steps >= 1")
        self.sample_freq = sample_freq
        self._previous: list[UInt8Array] = []
        self._unseen: list[list[UInt8Array]] = []
        self._changes: list[float] = []
        self._points: dict[str, list[tuple[int, float]]] = {}
        self._unread: dict[str, list[float]] = {}

    def see(self, observations: Observed, n_updates: int) -> None:
        """Take one step of the environments.

        :param observations: what they gave, ``(n_envs, channels, height, width)`` uint8 or a dict with such images;
            all else is not looked at
        :param n_updates: updates made so far, for the points
        """
        # An environment may write its next frame into the array that it gave.
        self._unseen.append([image.copy() for image in images_in(observations)])
        if len(self._changes) + len(self._unseen) >= self.sample_freq:
            self._take_changes()
        if len(self._changes) >= self.sample_freq:
            self._add(tags.FRAME_CHANGE, n_updates, sum(self._changes) / len(self._changes))
            self._add(tags.FRAME_STD, n_updates, min(float(frame_std(_tensor(image))) for image in self._previous))
            self._changes.clear()

    def _take_changes(self) -> None:
        """Compare the frames that came since the last time: many in a row cost less than one by one."""
        for images in self._unseen:
            if [image.shape for image in images] == [image.shape for image in self._previous] and images:
                pairs = zip(images, self._previous, strict=True)
                # Several cameras: the one that moves least, for it alone may have frozen.
                self._changes.append(min(float(frame_change(_tensor(new), _tensor(old))) for new, old in pairs))
            self._previous = images
        self._unseen.clear()

    def _add(self, tag: str, n_updates: int, value: float) -> None:
        self._points.setdefault(tag, []).append((n_updates, value))
        self._unread.setdefault(tag, []).append(value)

    def read(self) -> dict[str, float]:
        """Hand over the means since the last call.

        :return: by tag; empty without images
        """
        unread, self._unread = self._unread, {}
        return {tag: sum(values) / len(values) for tag, values in unread.items()}

    def read_points(self) -> Points:
        """Hand over the single points since the last call, for a live window."""
        points, self._points = self._points, {}
        return points

    def get_state(self) -> dict[str, Any]:
        """:return: the last frames, and what has not been read, as plain data"""
        self._take_changes()
        return {
            "previous": list(self._previous),
            "changes": list(self._changes),
            "points": {tag: [list(point) for point in points] for tag, points in self._points.items()},
            "unread": {tag: list(values) for tag, values in self._unread.items()},
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from where ``get_state`` was called."""
        self._unseen.clear()
        self._previous = [np.array(image) for image in state["previous"]]
        self._changes = list(state["changes"])
        self._points = {tag: [(n, value) for n, value in points] for tag, points in state["points"].items()}
        self._unread = {tag: list(values) for tag, values in state["unread"].items()}


def images_in(observations: Observed) -> list[UInt8Array]:
    """:return: the ``(n, channels, height, width)`` uint8 arrays among the observations"""
    values = list(observations.values()) if isinstance(observations, Mapping) else [observations]
    return [cast(UInt8Array, value) for value in values if value.ndim == 4 and value.dtype == np.uint8]


def _tensor(image: UInt8Array) -> th.Tensor:
    return th.from_numpy(np.ascontiguousarray(image))
