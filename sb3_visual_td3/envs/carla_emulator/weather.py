"""CARLA's weather as the embedded world's light."""

from __future__ import annotations

from collections.abc import Sequence

from sb3_visual_td3.envs.lite.weather import Sky

CLEAR_NOON = (10.0, 0.0, 0.0, 10.0, 250.0, 60.0, 0.0, 0.75, 0.1, 0.0, 0.03, 0.03, 0.0331, 0.0)
"""Cloudiness, precipitation, deposits, wind, azimuth and altitude of the sun, fog: density, distance, falloff; wetness,
scattering, Mie, Rayleigh, dust."""
_DAY_DEG = 15.0
_SEED = 0


def sky_of(weather: Sequence[float]) -> Sky | None:
    """Return the light of a weather; None where it is a clear day.

    :param weather: CARLA's parameters, in the order of ``CLEAR_NOON``.
    """
    cloudiness, precipitation, fog, sun_deg = weather[0], weather[1], weather[6], weather[5]
    day = min(1.0, max(0.0, sun_deg / _DAY_DEG))
    if day == 1.0 and precipitation <= 0.0 and fog <= 0.0 and cloudiness <= 50.0:
        return None
    gloom = 1.0 - 0.25 * max(precipitation, cloudiness) / 100.0
    ambient = (0.18 + 0.82 * day) * gloom
    haze_per_m = 0.02 * precipitation / 100.0 + 0.03 * fog / 100.0
    streaks = 0.5 * precipitation / 100.0
    return Sky(ambient, 1.1 * (1.0 - day), haze_per_m, 105.0 * day, ambient, streaks, _SEED)
