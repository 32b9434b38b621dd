"""Conversion between CARLA's coordinates and ours, and of CARLA's images to frames.

CARLA's axes are left-handed: y points to the right of x, and yaw turns clockwise, in degrees.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

WHEELBASE_PER_LENGTH = 2.9 / 4.4
"""Of a passenger car: CARLA tells the size of the body, but where its wheels stand only on some servers."""


class Pose(NamedTuple):
    """A place on the ground in the task's coordinates: right-handed, yaw counter-clockwise from x."""

    x_m: float
    y_m: float
    yaw_rad: float


class CarlaPose(NamedTuple):
    """The same place in CARLA's coordinates."""

    x_m: float
    y_m: float
    yaw_deg: float


def to_carla(pose: Pose) -> CarlaPose:
    """Return the place as CARLA names it."""
    return CarlaPose(pose.x_m, -pose.y_m, -math.degrees(pose.yaw_rad))


def from_carla(x_m: float, y_m: float, yaw_deg: float) -> Pose:
    """Return the place as the task names it; yaw in [-pi, pi]."""
    return Pose(x_m, -y_m, -math.remainder(math.radians(yaw_deg), 2.0 * math.pi))


def image_array(raw: bytes, height: int, width: int) -> NDArray[np.uint8]:
    """Return CARLA's raw image as ``(height, width, 4) uint8``: blue, green, red, alpha. No copy.

    :param raw: what the sensor sent.
    :param height: in pixels.
    :param width: in pixels.
    :raises ValueError: if there are not as many bytes as the size needs: CARLA's client hands over truncated images.
    """
    if len(raw) != height * width * 4:
        raise ValueError(f"an image of {len(raw)} bytes: expected {height * width * 4} for {width}x{height} pixels")
    return np.frombuffer(raw, np.uint8).reshape(height, width, 4)


def to_frame(image: NDArray[np.uint8], side: int, *, grayscale: bool) -> NDArray[np.uint8]:
    """Return a camera image as the policy sees it, a new array.

    :param image: ``(height, width, 4) uint8``, BGRA.
    :param side: height and width of the frame.
    :param grayscale: ``(side, side)`` in grey (0.299 R + 0.587 G + 0.114 B); otherwise ``(3, side, side)`` in RGB.
    """
    frame = cv2.cvtColor(image, cv2.COLOR_BGRA2GRAY if grayscale else cv2.COLOR_BGRA2RGB)
    if frame.shape[:2] != (side, side):
        is_smaller = side < min(frame.shape[:2])
        frame = cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA if is_smaller else cv2.INTER_LINEAR)
    return np.asarray(frame if grayscale else np.ascontiguousarray(frame.transpose(2, 0, 1)), dtype=np.uint8)


def map_name_of(path: str) -> str:
    """Return ``"Town01"`` for ``"Carla/Maps/Town01"``, as people name maps."""
    return path.rstrip("/").rsplit("/", maxsplit=1)[-1]
