"""Light and weather: what they do to a grey value, to a whole picture and to the air in between."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

Weather = Literal["clear", "rain", "night", "random"]
WEATHERS: tuple[str, ...] = get_args(Weather)

_HALF_BEAM = 0.45
"""Tangent of the angle to the side at which the headlights have lost most of their light."""
_BEAM_M = 18.0
"""The headlights' light falls off over so many metres."""
_GAIN_UNIT = 128.0
_STREAK_GREY = 40


class Sky(NamedTuple):
    """The light of one episode."""

    ambient: float
    """Factor on everything, 1 on a clear day."""
    beam: float
    """Factor that the own headlights add where they shine brightest."""
    haze_per_m: float
    """Part of the light that is lost in the air per metre."""
    haze_grey: float
    """What the air itself looks like, [0, 255]."""
    sky_ambient: float
    """Factor on all that stands above the horizon."""
    streaks: float
    """Streaks of rain in a picture, over the square root of its pixels."""
    seed: int

    def gain_and_veil(self, distance_m: float, side: float) -> tuple[float, float]:
        """Return factor and summand that a grey value suffers.

        :param distance_m: metres from the camera, >= 0.
        :param side: tangent of the angle to the side, either sign.
        """
        lit = self.beam * math.exp(-distance_m / _BEAM_M - (side / _HALF_BEAM) ** 2)
        clear = math.exp(-self.haze_per_m * distance_m)
        return (self.ambient + lit) * clear, self.haze_grey * (1.0 - clear)

    def gains_and_veils(
        self, distances_m: NDArray[np.float32], sides: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the same for many places: new arrays."""
        lit = np.float32(self.beam) * np.exp(-distances_m / np.float32(_BEAM_M) - (sides / np.float32(_HALF_BEAM)) ** 2)
        clear = np.exp(np.float32(-self.haze_per_m) * distances_m)
        return (np.float32(self.ambient) + lit) * clear, np.float32(self.haze_grey) * (np.float32(1.0) - clear)


def choose_sky(weather: str, scene_seed: int) -> Sky | None:
    """Return the light that ``scene_seed`` gives to ``weather``; ``None`` for a clear day as it always looks.

    :param weather: ``"clear"``, ``"rain"``, ``"night"``, or ``"random"``: one of these, or a day of any brightness.
    """
    if weather == "clear":
        return None
    rng = np.random.default_rng([scene_seed, 2])
    kind = ("rain", "night", "day")[int(rng.integers(3))] if weather == "random" else weather
    strength = float(rng.random())
    if kind == "rain":
        return Sky(
            0.80 - 0.15 * strength, 0.0, 0.012 + 0.010 * strength, 105.0, 0.65, 0.25 + 0.25 * strength, scene_seed
        )
    if kind == "night":
        return Sky(0.24 - 0.10 * strength, 1.1, 0.0, 0.0, 0.16 - 0.08 * strength, 0.0, scene_seed)
    return Sky(0.70 + 0.50 * strength, 0.0, 0.0, 0.0, 0.75 + 0.35 * strength, 0.0, scene_seed)


class WeatherFilter:
    """Puts the light of a ``Sky`` onto pictures of one camera.

    :param sky: the light.
    :param distances_m: ``(n_rows,)``: how far the ground lies that the rows below the horizon see.
    :param sides: ``(width,)``: tangent of the angle to the side of each column.
    :param horizon: row at which the ground begins.
    """

    def __init__(
        self, sky: Sky, distances_m: NDArray[np.floating[Any]], sides: NDArray[np.floating[Any]], horizon: int
    ) -> None:
        self._seed, self._horizon = sky.seed, horizon
        shape = (horizon + len(distances_m), len(sides))
        gain, veil = np.empty(shape), np.zeros(shape)
        gain[:horizon] = sky.sky_ambient
        falling = np.exp(-distances_m / _BEAM_M)[:, None] * np.exp(-((sides / _HALF_BEAM) ** 2))[None]
        clear = np.exp(-sky.haze_per_m * distances_m)[:, None]
        gain[horizon:] = (sky.ambient + sky.beam * falling) * clear
        veil[horizon:] = sky.haze_grey * (1.0 - clear)
        self._gain = np.clip(gain * _GAIN_UNIT, 0, 255).astype(np.uint8)
        self._veil = veil.astype(np.uint8)
        self._n_streaks = round(sky.streaks * math.sqrt(shape[0] * shape[1]))

    def apply(self, frame: NDArray[np.uint8]) -> None:
        """Change ``frame``, ``(height, width) uint8`` or with three colours behind, in place."""
        is_grey = frame.ndim == 2
        gain, veil = (each if is_grey else cv2.merge([each] * 3) for each in (self._gain, self._veil))
        cv2.multiply(frame, gain, dst=frame, scale=1.0 / _GAIN_UNIT)
        cv2.add(frame, veil, dst=frame)

    def draw_rain(self, frame: NDArray[np.uint8], tick: int) -> None:
        """Let the streaks of this tick fall over ``frame``, in place."""
        if not self._n_streaks:
            return
        height, width = frame.shape[:2]
        rng = np.random.default_rng([self._seed, 3, tick])
        tops = rng.uniform((0.0, -0.2 * height), (width, height), (self._n_streaks, 2))
        lengths = rng.uniform(0.04, 0.10, self._n_streaks) * height
        ends = tops + np.stack([-0.25 * lengths, lengths], axis=1)
        streaks = np.zeros((height, width), np.uint8)
        lines = np.stack([tops, ends], axis=1).round().astype(np.int32)
        cv2.polylines(streaks, list(lines), False, _STREAK_GREY, max(1, height // 200), cv2.LINE_AA)
        cv2.add(frame, streaks if frame.ndim == 2 else cv2.merge([streaks] * 3), dst=frame)
