"""Convert between CARLA's coordinates and this package's coordinates, and convert CARLA's images to frames.

CARLA's axes are left-handed: y points to the right of x, and yaw is clockwise, in degrees. This package's axes are
right-handed, so y and yaw change their sign.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.envs.road.shapes import Pose

WHEELBASE_PER_LENGTH = 2.9 / 4.4
"""If the server does not report a car's wheels, its wheelbase is assumed to be this fraction of the car's length."""


class CarlaPose(NamedTuple):
    """Describe a place and a direction in CARLA's coordinates."""

    x_m: float
    y_m: float
    yaw_deg: float


def to_carla(pose: Pose) -> CarlaPose:
    """Convert a pose from this package's coordinates to CARLA's coordinates."""
    return CarlaPose(pose.x_m, -pose.y_m, -math.degrees(pose.heading_rad))


def from_carla(x_m: float, y_m: float, yaw_deg: float) -> Pose:
    """Convert a pose from CARLA's coordinates to this package's coordinates.

    :param x_m: CARLA's x
    :param y_m: CARLA's y, positive to the right
    :param yaw_deg: CARLA's yaw in degrees, clockwise
    :return: a pose with a heading in [-pi, pi]
    """
    return Pose(x_m, -y_m, -math.remainder(math.radians(yaw_deg), 2.0 * math.pi))


def image_array(raw: bytes, height: int, width: int) -> NDArray[np.uint8]:
    """Return CARLA's raw image as an array, without a copy.

    :param raw: the bytes of the sensor's message
    :param height: height in pixels
    :param width: width in pixels
    :return: ``(height, width, 4) uint8``: blue, green, red, alpha
    :raises ValueError: if the number of bytes is wrong; CARLA's client may deliver a truncated image
    """
    if len(raw) != height * width * 4:
        raise ValueError(
            f"an image of {len(raw)} bytes: expected {height * width * 4} for {width}x{height} pixels; "
            "the image is truncated"
        )
    return np.frombuffer(raw, np.uint8).reshape(height, width, 4)


def to_frame(image: NDArray[np.uint8], side: int, *, grayscale: bool) -> NDArray[np.uint8]:
    """Convert a camera image to a frame of the policy.

    :param image: ``(height, width, 4) uint8``, BGRA
    :param side: height and width of the frame
    :param grayscale: True for grey (ITU-R BT.601), False for RGB
    :return: ``(side, side) uint8`` in grey, ``(3, side, side) uint8`` in RGB; a new array
    """
    frame = cv2.cvtColor(image, cv2.COLOR_BGRA2GRAY if grayscale else cv2.COLOR_BGRA2RGB)
    if frame.shape[:2] != (side, side):
        # Averaging areas avoids moiré when the image shrinks; it would give blocks when the image grows.
        is_smaller = side < min(frame.shape[:2])
        frame = cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA if is_smaller else cv2.INTER_LINEAR)
    if not grayscale:
        frame = np.ascontiguousarray(frame.transpose(2, 0, 1))
    return np.asarray(frame, dtype=np.uint8)


def map_name_of(path: str) -> str:
    """Return the short name of a CARLA map: ``"Town01"`` for ``"Carla/Maps/Town01"``."""
    return path.rstrip("/").rsplit("/", maxsplit=1)[-1]
