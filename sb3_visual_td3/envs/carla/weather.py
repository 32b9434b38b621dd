"""The weather of an episode in CARLA's parameters."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

_KINDS = ("clear", "rain", "night", "random")
_SUN = {"sun_azimuth_angle": 250.0}

PARAMETERS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "clear": {"cloudiness": 10.0, "sun_altitude_angle": 60.0, **_SUN},
        "rain": {
            "cloudiness": 90.0,
            "precipitation": 70.0,
            "precipitation_deposits": 60.0,
            "wetness": 80.0,
            "sun_altitude_angle": 45.0,
            "fog_density": 15.0,
            **_SUN,
        },
        "night": {"cloudiness": 20.0, "sun_altitude_angle": -30.0, **_SUN},
    }
)
"""What our names stand for; the same as LiteDriving-v0's. Parameters that are not named are 0."""


def check_weather(weather: object, presets: tuple[str, ...] | None = None) -> str:
    """Return the name of a weather: one of ours, ``"random"``, or of one of CARLA's presets.

    :param weather: what was asked for.
    :param presets: of CARLA's client; None: it is not loaded yet, and any name in capital letters passes.
    :raises ValueError: if there is no such weather.
    """
    is_preset = isinstance(weather, str) and (weather[:1].isupper() if presets is None else weather in presets)
    if not isinstance(weather, str) or (weather not in _KINDS and not is_preset):
        raise ValueError(
            f"weather={weather!r}: expected one of {list(_KINDS)}, or one of CARLA's presets, such as "
            f"{', '.join(repr(each) for each in (presets or ('ClearNoon', 'WetSunset'))[:20])}"
        )
    return weather


def weather_of_scene(weather: str, scene_seed: int) -> str:
    """Return the weather of one episode: ``"random"`` draws clear, rain or night; any other is itself."""
    if weather != "random":
        return weather
    return str(np.random.default_rng([scene_seed, 2]).choice(list(PARAMETERS)))
