"""Apply light and weather to a grey value or to a whole picture, and draw streaks of rain.

Weather maps a grey value to ``gain * grey + veil``. The gain is the light (ambient light and the car's own headlights)
times the share that passes through the haze. The veil is the grey that the haze adds (Koschmieder's law of fog).
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

Weather = Literal["clear", "rain", "night", "random"]
WEATHERS: tuple[str, ...] = get_args(Weather)

_HALF_BEAM = 0.45
"""Tangent of a horizontal angle. At this angle from straight ahead, to either side, the headlights have 1 / e of the
brightness that they have straight ahead."""
_BEAM_M = 18.0
"""Distance at which the brightness of the headlights falls to 1 / e; a simple model, not a measured beam."""
_GAIN_UNIT = 128.0
"""Stored value for a gain of 1.0. The gains of a picture are stored as ``uint8``, so that OpenCV multiplies them in one
pass."""
_STREAK_GREY = 40
"""Brightness that a streak of rain adds."""


class Sky(NamedTuple):
    """Describe the light and the rain of one episode."""

    ambient: float
    """Number by which all grey values are multiplied, 1 on a clear day."""
    beam: float
    """Largest value that the car's own headlights add to ``ambient``."""
    haze_per_m: float
    """Extinction coefficient of the air: the part of the light that the air absorbs per metre."""
    haze_grey: float
    """Grey value of the haze itself, [0, 255]."""
    sky_ambient: float
    """Number by which all grey values above the horizon are multiplied."""
    streaks: float
    """Number of streaks of rain in a picture, divided by the square root of its number of pixels."""
    seed: int
    """Seed of the rain."""

    def gain_and_veil(self, distance_m: float, side: float) -> tuple[float, float]:
        """Return how the weather changes grey values at one place: ``grey`` becomes ``gain * grey + veil``.

        :param distance_m: metres from the camera, >= 0
        :param side: tangent of the horizontal angle between the place and straight ahead, either sign
        :return: the gain and the veil
        """
        lit = self.beam * math.exp(-distance_m / _BEAM_M - (side / _HALF_BEAM) ** 2)
        clear = math.exp(-self.haze_per_m * distance_m)
        return (self.ambient + lit) * clear, self.haze_grey * (1.0 - clear)

    def gains_and_veils(
        self, distances_m: NDArray[np.float32], sides: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return how the weather changes grey values at many places: ``grey`` becomes ``gain * grey + veil``.

        :param distances_m: ``(height, width) float32``: metres from the camera
        :param sides: ``(height, width) float32``: tangent of the horizontal angle between the place and straight ahead
        :return: the gains and the veils, new ``float32`` arrays of the same shape
        """
        lit = np.float32(self.beam) * np.exp(-distances_m / np.float32(_BEAM_M) - (sides / np.float32(_HALF_BEAM)) ** 2)
        clear = np.exp(np.float32(-self.haze_per_m) * distances_m)
        return (np.float32(self.ambient) + lit) * clear, np.float32(self.haze_grey) * (np.float32(1.0) - clear)


def choose_sky(weather: str, scene_seed: int) -> Sky | None:
    """Choose the light and the rain of an episode at random, within the limits of its weather.

    :param weather: ``"clear"``, ``"rain"``, ``"night"``, or ``"random"``: rain, night, or a day of any brightness
    :param scene_seed: seed of the choice
    :return: ``None`` on a clear day, which needs no filter
    """
    if weather == "clear":
        return None
    rng = np.random.default_rng([scene_seed, 2])  # not 1, which seeds the traffic
    kind = weather
    if weather == "random":
        kind = ("rain", "night", "day")[int(rng.integers(3))]
    strength = float(rng.random())
    if kind == "rain":
        return Sky(
            ambient=0.80 - 0.15 * strength,
            beam=0.0,
            haze_per_m=0.012 + 0.010 * strength,
            haze_grey=105.0,
            sky_ambient=0.65,
            streaks=0.25 + 0.25 * strength,
            seed=scene_seed,
        )
    if kind == "night":
        return Sky(
            ambient=0.24 - 0.10 * strength,
            beam=1.1,
            haze_per_m=0.0,
            haze_grey=0.0,
            sky_ambient=0.16 - 0.08 * strength,
            streaks=0.0,
            seed=scene_seed,
        )
    return Sky(
        ambient=0.70 + 0.50 * strength,
        beam=0.0,
        haze_per_m=0.0,
        haze_grey=0.0,
        sky_ambient=0.75 + 0.35 * strength,
        streaks=0.0,
        seed=scene_seed,
    )


class WeatherFilter:
    """Apply the light, haze and rain of a ``Sky`` to the pictures of one camera.

    :param sky: the light, the haze and the rain
    :param distances_m: ``(n_rows,)``: distance of the ground that each row below the horizon shows
    :param sides: ``(width,)``: tangent of the horizontal angle between each column's direction and straight ahead
    :param horizon: row at which the ground begins
    """

    def __init__(
        self, sky: Sky, distances_m: NDArray[np.floating[Any]], sides: NDArray[np.floating[Any]], horizon: int
    ) -> None:
        self._seed, self._horizon = sky.seed, horizon
        # The gain and the veil are (height, width). The haze does not affect the sky. Below the horizon, the gain and
        # the veil follow from the row's distance and the column's direction, as in Sky.gain_and_veil.
        shape = (horizon + len(distances_m), len(sides))
        gain, veil = np.empty(shape), np.zeros(shape)
        gain[:horizon] = sky.sky_ambient
        falling = np.exp(-distances_m / _BEAM_M)[:, None] * np.exp(-((sides / _HALF_BEAM) ** 2))[None]
        clear = np.exp(-sky.haze_per_m * distances_m)[:, None]
        gain[horizon:] = (sky.ambient + sky.beam * falling) * clear
        veil[horizon:] = sky.haze_grey * (1.0 - clear)
        self._gain = np.clip(gain * _GAIN_UNIT, 0, 255).astype(np.uint8)
        self._veil = veil.astype(np.uint8)
        # A picture with twice the side length has twice as many streaks of twice the length, so the rain looks equally
        # dense.
        self._n_streaks = round(sky.streaks * math.sqrt(shape[0] * shape[1]))

    def apply(self, frame: NDArray[np.uint8]) -> None:
        """Apply light and haze, but no rain, to ``frame`` in place.

        :param frame: ``(height, width) uint8`` grey or ``(height, width, 3) uint8`` RGB
        """
        gain, veil = self._gain, self._veil
        if frame.ndim == 3:
            gain = np.asarray(cv2.merge([gain] * 3), np.uint8)
            veil = np.asarray(cv2.merge([veil] * 3), np.uint8)
        # Saturating arithmetic in uint8 avoids a conversion to float and back.
        cv2.multiply(frame, gain, dst=frame, scale=1.0 / _GAIN_UNIT)
        cv2.add(frame, veil, dst=frame)

    def draw_rain(self, frame: NDArray[np.uint8], tick: int) -> None:
        """Draw the streaks of rain of one tick onto ``frame``, in place.

        :param frame: ``(height, width) uint8`` grey or ``(height, width, 3) uint8`` RGB
        :param tick: number of the tick; each tick has its own streaks
        """
        if not self._n_streaks:
            return
        height, width = frame.shape[:2]
        rng = np.random.default_rng([self._seed, 3, tick])
        # (n_streaks, 2): upper ends, which may lie above the picture by up to a fifth of its height. The rain falls
        # slightly to the left.
        tops = rng.uniform((0.0, -0.2 * height), (width, height), (self._n_streaks, 2))
        lengths = rng.uniform(0.04, 0.10, self._n_streaks) * height
        ends = tops + np.stack([-0.25 * lengths, lengths], axis=1)
        streaks = np.zeros((height, width), np.uint8)
        lines = np.stack([tops, ends], axis=1).round().astype(np.int32)
        cv2.polylines(streaks, list(lines), False, _STREAK_GREY, max(1, height // 200), cv2.LINE_AA)
        if frame.ndim == 3:
            streaks = np.asarray(cv2.merge([streaks] * 3), np.uint8)
        cv2.add(frame, streaks, dst=frame)
