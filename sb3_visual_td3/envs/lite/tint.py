"""Colours for what the camera draws in grey: a bluish sky, a greenish land, a grey road.

The grey of a tinted picture (0.299 R + 0.587 G + 0.114 B) is the grey that it was made of.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_LUMINANCE = np.array([0.299, 0.587, 0.114])
"""Source: ITU-R BT.601; OpenCV's conversion of RGB to grey."""
_GREYS = np.arange(256)


def _table(red: float, green: float, blue: float) -> NDArray[np.uint8]:
    """Return ``(256, 3) uint8``: the colour of every grey, as bright as the grey."""
    tint = np.array([red, green, blue])
    tint /= tint @ _LUMINANCE
    return np.asarray(np.clip(np.rint(_GREYS[:, None] * tint), 0, 255), np.uint8)


_SKY = _table(0.86, 0.97, 1.14)
_LAND = _table(0.86, 1.06, 0.62)
_ROAD = _table(1.0, 1.0, 1.0)
_ALL = np.concatenate([_LAND, _ROAD, _SKY])
"""256 entries each."""


def tinted(grey: NDArray[np.uint8], paved: NDArray[np.uint8], horizon: int) -> NDArray[np.uint8]:
    """Return a picture in colour, ``(height, width, 3) uint8``, RGB.

    :param grey: ``(height, width) uint8``.
    :param paved: likewise: 128 or more where the road is seen.
    :param horizon: the row at which the ground begins.
    """
    plain = np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), np.uint8)
    colours = np.empty_like(plain)
    cv2.LUT(plain[:horizon], _SKY[None], dst=colours[:horizon])
    ground = colours[horizon:]
    cv2.LUT(plain[horizon:], _LAND[None], dst=ground)
    cv2.copyTo(plain[horizon:], cv2.threshold(paved[horizon:], 127, 255, cv2.THRESH_BINARY)[1], ground)
    return colours


def tinted_by_kind(grey: NDArray[np.uint8], paved: NDArray[np.uint8], is_sky: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return a picture in colour like ``tinted``, for a camera that looks anywhere.

    :param grey: ``(height, width) uint8``.
    :param paved: likewise: 128 or more where the road is seen.
    :param is_sky: ``(height, width)``, where neither road nor land is seen.
    """
    entry = grey.astype(np.intp) + ((paved >> 7).astype(np.intp) << 8)
    entry[is_sky] = grey[is_sky].astype(np.intp) + 512
    return np.take(_ALL, entry, axis=0)
